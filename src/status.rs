//! What an agent says of itself: the shape of `kinetail status --json`, and the source of the metrics.
//!
//! Invariant: for every file, `read_bytes` = `acknowledged_bytes` + `dead_lettered_bytes` +
//! `skipped_bytes` + `in_flight_bytes`. Field names are stable; new ones may be added.

use serde::{Deserialize, Serialize};

use crate::cost::Prices;

/// The whole answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Status {
    /// True where a running agent answered; false where the state directory was read.
    pub running: bool,
    /// The agent's version.
    pub version: String,
    /// Its process id.
    pub pid: Option<u32>,
    /// Seconds since it started.
    pub uptime_seconds: Option<u64>,
    /// The state directory.
    pub state_dir: String,
    /// Whether the last commit of positions went through; the error where not.
    pub checkpoint_error: Option<String>,
    /// Seconds since the last commit that went through.
    pub checkpoint_age_seconds: Option<f64>,
    /// Where and when the prices hold that what was sent is reckoned by; empty where none runs.
    #[serde(default)]
    pub prices: String,
    /// The flows, in the order of the configuration.
    pub flows: Vec<FlowStatus>,
    /// The consuming flows, in the order of the configuration.
    #[serde(default)]
    pub consumers: Vec<ConsumerStatus>,
}

impl Status {
    /// Returns everything that is wrong just now, in words, with the flow it concerns.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let checkpoint =
            self.checkpoint_error.iter().map(|error| format!("positions are not saved: {error}"));
        let flows = self.flows.iter().flat_map(|flow| {
            flow.problems.iter().map(|problem| format!("{}: {problem}", flow.name))
        });
        let consumers = self.consumers.iter().flat_map(|flow| {
            flow.problems.iter().map(|problem| format!("{}: {problem}", flow.name))
        });
        checkpoint.chain(flows).chain(consumers).collect()
    }
}

/// One flow.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct FlowStatus {
    /// Its name.
    pub name: String,
    /// Its stream.
    pub stream: String,
    /// How changes are noticed: `inotify` or `polling`.
    pub watching: String,
    /// What is wrong just now, in words; empty where all is well.
    pub problems: Vec<String>,
    /// The files followed, those with something left to settle and those that lost something, by path.
    pub files: Vec<FileStatus>,
    /// The sums over all files, including those no longer listed.
    pub totals: Totals,
    /// Files that came, were written, and went before they could be opened, this run of the agent.
    #[serde(default)]
    pub missed_files: u64,
    /// What was sent.
    pub sent: Sent,
    /// What that costs.
    #[serde(default)]
    pub cost: Cost,
}

/// One file generation.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct FileStatus {
    /// Its path; bytes that are not UTF-8 are shown as U+FFFD.
    pub path: String,
    /// Its number.
    pub key: u64,
    /// Everything before this offset is settled.
    pub offset: u64,
    /// Its size, as last seen.
    pub size: u64,
    /// `size` − `offset`.
    pub lag_bytes: u64,
    /// Read since it was found.
    pub read_bytes: u64,
    /// Accepted by the stream.
    pub acknowledged_bytes: u64,
    /// Read, and neither accepted nor given up yet.
    pub in_flight_bytes: u64,
    /// Put into the dead-letter store.
    pub dead_lettered_bytes: u64,
    /// Left out because a setting asks for it.
    pub skipped_bytes: u64,
    /// Unreadable before they were read.
    pub lost_bytes: u64,
    /// Lines accepted.
    pub acknowledged_lines: u64,
    /// `following`, `rotated` (renamed or deleted, being read to its end) or `ended`.
    pub state: String,
}

/// Sums of bytes over the files of a flow, this run of the agent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Totals {
    /// Read.
    pub read_bytes: u64,
    /// Accepted.
    pub acknowledged_bytes: u64,
    /// Lines accepted.
    pub acknowledged_lines: u64,
    /// In flight.
    pub in_flight_bytes: u64,
    /// Dead-lettered.
    pub dead_lettered_bytes: u64,
    /// Skipped by a setting.
    pub skipped_bytes: u64,
    /// Lost.
    pub lost_bytes: u64,
}

/// What was sent to a stream, this run of the agent.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Sent {
    /// PutRecords calls made.
    pub calls: u64,
    /// Calls that failed as a whole (refused, throttled, unavailable, unknown).
    pub calls_failed: u64,
    /// Records accepted.
    pub records: u64,
    /// Bytes accepted, partition keys included.
    pub bytes: u64,
    /// Records refused for throughput.
    pub records_throttled: u64,
    /// Records refused for another reason and sent again.
    pub records_failed: u64,
    /// Records put into the dead-letter store.
    pub records_dead_lettered: u64,
    /// PUT payload units of the accepted records (25 KB each, rounded up a record).
    pub payload_units: u64,
    /// The same lines sent one a record would have cost this many units.
    pub payload_units_unmerged: u64,
    /// Bytes that an on-demand stream bills for the accepted records (each rounded up to 1,024).
    #[serde(default)]
    pub on_demand_bytes: u64,
    /// The same lines sent one a record would have been billed as this many bytes. Lines of one record
    /// are taken to be of equal length.
    #[serde(default)]
    pub on_demand_bytes_unmerged: u64,
    /// The fewest calls that could have carried the same lines one a record.
    #[serde(default)]
    pub calls_unmerged: u64,
    /// How full the payload units are that the accepted records cost, 0 to 1.
    pub fill: f64,
    /// Calls in flight now.
    pub in_flight: u64,
    /// The calls in flight that are allowed now (adapts to throttling).
    pub window: u64,
    /// The last error, in the service's words.
    pub last_error: Option<String>,
    /// Seconds since the last record was accepted.
    pub last_accepted_seconds: Option<f64>,
}

impl Sent {
    /// Returns what this costs.
    #[must_use]
    pub fn cost(&self, prices: &Prices) -> Cost {
        Cost {
            provisioned_dollars: prices.of_payload_units(self.payload_units),
            provisioned_dollars_unmerged: prices.of_payload_units(self.payload_units_unmerged),
            on_demand_dollars: prices.of_on_demand_bytes(self.on_demand_bytes),
            on_demand_dollars_unmerged: prices.of_on_demand_bytes(self.on_demand_bytes_unmerged),
        }
    }
}

/// What was sent to a stream costs, this run of the agent, in dollars: by what is written alone, without
/// the hours of shards or streams. Which of the two it is depends on the stream's mode.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Cost {
    /// PUT payload units of a provisioned stream.
    pub provisioned_dollars: f64,
    /// The same lines sent one a record would have cost this.
    pub provisioned_dollars_unmerged: f64,
    /// Ingest of a stream on demand.
    pub on_demand_dollars: f64,
    /// The same lines sent one a record would have cost this.
    pub on_demand_dollars_unmerged: f64,
}

/// One consuming flow.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// Its stream.
    pub stream: String,
    /// Where it writes.
    pub directory: String,
    /// `append` or `mirror`.
    pub layout: String,
    /// What is wrong just now, in words; empty where all is well.
    pub problems: Vec<String>,
    /// The shards, by name.
    pub shards: Vec<ShardStatus>,
    /// The sums over all shards.
    pub totals: ConsumerTotals,
}

/// One shard; counts are of this run of the agent, and of what is committed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct ShardStatus {
    /// Its name.
    pub shard: String,
    /// `reading`, `waiting` (for its parents' ends, or read by another agent) or `finished`.
    pub state: String,
    /// The last record that is written and committed.
    pub sequence_number: Option<String>,
    /// How far the last read was behind the tip of the shard (`MillisBehindLatest`).
    pub millis_behind_latest: Option<u64>,
    /// Records written.
    pub records: u64,
    /// Bytes of lines written.
    pub bytes: u64,
    /// Lines written.
    pub lines: u64,
    /// Runs of lines whose source has a name that is refused; they went to `other_path`.
    pub names_refused: u64,
    /// Reads that came off.
    pub reads: u64,
    /// Reads that failed, throttled ones included.
    pub reads_failed: u64,
    /// Reads that were throttled.
    pub reads_throttled: u64,
    /// The last error, while reading fails.
    pub last_error: Option<String>,
}

/// What a consuming flow has written, this run of the agent.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct ConsumerTotals {
    /// Records.
    pub records: u64,
    /// Bytes of lines.
    pub bytes: u64,
    /// Lines.
    pub lines: u64,
    /// Bytes that had come before, and were not written again.
    pub duplicate_bytes: u64,
    /// Runs of lines whose source has a name that is refused; they went to `other_path`.
    pub names_refused: u64,
    /// Runs of lines beyond `write.max_files`; they went to `other_path`.
    pub beyond_max_files: u64,
    /// Records that were KPL aggregates.
    pub records_kpl: u64,
    /// Records that were compressed as a whole.
    pub records_compressed: u64,
    /// Records that could not be split as they should have been; each was written as one line.
    pub records_unsplit: u64,
    /// Files there are.
    pub files: u64,
    /// Mirrored generations.
    pub generations: u64,
    /// Those that are over, and whose files were read again and found to be what was received.
    pub generations_verified: u64,
    /// Those that are over, and whose files were found to be something else.
    pub generations_damaged: u64,
    /// Bytes missing in generations that are over.
    pub missing_bytes: u64,
}
