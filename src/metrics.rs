//! Metrics: the agent's [`Status`] as Prometheus reads it (the `OpenMetrics` text).
//!
//! Invariant: the number of series is bounded by the configuration, not by what happens. Series are
//! labelled by flow and stream; files come and go with every rotation, so there is a series for a
//! file only where bytes of it were lost, and at most [`LOST_FILES_MAX`] of them a flow. Everything
//! else about single files is in `kinetail status --json`.

mod consumers;
pub mod server;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::cost::approximate;
use crate::status::{FlowStatus, Status};

/// The most files of a flow that have a series of their own, those that lost most.
pub const LOST_FILES_MAX: usize = 64;

/// Returns the metrics of `status`.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut registry = Registry::with_prefix("kinetail");
    registry.register_collector(Box::new(Exposition(status.clone())));
    let mut out = String::new();
    match text::encode(&mut out, &registry) {
        Ok(()) => out,
        // Writing into a String does not fail; a truncated answer must not be taken for a whole
        // one.
        Err(fmt::Error) => String::new(),
    }
}

type Read<T> = fn(&FlowStatus) -> T;

/// Name (without `kinetail_` and `_total`), help, and where the number stands.
const COUNTERS: &[(&str, &str, Read<u64>)] = &[
    ("read_bytes", "Bytes read from files", |flow| flow.totals.read_bytes),
    ("acknowledged_bytes", "Bytes of lines accepted by the stream", |flow| {
        flow.totals.acknowledged_bytes
    }),
    ("acknowledged_lines", "Lines accepted by the stream", |flow| flow.totals.acknowledged_lines),
    ("dead_lettered_bytes", "Bytes put into the dead-letter store", |flow| {
        flow.totals.dead_lettered_bytes
    }),
    ("skipped_bytes", "Bytes left out because a setting asks for it", |flow| {
        flow.totals.skipped_bytes
    }),
    ("lost_bytes", "Bytes gone before anybody could read them", |flow| flow.totals.lost_bytes),
    ("missed_files", "Files gone before anybody could open them", |flow| flow.missed_files),
    ("calls", "PutRecords calls made", |flow| flow.sent.calls),
    ("calls_failed", "PutRecords calls that failed as a whole", |flow| flow.sent.calls_failed),
    ("records", "Records accepted", |flow| flow.sent.records),
    ("sent_bytes", "Bytes of records accepted, partition keys included", |flow| flow.sent.bytes),
    ("records_throttled", "Records refused for throughput", |flow| flow.sent.records_throttled),
    ("records_failed", "Records refused for another reason and sent again", |flow| {
        flow.sent.records_failed
    }),
    ("records_dead_lettered", "Records put into the dead-letter store", |flow| {
        flow.sent.records_dead_lettered
    }),
    ("payload_units", "PUT payload units of the records accepted", |flow| flow.sent.payload_units),
    ("payload_units_unmerged", "What the same lines would have cost one a record", |flow| {
        flow.sent.payload_units_unmerged
    }),
    ("on_demand_bytes", "Bytes billed on demand for the records accepted", |flow| {
        flow.sent.on_demand_bytes
    }),
    ("on_demand_bytes_unmerged", "Bytes billed on demand of the same lines one a record", |flow| {
        flow.sent.on_demand_bytes_unmerged
    }),
    ("calls_unmerged", "The fewest calls for the same lines one a record", |flow| {
        flow.sent.calls_unmerged
    }),
];

/// As [`COUNTERS`]: what was sent, in dollars at the configured prices.
const DOLLARS: &[(&str, &str, Read<f64>)] = &[
    (
        "provisioned_dollars",
        "Dollars for the payload units, if the stream is provisioned",
        |flow| flow.cost.provisioned_dollars,
    ),
    ("provisioned_dollars_unmerged", "The same for the same lines one a record", |flow| {
        flow.cost.provisioned_dollars_unmerged
    }),
    ("on_demand_dollars", "Dollars for ingest, if the stream is on demand", |flow| {
        flow.cost.on_demand_dollars
    }),
    ("on_demand_dollars_unmerged", "The same for the same lines one a record", |flow| {
        flow.cost.on_demand_dollars_unmerged
    }),
];

/// As [`COUNTERS`]; a `None` has no series.
const GAUGES: &[(&str, &str, Read<Option<f64>>)] = &[
    ("in_flight_bytes", "Bytes read and not settled yet", |flow| {
        Some(approximate(flow.totals.in_flight_bytes))
    }),
    ("lag_bytes", "Bytes of the files that are not settled yet", |flow| {
        Some(approximate(flow.files.iter().map(|file| file.lag_bytes).sum()))
    }),
    ("lag_bytes_max", "The same, of the file that lags most", |flow| {
        Some(approximate(flow.files.iter().map(|file| file.lag_bytes).max().unwrap_or(0)))
    }),
    ("files", "Files followed, or with something left to settle", |flow| {
        Some(approximate(flow.files.len() as u64))
    }),
    ("problems", "Things that are wrong just now", |flow| {
        Some(approximate(flow.problems.len() as u64))
    }),
    ("fill_ratio", "How full the payload units are that the records cost", |flow| {
        Some(flow.sent.fill)
    }),
    ("calls_in_flight", "PutRecords calls in flight", |flow| {
        Some(approximate(flow.sent.in_flight))
    }),
    ("window", "PutRecords calls that may be in flight", |flow| {
        Some(approximate(flow.sent.window))
    }),
    ("last_accepted_seconds", "Seconds since the last record was accepted", |flow| {
        flow.sent.last_accepted_seconds
    }),
];

/// A status on its way out.
#[derive(Debug)]
struct Exposition(Status);

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let status = &self.0;
        agent(status, &mut encoder)?;
        for &(name, help, read) in COUNTERS {
            let series = by_flow(status, |flow| Some(ConstCounter::new(read(flow))));
            family(&mut encoder, name, help, series)?;
        }
        for &(name, help, read) in DOLLARS {
            let series = by_flow(status, |flow| Some(ConstCounter::new(read(flow))));
            family(&mut encoder, name, help, series)?;
        }
        for &(name, help, read) in GAUGES {
            let series = by_flow(status, |flow| read(flow).map(ConstGauge::new));
            family(&mut encoder, name, help, series)?;
        }
        consumers::encode(&status.consumers, &mut encoder)?;
        let lost = status.flows.iter().flat_map(lost_files);
        family(&mut encoder, "file_lost_bytes", "Bytes lost of the files that lost most", lost)
    }
}

fn agent(status: &Status, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let version = vec![("version", status.version.as_str())];
    let one = ConstGauge::new(1_u64);
    family(encoder, "build_info", "The agent's version", [(version, one)].into_iter())?;
    let prices = vec![("as_of", status.prices.as_str())];
    let one = ConstGauge::new(1_u64);
    family(encoder, "prices_info", "Where and when the prices hold", [(prices, one)].into_iter())?;
    let failing = u64::from(status.checkpoint_error.is_some());
    let gauges = [
        ("uptime_seconds", "Seconds since the start", status.uptime_seconds.map(approximate)),
        (
            "checkpoint_age_seconds",
            "Seconds since positions were last committed",
            status.checkpoint_age_seconds,
        ),
        ("checkpoint_failing", "1 where the last commit failed", Some(approximate(failing))),
    ];
    for (name, help, value) in gauges {
        let series = value.map(|value| (Vec::new(), ConstGauge::new(value)));
        family(encoder, name, help, series.into_iter())?;
    }
    Ok(())
}

type Label<'a> = (&'static str, &'a str);

fn labels(flow: &FlowStatus) -> [Label<'_>; 2] {
    [("flow", &flow.name), ("stream", &flow.stream)]
}

fn by_flow<M>(
    status: &Status,
    read: impl Fn(&FlowStatus) -> Option<M>,
) -> impl Iterator<Item = (Vec<Label<'_>>, M)> {
    status.flows.iter().filter_map(move |flow| Some((labels(flow).to_vec(), read(flow)?)))
}

/// The generations of one path are one series: labels must not repeat.
fn lost_files(flow: &FlowStatus) -> impl Iterator<Item = (Vec<Label<'_>>, ConstGauge<u64>)> {
    let mut lost: BTreeMap<&str, u64> = BTreeMap::new();
    for file in flow.files.iter().filter(|file| file.lost_bytes > 0) {
        let sum = lost.entry(&file.path).or_default();
        *sum = sum.saturating_add(file.lost_bytes);
    }
    let mut lost: Vec<(&str, u64)> = lost.into_iter().collect();
    lost.sort_by_key(|&(_, bytes)| Reverse(bytes));
    lost.truncate(LOST_FILES_MAX);
    lost.into_iter().map(|(path, bytes)| {
        let [name, stream] = labels(flow);
        (vec![name, stream, ("path", path)], ConstGauge::new(bytes))
    })
}

/// Writes one metric with all its series; a metric without series is left out.
fn family<'a, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Vec<Label<'a>>, M)>,
) -> fmt::Result {
    let mut series = series.peekable();
    let Some((_, first)) = series.peek() else { return Ok(()) };
    let mut metric = encoder.encode_descriptor(name, help, None, first.metric_type())?;
    for (labels, value) in series {
        if labels.is_empty() {
            value.encode(metric)?;
            return Ok(());
        }
        value.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Cost, FileStatus, Sent, Totals};

    pub(super) fn example() -> Status {
        let file = |path: &str, lost| FileStatus {
            path: path.to_owned(),
            lag_bytes: 7,
            lost_bytes: lost,
            ..FileStatus::default()
        };
        Status {
            running: true,
            version: "1.2.3".to_owned(),
            uptime_seconds: Some(60),
            checkpoint_age_seconds: Some(0.5),
            prices: "here, today".to_owned(),
            flows: vec![FlowStatus {
                name: "access".to_owned(),
                stream: "web".to_owned(),
                files: vec![file("/a \"b\".log", 3), file("/c.log", 0), file("/a \"b\".log", 2)],
                totals: Totals { read_bytes: 1000, ..Totals::default() },
                sent: Sent { calls: 4, fill: 0.75, ..Sent::default() },
                cost: Cost { on_demand_dollars: 0.5, ..Cost::default() },
                ..FlowStatus::default()
            }],
            ..Status::default()
        }
    }

    fn line<'a>(text: &'a str, start: &str) -> &'a str {
        text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn every_number_is_told_with_its_flow_and_stream() {
        let text = render(&example());
        let read = line(&text, "kinetail_read_bytes_total");
        assert_eq!(read, r#"kinetail_read_bytes_total{flow="access",stream="web"} 1000"#);
        let fill = line(&text, "kinetail_fill_ratio");
        assert_eq!(fill, r#"kinetail_fill_ratio{flow="access",stream="web"} 0.75"#);
        let dollars = line(&text, "kinetail_on_demand_dollars_total");
        assert_eq!(dollars, r#"kinetail_on_demand_dollars_total{flow="access",stream="web"} 0.5"#);
        assert_eq!(
            line(&text, "kinetail_prices_info"),
            r#"kinetail_prices_info{as_of="here, today"} 1"#
        );
        assert!(line(&text, "kinetail_lag_bytes{").ends_with(" 21.0"));
        assert_eq!(line(&text, "kinetail_build_info"), r#"kinetail_build_info{version="1.2.3"} 1"#);
        assert_eq!(line(&text, "kinetail_uptime_seconds"), "kinetail_uptime_seconds 60.0");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_not_known_has_no_series() {
        assert!(!render(&example()).contains("last_accepted"));
    }

    #[test]
    fn only_files_that_lost_bytes_have_a_series_and_each_path_one() {
        let text = render(&example());
        let lost: Vec<&str> =
            text.lines().filter(|line| line.starts_with("kinetail_file_lost")).collect();
        let path = r#"/a \"b\".log"#;
        let series =
            format!(r#"kinetail_file_lost_bytes{{flow="access",stream="web",path="{path}"}} 5"#);
        assert_eq!(lost, [series]);
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let mut status = example();
        if let Some(flow) = status.flows.first_mut() {
            flow.files = (0..1000)
                .map(|file| FileStatus {
                    path: format!("/{file}"),
                    lost_bytes: file + 1,
                    ..FileStatus::default()
                })
                .collect();
        }
        let text = render(&status);
        let lost: Vec<&str> =
            text.lines().filter(|line| line.starts_with("kinetail_file_lost")).collect();
        assert_eq!(lost.len(), LOST_FILES_MAX);
        assert!(lost.first().unwrap().ends_with(" 1000"), "those that lost most come first");
    }
}
