//! Sharing: three consumers on one table of leases, while a producer ships, and what becomes of the lines
//! when consumers are stopped, killed, paused and started again.
//!
//! ```text
//!  writer ──▶ log ──▶ producer ──▶ stream ──▶ consumers 0, 1, 2 ──▶ a directory each ──▶ count
//!                                                  └── leases ──┘
//! ```
//!
//! Invariant: what is judged is the lines in the files. A line that stands in two places must be one that
//! a consumer wrote which was killed or paused, at that time.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::agent::{Agent, Home, shipping};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_mins(2);

/// The shards of the stream.
pub const SHARDS: usize = 12;

/// The consumers that share them.
const CONSUMERS: usize = 3;

/// Until when shards must be divided evenly: what issue and README promise.
const BALANCED: Duration = Duration::from_secs(30);

/// The failover time, the shortest there is but one: much happens in a short time.
pub const FAILOVER: Duration = Duration::from_secs(3);

/// Where it all happens.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The URL of an endpoint that holds the stream `shared`, of [`SHARDS`] shards.
    pub kinesis: &'a str,
    /// The URL of the store of tables.
    pub dynamodb: &'a str,
    /// The name of the table, which is made.
    pub table: &'a str,
    /// The consumer that the stream pushes to; `null` where it is asked.
    pub fan_out: &'a str,
}

/// What happened, for whoever wants figures.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How long it took until the shards were divided evenly.
    pub balanced: Duration,
    /// Lines that were written.
    pub lines: usize,
    /// Lines that stand in more than one place.
    pub repeated: usize,
    /// Consumers that were stopped, killed and paused.
    pub stops: [usize; 3],
}

/// A consumer in a home of its own.
struct Consumer {
    home: Home,
    agent: Option<Agent>,
}

/// What a consumer may have left off in the middle of.
struct Break {
    consumer: usize,
    at: u64,
}

/// Returns the configuration of the producer.
pub fn produce() -> String {
    let spread = "partition_key: random
    merge: { max_bytes: 2 KB, max_age: 50 ms }
    ship: { joined_bytes: 0 }";
    shipping("shared", spread)
}

/// Returns the configuration of a consumer; only one makes the table.
pub fn consume(place: &Place<'_>) -> String {
    let (table, dynamodb, failover) = (place.table, place.dynamodb, FAILOVER.as_secs());
    let fan_out = place.fan_out;
    format!(
        "state_dir: {{state}}
aws: {{ endpoint_url: '{{endpoint}}', region: us-east-1 }}
checkpoint_interval: 200 ms
consume:
  - name: web
    stream: shared
    directory: {{out}}
    coordinate:
      dynamodb_table: {table}
      create_table: true
      failover: {failover} s
      endpoint_url: '{dynamodb}'
    read: {{ poll_interval: 200 ms, backoff_max: 500 ms }}
    fan_out: {fan_out}
"
    )
}

/// Runs it all for at least `time`, with so many things that happen to consumers at least.
pub fn share(place: &Place<'_>, seed: u64, time: Duration, events: usize) -> Outcome {
    eprintln!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let source = Home::new(place.kinesis, &produce());
    let writer = Writer::start(source.logs().join("app.log"));
    let producer = source.start();
    let mut consumers: Vec<Consumer> = (0..CONSUMERS)
        .map(|_| Consumer { home: Home::new(place.kinesis, &consume(place)), agent: None })
        .collect();
    let started = Instant::now();
    for consumer in &mut consumers {
        consumer.start();
    }
    wait("every shard is read by one, and each reads as many", &consumers, |reading| {
        reading.iter().all(|shards| shards.len() == SHARDS / CONSUMERS)
            && each_by_one(reading).len() == SHARDS
    });
    let mut outcome = Outcome { balanced: started.elapsed(), ..Outcome::default() };
    assert!(outcome.balanced < BALANCED, "balanced after {:?}", outcome.balanced);
    let mut breaks = Vec::new();
    let mut happened = 0;
    while started.elapsed() < time || happened < events {
        thread::sleep(Duration::from_millis(rng.u64(200..2 * 3_000)));
        let index = rng.usize(1..CONSUMERS);
        // Each of the three at least once: the first events are in turn.
        let kind = if happened < 3 { happened } else { rng.usize(..3) };
        outcome.stops[kind] += 1;
        consumers[index].suffer(index, kind, &mut rng, &mut breaks);
        happened += 1;
    }
    wait("every shard is read by one", &consumers, |reading| each_by_one(reading).len() == SHARDS);
    let lines = writer.stop();
    end(producer, || source.status(DEADLINE)["flows"][0]["totals"]["acknowledged_lines"] == lines);
    let until = Instant::now() + DEADLINE;
    while written(&consumers).len() < lines {
        let found = written(&consumers).len();
        assert!(Instant::now() < until, "{found} of {lines} lines\n{:#}", statuses(&consumers));
        thread::sleep(Duration::from_millis(100));
    }
    for consumer in &mut consumers {
        consumer.stop();
    }
    outcome.lines = lines;
    outcome.repeated = judge(&consumers, lines, &breaks);
    eprintln!("{outcome:?}");
    outcome
}

impl Consumer {
    fn start(&mut self) {
        let agent = self.home.start();
        // Before that line it has not taken over the signals yet, and would end by one.
        agent.wait_for_stderr("it runs", DEADLINE, |text| text.contains("running"));
        self.agent = Some(agent);
    }

    fn stop(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.terminate();
        let finished = agent.wait(DEADLINE);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
    }

    /// Stops it in order, kills it, or pauses it for longer than the failover time; then it runs again.
    fn suffer(
        &mut self,
        index: usize,
        kind: usize,
        rng: &mut fastrand::Rng,
        breaks: &mut Vec<Break>,
    ) {
        let pause = Duration::from_millis(rng.u64(..5_000));
        match kind {
            0 => {
                self.stop();
                thread::sleep(pause);
                self.start();
            }
            1 => {
                breaks.push(Break { consumer: index, at: now() });
                drop(self.agent.take().unwrap().kill());
                thread::sleep(pause);
                self.start();
            }
            _ => {
                let agent = self.agent.as_ref().unwrap();
                breaks.push(Break { consumer: index, at: now() });
                agent.signal(Signal::STOP);
                thread::sleep(FAILOVER + pause);
                agent.signal(Signal::CONT);
            }
        }
    }

    fn status(&self) -> Value {
        self.home.status(DEADLINE)
    }

    /// Returns the shards that it reads.
    fn reading(&self) -> Vec<String> {
        let status = self.status();
        let shards = status["consumers"][0]["shards"].as_array().into_iter().flatten();
        let read = shards.filter(|shard| shard["state"] == "reading");
        read.map(|shard| shard["shard"].as_str().unwrap().to_owned()).collect()
    }
}

fn statuses(consumers: &[Consumer]) -> Value {
    consumers.iter().map(Consumer::status).collect()
}

/// Returns the shards that one of them reads and no other.
fn each_by_one(reading: &[Vec<String>]) -> Vec<&String> {
    let mut readers: BTreeMap<&String, usize> = BTreeMap::new();
    for shard in reading.iter().flatten() {
        *readers.entry(shard).or_default() += 1;
    }
    readers.into_iter().filter(|(_, count)| *count == 1).map(|(shard, _)| shard).collect()
}

/// Waits until what the consumers read satisfies the condition.
fn wait(claim: &str, consumers: &[Consumer], condition: impl Fn(&[Vec<String>]) -> bool) {
    let end = Instant::now() + DEADLINE;
    loop {
        let reading: Vec<Vec<String>> = consumers.iter().map(Consumer::reading).collect();
        if condition(&reading) {
            return;
        }
        let late = Instant::now() >= end;
        assert!(!late, "not within {DEADLINE:?}: {claim}: {reading:?}\n{:#}", statuses(consumers));
        thread::sleep(Duration::from_millis(100));
    }
}

/// Ends an agent in order once the condition holds.
pub fn end(agent: Agent, condition: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "not all is acknowledged");
        thread::sleep(Duration::from_millis(50));
    }
    agent.terminate();
    assert_eq!(agent.wait(DEADLINE).code(), Some(0));
}

/// Returns every line in the files of the consumers, and how often it stands in those of each.
fn written(consumers: &[Consumer]) -> BTreeMap<u64, [usize; CONSUMERS]> {
    let mut lines: BTreeMap<u64, [usize; CONSUMERS]> = BTreeMap::new();
    for (index, consumer) in consumers.iter().enumerate() {
        for file in files(&consumer.home.out()) {
            // While it is appended to its end may be torn.
            let text = fs::read_to_string(file).unwrap();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            for line in whole.lines() {
                let number = line.split(' ').next().unwrap().parse().unwrap();
                lines.entry(number).or_default()[index] += 1;
            }
        }
    }
    lines
}

/// Returns the files beneath a directory.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Every line stands there; one that stands there more than once was written by a consumer that was killed
/// or paused, and not after that. Returns how many do.
fn judge(consumers: &[Consumer], lines: usize, breaks: &[Break]) -> usize {
    let written = written(consumers);
    assert_eq!(written.len(), lines);
    let times = times(consumers);
    let mut repeated = 0;
    for (number, places) in &written {
        if places.iter().sum::<usize>() == 1 {
            continue;
        }
        repeated += 1;
        let time = times[number];
        let excused = breaks.iter().any(|it| places[it.consumer] > 0 && time <= it.at);
        assert!(excused, "line {number} of {time} stands there {places:?} times");
        // One consumer remembers what it wrote.
        assert!(places.iter().all(|count| *count <= 1), "line {number}: {places:?}");
    }
    repeated
}

/// Returns when each line was written to the log.
fn times(consumers: &[Consumer]) -> BTreeMap<u64, u64> {
    let texts = consumers.iter().flat_map(|consumer| files(&consumer.home.out()));
    let texts: Vec<String> = texts.map(|file| fs::read_to_string(file).unwrap()).collect();
    let parse = |line: &str| {
        let mut words = line.split(' ').map(|word| word.parse().ok());
        Some((words.next()??, words.next()??))
    };
    texts.iter().flat_map(|text| text.lines().map(|line| parse(line).unwrap())).collect()
}

/// Writes numbered lines with the time, until it is told to stop.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Writer {
    pub fn start(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut file = fs::File::create(path).unwrap();
            let mut number = 0;
            while !theirs.load(Ordering::Relaxed) {
                // Lines of some 100 bytes, 500 a second.
                for _ in 0..10 {
                    writeln!(file, "{number} {} {}", now(), "x".repeat(80)).unwrap();
                    number += 1;
                }
                thread::sleep(Duration::from_millis(20));
            }
            number
        });
        Self { stop, thread }
    }

    /// Returns how many lines there are.
    pub fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
