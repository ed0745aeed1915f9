//! What failed in other agents, each named for the report of it, and what happens to machines: clocks
//! that jump, processes that stand still.
//!
//! | report | test |
//! | --- | --- |
//! | Vector #359, #16954: refused entries of a call dropped | `faults`, `poison` |
//! | Vector #25079, Fluent Bit #1875, #4895, #8025, Filebeat #1341: inode used again, read from the old offset | [`inodes_used_again_and_again`], `rotation::identity` |
//! | Vector #13193, #7990, #5085: rotated file read again once compressed | `rotation::scenarios`, `tests/rotation-storm` |
//! | Vector #643: all empty files are one | [`empty_files_are_many`] |
//! | Vector #10025: the first characters of the first line lost | every test with an oracle |
//! | Fluent Bit #11265: partial line at shutdown lost | `rotation::identity` |
//! | Fluent Bit #11455: stored offset beyond the file, ignored | [`a_stored_offset_beyond_the_file`] |
//! | Fluent Bit #3488: long lines skipped, offset wrong | `formats` |
//! | Fluent Bit #5382: goes on within a line after rotation | `rotation` |
//! | Filebeat #39731, #45300: `copytruncate`, all of it again | `rotation::copytruncate` |
//! | Filebeat #51490: duplicates after SIGTERM | `crash` |
//! | Filebeat #3537, #19634: registry blank or gone after a crash | `crash`, `checkpoint::damage` |
//! | Kinesis agent #288: file gone between list and open, stuck for ever | [`files_that_vanish_while_they_are_looked_for`] |
//! | Kinesis agent #75, #102, #114: lines missed at rotation and restart | `rotation`, `crash` |
//! | Kinesis agent #14: an error logged ten times a second | [`one_cause_is_logged_once_a_minute`] |
//! | Kinesis agent #36, #100: starts at the end after a reboot, a record skipped | [`a_known_file_never_starts_at_its_end`], `crash` |
//! | rsyslog #2640, logstash-input-file #222: a truncation takes what was not read | `rotation::copytruncate` |

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::effort;
use super::scene::{DEADLINE, Scene, Settings, append, number, problems, stop};
use crate::support::agent::Agent;
use crate::support::endpoint::{Log, Script};
use crate::support::oracle::{Allowance, Layout, Order};
use crate::support::writer::{LogWriter, Pace};

/// Deleted and made again at once, as ext4 likes it: the new file has the old one's inode, begins as it
/// did, and is shorter, as long or longer. Some are made again while the agent does not run, and of the
/// others it has no descriptor, which would keep the inode: another file is being read.
#[test]
fn inodes_used_again_and_again() {
    let seed = effort::seed(110);
    let tail = "buffer: 1 MiB, scan_interval: 200 ms, open_files: 1";
    let scene = Scene::new(seed, &Settings { tail, ..Settings::default() }, Script::healthy());
    let mut draws = fastrand::Rng::with_seed(seed);
    let (log, other) = (scene.log(0), scene.log(1));
    let header = "the header that every file has, whatever its inode\n";
    let (mut agent, mut expected) = (Some(scene.home.start()), Vec::new());
    let (mut cycles, mut again, mut inode) = (0, 0_u64, 0);
    for cycle in effort::tries(150) {
        let lines = (0..draws.u32(1..40)).map(|line| format!("cycle {cycle}, line {line}\n"));
        let text = [header.to_owned()].into_iter().chain(lines).collect::<String>();
        append(&log, text.as_bytes());
        expected.extend_from_slice(text.as_bytes());
        let bytes = expected.len() as u64;
        scene.wait("the file arrives", |log| log.stored_bytes >= bytes);
        let before = std::mem::replace(&mut inode, fs::metadata(&log).unwrap().ino());
        again += u64::from(before == inode);
        let restarts = draws.u8(..10) == 0;
        if restarts {
            stop(agent.take().unwrap());
        } else {
            let text = format!("a line of another log in cycle {cycle}\n");
            append(&other, text.as_bytes());
            expected.extend_from_slice(text.as_bytes());
            let bytes = expected.len() as u64;
            scene.wait("the other file is read", |log| log.stored_bytes >= bytes);
        }
        fs::remove_file(&log).unwrap();
        if restarts {
            agent = Some(scene.home.start());
        }
        cycles += 1;
    }
    let bytes = scene.settled(|log| log.records.iter().flat_map(|r| r.data.to_vec()).collect());
    let sorted = |bytes: Vec<u8>| {
        let mut lines =
            bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
        lines.sort();
        lines
    };
    assert_eq!(sorted(bytes), sorted(expected));
    eprintln!(
        "tried: {cycles} files of one name from seed {seed}, {again} with the inode of the last"
    );
    stop(agent.unwrap());
}

/// What is written to one of many empty files comes from that one.
#[test]
fn empty_files_are_many() {
    let scene = Scene::new(111, &Settings::default(), Script::healthy());
    for file in 0..20 {
        File::create(scene.log(file)).unwrap();
    }
    let agent = scene.home.start();
    scene.status("it runs", |status| status["running"] == true);
    for file in 0..20 {
        drop(scene.write(file, 3));
    }
    scene.arrived().assert_exactly_once();
    scene.at_rest();
    stop(agent);
}

/// Rewritten with less while the agent did not run: read from its start, at once.
#[test]
fn a_stored_offset_beyond_the_file() {
    let scene = Scene::new(112, &Settings::default(), Script::healthy());
    let minter = scene.write(0, 500);
    let agent = scene.home.start();
    scene.arrived().assert_exactly_once();
    stop(agent);
    fs::write(scene.log(0), b"").unwrap();
    let mut minter = scene.write_more(0, minter, 5);
    minter.next_file();
    let agent = scene.home.start();
    scene.arrived().assert_exactly_once();
    stop(agent);
}

/// Thousands of files come and go in the directory while it is listed and they are opened.
#[test]
fn files_that_vanish_while_they_are_looked_for() {
    let settings = Settings { tail: "scan_interval: 100 ms", ..Settings::default() };
    let scene = Scene::new(113, &settings, Script::healthy());
    let agent = scene.home.start();
    scene.status("it runs", |status| status["running"] == true);
    for number in 0..3_000 {
        let path = scene.home.logs().join(format!("brief-{}.log", number % 50));
        File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
    }
    drop(scene.write(0, 100));
    scene.arrived().assert_exactly_once();
    let status = scene.at_rest();
    assert!(problems(&status).is_empty(), "{status:#}");
    stop(agent);
}

/// A path that cannot be read is met by every scan, ten times a second, and by every event.
#[test]
fn one_cause_is_logged_once_a_minute() {
    let settings = Settings { tail: "scan_interval: 100 ms", ..Settings::default() };
    let scene = Scene::new(114, &settings, Script::healthy());
    symlink("loop.log", scene.home.logs().join("loop.log")).unwrap();
    let begun = Instant::now();
    let agent = scene.home.start();
    let mut minter = scene.write(0, 10);
    for _ in 0..20 {
        drop(scene.arrived());
        minter = scene.write_more(0, minter, 10);
    }
    drop(scene.arrived());
    let minutes = usize::try_from(begun.elapsed().as_secs() / 60).unwrap();
    let told = agent.stderr().matches("loop.log").count();
    assert!((1..=1 + minutes).contains(&told), "{told} times: {}", agent.stderr());
    stop(agent);
}

/// `start_at: end` is for files of the very first start.
#[test]
fn a_known_file_never_starts_at_its_end() {
    let settings = Settings { flow: "    start_at: end\n", ..Settings::default() };
    let scene = Scene::new(115, &settings, Script::healthy());
    append(&scene.log(0), b"before the first start\n");
    let agent = scene.home.start();
    scene.status("it knows the file", |status| {
        status["flows"][0]["files"].as_array().is_some_and(|files| !files.is_empty())
    });
    stop(agent);
    for run in 0..3 {
        drop(scene.write(0, 50));
        drop(scene.write(run + 1, 50));
        let agent = scene.home.start();
        scene.arrived().assert_exactly_once();
        stop(agent);
    }
}

/// The whole process stands still, in the middle of calls, for longer than they may take, and goes on.
#[test]
fn stopped_for_longer_than_any_call_may_take() {
    const STILL: Duration = Duration::from_secs(5);
    let seed = effort::seed(116);
    let settings = Settings { ship: "timeout: 2 s, backoff_max: 200 ms", ..Settings::default() };
    let scene = Scene::new(seed, &settings, Script::healthy().slow(0.3, Duration::from_millis(50)));
    let agent = scene.home.start();
    let writer = LogWriter::start(&scene.log(0), scene.oracle.minter(), Pace::rate(500));
    let mut times = 0;
    for _ in effort::tries(2) {
        let stored = scene.endpoint.with_log(|log| log.stored);
        scene.wait("records arrive", |log| log.stored >= stored + 20);
        agent.signal(Signal::STOP);
        // Time that passes is what is tested here.
        std::thread::sleep(STILL);
        agent.signal(Signal::CONT);
        times += 1;
    }
    drop(writer.stop());
    let report = scene.arrived();
    let unknown = scene.endpoint.with_log(Log::unknown_bytes);
    report.assert_within(Allowance::bytes(unknown));
    scene.at_rest();
    eprintln!("tried: stopped {times} times for {STILL:?} from seed {seed}, lost 0");
    stop(agent);
}

/// The wall clock jumps by an hour, by more than a year, before 1973 and a century ahead, forth and
/// back: nothing but names of times depends on it. (Kinesis refuses what is signed a quarter of an hour
/// off: `healing` has that.)
#[test]
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
fn a_wall_clock_that_jumps() {
    const DAY: i64 = 86_400;
    let scene = Scene::new(117, &Settings::default(), Script::healthy());
    let (library, offset) = shifted_clock(&scene);
    let file = File::options().write(true).open(&offset).unwrap();
    let start = || {
        let mut command = scene.home.command(&["run", "--config"]);
        command.arg(scene.home.config());
        command.env("LD_PRELOAD", &library).env("CLOCK_OFFSET", &offset);
        Agent::spawn(&mut command)
    };
    let (mut agent, mut minter) = (start(), scene.write(0, 50));
    for seconds in [3_600, -3_600, 400 * DAY, -400 * DAY, 36_500 * DAY, 0, -20_000 * DAY] {
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
        minter = scene.write_more(0, minter, 50);
        drop(scene.arrived());
        stop(agent);
        minter = scene.write_more(0, minter, 50);
        agent = start();
        drop(scene.arrived());
    }
    agent.wait_for_stderr("the clock is shifted", DEADLINE, |text| text.contains("1972-"));
    let all = scene.oracle.verify(&scene.endpoint.accepted(), &Layout::Slices, Order::WithinFile);
    all.assert_exactly_once();
    let status = scene.status("it answers", |status| status["running"] == true);
    assert_eq!(number(&status, "/flows/0/totals/lost_bytes"), 0);
    stop(agent);
}

/// Compiles `support/clock.c`; returns it, and the file that holds the shift in seconds.
#[cfg(all(target_env = "gnu", not(target_feature = "crt-static")))]
fn shifted_clock(scene: &Scene) -> (PathBuf, PathBuf) {
    let dir = scene.home.logs().parent().unwrap().to_owned();
    let (library, offset) = (dir.join("clock.so"), dir.join("offset"));
    fs::write(&offset, 0_i64.to_ne_bytes()).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");
    let mut cc = Command::new("cc");
    let compiled = cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.expect("a C compiler, as for the build").success());
    (library, offset)
}
