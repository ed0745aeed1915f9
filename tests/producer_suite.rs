//! The producer's suite: the same against any endpoint that speaks Kinesis, whoever wrote it.
//!
//! Each case ships a log with the real binary, rotates it in the middle and restarts the agent in the
//! middle, reads the stream back shard by shard, and lets the oracle judge what stands in it.
//!
//! ```text
//!  writer ──▶ app.log, app.log.1 ──▶ agent, agent again ──▶ endpoint ──▶ Kinesis::records ──▶ oracle
//! ```
//!
//! Invariant: the volumes are small (a megabyte a case): the slowest endpoint takes 2 MiB a second.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kinetail::config::Aws;
use kinetail::stream::Stream;
use kinetail::stream::kinesis::Kinesis;

use crate::support::agent::Home;
use crate::support::oracle::{Allowance, Layout, Oracle, Order, Report, Shape};
use crate::support::writer::{LogWriter, Pace};

/// How long anything may take before a test fails; an endpoint may be slow.
const DEADLINE: Duration = Duration::from_secs(90);
/// Shards of each stream: as many as make a difference.
const SHARDS: u32 = 2;
/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What an endpoint can do.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its URL.
    pub url: String,
    /// Settings of the flow that the endpoint needs, one a line.
    pub settings: &'static str,
}

/// A configuration, and what it makes of lines.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, and that of its stream.
    pub name: &'static str,
    /// The settings of its flow, one a line.
    pub settings: &'static str,
    /// What the lines look like.
    pub shape: Shape,
    /// How its records hold them.
    pub layout: Layout,
    /// In which order they come.
    pub order: Order,
    /// Lines in all.
    pub lines: u64,
    /// The most lines in a record.
    pub lines_max: usize,
}

/// Returns every configuration of the suite.
#[must_use]
pub fn cases() -> Vec<Case> {
    let seeds_consumers = Layout::Delimited(b"#-#".to_vec());
    vec![
        Case {
            name: "lines-by-file",
            settings: "",
            shape: Shape::Wild,
            layout: Layout::Slices,
            order: Order::WithinFile,
            lines: 2_000,
            lines_max: usize::MAX,
        },
        Case {
            name: "lines-at-random",
            settings: "partition_key: random",
            shape: Shape::Plain,
            layout: Layout::Slices,
            order: Order::Any,
            lines: 4_000,
            lines_max: usize::MAX,
        },
        Case {
            name: "ten-lines-delimited",
            settings: "partition_key: random\nmerge: { delimiter: \"#-#\", max_lines: 10 }",
            shape: Shape::Plain,
            layout: seeds_consumers,
            order: Order::Any,
            lines: 1_000,
            lines_max: 10,
        },
        Case {
            name: "json-arrays",
            settings: "merge: { format: json_array }",
            shape: Shape::Json,
            layout: Layout::JsonArray,
            order: Order::WithinFile,
            lines: 2_000,
            lines_max: usize::MAX,
        },
        Case {
            name: "a-line-a-record",
            settings: "partition_key: { json_field: id }\nmerge: { format: none }",
            shape: Shape::Json,
            layout: Layout::Single,
            order: Order::Any,
            lines: 400,
            lines_max: 1,
        },
    ]
}

/// Runs one case and returns its stream. Panics where a line is lost, comes twice, is damaged or out
/// of order.
pub fn run(target: &Target, case: &Case) -> Reader {
    let stream = Reader::create(target, case.name);
    let home = Home::new(&target.url, &template(target, case));
    let oracle = Oracle::new(0x5eed, case.shape);
    let path = home.logs().join("app.log");
    let pace = |lines| Pace { lines_per_second: Some(4_000), lines: Some(lines) };

    let agent = home.start();
    let writer = LogWriter::start(&path, oracle.minter(), pace(case.lines / 2));
    writer.rotate_by_rename(&home.logs().join("app.log.1"), case.lines / 4);
    drop(writer.finish());
    // Before that line it has not taken over the signals yet, and would end by this one.
    agent.wait_for_stderr("it runs", DEADLINE, |text| text.contains("running"));
    agent.terminate();
    assert_eq!(agent.wait(DEADLINE).code(), Some(0), "{}: it drains and ends", case.name);
    // Another writer: it appends to the same file, and is judged for itself.
    let writer = LogWriter::start(&path, oracle.minter(), pace(case.lines - case.lines / 2));
    let agent = home.start();
    drop(writer.finish());

    let (records, report) = stream.read_until_all(&oracle, &case.layout, case.order);
    agent.terminate();
    let finished = agent.wait(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{}: {finished:?}", case.name);
    assert_eq!(report.clone().check(Allowance::default()), Ok(report), "{}", case.name);
    check_sizes(case, oracle.lines(), &records);
    // Nothing came after all had come.
    let (_, report) = stream.read_until_all(&oracle, &case.layout, case.order);
    report.assert_exactly_once();
    stream
}

/// Records hold as many of the `lines` as they may, and no more: merging is what the agent is for. A
/// writer that is rotated late writes more of them than it was asked for.
fn check_sizes(case: &Case, lines: u64, records: &[Bytes]) {
    let mean = usize::try_from(lines).unwrap() / records.len();
    let most = case.lines_max.min(20);
    assert!(mean * 2 >= most, "{}: {} records, {mean} lines each", case.name, records.len());
    if let Layout::Delimited(delimiter) = &case.layout {
        for record in records {
            let lines = memchr::memmem::find_iter(record, delimiter).count() + 1;
            // A line that holds the delimiter itself is a record of its own.
            assert!(
                lines <= case.lines_max || record.starts_with(b"0:") || record.starts_with(b"1:")
            );
        }
    }
    let longest = records.iter().map(Bytes::len).max().unwrap();
    let most = if case.layout == Layout::Slices { 500_000 } else { 25_000 };
    assert!(longest <= most, "{}: a record of {longest} bytes", case.name);
}

fn template(target: &Target, case: &Case) -> String {
    let settings = case.settings.lines().chain(target.settings.lines());
    let settings = settings.fold(String::new(), |all, line| all + "    " + line + "\n");
    format!(
        r#"
state_dir: {{state}}
checkpoint_interval: 100 ms
drain_deadline: 60 s
aws: {{ region: us-east-1, endpoint_url: "{{endpoint}}" }}
produce:
  - name: {name}
    stream: {name}
    files: ["{{logs}}/app.log*"]
{settings}"#,
        name = case.name,
    )
}

/// A stream that is made and read.
#[derive(Debug)]
pub struct Reader {
    runtime: tokio::runtime::Runtime,
    stream: Kinesis,
}

impl Reader {
    /// Makes a stream of two shards and waits until it can be used.
    #[must_use]
    pub fn create(target: &Target, name: &str) -> Self {
        Self::create_of(target, name, SHARDS)
    }

    /// Makes a stream of so many shards and waits until it can be used.
    #[must_use]
    pub fn create_of(target: &Target, name: &str, shards: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let aws = Aws {
            region: Some("us-east-1".to_owned()),
            endpoint_url: Some(target.url.clone()),
            profile: None,
            assume_role: None,
        };
        let stream = runtime.block_on(async {
            let stream = Kinesis::connect(&aws, name, TIMEOUT).await;
            stream.create_stream(shards).await.unwrap();
            stream.wait_active(Instant::now() + DEADLINE).await.unwrap();
            let described = stream.describe().await.unwrap();
            assert_eq!(described.open_shards, Some(shards), "{described:?}");
            stream
        });
        Self { runtime, stream }
    }

    /// Returns all records with their sequence numbers, one list a shard.
    #[must_use]
    pub fn read(&self) -> Vec<Vec<(String, Bytes)>> {
        self.runtime.block_on(async {
            let mut all = Vec::new();
            for shard in self.stream.shards().await.unwrap() {
                let (mut records, mut last) = (Vec::new(), None);
                loop {
                    let page = self.stream.records(&shard, last.as_deref()).await.unwrap();
                    let read = page.records.into_iter();
                    records.extend(
                        read.map(|record| (record.sequence_number.to_string(), record.data)),
                    );
                    last = page.last;
                    if page.caught_up {
                        break;
                    }
                }
                all.push(records);
            }
            all
        })
    }

    /// Reads until every line is there, and judges what is.
    fn read_until_all(
        &self,
        oracle: &Oracle,
        layout: &Layout,
        order: Order,
    ) -> (Vec<Bytes>, Report) {
        let end = Instant::now() + DEADLINE;
        loop {
            let records = self.read().into_iter().flatten().map(|(_, data)| data);
            let records = records.collect::<Vec<_>>();
            let mut judge = oracle.judge(layout.clone(), order);
            for data in &records {
                judge.record(data);
            }
            let report = judge.finish();
            if report.arrived >= oracle.lines() || Instant::now() >= end {
                return (records, report);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
