//! The record: what one entry of a PutRecords call holds, and the wire formats it can be written in.
//!
//! Invariant: `data` holds exactly the lines of `runs`, in order, in the format of the flow, and
//! `data.len() + partition_key.len()` is within the stream's record limit.

pub mod compression;
pub mod json_array;
pub mod kpl;
pub mod lines;
pub mod origin;
pub mod split;

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::position::Run;

/// One Kinesis record on its way, with the proof of where its bytes come from.
#[derive(Clone, Debug)]
pub struct Record {
    /// The partition key, 1 to 256 characters.
    pub partition_key: Arc<str>,
    /// Whether records of this key must arrive in the order they were made. False for `random`
    /// keys, which are each used once; a refused record may then be sent again under a fresh key.
    pub ordered: bool,
    /// The bytes to send, before base64.
    pub data: Bytes,
    /// The pieces of files that `data` stands for, in the order they stand in it.
    pub runs: SmallVec<[Run; 1]>,
}

impl Record {
    /// Returns the size that Kinesis counts: data and partition key.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len().saturating_add(self.partition_key.len())
    }

    /// Returns the bytes of the files that it stands for.
    #[must_use]
    pub fn text(&self) -> u64 {
        self.runs.iter().map(|run| run.span.len()).sum()
    }

    /// Returns the bytes of text whose memory it needs until it is settled: all of them, but for those
    /// that are [saved](Self::saved_text).
    #[must_use]
    pub fn held_text(&self) -> u64 {
        self.text().min(self.data.len() as u64)
    }

    /// Returns by how many bytes it is shorter than its text, whose memory is free once it is made.
    #[must_use]
    pub fn saved_text(&self) -> u64 {
        self.text().saturating_sub(self.data.len() as u64)
    }

    /// Returns how many lines end in the record.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.lines)).sum()
    }
}
