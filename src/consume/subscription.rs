//! Subscriptions: when to subscribe to a shard from where, and what the events mean.
//!
//! Invariant: batches of a shard follow each other without a gap: a subscription begins after the last
//! event that was handed on, whatever ended the one before. No record comes twice: those of a shard
//! ascend, and what does not go beyond the last is left out, as the KCL does too, for a service that
//! begins earlier than it was asked to. No subscription is asked for sooner than [`APART`] after
//! the last that came about: Kinesis refuses it.
//!
//! ```text
//!             on_subscribed               on_event
//!  Placed ────────────────────▶ Receiving ◀───┐
//!    ▲                           │  │  └──────┘
//!    │ on_over, on_error         │  │ on_event, the shard's last
//!    └───────────────────────────┘  └──────────────────────────▶ Ended
//! ```
//!
//! Every failure waits longer than the one before, as for reads that ask.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::records::{Backoff, Batch};
use crate::position::{Progress, SequenceNumber};
use crate::stream::read::{Event, Place, ReadError};

/// The least time between two subscriptions of a consumer to a shard.
pub const APART: Duration = Duration::from_secs(5);

/// A subscription in which nothing has come for so long is dead: Kinesis sends an event every few
/// seconds, with records or without.
pub const SILENCE: Duration = Duration::from_secs(35);

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Subscribe from there, at this time.
    Subscribe(Instant, Place),
    /// Take the next event.
    Receive,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Placed,
    Receiving,
    Ended,
}

/// The subscribing to one shard.
#[derive(Debug)]
pub struct Subscriber {
    place: Place,
    skip: Option<(SequenceNumber, u64)>,
    /// The last record that was dealt with or handed on.
    last: Option<SequenceNumber>,
    state: State,
    due: Instant,
    /// Before that Kinesis refuses another subscription.
    refused_until: Instant,
    backoff: Backoff,
}

impl Subscriber {
    /// Begins after `progress`, or at `place` where there is none.
    #[must_use]
    pub fn new(
        place: Place,
        progress: Option<&Progress>,
        backoff_max: Duration,
        now: Instant,
        rng: Rng,
    ) -> Self {
        let skip = progress.and_then(|done| Some((done.sequence.clone(), done.pieces?)));
        let place = progress.map_or(place, Place::from);
        let last = match &place {
            Place::After(number) => Some(number.clone()),
            _ => None,
        };
        let backoff = Backoff::new(backoff_max, rng);
        Self { place, skip, last, state: State::Placed, due: now, refused_until: now, backoff }
    }

    /// Returns what to do; `None` once the shard has ended.
    #[must_use]
    pub fn next(&self) -> Option<Step> {
        match self.state {
            State::Placed => Some(Step::Subscribe(self.due, self.place.clone())),
            State::Receiving => Some(Step::Receive),
            State::Ended => None,
        }
    }

    /// A subscription came about.
    pub fn on_subscribed(&mut self, now: Instant) {
        self.state = State::Receiving;
        self.refused_until = now + APART;
    }

    /// Takes an event, and returns what it brought.
    ///
    /// # Errors
    /// An event that says neither where the shard goes on nor what follows it: another subscription
    /// begins before it.
    pub fn on_event(&mut self, event: Event) -> Result<Batch, ReadError> {
        let Event { mut records, behind, continuation, children } = event;
        // Some emulators name the children, and a place to go on at, as soon as the shard is closed.
        let is_last = !children.is_empty() && (continuation.is_none() || records.is_empty());
        if continuation.is_none() && !is_last {
            let words = "an event that says neither where the shard goes on nor that it ends";
            return Err(ReadError::Failed(words.to_owned()));
        }
        self.backoff.on_success();
        records
            .retain(|record| self.last.as_ref().is_none_or(|last| record.sequence_number > *last));
        let skip = match (&self.skip, records.first()) {
            (Some((sequence, pieces)), Some(first)) if first.sequence_number == *sequence => {
                *pieces
            }
            _ => 0,
        };
        if let Some(record) = records.last() {
            self.last = Some(record.sequence_number.clone());
            self.skip = None;
        }
        // Of a record that is done in part, the rest is still to come: its place stays.
        if let Some(continuation) = continuation.filter(|_| self.skip.is_none()) {
            self.place = Place::After(continuation);
        }
        if is_last {
            self.state = State::Ended;
        }
        Ok(Batch { records, skip, behind, end: is_last.then_some(children) })
    }

    /// The subscription is over, as each is after five minutes.
    pub fn on_over(&mut self, now: Instant) {
        self.state = State::Placed;
        self.due = now.max(self.refused_until);
    }

    /// Takes a failure: of subscribing, or of the subscription. Returns how long to wait.
    pub fn on_error(&mut self, error: &ReadError, now: Instant) -> Duration {
        self.backoff.on_failure();
        self.state = State::Placed;
        if matches!(error, ReadError::Taken(_)) {
            self.refused_until = now + APART;
        }
        self.due = self.refused_until.max(now + self.backoff.pause());
        self.due.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::position::ShardId;
    use crate::stream::read::{Child, Fetched};

    const BACKOFF_MAX: Duration = Duration::from_secs(10);

    fn sequence(number: u64) -> SequenceNumber {
        SequenceNumber::from(&*number.to_string())
    }

    fn event(numbers: &[u64], continuation: Option<u64>, children: &[&str]) -> Event {
        let record = |&number: &u64| Fetched {
            partition_key: "k".to_owned(),
            data: Bytes::from_static(b"x"),
            sequence_number: sequence(number),
        };
        let child = |id: &&str| Child {
            id: ShardId::from(*id),
            parents: Vec::new(),
            first_hash: String::new(),
            last_hash: String::new(),
        };
        Event {
            records: numbers.iter().map(record).collect(),
            behind: Some(Duration::ZERO),
            continuation: continuation.map(sequence),
            children: children.iter().map(child).collect(),
        }
    }

    fn subscriber(progress: Option<&Progress>, now: Instant) -> Subscriber {
        Subscriber::new(Place::TrimHorizon, progress, BACKOFF_MAX, now, Rng::with_seed(1))
    }

    #[test]
    fn a_subscription_that_is_over_is_followed_by_one_after_the_last_event() {
        let now = Instant::now();
        let mut subscriber = subscriber(None, now);
        assert_eq!(subscriber.next(), Some(Step::Subscribe(now, Place::TrimHorizon)));
        subscriber.on_subscribed(now);
        assert_eq!(subscriber.next(), Some(Step::Receive));
        let batch = subscriber.on_event(event(&[7, 8], Some(9), &[])).unwrap();
        assert_eq!((batch.records.len(), batch.end), (2, None));
        // Nothing came, and yet the place moves on.
        subscriber.on_event(event(&[], Some(12), &[])).unwrap();
        let later = now + Duration::from_mins(5);
        subscriber.on_over(later);
        assert_eq!(subscriber.next(), Some(Step::Subscribe(later, Place::After(sequence(12)))));
    }

    #[test]
    fn subscriptions_are_as_far_apart_as_the_service_asks() {
        let now = Instant::now();
        let mut subscriber = subscriber(None, now);
        subscriber.on_subscribed(now);
        let soon = now + Duration::from_secs(1);
        subscriber.on_over(soon);
        assert_eq!(subscriber.next(), Some(Step::Subscribe(now + APART, Place::TrimHorizon)));
        subscriber.on_subscribed(now + APART);
        let lost = ReadError::Failed(String::new());
        assert_eq!(subscriber.on_error(&lost, now + APART), APART);
        // Another agent, or this one before it was killed, subscribed who knows when.
        let taken = ReadError::Taken(String::new());
        let at = now + 2 * APART;
        assert_eq!(subscriber.on_error(&taken, at), APART);
        assert_eq!(subscriber.next(), Some(Step::Subscribe(at + APART, Place::TrimHorizon)));
    }

    #[test]
    fn a_shard_ends_where_children_are_named_and_nothing_goes_on() {
        let now = Instant::now();
        let children = ["shardId-000000000001", "shardId-000000000002"];
        let mut faithful = subscriber(None, now);
        faithful.on_subscribed(now);
        let batch = faithful.on_event(event(&[5], None, &children)).unwrap();
        assert_eq!(batch.end.map(|children| children.len()), Some(2));
        assert_eq!(faithful.next(), None);
        // Told of its children early, and of a place to go on at, with records still to come.
        let mut early = subscriber(None, now);
        early.on_subscribed(now);
        assert_eq!(early.on_event(event(&[5], Some(6), &children)).unwrap().end, None);
        assert_eq!(early.next(), Some(Step::Receive));
        assert!(early.on_event(event(&[], Some(6), &children)).unwrap().end.is_some());
        assert_eq!(early.next(), None);
    }

    /// A shard that is called finished is never read again: that takes more than something left out.
    #[test]
    fn an_event_that_says_nothing_is_a_failure_and_no_end() {
        let now = Instant::now();
        let mut subscriber = subscriber(None, now);
        subscriber.on_subscribed(now);
        subscriber.on_event(event(&[5], Some(6), &[])).unwrap();
        let error = subscriber.on_event(event(&[7], None, &[])).unwrap_err();
        subscriber.on_error(&error, now);
        let again = Step::Subscribe(now + APART, Place::After(sequence(6)));
        assert_eq!(subscriber.next(), Some(again));
    }

    #[test]
    fn a_record_done_in_part_is_read_again_and_its_pieces_are_skipped() {
        let now = Instant::now();
        let part = Progress { sequence: sequence(5), pieces: Some(3) };
        let mut subscriber = subscriber(Some(&part), now);
        let at = Place::At(sequence(5));
        assert_eq!(subscriber.next(), Some(Step::Subscribe(now, at.clone())));
        subscriber.on_subscribed(now);
        // The place of an event before the record is none to go on after.
        assert_eq!(subscriber.on_event(event(&[], Some(5), &[])).unwrap().skip, 0);
        subscriber.on_over(now + APART);
        assert_eq!(subscriber.next(), Some(Step::Subscribe(now + APART, at)));
        subscriber.on_subscribed(now + APART);
        assert_eq!(subscriber.on_event(event(&[5, 6], Some(7), &[])).unwrap().skip, 3);
        assert_eq!(subscriber.on_event(event(&[8], Some(9), &[])).unwrap().skip, 0);
    }

    #[test]
    fn what_was_dealt_with_is_left_out_where_a_subscription_begins_too_early() {
        let now = Instant::now();
        let mut subscriber = subscriber(Some(&Progress::after(sequence(9))), now);
        subscriber.on_subscribed(now);
        let mut taken = |numbers: &[u64]| {
            let batch = subscriber.on_event(event(numbers, Some(50), &[])).unwrap();
            let numbers = batch.records.iter().map(|record| record.sequence_number.to_string());
            numbers.collect::<Vec<_>>()
        };
        assert_eq!(taken(&[8, 9, 10, 11]), ["10", "11"]);
        assert_eq!(taken(&[10, 11]), [""; 0]);
        assert_eq!(taken(&[9, 11, 100]), ["100"]);
    }

    #[test]
    fn failures_wait_ever_longer_up_to_the_cap_and_an_event_ends_that() {
        let now = Instant::now();
        let mut subscriber = subscriber(None, now);
        let denied = ReadError::Failed(String::new());
        let pauses: Vec<Duration> = (0..100).map(|_| subscriber.on_error(&denied, now)).collect();
        assert!(pauses.iter().all(|pause| *pause <= BACKOFF_MAX));
        assert!(pauses.iter().any(|pause| *pause > BACKOFF_MAX / 2));
        // That it came about is no success yet.
        subscriber.on_subscribed(now);
        assert_eq!(subscriber.backoff.failures(), 100);
        subscriber.on_event(event(&[], Some(1), &[])).unwrap();
        assert_eq!(subscriber.backoff.failures(), 0);
    }
}
