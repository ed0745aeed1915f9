//! Random histories of a shipper against a model stream with shards, on a virtual clock.
//!
//! Goal: whatever the stream does, every record gets exactly one receipt once the faults end, an
//! accepted record is never sent again, and order within a key holds. Method: the model knows what
//! it stored; each step draws a fault, and the claims are checked on every call.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use proptest::prelude::*;

use super::fixture::{limits, record, unordered};
use super::*;
use crate::stream::Trouble;

const SHARDS: usize = 4;

/// What a record holds, as the model tells records apart.
type Name = String;

struct Model {
    shipper: Shipper,
    now: Instant,
    rng: Rng,
    limits: config::Ship,
    poison: HashSet<Name>,
    in_flight: BTreeMap<FlightId, Vec<Entry>>,
    /// Records that the shipper was told are stored.
    told: HashSet<Name>,
    /// Records stored, in the order of their first storing, by key.
    stored: HashMap<Arc<str>, Vec<Name>>,
    receipts: Vec<Receipt>,
    sent_bytes: usize,
    accepted_bytes: usize,
    calls: usize,
}

impl Model {
    fn new(seed: u64, limits: config::Ship) -> Self {
        Self {
            shipper: Shipper::new(limits.clone(), 30_000, true, Rng::with_seed(seed)),
            now: Instant::now(),
            rng: Rng::with_seed(seed ^ 0x5eed),
            limits,
            poison: HashSet::new(),
            in_flight: BTreeMap::new(),
            told: HashSet::new(),
            stored: HashMap::new(),
            receipts: Vec::new(),
            sent_bytes: 0,
            accepted_bytes: 0,
            calls: 0,
        }
    }

    /// Makes every call that is due; checks each.
    fn send(&mut self) {
        while let Some(request) = self.shipper.next_request(self.now) {
            let size = |entry: &Entry| entry.data.concat().len() + entry.partition_key.len();
            let bytes: usize = request.entries.iter().map(size).sum();
            assert!(!request.entries.is_empty());
            assert!(request.entries.len() <= self.limits.request_records);
            assert!(bytes <= self.limits.request_bytes || request.entries.len() == 1);
            let mut keys: HashSet<_> = self
                .in_flight
                .values()
                .flatten()
                .filter(|entry| entry.partition_key.starts_with("key"))
                .map(|entry| Arc::clone(&entry.partition_key))
                .collect();
            for entry in &request.entries {
                let told = names(entry).iter().any(|name| self.told.contains(name));
                assert!(!told, "accepted, yet sent again");
                let joined = entry.data.len() > 1;
                assert!(!joined || size(entry) <= self.limits.joined_bytes);
                if entry.partition_key.starts_with("key") {
                    let key = Arc::clone(&entry.partition_key);
                    assert!(keys.insert(key), "two records of a key in flight");
                }
            }
            self.sent_bytes += bytes;
            self.calls += 1;
            self.in_flight.insert(request.id, request.entries);
            assert!(self.in_flight.len() <= self.limits.in_flight);
        }
        let wakeup = self.shipper.next_wakeup(self.now);
        assert!(wakeup.is_none_or(|at| at > self.now), "a wakeup that brings nothing");
        let stuck = wakeup.is_none() && self.in_flight.is_empty() && !self.shipper.is_idle();
        assert!(!stuck, "records wait, and nothing will send them");
    }

    fn is_poison(&self, entry: &Entry) -> bool {
        names(entry).iter().any(|name| self.poison.contains(name))
    }

    fn store(&mut self, entry: &Entry) {
        let order = self.stored.entry(Arc::clone(&entry.partition_key)).or_default();
        for name in names(entry) {
            if !order.contains(&name) {
                order.push(name);
            }
        }
    }

    /// Answers entry by entry; an entry is refused with the given chance in percent.
    fn answer(&mut self, entries: &[Entry], refused: u8, hot: Option<usize>) -> Outcome {
        let answer = |entry: &Entry| {
            let shard = entry.partition_key.bytes().map(usize::from).sum::<usize>() % SHARDS;
            let shard_name: Arc<str> = Arc::from(format!("shardId-{shard:012}"));
            if hot == Some(shard) {
                let shard = self.rng.bool().then_some(shard_name);
                return EntryOutcome::Throttled { shard };
            }
            if self.rng.u8(0..100) < refused {
                return EntryOutcome::Failed { message: "internal".to_owned() };
            }
            if self.is_poison(entry) {
                return EntryOutcome::Poison { message: "poison".to_owned() };
            }
            self.accepted_bytes += entry.data.concat().len() + entry.partition_key.len();
            self.told.extend(names(entry));
            EntryOutcome::Accepted { shard: shard_name }
        };
        let outcomes: Vec<_> = entries.iter().map(answer).collect();
        for (entry, outcome) in entries.iter().zip(&outcomes) {
            if matches!(outcome, EntryOutcome::Accepted { .. }) {
                self.store(entry);
            }
        }
        Outcome::Answered(outcomes)
    }

    fn outcome(&mut self, fault: u8, entries: &[Entry]) -> Outcome {
        let message = || "words".to_owned();
        let poisoned = entries.iter().any(|entry| self.is_poison(entry));
        match fault {
            0 => {
                for entry in entries {
                    if self.rng.bool() && !self.is_poison(entry) {
                        self.store(entry);
                    }
                }
                Outcome::Unknown { message: message() }
            }
            1 => Outcome::Throttled { message: message() },
            2 => Outcome::Unavailable { trouble: Trouble::Access, message: message() },
            3 => Outcome::Answered(Vec::new()),
            4 => self.answer(entries, 30, None),
            5 | 6 => {
                let hot = self.rng.usize(0..SHARDS);
                self.answer(entries, 0, Some(hot))
            }
            _ if poisoned && self.rng.u8(0..4) > 0 => Outcome::Refused { message: message() },
            _ => self.answer(entries, 0, None),
        }
    }

    /// One step: something comes in, something ends, or time passes.
    fn step(&mut self, faulty: bool) {
        self.send();
        let ids: Vec<_> = self.in_flight.keys().copied().collect();
        if let Some(id) = self.rng.choice(ids) {
            let entries = self.in_flight.remove(&id).unwrap();
            self.now += Duration::from_millis(self.rng.u64(0..50));
            let fault = if faulty { self.rng.u8(0..10) } else { u8::MAX };
            let outcome = self.outcome(fault, &entries);
            self.shipper.on_outcome(self.now, id, outcome, &mut self.receipts);
        } else if let Some(wakeup) = self.shipper.next_wakeup(self.now) {
            self.now = self.now.max(wakeup);
        }
    }

    fn settle_all(&mut self) {
        for _ in 0..100_000 {
            if self.shipper.is_idle() {
                return;
            }
            self.step(false);
        }
        panic!("not idle: {:?}", self.shipper.snapshot());
    }
}

/// Returns the names of the records that an entry holds.
fn names(entry: &Entry) -> Vec<Name> {
    String::from_utf8(entry.data.concat()).unwrap().lines().map(str::to_owned).collect()
}

fn name_of(receipt: &Receipt) -> Name {
    let (Receipt::Accepted(record) | Receipt::Poisoned(record, _)) = receipt;
    String::from_utf8(record.data.to_vec()).unwrap().trim_end().to_owned()
}

fn history(seed: u64, records: usize, keys: usize, joined_bytes: usize) {
    let limits = config::Ship { request_records: 16, request_bytes: 300, joined_bytes, ..limits() };
    let mut model = Model::new(seed, limits);
    let mut pushed: HashMap<String, Vec<Name>> = HashMap::new();
    for index in 0..records {
        let data = format!("record {index}");
        if model.rng.u8(0..20) == 0 {
            model.poison.insert(data.clone());
        }
        let record = if model.rng.u8(0..4) == 0 {
            unordered(&format!("random-{index:030}"), &format!("{data}\n"))
        } else {
            let key = format!("key{}", model.rng.usize(0..keys));
            pushed.entry(key.clone()).or_default().push(data.clone());
            record(&key, &format!("{data}\n"))
        };
        model.shipper.push(model.now, record);
        while !model.shipper.has_room() || model.rng.u8(0..3) == 0 {
            model.step(true);
        }
    }
    for _ in 0..200 {
        model.step(true);
    }
    model.settle_all();

    let mut names: Vec<_> = model.receipts.iter().map(name_of).collect();
    assert_eq!(names.len(), records, "one receipt a record");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), records, "no record twice");
    for receipt in &model.receipts {
        let poisoned = matches!(receipt, Receipt::Poisoned(..));
        assert_eq!(poisoned, model.poison.contains(&name_of(receipt)), "only poison is given up");
    }
    for (key, order) in pushed {
        let stored = model.stored.remove(key.as_str()).unwrap_or_default();
        let expected: Vec<_> =
            order.into_iter().filter(|name| !model.poison.contains(name)).collect();
        assert_eq!(stored, expected, "order within {key}");
    }
    assert_eq!((model.shipper.held_records, model.shipper.held_bytes), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_record_gets_one_receipt_and_order_holds(
        seed in any::<u64>(),
        records in 1_usize..300,
        keys in 1_usize..40,
        joined_bytes in prop_oneof![Just(0), 1_usize..400],
    ) {
        history(seed, records, keys, joined_bytes);
    }
}

#[test]
fn at_ten_percent_partial_failure_at_most_a_quarter_more_is_sent() {
    let mut model = Model::new(1, config::Ship { request_bytes: 200_000, ..limits() });
    for index in 0..20_000 {
        while !model.shipper.has_room() {
            let ids: Vec<_> = model.in_flight.keys().copied().collect();
            model.send();
            for id in ids {
                let entries = model.in_flight.remove(&id).unwrap();
                let outcome = model.answer(&entries, 10, None);
                model.shipper.on_outcome(model.now, id, outcome, &mut model.receipts);
            }
            model.now += Duration::from_millis(10);
        }
        let key = format!("key{}", index % 1000);
        model.shipper.push(model.now, record(&key, &format!("record {index:0200}")));
    }
    let (sent, accepted) = (model.sent_bytes, model.accepted_bytes);
    assert!(accepted > 3_000_000, "{accepted}");
    assert!(sent * 100 <= accepted * 125, "{sent} sent, {accepted} accepted");
}

#[test]
fn a_dead_stream_sees_one_call_in_the_longest_pause() {
    let mut model = Model::new(2, limits());
    for index in 0..4000 {
        model.shipper.push(model.now, record(&format!("key{index}"), &format!("record {index}")));
    }
    let start = model.now;
    let mut warm = None;
    while model.now - start < Duration::from_hours(1) {
        model.send();
        let Some((id, _)) = model.in_flight.pop_first() else {
            model.now = model.shipper.next_wakeup(model.now).unwrap();
            continue;
        };
        let message = "refused".to_owned();
        let outcome = Outcome::Unknown { message };
        model.shipper.on_outcome(model.now, id, outcome, &mut model.receipts);
        if warm.is_none() && model.now - start > Duration::from_mins(1) {
            warm = Some(model.calls);
        }
    }
    let calls = model.calls - warm.unwrap();
    assert!(calls <= 355, "{calls} calls in 3540 s");
}
