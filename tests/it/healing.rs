//! Trouble that lasts, and then heals: told in one clear sentence, and over by itself.

use super::scene::{DEADLINE, Scene, Settings, http, problems, stop};
use crate::support::endpoint::{CallFault, Options, Script};
use crate::support::oracle::{Oracle, Shape};

/// Follows a log while every call meets `fault`: `words` stand in the status and once in the log; once
/// the fault is gone, every line arrives and the status says so.
fn heals(seed: u64, fault: CallFault, words: &str) {
    let script = Script::healthy().call(fault, 1.0).everywhere();
    let settings = Settings { ship: "timeout: 1 s, backoff_max: 100 ms", ..Settings::default() };
    let scene = Scene::new(seed, &settings, script);
    drop(scene.write(0, 500));
    let agent = scene.home.start();
    tells(&scene, words);
    agent.wait_for_stderr("it is logged", DEADLINE, |log| log.contains(words));
    scene.endpoint.set_script(Script::healthy());
    let report = scene.arrived();
    report.assert_within(crate::support::oracle::Allowance::bytes(
        scene.endpoint.with_log(crate::support::endpoint::Log::unknown_bytes),
    ));
    is_well(&scene);
    let log = agent.stderr();
    let warnings = log.lines().filter(|line| line.contains("shipping is held up"));
    assert_eq!(warnings.count(), 1, "one cause is told once a minute: {log}");
    assert!(log.contains("shipping goes on"), "{log}");
    scene.at_rest();
    stop(agent);
    scene.assert_nothing_accepted_was_resent();
}

/// Waits until the one problem of the flow holds `words`.
fn tells(scene: &Scene, words: &str) {
    let status = scene
        .status(words, |status| problems(status).iter().any(|problem| problem.contains(words)));
    let problems = problems(&status);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(!problems[0].contains('\n') && problems[0].len() < 300, "{problems:?}");
}

/// Waits until nothing is wrong.
fn is_well(scene: &Scene) {
    scene.status("all is well again", |status| problems(status).is_empty());
}

#[test]
fn refused_access_heals() {
    heals(20, CallFault::AccessDenied, "the stream refuses access: ");
}

#[test]
fn expired_credentials_heal() {
    heals(21, CallFault::ExpiredToken, "no valid credentials (or a wrong clock): ");
}

#[test]
fn throttled_calls_heal() {
    heals(22, CallFault::Throttled, "every call is throttled: ");
}

#[test]
fn a_service_that_is_unavailable_heals() {
    heals(23, CallFault::Unavailable, "no answer from the stream: ");
}

#[test]
fn a_service_that_fails_heals() {
    heals(24, CallFault::InternalFailure, "no answer from the stream: ");
}

#[test]
fn answers_that_are_cut_off_heal() {
    heals(25, CallFault::CutInAnswer, "no answer from the stream: ");
}

#[test]
fn a_black_hole_heals() {
    heals(26, CallFault::BlackHole, "no answer from the stream: ");
}

#[test]
fn a_black_hole_that_swallows_records_heals() {
    heals(27, CallFault::BlackHoleAfterStoring, "no answer from the stream: ");
}

#[test]
fn a_stream_that_is_created_later_is_found() {
    let options = Options {
        streams: vec!["other".to_owned()],
        check_signatures: false,
        ..Options::default()
    };
    let settings = Settings { ship: "backoff_max: 100 ms", ..Settings::default() };
    let oracle = Oracle::new(28, Shape::Plain);
    let scene = Scene::with(oracle, &settings, options, Script::healthy());
    drop(scene.write(0, 500));
    let agent = scene.home.start();
    tells(&scene, "the stream does not exist or is not active: ");
    let headers = "X-Amz-Target: Kinesis_20131202.CreateStream\r\n";
    let answer =
        http(scene.endpoint.address(), "POST /", headers, r#"{"StreamName":"web","ShardCount":4}"#);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    scene.arrived().assert_exactly_once();
    is_well(&scene);
    scene.at_rest();
    stop(agent);
}

/// An endpoint that is not there at the start, comes, goes in the middle of it all, and comes back.
#[test]
fn an_endpoint_may_come_and_go() {
    let settings = Settings { ship: "backoff_max: 100 ms", ..Settings::default() };
    let mut scene = Scene::new(29, &settings, Script::healthy());
    scene.endpoint.die();
    let mut minter = scene.write(0, 500);
    let agent = scene.home.start();
    for _ in 0..3 {
        tells(&scene, "no answer from the stream: ");
        scene.endpoint.listen();
        let stored = scene.endpoint.with_log(|log| log.stored);
        scene.wait("it goes on", |log| log.stored > stored);
        is_well(&scene);
        scene.endpoint.die();
        minter = scene.write_more(0, minter, 500);
    }
    scene.endpoint.listen();
    scene.arrived().assert_within(crate::support::oracle::Allowance::bytes(
        scene.endpoint.with_log(crate::support::endpoint::Log::unknown_bytes),
    ));
    is_well(&scene);
    scene.at_rest();
    stop(agent);
    scene.assert_nothing_accepted_was_resent();
}
