//! Resharding: shards are split and merged while a producer ships and a consumer reads, and another consumer
//! comes when all is over and finds parents and children at once.
//!
//! ```text
//!  logs ──▶ producer ──▶ stream ──┬──▶ consumer from the beginning, killed now and then ──▶ files
//!                        split,   └──▶ consumer that comes late ──────────────────────────▶ files
//!                        merge
//! ```
//!
//! Invariant: what is judged is the files. A log is one key, whose records move from a shard to its child: a
//! file that is its log, byte for byte, lost nothing, holds nothing twice, and had no child read before its
//! parents' end.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::agent::{Agent, Home, shipping};
use crate::support::oracle::{Oracle, Shape};
use crate::support::writer::{LogWriter, Pace};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_mins(2);

/// The stream that all goes through.
const STREAM: &str = "resharded";

/// Logs, each a key.
const LOGS: usize = 8;

/// How the producer merges and sends.
const SHIP: &str = "merge: { format: kpl, max_bytes: 2 KB, max_age: 50 ms }
    ship: { joined_bytes: 0, backoff_max: 500 ms }";

const CONSUME: &str = "state_dir: {state}
aws: { endpoint_url: '{endpoint}', region: us-east-1 }
checkpoint_interval: 100 ms
consume:
  - name: web
    stream: resharded
    directory: {out}
    path: '{file}'
    read: { poll_interval: 200 ms, backoff_max: 500 ms }
    fan_out: {fan_out}
";

/// How the consumers read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// They ask.
    Polled,
    /// Records are pushed to them, each a consumer of the stream of its own.
    Pushed,
}

impl Reading {
    /// Returns the configuration of a consumer.
    fn configured(self, name: &str) -> String {
        CONSUME.replace("{fan_out}", if self == Self::Pushed { name } else { "null" })
    }
}

/// Runs it all on the stream `resharded`, of two shards, at `url`. Returns how many shards there were.
pub fn reshard(url: &str, seed: u64, reading: Reading) -> usize {
    eprintln!("seed {seed}");
    let oracle = Oracle::new(seed, Shape::Plain);
    let mut draws = fastrand::Rng::with_seed(seed);
    let (source, early) =
        (Home::new(url, &shipping(STREAM, SHIP)), Home::new(url, &reading.configured("early")));
    let writers: Vec<LogWriter> = (0..LOGS)
        .map(|n| source.logs().join(format!("{n}.log")))
        .map(|path| LogWriter::start(&path, oracle.minter(), Pace::rate(100)))
        .collect();
    let (producer, mut consumer) = (source.start(), early.start());
    for step in 0..4 {
        more_is_written(&early);
        if step % 2 == 0 {
            split_all(url, STREAM);
        } else {
            merge_pairs(url);
        }
        if draws.bool() {
            consumer.kill();
            consumer = early.start();
        }
    }
    more_is_written(&early);
    for writer in writers {
        drop(writer.stop());
    }
    let late = Home::new(url, &reading.configured("late"));
    let latecomer = late.start();
    for home in [&early, &late] {
        whole(home, &source);
        all_closed_are_finished(url, home);
    }
    for agent in [producer, consumer, latecomer] {
        end(agent);
    }
    for home in [&early, &late] {
        whole(home, &source);
    }
    shards(url, STREAM).len()
}

/// Ends an agent in order.
fn end(agent: Agent) {
    agent.terminate();
    let finished = agent.wait(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
}

/// Returns the bytes that a consumer has written.
fn written(home: &Home) -> u64 {
    let entries = fs::read_dir(home.out()).into_iter().flatten();
    entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Waits until the consumer has written more of every log, or of what is being written at all.
fn more_is_written(home: &Home) {
    let (before, until) = (written(home), Instant::now() + DEADLINE);
    while written(home) < before + 60_000 {
        assert!(Instant::now() < until, "{}", home.status(DEADLINE));
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the files of a consumer are the logs.
fn whole(home: &Home, source: &Home) {
    let until = Instant::now() + DEADLINE;
    loop {
        let differing = (0..LOGS).map(|n| format!("{n}.log")).find(|name| {
            let read = |directory: &Path| fs::read(directory.join(name)).unwrap_or_default();
            read(&home.out()) != read(&source.logs())
        });
        let Some(name) = differing else { return };
        let (late, out) = (Instant::now() >= until, home.out());
        assert!(!late, "{name} differs at {}: {:#}", out.display(), home.status(DEADLINE));
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until a consumer says of all closed shards that they are finished, and of the others that they are
/// read.
fn all_closed_are_finished(url: &str, home: &Home) {
    let until = Instant::now() + DEADLINE;
    let expected = |shard: &Shard| if shard.closed { "finished" } else { "reading" };
    let expected: Vec<(String, &str)> =
        shards(url, STREAM).iter().map(|shard| (shard.id.clone(), expected(shard))).collect();
    loop {
        let status = home.status(DEADLINE);
        let shards = status["consumers"][0]["shards"].as_array().unwrap();
        let state = |id: &str| {
            shards.iter().find(|shard| shard["shard"] == id).map(|shard| shard["state"].clone())
        };
        if expected.iter().all(|(id, wanted)| state(id).is_some_and(|state| state == *wanted)) {
            return;
        }
        assert!(Instant::now() < until, "not {expected:?}: {status:#}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A shard as the endpoint lists it.
#[derive(Debug)]
struct Shard {
    id: String,
    closed: bool,
    first: u128,
    last: u128,
}

/// Returns all shards, by their hash ranges.
fn shards(url: &str, stream: &str) -> Vec<Shard> {
    let listed = call(url, "ListShards", &json!({ "StreamName": stream }));
    let hash = |shard: &Value, end: &str| -> u128 {
        shard["HashKeyRange"][end].as_str().unwrap().parse().unwrap()
    };
    let shard = |shard: &Value| Shard {
        id: shard["ShardId"].as_str().unwrap().to_owned(),
        closed: shard["SequenceNumberRange"]["EndingSequenceNumber"].is_string(),
        first: hash(shard, "StartingHashKey"),
        last: hash(shard, "EndingHashKey"),
    };
    let mut shards: Vec<Shard> = listed["Shards"].as_array().unwrap().iter().map(shard).collect();
    shards.sort_by_key(|shard| shard.first);
    shards
}

fn open_shards(url: &str, stream: &str) -> Vec<Shard> {
    shards(url, stream).into_iter().filter(|shard| !shard.closed).collect()
}

/// Splits every open shard of a stream in the middle of its range.
pub fn split_all(url: &str, stream: &str) {
    for shard in open_shards(url, stream) {
        let middle = shard.first + (shard.last - shard.first) / 2 + 1;
        let split = json!({
            "StreamName": stream,
            "ShardToSplit": shard.id,
            "NewStartingHashKey": middle.to_string(),
        });
        call(url, "SplitShard", &split);
        wait_active(url, stream);
    }
}

/// Merges the open shards two by two.
fn merge_pairs(url: &str) {
    for pair in open_shards(url, STREAM).chunks_exact(2) {
        let merge = json!({
            "StreamName": STREAM,
            "ShardToMerge": pair[0].id,
            "AdjacentShardToMerge": pair[1].id,
        });
        call(url, "MergeShards", &merge);
        wait_active(url, STREAM);
    }
}

fn wait_active(url: &str, stream: &str) {
    let until = Instant::now() + DEADLINE;
    loop {
        let told = call(url, "DescribeStreamSummary", &json!({ "StreamName": stream }));
        if told["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE" {
            return;
        }
        assert!(Instant::now() < until, "{told:#}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Makes a call that must succeed, signed in form alone: what is at `url` checks no signatures.
fn call(url: &str, operation: &str, body: &Value) -> Value {
    let address = url.strip_prefix("http://").unwrap().trim_end_matches('/');
    let body = body.to_string();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        socket,
        "POST / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: Kinesis_20131202.{operation}\r\n\
         X-Amz-Date: 20261126T000000Z\r\nAuthorization: AWS4-HMAC-SHA256 \
         Credential=AKIDEXAMPLE/20261126/us-east-1/kinesis/aws4_request, SignedHeaders=host, \
         Signature={:064}\r\n\r\n{body}",
        body.len(),
        0,
    )
    .unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.split(' ').nth(1) == Some("200"), "{operation}: {answer}");
    // Of what is sent in chunks, the lines between them say how long each is.
    let is_chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let text: String =
        if is_chunked { rest.split("\r\n").skip(1).step_by(2).collect() } else { rest.to_owned() };
    serde_json::from_str(&text).unwrap_or_default()
}
