//! Shipping: records into PutRecords calls, and again what was refused.
//!
//! Invariant: every record pushed ends in exactly one [`Receipt`]; of an ordered partition key at most
//! one entry is in flight, and the next goes out only after its receipts. Nothing is given up for
//! age or number of tries: what cannot be sent waits, and its bytes wait in their file.
//!
//! Since a key has one entry in flight, its records pile up behind it wherever a file is longer than
//! what the stream takes in a round trip. Where their data may be joined (`"\n"` lines), those that
//! wait go as one entry, up to `ship.joined_bytes`: as with the group commit of a database, the worse
//! the backlog, the fewer and fuller the calls. It never costs a payload unit more.
//!
//! [`Shipper`] decides and does nothing else: time and randomness are handed in, calls are made by
//! [`run`]. What an outcome means:
//!
//! ```text
//!  entry accepted ─────────────────▶ receipt; the key's next record may go
//!  entry failed ───────────────────▶ again after its own backoff
//!  entry throttled, ordered ───────▶ again after the backoff of its shard, shared by the shard's keys;
//!                                    of joined records the first alone
//!  entry throttled, not ordered ───▶ again under a fresh random key, away from the hot shard
//!  entry poison, one record ───────▶ receipt: dead letter
//!  entry poison, joined ───────────▶ half of it again, the other half after it
//!  call refused, many entries ─────▶ two calls with a half each
//!  call refused, one entry ────────▶ as an entry that is poison (but see below)
//!  call throttled, no answer,
//!  or the stream unavailable ──────▶ all of it again; the flow backs off, one probe at a time
//! ```
//!
//! A single record that is refused is poison by the service's own words, unless thirteen calls in
//! a row have led to no acceptance at all: then the stream (or what stands before it) is doubted,
//! not the record. The flow backs off, says so, and sends suspects and others by turns; a record is
//! then given up only when it was refused alone five times. So a misconfigured endpoint that
//! refuses everything costs a dead letter in a minute at the default cap, not one a record.

mod backoff;
mod pace;
mod parcel;
mod queue;
mod run;
mod shards;
mod tally;
mod window;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod model;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

pub use self::run::{Sink, Unsettled, run};

use self::backoff::Backoff;
use self::pace::{Epoch, Failure, Pace};
use self::parcel::Parcel;
use self::queue::Queue;
use self::shards::Shards;
use self::tally::Tally;
use crate::config;
use crate::cost::{PAYLOAD_UNIT_BYTES, approximate};
use crate::record::Record;
use crate::status::Sent;
use crate::stream::{Entry, EntryOutcome, Outcome};

/// How long a record that could be sent waits for company while other calls are in flight (as Nagle's
/// algorithm does): a twentieth of what a call takes, and long enough to gather what one turn of
/// the merger makes.
const LINGER: Duration = Duration::from_millis(5);

/// The least time from one call to the next while less than a call is ready: where the stream answers
/// at once, nothing would be in flight to wait for, and each call would carry what a moment brought.
/// Of a call's own time it is little; a call for each line of a busy file costs as much CPU as two
/// hundred lines in one.
const SPACING: Duration = Duration::from_millis(2);

/// Windows of full calls that are held: one in flight and one being filled.
const WINDOWS_HELD: usize = 2;

/// What a record counts for beyond its bytes: about the memory that it takes itself.
const RECORD_HELD: usize = 256;

/// Hexadecimal digits of a fresh random key: 128 bits, as wide as the space of hash keys.
const RANDOM_KEY_DIGITS: usize = 32;

/// The longest pause after a throttled entry, however often: a shard's budget is counted by the
/// second (1 MB, 1,000 records), so after two seconds two of them have come back, and waiting for
/// longer only leaves them to others.
const THROTTLE_PAUSE_MAX: Duration = Duration::from_secs(2);

/// So often a record must be refused alone before it is given up while the stream itself is doubted.
const LONE_REFUSALS_MAX: u32 = 5;

/// The end of one record's journey.
#[derive(Clone, Debug)]
pub enum Receipt {
    /// The stream accepted it.
    Accepted(Record),
    /// No retry can save it: the record, and the service's words.
    Poisoned(Record, String),
}

/// The number of a call, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlightId(u64);

/// A call to make.
#[derive(Debug)]
pub struct Request {
    /// By which its outcome is handed in.
    pub id: FlightId,
    /// The entries; their data is shared, not copied.
    pub entries: Vec<Entry>,
}

/// What a shipper says of itself.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What is wrong just now, in one sentence.
    pub problem: Option<String>,
    /// Records held: waiting or in flight.
    pub records: usize,
    /// Their bytes, keys included.
    pub bytes: usize,
    tally: Tally,
}

impl Snapshot {
    /// Returns the counters at `now`.
    #[must_use]
    pub fn sent(&self, now: Instant) -> Sent {
        let Tally { sent, accepted, unmerged, last_accepted } = &self.tally;
        let billed = accepted.payload_units.saturating_mul(PAYLOAD_UNIT_BYTES);
        let since = last_accepted.map(|at| now.saturating_duration_since(at));
        Sent {
            records: accepted.records,
            bytes: accepted.bytes,
            payload_units: accepted.payload_units,
            on_demand_bytes: accepted.on_demand_bytes,
            calls_unmerged: unmerged.fewest_calls(),
            payload_units_unmerged: unmerged.payload_units,
            on_demand_bytes_unmerged: unmerged.on_demand_bytes,
            fill: approximate(accepted.bytes) / approximate(billed.max(1)),
            last_accepted_seconds: since.as_ref().map(Duration::as_secs_f64),
            ..sent.clone()
        }
    }
}

#[derive(Debug)]
struct Flight {
    parcels: Vec<Parcel>,
    suspect: bool,
    epoch: Epoch,
    sent: Instant,
}

/// Decides what is sent when, and what an outcome means.
#[derive(Debug)]
pub struct Shipper {
    limits: config::Ship,
    /// What those before may have on its way, at most, beside the two windows.
    buffer: usize,
    rng: Rng,
    backoff: Backoff,
    throttle_backoff: Backoff,
    pace: Pace,
    queue: Queue,
    shards: Shards,
    flights: BTreeMap<FlightId, Flight>,
    next_id: u64,
    last_call: Option<Instant>,
    others_turn: bool,
    held_records: usize,
    held_bytes: usize,
    tally: Tally,
}

impl Shipper {
    /// Returns a shipper that holds nothing. The same `rng` and inputs give the same calls.
    /// `joins`: the data of two records of a key, of which the first ends with a newline, may go as
    /// one record.
    ///
    /// Reading keeps within `buffer` what is on its way, with a share for each file. All of it finds
    /// room here: should a shard take nothing, what others have is not behind what it holds up.
    #[must_use]
    pub fn new(limits: config::Ship, buffer: usize, joins: bool, rng: Rng) -> Self {
        let throttle_backoff = Backoff::new(limits.backoff_max.min(THROTTLE_PAUSE_MAX));
        Self {
            pace: Pace::new(&limits),
            backoff: Backoff::new(limits.backoff_max),
            throttle_backoff,
            queue: Queue::new(if joins { limits.joined_bytes } else { 0 }),
            limits,
            buffer,
            rng,
            shards: Shards::new(throttle_backoff),
            flights: BTreeMap::new(),
            next_id: 0,
            last_call: None,
            others_turn: false,
            held_records: 0,
            held_bytes: 0,
            tally: Tally::default(),
        }
    }

    /// Takes a record in. Allowed without [room](Self::has_room), but then memory is bounded by the caller.
    pub fn push(&mut self, now: Instant, record: Record) {
        self.held_records = self.held_records.saturating_add(1);
        self.held_bytes = self.held_bytes.saturating_add(record.size());
        self.queue.push(now, record);
    }

    /// Returns true where another record may be pushed: `buffer` and two windows of full calls are held.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let windows = self.limits.in_flight.max(1).saturating_mul(WINDOWS_HELD);
        let most = self.limits.request_bytes.saturating_mul(windows).saturating_add(self.buffer);
        self.held_bytes.saturating_add(self.held_records.saturating_mul(RECORD_HELD)) < most
    }

    /// Returns true where every record pushed has its receipt.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held_records == 0
    }

    /// Returns what is wrong just now, in one sentence without a time in it.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.pace.problem()
    }

    /// Returns what the shipper says of itself.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut tally = self.tally.clone();
        tally.sent.in_flight = self.flights.len() as u64;
        tally.sent.window = self.pace.places() as u64;
        Snapshot {
            problem: self.problem().map(str::to_owned),
            records: self.held_records,
            bytes: self.held_bytes,
            tally,
        }
    }

    /// Returns the next call to make, if one may go out now. Ask until `None`.
    pub fn next_request(&mut self, now: Instant) -> Option<Request> {
        if self.pace.opens_at(now, self.flights.len())? > now {
            return None;
        }
        self.queue.admit_due(now);
        let (parcels, suspect) = self.pick(now)?;
        let id = FlightId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.last_call = Some(now);
        self.tally.sent.calls = self.tally.sent.calls.saturating_add(1);
        let entries = parcels.iter().map(Parcel::entry).collect();
        let flight = Flight { parcels, suspect, epoch: self.pace.epoch(), sent: now };
        self.flights.insert(id, flight);
        Some(Request { id, entries })
    }

    /// Returns when to ask for the next call should nothing else happen; `None` where only an
    /// outcome or a new record can bring one.
    #[must_use]
    pub fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let opens = self.pace.opens_at(now, self.flights.len())?;
        let suspects = self.queue.has_suspects().then_some(now);
        let ready = self.ready_at(now);
        let wanted = suspects.into_iter().chain(ready).chain(self.queue.next_due()).min()?;
        Some(wanted.max(opens))
    }

    /// Takes in what became of a call, and adds the receipts that follow from it. The outcome of a call
    /// that is not in flight is left out of account.
    pub fn on_outcome(
        &mut self,
        now: Instant,
        id: FlightId,
        outcome: Outcome,
        receipts: &mut Vec<Receipt>,
    ) {
        let Some(flight) = self.flights.remove(&id) else { return };
        match outcome {
            Outcome::Answered(outcomes) if outcomes.len() == flight.parcels.len() => {
                self.on_answer(now, flight, outcomes, receipts);
            }
            Outcome::Answered(outcomes) => {
                let (got, sent) = (outcomes.len(), flight.parcels.len());
                let message = format!("an answer for {got} records to a call of {sent}");
                self.on_failure(now, flight, Failure::Unknown, &message);
            }
            Outcome::Refused { message } => self.on_refusal(now, flight, &message, receipts),
            Outcome::Throttled { message } => {
                self.on_failure(now, flight, Failure::Throttled, &message);
            }
            Outcome::Unavailable { trouble, message } => {
                self.on_failure(now, flight, Failure::Unavailable(trouble), &message);
            }
            Outcome::Unknown { message } => {
                self.on_failure(now, flight, Failure::Unknown, &message);
            }
        }
    }

    /// Returns when the ready records may fill a call: at once where a whole one is ready, else when the
    /// first has waited for company, or the last call is a moment ago.
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        let (records, bytes, since) = self.queue.ready()?;
        let enough = records >= self.limits.request_records || bytes >= self.limits.request_bytes;
        let at = if enough {
            None
        } else if self.flights.is_empty() {
            self.last_call.and_then(|last| last.checked_add(SPACING))
        } else {
            since.checked_add(LINGER)
        };
        Some(at.map_or(now, |at| at.max(now)))
    }

    /// Suspects and the others go by turns, so that neither holds the other up.
    fn pick(&mut self, now: Instant) -> Option<(Vec<Parcel>, bool)> {
        let others = self.ready_at(now).is_some_and(|at| at <= now);
        if others && (self.others_turn || !self.queue.has_suspects()) {
            self.others_turn = false;
            let parcels = self.fill(now);
            if !parcels.is_empty() {
                return Some((parcels, false));
            }
        }
        self.others_turn = true;
        self.queue.take_suspects().map(|parcels| (parcels, true))
    }

    /// Fills a call, oldest first, each with what waits behind it; keys whose shard takes no more are
    /// kept back. A record over the limit of bytes goes alone.
    fn fill(&mut self, now: Instant) -> Vec<Parcel> {
        let ready = self.queue.ready().map_or(0, |(records, _, _)| records);
        let mut parcels = Vec::with_capacity(ready.min(self.limits.request_records));
        let mut bytes = 0_usize;
        while let Some(size) = self.queue.next_size() {
            let full = parcels.len() >= self.limits.request_records
                || bytes.saturating_add(size) > self.limits.request_bytes;
            if full && !parcels.is_empty() {
                break;
            }
            let room = self.limits.request_bytes.saturating_sub(bytes);
            let Some(parcel) = self.queue.take(room) else { break };
            if let Some(until) = self.kept_back_until(&parcel, now) {
                self.queue.delay(parcel, until);
            } else {
                bytes = bytes.saturating_add(parcel.size());
                parcels.push(parcel);
            }
        }
        parcels
    }

    fn kept_back_until(&self, parcel: &Parcel, now: Instant) -> Option<Instant> {
        if parcel.is_ordered() { self.shards.closed_until(parcel.key(), now) } else { None }
    }

    fn on_answer(
        &mut self,
        now: Instant,
        flight: Flight,
        outcomes: Vec<EntryOutcome>,
        receipts: &mut Vec<Receipt>,
    ) {
        let entries = outcomes.len();
        let (mut accepted, mut throttled) = (0_usize, 0_usize);
        for (parcel, outcome) in flight.parcels.into_iter().zip(outcomes) {
            match outcome {
                EntryOutcome::Accepted { shard } => {
                    accepted = accepted.saturating_add(1);
                    self.accept(now, parcel, &shard, flight.sent, receipts);
                }
                EntryOutcome::Failed { message } => self.retry(now, parcel, &message),
                EntryOutcome::Poison { message } => self.poison(now, parcel, &message, receipts),
                EntryOutcome::Throttled { shard } => {
                    throttled = throttled.saturating_add(1);
                    self.throttle(now, parcel, shard, flight.sent);
                }
            }
        }
        // Entries that are throttled wait for their shards: they say nothing against the stream.
        if accepted > 0 || throttled == entries {
            self.pace.on_progress(flight.epoch, throttled, entries);
        } else {
            let words = self.tally.sent.last_error.as_deref().unwrap_or_default();
            self.pace.on_fruitless(now, flight.epoch, words, &mut self.rng);
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        parcel: Parcel,
        shard: &Arc<str>,
        sent: Instant,
        receipts: &mut Vec<Receipt>,
    ) {
        self.tally.on_accepted(now, &parcel);
        self.shards.on_accepted(shard, sent);
        if parcel.is_ordered() {
            self.shards.learn(parcel.key(), shard);
        }
        self.settle(now, &parcel);
        receipts.extend(parcel.into_records().map(Receipt::Accepted));
    }

    fn retry(&mut self, now: Instant, mut parcel: Parcel, message: &str) {
        self.tally.sent.records_failed = self.tally.sent.records_failed.saturating_add(1);
        self.tally.note_error(message);
        parcel.failures = parcel.failures.saturating_add(1);
        let pause = self.backoff.jittered(parcel.failures, &mut self.rng);
        self.queue.delay(parcel, now.checked_add(pause).unwrap_or(now));
    }

    /// An ordered record waits for its shard, and for its own backoff, so that the records of a
    /// shard that is open again do not all come in one call; another one leaves the shard.
    fn throttle(
        &mut self,
        now: Instant,
        mut parcel: Parcel,
        shard: Option<Arc<str>>,
        sent: Instant,
    ) {
        self.tally.sent.records_throttled = self.tally.sent.records_throttled.saturating_add(1);
        self.tally.note_error("records were refused for throughput");
        // A shard that has little left may never have room for all of it at once.
        while self.queue.part(&mut parcel) {}
        parcel.failures = parcel.failures.saturating_add(1);
        let pause = self.throttle_backoff.jittered(parcel.failures, &mut self.rng);
        let mut until = now.checked_add(pause).unwrap_or(now);
        if parcel.is_ordered() {
            let key = parcel.key();
            if let Some(shard) = &shard {
                self.shards.learn(key, shard);
            }
            if let Some(shard) = shard.or_else(|| self.shards.home(key).cloned()) {
                until = until.max(self.shards.on_throttled(now, &shard, sent, &mut self.rng));
            }
        } else {
            self.give_fresh_key(&mut parcel);
        }
        self.queue.delay(parcel, until);
    }

    /// A fresh key is never longer than the one before: the record stays within its limits.
    fn give_fresh_key(&mut self, parcel: &mut Parcel) {
        let mut key = format!("{:032x}", self.rng.u128(..));
        key.truncate(parcel.key().len().min(RANDOM_KEY_DIGITS));
        let saved = parcel.key().len().saturating_sub(key.len());
        self.held_bytes = self.held_bytes.saturating_sub(saved);
        parcel.rename(Arc::from(key));
    }

    fn on_refusal(
        &mut self,
        now: Instant,
        mut flight: Flight,
        message: &str,
        receipts: &mut Vec<Receipt>,
    ) {
        self.tally.on_failed_call(message);
        self.pace.on_fruitless(now, flight.epoch, message, &mut self.rng);
        let half = flight.parcels.len().div_ceil(2);
        let second = flight.parcels.split_off(half);
        if !second.is_empty() {
            self.queue.suspect_next(second);
            self.queue.suspect_next(flight.parcels);
            return;
        }
        for parcel in flight.parcels {
            let Some(mut parcel) = self.halve(parcel) else { continue };
            parcel.lone_refusals = parcel.lone_refusals.saturating_add(1);
            if self.pace.doubts_the_stream() && parcel.lone_refusals < LONE_REFUSALS_MAX {
                self.queue.suspect_last(vec![parcel]);
            } else {
                self.poison(now, parcel, message, receipts);
            }
        }
    }

    fn on_failure(&mut self, now: Instant, flight: Flight, failure: Failure, message: &str) {
        self.tally.on_failed_call(message);
        self.pace.on_failure(now, flight.epoch, failure, message, &mut self.rng);
        if flight.suspect {
            self.queue.suspect_next(flight.parcels);
        } else {
            self.queue.restore(flight.parcels.into_iter());
        }
    }

    /// Sends the first half of what is joined in a refused parcel again, by itself; gives a single
    /// record back.
    fn halve(&mut self, mut parcel: Parcel) -> Option<Parcel> {
        if !self.queue.part(&mut parcel) {
            return Some(parcel);
        }
        self.queue.suspect_next(vec![parcel]);
        None
    }

    fn poison(&mut self, now: Instant, parcel: Parcel, message: &str, receipts: &mut Vec<Receipt>) {
        self.tally.note_error(message);
        let Some(parcel) = self.halve(parcel) else { return };
        let dead = self.tally.sent.records_dead_lettered.saturating_add(1);
        self.tally.sent.records_dead_lettered = dead;
        self.settle(now, &parcel);
        receipts.extend(
            parcel.into_records().map(|record| Receipt::Poisoned(record, message.to_owned())),
        );
    }

    fn settle(&mut self, now: Instant, parcel: &Parcel) {
        for record in parcel.records() {
            self.held_records = self.held_records.saturating_sub(1);
            self.held_bytes = self.held_bytes.saturating_sub(record.size());
        }
        if parcel.is_ordered() {
            self.queue.settle(now, parcel.key());
        }
    }
}

#[cfg(test)]
mod tests;
