//! Files that ended, deleted, before any event told of it: the events of a busy directory come late,
//! and an inode that is used again, or a search in vain, tells it sooner. Pure.
//!
//! Invariant: each is taken for one deletion that is told, at most, and for none that is told so late
//! that its own must have come: a file that nobody opened is not to be hidden by one that was.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::search::directory_of;
use crate::produce::watch::unopened::Claim;

/// How long they are remembered: events are taken at every step, and do not come later than that.
const KEPT: Duration = Duration::from_secs(10);

/// The most that are remembered; of more at once, the oldest are told of by now, or never will be.
const FILES_MAX: usize = 4096;

/// The files.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Oldest first.
    files: Vec<File>,
}

/// One of them.
#[derive(Debug)]
struct File {
    claim: Claim,
    path: Arc<Path>,
    origin: Arc<Path>,
    ended_at: Instant,
}

impl Untold {
    /// Adds one that has just ended: by what it was claimed, where it stood last, and at first.
    pub(super) fn add(
        &mut self,
        claim: Claim,
        (path, origin): (Arc<Path>, Arc<Path>),
        now: Instant,
    ) {
        if self.files.len() >= FILES_MAX {
            self.files.remove(0);
        }
        self.files.push(File { claim, path, origin, ended_at: now });
    }

    /// The deletion of a file that was taken for this one is told.
    pub(super) fn take_claimed(&mut self, claim: Claim) -> bool {
        self.take(|file| file.claim == claim)
    }

    /// The deletion of a file under `path` is told that was known before its coming could be told.
    pub(super) fn take_at(&mut self, path: &Path) -> bool {
        self.take(|file| *file.path == *path)
    }

    /// A file in the directory is told to be deleted, and none that is followed can be it: one of
    /// these may be, where it was not taken for another one that came.
    pub(super) fn take_free(
        &mut self,
        directory: &Path,
        is_claimed: impl Fn(Claim) -> bool,
    ) -> bool {
        self.take(|file| directory_of(&file.path) == directory && !is_claimed(file.claim))
    }

    /// The same of a file that was moved where nobody looks, and came at `origin`.
    pub(super) fn take_moved(&mut self, origin: &Path, is_claimed: impl Fn(Claim) -> bool) -> bool {
        self.take(|file| *file.origin == *origin && !is_claimed(file.claim))
    }

    fn take(&mut self, is_it: impl Fn(&File) -> bool) -> bool {
        let at = self.files.iter().position(is_it);
        at.map(|at| self.files.remove(at)).is_some()
    }

    /// Of what ended long ago, everything was told that will be.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.files.retain(|file| now.saturating_duration_since(file.ended_at) < KEPT);
    }

    /// Events were lost: of none it is known whether its deletion will still be told.
    pub(super) fn forget(&mut self) {
        self.files.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::watch::facts::Place;

    fn claim(inode: u64) -> Claim {
        (Place { device: 1, inode }, inode)
    }

    fn untold(files: &[(u64, &str)], now: Instant) -> Untold {
        let mut untold = Untold::default();
        for (inode, path) in files {
            let path: Arc<Path> = Arc::from(Path::new(path));
            untold.add(claim(*inode), (Arc::clone(&path), path), now);
        }
        untold
    }

    #[test]
    fn each_is_taken_once() {
        let mut untold = untold(&[(1, "/a/1"), (2, "/a/2"), (3, "/a/3")], Instant::now());
        assert!(untold.take_claimed(claim(2)));
        assert!(!untold.take_claimed(claim(2)));
        assert!(untold.take_at(Path::new("/a/1")));
        assert!(!untold.take_at(Path::new("/a/1")));
        assert!(untold.take_free(Path::new("/a"), |_| false));
        assert!(!untold.take_free(Path::new("/a"), |_| false));
    }

    #[test]
    fn none_of_another_directory_and_none_that_was_taken_for_another_one_is_taken() {
        let mut untold = untold(&[(1, "/a/1"), (2, "/b/1")], Instant::now());
        assert!(!untold.take_free(Path::new("/a"), |known| known == claim(1)));
        assert!(!untold.take_moved(Path::new("/a/1"), |known| known == claim(1)));
        assert!(!untold.take_free(Path::new("/c"), |_| false));
        assert!(untold.take_moved(Path::new("/a/1"), |_| false));
        assert!(!untold.take_free(Path::new("/a"), |_| false));
        assert!(untold.take_free(Path::new("/b"), |_| false));
    }

    #[test]
    fn what_is_not_told_for_long_hides_nothing() {
        let now = Instant::now();
        let mut untold = untold(&[(1, "/a/1"), (2, "/a/2")], now);
        untold.forget_old(now + KEPT / 2);
        assert!(untold.take_claimed(claim(1)));
        untold.forget_old(now + KEPT);
        assert!(!untold.take_claimed(claim(2)));
    }
}
