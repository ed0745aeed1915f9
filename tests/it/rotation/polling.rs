//! Where inotify cannot be had, files are polled: later, but nothing is lost.

use std::process::Command;

use super::{DEADLINE, Rig, append, until};
use crate::support::agent::{Agent, isolate};
use crate::support::oracle::{Layout, Oracle, Order, Shape};
use crate::support::writer::{LogWriter, Pace};

/// Starts the agent in a user namespace of its own whose `limit` of inotify is `value`: the machine
/// around it keeps its own.
fn start_limited(rig: &Rig, limit: &str, value: u32) -> Agent {
    let script = format!("echo {value} > /proc/sys/user/{limit} && exec \"$@\"");
    let mut command = Command::new("unshare");
    isolate(&mut command, rig.home.logs().parent().unwrap());
    command.args(["--user", "--map-root-user", "sh", "-c", &script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_kinetail")).args(["run", "--config"]).arg(rig.home.config());
    Agent::spawn(&mut command)
}

/// Returns how changes are noticed, once the agent can tell, and what is wrong.
fn watching(rig: &Rig) -> (String, Vec<String>) {
    until("the agent answers", || rig.home.state().join("control.sock").exists());
    let mut told = None;
    until("the first scan is over", || {
        let status = rig.home.status(DEADLINE);
        let flow = status.pointer("/flows/0").unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let problems = flow["problems"].as_array().unwrap().iter().map(text).collect();
        told = Some((text(&flow["watching"]), problems));
        flow["files"].as_array().is_some_and(|files| !files.is_empty())
    });
    told.unwrap()
}

/// Rotations under load, which only looks can find: the status says that files are polled, and why,
/// and every line comes once.
#[test]
fn without_inotify_files_are_polled_and_nothing_is_lost() {
    let settings = "tail: { scan_interval: 200 ms, poll_interval: 50 ms }";
    let rig = Rig::new(r#"["{logs}/app.log*"]"#, settings);
    let oracle = Oracle::new(61, Shape::Plain);
    let writer = LogWriter::start(&rig.log("app.log"), oracle.minter(), Pace::rate(2_000));
    let agent = start_limited(&rig, "max_inotify_instances", 0);
    let (watching, problems) = watching(&rig);
    assert_eq!(watching, "polling");
    assert!(problems[0].starts_with("inotify is not available: "), "{problems:?}");
    for rotation in 1..=3 {
        let lines = oracle.lines() + 1_000;
        until("the server writes on", || oracle.lines() >= lines);
        writer.rotate_by_rename(&rig.log(&format!("app.log.{rotation}")), 100);
    }
    drop(writer.stop());
    let endpoint = &rig.endpoint;
    let report = oracle.wait_for_all(endpoint, &Layout::Slices, Order::WithinFile, DEADLINE);
    agent.terminate();
    assert_eq!(agent.wait(DEADLINE).code(), Some(0));
    report.assert_exactly_once();
}

/// Where only some directories can be watched, everything is polled, and told.
#[test]
fn without_enough_watches_files_are_polled_and_nothing_is_lost() {
    let settings = "tail: { scan_interval: 200 ms, poll_interval: 50 ms }";
    let rig = Rig::new(r#"["{logs}/*/app.log*"]"#, settings);
    for name in ["a", "b", "c"] {
        std::fs::create_dir(rig.log(name)).unwrap();
        append(&rig.log(&format!("{name}/app.log")), &format!("{name} 1\n"));
    }
    let agent = start_limited(&rig, "max_inotify_watches", 2);
    let (watching, problems) = watching(&rig);
    assert_eq!(watching, "polling");
    assert!(problems[0].starts_with("cannot watch "), "{problems:?}");
    rig.wait_for(&["a 1\n", "b 1\n", "c 1\n"]);
    for name in ["a", "b", "c"] {
        append(&rig.log(&format!("{name}/app.log")), &format!("{name} 2\n"));
    }
    rig.end(agent, &["a 1\n", "b 1\n", "c 1\n", "a 2\n", "b 2\n", "c 2\n"]);
}
