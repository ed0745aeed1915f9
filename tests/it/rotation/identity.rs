//! Which file is which: equal beginnings, inodes used again, restarts in the middle of a line.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use super::{Rig, append};

/// Files that begin alike, or are equal as a whole, are each read.
#[test]
fn files_with_equal_first_lines_are_all_read() {
    let rig = Rig::new(r#"["{logs}/*.log"]"#, "tail: { scan_interval: 200 ms }");
    let header = "#Version: 1.0 of a header that every file of this server begins with\n";
    append(&rig.log("a.log"), &format!("{header}a\n"));
    append(&rig.log("b.log"), &format!("{header}b\n"));
    let agent = rig.start();
    rig.wait_for(&[header, header, "a\n", "b\n"]);
    append(&rig.log("c.log"), header);
    rig.wait_for(&[header, header, header, "a\n", "b\n"]);
    append(&rig.log("c.log"), "c\n");
    append(&rig.log("a.log"), "more of a\n");
    rig.end(agent, &[header, header, header, "a\n", "b\n", "c\n", "more of a\n"]);
}

/// Deleted and made again while nobody looks: ext4 gives the new file the old one's inode at once,
/// and it may begin as the old one did, be longer than it, or shorter. (On a file system that does
/// not use inodes again, this tests deletion alone, and says so.)
#[test]
fn a_file_made_again_between_two_runs_is_read_from_its_start() {
    let rig = Rig::new(r#"["{logs}/app.log"]"#, "");
    let (mut inodes, mut expected) = (HashSet::new(), Vec::new());
    for run in 0..6 {
        let path = rig.log("app.log");
        let lines = (0..[3, 9, 2, 2, 40, 1][run]).map(|line| format!("run {run}, line {line}\n"));
        let lines = ["the same header\n".to_owned()].into_iter().chain(lines).collect::<Vec<_>>();
        append(&path, &lines.concat());
        inodes.insert(fs::metadata(&path).unwrap().ino());
        expected.extend(lines);
        let lines = expected.iter().map(String::as_str).collect::<Vec<_>>();
        rig.end(rig.start(), &lines);
        fs::remove_file(&path).unwrap();
    }
    eprintln!("6 files had {} different inodes", inodes.len());
}

/// The same while the agent runs, and holds no descriptor that keeps the inode: only one file may be
/// open, and that is another one.
#[test]
fn a_file_made_again_while_it_is_closed_is_read_from_its_start() {
    let settings = "tail: { open_files: 1, scan_interval: 200 ms }";
    let rig = Rig::new(r#"["{logs}/*.log"]"#, settings);
    let agent = rig.start();
    let mut expected = Vec::new();
    for round in 0..30 {
        let busy = format!("busy, round {round}\n");
        let (path, text) = (rig.log("app.log"), format!("the header\nround {round}\n"));
        append(&path, &text);
        expected.extend(["the header\n".to_owned(), format!("round {round}\n")]);
        rig.wait_for(&expected.iter().map(String::as_str).collect::<Vec<_>>());
        append(&rig.log("busy.log"), &busy);
        expected.push(busy);
        rig.wait_for(&expected.iter().map(String::as_str).collect::<Vec<_>>());
        fs::remove_file(&path).unwrap();
    }
    rig.end(agent, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(rig.home.status(super::DEADLINE).pointer("/flows/0/totals/lost_bytes").unwrap(), 0);
}

/// A line of which only a part is there waits, over a restart and a rotation in between, and then
/// comes once and whole.
#[test]
fn a_partial_last_line_waits_over_a_restart_and_a_rotation() {
    for files in [r#"["{logs}/app.log"]"#, r#"["{logs}/app.log*"]"#] {
        let rig = Rig::new(files, "");
        let path = rig.log("app.log");
        append(&path, "whole\nonly a pa");
        let agent = rig.start();
        rig.end(agent, &["whole\n"]);
        append(&path, "rt of");
        let agent = rig.start();
        fs::rename(&path, rig.log("app.log.1")).unwrap();
        append(&path, "new\n");
        rig.end(agent, &["whole\n", "new\n"]);
        append(&rig.log("app.log.1"), " a line\n");
        rig.end(rig.start(), &["whole\n", "new\n", "only a part of a line\n"]);
    }
}

/// A last line that never gets its newline comes all the same, once its rotated file has been quiet
/// for as long as it is held.
#[test]
fn the_last_line_of_a_rotated_file_needs_no_newline() {
    let rig = Rig::new(r#"["{logs}/app.log"]"#, "tail: { hold_rotated: 300 ms }");
    let path = rig.log("app.log");
    append(&path, "whole\nno newline");
    let agent = rig.start();
    rig.wait_for(&["whole\n"]);
    fs::rename(&path, rig.log("app.log.1")).unwrap();
    rig.end(agent, &["whole\n", "no newline"]);
}

/// A name need not be UTF-8: it is followed, rotated, and known again after a restart.
#[test]
fn names_that_are_not_utf_8_are_names() {
    let rig = Rig::new(r#"["{logs}/*.log*"]"#, "");
    let path = rig.home.logs().join(OsStr::from_bytes(b"caf\xe9 \xff.log"));
    let rotated = rig.home.logs().join(OsStr::from_bytes(b"caf\xe9 \xff.log.1"));
    append(&path, "1\n");
    let agent = rig.start();
    rig.wait_for(&["1\n"]);
    fs::rename(&path, &rotated).unwrap();
    append(&rotated, "2\n");
    append(&path, "3\n");
    rig.end(agent, &["1\n", "2\n", "3\n"]);
    append(&path, "4\n");
    append(&rotated, "5\n");
    rig.end(rig.start(), &["1\n", "2\n", "3\n", "4\n", "5\n"]);
}
