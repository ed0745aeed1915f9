//! Records: when to ask a shard for what, and what the answers mean.
//!
//! Invariant: batches of a shard follow each other without a gap: whatever fails, the next read begins
//! after the last record that was handed on. A shard is asked at most [`CALLS_PER_SECOND`] times a
//! second and for at most [`BYTES_PER_SECOND`]: beyond, Kinesis throttles every reader of the shard.
//!
//! ```text
//!              on_iterator                  on_reply, more to come
//!  Placed ────────────────────▶ Iterating ◀───────────┐
//!    ▲                            │  │  └─────────────┘
//!    │ expired                    │  │ on_reply, none to come
//!    └────────────────────────────┘  └──────────────────────▶ Ended
//! ```
//!
//! Every failure waits longer than the one before, with full jitter, up to a cap.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::position::{Progress, SequenceNumber};
use crate::stream::read::{Child, Fetched, Place, ReadError, Reply};

/// Calls of GetRecords, and of `GetShardIterator`, that a shard takes in a second.
pub const CALLS_PER_SECOND: u32 = 5;

/// Bytes that a shard gives in a second.
pub const BYTES_PER_SECOND: u64 = 2_000_000;

/// The most records of a call.
pub const LIMIT: u32 = 10_000;

/// From so many bytes on a reply may have been cut off for its size: Kinesis gives up to 10 MB.
const FULL_BYTES: u64 = 1_000_000;

/// The shortest pause between two calls.
const SHORTEST: Duration = Duration::from_millis(1000 / CALLS_PER_SECOND as u64);

/// What a shard brought at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The records in order.
    pub records: Vec<Fetched>,
    /// Of the first record, how many pieces were dealt with before.
    pub skip: u64,
    /// How far behind the tip the batch ends; `None` where the endpoint does not tell.
    pub behind: Option<Duration>,
    /// The shards that go on where this one has ended, once it has.
    pub end: Option<Vec<Child>>,
}

impl Batch {
    /// Returns the progress once the batch is dealt with; `None` where it holds no record.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.records.last().map(|record| Progress::after(record.sequence_number.clone()))
    }

    /// Returns the bytes of data.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.data.len() as u64).sum()
    }

    /// Returns true where nothing more was in the shard when it was read.
    #[must_use]
    pub fn is_at_tip(&self) -> bool {
        // Not every emulator counts how far behind a reply that is full leaves the reader.
        let is_full = self.records.len() >= LIMIT as usize || self.bytes() >= FULL_BYTES;
        let is_behind = match self.behind {
            Some(behind) => !behind.is_zero(),
            None => !self.records.is_empty(),
        };
        self.end.is_some() || !(is_full || is_behind)
    }
}

/// A call to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GetShardIterator`.
    Iterator(Place),
    /// GetRecords.
    Records(String),
}

/// How often and how patiently a shard is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The pause between two calls where nothing more is in the shard.
    pub poll: Duration,
    /// The longest pause after a failure.
    pub backoff_max: Duration,
}

/// Pauses after failures: each longer than the one before, with full jitter, up to a cap.
#[derive(Debug)]
pub(super) struct Backoff {
    longest: Duration,
    failures: u32,
    rng: Rng,
}

impl Backoff {
    pub(super) fn new(longest: Duration, rng: Rng) -> Self {
        Self { longest, failures: 0, rng }
    }

    /// How often it has failed since it last succeeded.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn on_success(&mut self) {
        self.failures = 0;
    }

    pub(super) fn on_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Returns how long to wait after the failures so far.
    pub(super) fn pause(&mut self) -> Duration {
        let doublings = self.failures.saturating_sub(1);
        let bound = SHORTEST.saturating_mul(2_u32.saturating_pow(doublings));
        let bound = bound.min(self.longest);
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.u64(0..=micros))
    }
}

#[derive(Debug)]
enum State {
    Placed,
    Iterating(String),
    Ended,
}

/// The reading of one shard.
#[derive(Debug)]
pub struct Reader {
    place: Place,
    skip: Option<(SequenceNumber, u64)>,
    state: State,
    rate: Pace,
    due: Instant,
    backoff: Backoff,
}

impl Reader {
    /// Begins after `progress`, or at `place` where there is none.
    #[must_use]
    pub fn new(
        place: Place,
        progress: Option<&Progress>,
        rate: Pace,
        now: Instant,
        rng: Rng,
    ) -> Self {
        let skip = progress.and_then(|done| Some((done.sequence.clone(), done.pieces?)));
        let place = progress.map_or(place, Place::from);
        let backoff = Backoff::new(rate.backoff_max, rng);
        Self { place, skip, state: State::Placed, rate, due: now, backoff }
    }

    /// Returns the next call and when to make it; `None` once the shard has ended.
    #[must_use]
    pub fn next(&self) -> Option<(Instant, Call)> {
        let call = match &self.state {
            State::Placed => Call::Iterator(self.place.clone()),
            State::Iterating(iterator) => Call::Records(iterator.clone()),
            State::Ended => return None,
        };
        Some((self.due, call))
    }

    /// Takes a new iterator.
    pub fn on_iterator(&mut self, iterator: String, now: Instant) {
        self.state = State::Iterating(iterator);
        // Not to be asked sooner than the failures before allow: an iterator is no success yet.
        self.due = if self.backoff.failures() == 0 { now } else { now + self.backoff.pause() };
    }

    /// Takes the answer to a call of GetRecords that was made at `asked`, and returns what it brought.
    pub fn on_reply(&mut self, reply: Reply, asked: Instant) -> Batch {
        self.backoff.on_success();
        let skip = match (&self.skip, reply.records.first()) {
            (Some((sequence, pieces)), Some(first)) if first.sequence_number == *sequence => {
                *pieces
            }
            _ => 0,
        };
        if let Some(last) = reply.records.last() {
            self.place = Place::After(last.sequence_number.clone());
            self.skip = None;
        }
        let end = reply.next.is_none().then_some(reply.children);
        self.state = reply.next.map_or(State::Ended, State::Iterating);
        let batch = Batch { records: reply.records, skip, behind: reply.behind, end };
        let nanos = batch.bytes().saturating_mul(1_000_000_000 / BYTES_PER_SECOND);
        let pause = if batch.is_at_tip() { self.rate.poll } else { SHORTEST };
        self.due = asked + pause.max(SHORTEST).max(Duration::from_nanos(nanos));
        batch
    }

    /// Takes a failure of either call. Returns how long to wait.
    pub fn on_error(&mut self, error: &ReadError, now: Instant) -> Duration {
        self.backoff.on_failure();
        let expired = matches!(error, ReadError::Expired(_));
        if expired && matches!(self.state, State::Iterating(_)) {
            self.state = State::Placed;
        }
        // An iterator that was simply too old is replaced at once.
        let is_first = self.backoff.failures() == 1;
        let pause = if expired && is_first { Duration::ZERO } else { self.backoff.pause() };
        self.due = now + pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::stream::Trouble;

    const PACE: Pace = Pace { poll: Duration::from_secs(1), backoff_max: Duration::from_secs(10) };

    fn record(number: u64, bytes: usize) -> Fetched {
        Fetched {
            partition_key: "k".to_owned(),
            data: Bytes::from(vec![b'x'; bytes]),
            sequence_number: SequenceNumber::from(&*number.to_string()),
        }
    }

    fn reply(records: Vec<Fetched>, behind: u64, next: Option<&str>) -> Reply {
        let behind = Some(Duration::from_millis(behind));
        Reply { records, behind, next: next.map(str::to_owned), children: Vec::new() }
    }

    fn reader(progress: Option<&Progress>, now: Instant) -> Reader {
        Reader::new(Place::TrimHorizon, progress, PACE, now, Rng::with_seed(1))
    }

    fn call(reader: &Reader) -> Call {
        reader.next().unwrap().1
    }

    fn after(number: &str) -> Call {
        Call::Iterator(Place::After(SequenceNumber::from(number)))
    }

    #[test]
    fn an_iterator_that_expires_is_replaced_at_once_after_the_last_record() {
        let now = Instant::now();
        let mut reader = reader(None, now);
        assert_eq!(call(&reader), Call::Iterator(Place::TrimHorizon));
        reader.on_iterator("a".to_owned(), now);
        reader.on_reply(reply(vec![record(7, 1), record(8, 1)], 5, Some("b")), now);
        assert_eq!(call(&reader), Call::Records("b".to_owned()));
        reader.on_error(&ReadError::Expired(String::new()), now);
        assert_eq!(reader.next(), Some((now, after("8"))));
    }

    #[test]
    fn empty_replies_are_walked_through_and_the_place_is_kept() {
        let now = Instant::now();
        let mut reader = reader(Some(&Progress::after(SequenceNumber::from("5"))), now);
        assert_eq!(call(&reader), after("5"));
        reader.on_iterator("a".to_owned(), now);
        let batch = reader.on_reply(reply(vec![], 60_000, Some("b")), now);
        assert_eq!((batch.progress(), batch.is_at_tip()), (None, false));
        let (due, next) = reader.next().unwrap();
        assert_eq!((due - now, next), (SHORTEST, Call::Records("b".to_owned())));
        reader.on_error(&ReadError::Expired(String::new()), now);
        assert_eq!(call(&reader), after("5"));
    }

    #[test]
    fn a_shard_ends_with_its_last_reply_and_names_its_children() {
        let now = Instant::now();
        let mut reader = reader(None, now);
        reader.on_iterator("a".to_owned(), now);
        let batch = reader.on_reply(reply(vec![record(1, 1)], 0, None), now);
        assert_eq!(batch.end, Some(Vec::new()));
        assert!(batch.is_at_tip());
        assert_eq!(reader.next(), None);
    }

    #[test]
    fn a_record_done_in_part_is_read_again_and_its_pieces_are_skipped() {
        let now = Instant::now();
        let part = Progress { sequence: SequenceNumber::from("5"), pieces: Some(3) };
        let mut reader = reader(Some(&part), now);
        assert_eq!(call(&reader), Call::Iterator(Place::At(SequenceNumber::from("5"))));
        reader.on_iterator("a".to_owned(), now);
        reader.on_reply(reply(vec![], 0, Some("b")), now);
        let batch = reader.on_reply(reply(vec![record(5, 1), record(6, 1)], 0, Some("c")), now);
        assert_eq!(batch.skip, 3);
        assert_eq!(reader.on_reply(reply(vec![record(7, 1)], 0, Some("d")), now).skip, 0);
        // It may have left the stream meanwhile.
        let mut reader = self::reader(Some(&part), now);
        reader.on_iterator("a".to_owned(), now);
        assert_eq!(reader.on_reply(reply(vec![record(6, 1)], 0, Some("b")), now).skip, 0);
    }

    #[test]
    fn a_shard_is_asked_within_the_limits_of_the_service() {
        let now = Instant::now();
        let mut reader = reader(None, now);
        reader.on_iterator("a".to_owned(), now);
        let mut pause = |records, behind| {
            reader.on_reply(reply(records, behind, Some("b")), now);
            reader.next().unwrap().0 - now
        };
        assert_eq!(pause(vec![record(1, 10)], 500), Duration::from_millis(200));
        assert_eq!(pause(vec![record(2, 10_000_000)], 500), Duration::from_secs(5));
        assert_eq!(pause(vec![record(3, 10)], 0), PACE.poll);
        assert_eq!(pause(vec![], 0), PACE.poll);
    }

    #[test]
    fn failures_wait_ever_longer_up_to_the_cap_and_a_reply_ends_that() {
        let now = Instant::now();
        let mut reader = reader(None, now);
        reader.on_iterator("a".to_owned(), now);
        let throttled = ReadError::Throttled(String::new());
        let mut longest = Duration::ZERO;
        for failure in 0..100_u32 {
            let pause = reader.on_error(&throttled, now);
            let bound = SHORTEST.saturating_mul(2_u32.saturating_pow(failure));
            assert!(pause <= bound.min(PACE.backoff_max));
            longest = longest.max(pause);
        }
        assert!(longest > PACE.backoff_max / 2, "{longest:?}");
        assert_eq!(call(&reader), Call::Records("a".to_owned()), "the iterator is still good");
        reader.on_reply(reply(vec![], 0, Some("b")), now);
        assert_eq!(reader.on_error(&ReadError::Expired(String::new()), now), Duration::ZERO);
        // An iterator is no success: an endpoint that refuses each one is not hammered.
        reader.on_iterator("c".to_owned(), now);
        reader.on_error(&ReadError::Expired(String::new()), now);
        reader.on_error(&ReadError::Expired(String::new()), now);
        let trouble = Trouble::Access;
        let denied = ReadError::Unavailable { trouble, message: String::new() };
        reader.on_error(&denied, now);
        assert_eq!(call(&reader), Call::Iterator(Place::TrimHorizon));
        assert_eq!(reader.backoff.failures(), 4);
    }
}
