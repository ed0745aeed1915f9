//! The endpoint's faults: each one as the client sees it, and as the log tells it.

use std::time::Duration;

use super::raw::{Seen, post, put, put_body};
use crate::support::endpoint::{
    CallFault, Delivery, EntryFault, EntryOutcome, FaultEndpoint, Options, Script, Throttle, shards,
};
use crate::support::oracle::{Layout, Oracle, Order, Shape};

const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until the endpoint is through with its first request and returns how it was delivered.
fn delivery(endpoint: &FaultEndpoint) -> Delivery {
    let over = |log: &crate::support::endpoint::Log| {
        log.requests.first().is_some_and(|request| request.answer != Delivery::Pending)
    };
    endpoint.wait_until("the request is over", DEADLINE, over).unwrap();
    endpoint.requests()[0].answer
}

/// Every fault of a call: what the client sees, whether the record is stored, what the log says.
#[test]
fn every_call_fault_does_what_its_name_says() {
    for fault in CallFault::ALL {
        let endpoint = FaultEndpoint::start(Script::healthy().call(fault, 1.0));
        let patience = match fault {
            CallFault::BlackHole | CallFault::BlackHoleAfterStoring => Duration::from_millis(100),
            _ => DEADLINE,
        };
        let seen = post(endpoint.address(), "PutRecords", &put_body(&[("k", b"x")]), patience);
        endpoint.set_script(Script::healthy());
        let expected = match fault {
            CallFault::AccessDenied => Some((400, "AccessDeniedException")),
            CallFault::ExpiredToken => Some((400, "ExpiredTokenException")),
            CallFault::InternalFailure | CallFault::InternalFailureAfterStoring => {
                Some((500, "InternalFailure"))
            }
            CallFault::InvalidArgument => Some((400, "InvalidArgumentException")),
            CallFault::KmsThrottled => Some((400, "KMSThrottlingException")),
            CallFault::ResourceNotFound => Some((400, "ResourceNotFoundException")),
            CallFault::Throttled => Some((400, "ProvisionedThroughputExceededException")),
            CallFault::Unavailable => Some((503, "ServiceUnavailable")),
            _ => None,
        };
        match (fault, &seen) {
            (CallFault::BlackHole | CallFault::BlackHoleAfterStoring, Seen::Silence)
            | (
                CallFault::CutAfterStoring
                | CallFault::CutBeforeReading
                | CallFault::CutBeforeStoring,
                Seen::Cut(0),
            ) => {}
            (CallFault::CutInAnswer | CallFault::WrongLength, Seen::Cut(count)) => {
                assert!(*count > 0, "{fault:?}: something came before the cut");
            }
            (CallFault::Garbage, Seen::Answer(200, body)) => {
                serde_json::from_str::<serde_json::Value>(body).unwrap_err();
            }
            _ => {
                let (status, kind) = expected.unwrap_or_else(|| panic!("{fault:?}: {seen:?}"));
                assert_eq!(seen.error(), (status, kind.to_owned()), "{fault:?}");
            }
        }
        assert_eq!(endpoint.accepted().len(), usize::from(fault.stores()), "{fault:?}");
        let told = expected.is_some() && !fault.stores();
        let answer = if told { Delivery::Delivered } else { Delivery::Lost };
        assert_eq!(delivery(&endpoint), answer, "{fault:?}");
        assert_eq!(endpoint.requests()[0].fault, Some(fault));
        let unknown = endpoint.with_log(crate::support::endpoint::Log::unknown_bytes);
        assert_eq!(unknown, if fault.stores() { 2 } else { 0 }, "{fault:?}");
    }
}

/// The same seed gives the same fates, another seed others; the shares are about as asked.
#[test]
fn faults_follow_from_the_seed() {
    let fates = |seed| {
        let script = Script::seeded(seed)
            .call(CallFault::InternalFailure, 0.2)
            .call(CallFault::CutAfterStoring, 0.1)
            .entry(EntryFault::InternalFailure, 0.05);
        let fate = |number| {
            let mut plan = script.plan(number, "PutRecords");
            let entries = (0..20).map(|_| script.entry_fault(&mut plan)).collect::<Vec<_>>();
            (plan.call, entries)
        };
        (0..2_000).map(fate).collect::<Vec<_>>()
    };
    let first = fates(7);
    assert_eq!(first, fates(7));
    assert_ne!(first, fates(8));
    let count = |fault| first.iter().filter(|(call, _)| *call == Some(fault)).count();
    assert!((300..500).contains(&count(CallFault::InternalFailure)));
    assert!((140..260).contains(&count(CallFault::CutAfterStoring)));
    let refused = first.iter().flat_map(|(_, entries)| entries).flatten().count();
    assert!((1_700..2_300).contains(&refused), "{refused} of 40,000");
}

/// A fault set at a number strikes that request alone.
#[test]
fn a_fault_at_a_number_strikes_that_request() {
    let endpoint = FaultEndpoint::start(Script::healthy().at(1, CallFault::Throttled));
    let statuses = [0, 1, 2].map(|_| put(endpoint.address(), &[("k", b"x")]).json().0);
    assert_eq!(statuses, [200, 400, 200]);
}

/// Refused entries are told as Kinesis tells them, and the others are stored.
#[test]
fn refused_entries_are_told_one_by_one() {
    let script =
        Script::seeded(3).entry(EntryFault::InternalFailure, 0.3).entry(EntryFault::Throttled, 0.3);
    let endpoint = FaultEndpoint::start(script);
    let records = [("k", &b"x"[..]); 100];
    let (status, body) = put(endpoint.address(), &records).json();
    assert_eq!(status, 200);
    let outcomes = endpoint.requests()[0].outcomes.clone();
    assert_eq!(outcomes.len(), 100);
    for (outcome, answered) in outcomes.iter().zip(body["Records"].as_array().unwrap()) {
        let code = answered["ErrorCode"].as_str();
        match outcome {
            EntryOutcome::Accepted => assert!(answered["SequenceNumber"].is_string()),
            EntryOutcome::Refused(EntryFault::InternalFailure) => {
                assert_eq!(code, Some("InternalFailure"));
            }
            EntryOutcome::Refused(EntryFault::Throttled) => {
                assert_eq!(code, Some("ProvisionedThroughputExceededException"));
            }
        }
    }
    let stored = endpoint.with_log(|log| log.stored);
    assert_eq!(body["FailedRecordCount"].as_u64().unwrap(), 100 - stored);
    assert!((20..60).contains(&stored), "{stored}");
}

/// A throttled shard refuses, the others take; each kind of throttle ends when it should.
#[test]
fn a_throttled_shard_refuses_alone() {
    let options = Options { shards: 2, ..Options::default() };
    let endpoint =
        FaultEndpoint::start_with(options, Script::healthy().throttle(1, Throttle::Always));
    let key = |shard| {
        let keys = (0..).map(|n| format!("k{n}"));
        keys.into_iter().find(|key| shards::shard_of(shards::hash(key), 2) == shard).unwrap()
    };
    let (free, throttled) = (key(0), key(1));
    let failed = |records: &[(&str, &[u8])]| {
        put(endpoint.address(), records).json().1["FailedRecordCount"].as_u64().unwrap()
    };
    let both = [(&*free, &b"x"[..]), (&*throttled, b"y"), (&*free, b"z")];
    assert_eq!(failed(&both), 1);
    assert!(endpoint.accepted().iter().all(|record| record.shard == 0));

    endpoint.set_script(Script::healthy().throttle(1, Throttle::Entries(2)));
    let three = [(&*throttled, &b"x"[..]); 3];
    assert_eq!(failed(&three), 2);
    assert_eq!(failed(&three), 0);

    endpoint.set_script(Script::healthy().throttle(1, Throttle::For(Duration::from_hours(1))));
    assert_eq!(failed(&three), 3);
    endpoint.set_script(Script::healthy().throttle(1, Throttle::For(Duration::ZERO)));
    assert_eq!(failed(&three), 0);

    let above = Throttle::Above { records: 5, bytes: 1_000_000 };
    endpoint.set_script(Script::healthy().throttle(1, above));
    assert_eq!(failed(&[(&*throttled, &b"x"[..]); 20]), 15);
}

/// A poisoned record condemns its call, and only its call.
#[test]
fn a_poisoned_record_refuses_the_whole_call() {
    let endpoint = FaultEndpoint::start(Script::healthy().poison(|_, data| data == b"bad"));
    let seen = put(endpoint.address(), &[("a", b"good"), ("b", b"bad")]);
    assert_eq!(seen.error(), (400, "InvalidArgumentException".to_owned()));
    assert_eq!(put(endpoint.address(), &[("a", b"good")]).json().0, 200);
    assert_eq!(endpoint.accepted().len(), 1);
}

/// An entry that is sent again although its acceptance was told is noticed, until a new run begins;
/// one whose answer was lost may come again.
#[test]
fn an_accepted_entry_that_comes_again_is_noticed() {
    let script = Script::healthy().at(0, CallFault::CutAfterStoring);
    let endpoint = FaultEndpoint::start(script);
    let send = |key: &str, data: &[u8]| {
        put(endpoint.address(), &[(key, data)]);
    };
    send("a", b"one");
    send("a", b"one");
    assert!(endpoint.resent_accepted().is_empty(), "the first answer was lost");
    send("other", b"one");
    let resent = endpoint.resent_accepted();
    assert_eq!(resent.len(), 1);
    assert_eq!((resent[0].request, resent[0].index, &*resent[0].key), (2, 0, "other"));
    endpoint.begin_run();
    send("a", b"one");
    assert_eq!(endpoint.resent_accepted().len(), 1);
}

/// A dead endpoint refuses connections; it comes back at the same address with its log.
#[test]
fn an_endpoint_dies_and_listens_again_at_its_port() {
    let mut endpoint = FaultEndpoint::start(Script::healthy());
    let address = endpoint.address();
    for round in 1..=3 {
        put(address, &[("k", b"x")]).json();
        endpoint.die();
        std::net::TcpStream::connect(address).unwrap_err();
        endpoint.listen();
        assert_eq!((endpoint.address(), endpoint.accepted().len()), (address, round));
    }
}

/// Whoever waits in a black hole is let go when the script heals, and the next call works.
#[test]
fn a_black_hole_heals() {
    let endpoint = FaultEndpoint::start(Script::black_hole());
    let address = endpoint.address();
    let held = std::thread::spawn(move || put(address, &[("k", b"x")]));
    endpoint.wait_until("it came", DEADLINE, |log| log.requests.len() == 1).unwrap();
    endpoint.set_script(Script::healthy());
    assert!(matches!(held.join().unwrap(), Seen::Cut(0)));
    assert_eq!(put(address, &[("k", b"x")]).json().0, 200);
}

/// A slow answer comes late, though the record is stored at once.
#[test]
fn a_slow_answer_comes_late() {
    let delay = Duration::from_millis(300);
    let endpoint = FaultEndpoint::start(Script::healthy().slow(1.0, delay));
    let address = endpoint.address();
    let begun = std::time::Instant::now();
    let waiting = std::thread::spawn(move || put(address, &[("k", b"x")]).json().0);
    endpoint.wait_until("stored", DEADLINE, |log| log.stored == 1).unwrap();
    assert_eq!(endpoint.requests()[0].answer, Delivery::Pending);
    assert_eq!(waiting.join().unwrap(), 200);
    assert!(begun.elapsed() >= delay);
}

/// A body that is read slowly takes its time.
#[test]
fn a_slow_reader_takes_its_time() {
    let endpoint = FaultEndpoint::start(Script::healthy().read_rate(20_000));
    let begun = std::time::Instant::now();
    put(endpoint.address(), &[("k", &[7; 3_000])]).json();
    assert!(begun.elapsed() >= Duration::from_millis(150));
}

/// The oracle waits at an endpoint for what is still on its way, and tells what never came.
#[test]
fn the_oracle_waits_for_lines_on_their_way() {
    let endpoint = FaultEndpoint::start(Script::healthy());
    let oracle = Oracle::new(11, Shape::Plain);
    let mut minter = oracle.minter();
    let lines = (0..20).map(|_| minter.next_line()).collect::<Vec<_>>();
    let address = endpoint.address();
    let sender = std::thread::spawn(move || {
        for line in lines {
            put(address, &[("k", &line)]).json();
        }
    });
    let wait =
        |deadline| oracle.wait_for_all(&endpoint, &Layout::Slices, Order::WithinFile, deadline);
    wait(DEADLINE).assert_exactly_once();
    sender.join().unwrap();
    minter.next_line();
    assert_eq!(wait(Duration::from_millis(20)).missing.count, 1);
}

/// A condition that never comes true ends at its deadline and says how things stand.
#[test]
fn waiting_ends_at_the_deadline() {
    let endpoint = FaultEndpoint::start(Script::healthy());
    let waited = endpoint.wait_until("a miracle", Duration::from_millis(20), |log| log.stored > 0);
    let timed_out = waited.unwrap_err();
    assert_eq!(timed_out.claim, "a miracle");
    assert!(timed_out.state.contains("stored: 0"), "{}", timed_out.state);
}
