//! `check`, and what no command ever shows: secrets.

use std::path::Path;

use super::scene::{DEADLINE, Scene, Settings, http};
use crate::support::agent::{Agent, Finished};
use crate::support::endpoint::{CallFault, Options, Script};
use crate::support::oracle::{Oracle, Shape};

fn check(scene: &Scene, connect: bool) -> Finished {
    let mut arguments = vec!["check", "--config"];
    let config = scene.home.config();
    arguments.push(config.to_str().unwrap());
    arguments.extend(connect.then_some("--connect"));
    scene.home.run(&arguments, DEADLINE)
}

fn scene(options: Options, script: Script) -> Scene {
    let settings = Settings { ship: "timeout: 2 s", ..Settings::default() };
    Scene::with(Oracle::new(100, Shape::Plain), &settings, options, script)
}

/// `check` shows what would be followed and sent where, and changes nothing.
#[test]
fn check_shows_what_would_be_done() {
    let scene = scene(Options::default(), Script::healthy());
    drop(scene.write(0, 10));
    drop(scene.write(1, 10));
    let finished = check(&scene, false);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    assert!(finished.stdout.contains("web: 2 files now"), "{finished:?}");
    assert!(finished.stdout.contains(scene.log(1).to_str().unwrap()), "{finished:?}");
    assert!(!scene.home.state().exists());
    assert_eq!(scene.endpoint.with_log(|log| log.requests.len()), 0);
}

/// `check --connect` asks the stream, and says what it is.
#[test]
fn check_finds_the_stream() {
    let scene = scene(Options { max_record_kib: 2048, ..Options::default() }, Script::healthy());
    let finished = check(&scene, true);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    for words in ["web answers", "ACTIVE", "PROVISIONED", "shards 4", "2,048 KiB"] {
        assert!(finished.stdout.contains(words), "{words} in {finished:?}");
    }
    assert!(!scene.home.state().exists());
}

/// `check --connect` says what is missing: the stream, a permission, credentials, an answer.
#[test]
fn check_says_what_is_missing() {
    let missing = Options { streams: vec!["other".to_owned()], ..Options::default() };
    let fault = |fault| Script::healthy().call(fault, 1.0).everywhere();
    for (options, script, words) in [
        (missing, Script::healthy(), "does not exist"),
        (Options::default(), fault(CallFault::AccessDenied), "kinesis:PutRecords"),
        (Options::default(), fault(CallFault::ExpiredToken), "without usable credentials"),
        (Options::default(), fault(CallFault::Unavailable), "did not answer"),
        (Options::default(), Script::black_hole(), "did not answer"),
    ] {
        let scene = scene(options, script);
        let finished = check(&scene, true);
        assert_eq!(finished.code(), Some(74), "{words}: {finished:?}");
        assert!(finished.stdout.contains(words), "{words} in {finished:?}");
        assert!(finished.stderr.contains("1 of 1 streams cannot be used"), "{finished:?}");
    }
}

/// The key pair that must not be seen, and a session token.
const CANARIES: [&str; 3] =
    ["AKIACANARYCANARYKEY0", "canary/secret+OfFortyCharactersXXXXXXXXX", "canary-session-token=="];

fn assert_silent(place: &str, bytes: &[u8]) {
    for canary in CANARIES {
        let found = memchr::memmem::find(bytes, canary.as_bytes());
        assert!(found.is_none(), "{place} tells {canary}");
    }
}

fn assert_directory_silent(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert_silent(&path.display().to_string(), &std::fs::read(&path).unwrap());
        }
    }
}

/// "**Secrets never appear** in logs, errors, status or the state directory": not at the finest level
/// of the log, not while credentials are refused, not in the metrics nor on the command line.
#[test]
fn secrets_never_appear() {
    let settings = Settings {
        top: "metrics: { listen: '127.0.0.1:0' }\ncheckpoint_interval: 50 ms\n",
        ship: "timeout: 2 s, backoff_max: 100 ms",
        ..Settings::default()
    };
    let script = Script::seeded(101)
        .call(CallFault::ExpiredToken, 0.2)
        .call(CallFault::AccessDenied, 0.1)
        .call(CallFault::CutInAnswer, 0.1)
        .everywhere();
    let scene = Scene::with(Oracle::new(101, Shape::Plain), &settings, Options::default(), script);
    drop(scene.write(0, 200));
    let config = scene.home.config();
    let spawn = |arguments: &[&str]| {
        let mut command = scene.home.command(arguments);
        command.arg("--config").arg(&config).env("KINETAIL_LOG", "trace");
        let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
        for (name, canary) in names.into_iter().zip(CANARIES) {
            command.env(name, canary);
        }
        Agent::spawn(&mut command)
    };
    let agent = spawn(&["run"]);
    assert_eq!(scene.arrived().missing.count, 0);
    let log = agent.stderr();
    let line = log.lines().find(|line| line.contains("metrics are served")).unwrap();
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    let address = event["address"].as_str().unwrap().parse().unwrap();
    assert_silent("/metrics", http(address, "GET /metrics", "", "").as_bytes());
    assert_silent("/health", http(address, "GET /health", "", "").as_bytes());
    let command_line = std::fs::read(format!("/proc/{}/cmdline", agent.id())).unwrap();
    assert_silent("the command line", &command_line);
    for arguments in [&["status"][..], &["status", "--json"], &["check", "--connect"]] {
        let finished = spawn(arguments).wait(DEADLINE);
        assert_silent(&format!("{arguments:?}"), finished.stdout.as_bytes());
        assert_silent(&format!("{arguments:?}"), finished.stderr.as_bytes());
    }
    assert_directory_silent(&scene.home.state());
    agent.terminate();
    let finished = agent.wait(DEADLINE);
    assert_silent("the log", finished.stderr.as_bytes());
    assert_silent("the output", finished.stdout.as_bytes());
    assert_directory_silent(&scene.home.state());
}
