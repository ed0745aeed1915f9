//! One followed file in the ledger: what of it is settled, and what is known of it.
//!
//! ```text
//!            Opened                   Closed{gone}             settled to `end`
//!  (known) ─────────▶ following ─────────────────▶ ending ─────────────────────▶ (known, ended)
//!                     ▲       │ Closed{!gone}
//!                     └───────┘ Opened again
//! ```

use std::path::Path;
use std::sync::Arc;

use super::settled::Settled;
use crate::checkpoint::{Books, FileRow};
use crate::position::{FileKey, Identity, Position};
use crate::produce::tail::{Opened, Progress};
use crate::status::FileStatus;

/// A file that is followed, or has something in flight.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: Arc<Path>,
    pub(super) identity: Identity,
    pub(super) size: u64,
    pub(super) settled: Settled,
    /// The offset at which a file that is gone ends.
    pub(super) end: Option<u64>,
    origin: Arc<Path>,
    progress: Arc<Progress>,
}

impl File {
    /// Starts at `position`, with the books of earlier runs of the agent.
    pub(super) fn new(opened: &Opened, position: Position, books: Books) -> Self {
        let file = Self {
            path: Arc::clone(&opened.path),
            identity: opened.identity,
            size: opened.size,
            settled: Settled::new(position, books),
            end: None,
            origin: Arc::clone(&opened.origin),
            progress: Arc::clone(&opened.progress),
        };
        file.report();
        file
    }

    /// Goes on with a file that was closed for a while: what is settled stays so.
    pub(super) fn reopen(&mut self, opened: &Opened) {
        self.path = Arc::clone(&opened.path);
        self.identity = opened.identity;
        self.size = opened.size;
        self.end = None;
        self.progress = Arc::clone(&opened.progress);
        self.report();
    }

    /// Tells the reader how far the file is settled.
    pub(super) fn report(&self) {
        self.progress.settle(self.settled.position().offset);
    }

    /// Returns how many bytes have been read and are not settled.
    pub(super) fn in_flight(&self) -> u64 {
        self.settled.unsettled_before(self.read_to())
    }

    /// Returns the offset up to which the file was read.
    pub(super) fn read_to(&self) -> u64 {
        self.progress.read()
    }

    /// Returns the size last seen.
    fn size(&self) -> u64 {
        self.size.max(self.progress.size())
    }

    /// Returns true where the file is gone and all that was read of it is settled.
    pub(super) fn is_finished(&self) -> bool {
        self.end.is_some_and(|end| self.settled.position().offset >= end)
    }

    /// Returns what is to be kept of the file.
    pub(super) fn row(&self, key: FileKey, flow: &Arc<str>) -> FileRow {
        FileRow {
            key,
            flow: Arc::clone(flow),
            path: Arc::clone(&self.path),
            origin: Arc::clone(&self.origin),
            identity: self.identity,
            position: self.settled.position(),
            size: self.size(),
            ended: self.is_finished(),
            books: self.settled.books(),
        }
    }

    /// Returns what is said of the file.
    pub(super) fn status(&self, key: FileKey) -> FileStatus {
        let books = self.settled.books_in_all();
        let in_flight = self.in_flight();
        let offset = self.settled.position().offset;
        let size = self.size().max(self.read_to());
        let state = match self.end {
            Some(_) => "ended",
            None if self.progress.is_rotated() => "rotated",
            None => "following",
        };
        FileStatus {
            path: self.path.to_string_lossy().into_owned(),
            key: key.0,
            offset,
            size,
            lag_bytes: size.saturating_sub(offset),
            read_bytes: books.settled().saturating_add(in_flight),
            acknowledged_bytes: books.acknowledged,
            in_flight_bytes: in_flight,
            dead_lettered_bytes: books.dead_lettered,
            skipped_bytes: books.skipped,
            lost_bytes: books.lost,
            acknowledged_lines: books.lines,
            state: state.to_owned(),
        }
    }
}
