//! What was sent, counted.
//!
//! Invariant: counters only grow; what was accepted is counted once.

use std::time::Instant;

use super::parcel::Parcel;
use crate::cost::Usage;
use crate::record::Record;
use crate::status::Sent;

/// The counters of a flow.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// The counters, but for what [`super::Snapshot::sent`] fills in.
    pub(super) sent: Sent,
    /// What was accepted.
    pub(super) accepted: Usage,
    /// The same lines one a record.
    pub(super) unmerged: Usage,
    /// When a record was last accepted.
    pub(super) last_accepted: Option<Instant>,
}

impl Tally {
    /// A parcel was accepted: it is one record of the stream.
    pub(super) fn on_accepted(&mut self, now: Instant, parcel: &Parcel) {
        self.last_accepted = Some(now);
        self.accepted.add(1, parcel.size() as u64);
        for record in parcel.records() {
            let (lines, size) = unmerged(record);
            self.unmerged.add(lines, size);
        }
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

/// Returns how many lines the record holds, and how large each would be alone under the same key.
///
/// They are taken to be of equal length: looking for the end of each would cost what merging whole
/// blocks saves. Payload units are exact all the same as long as no line is longer than a unit, and
/// bytes on demand as long as none is longer than 1 KB; of longer ones they are about right.
fn unmerged(record: &Record) -> (u64, u64) {
    let bytes = record.text();
    let lines = record.lines().max(1);
    (lines, (bytes / lines).saturating_add(record.partition_key.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::record;
    use super::*;

    #[test]
    fn lines_are_counted_as_merged_and_as_a_record_each() {
        let mut tally = Tally::default();
        let now = Instant::now();
        let mut merged = record("key", &"x".repeat(2_000));
        for run in &mut merged.runs {
            run.lines = 10;
        }
        tally.on_accepted(now, &Parcel::new(merged, now));
        let (mut accepted, mut unmerged) = (Usage::default(), Usage::default());
        accepted.add(1, 2_003);
        unmerged.add(10, 203);
        assert_eq!((tally.accepted, tally.unmerged), (accepted, unmerged));
        assert_eq!((unmerged.payload_units, unmerged.on_demand_bytes), (10, 10_240));
    }
}
