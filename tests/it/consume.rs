//! Consuming: the real binary reads a stream back into files, over ferrokinesis.
//!
//! Invariant: what stands in the source files is what is expected; the agent's own counters prove
//! nothing here.

#[path = "consume/campaign.rs"]
mod campaign;
#[path = "consume/fan_out.rs"]
mod fan_out;
#[path = "consume/faults.rs"]
mod faults;
#[path = "consume/full_disk.rs"]
mod full_disk;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use kinetail::local::Endpoint;

use super::scene::{DEADLINE, status, stop};
use crate::resharding::Reading;
use crate::support::agent::Home;
use crate::support::generator;
use crate::support::oracle::{Oracle, Shape};
use crate::support::writer::{LogWriter, Pace};

/// Starts an endpoint with a stream, which answers for as long as the tests run.
pub fn endpoint(stream: &str, shards: u32) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = runtime.block_on(Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into())).unwrap();
    runtime.block_on(endpoint.create_stream(stream, shards)).unwrap();
    let url = endpoint.url();
    thread::spawn(move || runtime.block_on(endpoint.serve()));
    url
}

/// The producer's half of a configuration.
pub const PRODUCE: &str = "state_dir: {state}
aws: { endpoint_url: '{endpoint}' }
checkpoint_interval: 50 ms
produce:
  - name: web
    files: ['{logs}/**/*']
    stream: web
    merge: { format: kpl, max_bytes: 4 KB, max_age: 50 ms }
    tail: { scan_interval: 200 ms }
    ship: { backoff_max: 200 ms }
";

/// The head of the configuration of an agent that consumes alone.
const CONSUMER: &str = "state_dir: {state}
aws: { endpoint_url: '{endpoint}' }
checkpoint_interval: 50 ms
";

/// The consumer's half of a configuration.
fn consume(settings: &str) -> String {
    format!(
        "consume:
  - name: back
    stream: web
    directory: {{out}}
    read: {{ poll_interval: 200 ms, backoff_max: 200 ms }}
{settings}"
    )
}

/// A configuration of one agent that does both.
fn both(settings: &str) -> String {
    [PRODUCE, &consume(settings)].concat()
}

const MIRROR: &str = "    layout: mirror\n    path: '{path}'\n";

/// Returns where the logs are mirrored.
fn mirror_of(home: &Home) -> PathBuf {
    home.out().join(home.logs().strip_prefix("/").unwrap())
}

/// Returns the names in a directory; none where it is not there yet.
fn names(directory: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// Returns the files beneath a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    let beneath = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(beneath).collect()
}

/// Returns what differs between the logs and their mirror.
fn difference(home: &Home) -> String {
    let mirror = mirror_of(home);
    let output = Command::new("diff").arg("-r").arg(home.logs()).arg(mirror).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Waits until the mirror is the logs.
fn mirrored(home: &Home) {
    let end = Instant::now() + DEADLINE;
    loop {
        let difference = difference(home);
        if difference.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "the mirror differs:\n{difference}");
        thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// "end to end, a mirrored file is byte-identical to its source": over rotations that logrotate would
/// make, of lines with NUL, CRLF and invalid UTF-8.
#[test]
fn a_mirrored_tree_is_byte_identical_to_its_source() {
    let home = Home::new(&endpoint("web", 4), &both(MIRROR));
    let oracle = Oracle::new(70, Shape::Wild);
    eprintln!("seed {}", oracle.seed());
    let agent = home.start();
    let logs = home.logs();
    let writers: Vec<LogWriter> = (0..3)
        .map(|n| LogWriter::start(&logs.join(format!("{n}.log")), oracle.minter(), Pace::rate(500)))
        .collect();
    for rotation in 0..4 {
        for (n, writer) in writers.iter().enumerate() {
            let name = |number: usize| logs.join(format!("{n}.log.{number}"));
            for number in (1..=rotation).rev() {
                fs::rename(name(number), name(number + 1)).unwrap();
            }
            writer.rotate_by_rename(&name(1), 3);
        }
        // A file is mirrored by the name it was first found at: it must be found before it is renamed.
        let end = Instant::now() + DEADLINE;
        while names(&mirror_of(&home)) != names(&logs) {
            assert!(Instant::now() < end, "{:?}", names(&mirror_of(&home)));
            thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    for writer in writers {
        drop(writer.stop());
    }
    mirrored(&home);
    let status = status(&home, "all shards are read", |status| {
        status["consumers"][0]["shards"].as_array().is_some_and(|shards| shards.len() == 4)
    });
    assert_eq!(status["consumers"][0]["totals"]["names_refused"], 0, "{status:#}");
    assert_eq!(status["consumers"][0]["problems"].as_array().unwrap().len(), 0, "{status:#}");
    stop(agent);
}

/// "appended files hold each line once": `run --once` ships what is there, reads it back, and a second
/// run adds nothing.
#[test]
fn appended_files_hold_each_line_once() {
    let home = Home::new(&endpoint("web", 2), &both(""));
    let logs = home.logs();
    generator::generate(&logs, 72, 4, 400_000).unwrap();
    for _ in 0..2 {
        let finished = home.once(DEADLINE);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
    }
    assert_appended(&home);
}

/// Asserts that every log stands in a file of its host, byte for byte.
fn assert_appended(home: &Home) {
    let hosts = home.out().join("web");
    let host = fs::read_dir(hosts).unwrap().next().unwrap().unwrap().path();
    for entry in fs::read_dir(home.logs()).unwrap() {
        let log = entry.unwrap().path();
        let appended = host.join(log.file_name().unwrap());
        assert!(same(&log, &appended), "{} differs", appended.display());
    }
}

fn same(one: &Path, other: &Path) -> bool {
    fs::read(one).unwrap() == fs::read(other).unwrap()
}

/// "whatever fails: kill -9 …": both sides are one process, killed at random moments under load.
#[test]
fn killed_over_and_over_the_mirror_is_whole_and_every_line_appended_once() {
    let seed = 71;
    eprintln!("seed {seed}");
    let appending = "    layout: append\n  - name: tree\n    stream: web\n    directory: {out}2\n    \
                     layout: mirror\n    path: '{path}'\n    \
                     read: { poll_interval: 200 ms, backoff_max: 200 ms }\n";
    let home = Home::new(&endpoint("web", 3), &both(appending));
    let oracle = Oracle::new(seed, Shape::Plain);
    let logs = home.logs();
    let writers: Vec<LogWriter> = (0..3)
        .map(|n| LogWriter::start(&logs.join(format!("{n}.log")), oracle.minter(), Pace::rate(300)))
        .collect();
    let mut draws = fastrand::Rng::with_seed(seed);
    for _ in 0..24 {
        let agent = home.start();
        // How far it gets, not how long it takes, should vary: but any moment is a fair one.
        thread::sleep(std::time::Duration::from_millis(draws.u64(0..1200)));
        agent.kill();
    }
    for writer in writers {
        drop(writer.stop());
    }
    let finished = home.once(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert_appended(&home);
    let mirror = home.out().with_file_name("out2").join(logs.strip_prefix("/").unwrap());
    for n in 0..3 {
        let name = format!("{n}.log");
        assert!(same(&logs.join(&name), &mirror.join(&name)), "{name} differs");
    }
}

/// Shards split and merged under way: nothing is lost, and children come after their parents.
#[test]
fn across_splits_and_merges_each_file_is_its_log() {
    let shards = crate::resharding::reshard(&endpoint("resharded", 2), 80, Reading::Polled);
    // Two, split to four, merged to two, and both again.
    assert_eq!(shards, 2 + 4 + 2 + 4 + 2);
}
