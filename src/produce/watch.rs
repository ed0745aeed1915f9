//! Watching: which paths may have changed, from inotify on directories; the periodic scan is the truth.
//!
//! Invariant: whatever happens to a watched path, either the path is among the next [`Changes`], or
//! `rescan` is set. Events that are lost (queue overflow, no watches left) only cost time, never lines:
//! then files are polled, and the scan finds the rest.

pub mod facts;
pub mod patterns;
mod told;
pub mod unopened;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher};

use self::facts::{Facts, Place};
use self::told::Told;
use self::unopened::Step;
use super::tail::wake::Wake;

/// What a change asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Bytes may have been written: read on.
    Data,
    /// The name may stand for another file now, or for none: look at it first.
    Name,
}

/// The paths that may have changed since the last look.
#[derive(Debug, Default)]
pub struct Changes {
    /// What happened to which path; the stronger change wins.
    pub paths: HashMap<PathBuf, Change>,
    /// What happened to names, in order: whoever looks late can still tell where a file went.
    pub steps: Vec<Step>,
    /// Whether more may have happened than `paths` says.
    pub rescan: bool,
}

impl Changes {
    /// Returns true where nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.rescan
    }
}

/// Watches the directories of one flow.
#[derive(Debug)]
pub struct Watch {
    /// Nothing where inotify cannot be had.
    watcher: Option<RecommendedWatcher>,
    /// What is watched: inotify watches the directory that stood at the path then, wherever it goes.
    directories: BTreeMap<PathBuf, Place>,
    changes: Arc<Mutex<Told>>,
    /// Why files must be polled, in words; nothing where every directory is watched.
    degraded: Option<String>,
}

impl Watch {
    /// Starts watching nothing yet; `wake` is rung at every change.
    #[must_use]
    pub fn new(wake: Arc<Wake>) -> Self {
        let changes = Arc::new(Mutex::new(Told::default()));
        let shared = Arc::clone(&changes);
        let on_event = move |event: notify::Result<Event>| {
            {
                let mut told = lock(&shared);
                match event {
                    Ok(event) => told.add(&event),
                    // What could not be told may be anything.
                    Err(_) => told.changes.rescan = true,
                }
                if told.changes.is_empty() {
                    return;
                }
            }
            wake.ring();
        };
        let (watcher, degraded) = match RecommendedWatcher::new(on_event, Config::default()) {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(format!("inotify is not available: {error}"))),
        };
        Self { watcher, directories: BTreeMap::new(), changes, degraded }
    }

    /// Returns what may have changed since the last call.
    #[must_use]
    pub fn take(&self) -> Changes {
        lock(&self.changes).take()
    }

    /// Returns why files must be polled, in words; nothing where events can be relied on.
    #[must_use]
    pub fn degraded(&self) -> Option<&str> {
        self.degraded.as_deref()
    }

    /// Watches exactly `wanted` from now on, as far as the system lets; returns true where a
    /// directory was added, whose files may have changed before it was watched. A directory that
    /// stands where another one was watched is added anew.
    pub fn set_directories(&mut self, wanted: &BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let mut present = present(wanted);
        self.directories.retain(|path, place| {
            let stays = present.get(path) == Some(place);
            if !stays {
                // A directory that was removed has lost its watch already.
                let _ = watcher.unwatch(path);
            }
            stays
        });
        present.retain(|path, _| !self.directories.contains_key(path));
        let mut degraded = None;
        let mut added = false;
        for (directory, place) in present {
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.directories.insert(directory, place);
                    added = true;
                }
                Err(error) if is_missing(&error) => {}
                Err(error) => {
                    degraded = Some(format!("cannot watch {}: {error}", directory.display()));
                }
            }
        }
        self.degraded = degraded;
        added
    }

    /// Returns true where `path` is a directory that is, or was, watched.
    #[must_use]
    pub fn is_watched(&self, path: &Path) -> bool {
        self.directories.contains_key(path)
    }

    /// Forgets that `path` is watched: a directory under that name was removed or replaced, so
    /// that the next [`Watch::set_directories`] watches what stands there then.
    pub fn forget(&mut self, path: &Path) {
        if self.directories.remove(path).is_some()
            && let Some(watcher) = &mut self.watcher
        {
            let _ = watcher.unwatch(path);
        }
    }
}

/// Returns the directories that exist, each under its first path only: two watches of one directory
/// are one to the system, and would end together.
fn present(wanted: &BTreeSet<PathBuf>) -> BTreeMap<PathBuf, Place> {
    let mut places = HashSet::new();
    let look = |path: &PathBuf| Some((path.clone(), Facts::of(&path.metadata().ok()?).place()));
    wanted.iter().filter_map(look).filter(|(_, place)| places.insert(*place)).collect()
}

fn lock(changes: &Mutex<Told>) -> std::sync::MutexGuard<'_, Told> {
    // A panic ends the process in production, and no state in here can be left half changed.
    changes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_missing(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::PathNotFound => true,
        notify::ErrorKind::Io(error) => error.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;

    /// Collects changes until `done` or a deadline.
    fn collect(watch: &Watch, wake: &Wake, done: impl Fn(&Changes) -> bool) -> Changes {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut all = Changes::default();
        while !done(&all) {
            assert!(Instant::now() < deadline, "never seen: {all:?}");
            let changes = watch.take();
            all.rescan |= changes.rescan;
            for (path, change) in changes.paths {
                let known = all.paths.entry(path).or_insert(change);
                *known = change.max(*known);
            }
            wake.wait(Duration::from_millis(50));
        }
        all
    }

    #[test]
    fn writes_are_data_and_renames_are_names() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let (old, new) = (root.join("app.log"), root.join("app.log.1"));
        fs::write(&old, b"one\n").unwrap();
        let wake = Arc::new(Wake::new());
        let mut watch = Watch::new(Arc::clone(&wake));
        assert!(watch.set_directories(&BTreeSet::from([root.clone()])));
        assert!(!watch.set_directories(&BTreeSet::from([root])));
        assert_eq!(watch.degraded(), None);

        fs::OpenOptions::new()
            .append(true)
            .open(&old)
            .and_then(|mut file| {
                use std::io::Write;
                file.write_all(b"two\n")
            })
            .unwrap();
        let seen = collect(&watch, &wake, |seen| seen.paths.contains_key(&old));
        assert_eq!(seen.paths[&old], Change::Data);

        fs::rename(&old, &new).unwrap();
        collect(&watch, &wake, |seen| {
            seen.paths.get(&old) == Some(&Change::Name)
                && seen.paths.get(&new) == Some(&Change::Name)
        });
    }

    #[test]
    fn a_directory_that_was_made_again_is_watched_again() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().canonicalize().unwrap().join("logs");
        let wanted = BTreeSet::from([root.clone()]);
        let wake = Arc::new(Wake::new());
        let mut watch = Watch::new(Arc::clone(&wake));
        fs::create_dir(&root).unwrap();
        assert!(watch.set_directories(&wanted));
        for old in ["first", "second"] {
            fs::rename(&root, parent.path().join(old)).unwrap();
            fs::create_dir(&root).unwrap();
            assert!(watch.set_directories(&wanted), "{old}");
            assert!(!watch.set_directories(&wanted), "{old}");
            let file = root.join(format!("after-{old}.log"));
            fs::write(&file, b"line\n").unwrap();
            collect(&watch, &wake, |seen| seen.paths.contains_key(&file));
        }
        fs::remove_dir_all(&root).unwrap();
        assert!(!watch.set_directories(&wanted));
        fs::create_dir(&root).unwrap();
        assert!(watch.set_directories(&wanted));
    }

    #[test]
    fn a_directory_under_two_names_stays_watched_when_one_goes() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().canonicalize().unwrap();
        let (real, alias) = (root.join("a-real"), root.join("b-alias"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &alias).unwrap();
        let wake = Arc::new(Wake::new());
        let mut watch = Watch::new(Arc::clone(&wake));
        watch.set_directories(&BTreeSet::from([real.clone(), alias.clone()]));
        watch.set_directories(&BTreeSet::from([real.clone()]));
        let file = real.join("app.log");
        fs::write(&file, b"line\n").unwrap();
        collect(&watch, &wake, |seen| seen.paths.contains_key(&file));
    }
}
