//! The metrics of consuming flows.
//!
//! Invariant: a series for each flow, and for each shard that is read by it; a shard that has ended has
//! none any more.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Label, family};
use crate::cost::approximate;
use crate::status::{ConsumerStatus, ShardStatus};

type Read<T, S> = fn(&S) -> T;

/// Name (without `kinetail_` and `_total`), help, and where the number stands.
const COUNTERS: &[(&str, &str, Read<u64, ConsumerStatus>)] = &[
    ("consumed_records", "Records written to files", |flow| flow.totals.records),
    ("consumed_bytes", "Bytes of lines written to files", |flow| flow.totals.bytes),
    ("consumed_lines", "Lines written to files", |flow| flow.totals.lines),
    ("consumed_duplicate_bytes", "Bytes that came again and were not written again", |flow| {
        flow.totals.duplicate_bytes
    }),
    ("consumed_names_refused", "Runs of lines whose source has a name that is refused", |flow| {
        flow.totals.names_refused
    }),
    ("consumed_beyond_max_files", "Runs of lines beyond max_files", |flow| {
        flow.totals.beyond_max_files
    }),
    ("consumed_records_unsplit", "Records that could not be split as they should", |flow| {
        flow.totals.records_unsplit
    }),
    ("reads", "Reads that came off", |flow| sum(flow, |shard| shard.reads)),
    ("reads_failed", "Reads that failed, throttled ones included", |flow| {
        sum(flow, |shard| shard.reads_failed)
    }),
    ("reads_throttled", "Reads that were throttled", |flow| {
        sum(flow, |shard| shard.reads_throttled)
    }),
];

/// As [`COUNTERS`].
const GAUGES: &[(&str, &str, Read<u64, ConsumerStatus>)] = &[
    ("consumer_files", "Files of the consumer", |flow| flow.totals.files),
    ("consumer_problems", "Things that are wrong with the consumer just now", |flow| {
        flow.problems.len() as u64
    }),
    ("mirrored_generations_damaged", "Mirrored files that are not what was received", |flow| {
        flow.totals.generations_damaged
    }),
    ("mirrored_missing_bytes", "Bytes missing in mirrored files that are over", |flow| {
        flow.totals.missing_bytes
    }),
];

fn sum(flow: &ConsumerStatus, of: impl Fn(&ShardStatus) -> u64) -> u64 {
    flow.shards.iter().map(of).sum()
}

/// Writes the metrics of all consuming flows.
pub(super) fn encode(
    consumers: &[ConsumerStatus],
    encoder: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    for &(name, help, read) in COUNTERS {
        let series =
            consumers.iter().map(|flow| (labels(flow).to_vec(), ConstCounter::new(read(flow))));
        family(encoder, name, help, series)?;
    }
    for &(name, help, read) in GAUGES {
        let gauge = |flow| ConstGauge::new(approximate(read(flow)));
        let series = consumers.iter().map(|flow| (labels(flow).to_vec(), gauge(flow)));
        family(encoder, name, help, series)?;
    }
    let behind = consumers.iter().flat_map(|flow| {
        flow.shards.iter().filter_map(|shard| {
            let [name, stream] = labels(flow);
            let behind = approximate(shard.millis_behind_latest?) / 1000.0;
            Some((vec![name, stream, ("shard", &*shard.shard)], ConstGauge::new(behind)))
        })
    });
    family(encoder, "behind_latest_seconds", "How far the shard is behind its tip", behind)
}

fn labels(flow: &ConsumerStatus) -> [Label<'_>; 2] {
    [("flow", &flow.name), ("stream", &flow.stream)]
}

#[cfg(test)]
mod tests {
    use crate::metrics::render;
    use crate::status::{ConsumerStatus, ConsumerTotals, ShardStatus, Status};

    #[test]
    fn a_consumer_has_its_counts_and_each_shard_its_age() {
        let shard = |name: &str, behind| ShardStatus {
            shard: name.to_owned(),
            millis_behind_latest: behind,
            reads: 3,
            ..ShardStatus::default()
        };
        let flow = ConsumerStatus {
            name: "mirror".to_owned(),
            stream: "web".to_owned(),
            shards: vec![shard("one", Some(1500)), shard("two", None)],
            totals: ConsumerTotals { lines: 7, ..ConsumerTotals::default() },
            ..ConsumerStatus::default()
        };
        let text = render(&Status { consumers: vec![flow], ..Status::default() });
        for line in [
            r#"kinetail_consumed_lines_total{flow="mirror",stream="web"} 7"#,
            r#"kinetail_reads_total{flow="mirror",stream="web"} 6"#,
            r#"kinetail_behind_latest_seconds{flow="mirror",stream="web",shard="one"} 1.5"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("two"));
    }
}
