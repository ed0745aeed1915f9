//! Checkpoints: how far every file is settled, durably, in SQLite.
//!
//! Invariant: a committed position is never ahead of what was settled when it was handed in, and a
//! dead letter is committed in the same transaction as the position that passes it, or before. One
//! process at a time holds a state directory.
//!
//! ```text
//!  state_dir/            0700
//!  ├── lock              held (flock) while an agent lives; holds its process id
//!  ├── kinetail.db       0600: files, flows, dead letters, next key, and what consumers have
//!  │                     written; every row sealed by a CRC
//!  ├── kinetail.db-wal   what is committed and not yet moved into kinetail.db
//!  └── kinetail.db.damaged-1764000000   moved aside, after what is whole in it was carried over
//! ```

mod connection;
mod consumer;
#[cfg(test)]
mod damage;
mod directory;
mod keys;
mod letters;
mod rows;
mod salvage;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use consumer::{
    Chore, ChoreKind, ConsumerCommit, ConsumerRows, OutputRow, ShardRow, SourceRow,
};
pub use keys::KeyAllocator;
pub use letters::{DEAD_LETTERS_MAX_BYTES, LetterSummary};
pub use store::{ENDED_RETENTION, ENDED_ROWS_MAX, Store};
pub use view::View;
pub use writer::{Answer, Rejected, Writer};

use crate::position::{FileKey, Identity, Position};
use crate::status::FileStatus;

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

impl Books {
    /// Returns the bytes that are settled: accepted, dead-lettered or skipped.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.acknowledged.saturating_add(self.dead_lettered).saturating_add(self.skipped)
    }

    /// Returns the sums.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            acknowledged: self.acknowledged.saturating_add(other.acknowledged),
            dead_lettered: self.dead_lettered.saturating_add(other.dead_lettered),
            skipped: self.skipped.saturating_add(other.skipped),
            lost: self.lost.saturating_add(other.lost),
            lines: self.lines.saturating_add(other.lines),
        }
    }
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

impl FileRow {
    /// Returns what the row says of its file, which has `size` bytes and is in `state` now: nothing
    /// of it is in flight, and what was read is what is settled.
    #[must_use]
    pub fn status(&self, size: u64, state: &str) -> FileStatus {
        let offset = self.position.offset;
        FileStatus {
            path: self.path.to_string_lossy().into_owned(),
            key: self.key.0,
            offset,
            size,
            lag_bytes: if self.ended { 0 } else { size.saturating_sub(offset) },
            read_bytes: self.books.settled(),
            acknowledged_bytes: self.books.acknowledged,
            in_flight_bytes: 0,
            dead_lettered_bytes: self.books.dead_lettered,
            skipped_bytes: self.books.skipped,
            lost_bytes: self.books.lost,
            acknowledged_lines: self.books.lines,
            state: state.to_owned(),
        }
    }
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
    /// Flows that have found their first files: from now on a file that turns up in one of them is
    /// new, and read from its beginning whatever `start_at` says.
    pub started: Vec<Arc<str>>,
    /// Rows to insert or replace.
    pub files: Vec<FileRow>,
    /// Rows to delete.
    pub removed: Vec<FileKey>,
    /// Dead letters to add.
    pub dead_letters: Vec<DeadLetter>,
    /// What consuming flows have written.
    pub consumers: Vec<ConsumerCommit>,
}

/// The name of the database within the state directory.
pub const FILE_NAME: &str = "kinetail.db";

/// Returns where the database of `state_dir` stands.
#[must_use]
pub fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE_NAME)
}

/// Why the state directory could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the state directory.
    #[error("state directory {path} is in use{}", by_process(*pid))]
    InUse {
        /// The state directory.
        path: PathBuf,
        /// The process, where it can be known.
        pid: Option<u32>,
    },
    /// There is no state directory, or no database in it.
    #[error("no agent has kept any state in {path}")]
    NoState {
        /// The state directory.
        path: PathBuf,
    },
    /// The database was written by a newer version, and is left as it is.
    #[error(
        "{path} was written by a newer kinetail (schema {found}, this one knows up to \
         {supported}); use that version, or another state_dir"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i32,
        /// The newest that is understood.
        supported: i32,
    },
    /// The dead-letter store holds as much as it may. Nothing of the commit was written.
    #[error(
        "the dead-letter store holds {held} bytes and cannot take {added} more (limit {limit}); \
         send its letters again or remove them"
    )]
    DeadLettersFull {
        /// Bytes held.
        held: u64,
        /// Bytes that were to be added.
        added: u64,
        /// The most it holds.
        limit: u64,
    },
    /// The dead letter is there, and its bytes are not those that were stored.
    #[error("dead letter {id} is damaged")]
    LetterDamaged {
        /// Its number.
        id: i64,
    },
    /// Too many commits wait to be written: this one was not taken.
    #[error("too many commits wait to be written")]
    Busy,
    /// The database is closed: the agent is about to end.
    #[error("the checkpoints are closed")]
    Closed,
    /// The file system refused.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("cannot {operation} {path}: {source}")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// On which database.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
}

fn by_process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" by process {pid}"))
}

/// Returns a function that makes an [`Error::Io`] of what the system says.
fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { operation, path, source }
}

/// Returns a function that makes an [`Error::Database`] of what SQLite says.
fn database_error(operation: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Database { operation, path, source }
}

/// Returns the seconds since 1970; 0 where the clock stands before.
fn unix_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
