//! Every transition of the shipper, one claim a test.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::fixture::{accepted, failed, limits, record, throttled, unordered};
use super::*;
use crate::stream::Trouble;

/// A shipper, its clock and its receipts.
struct Rig {
    shipper: Shipper,
    now: Instant,
    receipts: Vec<Receipt>,
}

impl Rig {
    fn new(limits: config::Ship) -> Self {
        let shipper = Shipper::new(limits, 0, true, Rng::with_seed(3));
        Self { shipper, now: Instant::now(), receipts: Vec::new() }
    }

    fn push(&mut self, key: &str, data: &str) {
        self.shipper.push(self.now, record(key, data));
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn next(&mut self) -> Option<(FlightId, Vec<String>)> {
        let request = self.shipper.next_request(self.now)?;
        let text = |entry: &Entry| String::from_utf8(entry.data.concat()).unwrap();
        Some((request.id, request.entries.iter().map(text).collect()))
    }

    /// Makes the call that must be possible now.
    fn call(&mut self) -> (FlightId, Vec<String>) {
        self.next().expect("a call")
    }

    /// Waits until the next call is possible, and makes it.
    fn call_later(&mut self) -> (FlightId, Vec<String>) {
        for _ in 0..10 {
            if let Some(call) = self.next() {
                return call;
            }
            self.now = self.shipper.next_wakeup(self.now).expect("a wakeup");
        }
        panic!("no call");
    }

    /// Ends a call, which took long enough for the next.
    fn outcome(&mut self, id: FlightId, outcome: Outcome) {
        self.now += SPACING;
        self.shipper.on_outcome(self.now, id, outcome, &mut self.receipts);
    }

    fn answer(&mut self, id: FlightId, outcomes: Vec<EntryOutcome>) {
        self.outcome(id, Outcome::Answered(outcomes));
    }

    fn settled(&self) -> Vec<String> {
        self.receipts
            .iter()
            .map(|receipt| match receipt {
                Receipt::Accepted(record) => String::from_utf8(record.data.to_vec()).unwrap(),
                Receipt::Poisoned(record, _) => {
                    format!("poison {}", String::from_utf8_lossy(&record.data))
                }
            })
            .collect()
    }
}

fn refused() -> Outcome {
    Outcome::Refused { message: "bad".to_owned() }
}

fn unknown() -> Outcome {
    Outcome::Unknown { message: "cut".to_owned() }
}

#[test]
fn the_first_record_goes_at_once_and_the_next_wait_for_company() {
    let mut rig = Rig::new(limits());
    rig.push("a", "a1");
    assert_eq!(rig.call().1, ["a1"]);
    rig.push("b", "b1");
    assert!(rig.next().is_none());
    assert_eq!(rig.shipper.next_wakeup(rig.now), Some(rig.now + LINGER));
    rig.wait(4);
    rig.push("c", "c1");
    assert!(rig.next().is_none());
    rig.wait(1);
    assert_eq!(rig.call().1, ["b1", "c1"]);
}

#[test]
fn a_whole_call_goes_without_waiting() {
    let mut rig = Rig::new(config::Ship { request_records: 2, ..limits() });
    rig.push("a", "a1");
    rig.call();
    rig.push("b", "b1");
    assert!(rig.next().is_none());
    rig.push("c", "c1");
    assert_eq!(rig.call().1, ["b1", "c1"]);
}

#[test]
fn where_the_stream_answers_at_once_calls_keep_their_distance() {
    let mut rig = Rig::new(limits());
    rig.push("a", "a1");
    let (id, _) = rig.call();
    let sent = rig.now;
    let outcome = Outcome::Answered(vec![accepted("s")]);
    rig.shipper.on_outcome(rig.now, id, outcome, &mut rig.receipts);
    rig.push("b", "b1");
    assert!(rig.next().is_none());
    assert_eq!(rig.shipper.next_wakeup(rig.now), Some(sent + SPACING));
    rig.push("c", "c1");
    rig.now = sent + SPACING;
    assert_eq!(rig.call().1, ["b1", "c1"]);
}

#[test]
fn the_next_record_of_a_key_waits_for_the_receipt_of_the_one_before() {
    let mut rig = Rig::new(limits());
    rig.push("a", "a1");
    rig.push("a", "a2");
    let (id, sent) = rig.call();
    assert_eq!(sent, ["a1"]);
    rig.wait(1000);
    assert!(rig.next().is_none());
    assert_eq!(rig.shipper.next_wakeup(rig.now), None);
    rig.answer(id, vec![accepted("s")]);
    assert_eq!(rig.settled(), ["a1"]);
    let (id, sent) = rig.call();
    assert_eq!(sent, ["a2"]);
    rig.answer(id, vec![accepted("s")]);
    assert!(rig.shipper.is_idle());
}

#[test]
fn a_partial_failure_resends_only_the_refused_entries() {
    let mut rig = Rig::new(limits());
    for key in ["a", "b", "c"] {
        rig.push(key, key);
    }
    let (id, _) = rig.call();
    rig.answer(id, vec![accepted("s"), failed(), accepted("s")]);
    assert_eq!(rig.settled(), ["a", "c"]);
    assert_eq!(rig.call_later().1, ["b"]);
}

#[test]
fn a_failed_record_is_not_overtaken_by_its_key() {
    let mut rig = Rig::new(limits());
    rig.push("a", "a1");
    rig.push("a", "a2");
    let (id, _) = rig.call();
    rig.answer(id, vec![failed()]);
    let (id, sent) = rig.call_later();
    assert_eq!(sent, ["a1"]);
    rig.answer(id, vec![accepted("s")]);
    assert_eq!(rig.call().1, ["a2"]);
}

#[test]
fn a_hot_shard_holds_its_own_keys_back_and_no_others() {
    let mut rig = Rig::new(limits());
    for key in ["hot1", "hot2", "cool"] {
        rig.push(key, key);
        rig.push(key, key);
    }
    let (id, _) = rig.call();
    rig.answer(id, vec![throttled(Some("h")), accepted("h"), accepted("c")]);
    let until = rig.shipper.shards.closed_until("hot2", rig.now).expect("seed 3 draws a pause");
    let (id, sent) = rig.call();
    assert_eq!(sent, ["cool"]);
    rig.answer(id, vec![accepted("c")]);
    rig.now = until.checked_sub(Duration::from_micros(1)).unwrap();
    assert!(rig.next().is_none());
    let mut later = Vec::new();
    while later.len() < 2 {
        let (id, sent) = rig.call_later();
        rig.answer(id, vec![accepted("h"); sent.len()]);
        later.extend(sent);
    }
    later.sort_unstable();
    assert_eq!(later, ["hot1", "hot2"]);
}

#[test]
fn a_shard_that_takes_nothing_for_long_is_no_reason_to_doubt_the_stream() {
    let mut rig = Rig::new(limits());
    rig.push("hot", "h1");
    for _ in 0..30 {
        let (id, _) = rig.call_later();
        rig.answer(id, vec![throttled(Some("s1"))]);
        assert_eq!(rig.shipper.problem(), None);
        let wakeup = rig.shipper.next_wakeup(rig.now).unwrap();
        assert!(wakeup <= rig.now + THROTTLE_PAUSE_MAX, "it is tried again soon");
    }
    rig.push("cold", "c1");
    assert_eq!(rig.call().1, ["c1"], "and the others do not wait");
}

#[test]
fn an_unordered_record_leaves_the_hot_shard_under_a_fresh_key() {
    let mut rig = Rig::new(limits());
    let long = "0123456789abcdef0123456789abcdef0123";
    for key in [long, "short"] {
        rig.shipper.push(rig.now, unordered(key, key));
    }
    let id = rig.shipper.next_request(rig.now).unwrap().id;
    rig.answer(id, vec![throttled(None), throttled(Some("h"))]);
    rig.wait(101);
    let request = rig.shipper.next_request(rig.now).unwrap();
    let keys: Vec<_> = request.entries.iter().map(|entry| &*entry.partition_key).collect();
    assert!(keys.iter().all(|key| key.bytes().all(|byte| byte.is_ascii_hexdigit())));
    let mut lengths: Vec<_> = keys.iter().map(|key| key.len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [5, 32]);
    rig.answer(request.id, vec![accepted("s"), accepted("s")]);
    assert_eq!((rig.shipper.held_records, rig.shipper.held_bytes), (0, 0));
}

#[test]
fn a_lost_answer_sends_everything_again_in_order_after_a_pause() {
    let mut rig = Rig::new(limits());
    for key in ["a", "b", "c"] {
        rig.push(key, key);
    }
    let (id, first) = rig.call();
    rig.push("d", "d");
    rig.outcome(id, unknown());
    assert_eq!(rig.shipper.pace.places(), 1);
    let (_, again) = rig.call_later();
    assert_eq!(first, ["a", "b", "c"]);
    assert_eq!(again, ["a", "b", "c", "d"]);
}

#[test]
fn an_answer_of_another_length_is_a_lost_answer() {
    let mut rig = Rig::new(limits());
    rig.push("a", "a");
    rig.push("b", "b");
    let (id, _) = rig.call();
    rig.answer(id, vec![accepted("s")]);
    assert!(rig.receipts.is_empty());
    assert_eq!(rig.call_later().1, ["a", "b"]);
}

#[test]
fn an_outcome_of_a_call_that_is_over_changes_nothing() {
    let mut rig = Rig::new(limits());
    rig.push("a", "a");
    let (id, _) = rig.call();
    rig.answer(id, vec![accepted("s")]);
    rig.answer(id, vec![accepted("s")]);
    rig.outcome(id, unknown());
    assert_eq!(rig.settled(), ["a"]);
    assert_eq!(rig.shipper.problem(), None);
}

#[test]
fn poison_is_found_by_halving_and_everything_else_is_accepted() {
    let mut rig = Rig::new(limits());
    for index in 0..500 {
        rig.push(&format!("k{index}"), &index.to_string());
    }
    let (mut calls, mut on_the_way_to_poison) = (0, 0);
    while !rig.shipper.is_idle() {
        let (id, sent) = rig.call_later();
        calls += 1;
        if sent.iter().any(|data| data == "333") {
            on_the_way_to_poison += 1;
            rig.outcome(id, refused());
        } else {
            rig.answer(id, vec![accepted("s"); sent.len()]);
        }
    }
    assert_eq!(on_the_way_to_poison, 10, "⌈log₂ 500⌉ + 1");
    assert!(calls <= 20, "{calls} calls");
    let settled = rig.settled();
    assert_eq!(settled.len(), 500);
    assert!(settled.contains(&"poison 333".to_owned()));
    assert_eq!(rig.shipper.snapshot().tally.sent.records_dead_lettered, 1);
}

#[test]
fn a_lost_answer_in_the_search_for_poison_keeps_the_suspects_together() {
    let mut rig = Rig::new(limits());
    for key in ["a", "b", "c", "d"] {
        rig.push(key, key);
    }
    let (id, _) = rig.call();
    rig.outcome(id, refused());
    let (id, sent) = rig.call();
    assert_eq!(sent, ["a", "b"]);
    rig.outcome(id, unknown());
    assert_eq!(rig.call_later().1, ["a", "b"]);
}

#[test]
fn an_entry_that_is_poison_by_itself_is_dead_lettered_at_once() {
    let mut rig = Rig::new(limits());
    rig.push("a", "a1");
    rig.push("a", "a2");
    rig.push("b", "b1");
    let (id, _) = rig.call();
    let message = "too large".to_owned();
    rig.answer(id, vec![EntryOutcome::Poison { message }, accepted("s")]);
    assert_eq!(rig.settled(), ["poison a1", "b1"]);
    assert_eq!(rig.call().1, ["a2"]);
}

#[test]
fn a_stream_that_refuses_everything_does_not_dead_letter_everything() {
    let mut rig = Rig::new(limits());
    for index in 0..500 {
        rig.push(&format!("k{index}"), &index.to_string());
    }
    let start = rig.now;
    while rig.now - start < Duration::from_mins(10) {
        let (id, _) = rig.call_later();
        rig.outcome(id, refused());
    }
    assert!(rig.receipts.len() <= 20, "{} dead letters in ten minutes", rig.receipts.len());
    let sent = rig.shipper.snapshot().tally.sent;
    assert!(sent.calls < 100, "{} calls in ten minutes", sent.calls);
    assert_eq!(rig.shipper.problem(), Some("the stream accepts no record: bad"));
    while !rig.shipper.is_idle() {
        let (id, sent) = rig.call_later();
        rig.answer(id, vec![accepted("s"); sent.len()]);
    }
    assert_eq!(rig.receipts.len(), 500);
    assert_eq!(rig.shipper.problem(), None);
}

#[test]
fn the_only_record_of_a_flow_can_be_poison_too() {
    let mut rig = Rig::new(limits());
    rig.push("a", "a");
    let (id, _) = rig.call();
    rig.outcome(id, refused());
    assert_eq!(rig.settled(), ["poison a"]);
}

#[test]
fn an_unavailable_stream_pauses_the_flow_with_one_message_and_recovers() {
    let mut rig = Rig::new(limits());
    rig.push("a", "a");
    for _ in 0..20 {
        let (id, sent) = rig.call_later();
        assert_eq!(sent, ["a"]);
        let message = "not authorized".to_owned();
        rig.outcome(id, Outcome::Unavailable { trouble: Trouble::Access, message });
        assert_eq!(rig.shipper.problem(), Some("the stream refuses access: not authorized"));
    }
    let pause = rig.shipper.next_wakeup(rig.now).unwrap() - rig.now;
    assert_eq!(pause, Duration::from_secs(10));
    let (id, _) = rig.call_later();
    rig.answer(id, vec![accepted("s")]);
    assert_eq!(rig.shipper.problem(), None);
    assert!(rig.shipper.is_idle());
}

#[test]
fn at_the_cap_one_call_goes_out_in_that_time() {
    let mut rig = Rig::new(limits());
    for index in 0..2000 {
        rig.push(&format!("k{index}"), "x");
    }
    let mut at = Vec::new();
    for round in 0..60 {
        let (id, _) = rig.call_later();
        assert!(round == 0 || rig.next().is_none(), "one probe at a time");
        at.push(rig.now);
        rig.outcome(id, unknown());
    }
    let pauses: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let cap = Duration::from_secs(10) + SPACING;
    assert!(pauses[10..].iter().all(|pause| *pause == cap), "{pauses:?}");
}

#[test]
fn calls_keep_the_limits_and_a_record_over_them_goes_alone() {
    let limits = config::Ship { request_records: 3, request_bytes: 10, in_flight: 9, ..limits() };
    let mut rig = Rig::new(limits);
    for (key, data) in [("a", "1"), ("b", "22222222"), ("c", "333333333333"), ("d", "4")] {
        rig.push(key, data);
    }
    for key in ["e", "f", "g"] {
        rig.push(key, "5");
    }
    assert_eq!(rig.call().1, ["1"]);
    assert_eq!(rig.call().1, ["22222222"]);
    assert_eq!(rig.call().1, ["333333333333"]);
    assert_eq!(rig.call().1, ["4", "5", "5"]);
}

#[test]
fn room_is_bounded_by_records_and_by_bytes() {
    let limits = config::Ship { request_bytes: 1_000, in_flight: 1, ..limits() };
    let mut rig = Rig::new(limits.clone());
    for number in 0..8 {
        assert!(rig.shipper.has_room(), "{number}");
        rig.push(&format!("{number}"), "a");
    }
    assert!(!rig.shipper.has_room(), "two windows of small records weigh as much as of full ones");
    let mut rig = Rig::new(limits);
    rig.push("b", &"b".repeat(2_000));
    assert!(!rig.shipper.has_room());
}

#[test]
fn the_snapshot_counts_units_fill_and_age() {
    let mut rig = Rig::new(limits());
    rig.push("a", &"x".repeat(24_999));
    rig.push("b", &"x".repeat(25_000));
    let (id, _) = rig.call();
    rig.answer(id, vec![accepted("s"), accepted("s")]);
    rig.wait(1500);
    let sent = rig.shipper.snapshot().sent(rig.now);
    assert_eq!((sent.calls, sent.records, sent.bytes), (1, 2, 50_001));
    assert_eq!((sent.payload_units, sent.payload_units_unmerged), (3, 3));
    assert_eq!((sent.on_demand_bytes, sent.on_demand_bytes_unmerged), (51_200, 51_200));
    assert_eq!(sent.calls_unmerged, 1);
    assert!((sent.fill - 50_001.0 / 75_000.0).abs() < 1e-9);
    assert_eq!(sent.last_accepted_seconds, Some(1.5));
    assert_eq!((sent.window, sent.in_flight), (4, 0));
}

#[test]
fn what_piled_up_behind_a_key_goes_as_one_record() {
    let mut rig = Rig::new(config::Ship { joined_bytes: 100, ..limits() });
    rig.push("a", "1\n");
    let (id, sent) = rig.call();
    assert_eq!(sent, ["1\n"]);
    for data in ["2\n", "3\n", "4\n"] {
        rig.push("a", data);
    }
    rig.answer(id, vec![accepted("s")]);
    let (id, sent) = rig.call();
    assert_eq!(sent, ["2\n3\n4\n"]);
    rig.answer(id, vec![accepted("s")]);
    assert_eq!(rig.settled(), ["1\n", "2\n", "3\n", "4\n"], "a receipt for each");
    let sent = rig.shipper.snapshot().sent(rig.now);
    assert_eq!((sent.records, sent.bytes, sent.payload_units), (2, 10, 2));
    assert!(rig.shipper.is_idle() && rig.shipper.held_bytes == 0);
}

#[test]
fn poison_among_joined_records_is_found_and_the_others_go() {
    for refusal_of_an_entry in [false, true] {
        let mut rig = Rig::new(config::Ship { joined_bytes: 100, ..limits() });
        for data in ["1\n", "2\n", "bad\n", "4\n", "5\n"] {
            rig.push("a", data);
        }
        for _ in 0..20 {
            if rig.shipper.is_idle() {
                break;
            }
            let (id, sent) = rig.call_later();
            if !sent[0].contains("bad") {
                rig.answer(id, vec![accepted("s")]);
            } else if refusal_of_an_entry {
                rig.answer(id, vec![EntryOutcome::Poison { message: "bad".to_owned() }]);
            } else {
                rig.outcome(id, refused());
            }
        }
        assert_eq!(rig.settled(), ["1\n", "2\n", "poison bad\n", "4\n", "5\n"]);
    }
}

#[test]
fn of_joined_records_that_are_throttled_the_first_goes_alone() {
    let mut rig = Rig::new(config::Ship { joined_bytes: 100, ..limits() });
    for data in ["1\n", "2\n", "3\n"] {
        rig.push("a", data);
    }
    let (id, sent) = rig.call();
    assert_eq!(sent, ["1\n2\n3\n"]);
    rig.answer(id, vec![throttled(Some("s"))]);
    let (id, sent) = rig.call_later();
    assert_eq!(sent, ["1\n"]);
    rig.answer(id, vec![accepted("s")]);
    assert_eq!(rig.call_later().1, ["2\n3\n"]);
}
