//! Merging: chunks in, well-filled records out, by lines, bytes and age. Pure.
//!
//! Invariant: every byte of every chunk stands in exactly one record or one skipped run, in file order within a key.

use crate::position::Run;
use crate::produce::tail::FileEvent;
use crate::record::Record;

/// What merging passes on, in order.
#[derive(Debug)]
pub enum Output {
    /// Something about a file, passed through.
    File(FileEvent),
    /// A record to send.
    Record(Record),
    /// Bytes that a setting asks to leave out (`on_oversize: skip` or `truncate`): settled, counted, not sent.
    Skipped(Run),
}
