//! Where a file stands that is not where it was: looked for by its inode in the directory it stood in.
//!
//! Invariant: however many files are looked for, their directory is listed once; and what is found under a
//! name is opened before anything is decided about it, for renames go on meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::generations::{Candidate, GRACE};
use super::tailer::{LOOKS_MAX, Tailer};
use crate::position::FileKey;
use crate::produce::watch::facts::Place;

/// How many directories are listed at a time for files without a name and a descriptor.
const SEARCHES: usize = 16;

impl Tailer {
    /// Looks for files without a name and without a descriptor: they may stand in their directories under
    /// other names.
    pub(super) fn find_elsewhere(&mut self, keys: &[FileKey], now: Instant) {
        let mut missing: BTreeMap<PathBuf, Vec<(FileKey, Place)>> = BTreeMap::new();
        for (key, file) in keys.iter().filter_map(|key| Some((*key, self.files.get(*key)?))) {
            let directory = directory_of(&file.path);
            if let Some(files) = missing.get_mut(directory) {
                files.push((key, file.place()));
            } else if missing.len() < SEARCHES {
                missing.insert(directory.to_owned(), vec![(key, file.place())]);
            }
        }
        for (directory, files) in missing {
            match names_of(&directory, &files.iter().map(|(_, place)| *place).collect()) {
                Ok(names) => {
                    for (key, place) in files {
                        let name = names.get(&place.inode).map(PathBuf::as_path);
                        self.look_at_name(key, name, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    for (key, _) in files {
                        self.look_at_name(key, None, now);
                    }
                }
                Err(error) => self.around.status.trouble(&directory, &error),
            }
        }
    }

    /// A file was found under a name, or not. Renames go on meanwhile, so it is gone only once it was not
    /// found for a while.
    fn look_at_name(&mut self, key: FileKey, name: Option<&Path>, now: Instant) {
        if !self.has_descriptor() {
            return;
        }
        let Some(file) = self.files.get(key) else { return };
        let (place, size, since) = (file.place(), file.size, file.changed_at);
        match name.map(|name| Candidate::open(name, false)).transpose() {
            Ok(Some(candidate)) if candidate.facts.place() == place => {
                self.found_elsewhere(key, candidate, now);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.around.status.trouble(&file.path, &error);
            }
            _ if now.saturating_duration_since(since) >= GRACE => {
                self.end(key, size, "deleted", now);
            }
            _ => {}
        }
    }

    fn found_elsewhere(&mut self, key: FileKey, candidate: Candidate, now: Instant) {
        let Some(file) = self.files.get_mut(key) else { return };
        if file.is_born_otherwise(candidate.facts.birth) {
            // The inode was used again.
            let size = file.size;
            return self.end(key, size, "deleted", now);
        }
        file.path = candidate.path;
        file.handle = Some(candidate.handle);
        self.moved(key);
        self.opened_again(key);
        self.enqueue(key);
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

/// Looks for what is missing in a directory until nothing is, or no name there has changed meanwhile: a file
/// that is renamed while its directory is listed may stand under none of the names, or not any more under
/// the one. A few times at most: renames may never cease.
pub(super) fn look_while_names_change<T>(
    missing: &mut Vec<T>,
    directory: &Path,
    mut look: impl FnMut(&mut Vec<T>),
) {
    let changed_at = || directory.metadata().and_then(|metadata| metadata.modified()).ok();
    for _ in 0..LOOKS_MAX {
        let before = changed_at();
        look(missing);
        if missing.is_empty() || before == changed_at() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn what_is_missing_is_looked_for_again_while_names_change() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut at = SystemTime::UNIX_EPOCH;
        let mut change = || {
            at += Duration::from_secs(1);
            std::fs::File::open(path).unwrap().set_modified(at).unwrap();
        };
        // (names change during the first so many looks, the look that finds it) -> looks
        for (changes, found_by, looks) in [(0, 1, 1), (0, 2, 1), (1, 2, 2), (9, 3, 3), (9, 9, 4)] {
            let (mut missing, mut looked) = (vec!["app.log.1"], 0);
            look_while_names_change(&mut missing, path, |missing| {
                looked += 1;
                if looked <= changes {
                    change();
                }
                missing.retain(|_| looked < found_by);
            });
            assert_eq!((looked, missing.is_empty()), (looks, found_by <= looks));
        }
    }
}
