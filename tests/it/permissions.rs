//! The IAM policies of the packages: each allows what the binary asks of AWS, and nothing more.
//!
//! What it asks is not read from the source but recorded at the endpoint.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::scene::{DEADLINE, Scene, Settings};
use crate::support::endpoint::Script;

/// Returns the actions that a policy allows; panics where it is not what IAM takes, or allows anything
/// on more than one stream.
fn allowed(policy: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/iam").join(policy);
    let policy: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(policy["Version"], "2012-10-17");
    let mut actions = BTreeSet::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow", "{statement}");
        assert_eq!(statement["Resource"], "arn:aws:kinesis:REGION:ACCOUNT:stream/STREAM");
        for action in statement["Action"].as_array().unwrap() {
            let action = action.as_str().unwrap();
            assert!(!action.contains(['*', '?']), "{action}");
            actions.insert(action.to_owned());
        }
    }
    actions
}

/// Returns the actions that IAM asked about, for what the endpoint was asked.
fn asked(scene: &Scene) -> BTreeSet<String> {
    scene.settled(|log| {
        log.requests.iter().map(|request| format!("kinesis:{}", request.operation)).collect()
    })
}

/// `produce.json` is what `check --connect` and `run` take: every call that they make is allowed, and
/// nothing is that they do not make.
#[test]
fn the_policy_of_a_producer_is_what_it_asks_for() {
    let scene = Scene::new(700, &Settings::default(), Script::healthy());
    drop(scene.write(0, 500));
    let config = scene.home.config();
    let check = ["check", "--connect", "--config", config.to_str().unwrap()];
    assert_eq!(scene.home.run(&check, DEADLINE).code(), Some(0));
    assert_eq!(scene.home.once(DEADLINE).code(), Some(0));
    assert_eq!(asked(&scene), allowed("produce.json"));
}
