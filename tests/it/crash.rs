//! Crashes: kill -9 and SIGTERM at random moments under load, a restart each time.
//!
//! Invariant: what the endpoint stored and what the agent had committed at each end are the only
//! sources of what is expected; the agent's own counters prove nothing here.

use kinetail::checkpoint::View;

use super::effort;
use super::scene::{DEADLINE, Scene, Settings, stop};
use crate::support::endpoint::{Log, Script};
use crate::support::oracle::{Allowance, Layout, Order, Report};
use crate::support::writer::{LogWriter, Pace};

/// Times that the agent is killed, and asked to end.
const KILLS: u64 = 60;
const RESTARTS: u64 = 40;

/// So many of them befall the same files, from their first lines to a judgement of all that arrived; then
/// others take their place, so that a long campaign does not spend its time on what it has long judged.
const ENDS_OF_A_SCENE: usize = 100;

/// Writers, each of a file of its own, and their pace: some 200 KB a second together.
const WRITERS: usize = 4;
const LINES_PER_SECOND: u32 = 300;

/// Starts the load.
fn load(scene: &Scene) -> Vec<LogWriter> {
    let writer = |file: usize| {
        LogWriter::start(&scene.log(file), scene.oracle.minter(), Pace::rate(LINES_PER_SECOND))
    };
    (0..WRITERS).map(writer).collect()
}

/// Waits until so many records more than `stored` are stored.
fn wait_for_more(scene: &Scene, stored: u64, more: u64) {
    scene.wait("records arrive", |log| log.stored >= stored + more);
}

/// Returns the bytes of the files that are committed, as a stopped agent left them.
fn committed(scene: &Scene) -> u64 {
    // It may have been killed before it had made its state directory, or anything in it.
    let Ok(view) = View::open(&scene.home.state()) else { return 0 };
    view.files().unwrap().iter().map(|row| row.position.offset).sum()
}

/// Stops the load, and asserts that a fresh line still gets through and all of them arrived.
fn finish(scene: &Scene, writers: Vec<LogWriter>) -> Report {
    let agent = scene.home.start();
    let mut minters: Vec<_> = writers.into_iter().map(LogWriter::stop).collect();
    // An agent that is killed all the time may be far behind: it has as long as it gets on.
    let mut behind = u64::MAX;
    loop {
        let missing = scene.arrived().missing.count;
        if missing == 0 || missing >= behind {
            break;
        }
        behind = missing;
    }
    let fresh = scene.write_more(0, minters.swap_remove(0), 1);
    drop(fresh);
    let report = scene.arrived();
    scene.settled(|_| ());
    stop(agent);
    assert_eq!(committed(scene), scene.oracle.bytes(), "all that arrived is committed at the end");
    report
}

/// "**Nothing is lost.** … The checkpoint of a file never passes the longest acknowledged prefix,
/// whatever fails: kill -9, …" and "**Duplicates are bounded** by what was in flight when the agent
/// died": by what the endpoint had stored and no commit had covered yet.
#[test]
fn killed_time_and_again_under_load_it_loses_nothing() {
    let seed = effort::seed(50);
    let mut tries = effort::tries(KILLS).peekable();
    let mut all = Killed::default();
    while let Some(first) = tries.peek().copied() {
        let kills = tries.by_ref().take(ENDS_OF_A_SCENE);
        all.add(&killed(seed.wrapping_add(first), kills));
    }
    let Killed { kills, lines, twice, allowed, most } = all;
    eprintln!(
        "tried: {kills} kills from seed {seed}, {lines} lines, lost 0, {twice} bytes twice of {allowed} \
         allowed (stored and not committed; by one kill at most {most})",
    );
}

/// What came of kills.
#[derive(Debug, Default)]
struct Killed {
    kills: u64,
    lines: u64,
    /// Bytes that came again.
    twice: u64,
    /// Bytes that might have.
    allowed: u64,
    /// The most of them by one kill.
    most: u64,
}

impl Killed {
    fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.lines += other.lines;
        self.twice += other.twice;
        self.allowed += other.allowed;
        self.most = self.most.max(other.most);
    }
}

/// Kills the agents of one scene under load.
fn killed(seed: u64, kills: impl Iterator<Item = u64>) -> Killed {
    let scene = Scene::new(seed, &Settings::default(), Script::healthy());
    let writers = load(&scene);
    let mut draws = fastrand::Rng::with_seed(seed);
    let (mut own, mut before) = (Killed::default(), 0);
    for kill in kills {
        let (stored, bytes) = scene.settled(|log| (log.stored, log.stored_bytes));
        scene.endpoint.begin_run();
        let agent = scene.home.start();
        // 0 kills it while it starts.
        let more = draws.u64(0..60);
        wait_for_more(&scene, stored, more);
        agent.kill();
        scene.endpoint.take_in_all(DEADLINE);
        let stored_in_run = scene.settled(|log| log.stored_bytes) - bytes;
        let after = committed(&scene);
        assert!(after >= before, "kill {kill}: {after} bytes are committed, and were {before}");
        assert!(
            after - before <= stored_in_run,
            "kill {kill}: {} bytes committed, {stored_in_run} stored: ahead of the stream",
            after - before,
        );
        let uncommitted = stored_in_run - (after - before);
        own.allowed += uncommitted;
        own.most = own.most.max(uncommitted);
        own.kills += 1;
        before = after;
    }
    scene.endpoint.begin_run();
    let unknown = scene.settled(Log::unknown_bytes);
    let report = finish(&scene, writers);
    // A busy machine may keep an answer back for longer than the agent waits for it.
    own.allowed += scene.settled(Log::unknown_bytes) - unknown;
    (own.lines, own.twice) = (report.written, report.duplicate_bytes);
    report.assert_within(Allowance::bytes(own.allowed));
    scene.assert_nothing_accepted_was_resent();
    own
}

/// Once what arrived is committed, a kill costs nothing: an agent at rest sends nothing again.
#[test]
fn killed_at_rest_it_sends_nothing_again() {
    let scene = Scene::new(51, &Settings::default(), Script::healthy());
    drop(scene.write(0, 1_000));
    let agent = scene.home.start();
    scene.arrived().assert_exactly_once();
    scene.at_rest();
    // The age of a commit that began after that is less than the time since.
    let rest = std::time::Instant::now();
    scene.status("a commit after that", |status| {
        status["checkpoint_age_seconds"]
            .as_f64()
            .is_some_and(|age| age < rest.elapsed().as_secs_f64() / 2.0)
    });
    agent.kill();
    assert_eq!(committed(&scene), scene.oracle.bytes());
    let finished = scene.home.once(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let records = scene.endpoint.accepted();
    scene.oracle.verify(&records, &Layout::Slices, Order::WithinFile).assert_exactly_once();
}

/// "SIGTERM and SIGINT drain and checkpoint": a restart under load costs neither a line nor a
/// duplicate.
fn restarts(seed: u64, settings: &Settings) {
    let seed = effort::seed(seed);
    let mut tries = effort::tries(RESTARTS).peekable();
    let (mut restarts, mut lines) = (0, 0);
    while let Some(first) = tries.peek().copied() {
        let scene = Scene::new(seed.wrapping_add(first), settings, Script::healthy());
        let writers = load(&scene);
        let mut draws = fastrand::Rng::with_seed(scene.oracle.seed());
        for restart in tries.by_ref().take(ENDS_OF_A_SCENE) {
            let stored = scene.endpoint.with_log(|log| log.stored);
            let agent = scene.home.start();
            wait_for_more(&scene, stored, draws.u64(1..60));
            stop(agent);
            let bytes = scene.settled(|log| log.stored_bytes);
            assert_eq!(committed(&scene), bytes, "restart {restart}: all stored is committed");
            restarts += 1;
        }
        let report = finish(&scene, writers);
        lines += report.written;
        report.assert_exactly_once();
        scene.assert_nothing_accepted_was_resent();
    }
    eprintln!("tried: {restarts} restarts from seed {seed}, {lines} lines, lost 0, twice 0");
}

/// Commits are so frequent that the end often comes in the middle of one.
#[test]
fn restarted_in_the_middle_of_commits_it_neither_loses_nor_repeats() {
    restarts(52, &Settings::default());
}

/// Commits are so rare that only the drain commits.
#[test]
fn restarted_between_commits_it_neither_loses_nor_repeats() {
    restarts(53, &Settings { top: "checkpoint_interval: 1 min\n", ..Settings::default() });
}
