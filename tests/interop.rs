//! The producer's suite against Kinesis endpoints that nobody here wrote. `tests/interop/run` installs
//! and starts them, and says in the environment where they listen; without that, these tests fail.
//!
//! What differs with moto 5.2.5, and is therefore not asked of it:
//! - of calls that come at the same time it loses records it has accepted (its `Shard.put_record` says
//!   "this function is not safe for concurrency"), so there is one call in flight at a time;
//! - it numbers the records of a shard "1", "2", …, and a reader that compares sequence numbers as text,
//!   as Kinesis's fixed width allows, gets them out of order ([`moto_counts_its_records`]); it gives
//!   them back as they were put all the same, and that the suite does ask for;
//! - a stream is active at once, and takes records even while it would not be;
//! - a call may hold 5 MiB and a record 1 MiB *with* its key; the limits of streams cannot be raised;
//! - it never throttles, never refuses a single record, and never ends a closed shard. The
//!   fault-injecting endpoint of the other tests does.
//!
//! kinesis-local 0.6.2 is faithful in all of that but for limits it does not enforce; it takes some
//! 2 MiB a second, which bounds the volume of the suite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test ends by a panic that says where; `support` is written as a library"
)]

mod producer_suite;
#[path = "interop/recipes.rs"]
mod recipes;
#[allow(dead_code, unused_imports, reason = "a module of tests uses what it needs of it")]
mod support;

use producer_suite::Target;

/// What moto needs: see above.
const ONE_CALL: &str = "ship: { in_flight: 1 }";

/// Returns the endpoint whose URL stands in the environment.
fn target(variable: &str, settings: &'static str) -> Target {
    let url = std::env::var(variable).unwrap_or_else(|error| {
        panic!("{variable}: {error}; tests/interop/run starts the endpoints and sets it")
    });
    Target { url, settings }
}

#[test]
fn kinesis_local_passes_the_producer_suite() {
    let target = target("KINETAIL_KINESIS_LOCAL", "");
    for case in producer_suite::cases() {
        drop(producer_suite::run(&target, &case));
    }
}

#[test]
fn moto_passes_the_producer_suite() {
    let target = target("KINETAIL_MOTO", ONE_CALL);
    for case in producer_suite::cases() {
        drop(producer_suite::run(&target, &case));
    }
}

/// Sequence numbers of kinesis-local ascend as text does, as Kinesis's do.
#[test]
fn kinesis_local_numbers_records_as_kinesis_does() {
    let numbers = sequence_numbers(&target("KINETAIL_KINESIS_LOCAL", ""));
    for shard in &numbers {
        assert!(shard.is_sorted(), "{shard:?}");
        assert!(shard.iter().all(|number| number.len() == 56), "{shard:?}");
    }
}

/// Moto's do not; the day they do, the words above are to be changed.
#[test]
fn moto_counts_its_records() {
    let numbers = sequence_numbers(&target("KINETAIL_MOTO", ONE_CALL));
    assert!(numbers.iter().flatten().all(|number| number.len() < 4), "{numbers:?}");
    assert!(!numbers.iter().all(|shard| shard.is_sorted()), "{numbers:?}");
}

/// "every consumer that can split by newline can read it": the README's Lambda recipes do.
#[test]
fn the_recipes_of_the_readme_give_the_lines() {
    let case = producer_suite::Case {
        name: "recipes",
        settings: "",
        shape: support::oracle::Shape::Plain,
        layout: support::oracle::Layout::Slices,
        order: support::oracle::Order::WithinFile,
        lines: 2_000,
        lines_max: usize::MAX,
    };
    let stream = producer_suite::run(&target("KINETAIL_KINESIS_LOCAL", ""), &case);
    let records: Vec<_> = stream.read().into_iter().flatten().map(|(_, data)| data).collect();
    recipes::give_the_lines(&records);
}

/// Ships 30 lines as 30 records under different keys; returns the sequence numbers, by shard.
fn sequence_numbers(target: &Target) -> Vec<Vec<String>> {
    let case = producer_suite::Case {
        name: "sequence-numbers",
        settings: "partition_key: { json_field: id }\nmerge: { format: none }",
        shape: support::oracle::Shape::Json,
        layout: support::oracle::Layout::Single,
        order: support::oracle::Order::Any,
        lines: 30,
        lines_max: 1,
    };
    let stream = producer_suite::run(target, &case);
    let shards = stream.read().into_iter();
    shards.map(|shard| shard.into_iter().map(|(number, _)| number).collect()).collect()
}
