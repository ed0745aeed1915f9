//! The end of the first scan: what the checkpoint knows and no pattern has found, and what is new.
//!
//! Invariant: a directory is listed once, however many files are looked for in it; and what the checkpoint
//! tells of is told to those behind before anything new is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::generations::{Candidate, Ended};
use super::identity::Verdict;
use super::tailer::{Phase, Tailer};
use super::{FileEvent, Output};
use crate::produce::watch::facts::Place;

impl Tailer {
    /// Ends the first scan: what the checkpoint knows and no pattern found is looked for beside where
    /// it was, then the files that are new can be told from copies of it.
    pub(super) fn finish_start(&mut self, now: Instant) {
        let mut missing: BTreeMap<PathBuf, Vec<Ended>> = BTreeMap::new();
        for known in self.generations.take_missing() {
            missing.entry(directory_of(&known.path).to_owned()).or_default().push(known);
        }
        for (directory, missing) in missing {
            let places = missing.iter().map(Ended::place);
            // What cannot be listed holds nothing that could be followed.
            let names = names_of(&directory, &places.collect()).unwrap_or_default();
            let is_there = directory.is_dir();
            for known in missing {
                let name = names.get(&known.place().inode).map(PathBuf::as_path);
                self.look_for(known, name, is_there, now);
            }
        }
        self.phase = Phase::Started;
        for path in std::mem::take(&mut self.deferred) {
            if self.files.named(&path).is_none() {
                self.observe_at_start(&path, now);
            }
        }
        self.outbox.push_back(Output::File(FileEvent::Scanned));
    }

    fn observe_at_start(&mut self, path: &Path, now: Instant) {
        match Candidate::open(path, path.is_symlink()) {
            Ok(candidate) => self.consider(candidate, now),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.around.status.trouble(path, &error),
        }
    }

    /// A known file that no pattern finds: renamed in its directory, where its inode stands under
    /// `name`, or gone.
    fn look_for(&mut self, mut known: Ended, name: Option<&Path>, is_there: bool, now: Instant) {
        let renamed = name
            .and_then(|path| Candidate::open(path, false).ok())
            .filter(|candidate| candidate.facts.place() == known.place());
        if let Some(candidate) = renamed
            && let Ok((Verdict::Same, before)) = candidate.compare(&known.known)
        {
            let key = known.key;
            self.adopt(&known, before, candidate, now);
            return self.lose_name(key, now);
        }
        tracing::info!(
            flow = &*self.flow.name, path = %known.path.display(),
            "a file is gone since the agent stopped"
        );
        let (key, end) = (known.key, known.known.position.offset);
        self.outbox.push_back(Output::File(FileEvent::Closed { key, end, gone: true }));
        if is_there {
            known.give_up(now);
        }
        self.generations.add(known);
    }
}

/// Returns the directory that a file stands in.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Returns where the files in `places` stand in `directory`, by inode: a name a file.
///
/// # Errors
/// Those of reading the directory.
pub(super) fn names_of(
    directory: &Path,
    places: &HashSet<Place>,
) -> io::Result<HashMap<u64, PathBuf>> {
    let inodes: HashSet<u64> = places.iter().map(|place| place.inode).collect();
    let mut names = HashMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if inodes.contains(&entry.ino()) {
            names.entry(entry.ino()).or_insert_with(|| entry.path());
        }
    }
    Ok(names)
}
