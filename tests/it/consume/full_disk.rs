//! A disk that is full: the real binary writes to a file system of its own, which has no room for all.
//!
//! Invariant: at whatever moment one looks while the disk is full, a file is the beginning of its source and
//! ends with a line.
//!
//! The file system is a tmpfs in a mount namespace of the agent's own, seen from here by `/proc/PID/root`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::{both, endpoint, files};
use crate::scene::{DEADLINE, append, status, stop};
use crate::support::agent::{Agent, Home, binary, isolate};
use crate::support::oracle::{Minter, Oracle, Shape};

/// The size of the file system, and what of it is taken at first.
const SIZE: u64 = 8 << 20;
const TAKEN: u64 = SIZE - (512 << 10);

/// How often one looks.
const LOOKS: u32 = 200;

/// Starts an agent that alone sees a small file system where it writes.
fn start(home: &Home) -> Agent {
    fs::create_dir_all(home.out()).unwrap();
    let script = "mount -t tmpfs -o size=$1 tmpfs \"$3\" && head -c $2 /dev/zero > \"$3/taken\" && \
                  shift 3 && exec \"$@\"";
    let mut command = Command::new("unshare");
    isolate(&mut command, home.out().parent().unwrap());
    command.args(["--user", "--map-root-user", "--mount", "sh", "-e", "-c", script, "sh"]);
    command.args([SIZE.to_string(), TAKEN.to_string()]).arg(home.out());
    command.arg(binary()).args(["run", "--config"]).arg(home.config());
    Agent::spawn(&mut command)
}

/// Returns where the agent's file system is seen from here.
fn seen(agent: &Agent, home: &Home) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", agent.id()));
    root.join(home.out().strip_prefix("/").unwrap())
}

/// Returns what stands in the only file that the agent wrote; nothing where there is none yet.
fn written(out: &Path) -> Vec<u8> {
    let written: Vec<PathBuf> =
        files(out).into_iter().filter(|path| !path.ends_with("taken")).collect();
    assert!(written.len() <= 1, "{written:?}");
    written.first().map(|path| fs::read(path).unwrap()).unwrap_or_default()
}

/// Waits until what the agent wrote is all that the log holds.
fn whole(out: &Path, log: &Path) {
    let end = Instant::now() + DEADLINE;
    let expected = fs::read(log).unwrap();
    loop {
        let found = written(out);
        if found == expected {
            return;
        }
        let (there, all) = (found.len(), expected.len());
        assert!(Instant::now() < end, "{there} of {all} bytes, or other ones");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn lines(minter: &mut Minter, count: usize) -> Vec<u8> {
    (0..count).flat_map(|_| minter.next_line()).collect()
}

/// "A full disk stops writing at a record; it goes on by itself."
fn stops_and_goes_on(layout: &str) {
    let oracle = Oracle::new(79, Shape::Plain);
    eprintln!("seed {}", oracle.seed());
    let mut minter = oracle.minter();
    let home = Home::new(&endpoint("web", 1), &both(layout));
    let log = home.logs().join("app.log");
    append(&log, &lines(&mut minter, 500));
    let agent = start(&home);
    let out = seen(&agent, &home);
    agent.wait_for_stderr("it runs", DEADLINE, |text| text.contains("running"));
    whole(&out, &log);
    append(&log, &lines(&mut minter, 20_000));
    let is_full = |status: &serde_json::Value| {
        let problems = status["consumers"][0]["problems"].as_array();
        let mut problems = problems.into_iter().flatten().map(|problem| problem.as_str().unwrap());
        problems.any(|problem| problem.contains("No space left on device"))
    };
    status(&home, "the disk is full", is_full);
    let source = fs::read(&log).unwrap();
    for look in 0..LOOKS {
        let found = written(&out);
        assert!(source.starts_with(&found), "look {look}: it is not the beginning of the log");
        let end = &found[found.len().saturating_sub(100)..];
        assert!(found.ends_with(b"\n"), "look {look}: torn: {:?}", String::from_utf8_lossy(end));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(is_full(&home.status(DEADLINE)));
    fs::remove_file(out.join("taken")).unwrap();
    whole(&out, &log);
    append(&log, &lines(&mut minter, 1));
    whole(&out, &log);
    status(&home, "nothing is wrong any more", |status| {
        status["consumers"][0]["problems"].as_array().is_some_and(Vec::is_empty)
    });
    stop(agent);
}

#[test]
fn appending_to_a_full_disk_stops_at_a_record_and_goes_on_by_itself() {
    stops_and_goes_on("    layout: append\n");
}

#[test]
fn mirroring_to_a_full_disk_stops_at_a_record_and_goes_on_by_itself() {
    stops_and_goes_on("    layout: mirror\n");
}
