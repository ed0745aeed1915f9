//! Faults: whatever the endpoint does, every line arrives, and the agent says what is wrong.
//!
//! Invariant: under every fault the only marks are duplicates, and those no more than what the endpoint
//! stored without the agent's being told.

use std::time::Duration;

use super::scene::{
    DEADLINE, Scene, Settings, append, assert_books_balance, number, problems, refused_entries,
    stop,
};
use crate::support::endpoint::{CallFault, EntryFault, Log, Script, Throttle};
use crate::support::oracle::{Allowance, Layout, Order};

/// Files that each of the runs under faults follows.
const FILES: usize = 6;

/// Runs an agent over files while `faults`, given the shard of the first file, befall it; asserts that
/// nothing is lost, nothing accepted is sent again, and (unless keys are random) the order is kept.
fn run_under_faults(seed: u64, settings: &Settings, faults: impl FnOnce(u32) -> Script) {
    let scene = Scene::new(seed, settings, Script::healthy());
    let agent = scene.home.start();
    let minters: Vec<_> = (0..FILES).map(|file| scene.write(file, 1)).collect();
    drop(scene.arrived());
    let shard = scene.endpoint.accepted()[0].shard;
    scene.endpoint.set_script(faults(shard));
    for (file, minter) in minters.into_iter().enumerate() {
        drop(scene.write_more(file, minter, 800));
    }
    let order = if settings.key == "random" { Order::Any } else { Order::WithinFile };
    let report = scene.oracle.wait_for_all(&scene.endpoint, &Layout::Slices, order, DEADLINE);
    scene.endpoint.set_script(Script::healthy());
    scene.at_rest();
    stop(agent);
    let refused = scene.endpoint.with_log(refused_entries);
    assert!(refused > 10, "only {refused} records were refused: this run proves nothing");
    report.assert_within(Allowance::bytes(scene.endpoint.with_log(Log::unknown_bytes)));
    scene.assert_nothing_accepted_was_resent();
}

/// The faults of a bad day: 5 % of the records refused, 2 % of the calls answered by HTTP 500, 1 % cut
/// off after they were stored, one shard of four throttled.
fn bad_day(seed: u64, shard: u32) -> Script {
    Script::seeded(seed)
        .entry(EntryFault::InternalFailure, 0.05)
        .call(CallFault::InternalFailure, 0.02)
        .call(CallFault::CutAfterStoring, 0.01)
        // Each of them at least once, whatever the seed draws.
        .at(30, CallFault::InternalFailure)
        .at(45, CallFault::CutAfterStoring)
        .throttle(shard, Throttle::Above { records: 100, bytes: 100_000 })
}

/// "**Order within a partition key** is file order. Only refused records are sent again, and nothing of
/// the same key overtakes them."
#[test]
fn a_bad_day_loses_nothing_and_keeps_the_order_of_each_file() {
    for seed in [1, 2, 3] {
        run_under_faults(seed, &Settings::default(), |shard| bad_day(seed, shard));
    }
}

/// The same with random keys, which leave a throttled shard for another.
#[test]
fn a_bad_day_loses_nothing_under_random_keys() {
    let settings = Settings { key: "random", ..Settings::default() };
    for seed in [4, 5, 6] {
        run_under_faults(seed, &settings, |shard| bad_day(seed, shard));
    }
}

/// Every other way in which a call can fail, all at once, answers later than the timeout among them.
#[test]
fn every_way_a_call_can_fail_loses_nothing() {
    let settings = Settings {
        ship: "timeout: 1 s, backoff_max: 100 ms, joined_bytes: 1 KB",
        ..Settings::default()
    };
    for seed in [7, 8] {
        run_under_faults(seed, &settings, |_| {
            let faults = [
                CallFault::CutBeforeReading,
                CallFault::CutBeforeStoring,
                CallFault::CutInAnswer,
                CallFault::Garbage,
                CallFault::InternalFailureAfterStoring,
                CallFault::KmsThrottled,
                CallFault::Throttled,
                CallFault::Unavailable,
                CallFault::WrongLength,
            ];
            let script = Script::seeded(seed)
                .entry(EntryFault::Throttled, 0.05)
                .slow(0.01, Duration::from_millis(1500));
            faults.into_iter().fold(script, |script, fault| script.call(fault, 0.01))
        });
    }
}

/// What is sent again costs no more than it must: at 10 % refused records, at most 1.25 bytes are sent
/// for one that is accepted.
#[test]
fn refused_records_alone_are_sent_again() {
    let settings = Settings { key: "random", ..Settings::default() };
    let script = Script::seeded(9).entry(EntryFault::InternalFailure, 0.1);
    let scene = Scene::new(9, &settings, script);
    drop(scene.write(0, 8_000));
    let finished = scene.home.once(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let report = scene.oracle.verify(&scene.endpoint.accepted(), &Layout::Slices, Order::Any);
    report.assert_exactly_once();
    let (sent, accepted) = scene.endpoint.with_log(|log| {
        let sent: usize = log.puts().map(|request| request.bytes).sum();
        let accepted: usize = log.records.iter().map(|r| r.data.len() + r.key.len()).sum();
        (sent, accepted)
    });
    assert!(sent * 4 <= accepted * 5, "{sent} bytes sent for {accepted} accepted");
    scene.assert_nothing_accepted_was_resent();
}

/// "**One bad thing never stops the rest**: one unreadable file, one poisoned record, one throttled
/// shard." Here a shard that takes nothing at all, while several files of it hold more than the
/// memory of the flow.
#[test]
fn a_shard_that_takes_nothing_does_not_stop_the_others() {
    // No scan helps out: what is settled must itself let a file read on.
    let tail = "buffer: 1 MiB, scan_interval: 1 h";
    stand_still(
        10,
        &Settings { merge: "max_bytes: 25 KB, max_age: 50 ms", tail, ..Settings::default() },
        8_000,
    );
}

/// The same where a line is a record, and more of them stand still than several windows of calls hold.
#[test]
fn a_shard_that_takes_nothing_does_not_stop_the_others_where_records_are_small() {
    let tail = "scan_interval: 1 h";
    stand_still(14, &Settings { merge: "max_lines: 1", tail, ..Settings::default() }, 3_000);
}

/// Lets one shard take nothing while there is more for it than may be held, and asserts that all of the
/// others arrives.
fn stand_still(seed: u64, settings: &Settings, lines: u64) {
    const FILES: usize = 12;
    let scene = Scene::new(seed, settings, Script::healthy());
    let agent = scene.home.start();
    let minters: Vec<_> = (0..FILES).map(|file| scene.write(file, 1)).collect();
    drop(scene.arrived());
    let mut shards = [0; FILES];
    for record in scene.endpoint.accepted() {
        let writer = record.data.split(|byte| *byte == b':').next().unwrap();
        shards[std::str::from_utf8(writer).unwrap().parse::<usize>().unwrap()] = record.shard;
    }
    let files_of = |shard: u32| shards.iter().filter(|of| **of == shard).count();
    let busiest = (0..4).max_by_key(|shard| files_of(*shard)).unwrap();
    eprintln!("{} of {FILES} files are of the throttled shard", files_of(busiest));
    scene.endpoint.set_script(Script::healthy().throttle(busiest, Throttle::Always));
    let before = scene.endpoint.with_log(|log| log.stored_bytes);
    let mut expected = before;
    let mut minters: Vec<_> = minters.into_iter().enumerate().collect();
    // What stands still comes first.
    minters.sort_by_key(|(file, _)| shards[*file] != busiest);
    for (file, minter) in minters {
        let length = || scene.log(file).metadata().unwrap().len();
        let first = length();
        drop(scene.write_more(
            file,
            minter,
            if shards[file] == busiest { lines } else { lines / 2 },
        ));
        if shards[file] != busiest {
            expected += length() - first;
        }
    }
    scene.wait("all of the other shards arrived", |log| log.stored_bytes >= expected);
    assert_eq!(scene.settled(|log| log.stored_bytes), expected);
    scene.endpoint.set_script(Script::healthy());
    scene.arrived().assert_exactly_once();
    scene.at_rest();
    stop(agent);
    scene.assert_nothing_accepted_was_resent();
}

/// "**One bad thing never stops the rest**: one unreadable file …": what cannot be opened (a link in a
/// circle, say) is told, and the others go on.
#[test]
fn a_file_that_cannot_be_read_does_not_stop_the_others() {
    let scene = Scene::new(11, &Settings::default(), Script::healthy());
    std::os::unix::fs::symlink("loop.log", scene.home.logs().join("loop.log")).unwrap();
    append(&scene.home.logs().join("empty.log"), b"");
    drop(scene.write(0, 200));
    let agent = scene.home.start();
    scene.arrived().assert_exactly_once();
    let status = scene.status("the circle is told", |status| {
        problems(status).iter().any(|problem| problem.contains("loop.log"))
    });
    assert_books_balance(&status);
    stop(agent);
}

/// "**Memory, file descriptors and every queue are bounded** … The source files are the buffer; a dead
/// endpoint costs no memory": of 20 MB that wait, no more than the flow's buffer is held.
#[test]
fn a_dead_endpoint_costs_no_memory() {
    for (seed, key) in [(12, "file"), (13, "random")] {
        let settings = Settings { merge: "max_bytes: 25 KB", key, ..Settings::default() };
        let mut scene = Scene::new(seed, &settings, Script::healthy());
        scene.endpoint.die();
        for file in 0..8 {
            drop(scene.write(file, 16_000));
        }
        let agent = scene.home.start();
        scene.status("memory is full, and the trouble is told", |status| {
            // Half of the buffer is shared out; records weigh more than their bytes in it.
            number(status, "/flows/0/totals/in_flight_bytes") > 450_000
                && !problems(status).is_empty()
        });
        // Three more tries of the stream: time enough to read on, if anything did.
        let calls = |status: &serde_json::Value| number(status, "/flows/0/sent/calls");
        let before = calls(&scene.status("it tells", |_| true));
        let status = scene.status("it tries again", |status| calls(status) >= before + 3);
        assert_books_balance(&status);
        let held = number(&status, "/flows/0/totals/in_flight_bytes");
        assert!(held <= 1024 * 1024, "{key}: {held} bytes are held, the buffer is 1 MiB");
        let process = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
        let peak = process.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        eprintln!("{key}: peak {kib} KiB");
        assert!(kib <= 64 * 1024, "{key}: {kib} KiB");
        scene.endpoint.listen();
        let order = if key == "random" { Order::Any } else { Order::WithinFile };
        let all = scene.oracle.wait_for_all(&scene.endpoint, &Layout::Slices, order, DEADLINE);
        all.assert_exactly_once();
        stop(agent);
    }
}
