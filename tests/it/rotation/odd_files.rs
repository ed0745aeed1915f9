//! What a pattern may cover beside logs that can be read.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{DEADLINE, Rig, append, until};
use crate::support::agent::{Agent, isolate};

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

#[test]
fn pipes_sockets_directories_and_dangling_links_are_left_alone() {
    let rig = Rig::new(r#"["{logs}/*"]"#, "tail: { scan_interval: 200 ms }");
    let made = Command::new("mkfifo").arg(rig.log("a.pipe")).status().unwrap();
    assert!(made.success());
    let _listener = UnixListener::bind(rig.log("b.socket")).unwrap();
    fs::create_dir(rig.log("c.log")).unwrap();
    std::os::unix::fs::symlink("nowhere", rig.log("d.log")).unwrap();
    std::os::unix::fs::symlink("e.log", rig.log("e.log")).unwrap();
    append(&rig.log("f.log"), "1\n");
    let agent = rig.start();
    rig.wait_for(&["1\n"]);
    let made = Command::new("mkfifo").arg(rig.log("g.pipe")).status().unwrap();
    assert!(made.success());
    // A dangling link becomes a link to something.
    append(&rig.log("nowhere"), "2\n");
    append(&rig.log("f.log"), "3\n");
    rig.end(agent, &["1\n", "2\n", "3\n"]);
}

/// A regular file whose place is taken by a pipe for moments: opening a pipe waits for its writer,
/// and that would be for ever.
#[test]
fn a_file_that_turns_into_a_pipe_stops_nothing() {
    let rig = Rig::new(r#"["{logs}/*.log"]"#, "tail: { scan_interval: 100 ms }");
    let (pipe, path) = (rig.log("pipe"), rig.log("app.log"));
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let agent = rig.start();
    let mut expected = Vec::new();
    for round in 0..200 {
        append(&path, &format!("{round}\n"));
        fs::rename(&path, rig.log(&format!("{round}.log"))).unwrap();
        fs::hard_link(&pipe, &path).unwrap();
        fs::remove_file(&path).unwrap();
        expected.push(format!("{round}\n"));
    }
    rig.end(agent, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Starts the agent as a user to whom permissions mean something, which they do not to root.
fn start_as_nobody(rig: &Rig) -> Agent {
    if !rustix::process::geteuid().is_root() {
        return rig.home.start();
    }
    let home = rig.home.logs().parent().unwrap().to_owned();
    let binary = home.join("kinetail");
    // The build directory may be one that only root enters. Another process copies: a descriptor that
    // this one writes to could be inherited by a child of another test, and a busy file not be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_kinetail")).arg(&binary).status();
    assert!(copied.unwrap().success());
    for path in [&home, &rig.home.config(), &rig.home.logs(), &binary] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = Command::new(&binary);
    isolate(&mut command, &home);
    command.args(["run", "--config"]).arg(rig.home.config());
    Agent::spawn(command.uid(NOBODY).gid(NOBODY))
}

/// One file and one directory that may not be read are told of, and stop nothing else; once they may
/// be read, they are.
#[test]
fn what_may_not_be_read_is_told_and_read_once_it_may() {
    let settings = "tail: { scan_interval: 200 ms }";
    let rig = Rig::new(r#"["{logs}/*.log", "{logs}/*/*.log"]"#, settings);
    let (secret, closed) = (rig.log("secret.log"), rig.log("closed"));
    append(&secret, "secret\n");
    fs::create_dir(&closed).unwrap();
    append(&closed.join("inner.log"), "inner\n");
    append(&rig.log("open.log"), "open\n");
    fs::set_permissions(&secret, Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    let agent = start_as_nobody(&rig);
    rig.wait_for(&["open\n"]);
    for path in [&secret, &closed] {
        let told = format!("cannot read {}: Permission denied", path.display());
        until("the status tells", || {
            let status = rig.home.status(DEADLINE);
            let problems = status.pointer("/flows/0/problems").unwrap().as_array().unwrap();
            problems.iter().any(|problem| problem.as_str().unwrap().starts_with(&told))
        });
    }
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    rig.wait_for(&["open\n", "secret\n"]);
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    rig.wait_for(&["open\n", "secret\n", "inner\n"]);
    let status = || rig.home.status(DEADLINE);
    until("the trouble is over", || {
        status().pointer("/flows/0/problems").unwrap().as_array().unwrap().is_empty()
    });
    // Told once, not at every scan.
    assert_eq!(agent.stderr().matches("cannot read a file").count(), 2, "{}", agent.stderr());
    rig.end(agent, &["open\n", "secret\n", "inner\n"]);
}
