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

#[path = "interop/aggregates.rs"]
mod aggregates;
#[path = "interop/java.rs"]
mod java;
mod producer_suite;
#[path = "interop/recipes.rs"]
mod recipes;
mod resharding;
mod sharing;
#[allow(dead_code, unused_imports, reason = "a module of tests uses what it needs of it")]
mod support;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kinetail::record::compression::Algorithm;
use producer_suite::{Reader, Target};
use resharding::Reading;
use support::agent::{Agent, Home};
use support::oracle::{Oracle, Shape};
use support::writer::{LogWriter, Pace};

/// For whatever should take seconds.
const DEADLINE: Duration = Duration::from_mins(1);

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

/// The README's Lambda recipes, for each format, on records that went through a stream.
#[test]
fn the_recipes_of_the_readme_give_the_lines() {
    use recipes::{Recipe, give_the_lines};
    let text = |number: usize| format!("{number} {}\n", "é".repeat(number % 200)).into_bytes();
    let json = |number: usize| format!("{{\"id\":{number},\"user\":\"ann\"}}\n").into_bytes();
    let as_it_is = |line: &str| line.to_owned();
    let as_json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap().to_string();
    let check = |format, name: &str, settings: &str, line: &dyn Fn(usize) -> Vec<u8>, read| {
        let shipped = ship(name, settings, 2_000, line);
        give_the_lines(format, &shipped.records, &shipped.lines.concat(), read);
    };
    check(Recipe::Lines, "recipe-lines", "", &text, as_it_is);
    check(
        Recipe::Delimiter,
        "recipe-delimiter",
        "merge: { delimiter: \"#-#\", max_lines: 10 }",
        &text,
        as_it_is,
    );
    check(Recipe::JsonArray, "recipe-json", "merge: { format: json_array }", &json, as_json);
    check(Recipe::Kpl, "recipe-kpl", "merge: { format: kpl }", &text, as_it_is);
    let lines = format_of("lines", "none");
    check(Recipe::Compressed, "recipe-plain", &lines, &text, as_it_is);
    for (format, compression) in COMPRESSED {
        let name = format!("recipe-{format}-{compression}");
        let settings = format_of(format, compression);
        check(Recipe::Compressed, &name, &settings, &text, as_it_is);
    }
}

const COMPRESSED: [(&str, &str); 4] =
    [("lines", "gzip"), ("lines", "zstd"), ("kpl", "gzip"), ("kpl", "zstd")];

fn format_of(format: &str, compression: &str) -> String {
    format!("merge: {{ format: {format}, compression: {compression} }}")
}

/// Aggregates of the agent, read from a stream, are split by `aws-kinesis-agg` of npm and `PyPI`, and by a
/// protobuf decoder from the schema.
#[test]
fn aggregates_are_split_by_others() {
    let shipped = ship("aggregates", "merge: { format: kpl }", 2_000, &line);
    aggregates::are_split_by_others(&shipped.records, &shipped.lines);
}

/// Compressed aggregates are split by the same into user records, each a member or frame of lines.
#[test]
fn compressed_aggregates_are_split_by_others() {
    for (format, compression) in COMPRESSED.into_iter().filter(|(format, _)| *format == "kpl") {
        let name = format!("aggregates-{compression}");
        let shipped = ship(&name, &format_of(format, compression), 2_000, &line);
        let algorithm = Algorithm::named(compression.as_bytes()).unwrap();
        aggregates::frames_are_split_by_others(&shipped.records, &shipped.lines, algorithm);
    }
}

/// As `aws-kinesis-agg` of npm and `PyPI` and aiokpl write them.
#[test]
fn aggregates_of_others_are_split() {
    aggregates::of_others_are_split();
}

/// Three consumers share shards through a table of dynalite; for as many seconds and by the seed that
/// tests/interop/sharing says.
#[test]
fn consumers_share_a_table_of_dynalite() {
    let target = target("KINETAIL_KINESIS_LOCAL", "");
    let shards = u32::try_from(sharing::SHARDS).unwrap();
    drop(Reader::create_of(&target, "shared", shards));
    let dynamodb = std::env::var("KINETAIL_DYNALITE").expect("tests/interop/run sets it");
    let number = |name: &str| std::env::var(name).ok().map(|digits| digits.parse().unwrap());
    let seed = number("KINETAIL_SHARING_SEED").unwrap_or(82);
    let time = Duration::from_secs(number("KINETAIL_SHARING_SECONDS").unwrap_or(0));
    let place = sharing::Place {
        kinesis: &target.url,
        dynamodb: &dynamodb,
        table: "leases",
        fan_out: "null",
    };
    drop(sharing::share(&place, seed, time, 3));
}

/// Shards of kinesis-local are split and merged under way: nothing is lost, and children come after their
/// parents.
#[test]
fn across_splits_and_merges_of_kinesis_local_each_file_is_its_log() {
    let target = target("KINETAIL_KINESIS_LOCAL", "");
    drop(Reader::create_of(&target, "resharded", 2));
    // Two, split to four, merged to two, and both again.
    let shards = resharding::reshard(&target.url, 83, Reading::Polled);
    assert_eq!(shards, 2 + 4 + 2 + 4 + 2);
}

/// What kinesis-local pushes over HTTP/2 is written once, in order, while the consumer is killed and stopped:
/// it refuses a subscription within five seconds of another, as Kinesis does.
#[test]
fn what_kinesis_local_pushes_is_written_once() {
    let target = target("KINETAIL_KINESIS_LOCAL", "");
    drop(Reader::create_of(&target, "pushed", 2));
    let environment = |name: &str| std::env::var(name).expect("tests/interop/run sets it");
    let tls = format!("https://localhost:{}", environment("KINETAIL_KINESIS_LOCAL_TLS_PORT"));
    let oracle = Oracle::new(86, Shape::Wild);
    let source = Home::new(&target.url, &flow("pushed", "merge: { max_bytes: 4 KB }"));
    let home = Home::new(&tls, PUSHED);
    let start = || {
        let mut command = home.command(&["run", "--config", home.config().to_str().unwrap()]);
        command.env("SSL_CERT_FILE", environment("KINETAIL_KINESIS_LOCAL_CERTIFICATE"));
        Agent::spawn(&mut command)
    };
    let written = || oracle.judge_files(&home.out()).arrived;
    let more_is_written = || {
        let (before, until) = (written(), Instant::now() + DEADLINE);
        while written() <= before {
            assert!(Instant::now() < until, "{:#}", home.status(DEADLINE));
            thread::sleep(Duration::from_millis(50));
        }
    };
    let writers: Vec<LogWriter> = (0..4)
        .map(|n| source.logs().join(format!("{n}.log")))
        .map(|path| LogWriter::start(&path, oracle.minter(), Pace::rate(20)))
        .collect();
    let producer = source.start();
    let mut consumer = start();
    for round in 0..4 {
        more_is_written();
        if round % 2 == 0 {
            consumer.kill();
        } else {
            consumer.terminate();
            assert_eq!(consumer.wait(DEADLINE).code(), Some(0));
        }
        consumer = start();
    }
    for writer in writers {
        drop(writer.stop());
    }
    let until = Instant::now() + DEADLINE;
    while oracle.judge_files(&home.out()).missing.count > 0 && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
    for agent in [producer, consumer] {
        agent.terminate();
        assert_eq!(agent.wait(DEADLINE).code(), Some(0));
    }
    oracle.judge_files(&home.out()).assert_exactly_once();
}

const PUSHED: &str = "state_dir: {state}
aws: { endpoint_url: '{endpoint}', region: us-east-1 }
checkpoint_interval: 100 ms
consume:
  - name: web
    stream: pushed
    directory: {out}
    fan_out: kinetail
";

/// 10 MiB of mixed logs through kinesis-local and back are the same bytes.
#[test]
fn a_mirror_over_kinesis_local_is_byte_identical_to_its_source() {
    let target = target("KINETAIL_KINESIS_LOCAL", "");
    drop(Reader::create_of(&target, "mirrored", 4));
    let produce = flow("mirrored", "merge: { format: kpl }");
    let consume = "consume:\n  - name: back\n    stream: mirrored\n    directory: {out}\n    \
                   layout: mirror\n    path: '{path}'\n";
    let home = Home::new(&target.url, &[&produce, consume].concat());
    support::generator::generate(&home.logs(), 84, 10, 10 << 20).unwrap();
    let finished = home.once(3 * DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    let mirror = home.out().join(home.logs().strip_prefix("/").unwrap());
    let compared =
        std::process::Command::new("diff").arg("-r").args([home.logs(), mirror]).output();
    let compared = compared.unwrap();
    assert!(compared.status.success(), "{compared:?}");
}

/// Lines that went through an endpoint, in one order with the records that hold them.
struct Shipped {
    records: Vec<Bytes>,
    lines: Vec<Vec<u8>>,
}

/// Ships `number` lines of one file to a stream of its own.
fn ship(name: &str, settings: &str, number: usize, line: &dyn Fn(usize) -> Vec<u8>) -> Shipped {
    let target = target("KINETAIL_KINESIS_LOCAL", "");
    let stream = Reader::create(&target, name);
    let home = Home::new(&target.url, &flow(name, settings));
    let lines: Vec<Vec<u8>> = (0..number).map(line).collect();
    fs::write(home.logs().join("app.log"), lines.concat()).unwrap();
    let finished = home.once(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
    // One file has one key, so all stand in one shard, in their order.
    let records = stream.read().into_iter().flatten().map(|(_, data)| data).collect();
    Shipped { records, lines }
}

/// Returns a line with its newline: every tenth is no UTF-8, and every hundredth empty.
fn line(number: usize) -> Vec<u8> {
    match number {
        _ if number % 100 == 99 => b"\n".to_vec(),
        _ if number % 10 == 9 => [format!("{number} ").as_bytes(), b"\xff\0\xfe\n"].concat(),
        _ => format!("{number} {}\n", "é".repeat(number % 200)).into_bytes(),
    }
}

/// Returns the configuration of a flow into the stream of its name.
fn flow(name: &str, settings: &str) -> String {
    format!(
        r#"
state_dir: {{state}}
aws: {{ region: us-east-1, endpoint_url: "{{endpoint}}" }}
produce:
  - name: {name}
    stream: {name}
    files: ["{{logs}}/*.log"]
    {settings}
"#
    )
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
