//! Fault schedules: what befalls the agent is drawn from a seed, in several acts, over drawn settings.
//!
//! Goal: whatever the schedule, every line arrives, in the order of its key; what comes twice is no
//! more than what the endpoint stored without saying so; what can never be accepted stands in the
//! dead letters; and once the faults end, a fresh line still gets through. Method: each seed draws
//! acts; in each act files grow under a script of its own.

use std::time::Duration;

use fastrand::Rng;
use kinetail::checkpoint::View;

use super::effort;
use super::scene::{DEADLINE, Scene, Settings, assert_books_balance, number, stop};
use crate::support::agent::Home;
use crate::support::endpoint::{CallFault, EntryFault, Log, Script, Throttle};
use crate::support::oracle::{Allowance, Layout, Minter, Order, Report};

/// Schedules of a run of `cargo test`.
const SCHEDULES: u64 = 12;

/// Shares of the calls that a fault may befall: six in a hundred of each at most.
const SHARE_MAX: f64 = 0.06;

/// Calls that are never answered cost a timeout each: one in a hundred.
const HOLES_MAX: f64 = 0.01;

/// All that can befall a call, but `InvalidArgument` without a reason: a service that says of a sound
/// record alone that it can never be accepted is believed.
fn faults() -> impl Iterator<Item = CallFault> {
    CallFault::ALL.into_iter().filter(|fault| *fault != CallFault::InvalidArgument)
}

/// Draws the script of an act.
fn script(draws: &mut Rng, poison: bool) -> Script {
    let mut script = Script::seeded(draws.u64(..));
    for fault in faults() {
        if draws.u8(..3) == 0 {
            let hole = matches!(fault, CallFault::BlackHole | CallFault::BlackHoleAfterStoring);
            let most = if hole { HOLES_MAX } else { SHARE_MAX };
            script = script.call(fault, draws.f64() * most);
        }
    }
    for fault in [EntryFault::InternalFailure, EntryFault::Throttled] {
        if draws.bool() {
            script = script.entry(fault, draws.f64() * 0.3);
        }
    }
    // Well within the timeout, or well beyond it: at its edge nobody can say what the agent knows.
    match draws.u8(..8) {
        0..4 => script = script.slow(draws.f64() * 0.2, Duration::from_millis(draws.u64(1..200))),
        4 => script = script.slow(0.02, Duration::from_secs(8)),
        _ => {}
    }
    if draws.u8(..3) == 0 {
        let rate = Throttle::Above { records: draws.u64(5..200), bytes: 100_000 };
        let throttle = if draws.bool() { rate } else { Throttle::Entries(draws.u64(1..200)) };
        script = script.throttle(draws.u32(..4), throttle);
    }
    if draws.u8(..6) == 0 {
        script = script.read_rate(draws.u64(200_000..2_000_000));
    }
    if draws.u8(..4) == 0 {
        script = script.everywhere();
    }
    with_poison(script, poison)
}

/// A record that holds any of these lines can never be accepted.
fn with_poison(script: Script, poison: bool) -> Script {
    let is = |_: &str, data: &[u8]| {
        data.split_inclusive(|byte| *byte == b'\n').any(|line| line.starts_with(b"0:7:"))
    };
    if poison { script.poison(is) } else { script }
}

/// Draws settings, and the order that they promise.
fn settings(draws: &mut Rng) -> (Settings, Order) {
    let key = *draws.choice(&["file", "file", "random", "host", "{ regex: '^(\\d)' }"]).unwrap();
    let merges = [
        "max_bytes: 1 KB, max_age: 50 ms",
        "max_bytes: 25 KB, max_age: 20 ms",
        "max_lines: 3, max_age: 100 ms",
    ];
    let ships = [
        "timeout: 5 s, backoff_max: 100 ms, joined_bytes: 4 KB",
        "timeout: 5 s, backoff_max: 300 ms, in_flight: 1",
        "timeout: 5 s, backoff_max: 100 ms, request_records: 5, in_flight: 16, joined_bytes: 0",
    ];
    let settings = Settings {
        key,
        merge: draws.choice(&merges).unwrap(),
        ship: draws.choice(&ships).unwrap(),
        ..Settings::default()
    };
    (settings, if key == "random" { Order::Any } else { Order::WithinFile })
}

/// Returns the data of the dead letters in a home.
fn dead_letters(home: &Home) -> Vec<Vec<u8>> {
    let Ok(view) = View::open(&home.state()) else { return Vec::new() };
    let letters = view.dead_letters().unwrap();
    let data = |id: i64| view.dead_letter(id).unwrap().unwrap().data.to_vec();
    letters.iter().map(|letter| data(letter.id)).collect()
}

/// Waits until every line stands in the stream or the dead letters, and judges.
fn judged(scene: &Scene, order: Order) -> Report {
    let end = std::time::Instant::now() + DEADLINE;
    loop {
        let mut judge = scene.oracle.judge(Layout::Slices, order);
        for record in scene.endpoint.accepted() {
            judge.record(&record.data);
        }
        for data in dead_letters(&scene.home) {
            judge.record(&data);
        }
        let report = judge.finish();
        if report.missing.count == 0 || std::time::Instant::now() >= end {
            return report;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the schedule of a seed.
fn schedule(seed: u64) -> Report {
    let mut draws = Rng::with_seed(seed);
    let (settings, order) = settings(&mut draws);
    let poison = draws.u8(..4) == 0;
    // What is in the dead letters has no place in the order of what was stored.
    let order = if poison { Order::Any } else { order };
    let scene = Scene::new(seed, &settings, with_poison(Script::healthy(), poison));
    let agent = scene.home.start();
    let mut minters: Vec<Minter> = (0..draws.usize(1..8)).map(|_| scene.oracle.minter()).collect();
    for _ in 0..draws.usize(1..4) {
        scene.endpoint.set_script(script(&mut draws, poison));
        let before = scene.endpoint.with_log(|log| log.requests.len());
        let write = |(file, minter)| scene.write_more(file, minter, draws.u64(1..150));
        minters = minters.into_iter().enumerate().map(write).collect();
        let calls = draws.usize(1..25);
        // Fewer calls may be enough for all there is, but for a dead letter: then the act is over, too.
        let dead = if poison { 25_000 } else { 0 };
        scene.wait("an act goes on", |log| {
            log.requests.len() >= before + calls || log.stored_bytes + dead >= scene.oracle.bytes()
        });
    }
    scene.endpoint.set_script(with_poison(Script::healthy(), poison));
    let report = judged(&scene, order);
    let unknown = scene.endpoint.with_log(Log::unknown_bytes);
    report.assert_within(Allowance::bytes(unknown));
    let fresh = minters.pop().unwrap();
    drop(scene.write_more(minters.len(), fresh, 1));
    let report = judged(&scene, order);
    report.clone().assert_within(Allowance::bytes(unknown));
    let written = scene.oracle.bytes();
    let status = scene.status("all is settled", |status| {
        let settled = |part: &str| number(status, &format!("/flows/0/totals/{part}_bytes"));
        settled("acknowledged") + settled("dead_lettered") >= written
    });
    assert_books_balance(&status);
    assert_eq!(number(&status, "/flows/0/totals/read_bytes"), written, "{status:#}");
    stop(agent);
    scene.assert_nothing_accepted_was_resent();
    report
}

/// "**Nothing is lost.** … whatever fails: … dead endpoint, … partial failure", and **order within a
/// partition key**, under schedules that nobody has thought of.
#[test]
fn whatever_the_schedule_of_faults_nothing_is_lost() {
    let first = effort::seed(1_000);
    let (mut tried, mut lines, mut duplicates) = (0, 0, 0);
    for try_ in effort::tries(SCHEDULES) {
        let report = schedule(first.wrapping_add(try_));
        tried += 1;
        lines += report.written;
        duplicates += report.duplicates;
    }
    eprintln!(
        "tried: {tried} fault schedules from seed {first}, {lines} lines, lost 0, \
         {duplicates} lines twice, all of them stored without an answer"
    );
}
