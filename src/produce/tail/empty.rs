//! Files that are empty so far: there is nothing to know them by, so they are not followed yet, but
//! their descriptors are kept. A server has a log open that is still empty when it is rotated to where
//! nobody looks, or deleted, and writes its first line there.
//!
//! Invariant: what is written to an empty file that was found under a covered path is read, whatever
//! the file is called by then, as long as it is held: like any rotated one, and while there are
//! descriptors that nothing else needs.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::generations::Candidate;
use super::tailer::{HOLD_DELETED, Tailer};
use crate::produce::watch::facts::Place;
use crate::produce::watch::patterns::Found;
use crate::produce::watch::unopened::Claim;

/// The empty files that are held.
#[derive(Debug, Default)]
pub(super) struct Empties {
    files: HashMap<Place, Empty>,
    /// Where those stand that have a covered name.
    paths: HashMap<Arc<Path>, Place>,
}

#[derive(Debug)]
struct Empty {
    candidate: Candidate,
    /// Since when no covered path stands for it; nothing where one does.
    adrift_since: Option<Instant>,
}

impl Empties {
    /// Returns how many descriptors they have.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Returns true where the file in a place is held.
    pub(super) fn contains(&self, place: Place) -> bool {
        self.files.contains_key(&place)
    }

    /// Returns true where some are held that no covered path stands for: no scan finds them.
    pub(super) fn any_adrift(&self) -> bool {
        self.files.values().any(|empty| empty.adrift_since.is_some())
    }

    fn hold(&mut self, candidate: Candidate) {
        let place = candidate.facts.place();
        self.paths.insert(Arc::clone(&candidate.path), place);
        self.files.insert(place, Empty { candidate, adrift_since: None });
    }

    fn name_at(&self, path: &Path) -> Option<Place> {
        self.paths.get(path).copied()
    }

    /// A path stands for another file now, or for none.
    pub(super) fn lose_name(&mut self, path: &Path, now: Instant) {
        let place = self.paths.remove(path);
        if let Some(empty) = place.and_then(|place| self.files.get_mut(&place)) {
            empty.adrift_since = Some(now);
        }
    }

    /// A file is found under a path, which may be another one than before.
    fn see(&mut self, place: Place, path: &Path, is_covered: bool, now: Instant) {
        let Some(empty) = self.files.get_mut(&place) else { return };
        if *empty.candidate.path != *path {
            if self.paths.get(&empty.candidate.path) == Some(&place) {
                self.paths.remove(&empty.candidate.path);
            }
            empty.candidate.path = Arc::from(path);
        }
        if is_covered {
            empty.adrift_since = None;
            self.paths.insert(Arc::clone(&empty.candidate.path), place);
        } else {
            empty.adrift_since.get_or_insert(now);
        }
    }

    fn remove(&mut self, place: Place) -> Option<Candidate> {
        let Empty { mut candidate, adrift_since } = self.files.remove(&place)?;
        if self.paths.get(&candidate.path) == Some(&place) {
            self.paths.remove(&candidate.path);
        }
        candidate.named = adrift_since.is_none();
        Some(candidate)
    }

    /// Lets the one go that has been adrift for longest, or else any; returns by what it was claimed.
    pub(super) fn drop_one(&mut self) -> Option<Claim> {
        let oldest = self
            .files
            .iter()
            .min_by_key(|(_, empty)| (empty.adrift_since.is_none(), empty.adrift_since));
        let place = oldest.map(|(place, _)| *place)?;
        let dropped = self.remove(place)?;
        Some((place, dropped.facts.birth))
    }

    fn adrift(&self) -> Vec<(Place, Instant)> {
        let since = |(place, empty): (&Place, &Empty)| Some((*place, empty.adrift_since?));
        self.files.iter().filter_map(since).collect()
    }

    fn named(&self) -> Vec<(Arc<Path>, Place)> {
        self.paths.iter().map(|(path, place)| (Arc::clone(path), *place)).collect()
    }

    /// Returns the one in a place.
    pub(super) fn get(&self, place: Place) -> Option<&Candidate> {
        self.files.get(&place).map(|empty| &empty.candidate)
    }
}

impl Tailer {
    /// Keeps the descriptor of a file that is empty so far, where nothing else needs it.
    pub(super) fn hold_empty(&mut self, candidate: Candidate) {
        let open = self.named_open().saturating_add(self.empties.len());
        let is_free = open < self.flow.tail.open_files && self.has_descriptor();
        if is_free && candidate.named && self.patterns.matches(&candidate.path) {
            self.empties.hold(candidate);
        }
    }

    /// An empty file that is held was found under a path.
    pub(super) fn see_empty(&mut self, found: &Found, now: Instant) {
        let place = found.facts.place();
        let is_covered = self.patterns.matches(&found.path);
        self.empties.see(place, &found.path, is_covered, now);
        if found.facts.size > 0 {
            self.consider_written(place, now);
        }
    }

    /// Something was written to an empty file: now it can be told what it is.
    fn consider_written(&mut self, place: Place, now: Instant) {
        let Some(mut candidate) = self.empties.remove(place) else { return };
        match candidate.refresh() {
            Ok(()) => self.consider(candidate, now),
            Err(error) => self.around.status.trouble(&candidate.path, &error),
        }
    }

    /// Whatever else was known under a path has lost it: the file in `place` stands there.
    pub(super) fn yield_path(&mut self, path: &Path, place: Place, now: Instant) {
        let other = self.files.named(path).and_then(|key| self.files.get(key));
        if let Some(key) = other.filter(|other| other.place() != place).map(|other| other.key) {
            self.lose_name(key, now);
        }
        if self.empties.name_at(path).is_some_and(|other| other != place) {
            self.empties.lose_name(path, now);
        }
    }

    /// Looks after those that no covered path stands for.
    pub(super) fn keep_empties(&mut self, now: Instant) {
        for (place, since) in self.empties.adrift() {
            let Some(metadata) =
                self.empties.get(place).and_then(|empty| empty.handle.metadata().ok())
            else {
                continue;
            };
            let is_deleted = metadata.nlink() == 0;
            let hold = if is_deleted { HOLD_DELETED } else { self.flow.tail.hold_rotated };
            if metadata.len() > 0 {
                self.consider_written(place, now);
            } else if now.saturating_duration_since(since) >= hold {
                self.empties.remove(place);
            }
        }
    }

    /// After a scan: one whose path stands for something else has lost its name unseen.
    pub(super) fn scan_empties(&mut self, now: Instant) {
        for (path, place) in self.empties.named() {
            if !super::follow::stands_at(&path, place) {
                self.empties.lose_name(&path, now);
            }
        }
    }
}
