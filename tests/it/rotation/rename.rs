//! Rotation by rename, and deletion, while a server writes.

use std::fs::File;
use std::path::Path;

use super::{DEADLINE, Rig, until};
use crate::support::endpoint::{FaultEndpoint, Log};
use crate::support::oracle::{Allowance, Layout, Oracle, Order, Shape};
use crate::support::writer::{LogWriter, Pace};

/// Lines a second, as many as acceptance asks for.
const RATE: u32 = 5_000;
/// Rotations in a storm.
const ROTATIONS: u64 = 10;
/// Lines between two of them.
const LINES: u64 = 1_000;
/// Lines that the server writes to the renamed file before it opens the new one.
const LATE_LINES: u64 = 150;
/// The names under which rotated files are found too, and those under which they are not.
const COVERED: &str = r#"["{logs}/app.log*"]"#;
const UNCOVERED: &str = r#"["{logs}/app.log"]"#;

/// When the endpoint takes what it is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Healthy,
    DeadForAWhile,
}

/// Ten rotations by rename under load: nothing is lost, and nothing comes twice but what the dying
/// endpoint had stored and never answered for.
fn storm(files: &str, endpoint: Endpoint, seed: u64) {
    let mut rig = Rig::new(files, "tail: { scan_interval: 10 s }");
    let oracle = Oracle::new(seed, Shape::Plain);
    let agent = rig.start();
    let writer = LogWriter::start(&rig.log("app.log"), oracle.minter(), Pace::rate(RATE));
    for rotation in 1..=ROTATIONS {
        until("the server writes on", || oracle.lines() >= rotation * LINES);
        match (endpoint, rotation) {
            (Endpoint::DeadForAWhile, 4) => rig.endpoint.die(),
            (Endpoint::DeadForAWhile, 8) => rig.endpoint.listen(),
            _ => {}
        }
        writer.rotate_by_rename(&rig.log(&format!("app.log.{rotation}")), LATE_LINES);
    }
    drop(writer.stop());
    let endpoint = &rig.endpoint;
    let report = oracle.wait_for_all(endpoint, &Layout::Slices, Order::WithinFile, DEADLINE);
    agent.terminate();
    assert_eq!(agent.wait(DEADLINE).code(), Some(0));
    assert_eq!(report.clone().check(unanswered(endpoint)), Ok(report));
    let all = oracle.verify(&endpoint.accepted(), &Layout::Slices, Order::WithinFile);
    all.assert_within(unanswered(endpoint));
}

/// What may rightly come twice.
fn unanswered(endpoint: &FaultEndpoint) -> Allowance {
    Allowance::bytes(endpoint.with_log(Log::unknown_bytes))
}

#[test]
fn renames_under_load_lose_and_repeat_nothing() {
    storm(COVERED, Endpoint::Healthy, 41);
}

#[test]
fn renames_out_of_the_pattern_under_load_lose_and_repeat_nothing() {
    storm(UNCOVERED, Endpoint::Healthy, 42);
}

#[test]
fn renames_while_the_endpoint_is_dead_lose_nothing() {
    storm(COVERED, Endpoint::DeadForAWhile, 43);
}

#[test]
fn renames_out_of_the_pattern_while_the_endpoint_is_dead_lose_nothing() {
    storm(UNCOVERED, Endpoint::DeadForAWhile, 44);
}

/// A file that is deleted while the stream takes nothing, larger than all memory for unread lines,
/// is read to its end, with the lines that its server writes even then.
#[test]
fn a_file_deleted_while_unread_is_read_to_its_end() {
    let mut rig = Rig::new(UNCOVERED, "tail: { buffer: 1 MiB }");
    rig.endpoint.die();
    let oracle = Oracle::new(45, Shape::Plain);
    let agent = rig.start();
    let path = rig.log("app.log");
    let writer = LogWriter::start(&path, oracle.minter(), Pace::burst(20_000));
    until("the agent has opened it", || has_open(&agent, &path));
    writer.delete(2_000);
    drop(writer.finish());
    assert!(oracle.bytes() > 2 << 20, "more than its buffer: {}", oracle.bytes());
    rig.endpoint.listen();
    let endpoint = &rig.endpoint;
    let report = oracle.wait_for_all(endpoint, &Layout::Slices, Order::WithinFile, DEADLINE);
    report.assert_within(unanswered(endpoint));
    assert_eq!(rig.number("/totals/lost_bytes"), 0);
}

/// Files that are there for a moment only: a line of theirs arrives once or, where nobody could
/// open the file in time, not at all; none is kept open for ever, and the agent goes on.
#[test]
fn files_created_and_deleted_at_once_do_no_harm() {
    let rig = Rig::new(r#"["{logs}/*.log"]"#, "tail: { hold_rotated: 1 s }");
    let agent = rig.start();
    let before = descriptors(&agent);
    for number in 0..300 {
        let path = rig.log(&format!("brief-{number}.log"));
        super::append(&path, &format!("brief {number}\n"));
        std::fs::remove_file(path).unwrap();
    }
    super::append(&rig.log("lasting.log"), "lasting\n");
    let arrived = |log: &Log| log.records.iter().any(|record| *record.data == *b"lasting\n");
    rig.endpoint.wait_until("a fresh line gets through", DEADLINE, arrived).unwrap();
    until("descriptors are given back", || descriptors(&agent) <= before + 2);
    let lines = rig.lines();
    let mut known = lines.clone();
    known.retain(|line| line == "lasting\n" || line.starts_with("brief "));
    known.dedup();
    assert_eq!(known, lines);
}

/// Returns whether the agent holds the file open.
fn has_open(agent: &crate::support::agent::Agent, path: &Path) -> bool {
    let open = std::fs::read_dir(format!("/proc/{}/fd", agent.id())).unwrap();
    let path = path.canonicalize();
    open.flatten().any(|fd| {
        let target = std::fs::read_link(fd.path());
        target.is_ok_and(|target| path.as_ref().is_ok_and(|path| target == *path))
    })
}

/// Returns how many descriptors the agent has open.
pub(super) fn descriptors(agent: &crate::support::agent::Agent) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", agent.id())).unwrap().count()
}

/// What a rotation compresses has been read: the `.gz` beside it is not, though it is covered.
#[test]
fn a_rotated_file_that_is_compressed_is_read_once() {
    let rig = Rig::new(COVERED, "tail: { scan_interval: 200 ms }");
    let oracle = Oracle::new(46, Shape::Plain);
    let agent = rig.start();
    let writer = LogWriter::start(&rig.log("app.log"), oracle.minter(), Pace::rate(RATE));
    for rotation in 1..=4 {
        until("the server writes on", || oracle.lines() >= rotation * LINES);
        let rotated = rig.log(&format!("app.log.{rotation}"));
        writer.rotate_by_rename(&rotated, 0);
        // gzip unlinks what it has compressed, and may be faster than the agent: that has it open.
        until("the agent has opened it", || has_open(&agent, &rotated));
        let zipped = std::process::Command::new("gzip").arg(&rotated).status().unwrap();
        assert!(zipped.success());
        assert!(File::open(rig.log(&format!("app.log.{rotation}.gz"))).is_ok());
    }
    drop(writer.stop());
    let endpoint = &rig.endpoint;
    let report = oracle.wait_for_all(endpoint, &Layout::Slices, Order::WithinFile, DEADLINE);
    agent.terminate();
    assert_eq!(agent.wait(DEADLINE).code(), Some(0));
    report.assert_exactly_once();
    let all = oracle.verify(&endpoint.accepted(), &Layout::Slices, Order::WithinFile);
    all.assert_exactly_once();
}
