//! Reading under faults: whatever befalls the calls that read, every line is written once.
//!
//! Invariant: the endpoint stores each line once (nothing befalls the calls that write), so that what
//! stands twice in a file, or is missing there, is the consumer's doing.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{CONSUMER, MIRROR, PRODUCE, both, consume, mirrored};
use crate::scene::{DEADLINE, stop};
use crate::support::agent::Home;
use crate::support::endpoint::{CallFault, Delivery, FaultEndpoint, Log, ReadFault, Script};
use crate::support::oracle::{Oracle, Shape};
use crate::support::writer::{LogWriter, Pace};

/// All that can befall a call that reads, but one that is never answered.
const FAULTS: [ReadFault; 13] = [
    ReadFault::Empty,
    ReadFault::Expired,
    ReadFault::Call(CallFault::AccessDenied),
    ReadFault::Call(CallFault::CutBeforeReading),
    ReadFault::Call(CallFault::CutBeforeStoring),
    ReadFault::Call(CallFault::CutInAnswer),
    ReadFault::Call(CallFault::ExpiredToken),
    ReadFault::Call(CallFault::Garbage),
    ReadFault::Call(CallFault::InternalFailure),
    ReadFault::Call(CallFault::KmsThrottled),
    ReadFault::Call(CallFault::Throttled),
    ReadFault::Call(CallFault::Unavailable),
    ReadFault::Call(CallFault::WrongLength),
];

/// More than a third of the calls that read fail, each fault as often as the others.
fn script(seed: u64) -> Script {
    FAULTS.into_iter().fold(Script::seeded(seed), |script, fault| script.read(fault, 0.03))
}

/// Waits until every fault has befallen a read. A reply that is empty by the script cannot be told from one
/// that is empty because nothing had come: of that one the shares say it.
fn all_befell(endpoint: &FaultEndpoint) {
    let reads = ["GetRecords", "GetShardIterator"];
    let befell = |log: &Log, fault| match fault {
        ReadFault::Call(fault) => log.requests.iter().any(|request| {
            let is_over = request.answer != Delivery::Pending;
            request.fault == Some(fault) && is_over && reads.contains(&&*request.operation)
        }),
        ReadFault::Expired => {
            log.requests.iter().any(|request| request.error == Some("ExpiredIteratorException"))
        }
        ReadFault::Empty => true,
    };
    let all = |log: &Log| FAULTS.into_iter().all(|fault| befell(log, fault));
    endpoint.wait_until("every fault has befallen a read", DEADLINE, all).unwrap();
}

/// Waits until every line stands in the files beneath the output directory, and judges what does.
fn written(home: &Home, oracle: &Oracle) {
    let end = Instant::now() + DEADLINE;
    loop {
        let report = oracle.judge_files(&home.out());
        if report.missing.count == 0 || Instant::now() >= end {
            report.assert_exactly_once();
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Lines that do not say where they come from, so that nothing but the place in the shard tells what was
/// dealt with: each once, in order, although the consumer is killed now and then.
#[test]
fn whatever_befalls_reading_every_line_is_written_once() {
    let seed = 76;
    eprintln!("seed {seed}");
    let endpoint = FaultEndpoint::start(script(seed));
    let source = Home::new(&endpoint.url(), &PRODUCE.replace("format: kpl, ", ""));
    let home = Home::new(&endpoint.url(), &[CONSUMER, &consume("    layout: append\n")].concat());
    let oracle = Oracle::new(seed, Shape::Wild);
    let shipping = source.start();
    let logs = source.logs();
    let writers: Vec<LogWriter> = (0..4)
        .map(|n| LogWriter::start(&logs.join(format!("{n}.log")), oracle.minter(), Pace::rate(200)))
        .collect();
    let mut draws = Rng::with_seed(seed);
    for _ in 0..6 {
        let agent = home.start();
        // Any moment is a fair one.
        thread::sleep(Duration::from_millis(draws.u64(0..1500)));
        agent.kill();
    }
    let agent = home.start();
    all_befell(&endpoint);
    for writer in writers {
        drop(writer.stop());
    }
    written(&home, &oracle);
    stop(shipping);
    stop(agent);
    written(&home, &oracle);
}

/// A mirror under the same faults, and a fresh line once they are over.
#[test]
fn whatever_befalls_reading_the_mirror_is_whole() {
    let seed = 77;
    eprintln!("seed {seed}");
    let endpoint = FaultEndpoint::start(script(seed));
    let home = Home::new(&endpoint.url(), &both(MIRROR));
    let oracle = Oracle::new(seed, Shape::Wild);
    let agent = home.start();
    let log = |n: usize| home.logs().join(format!("{n}.log"));
    let writers: Vec<LogWriter> =
        (0..4).map(|n| LogWriter::start(&log(n), oracle.minter(), Pace::rate(200))).collect();
    all_befell(&endpoint);
    let mut minters: Vec<_> = writers.into_iter().map(LogWriter::stop).collect();
    mirrored(&home);
    endpoint.set_script(Script::healthy());
    drop(LogWriter::start(&log(0), minters.swap_remove(0), Pace::burst(1)).finish());
    mirrored(&home);
    stop(agent);
}
