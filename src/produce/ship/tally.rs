//! What was sent, counted.
//!
//! Invariant: counters only grow; `records` and `bytes` count what was accepted, once.

use std::time::Instant;

use super::parcel::Parcel;
use crate::cost::payload_units;
use crate::record::Record;
use crate::status::Sent;

/// The counters of a flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// The counters; what depends on the moment is filled in by [`super::Snapshot::sent`].
    pub(super) sent: Sent,
    /// When a record was last accepted.
    pub(super) last_accepted: Option<Instant>,
}

impl Tally {
    /// A parcel was accepted: it is one record of the stream.
    pub(super) fn on_accepted(&mut self, now: Instant, parcel: &Parcel) {
        let size = parcel.size() as u64;
        self.last_accepted = Some(now);
        self.sent.records = self.sent.records.saturating_add(1);
        self.sent.bytes = self.sent.bytes.saturating_add(size);
        let units = payload_units(size);
        self.sent.payload_units = self.sent.payload_units.saturating_add(units);
        let unmerged: u64 = parcel.records().map(units_unmerged).sum();
        self.sent.payload_units_unmerged =
            self.sent.payload_units_unmerged.saturating_add(unmerged);
    }

    /// A call failed as a whole.
    pub(super) fn on_failed_call(&mut self, message: &str) {
        self.sent.calls_failed = self.sent.calls_failed.saturating_add(1);
        self.note_error(message);
    }

    /// Keeps the last error.
    pub(super) fn note_error(&mut self, message: &str) {
        if self.sent.last_error.as_deref() != Some(message) {
            self.sent.last_error = Some(message.to_owned());
        }
    }
}

/// Returns the units of the record's lines, each sent alone under the same key; lines of one record
/// are taken to be of equal length, which is exact as long as none is longer than a unit.
fn units_unmerged(record: &Record) -> u64 {
    let bytes: u64 = record.runs.iter().map(|run| run.span.len()).sum();
    let lines = record.lines().max(1);
    let line = (bytes / lines).saturating_add(record.partition_key.len() as u64);
    payload_units(line).saturating_mul(lines)
}
