//! What the file system says of a path, in one `stat`.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::position::{Fingerprint, Identity};

/// The facts of one file that decisions are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970, 0 where the file system keeps none.
    pub birth: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write, in nanoseconds since 1970; saturates 292 years from there.
    pub modified: i64,
    /// Time of the last change of names, too.
    pub changed: i64,
}

/// Returns the time now as the times of files are told.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns seconds and nanoseconds as one number.
fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

impl Facts {
    /// Returns the facts within `metadata`.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let birth = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            birth: birth.and_then(|at| u64::try_from(at.as_nanos()).ok()).unwrap_or(0),
            size: metadata.len(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns the inode with its device: unique among the files that exist at one time.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { device: self.device, inode: self.inode }
    }

    /// Returns the identity of a file with these facts that begins as `fingerprint` says.
    #[must_use]
    pub fn identity(&self, fingerprint: Fingerprint) -> Identity {
        Identity { device: self.device, inode: self.inode, birth: self.birth, fingerprint }
    }
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

impl Place {
    /// Returns the place of the file that `identity` tells of.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        Self { device: identity.device, inode: identity.inode }
    }
}
