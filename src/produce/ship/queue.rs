//! What waits to be sent, and in which order it goes.
//!
//! Invariant: of an ordered key at most one [`Parcel`] exists, wherever it is (ready, delayed,
//! suspected or in flight); the key's other records wait in its lane and the next becomes a parcel
//! only when the one before is settled. So order needs no checks anywhere else.
//!
//! ```text
//!  push ─▶ lane of the key (ordered, while a parcel of it is out)
//!   │        │ settled: the next
//!   ▼        ▼
//!  ready ──▶ in flight ──▶ settled
//!   ▲          │   │
//!   │ due      │   └─▶ suspects: halves of a refused call, sent as they are
//!  delayed ◀───┘ refused for now
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::record::Record;

/// A record on its way.
#[derive(Debug)]
pub(super) struct Parcel {
    /// The record.
    pub(super) record: Record,
    /// Since when it could have been sent.
    pub(super) since: Instant,
    /// How often it was refused for now, in a row.
    pub(super) failures: u32,
    /// How often it was refused alone for what it is.
    pub(super) lone_refusals: u32,
}

/// All records that are not in flight.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: HashMap<Arc<str>, VecDeque<Record>>,
    ready: VecDeque<Parcel>,
    ready_bytes: usize,
    delayed: BTreeMap<(Instant, u64), Parcel>,
    delays: u64,
    suspects: VecDeque<Vec<Parcel>>,
}

impl Queue {
    /// Takes a record in.
    pub(super) fn push(&mut self, now: Instant, record: Record) {
        if record.ordered {
            if let Some(lane) = self.lanes.get_mut(&record.partition_key) {
                lane.push_back(record);
                return;
            }
            self.lanes.insert(Arc::clone(&record.partition_key), VecDeque::new());
        }
        self.make_ready(now, record);
    }

    /// A record of the ordered key `key` is settled: the next may go.
    pub(super) fn settle(&mut self, now: Instant, key: &str) {
        match self.lanes.get_mut(key).map(VecDeque::pop_front) {
            Some(Some(next)) => self.make_ready(now, next),
            Some(None) => drop(self.lanes.remove(key)),
            None => {}
        }
    }

    /// Returns the number and bytes of what may be sent at once, and since when the first of it may.
    pub(super) fn ready(&self) -> Option<(usize, usize, Instant)> {
        let first = self.ready.front()?;
        Some((self.ready.len(), self.ready_bytes, first.since))
    }

    /// Returns the size of the next record to send.
    pub(super) fn next_size(&self) -> Option<usize> {
        self.ready.front().map(|parcel| parcel.record.size())
    }

    /// Takes the next record to send.
    pub(super) fn take(&mut self) -> Option<Parcel> {
        let parcel = self.ready.pop_front()?;
        self.ready_bytes = self.ready_bytes.saturating_sub(parcel.record.size());
        Some(parcel)
    }

    /// Puts parcels back to the front, in their order.
    pub(super) fn restore(&mut self, parcels: impl DoubleEndedIterator<Item = Parcel>) {
        for parcel in parcels.rev() {
            self.ready_bytes = self.ready_bytes.saturating_add(parcel.record.size());
            self.ready.push_front(parcel);
        }
    }

    /// Keeps a parcel back until `until`.
    pub(super) fn delay(&mut self, parcel: Parcel, until: Instant) {
        self.delays = self.delays.wrapping_add(1);
        self.delayed.insert((until, self.delays), parcel);
    }

    /// Returns when the first parcel kept back is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((until, _), _)| *until)
    }

    /// Lets the parcels go that are due: before all others, for they are the oldest and hold their
    /// files' checkpoints back.
    pub(super) fn admit_due(&mut self, now: Instant) {
        if self.next_due().is_some_and(|due| due <= now) {
            let later = self.delayed.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut self.delayed, later);
            self.restore(due.into_values());
        }
    }

    /// Takes in parcels of which some is poison: they are sent as they are, in a call of their own.
    pub(super) fn suspect_next(&mut self, parcels: Vec<Parcel>) {
        self.suspects.push_front(parcels);
    }

    /// The same, after all other suspects.
    pub(super) fn suspect_last(&mut self, parcels: Vec<Parcel>) {
        self.suspects.push_back(parcels);
    }

    /// Takes the next suspects.
    pub(super) fn take_suspects(&mut self) -> Option<Vec<Parcel>> {
        self.suspects.pop_front()
    }

    /// Returns true where there are suspects.
    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    fn make_ready(&mut self, now: Instant, record: Record) {
        self.ready_bytes = self.ready_bytes.saturating_add(record.size());
        self.ready.push_back(Parcel { record, since: now, failures: 0, lone_refusals: 0 });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixture::record;
    use super::*;

    fn taken(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.take())
            .map(|parcel| String::from_utf8(parcel.record.data.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn of_an_ordered_key_one_record_is_ready_at_a_time() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (key, data) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")] {
            queue.push(now, record(key, data));
        }
        assert_eq!(taken(&mut queue), ["a1", "b1"]);
        queue.settle(now, "a");
        queue.settle(now, "b");
        assert_eq!(taken(&mut queue), ["a2"]);
        queue.settle(now, "a");
        assert_eq!(taken(&mut queue), ["a3"]);
        queue.settle(now, "a");
        assert!(queue.lanes.is_empty(), "a key without records costs nothing");
    }

    #[test]
    fn what_is_put_back_goes_first_and_in_order() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for key in ["a", "b", "c", "d"] {
            queue.push(now, record(key, key));
        }
        let first: Vec<_> = [queue.take(), queue.take()].into_iter().flatten().collect();
        queue.restore(first.into_iter());
        assert_eq!(queue.ready().map(|(count, bytes, _)| (count, bytes)), Some((4, 8)));
        assert_eq!(taken(&mut queue), ["a", "b", "c", "d"]);
    }

    #[test]
    fn delayed_parcels_come_back_when_they_are_due() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for key in ["a", "b", "c"] {
            queue.push(now, record(key, key));
        }
        let later = |millis| now + Duration::from_millis(millis);
        for millis in [20, 10] {
            let parcel = queue.take().unwrap();
            queue.delay(parcel, later(millis));
        }
        queue.admit_due(later(9));
        assert_eq!(queue.next_due(), Some(later(10)));
        queue.admit_due(later(20));
        assert_eq!(queue.next_due(), None);
        assert_eq!(taken(&mut queue), ["b", "a", "c"]);
    }
}
