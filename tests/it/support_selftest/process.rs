//! The process driver, on commands that every machine has.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, test_kill_process};

use crate::support::agent::{Agent, Home, isolate};

const DEADLINE: Duration = Duration::from_secs(30);

/// Returns a shell that runs a script.
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Output and exit code are kept, each stream for itself.
#[test]
fn output_and_exit_code_are_kept() {
    let finished = Agent::spawn(&mut shell("echo out; echo err >&2; exit 75")).wait(DEADLINE);
    assert_eq!((finished.code(), finished.signal()), (Some(75), None));
    assert_eq!((&*finished.stdout, &*finished.stderr), ("out\n", "err\n"));
}

/// A process can be waited for by what it says, asked to end, and killed.
#[test]
fn a_process_is_terminated_and_killed() {
    let script = "trap 'echo bye; exit 3' TERM; echo ready >&2; while :; do sleep 0.01; done";
    let mut agent = Agent::spawn(&mut shell(script));
    agent.wait_for_stderr("it is ready", DEADLINE, |text| text.contains("ready"));
    assert!(agent.is_running());
    agent.terminate();
    let finished = agent.wait(DEADLINE);
    assert_eq!((finished.code(), &*finished.stdout), (Some(3), "bye\n"));

    let agent = Agent::spawn(&mut shell("echo on >&2; exec sleep 600"));
    agent.wait_for_stderr("it is on", DEADLINE, |text| text.contains("on"));
    assert_eq!(agent.kill().signal(), Some(9));
}

/// Nothing outlives its driver.
#[test]
fn a_dropped_process_is_gone() {
    let agent = Agent::spawn(&mut shell("exec sleep 600"));
    let id = Pid::from_raw(i32::try_from(agent.id()).unwrap()).unwrap();
    test_kill_process(id).unwrap();
    drop(agent);
    test_kill_process(id).unwrap_err();
}

/// A process that stops speaking ends the wait for its words at once, not at the deadline.
#[test]
#[should_panic(expected = "never said")]
fn waiting_for_words_ends_with_the_process() {
    let begun = Instant::now();
    let agent = Agent::spawn(&mut shell("exit 0"));
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        agent.wait_for_stderr("never said", Duration::from_mins(10), |_| false);
    }));
    assert!(begun.elapsed() < Duration::from_mins(5));
    std::panic::resume_unwind(waited.unwrap_err());
}

/// A home's configuration names its own directories, and its processes see nothing of this machine.
#[test]
fn a_home_is_a_world_of_its_own() {
    let template =
        "state_dir: {state}\naws: { endpoint_url: '{endpoint}' }\nfiles: [{logs}/*.log]\n";
    let home = Home::new("http://127.0.0.1:1", template);
    let text = std::fs::read_to_string(home.config()).unwrap();
    assert!(text.contains(&format!("state_dir: {}", home.state().display())), "{text}");
    assert!(text.contains("http://127.0.0.1:1") && home.logs().is_dir(), "{text}");

    let mut command = shell("env");
    isolate(&mut command, &home.logs());
    let finished = Agent::spawn(&mut command).wait(DEADLINE);
    let names = finished.stdout.lines().filter_map(|line| line.split('=').next());
    let foreign = names.filter(|name| {
        !name.starts_with("AWS_")
            && !["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE", "PWD", "OLDPWD", "SHLVL", "_"]
                .contains(name)
    });
    assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(finished.stdout.contains("AWS_ACCESS_KEY_ID=AKIDEXAMPLE"));
}
