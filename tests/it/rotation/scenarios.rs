//! What happens to logs in the field, one short story a test: which file is which after renames,
//! copies, truncations and restarts, and what the agent makes of it. Each ends with a fresh line that
//! gets through and with the books of every file balancing.
//!
//! Whatever is to happen unseen happens while the agent stands still (SIGSTOP).
//!
//! | story | test |
//! | --- | --- |
//! | append only; files that appear later; dated directories | `discovery` |
//! | rename chain, unread tails, names covered or not, late lines to the old file | `rename` |
//! | several rotations between two looks, pattern covers only the first name | [`rotated_three_times_between_two_looks`] |
//! | file names by time | [`names_by_time_are_each_read`] |
//! | renamed within the pattern | [`a_name_within_the_pattern_changes_nothing`] |
//! | several rotations while stopped | [`several_rotations_while_stopped`] |
//! | stopped with a rotated file unread | [`a_rotated_file_with_bytes_left_is_finished_after_a_restart`] |
//! | killed before the first commit by the clock, then rotated | [`killed_in_its_first_moments_and_rotated_before_the_next_start`] |
//! | more rotations than logrotate keeps, endpoint dead | [`more_rotations_than_are_kept_while_the_endpoint_is_dead`] |
//! | `copytruncate`, copy covered or not, endpoint dead | `copytruncate` |
//! | `copytruncate` of a file that was empty when last looked at | [`copied_and_truncated_since_it_was_seen_empty`] |
//! | truncated and longer before anybody looks | [`truncated_and_longer_before_anybody_looks`] |
//! | rewritten in place at the same size | [`rewritten_at_the_same_size`] |
//! | deleted while stopped, another file there | [`a_file_deleted_while_stopped_is_counted_and_the_next_read`] |
//! | compressed while stopped | [`compressed_while_stopped_is_counted_and_not_read_as_text`] |
//! | all files deleted, made again later | [`all_files_deleted_and_made_again`] |
//! | deleted and made again, same inode | `identity` |
//! | deleted unread; came and went between two looks | `rename`, [`files_that_came_and_went_are_counted`] |
//! | equal first lines; equal first KiB | `identity`, [`files_that_are_equal_for_a_kibibyte_are_each_read`] |
//! | short and empty files; partial last line at end, stop, rotation | `identity` |
//! | hard and symbolic links, overlapping patterns | [`one_file_under_many_names_is_read_once`] |
//! | one file in two flows | [`one_file_in_two_flows_goes_to_both_streams`] |
//! | holes and binary bytes | [`holes_are_bytes_too`] |
//! | pipes, sockets, directories, dangling links, unreadable files | `odd_files` |
//! | the kernel's queue of events overflows | [`a_flood_of_events_beyond_the_queue_of_the_kernel`] |
//! | no inotify, too few watches | `polling` |
//! | many files, few descriptors | `scale` |
//!
//! And what else agents of this kind are reported to fail at, or test, and where it stands here:
//!
//! | scenario | test |
//! | --- | --- |
//! | partial failure, error before and after storing, lost answers, garbage, wrong length | `faults`, `schedules` |
//! | one shard throttled or dead, whatever the size of records | `faults::a_shard_that_takes_nothing_…` |
//! | stream missing, access denied, token expired, endpoint away, 5xx: told, and healed | `healing` |
//! | a record that can never be accepted | `poison` |
//! | records and lines at the limit and over it, 10 MiB, 500 records a call | `formats`, `compression` |
//! | NUL, CR, invalid UTF-8, delimiters within lines | `formats`, `consume` |
//! | keys found in lines, one for each | `formats::keys_are_found_in_lines` |
//! | groups of lines written in pieces, across a rotation | `formats`, [`a_stack_trace_at_the_end_of_a_rotated_file_stays_whole`] |
//! | `kill -9` at random moments, at rest | `crash` |
//! | SIGTERM under load, pending answers, a second signal, a dead endpoint at the end | `crash`, `life`, `restart` |
//! | the database cut, zeroed, flipped, removed | `state` |
//! | two agents, one state directory | `life::a_second_agent_on_a_state_directory_gives_way` |
//! | permission granted later | `odd_files` |
//! | inodes used again, offsets beyond the file, many empty files, files that vanish while looked for | `field` |
//! | one cause logged once a minute | `field::one_cause_is_logged_once_a_minute` |
//! | stopped for minutes, a wall clock that jumps | `field` |
//! | memory while the endpoint is dead | `faults::a_dead_endpoint_costs_no_memory`, `tests/limits.rs` |
//! | unknown keys and other mistakes of the configuration | `life::a_broken_configuration_opens_nothing` |
//! | rotation by logrotate in all its modes | `tests/storm.rs` |

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::{Rig, TEMPLATE, append, until};
use crate::support::agent::Agent;
use crate::support::endpoint::{FaultEndpoint, Script};

const EXACT: &str = r#"["{logs}/app.log"]"#;
const COVERED: &str = r#"["{logs}/app.log*"]"#;
const FRESH: &str = "a fresh line\n";

/// What every story ends with.
fn close(rig: &Rig, agent: Agent, log: &Path, expected: &[&str]) {
    append(log, FRESH);
    rig.end(agent, &[expected, &[FRESH]].concat());
}

/// Does something while the agent stands still.
fn unseen(agent: &Agent, act: impl FnOnce()) {
    agent.signal(Signal::STOP);
    act();
    agent.signal(Signal::CONT);
}

fn truncate(path: &Path) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
}

/// Two of the files were written and renamed out of the pattern before anybody opened them.
#[test]
fn rotated_three_times_between_two_looks() {
    let rig = Rig::new(EXACT, "tail: { scan_interval: 1 h }");
    let (log, one, two, three) =
        (rig.log("app.log"), rig.log("app.log.1"), rig.log("app.log.2"), rig.log("app.log.3"));
    append(&log, "1\n");
    let agent = rig.start();
    rig.wait_for(&["1\n"]);
    unseen(&agent, || {
        fs::rename(&log, &one).unwrap();
        append(&log, "2\n");
        fs::rename(&one, &two).unwrap();
        fs::rename(&log, &one).unwrap();
        append(&one, "2, late\n");
        append(&log, "3\n");
        fs::rename(&two, &three).unwrap();
        fs::rename(&one, &two).unwrap();
        fs::rename(&log, &one).unwrap();
        append(&log, "4\n");
    });
    rig.wait_for(&["1\n", "2\n", "2, late\n", "3\n", "4\n"]);
    append(&one, "3, late\n");
    close(&rig, agent, &log, &["1\n", "2\n", "2, late\n", "3\n", "3, late\n", "4\n"]);
}

#[test]
fn names_by_time_are_each_read() {
    let rig = Rig::new(r#"["{logs}/app-*.log"]"#, "tail: { scan_interval: 1 h }");
    let agent = rig.start();
    let mut expected = Vec::new();
    for hour in 0..24 {
        append(&rig.log(&format!("app-2026-11-26T{hour:02}.log")), &format!("{hour}\n"));
        expected.push(format!("{hour}\n"));
    }
    let expected = expected.iter().map(String::as_str).collect::<Vec<_>>();
    close(&rig, agent, &rig.log("app-2026-11-26T23.log"), &expected);
}

#[test]
fn a_name_within_the_pattern_changes_nothing() {
    let rig = Rig::new(r#"["{logs}/*.log"]"#, "tail: { scan_interval: 1 h }");
    let (one, other) = (rig.log("one.log"), rig.log("other.log"));
    append(&one, "1\n");
    let agent = rig.start();
    rig.wait_for(&["1\n"]);
    fs::rename(&one, &other).unwrap();
    append(&other, "2\n");
    close(&rig, agent, &other, &["1\n", "2\n"]);
}

#[test]
fn several_rotations_while_stopped() {
    let rig = Rig::new(COVERED, "");
    let log = rig.log("app.log");
    append(&log, "1\n");
    rig.end(rig.start(), &["1\n"]);
    append(&log, "1, unread\n");
    for number in (2..=4).rev() {
        fs::rename(&log, rig.log(&format!("app.log.{number}"))).unwrap();
        append(&log, &format!("{number}\n"));
    }
    close(&rig, rig.start(), &log, &["1\n", "1, unread\n", "2\n", "3\n", "4\n"]);
}

/// The endpoint takes nothing until after the restart; the rotated name is not covered.
#[test]
fn a_rotated_file_with_bytes_left_is_finished_after_a_restart() {
    let mut rig = Rig::new(EXACT, "");
    let log = rig.log("app.log");
    append(&log, "1\n");
    rig.end(rig.start(), &["1\n"]);
    rig.endpoint.die();
    append(&log, "2\n");
    let agent = rig.start();
    until("it is read", || rig.number("/totals/read_bytes") == 2);
    fs::rename(&log, rig.log("app.log.1")).unwrap();
    append(&log, "3\n");
    until("all is read", || rig.number("/totals/read_bytes") == 4);
    drop(agent.kill());
    append(&rig.log("app.log.1"), "2, late\n");
    rig.endpoint.listen();
    close(&rig, rig.start(), &log, &["1\n", "2\n", "2, late\n", "3\n"]);
}

/// Killed within its first interval of commits, and the file is renamed out of the pattern before the
/// next start: what the first scan has found is committed at once.
#[test]
fn killed_in_its_first_moments_and_rotated_before_the_next_start() {
    let endpoint = FaultEndpoint::start(Script::healthy());
    let rare = super::template(EXACT, "").replace("50 ms", "1 min");
    let rig = Rig { home: crate::support::agent::Home::new(&endpoint.url(), &rare), endpoint };
    let log = rig.log("app.log");
    append(&log, "1\n");
    let begun = std::time::Instant::now();
    let agent = rig.start();
    until("what was found is committed", || {
        rig.home.status(super::DEADLINE)["checkpoint_age_seconds"].is_number()
    });
    assert!(begun.elapsed().as_secs() < 50, "committed by the interval only");
    rig.wait_for(&["1\n"]);
    drop(agent.kill());
    append(&log, "2, unread\n");
    fs::rename(&log, rig.log("app.log.1")).unwrap();
    append(&log, "3\n");
    let agent = rig.start();
    // What arrived and was not committed comes again.
    let expected = ["1\n", "1\n", "2, unread\n", "3\n"];
    close(&rig, agent, &log, &expected);
}

/// `rotate 1`: of six files that nobody could send, two are left on the disk.
#[test]
fn more_rotations_than_are_kept_while_the_endpoint_is_dead() {
    let mut rig = Rig::new(EXACT, "");
    let log = rig.log("app.log");
    let agent = rig.start();
    rig.endpoint.die();
    let mut expected = Vec::new();
    for rotation in 1..=6_u64 {
        append(&log, &format!("{rotation}\n"));
        expected.push(format!("{rotation}\n"));
        until("it is read", || rig.number("/totals/read_bytes") == 2 * rotation);
        fs::rename(&log, rig.log("app.log.1")).unwrap();
    }
    rig.endpoint.listen();
    close(&rig, agent, &log, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn copied_and_truncated_since_it_was_seen_empty() {
    let rig = Rig::new(COVERED, "tail: { scan_interval: 200 ms }");
    let log = rig.log("app.log");
    File::create(&log).unwrap();
    let agent = rig.start();
    unseen(&agent, || {
        append(&log, "1\n2\n");
        fs::copy(&log, rig.log("app.log.1")).unwrap();
        truncate(&log);
        append(&log, "3\n");
    });
    close(&rig, agent, &log, &["1\n", "2\n", "3\n"]);
}

#[test]
fn truncated_and_longer_before_anybody_looks() {
    let rig = Rig::new(EXACT, "tail: { scan_interval: 1 h }");
    let log = rig.log("app.log");
    append(&log, "old 1\nold 2\n");
    let agent = rig.start();
    rig.wait_for(&["old 1\n", "old 2\n"]);
    let new = ["new 1\n", "new 2\n", "new 3\n", "new 4\n"];
    unseen(&agent, || {
        truncate(&log);
        append(&log, &new.concat());
    });
    close(&rig, agent, &log, &[&["old 1\n", "old 2\n"], &new[..]].concat());
}

#[test]
fn rewritten_at_the_same_size() {
    let rig = Rig::new(EXACT, "tail: { scan_interval: 1 h }");
    let log = rig.log("app.log");
    append(&log, "old 1\nold 2\n");
    let agent = rig.start();
    rig.wait_for(&["old 1\n", "old 2\n"]);
    unseen(&agent, || fs::write(&log, "new 1\nnew 2\n").unwrap());
    close(&rig, agent, &log, &["old 1\n", "old 2\n", "new 1\n", "new 2\n"]);
}

/// "**Every gap is counted.**"
#[test]
fn a_file_deleted_while_stopped_is_counted_and_the_next_read() {
    let rig = Rig::new(r#"["{logs}/*.log"]"#, "");
    let (one, two) = (rig.log("one.log"), rig.log("two.log"));
    append(&one, "1\nunread, without its end");
    rig.end(rig.start(), &["1\n"]);
    fs::remove_file(&one).unwrap();
    append(&two, "2\n");
    let agent = rig.start();
    rig.wait_for(&["1\n", "2\n"]);
    let lost = "unread, without its end".len() as u64;
    until("the gap is counted", || rig.number("/totals/lost_bytes") == lost);
    close(&rig, agent, &two, &["1\n", "2\n"]);
}

#[test]
fn compressed_while_stopped_is_counted_and_not_read_as_text() {
    let rig = Rig::new(COVERED, "");
    let log = rig.log("app.log");
    append(&log, "1\nunread");
    rig.end(rig.start(), &["1\n"]);
    fs::rename(&log, rig.log("app.log.1")).unwrap();
    assert!(Command::new("gzip").arg(rig.log("app.log.1")).status().unwrap().success());
    append(&log, "2\n");
    let agent = rig.start();
    rig.wait_for(&["1\n", "2\n"]);
    until("the gap is counted", || rig.number("/totals/lost_bytes") == 6);
    close(&rig, agent, &log, &["1\n", "2\n"]);
}

#[test]
fn all_files_deleted_and_made_again() {
    let rig = Rig::new(r#"["{logs}/*.log"]"#, "tail: { scan_interval: 1 h }");
    let logs = ["a", "b", "c"].map(|name| rig.log(&format!("{name}.log")));
    let agent = rig.start();
    let mut expected = Vec::new();
    for round in 0..5 {
        for (number, log) in logs.iter().enumerate() {
            append(log, &format!("{number} in round {round}\n"));
            expected.push(format!("{number} in round {round}\n"));
        }
        rig.wait_for(&expected.iter().map(String::as_str).collect::<Vec<_>>());
        for log in &logs {
            fs::remove_file(log).unwrap();
        }
    }
    close(&rig, agent, &logs[0], &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

/// What they held cannot be known; that they were there can.
#[test]
fn files_that_came_and_went_are_counted() {
    let rig = Rig::new(r#"["{logs}/*.log"]"#, "tail: { scan_interval: 1 h }");
    let lasting = rig.log("lasting.log");
    append(&lasting, "lasting\n");
    let agent = rig.start();
    rig.wait_for(&["lasting\n"]);
    unseen(&agent, || {
        for number in 0..7 {
            let brief = rig.log(&format!("brief-{number}.log"));
            append(&brief, "gone\n");
            fs::remove_file(&brief).unwrap();
        }
    });
    until("they are counted", || rig.number("/missed_files") == 7);
    assert!(agent.stderr().contains("files came and went"), "{}", agent.stderr());
    close(&rig, agent, &lasting, &["lasting\n"]);
}

#[test]
fn files_that_are_equal_for_a_kibibyte_are_each_read() {
    let rig = Rig::new(r#"["{logs}/*.log"]"#, "tail: { scan_interval: 200 ms }");
    let header = format!("{}\n", "#Fields: the same in every file ".repeat(64));
    let (a, b, c) = (rig.log("a.log"), rig.log("b.log"), rig.log("c.log"));
    append(&a, &header);
    append(&b, &format!("{header}b\n"));
    let agent = rig.start();
    rig.wait_for(&[&header, &header, "b\n"]);
    append(&c, &format!("{header}c\n"));
    append(&a, "a\n");
    close(&rig, agent, &c, &[&header, &header, &header, "a\n", "b\n", "c\n"]);
}

#[test]
fn one_file_under_many_names_is_read_once() {
    let files = r#"["{logs}/*.log", "{logs}/app*", "{logs}/app.log", "{logs}/links/*"]"#;
    let rig = Rig::new(files, "tail: { scan_interval: 200 ms, poll_interval: 50 ms }");
    let log = rig.log("app.log");
    fs::create_dir(rig.log("links")).unwrap();
    append(&log, "1\n");
    symlink("../app.log", rig.log("links/symbolic")).unwrap();
    fs::hard_link(&log, rig.log("hard.log")).unwrap();
    let agent = rig.start();
    rig.wait_for(&["1\n"]);
    append(&rig.log("hard.log"), "2\n");
    fs::hard_link(&log, rig.log("links/hard")).unwrap();
    append(&rig.log("links/hard"), "3\n");
    rig.wait_for(&["1\n", "2\n", "3\n"]);
    fs::remove_file(&log).unwrap();
    append(&rig.log("links/hard"), "4\n");
    close(&rig, agent, &rig.log("hard.log"), &["1\n", "2\n", "3\n", "4\n"]);
}

#[test]
fn one_file_in_two_flows_goes_to_both_streams() {
    let endpoint = FaultEndpoint::start(Script::healthy());
    let flow = TEMPLATE.split_once("produce:\n").unwrap().1;
    let flow = |name: &str| {
        let flow = flow.replace("app", name).replace("stream: web", &format!("stream: {name}"));
        format!("{flow}    files: {COVERED}\n")
    };
    let head = TEMPLATE.split_once("produce:\n").unwrap().0;
    let two = format!("{head}produce:\n{}{}", flow("one"), flow("two"));
    let rig = Rig { home: crate::support::agent::Home::new(&endpoint.url(), &two), endpoint };
    let log = rig.log("app.log");
    append(&log, "1\n");
    let agent = rig.start();
    rig.wait_for(&["1\n", "1\n"]);
    fs::rename(&log, rig.log("app.log.1")).unwrap();
    append(&log, "2\n");
    rig.end(agent, &["1\n", "1\n", "2\n", "2\n"]);
    append(&log, "3\n");
    rig.end(rig.start(), &["1\n", "1\n", "2\n", "2\n", "3\n", "3\n"]);
    for stream in ["one", "two"] {
        let bytes = rig.endpoint.with_log(|log| {
            let own = log.records.iter().filter(|record| *record.stream == *stream);
            own.map(|record| record.data.len()).sum::<usize>()
        });
        assert_eq!(bytes, 6, "{stream}");
    }
}

#[test]
fn holes_are_bytes_too() {
    let rig = Rig::new(EXACT, "");
    let log = rig.log("app.log");
    append(&log, "1\n");
    File::options().write(true).open(&log).unwrap().write_all_at(b"2\n", 100_000).unwrap();
    let agent = rig.start();
    let hole = format!("{}2\n", "\0".repeat(99_998));
    close(&rig, agent, &log, &["1\n", &hole]);
}

/// Tens of thousands of events while the agent stands still, and rotations among those that the
/// kernel dropped: found by the scan that the overflow asks for, not by the next one, in an hour.
#[test]
fn a_flood_of_events_beyond_the_queue_of_the_kernel() {
    let rig = Rig::new(COVERED, "tail: { scan_interval: 1 h }");
    let (log, noise) = (rig.log("app.log"), rig.log("noise"));
    append(&log, "1\n");
    let agent = rig.start();
    rig.wait_for(&["1\n"]);
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    assert!(limit <= 1 << 20, "{limit} events would take too long to make");
    unseen(&agent, || {
        for _ in 0..limit / 2 + 100 {
            File::create(&noise).unwrap();
            fs::remove_file(&noise).unwrap();
        }
        append(&log, "2\n");
        fs::rename(&log, rig.log("app.log.1")).unwrap();
        append(&log, "3\n");
        append(&rig.log("app.log.new"), "4\n");
    });
    close(&rig, agent, &log, &["1\n", "2\n", "3\n", "4\n"]);
}

/// A group of lines is not torn by the rotation that comes after it.
#[test]
fn a_stack_trace_at_the_end_of_a_rotated_file_stays_whole() {
    let rig = Rig::new(EXACT, "multiline: { start: '^[A-Z]', max_age: 200 ms }");
    let log = rig.log("app.log");
    append(&log, "Zero\n");
    let agent = rig.start();
    rig.wait_for(&["Zero\n"]);
    append(&log, "Error one\n  at here\n");
    append(&log, "  at there\n");
    fs::rename(&log, rig.log("app.log.1")).unwrap();
    append(&log, "Error two\n");
    let lines = ["Zero\n", "Error one\n", "  at here\n", "  at there\n", "Error two\n"];
    rig.wait_for(&lines);
    rig.endpoint.with_log(|log| {
        let whole = |data: &[u8]| {
            let text = String::from_utf8_lossy(data).into_owned();
            !text.contains("Error one") || text.contains("Error one\n  at here\n  at there\n")
        };
        assert!(log.records.iter().all(|record| whole(&record.data)), "{:?}", log.records);
    });
    close(&rig, agent, &log, &lines);
}
