//! The KCL and the KPL, as their authors publish them. `tests/interop/java/run` compiles what calls
//! them, starts the endpoints, and says in the environment where; without that, these tests fail.

#[path = "java/share.rs"]
mod share;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bytes::Bytes;
use kinetail::record::kpl;

use crate::producer_suite::Reader;
use crate::support::agent::Home;
use crate::{DEADLINE, aggregates, flow, line, target};

/// Lines of each of the three files, each time.
const LINES: usize = 2_000;

/// User records that the KPL puts.
const USER_RECORDS: usize = 3_000;

fn environment(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|error| panic!("{name}: {error}; tests/interop/java/run sets it"))
}

/// Returns the command that runs a class of tests/interop/java.
fn java(class: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(["-cp", &environment("KINETAIL_CLASSPATH"), class]).args(arguments);
    command
}

fn run(class: &str, arguments: &[&str]) {
    let status = java(class, arguments).status().unwrap_or_else(|error| panic!("java: {error}"));
    assert!(status.success(), "{class}: {status}");
}

/// Aggregates of the agent, put before a split of all shards, between that and a merge, and after it,
/// are split by a KCL application into the lines, each once: its range filter drops none.
#[test]
fn java_kcl_splits_aggregates_across_reshards() {
    let target = target("KINETAIL_KINESIS_LOCAL", "");
    drop(Reader::create(&target, "kcl"));
    let count = (3 * 3 * LINES).to_string();
    let dynamo = environment("KINETAIL_MOTO");
    // Ends by itself, in time.
    let mut consumer = java("Consume", &[&target.url, &dynamo, "kcl", &count, "400"]);
    let mut consumer = consumer.stdout(Stdio::piped()).spawn().unwrap();
    let mut handed = BufReader::new(consumer.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut first = None;

    let home = Home::new(&target.url, &flow("kcl", "merge: { format: kpl }"));
    let mut expected: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (round, reshard) in [Some("split"), Some("merge"), None].into_iter().enumerate() {
        for file in 0..3 {
            let numbers = (0..LINES).map(|number| (round * 3 + file) * LINES + number);
            let lines: Vec<_> = numbers.map(line).collect();
            let path = home.logs().join(format!("{file}.log"));
            let before = fs::read(&path).unwrap_or_default();
            fs::write(path, [before, lines.concat()].concat()).unwrap();
            for line in lines {
                *expected.entry(line).or_default() += 1;
            }
        }
        let finished = home.once(DEADLINE);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        // Only when it reads: the shards that kinesis-local says were open at the horizon are not those
        // that were, and the KCL would not begin.
        first = first.or_else(|| handed.next());
        if let Some(how) = reshard {
            run("Reshard", &[&target.url, "kcl", how]);
        }
    }
    let handed: Vec<String> = first.into_iter().chain(handed).collect();
    let status = consumer.wait().unwrap();
    assert!(status.success(), "the KCL application: {status}");
    let mut shards: Vec<&str> = Vec::new();
    for handed in &handed {
        let [shard, _, _, aggregated, _, data] = handed.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{handed}");
        };
        assert_eq!(aggregated, "true", "{handed}");
        shards.push(shard);
        let left = expected.get_mut(&aggregates::decoded(data));
        let left = left.filter(|left| **left > 0).unwrap_or_else(|| panic!("twice: {handed}"));
        *left -= 1;
    }
    let missing: usize = expected.values().sum();
    assert_eq!(missing, 0, "lines were dropped");
    shards.sort_unstable();
    shards.dedup();
    assert!(shards.len() > 2, "lines on both sides of the reshards: {shards:?}");
}

/// What the KPL puts, its native daemon aggregating, is split into what it was given.
#[test]
fn java_kpl_is_split() {
    let stream = Reader::create(&target("KINETAIL_KINESIS_LOCAL", ""), "kpl");
    let port = environment("KINETAIL_KINESIS_LOCAL_TLS_PORT");
    run("Produce", &[&port, "kpl", &USER_RECORDS.to_string()]);
    let records: Vec<Bytes> = stream.read().into_iter().flatten().map(|(_, data)| data).collect();
    let aggregated = records.iter().filter(|data| kpl::is_marked(data)).count();
    // It aggregates once it knows the shards.
    assert!(aggregated > 0 && records.len() < USER_RECORDS, "{} records", records.len());
    let mut pieces = aggregates::split(&records);
    pieces.sort_unstable();
    // What it did not hear of it has sent again.
    pieces.dedup();
    let expected = (0..USER_RECORDS).map(|number| format!("kpl {number:06}").into_bytes());
    assert!(pieces == expected.collect::<Vec<_>>(), "{} pieces", pieces.len());
}
