//! Many files: all of them shipped, few of them open, and little to do where nothing happens.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::rename::descriptors;
use super::{Rig, append};
use crate::support::agent::{Agent, isolate};

const FILES: usize = 2_000;

/// Starts the agent with so many descriptors at most.
fn start_with_descriptors(rig: &Rig, most: u32) -> Agent {
    let mut command = Command::new("sh");
    isolate(&mut command, rig.home.logs().parent().unwrap());
    command.args(["-c", &format!("ulimit -n {most} && exec \"$@\""), "sh"]);
    command.arg(env!("CARGO_BIN_EXE_kinetail")).args(["run", "--config"]).arg(rig.home.config());
    Agent::spawn(&mut command)
}

/// Two thousand small files, with 200 of them open at a time: every line comes, also of files written
/// again after they were closed; at rest the agent is idle.
#[test]
fn two_thousand_files_are_shipped_with_few_open_and_idle_at_rest() {
    let rig = Rig::new(r#"["{logs}/*.log"]"#, "tail: { open_files: 200 }");
    let name = |number: usize| rig.log(&format!("app-{number:04}.log"));
    let line = |number: usize, round: usize| format!("{number:04} says {round}\n");
    for number in 0..FILES {
        append(&name(number), &line(number, 0));
    }
    let agent = start_with_descriptors(&rig, 300);
    let mut expected = (0..FILES).map(|number| line(number, 0)).collect::<Vec<_>>();
    rig.wait_for(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    for number in (0..FILES).step_by(7) {
        append(&name(number), &line(number, 1));
        expected.push(line(number, 1));
    }
    rig.wait_for(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(descriptors(&agent) <= 200 + 64, "{} descriptors", descriptors(&agent));
    let idle = cpu_share(&agent, Duration::from_secs(2));
    assert!(idle < 0.1, "idle, it takes {idle:.3} of a core");
    eprintln!("idle with {FILES} files: {:.2} % of a core", idle * 100.0);
    rig.end(agent, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Files that are all equal could be copies of each other; they are not, and there are more of them
/// than descriptors.
#[test]
fn equal_files_beyond_the_limit_of_descriptors_are_all_read() {
    let settings = "tail: { open_files: 100, scan_interval: 100 ms }";
    let rig = Rig::new(r#"["{logs}/*.log"]"#, settings);
    let header = "#Fields: date time c-ip cs-method cs-uri-stem sc-status\n";
    for number in 0..600 {
        append(&rig.log(&format!("app-{number}.log")), header);
    }
    let agent = start_with_descriptors(&rig, 200);
    rig.end(agent, &vec![header; 600]);
}

/// Returns the share of one core that the agent takes, measured over a while.
fn cpu_share(agent: &Agent, over: Duration) -> f64 {
    let before = cpu_ticks(agent);
    thread::sleep(over);
    // A tick is a hundredth of a second wherever Linux runs.
    f64::from(cpu_ticks(agent) - before) / 100.0 / over.as_secs_f64()
}

fn cpu_ticks(agent: &Agent) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.id())).unwrap();
    let fields = stat.rsplit(") ").next().unwrap().split(' ').collect::<Vec<_>>();
    fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap()
}
