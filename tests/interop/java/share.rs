//! A worker of the KCL 2 and a consumer of ours on one table of leases: the shards are divided between the two,
//! and either may die.
//!
//! Invariant: what is judged is the lines, in our files and in what the worker was handed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::environment;
use crate::producer_suite::Reader;
use crate::sharing::{self, FAILOVER, Place, SHARDS, Writer};
use crate::support::agent::{Agent, Home};
use crate::{DEADLINE, aggregates, target};

/// What the worker told.
#[derive(Debug, Default)]
struct Told {
    /// How often it has begun to read each shard, and not yet told that it has lost it: one that is lost and
    /// taken again may be begun before the end is told.
    shards: BTreeMap<String, i32>,
    lines: Vec<u64>,
}

/// A worker of the KCL, which dies with this.
struct Worker {
    child: Child,
    told: Arc<Mutex<Told>>,
    listening: Option<thread::JoinHandle<()>>,
}

impl Worker {
    fn start(place: &Place<'_>, name: &str) -> Self {
        let failover = FAILOVER.as_millis().to_string();
        let mut child = Command::new("java")
            .args(["-cp", &environment("KINETAIL_KCL2_CLASSPATH"), "Share"])
            .args([place.kinesis, place.dynamodb, "shared", place.table, name, &failover])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let told = Arc::new(Mutex::new(Told::default()));
        let (stdout, theirs) = (child.stdout.take().unwrap(), Arc::clone(&told));
        let listening = Some(thread::spawn(move || listen(stdout, &theirs)));
        Self { child, told, listening }
    }

    fn shards(&self) -> usize {
        self.told.lock().unwrap().shards.values().filter(|times| **times > 0).count()
    }

    fn lines(&self) -> Vec<u64> {
        self.told.lock().unwrap().lines.clone()
    }

    /// Kills it; returns the lines that it was handed.
    fn kill(mut self) -> Vec<u64> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.listening.take().unwrap().join().unwrap();
        self.lines()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Where it was killed already there is nobody any more.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn listen(stdout: ChildStdout, told: &Mutex<Told>) {
    let mut stdout = BufReader::new(stdout);
    let mut line = String::new();
    // A line that is torn was written by a worker that was killed under way, and is not checkpointed.
    while stdout.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
        let mut told = told.lock().unwrap();
        match line.trim_end().split_once(' ') {
            Some(("+", shard)) => *told.shards.entry(shard.to_owned()).or_default() += 1,
            Some(("-", shard)) => *told.shards.entry(shard.to_owned()).or_default() -= 1,
            Some(("=", data)) => told.lines.extend(numbers(&aggregates::decoded(data))),
            _ => panic!("{line}"),
        }
        drop(told);
        line.clear();
    }
}

/// Returns the numbers that whole lines begin with.
fn numbers(text: &[u8]) -> Vec<u64> {
    let whole = memchr::memrchr(b'\n', text).map_or(0, |end| end + 1);
    let lines = std::str::from_utf8(&text[..whole]).unwrap().lines();
    lines.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

fn ours(home: &Home) -> Vec<u64> {
    let files = sharing::files(&home.out()).into_iter();
    files.flat_map(|file| numbers(&fs::read(file).unwrap())).collect()
}

/// Returns how many shards our consumer reads.
fn reading(home: &Home) -> usize {
    let status = home.status(DEADLINE);
    let shards = status["consumers"][0]["shards"].as_array().into_iter().flatten();
    shards.filter(|shard| shard["state"] == "reading").count()
}

/// How long the worker may take: it looks for leases every six seconds, and takes one at a time from others.
const PATIENCE: Duration = Duration::from_mins(4);

fn wait(claim: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{claim}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{claim}: after {:?}", begun.elapsed());
}

fn start(home: &Home) -> Agent {
    let agent = home.start();
    agent.wait_for_stderr("it runs", DEADLINE, |text| text.contains("running"));
    agent
}

/// "shards are divided between the two, either may die, and no line is lost".
#[test]
fn java_kcl_2_shares_a_table_with_a_consumer() {
    let target = target("KINETAIL_KINESIS_LOCAL", "");
    drop(Reader::create_of(&target, "shared", u32::try_from(SHARDS).unwrap()));
    let dynamodb = environment("KINETAIL_DYNALITE");
    let place = Place {
        kinesis: &target.url,
        dynamodb: &dynamodb,
        table: "shared-with-the-kcl",
        fan_out: "null",
    };
    let source = Home::new(&target.url, &sharing::produce());
    let writer = Writer::start(source.logs().join("app.log"));
    let producer = source.start();
    let home = Home::new(&target.url, &sharing::consume(&place));
    let consumer = start(&home);
    wait("the consumer reads all shards", || reading(&home) == SHARDS);

    let worker = Worker::start(&place, "first");
    let divided = |worker: &Worker| worker.shards() == SHARDS / 2 && reading(&home) == SHARDS / 2;
    wait("the two read half of the shards each", || divided(&worker));
    let mut handed = worker.kill();
    wait("the consumer reads those of the worker that died", || reading(&home) == SHARDS);

    let worker = Worker::start(&place, "second");
    wait("the two read half of the shards each", || divided(&worker));
    consumer.kill();
    wait("the worker reads those of the consumer that died", || worker.shards() == SHARDS);
    let before = worker.lines().len();
    wait("the worker goes on", || worker.lines().len() > before + 500);
    let consumer = start(&home);
    wait("the two read half of the shards each", || divided(&worker));

    let lines = writer.stop();
    sharing::end(producer, || {
        source.status(DEADLINE)["flows"][0]["totals"]["acknowledged_lines"] == lines
    });
    let found = || -> BTreeSet<u64> {
        [handed.clone(), worker.lines(), ours(&home)].concat().into_iter().collect()
    };
    wait("every line was written or handed on", || found().len() == lines);
    consumer.terminate();
    assert_eq!(consumer.wait(DEADLINE).code(), Some(0));
    handed.extend(worker.kill());
    let ours = ours(&home);
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    for line in &ours {
        *times.entry(*line).or_default() += 1;
    }
    assert!(times.values().all(|times| *times == 1), "the consumer wrote a line twice");
    for line in &handed {
        *times.entry(*line).or_default() += 1;
    }
    assert_eq!(times.len(), lines);
    let repeated = times.values().filter(|times| **times > 1).count();
    eprintln!("{lines} lines: {} ours, {} handed, {repeated} repeated", ours.len(), handed.len());
    assert!(!ours.is_empty() && !handed.is_empty());
}
