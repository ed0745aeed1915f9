//! A parcel: what goes as one entry of a call.
//!
//! Invariant: a parcel is one record, or several of one ordered key that follow each other, in their
//! order, of which each but the last ends with a newline: so their data, joined, is again a slice
//! of the file. No copy is made: the entry holds the pieces.

use std::sync::Arc;
use std::time::Instant;

use crate::record::Record;
use crate::stream::Entry;

/// Records on their way as one.
#[derive(Debug)]
pub(super) struct Parcel {
    first: Record,
    joined: Vec<Record>,
    size: usize,
    /// Since when it could have been sent.
    pub(super) since: Instant,
    /// How often it was refused for now, in a row.
    pub(super) failures: u32,
    /// How often it was refused alone for what it is.
    pub(super) lone_refusals: u32,
}

impl Parcel {
    /// Makes a parcel of one record, that may go from `since` on.
    pub(super) fn new(record: Record, since: Instant) -> Self {
        Self {
            size: record.size(),
            first: record,
            joined: Vec::new(),
            since,
            failures: 0,
            lone_refusals: 0,
        }
    }

    /// Returns the partition key.
    pub(super) fn key(&self) -> &Arc<str> {
        &self.first.partition_key
    }

    /// Returns true where the records of its key must arrive in order.
    pub(super) fn is_ordered(&self) -> bool {
        self.first.ordered
    }

    /// Returns the size that Kinesis counts: all data, and the key once.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns true where `next`, the next record of its key, may be joined within `most` bytes.
    /// What was refused before goes again as it was.
    pub(super) fn takes(&self, next: &Record, most: usize) -> bool {
        let last = self.joined.last().unwrap_or(&self.first);
        self.failures == 0
            && self.lone_refusals == 0
            && self.size.saturating_add(next.data.len()) <= most
            && last.data.ends_with(b"\n")
    }

    /// Adds a record.
    pub(super) fn join(&mut self, next: Record) {
        self.size = self.size.saturating_add(next.data.len());
        self.joined.push(next);
    }

    /// Takes the later half of the records out: none where it is a single one.
    pub(super) fn split(&mut self) -> Vec<Record> {
        let later = self.joined.split_off(self.joined.len() / 2);
        let bytes: usize = later.iter().map(|record| record.data.len()).sum();
        self.size = self.size.saturating_sub(bytes);
        later
    }

    /// Gives the record another key; only one that is not ordered.
    pub(super) fn rename(&mut self, key: Arc<str>) {
        self.first.partition_key = key;
        self.size = self.first.size();
    }

    /// Returns the entry of a call; its data is shared, not copied.
    pub(super) fn entry(&self) -> Entry {
        let data = self.records().map(|record| record.data.clone()).collect();
        Entry { partition_key: Arc::clone(self.key()), data }
    }

    /// Returns its records, in order.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        std::iter::once(&self.first).chain(&self.joined)
    }

    /// Returns its records, in order.
    pub(super) fn into_records(self) -> impl Iterator<Item = Record> {
        std::iter::once(self.first).chain(self.joined)
    }
}
