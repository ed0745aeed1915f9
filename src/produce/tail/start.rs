//! The end of the first scan: what the checkpoint knows and no pattern has found, and what is new.
//!
//! Invariant: a directory is listed once, however many files are looked for in it, and again only where
//! its names change meanwhile; and what the checkpoint tells of is told to those behind before anything
//! new is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::FileEvent;
use super::follow::stands_at;
use super::generations::{Candidate, Ended};
use super::identity::Verdict;
use super::search::{directory_of, look_while_names_change, names_of};
use super::tailer::{Phase, Tailer};
use crate::position::FileKey;
use crate::produce::watch::facts::Place;

/// New files that the first scan found.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    open: Vec<Candidate>,
    /// Those for which there was no descriptor.
    closed: BTreeSet<Arc<Path>>,
}

impl Deferred {
    /// Returns how many descriptors they have.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// A file was found under a path; returns true where it is one of those that are open.
    pub(super) fn see(&mut self, place: Place, path: &Path) -> bool {
        let known = self.open.iter_mut().find(|candidate| candidate.facts.place() == place);
        known.is_some_and(|candidate| {
            if *candidate.path != *path {
                candidate.path = Arc::from(path);
            }
            true
        })
    }
}

impl Tailer {
    /// Ends the first scan: what the checkpoint knows and no pattern found is looked for beside where
    /// it was, then the files that are new can be told from copies of it.
    pub(super) fn finish_start(&mut self, now: Instant) {
        let mut missing: BTreeMap<PathBuf, Vec<Ended>> = BTreeMap::new();
        for known in self.generations.take_missing() {
            missing.entry(directory_of(&known.path).to_owned()).or_default().push(known);
        }
        for (directory, mut missing) in missing {
            look_while_names_change(&mut missing, &directory, |missing| {
                let places = missing.iter().map(Ended::place);
                // What cannot be listed holds nothing that could be followed.
                let names = names_of(&directory, &places.collect()).unwrap_or_default();
                missing.retain(|known| !self.look_for(known, names.get(&known.place().inode), now));
            });
            let is_there = directory.is_dir();
            for known in missing {
                self.miss(known, is_there, now);
            }
        }
        self.phase = Phase::Started;
        let deferred = std::mem::take(&mut self.deferred);
        for mut candidate in deferred.open {
            if let Err(error) = candidate.refresh() {
                self.around.status.trouble(&candidate.path, &error);
            }
            candidate.named = stands_at(&candidate.path, candidate.facts.place());
            self.consider(candidate, now);
        }
        for path in deferred.closed {
            // It may stand for another file by now, even for one that is followed.
            self.observe(&path, now);
        }
        self.oldest_first();
        self.outbox.push(FileEvent::Scanned);
    }

    /// Reads first what was written first: a rotation deletes the oldest, and as much may wait as takes
    /// longer to read than until it comes.
    fn oldest_first(&mut self) {
        let files = &self.files;
        let written = |key: &FileKey| files.get(*key).map(|file| file.modified);
        self.ready.make_contiguous().sort_by_key(written);
    }

    /// Keeps a new file until it is known which known ones are missing. Open, where there is a descriptor
    /// for it: it may be renamed or deleted meanwhile.
    pub(super) fn defer(&mut self, candidate: Candidate) {
        let open = self.named_open().saturating_add(self.deferred.len());
        if open < self.flow.tail.open_files && self.has_descriptor() {
            self.deferred.open.push(candidate);
        } else {
            self.deferred.closed.insert(candidate.path);
        }
    }

    /// A known file that no pattern finds: returns true where its inode stands under `name`, renamed in its
    /// directory.
    fn look_for(&mut self, known: &Ended, name: Option<&PathBuf>, now: Instant) -> bool {
        let renamed = name
            .and_then(|path| Candidate::open(path, false).ok())
            .filter(|candidate| candidate.facts.place() == known.place());
        if let Some(candidate) = renamed
            && let Ok((Verdict::Same, before)) = candidate.compare(&known.known)
        {
            self.adopt(known, before, candidate, now);
            return true;
        }
        false
    }

    /// A known file is gone.
    fn miss(&mut self, mut known: Ended, is_there: bool, now: Instant) {
        tracing::info!(
            flow = &*self.flow.name, path = %known.path.display(),
            "a file is gone since the agent stopped"
        );
        let (key, end) = (known.key, known.known.position.offset);
        self.outbox.push(FileEvent::Closed { key, end, gone: true });
        if is_there {
            known.give_up(now);
        }
        self.generations.add(known);
    }
}
