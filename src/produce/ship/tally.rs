//! What was sent, counted.
//!
//! Invariant: counters only grow; `records` and `bytes` count what was accepted, once.

use std::time::Instant;

use crate::record::Record;
use crate::status::Sent;

/// Bytes in a PUT payload unit, by the smaller reading of "25 KB".
const PAYLOAD_UNIT: u64 = 25_000;

/// The counters of a flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// The counters; what depends on the moment is filled in by [`super::Snapshot::sent`].
    pub(super) sent: Sent,
    /// When a record was last accepted.
    pub(super) last_accepted: Option<Instant>,
}

impl Tally {
    /// A record was accepted.
    pub(super) fn on_accepted(&mut self, now: Instant, record: &Record) {
        let size = record.size() as u64;
        self.last_accepted = Some(now);
        self.sent.records = self.sent.records.saturating_add(1);
        self.sent.bytes = self.sent.bytes.saturating_add(size);
        let units = size.div_ceil(PAYLOAD_UNIT);
        self.sent.payload_units = self.sent.payload_units.saturating_add(units);
        let unmerged = units_unmerged(record);
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
    line.div_ceil(PAYLOAD_UNIT).max(1).saturating_mul(lines)
}
