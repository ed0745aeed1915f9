//! The IAM policies of the packages: each allows what the binary asks of AWS, and nothing more.
//!
//! What it asks is not read from the source but recorded at the endpoint, or on the way to it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::scene::{DEADLINE, Scene, Settings};
#[cfg(feature = "demo")]
use super::scene::{status, stop};
#[cfg(feature = "demo")]
use crate::support::agent::Home;
#[cfg(feature = "demo")]
use crate::support::dynamodb::DynamoDb;
use crate::support::endpoint::Script;
#[cfg(feature = "demo")]
use crate::support::recorder::Recorder;

/// What a statement may be about: one stream, a consumer of it (whose ARN ends with the time it was registered
/// at), and one table with what a fleet of KCL 3 keeps beside it.
const RESOURCES: [&str; 4] = [
    "arn:aws:kinesis:REGION:ACCOUNT:stream/STREAM",
    "arn:aws:kinesis:REGION:ACCOUNT:stream/STREAM/consumer/CONSUMER:*",
    "arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE",
    "arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE-CoordinatorState",
];

/// Returns the actions that each statement of a policy allows; panics where it is not what IAM takes, or
/// allows anything on more than one stream and table.
fn statements(policy: &str) -> Vec<BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/iam").join(policy);
    let policy: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(policy["Version"], "2012-10-17");
    let actions = |statement: &Value| {
        assert_eq!(statement["Effect"], "Allow", "{statement}");
        let resource = statement["Resource"].as_str().unwrap();
        assert!(RESOURCES.contains(&resource), "{statement}");
        let service = resource.split(':').nth(2).unwrap();
        let actions = match &statement["Action"] {
            Value::Array(actions) => actions.clone(),
            action => vec![action.clone()],
        };
        let named = |action: &Value| {
            let action = action.as_str().unwrap();
            assert!(!action.contains(['*', '?']), "{action}");
            assert!(action.starts_with(&format!("{service}:")), "{statement}");
            action.to_owned()
        };
        actions.iter().map(named).collect()
    };
    policy["Statement"].as_array().unwrap().iter().map(actions).collect()
}

/// Returns all actions that a policy allows.
fn allowed(policy: &str) -> BTreeSet<String> {
    statements(policy).into_iter().flatten().collect()
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

/// The first statement of `consume.json` is what `check --connect` and `run` take of a stream that is consumed;
/// the next two are what fan-out takes beside `ListShards`; the others are what sharing it takes, but for the
/// removal of leases whose shards are gone.
#[cfg(feature = "demo")]
#[test]
fn the_policy_of_a_consumer_is_what_it_asks_for() {
    let kinesis = super::consume::endpoint("web", 2);
    let producer = Home::new(&kinesis, PRODUCE);
    std::fs::write(producer.logs().join("a.log"), "one\ntwo\n").unwrap();
    assert_eq!(producer.once(DEADLINE).code(), Some(0));

    let recorder = Recorder::before(&kinesis);
    let consumer = Home::new(&recorder.url(), CONSUME);
    let config = consumer.config();
    let check = ["check", "--connect", "--config", config.to_str().unwrap()];
    assert_eq!(consumer.run(&check, DEADLINE).code(), Some(0));
    assert_eq!(consumer.once(DEADLINE).code(), Some(0));
    let statements = statements("consume.json");
    assert_eq!(actions(&recorder), statements[0]);

    let pushing = Recorder::before(&kinesis);
    let subscriber = Home::new(&pushing.url(), &format!("{CONSUME}    fan_out: kinetail\n"));
    let config = subscriber.config();
    let check = ["check", "--connect", "--config", config.to_str().unwrap()];
    assert_eq!(subscriber.run(&check, DEADLINE).code(), Some(0));
    let registered = "kinesis:RegisterStreamConsumer".to_owned();
    assert!(!actions(&pushing).contains(&registered), "`check` changes nothing");
    assert_eq!(subscriber.once(DEADLINE).code(), Some(0));
    let mut fan_out: BTreeSet<String> = &statements[1] | &statements[2];
    fan_out.insert("kinesis:ListShards".to_owned());
    assert_eq!(actions(&pushing), fan_out);

    let dynamodb = DynamoDb::start();
    let table = Recorder::before(&dynamodb.url());
    let sharing = format!(
        "    coordinate: {{ dynamodb_table: leases, create_table: true, failover: 2 s, endpoint_url: '{}' }}\n",
        table.url()
    );
    let sharer = Home::new(&recorder.url(), &format!("{CONSUME}{sharing}"));
    let agent = sharer.start();
    status(&sharer, "its shards are read", |status| {
        let shards = status["consumers"][0]["shards"].as_array();
        shards.is_some_and(|all| all.iter().filter(|it| it["state"] == "reading").count() == 2)
    });
    stop(agent);
    let mut asked = actions(&recorder);
    asked.append(&mut actions(&pushing));
    asked.append(&mut actions(&table));
    asked.insert("dynamodb:DeleteItem".to_owned());
    assert_eq!(asked, allowed("consume.json"));
}

#[cfg(feature = "demo")]
const PRODUCE: &str = "state_dir: {state}
aws: { endpoint_url: '{endpoint}' }
produce:
  - name: web
    files: ['{logs}/*']
    stream: web
";

#[cfg(feature = "demo")]
const CONSUME: &str = "state_dir: {state}
aws: { endpoint_url: '{endpoint}' }
consume:
  - name: back
    stream: web
    directory: {out}
";

/// Returns the actions that IAM is asked about, for what a relay heard.
#[cfg(feature = "demo")]
fn actions(recorder: &Recorder) -> BTreeSet<String> {
    let action = |target: &String| match target.split_once('.') {
        Some(("Kinesis_20131202", operation)) => format!("kinesis:{operation}"),
        Some(("DynamoDB_20120810", operation)) => format!("dynamodb:{operation}"),
        _ => panic!("an operation of no known service: {target}"),
    };
    recorder.targets().iter().map(action).collect()
}
