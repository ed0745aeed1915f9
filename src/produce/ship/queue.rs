//! What waits to be sent, and in which order it goes.
//!
//! Invariant: of an ordered key at most one [`Parcel`] exists, wherever it is (ready, delayed,
//! suspected or in flight); the key's other records wait in its lane and the next becomes a parcel
//! only when the one before is settled. So order needs no checks anywhere else.
//!
//! ```text
//!  push ─▶ lane of the key (ordered, while a parcel of it is out)
//!   │        │ settled: the next     │ joined into the parcel when it is taken
//!   ▼        ▼                       ▼
//!  ready ───────────────────────▶ in flight ──▶ settled
//!   ▲                               │   │
//!   │ due                           │   └─▶ suspects: halves of a refused call, sent as they are
//!  delayed ◀────────────────────────┘ refused for now
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::parcel::Parcel;
use crate::record::Record;

/// The records of an ordered key that wait for its parcel.
#[derive(Debug, Default)]
struct Lane {
    records: VecDeque<Record>,
    bytes: usize,
    /// Whether the key's parcel is ready, so that these go with it, as many as may.
    ready: bool,
}

impl Lane {
    fn push(&mut self, record: Record) {
        self.bytes = self.bytes.saturating_add(record.data.len());
        self.records.push_back(record);
    }

    fn put_back(&mut self, record: Record) {
        self.bytes = self.bytes.saturating_add(record.data.len());
        self.records.push_front(record);
    }

    fn pop(&mut self) -> Option<Record> {
        let record = self.records.pop_front()?;
        self.bytes = self.bytes.saturating_sub(record.data.len());
        Some(record)
    }
}

/// All records that are not in flight.
#[derive(Debug)]
pub(super) struct Queue {
    /// The most bytes of a parcel that records are joined into; 0: none are.
    join: usize,
    lanes: HashMap<Arc<str>, Lane>,
    ready: VecDeque<Parcel>,
    /// Bytes of ready parcels, and of the lanes behind them.
    ready_bytes: usize,
    delayed: BTreeMap<(Instant, u64), Parcel>,
    delays: u64,
    suspects: VecDeque<Vec<Parcel>>,
}

impl Queue {
    /// Returns an empty queue that joins records of an ordered key up to `join` bytes.
    pub(super) fn new(join: usize) -> Self {
        Self {
            join,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            ready_bytes: 0,
            delayed: BTreeMap::new(),
            delays: 0,
            suspects: VecDeque::new(),
        }
    }

    /// Takes a record in.
    pub(super) fn push(&mut self, now: Instant, record: Record) {
        if record.ordered {
            if let Some(lane) = self.lanes.get_mut(&record.partition_key) {
                if lane.ready {
                    self.ready_bytes = self.ready_bytes.saturating_add(record.data.len());
                }
                return lane.push(record);
            }
            let lane = Lane { ready: true, ..Lane::default() };
            self.lanes.insert(Arc::clone(&record.partition_key), lane);
        }
        self.make_ready(Parcel::new(record, now), 0);
    }

    /// The parcel of the ordered key `key` is settled: the next record may go.
    pub(super) fn settle(&mut self, now: Instant, key: &str) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let Some(next) = lane.pop() else {
            self.lanes.remove(key);
            return;
        };
        lane.ready = true;
        let behind = lane.bytes;
        self.make_ready(Parcel::new(next, now), behind);
    }

    /// Returns the number of parcels that may be sent at once, the bytes that may go in or with them,
    /// and since when the first of them may.
    pub(super) fn ready(&self) -> Option<(usize, usize, Instant)> {
        let first = self.ready.front()?;
        Some((self.ready.len(), self.ready_bytes, first.since))
    }

    /// Returns the size of the next parcel to send, as long as nothing is joined to it.
    pub(super) fn next_size(&self) -> Option<usize> {
        self.ready.front().map(Parcel::size)
    }

    /// Takes the next parcel to send, with the records of its key that wait and may be joined to it
    /// within `room` bytes.
    pub(super) fn take(&mut self, room: usize) -> Option<Parcel> {
        let mut parcel = self.ready.pop_front()?;
        self.ready_bytes = self.ready_bytes.saturating_sub(parcel.size());
        if !parcel.is_ordered() {
            return Some(parcel);
        }
        let Some(lane) = self.lanes.get_mut(parcel.key()) else { return Some(parcel) };
        self.ready_bytes = self.ready_bytes.saturating_sub(lane.bytes);
        lane.ready = false;
        while let Some(next) = lane.records.front()
            && parcel.takes(next, self.join.min(room))
            && let Some(next) = lane.pop()
        {
            parcel.join(next);
        }
        Some(parcel)
    }

    /// Puts the later half of what is joined in a parcel back in front of its lane; returns false
    /// where the parcel is a single record.
    pub(super) fn part(&mut self, parcel: &mut Parcel) -> bool {
        let later = parcel.split();
        let parted = !later.is_empty();
        if let Some(lane) = self.lanes.get_mut(parcel.key()) {
            later.into_iter().rev().for_each(|record| lane.put_back(record));
        }
        parted
    }

    /// Puts parcels back to the front, in their order.
    pub(super) fn restore(&mut self, parcels: impl DoubleEndedIterator<Item = Parcel>) {
        for parcel in parcels.rev() {
            let mut behind = 0;
            if parcel.is_ordered()
                && let Some(lane) = self.lanes.get_mut(parcel.key())
            {
                lane.ready = true;
                behind = lane.bytes;
            }
            self.count_ready(&parcel, behind);
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

    fn make_ready(&mut self, parcel: Parcel, behind: usize) {
        self.count_ready(&parcel, behind);
        self.ready.push_back(parcel);
    }

    /// Counts a parcel that becomes ready, and the bytes in the lane behind it.
    fn count_ready(&mut self, parcel: &Parcel, behind: usize) {
        self.ready_bytes = self.ready_bytes.saturating_add(parcel.size()).saturating_add(behind);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixture::record;
    use super::*;

    fn taken(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.take(usize::MAX))
            .map(|parcel| String::from_utf8(parcel.entry().data.concat()).unwrap())
            .collect()
    }

    #[test]
    fn of_an_ordered_key_one_record_is_ready_at_a_time() {
        let (mut queue, now) = (Queue::new(0), Instant::now());
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
        let (mut queue, now) = (Queue::new(0), Instant::now());
        for key in ["a", "b", "c", "d"] {
            queue.push(now, record(key, key));
        }
        let first: Vec<_> =
            [queue.take(usize::MAX), queue.take(usize::MAX)].into_iter().flatten().collect();
        queue.restore(first.into_iter());
        assert_eq!(queue.ready().map(|(count, bytes, _)| (count, bytes)), Some((4, 8)));
        assert_eq!(taken(&mut queue), ["a", "b", "c", "d"]);
    }

    #[test]
    fn delayed_parcels_come_back_when_they_are_due() {
        let (mut queue, now) = (Queue::new(0), Instant::now());
        for key in ["a", "b", "c"] {
            queue.push(now, record(key, key));
        }
        let later = |millis| now + Duration::from_millis(millis);
        for millis in [20, 10] {
            let parcel = queue.take(usize::MAX).unwrap();
            queue.delay(parcel, later(millis));
        }
        queue.admit_due(later(9));
        assert_eq!(queue.next_due(), Some(later(10)));
        queue.admit_due(later(20));
        assert_eq!(queue.next_due(), None);
        assert_eq!(taken(&mut queue), ["b", "a", "c"]);
    }

    #[test]
    fn what_waits_behind_a_parcel_is_joined_to_it_when_it_is_taken() {
        let (mut queue, now) = (Queue::new(12), Instant::now());
        for data in ["one\n", "two\n", "three\n", "4\n"] {
            queue.push(now, record("k", data));
        }
        assert_eq!(queue.ready().map(|(count, bytes, _)| (count, bytes)), Some((1, 17)));
        assert_eq!(
            taken(&mut queue),
            ["one\ntwo\n"],
            "nine bytes with the key, and six more are too many"
        );
        queue.settle(now, "k");
        assert_eq!(taken(&mut queue), ["three\n4\n"]);
        queue.settle(now, "k");
        queue.push(now, record("k", "5\n"));
        queue.push(now, record("k", "6\n"));
        assert_eq!(queue.take(3).map(|parcel| parcel.size()), Some(3), "no room for more");
        assert_eq!(queue.ready_bytes, 0);
    }

    #[test]
    fn a_record_without_a_newline_at_its_end_is_followed_by_none() {
        let (mut queue, now) = (Queue::new(100), Instant::now());
        for data in ["one\n", "two", "three\n"] {
            queue.push(now, record("k", data));
        }
        assert_eq!(taken(&mut queue), ["one\ntwo"]);
        queue.settle(now, "k");
        assert_eq!(taken(&mut queue), ["three\n"]);
    }

    #[test]
    fn what_was_joined_can_be_parted_and_keeps_its_order() {
        let (mut queue, now) = (Queue::new(100), Instant::now());
        for data in ["1\n", "2\n", "3\n", "4\n"] {
            queue.push(now, record("k", data));
        }
        let mut parcel = queue.take(100).unwrap();
        assert!(queue.part(&mut parcel));
        assert_eq!(parcel.entry().data.concat(), b"1\n2\n");
        assert!(queue.part(&mut parcel));
        assert!(!queue.part(&mut parcel));
        queue.settle(now, "k");
        assert_eq!(taken(&mut queue), ["2\n3\n4\n"]);
    }
}
