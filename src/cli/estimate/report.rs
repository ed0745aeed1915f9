//! What an estimate says: the shape of `kinetail estimate --json`.
//!
//! Invariant: field names are stable; new ones may be added.

use serde::Serialize;

use crate::cost::{Month, Prices, Usage, approximate};
use crate::estimate::sample::Sample;
use crate::estimate::{Measured, Rate};

/// How fast lines come, and how that is known.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    pub(super) rate: Rate,
    pub(super) source: String,
}

/// One flow.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The flow's name, or `files`.
    pub(super) flow: String,
    /// The files merged.
    pub(super) files: Vec<File>,
    /// Those that were not, and why.
    pub(super) skipped: Vec<Skipped>,
    /// Bytes of the files.
    pub(super) bytes: u64,
    /// Bytes merged: all, or a sample.
    pub(super) sampled_bytes: u64,
    /// Lines merged.
    pub(super) lines: u64,
    /// Lines a second.
    pub(super) lines_per_second: f64,
    /// Bytes a second.
    pub(super) bytes_per_second: f64,
    /// How that is known: `given`, or in words.
    pub(super) rate_source: String,
    /// Where and when the prices hold.
    pub(super) prices: String,
    /// The ways, a line a record first.
    pub(super) ways: Vec<WayReport>,
}

#[derive(Debug, Serialize)]
pub(super) struct File {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) sampled_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Skipped {
    pub(super) path: String,
    pub(super) reason: String,
}

/// One way to merge the lines.
#[derive(Debug, Serialize)]
pub(super) struct WayReport {
    /// What it is called.
    pub(super) way: &'static str,
    /// Records.
    pub(super) records: u64,
    /// Their bytes, partition keys included.
    pub(super) bytes: u64,
    /// The fewest calls that the flow's settings allow.
    pub(super) calls: u64,
    /// PUT payload units.
    pub(super) payload_units: u64,
    /// Bytes that on-demand standard bills.
    pub(super) on_demand_bytes: u64,
    /// Bytes that `on_oversize` leaves out.
    pub(super) skipped_bytes: u64,
    /// Seconds that one shard at its limits needs.
    pub(super) shard_seconds: f64,
    /// Shards that a provisioned stream needs at the rate.
    pub(super) shards: u64,
    /// For how long lines wait for company, on average over their bytes.
    pub(super) waiting_seconds_mean: f64,
    /// The longest that a line waits.
    pub(super) waiting_seconds_most: f64,
    /// Dollars for 30 days.
    pub(super) month: Dollars,
}

/// Dollars for 30 days, by how the stream is billed.
#[derive(Debug, Serialize)]
pub(super) struct Dollars {
    pub(super) provisioned: f64,
    pub(super) provisioned_put: f64,
    pub(super) provisioned_shards: f64,
    pub(super) on_demand: f64,
    pub(super) on_demand_ingest: f64,
    pub(super) on_demand_retrieval: f64,
    pub(super) on_demand_stream: f64,
    pub(super) advantage: f64,
    pub(super) advantage_ingest: f64,
    pub(super) advantage_ingest_exact: f64,
    pub(super) advantage_retrieval: f64,
}

impl Report {
    pub(super) fn new(
        flow: &str,
        sample: &Sample,
        pace: Pace,
        prices: &Prices,
        measured: &[(&'static str, Measured)],
    ) -> Self {
        let (bytes, lines) = (sample.bytes(), sample.lines());
        let seconds = pace.rate.time(bytes, lines).as_secs_f64().max(1e-9);
        let files = sample.files.iter().map(|file| File {
            path: file.path.display().to_string(),
            bytes: file.size,
            sampled_bytes: file.data.len() as u64,
        });
        let skipped = sample.skipped.iter().map(|(path, reason)| Skipped {
            path: path.display().to_string(),
            reason: reason.clone(),
        });
        Self {
            flow: flow.to_owned(),
            files: files.collect(),
            skipped: skipped.collect(),
            bytes: sample.size(),
            sampled_bytes: bytes,
            lines,
            lines_per_second: approximate(lines) / seconds,
            bytes_per_second: approximate(bytes) / seconds,
            rate_source: pace.source,
            prices: prices.as_of.clone(),
            ways: measured.iter().map(|(way, one)| WayReport::new(way, one, prices)).collect(),
        }
    }
}

impl WayReport {
    fn new(way: &'static str, measured: &Measured, prices: &Prices) -> Self {
        let Usage { records, bytes, payload_units, on_demand_bytes } = measured.usage;
        let load = measured.load();
        Self {
            way,
            records,
            bytes,
            calls: measured.calls,
            payload_units,
            on_demand_bytes,
            skipped_bytes: measured.skipped,
            shard_seconds: load.shard_seconds(),
            shards: load.shards(),
            waiting_seconds_mean: measured.waited.as_secs_f64(),
            waiting_seconds_most: measured.waited_most.as_secs_f64(),
            month: Dollars::new(&load.month(prices)),
        }
    }
}

impl Dollars {
    fn new(month: &Month) -> Self {
        let Month { provisioned, on_demand, advantage } = month;
        Self {
            provisioned: provisioned.total(),
            provisioned_put: provisioned.put,
            provisioned_shards: provisioned.shards,
            on_demand: on_demand.total(),
            on_demand_ingest: on_demand.ingest,
            on_demand_retrieval: on_demand.retrieval,
            on_demand_stream: on_demand.stream,
            advantage: advantage.total(),
            advantage_ingest: advantage.ingest,
            advantage_ingest_exact: advantage.ingest_exact,
            advantage_retrieval: advantage.retrieval,
        }
    }
}
