//! Which files are found, and when. The scan that finds everything comes once an hour here, so what
//! is found later is found by inotify.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Rig, append, until};

const NO_SCAN: &str = "tail: { scan_interval: 1 h }";

#[test]
fn files_and_nested_directories_that_appear_later_are_followed() {
    let rig = Rig::new(r#"["{logs}/*.log", "{logs}/srv/**/*.log"]"#, NO_SCAN);
    fs::create_dir(rig.log("srv")).unwrap();
    append(&rig.log("first.log"), "first\n");
    let agent = rig.start();
    rig.wait_for(&["first\n"]);
    append(&rig.log("second.log"), "second\n");
    rig.wait_for(&["first\n", "second\n"]);
    fs::create_dir_all(rig.log("srv/a/b/c")).unwrap();
    append(&rig.log("srv/a/b/c/deep.log"), "deep\n");
    append(&rig.log("srv/a/other.txt"), "not covered\n");
    rig.wait_for(&["first\n", "second\n", "deep\n"]);
    fs::create_dir(rig.log("srv/a/b/c/d")).unwrap();
    append(&rig.log("srv/a/b/c/d/deeper.log"), "deeper\n");
    append(&rig.log("srv/a/b/c/deep.log"), "more\n");
    rig.end(agent, &["first\n", "second\n", "deep\n", "deeper\n", "more\n"]);
}

/// A whole tree that is moved into place at once has everything in it before it can be watched.
#[test]
fn a_tree_that_is_moved_into_place_is_followed() {
    let rig = Rig::new(r#"["{logs}/srv/**/*.log"]"#, NO_SCAN);
    fs::create_dir(rig.log("srv")).unwrap();
    fs::create_dir_all(rig.log("new/x/y")).unwrap();
    append(&rig.log("new/x/y/app.log"), "moved\n");
    let agent = rig.start();
    fs::rename(rig.log("new"), rig.log("srv/new")).unwrap();
    rig.wait_for(&["moved\n"]);
    append(&rig.log("srv/new/x/y/app.log"), "more\n");
    rig.end(agent, &["moved\n", "more\n"]);
}

/// A directory of logs that is removed and made again (or exchanged for another one) is watched as
/// the first one was.
#[test]
fn a_directory_that_is_made_again_is_watched_again() {
    let rig = Rig::new(r#"["{logs}/srv/*/app.log"]"#, NO_SCAN);
    fs::create_dir_all(rig.log("srv/one")).unwrap();
    append(&rig.log("srv/one/app.log"), "1\n");
    let agent = rig.start();
    rig.wait_for(&["1\n"]);
    fs::remove_dir_all(rig.log("srv/one")).unwrap();
    fs::create_dir(rig.log("srv/one")).unwrap();
    append(&rig.log("srv/one/app.log"), "2\n");
    rig.wait_for(&["1\n", "2\n"]);
    fs::rename(rig.log("srv/one"), rig.log("old")).unwrap();
    fs::create_dir(rig.log("srv/one")).unwrap();
    append(&rig.log("srv/one/app.log"), "3\n");
    rig.wait_for(&["1\n", "2\n", "3\n"]);
    append(&rig.log("srv/one/app.log"), "4\n");
    rig.end(agent, &["1\n", "2\n", "3\n", "4\n"]);
}

#[test]
fn excluded_files_are_not_read() {
    let exclude = r#"exclude: ["*.gz", "debug-*", "{logs}/private/**"]"#;
    let rig = Rig::new(r#"["{logs}/**/*"]"#, exclude);
    fs::create_dir(rig.log("private")).unwrap();
    append(&rig.log("app.log"), "covered\n");
    append(&rig.log("app.log.gz"), "excluded by its end\n");
    append(&rig.log("debug-app.log"), "excluded by its start\n");
    append(&rig.log("private/app.log"), "excluded by its directory\n");
    let agent = rig.start();
    rig.wait_for(&["covered\n"]);
    append(&rig.log("debug-later.log"), "excluded when it comes later\n");
    append(&rig.log("app.log"), "and more\n");
    rig.end(agent, &["covered\n", "and more\n"]);
}

/// A link to the current log is switched to the next one: the old one is read to its end, with what
/// is written to it after the switch.
#[test]
fn a_link_that_is_switched_to_the_next_file_is_followed() {
    let rig = Rig::new(r#"["{logs}/current.log"]"#, "tail: { poll_interval: 50 ms }");
    for name in ["app-1.log", "app-2.log"] {
        append(&rig.log(name), &format!("{name} begins\n"));
    }
    symlink("app-1.log", rig.log("current.log")).unwrap();
    let agent = rig.start();
    rig.wait_for(&["app-1.log begins\n"]);
    append(&rig.log("app-1.log"), "one more\n");
    rig.wait_for(&["app-1.log begins\n", "one more\n"]);
    symlink("app-2.log", rig.log("next")).unwrap();
    fs::rename(rig.log("next"), rig.log("current.log")).unwrap();
    append(&rig.log("app-1.log"), "a late one\n");
    let switched = ["app-1.log begins\n", "one more\n", "a late one\n", "app-2.log begins\n"];
    rig.wait_for(&switched);
    append(&rig.log("app-2.log"), "one more of two\n");
    rig.end(agent, &[&switched[..], &["one more of two\n"]].concat());
}

#[test]
fn start_at_end_skips_what_is_there_at_the_very_first_start_only() {
    let rig = Rig::new(r#"["{logs}/*.log"]"#, "start_at: end");
    append(&rig.log("old.log"), "old\nold, without its end");
    let agent = rig.start();
    until("it is followed", || rig.number("/files/0/size") > 0);
    append(&rig.log("old.log"), " yet\nnew\n");
    let started = ["old, without its end yet\n", "new\n"];
    rig.wait_for(&started);
    append(&rig.log("later.log"), "found later\n");
    let later = [&started[..], &["found later\n"]].concat();
    rig.end(agent, &later);
    append(&rig.log("old.log"), "written while it was down\n");
    append(&rig.log("new.log"), "made while it was down\n");
    let again = rig.start();
    let down = ["written while it was down\n", "made while it was down\n"];
    rig.end(again, &[&later[..], &down].concat());
}
