//! What came and may be gone before anybody looks: opened in time, or counted as missed.
//!
//! Invariant: each file that is told to have come is opened, known already, or counted once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::file::{Name, TailedFile};
use super::generations::Candidate;
use super::search::{directory_of, names_of};
use super::tailer::Tailer;
use crate::position::FileKey;
use crate::produce::watch::facts::Place;
use crate::produce::watch::patterns;
use crate::produce::watch::unopened::{Claim, Gone};

impl Tailer {
    /// Opens what came and was not opened so far, wherever it stands by now: a file that was renamed
    /// out of all patterns before anybody looked is read like any rotated one.
    pub(super) fn open_unopened(&mut self, now: Instant) {
        for (path, origin) in self.unopened.take_fresh() {
            let Ok(Some(found)) = patterns::find(&path) else { continue };
            let (place, birth) = (found.facts.place(), found.facts.birth);
            if self.files.at(place).is_some() && self.key_of((place, birth)).is_none() {
                // The inode was used again while no descriptor kept it: its file ends with that look.
                self.follow(found.clone(), now);
            }
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
        self.key_of((place, birth)).is_some()
            || self.ignored.contains(&(place, birth))
            || self.undecided((place, birth)).is_some()
    }

    /// Returns the file that was claimed where a descriptor of it is held, and it is not known yet what
    /// it is; nothing where its inode is another one's by now.
    fn undecided(&self, (place, birth): Claim) -> Option<&Candidate> {
        let mut held = self.held.iter().map(|(held, ..)| held);
        let held = held.find(|held| held.facts.place() == place);
        let candidate = held.or_else(|| self.empties.get(place));
        candidate.filter(|candidate| candidate.facts.birth == birth)
    }

    /// Counts the files that nobody could open in time.
    pub(super) fn tell_missed(&mut self) {
        let mut gone = self.unopened.take_gone();
        let mut deleted = HashMap::new();
        gone.retain(|gone| !self.was_opened(gone, &mut deleted));
        if let Some(first) = gone.first() {
            self.around.status.missed(&self.flow.name, &first.path, gone.len());
        }
    }

    /// Events were lost: of what is deleted by now, nobody will be told.
    pub(super) fn forget_deleted(&mut self) {
        for file in self.files.iter_mut() {
            file.told_gone |= file.is_deleted();
        }
        self.untold.forget();
    }

    /// Returns true where a file that is gone was opened, or is none to count.
    ///
    /// Each file that is followed and deleted is taken for one, and each that ended so before it was
    /// told. For which of several need not be right: looks come late, and what stood under a path may
    /// be claimed for the one before it. Their number is, as long as every deletion that is told takes
    /// one.
    fn was_opened(&mut self, gone: &Gone, deleted: &mut Deleted) -> bool {
        if !gone.deleted {
            return self.was_moved(gone);
        }
        let known = match gone.claimed {
            Some(claim) => match self.key_of(claim) {
                Some(key) => Some(key),
                // What was opened, and is followed no more, has been read to its end.
                None if self.undecided(claim).is_none() => {
                    self.untold.take_claimed(claim);
                    return true;
                }
                None => None,
            },
            None => self.files.named(&gone.path),
        };
        let directory = directory_of(&gone.path);
        if !deleted.contains_key(directory) {
            deleted.insert(directory.to_owned(), self.deleted_in(directory));
        }
        let Some(others) = deleted.get_mut(directory) else { return false };
        let at = known.and_then(|key| others.iter().position(|other| *other == key));
        if at.is_none() && !gone.came {
            self.untold.take_at(&gone.path);
            return true;
        }
        if let Some(key) = others.remove(at.unwrap_or(0)) {
            if let Some(file) = self.files.get_mut(key) {
                file.told_gone = true;
            }
            return true;
        }
        // It was opened, and it cannot be told yet what it is; or it has ended already.
        gone.claimed.is_some_and(|claim| self.is_undecided_and_deleted(claim))
            || self.untold.take_free(directory, |claim| self.unopened.is_claimed(claim))
    }

    /// The same of a file that was moved where nobody looks: nothing more will be told of it.
    fn was_moved(&mut self, gone: &Gone) -> bool {
        let key = if let Some(claim) = gone.claimed {
            self.key_of(claim)
        } else {
            // A scan had opened it before its coming was told, and its path stands for another one now.
            let mut files = self.files.iter();
            let is_it = |file: &&TailedFile| {
                let is_free = file.name == Name::Lost && !file.told_gone;
                is_free && file.origin == gone.origin && !self.unopened.is_claimed(claim_of(file))
            };
            files.find(is_it).map(|file| file.key)
        };
        let file = key.and_then(|key| self.files.get_mut(key));
        let was_known = file.is_some_and(|file| !std::mem::replace(&mut file.told_gone, true));
        let is_claimed = |claim| self.unopened.is_claimed(claim);
        was_known || !gone.came || self.untold.take_moved(&gone.origin, is_claimed)
    }

    /// Returns the followed file that was claimed; nothing where its inode is another one's by now.
    fn key_of(&self, (place, birth): Claim) -> Option<FileKey> {
        let key = self.files.at(place);
        key.filter(|key| self.files.get(*key).is_some_and(|file| file.identity.birth == birth))
    }

    /// Returns the files that were followed in a directory and are deleted, and were not taken for one
    /// whose deletion was told: first those that no look has taken for one that came.
    fn deleted_in(&self, directory: &Path) -> VecDeque<FileKey> {
        let untold = || {
            let all = self.files.iter();
            all.filter(|file| !file.told_gone && directory_of(&file.path) == directory)
        };
        let closed = untold().filter(|file| file.handle.is_none()).map(TailedFile::place).collect();
        // What cannot be listed is not there any more.
        let names = names_of(directory, &closed).unwrap_or_default();
        let stands = |file: &TailedFile| {
            let name = names.get(&file.place().inode);
            let found = name.and_then(|name| patterns::find(name).ok().flatten());
            found.is_some_and(|found| found.facts.birth == file.identity.birth)
        };
        let is_deleted = |file: &&TailedFile| match file.handle {
            Some(_) => file.is_deleted(),
            None => !stands(file),
        };
        let is_claimed = |file: &TailedFile| self.unopened.is_claimed(claim_of(file));
        let (claimed, free): (Vec<_>, Vec<_>) =
            untold().filter(is_deleted).partition(|file| is_claimed(file));
        free.into_iter().chain(claimed).map(|file| file.key).collect()
    }

    fn is_undecided_and_deleted(&self, claim: Claim) -> bool {
        let metadata = self.undecided(claim).map(|candidate| candidate.handle.metadata());
        metadata.is_some_and(|facts| facts.is_ok_and(|facts| facts.nlink() == 0))
    }

    /// A file is followed no more: should it be deleted, that may be told later.
    pub(super) fn note_untold(&mut self, file: &TailedFile, now: Instant) {
        // Without a descriptor, it ends where its inode is another one's, or was not found any more.
        if !file.told_gone && (file.handle.is_none() || file.is_deleted()) {
            let paths = (Arc::clone(&file.path), Arc::clone(&file.origin));
            self.untold.add(claim_of(file), paths, now);
        }
    }
}

/// Returns by what a file is claimed.
fn claim_of(file: &TailedFile) -> Claim {
    (file.place(), file.identity.birth)
}

/// Files that were followed and are deleted, by directory.
type Deleted = HashMap<PathBuf, VecDeque<FileKey>>;
