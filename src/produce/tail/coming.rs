//! What came and may be gone before anybody looks: opened in time, or counted as missed.
//!
//! Invariant: each file that is told to have come is opened, known already, or counted once.

use std::io;
use std::time::Instant;

use super::follow::stands_at;
use super::generations::Candidate;
use super::tailer::Tailer;
use crate::produce::watch::facts::Place;
use crate::produce::watch::unopened::Gone;

impl Tailer {
    /// Opens what came and was not opened so far, wherever it stands by now: a file that was renamed
    /// out of all patterns before anybody looked is read like any rotated one.
    pub(super) fn open_unopened(&mut self, now: Instant) {
        for (path, origin) in self.unopened.take_fresh() {
            let Ok(Some(found)) = crate::produce::watch::patterns::find(&path) else { continue };
            let (place, birth) = (found.facts.place(), found.facts.birth);
            if self.patterns.matches(&path) {
                // Opened already, but where it came since its path was looked at.
                if !self.is_known(place, birth) {
                    self.follow(found, now);
                }
            } else if !self.is_known(place, birth) && found.facts.size > 0 {
                match Candidate::open(&path, found.linked) {
                    Ok(candidate) if candidate.facts.place() == place => {
                        self.consider(Candidate { origin, ..candidate }, now);
                    }
                    // It was renamed since, and that will be told.
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        self.around.status.trouble(&path, &error);
                        self.unopened.look_again(&path);
                    }
                }
            }
            if self.is_known(place, birth) {
                self.unopened.opened(&path, place, birth);
            }
        }
    }

    /// Returns true where it is decided what the file is, or will be decided without its name.
    fn is_known(&self, place: Place, birth: u64) -> bool {
        self.places.contains_key(&place)
            || self.ignored.contains(&(place, birth))
            || self.is_undecided(place)
    }

    /// Returns true where a descriptor of the file is held, and it is not known yet what it is.
    fn is_undecided(&self, place: Place) -> bool {
        self.empties.contains(place)
            || self.held.iter().any(|(held, ..)| held.facts.place() == place)
    }

    /// Counts the files that nobody could open in time.
    pub(super) fn tell_missed(&mut self) {
        let mut gone = self.unopened.take_gone();
        gone.retain(|gone| !self.was_opened(gone));
        if let Some(first) = gone.first() {
            self.around.status.missed(&self.flow.name, &first.path, gone.len());
        }
    }

    /// Returns true where a file that is gone was opened. Each one that is followed is taken for one.
    fn was_opened(&mut self, gone: &Gone) -> bool {
        let key = match gone.claimed {
            Some(place) => match self.places.get(&place) {
                Some(key) => Some(*key),
                // What was opened, and is followed no more, has been read to its end. What is not
                // followed yet is there, and so another one.
                None => return !self.is_undecided(place),
            },
            // No look found it where it was told to be: it had moved on, or a scan had opened it
            // before its coming was told. Then one that came under its path is deleted, and is taken
            // for no other one.
            None => self.files.values().map(|file| &**file).find_map(|file| {
                let is_free = file.origin == gone.origin && !file.told_gone;
                let is_it = is_free && !self.unopened.is_claimed(file.place()) && file.is_deleted();
                is_it.then_some(file.key)
            }),
        };
        let Some(file) = key.and_then(|key| self.files.get_mut(&key)) else { return false };
        let is_gone = match &file.handle {
            Some(_) => file.is_deleted(),
            None => !stands_at(&gone.path, file.place()),
        };
        is_gone && !std::mem::replace(&mut file.told_gone, true)
    }
}
