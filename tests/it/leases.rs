//! Many agents on one stream: the real binary, over ferrokinesis and a store of tables.
//!
//! Invariant: as [`sharing`]: what counts is what stands in the files.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::consume::{PRODUCE, endpoint, files};
use super::scene::{DEADLINE, append, status, stop};
use crate::resharding;
use crate::sharing::{self, Place};
use crate::support::agent::Home;
use crate::support::dynamodb::DynamoDb;
use crate::support::endpoint::{FaultEndpoint, Options, Script};

/// Three consumers divide the shards, one is stopped, one killed, one paused: every line is written once,
/// or repeated where one was killed or paused; while answers of the table are lost.
#[test]
fn consumers_that_share_a_table_write_every_line_once_or_repeat_what_was_not_noted() {
    let (kinesis, dynamodb) = (endpoint("shared", 12), DynamoDb::start());
    dynamodb.lose_every(97);
    let place =
        Place { kinesis: &kinesis, dynamodb: &dynamodb.url(), table: "leases", fan_out: "null" };
    let outcome = sharing::share(&place, 81, Duration::ZERO, 3);
    assert_eq!(outcome.stops, [1, 1, 1]);
    assert_eq!(dynamodb.refused(), 0);
    let leases = dynamodb.items("leases");
    assert_eq!(leases.len(), sharing::SHARDS);
    for (shard, lease) in leases {
        let checkpoint = lease["checkpoint"]["S"].as_str().unwrap();
        assert!(checkpoint.bytes().all(|byte| byte.is_ascii_digit()), "{shard}: {lease}");
    }
}

/// A consumer of its own, which stops where it is told to.
fn consume(dynamodb: &DynamoDb, settings: &str) -> String {
    let url = dynamodb.url();
    format!(
        "state_dir: {{state}}
aws: {{ endpoint_url: '{{endpoint}}' }}
consume:
  - name: back
    stream: web
    directory: {{out}}
    coordinate: {{ dynamodb_table: leases, failover: 2 s, endpoint_url: '{url}'{settings} }}
"
    )
}

fn says(home: &Home, words: &str) {
    let agent = home.start();
    status(home, words, |status| {
        let problems = status["consumers"][0]["problems"].as_array();
        problems.is_some_and(|all| all.iter().any(|one| one.as_str().unwrap().contains(words)))
    });
    stop(agent);
}

/// A table that a fleet of KCL 3 uses is left alone, and a missing one is told.
#[test]
fn a_table_that_cannot_be_shared_is_refused_in_words() {
    let kinesis = endpoint("web", 2);
    let dynamodb = DynamoDb::start();
    let home = Home::new(&kinesis, &consume(&dynamodb, ""));
    says(&home, "the table leases does not exist: create it, or set coordinate.create_table");
    assert!(dynamodb.items("leases").is_empty());

    let migration = json!({ "key": { "S": "Migration3.0" }, "cv": { "S": "CLIENT_VERSION_3X" } });
    dynamodb.put("leases-CoordinatorState", "key", &migration);
    home.configure(&consume(&dynamodb, ", create_table: true"));
    says(&home, "the table is used by a fleet of KCL 3, whose leader gives out the leases");
    assert!(dynamodb.items("leases").is_empty());
    let checked =
        home.run(&["check", "--connect", "--config", home.config().to_str().unwrap()], DEADLINE);
    assert_eq!(checked.code(), Some(74), "{checked:?}");
    assert!(checked.stdout.contains("fleet of KCL 3"), "{checked:?}");

    let state = json!({ "key": { "S": "Migration3.0" }, "cv": { "S": "CLIENT_VERSION_2X" } });
    dynamodb.put("leases-CoordinatorState", "key", &state);
    let agent = home.start();
    reads(&home, 2);
    stop(agent);
    assert_eq!(dynamodb.refused(), 0);
}

/// Waits until a consumer reads so many shards.
fn reads(home: &Home, shards: usize) {
    status(home, "its shards are read", |status| {
        let all = status["consumers"][0]["shards"].as_array();
        all.is_some_and(|all| all.iter().filter(|it| it["state"] == "reading").count() == shards)
    });
}

/// `start_at: latest` is the time at which the first of the consumers began: what came since then is read,
/// whichever of them is there when, and what came before by none.
#[test]
fn what_came_since_the_first_consumer_began_is_not_skipped_by_the_next() {
    let options = Options { shards: 2, ..Options::default() };
    // Ferrokinesis takes a time for the second that it lies in.
    let endpoint = FaultEndpoint::start_with(options, Script::healthy());
    let kinesis = endpoint.url();
    let dynamodb = DynamoDb::start();
    let source = Home::new(&kinesis, PRODUCE);
    let ship = |line: &str| {
        append(&source.logs().join("app.log"), line.as_bytes());
        assert_eq!(source.once(DEADLINE).code(), Some(0));
    };
    let settings = consume(&dynamodb, ", create_table: true") + "    start_at: latest\n";
    let (first, second) = (Home::new(&kinesis, &settings), Home::new(&kinesis, &settings));
    ship("before\n");
    let agent = first.start();
    reads(&first, 2);
    stop(agent);
    ship("between\n");
    let agent = second.start();
    reads(&second, 2);
    ship("after\n");
    let written = || -> String {
        files(&second.out()).iter().map(|file| fs::read_to_string(file).unwrap()).collect()
    };
    let end = Instant::now() + DEADLINE;
    while !written().contains("after\n") {
        assert!(Instant::now() < end, "{:?}", written());
        std::thread::sleep(Duration::from_millis(20));
    }
    stop(agent);
    assert_eq!(written(), "between\nafter\n");
    assert_eq!(files(&first.out()).len(), 0);
    assert_eq!(dynamodb.refused(), 0);
}

/// `start_at: latest` is when the first consumer began, also where the leases could not be made then and the
/// shards are others by the time they can: what came meanwhile stands in shards that are closed.
#[test]
fn what_came_between_the_first_start_and_the_leases_is_not_lost_with_a_closed_shard() {
    let (kinesis, dynamodb) = (endpoint("web", 1), DynamoDb::start());
    let source = Home::new(&kinesis, PRODUCE);
    let ship = |line: &str| {
        append(&source.logs().join("app.log"), line.as_bytes());
        assert_eq!(source.once(DEADLINE).code(), Some(0));
    };
    let settings = |more| consume(&dynamodb, more) + "    start_at: latest\n";
    let home = Home::new(&kinesis, &settings(""));
    says(&home, "the table leases does not exist: create it, or set coordinate.create_table");
    ship("between\n");
    resharding::split_all(&kinesis, "web");
    ship("after\n");
    home.configure(&settings(", create_table: true"));
    let finished = home.once(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let written: String =
        files(&home.out()).iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    assert_eq!(written, "between\nafter\n");
    assert_eq!(dynamodb.refused(), 0);
}
