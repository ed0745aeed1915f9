//! Rotation by copy and truncation.
//!
//! The writer of the storms copies and truncates between two lines of its own, so it loses none by
//! itself. A real `copytruncate` has another process do it: what the server writes between the copy
//! and the truncation is then in no file, and nobody can promise it. So there the promise is about
//! the lines that survive in any file.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::thread;
use std::time::{Duration, Instant};

use super::{DEADLINE, Rig, append, lines_of, until};
use crate::support::endpoint::Log;
use crate::support::oracle::{Allowance, Layout, Oracle, Order, Shape};
use crate::support::writer::{LogWriter, Pace};

const RATE: u32 = 5_000;
const ROTATIONS: u64 = 10;
const LINES: u64 = 1_000;

/// Ten copies and truncations under load, with the copies covered by the pattern: each line comes
/// once, from the file or from its copy. The endpoint may be dead for a while.
fn storm(dies: bool, seed: u64) {
    let mut rig = Rig::new(r#"["{logs}/app.log*"]"#, "tail: { scan_interval: 500 ms }");
    let oracle = Oracle::new(seed, Shape::Plain);
    let agent = rig.start();
    let writer = LogWriter::start(&rig.log("app.log"), oracle.minter(), Pace::rate(RATE));
    for rotation in 1..=ROTATIONS {
        until("the server writes on", || oracle.lines() >= rotation * LINES);
        match rotation {
            4 if dies => rig.endpoint.die(),
            8 if dies => rig.endpoint.listen(),
            _ => {}
        }
        writer.rotate_by_copytruncate(&rig.log(&format!("app.log.{rotation}")));
    }
    drop(writer.stop());
    let endpoint = &rig.endpoint;
    let report = oracle.wait_for_all(endpoint, &Layout::Slices, Order::WithinFile, DEADLINE);
    let allowance = || Allowance::bytes(endpoint.with_log(Log::unknown_bytes));
    assert_eq!(report.clone().check(allowance()), Ok(report));
    assert_eq!(rig.number("/totals/lost_bytes"), 0);
    agent.terminate();
    assert_eq!(agent.wait(DEADLINE).code(), Some(0));
    let all = oracle.verify(&endpoint.accepted(), &Layout::Slices, Order::WithinFile);
    all.assert_within(allowance());
}

#[test]
fn copies_and_truncations_under_load_lose_and_repeat_nothing() {
    storm(false, 51);
}

#[test]
fn copies_and_truncations_while_the_endpoint_is_dead_lose_nothing() {
    storm(true, 52);
}

/// Where no pattern covers the copies, what has been read before the truncation comes once. (What
/// has not been read stands in the copy alone, and nobody asked for that to be followed.)
#[test]
fn truncations_with_copies_out_of_the_pattern_repeat_nothing() {
    let rig = Rig::new(r#"["{logs}/app.log"]"#, "");
    let oracle = Oracle::new(53, Shape::Plain);
    let agent = rig.start();
    let (path, mut minter) = (rig.log("app.log"), oracle.minter());
    let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    for rotation in 0..ROTATIONS {
        write_at_rate(&mut file, LINES, || minter.next_line());
        let bytes = oracle.bytes();
        rig.endpoint.wait_until("it was read", DEADLINE, |log| log.stored_bytes >= bytes).unwrap();
        fs::copy(&path, rig.log(&format!("app.log.{rotation}"))).unwrap();
        file.set_len(0).unwrap();
        minter.next_file();
    }
    append(&path, std::str::from_utf8(&minter.next_line()).unwrap());
    let endpoint = &rig.endpoint;
    let report = oracle.wait_for_all(endpoint, &Layout::Slices, Order::WithinFile, DEADLINE);
    report.assert_exactly_once();
    assert_eq!(rig.number("/totals/lost_bytes"), 0);
    agent.terminate();
    assert_eq!(agent.wait(DEADLINE).code(), Some(0));
    let all = oracle.verify(&endpoint.accepted(), &Layout::Slices, Order::WithinFile);
    all.assert_exactly_once();
}

/// "**Every gap is counted.** What nobody could read any more … is reported as bytes, by file, in the
/// log, in `status` and in a metric."
#[test]
fn what_a_truncation_destroys_unread_is_told_in_the_log_in_status_and_in_a_metric() {
    let rig = Rig::new(r#"["{logs}/app.log"]"#, "");
    let path = rig.log("app.log");
    let unread = "a line that never gets its end";
    append(&path, &format!("read\n{unread}"));
    let agent = rig.start();
    rig.wait_for(&["read\n"]);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    append(&path, "new\n");
    rig.wait_for(&["read\n", "new\n"]);
    until("the loss is counted", || rig.number("/totals/lost_bytes") == unread.len() as u64);
    let files = rig.home.status(super::DEADLINE)["flows"][0]["files"].clone();
    let lost = |file: &serde_json::Value| file["lost_bytes"] == unread.len();
    assert!(files.as_array().unwrap().iter().any(lost), "{files}");
    assert!(agent.stderr().contains("bytes were lost"), "{}", agent.stderr());
    rig.end(agent, &["read\n", "new\n"]);
}

/// Writes lines at the rate.
fn write_at_rate(file: &mut fs::File, lines: u64, mut next: impl FnMut() -> Vec<u8>) {
    use std::io::Write;
    let begun = Instant::now();
    for line in 0..lines {
        file.write_all(&next()).unwrap();
        let due = Duration::from_secs(line) / RATE;
        thread::sleep(due.saturating_sub(begun.elapsed()));
    }
}

/// A copytruncate by another process, as logrotate does it: the server writes on between the copy
/// and the truncation. Every line that survives in a file comes, and no line comes twice, also not
/// from a copy that is shorter than what had been read of the original.
#[test]
fn a_foreign_copytruncate_loses_no_line_that_survives_and_repeats_none() {
    let rig = Rig::new(r#"["{logs}/app.log*"]"#, "tail: { scan_interval: 5 s }");
    let oracle = Oracle::new(54, Shape::Plain);
    let agent = rig.start();
    let path = rig.log("app.log");
    let writer = LogWriter::start(&path, oracle.minter(), Pace::rate(RATE));
    for rotation in 1..=ROTATIONS {
        until("the server writes on", || oracle.lines() >= rotation * LINES);
        fs::copy(&path, rig.log(&format!("app.log.{rotation}"))).unwrap();
        // logrotate syncs the copy before it truncates: the server writes some 50 lines meanwhile,
        // which the agent may have read.
        let written = oracle.lines();
        until("the server writes between copy and truncation", || oracle.lines() >= written + 50);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    }
    drop(writer.stop());
    let survivors = survivors(&rig);
    let all_came = |log: &Log| {
        let arrived = count(log);
        survivors.iter().all(|line| arrived.contains_key(&**line))
    };
    rig.endpoint.wait_until("every surviving line came", DEADLINE, all_came).unwrap();
    // Once all copies are known for what they are, a restart must not take them for new files either.
    until("every copy is known", || {
        let status = rig.home.status(DEADLINE);
        let files = status.pointer("/flows/0/files").unwrap().as_array().unwrap();
        let known = |name: String| files.iter().any(|file| file["path"].as_str() == Some(&*name));
        (1..=ROTATIONS)
            .all(|number| known(rig.log(&format!("app.log.{number}")).display().to_string()))
    });
    agent.terminate();
    assert_eq!(agent.wait(DEADLINE).code(), Some(0));
    let again = rig.start();
    append(&path, "a last line\n");
    let last = |log: &Log| log.records.iter().any(|record| *record.data == *b"a last line\n");
    rig.endpoint.wait_until("a fresh line comes", DEADLINE, last).unwrap();
    again.terminate();
    assert_eq!(again.wait(DEADLINE).code(), Some(0));
    rig.endpoint.with_log(|log| {
        let arrived = count(log);
        let repeated = arrived.values().filter(|times| **times > 1).count();
        assert_eq!(repeated, 0, "of {} lines", arrived.len());
        eprintln!("{} of {} written lines arrived", arrived.len() - 1, oracle.lines());
    });
}

/// Returns every whole line in a file.
fn survivors(rig: &Rig) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(rig.home.logs()).unwrap() {
        let content = fs::read(entry.unwrap().path()).unwrap();
        let whole = lines_of(&content).filter(|line| line.ends_with(b"\n"));
        lines.extend(whole.map(<[u8]>::to_vec));
    }
    lines
}

/// Returns how often each line came.
fn count(log: &Log) -> HashMap<&[u8], u32> {
    let mut counts = HashMap::new();
    for record in &log.records {
        for line in lines_of(&record.data) {
            *counts.entry(line).or_default() += 1;
        }
    }
    counts
}
