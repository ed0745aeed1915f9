//! Reading: fair turns over many files, whole lines in large chunks, each with its span.
//!
//! Invariant: the chunks of one file follow each other without gap or overlap, from the position at
//! which the file was opened; a byte is passed on once a run.

pub mod buffer;
mod coming;
mod empty;
pub mod file;
mod follow;
mod followed;
pub mod generations;
pub mod identity;
pub mod newlines;
mod outbox;
mod search;
mod start;
pub mod status;
pub mod tailer;
mod turns;
mod untold;
pub mod wake;
pub mod weight;

#[cfg(test)]
mod tests;

pub use newlines::Newlines;
pub use status::TailStatus;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;

use crate::position::{FileKey, Identity, Position, Preceding, Run, Span};

/// What reading passes on, in order, through the bounded channel.
#[derive(Debug)]
pub enum Output {
    /// Whole lines of one file.
    Chunk(Chunk),
    /// Something about a file.
    File(FileEvent),
    /// Something is left to read and there is no memory to read it into: what waits for company may be
    /// what takes it. Told once until the next chunk.
    Starved,
}

impl Output {
    /// Returns how many bytes of files it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Chunk(chunk) => chunk.data.len(),
            Self::File(_) | Self::Starved => 0,
        }
    }
}

/// Something about a file that those behind need to know. A file's `Opened` comes before all else of it.
#[derive(Clone, Debug)]
pub enum FileEvent {
    /// The file is followed from now on.
    Opened(Opened),
    /// Nothing more will come of this generation: its chunks end at `end`. Its checkpoint is kept
    /// until all of that is settled, and then until `forget` allows.
    Closed {
        /// Which.
        key: FileKey,
        /// The offset after the last byte that was passed on.
        end: u64,
        /// True where the file is gone for good; false where it may come back (closed by shutdown).
        gone: bool,
    },
    /// Bytes that nobody can read any more were not read: counted, reported.
    Lost {
        /// Of which file.
        key: FileKey,
        /// How many, as far as can be known.
        bytes: u64,
        /// Why, in words for the log: `truncated`, `deleted`, `rewritten`.
        reason: &'static str,
    },
    /// The file has another name now.
    Moved {
        /// Which.
        key: FileKey,
        /// Its new path.
        path: Arc<Path>,
    },
    /// The file was seen with this size, or its fingerprint now covers more bytes.
    Seen {
        /// Which.
        key: FileKey,
        /// Size in bytes.
        size: u64,
        /// The identity, should the fingerprint have grown.
        identity: Identity,
    },
    /// The first scan of this run is over, and every file that it found was told of.
    Scanned,
}

/// A file that is followed from now on.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The generation.
    pub key: FileKey,
    /// Where it stands now.
    pub path: Arc<Path>,
    /// Where it stood when this generation was first found: what its partition key is made of, so
    /// that the key outlives renames and restarts.
    pub origin: Arc<Path>,
    /// By what it is known again.
    pub identity: Identity,
    /// From where it is read; everything before is settled.
    pub start: Position,
    /// Its size when opened.
    pub size: u64,
    /// How much of it is settled, told back to the reader.
    pub progress: Arc<Progress>,
}

impl Opened {
    /// Returns a file that is read from its first byte, of whose content nothing is known yet.
    #[must_use]
    pub fn begun(key: FileKey, path: Arc<Path>) -> Self {
        Self {
            key,
            path: Arc::clone(&path),
            origin: path,
            identity: Identity::default(),
            start: Position::default(),
            size: 0,
            progress: Arc::default(),
        }
    }
}

/// What reading and acknowledgement tell each other about one file.
#[derive(Debug, Default)]
pub struct Progress {
    size: AtomicU64,
    read: AtomicU64,
    settled: AtomicU64,
    rotated: AtomicBool,
}

impl Progress {
    /// Sets the size the file was last seen with. Called by the reader only.
    pub fn seen(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// Returns the size the file was last seen with.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Says whether the file has lost its name (renamed away or deleted). Called by the reader only.
    pub fn set_rotated(&self, rotated: bool) {
        self.rotated.store(rotated, Ordering::Release);
    }

    /// Returns true where the file has lost its name and is being read to its end.
    #[must_use]
    pub fn is_rotated(&self) -> bool {
        self.rotated.load(Ordering::Acquire)
    }

    /// Sets the offset up to which the file has been read and passed on. Called by the reader only.
    pub fn read_to(&self, offset: u64) {
        self.read.store(offset, Ordering::Release);
    }

    /// Returns the offset up to which the file has been read and passed on.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Acquire)
    }

    /// Sets the offset up to which every byte is settled (acknowledged,
    /// dead-lettered or skipped by a setting). Called by the ledger only.
    pub fn settle(&self, offset: u64) {
        self.settled.store(offset, Ordering::Release);
    }

    /// Returns the offset up to which every byte is settled.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }
}

/// Whole lines of one file, read at once.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Where they stand; `span.len() == data.len()`.
    pub span: Span,
    /// Where the file was first found, as its [`Opened`] says: what its partition key is made of.
    pub origin: Arc<Path>,
    /// The bytes, newlines included. The memory is given back to the flow's budget when the last
    /// slice of it is dropped, so slice rather than copy where a slice is most of what is kept.
    pub data: Bytes,
    /// Where its lines end, so far as it takes to count them.
    pub newlines: Newlines,
    /// What stands before the chunk in the file.
    pub preceding: Preceding,
    /// Whether the chunk starts at the start of a line. False only within a line that is longer
    /// than a chunk may be.
    pub starts_line: bool,
    /// Whether the chunk ends at the end of a line: after its newline, or at the end of a file that
    /// will not grow any more (its last line may lack the newline). False only within a line that is
    /// longer than a chunk may be.
    pub ends_line: bool,
    /// When it was read: the age of its lines counts from here.
    pub read_at: Instant,
}

impl Chunk {
    /// Returns how many lines the bytes `from..to` are, where they end at the end of a line.
    #[must_use]
    pub fn lines(&self, from: usize, to: usize) -> usize {
        let part = self.data.get(from..to).unwrap_or_default();
        let newlines = self.newlines.count(&self.data, from, to);
        newlines.saturating_add(usize::from(newlines::is_unfinished(part)))
    }

    /// Returns the run that the bytes `from..to` of the chunk are.
    #[must_use]
    pub fn run(&self, from: usize, to: usize, lines: u32) -> Run {
        let at = |index: usize| self.span.start.saturating_add(index as u64);
        let before = self.data.get(..to).unwrap_or(&self.data);
        Run {
            span: Span { file: self.span.file, start: at(from), end: at(to) },
            mark: self.preceding.mark_after(before),
            lines,
        }
    }
}
