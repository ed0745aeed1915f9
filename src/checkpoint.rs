//! Checkpoints: how far every file is settled, durably, in SQLite.
//!
//! Invariant: a committed position is never ahead of what was settled when it was handed in, and a
//! dead letter is committed in the same transaction as the position that passes it. One process at a
//! time holds a state directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::position::{FileKey, Identity, Position};

/// The bytes of one file, counted over all runs of the agent since the file was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Accepted by the stream.
    pub acknowledged: u64,
    /// Put into the dead-letter store.
    pub dead_lettered: u64,
    /// Left out because a setting asks for it.
    pub skipped: u64,
    /// Could not be read any more by anybody (truncated, deleted or rewritten before they were read).
    pub lost: u64,
    /// Lines accepted.
    pub lines: u64,
}

/// What is kept of one file generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// The generation.
    pub key: FileKey,
    /// The flow that follows it.
    pub flow: Arc<str>,
    /// Where it was seen last.
    pub path: Arc<Path>,
    /// Where it was first found.
    pub origin: Arc<Path>,
    /// By what it is known again.
    pub identity: Identity,
    /// Everything before this is settled.
    pub position: Position,
    /// The size last seen: what is beyond `position` and gets lost is counted by it.
    pub size: u64,
    /// True once the generation has ended (truncated or deleted). Kept for a while so that a copy
    /// made of it (`copytruncate`) is known again.
    pub ended: bool,
    /// The bytes.
    pub books: Books,
}

/// A record that no retry can save, kept for somebody to look at and send again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The flow.
    pub flow: Arc<str>,
    /// The stream it was meant for.
    pub stream: Arc<str>,
    /// Its partition key.
    pub partition_key: Arc<str>,
    /// Its data, as it would have been sent.
    pub data: bytes::Bytes,
    /// The service's words.
    pub reason: String,
    /// Where its first byte stands, for people: path and offset.
    pub source: String,
    /// Seconds since 1970.
    pub at: u64,
}

/// What one transaction writes.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Rows to insert or replace.
    pub files: Vec<FileRow>,
    /// Rows to delete.
    pub removed: Vec<FileKey>,
    /// Dead letters to add.
    pub dead_letters: Vec<DeadLetter>,
}

/// The name of the database within the state directory.
pub const FILE_NAME: &str = "kinetail.db";

/// Returns where the database of `state_dir` stands.
#[must_use]
pub fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}
