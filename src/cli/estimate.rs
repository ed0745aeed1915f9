//! `kinetail estimate`: what log files would cost, by merging them.
//!
//! Invariant: nothing is sent and nothing is written; and what is sampled or assumed is said beside
//! the figures.

mod page;
mod report;

use std::path::PathBuf;
use std::thread;

use anyhow::{Context, anyhow};
use clap::Args;

use self::page::Page;
use self::report::{Pace, Report};
use super::exit::{Exit, ExitWith, Failure};
use super::prices::PriceArguments;
use super::screen::Style;
use super::{load, print};
use crate::config::units::parse_size;
use crate::config::{Produce, defaults};
use crate::cost::Prices;
use crate::estimate::sample::Sample;
use crate::estimate::{Measured, Rate, Way, replay, ways};
use crate::produce::watch::patterns::Patterns;

pub(super) const ABOUT: &str = "\
Show what log files would cost in Kinesis Data Streams: a line a record, ten lines a record, and
merged into full payload units, plain, compressed and in the format kpl; with --config also as the
configuration has it.

The files' lines are merged as the agent would merge them, at the pace of a rate: so what is shown
as records, PUT payload units and waiting is counted, not computed. Of large files a sample is taken
(--sample). The rate is --rate; else that at which the files were written, from the making of the
first to the last change of any, where the file system tells; else 1,000 lines a second are assumed.

A month has 30 days. Provisioned: PUT payload units, and shards for the average rate and a quarter
more. On demand and Advantage: what is written, and what one consumer reads; on demand also the
stream's hours. Longer retention, enhanced fan-out and more consumers cost extra. Prices are those
of us-east-1; --price, or `prices` in the configuration, gives others.

Nothing is sent and nothing is written.";

pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  the figures are shown
  64  the command line is wrong
  74  no file holds a line, or none can be read
  78  the configuration is wrong";

/// Bytes merged of each flow's files: a few seconds' work, and a day of a small server.
const SAMPLE: &str = "64 MiB";

/// Lines a second where nothing tells.
const ASSUMED: f64 = 1_000.0;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Log files
    #[arg(value_name = "FILE", required_unless_present = "config", conflicts_with = "config")]
    files: Vec<PathBuf>,

    /// The files of a configuration instead, by its flows and as they merge
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// How fast the lines come, for each flow: a number of lines, or a size such as "2 MB", a second
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<Rate>,

    /// The most bytes to merge, for each flow
    #[arg(long, value_name = "SIZE", default_value = SAMPLE, value_parser = size)]
    sample: u64,

    #[command(flatten)]
    prices: PriceArguments,

    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let (prices, flows) = flows(arguments)?;
    let prices = arguments.prices.of(prices);
    let host = hostname::get()
        .map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned());
    let mut reports = Vec::new();
    for (flow, files) in &flows {
        let sample = Sample::take(files, arguments.sample);
        if sample.bytes() == 0 {
            let reasons = sample.skipped.iter();
            let reasons: Vec<_> =
                reasons.map(|(path, why)| format!("; {}: {why}", path.display())).collect();
            return Err(anyhow!("no lines to merge{}", reasons.concat())).exit_with(Exit::Io);
        }
        let pace = pace(arguments.rate, &sample);
        let ways = ways(flow, arguments.config.is_some());
        let time = pace.rate.time(sample.bytes(), sample.lines());
        let measured = measure(flow, &ways, |way| replay(flow, way, &sample, time, &host))?;
        reports.push(Report::new(&flow.name, &sample, pace, &prices, &measured));
    }
    let answer = if arguments.json {
        serde_json::to_string_pretty(&reports).exit_with(Exit::Bug)? + "\n"
    } else {
        Page::new(&reports, &prices, Style::detect()).to_string()
    };
    print(answer.as_bytes())
}

/// A flow and the files that it would follow.
type Flow = (Produce, Vec<PathBuf>);

/// Returns the prices that the configuration has, and what is to be merged how.
fn flows(arguments: &Arguments) -> Result<(Prices, Vec<Flow>), Failure> {
    let Some(path) = &arguments.config else {
        return Ok((Prices::default(), vec![(default_flow(), arguments.files.clone())]));
    };
    let config = load(path)?;
    let mut flows = Vec::new();
    for flow in config.produce {
        let patterns =
            Patterns::new(&flow.files, &flow.exclude).context("files").exit_with(Exit::Config)?;
        let found = patterns.scan().files.into_iter();
        flows.push((flow, found.map(|file| file.path).collect()));
    }
    Ok((config.prices, flows))
}

/// Returns the flow that a configuration without settings makes.
fn default_flow() -> Produce {
    Produce {
        name: "files".into(),
        files: Vec::new(),
        exclude: Vec::new(),
        stream: String::new(),
        start_at: defaults::START_AT,
        merge: crate::config::Merge::default(),
        partition_key: defaults::PARTITION_KEY,
        multiline: None,
        on_oversize: defaults::ON_OVERSIZE,
        tail: crate::config::Tail::default(),
        ship: crate::config::Ship::default(),
    }
}

/// Measures all ways, each in a thread of its own.
fn measure(
    flow: &Produce,
    ways: &[Way],
    replay: impl Fn(&Way) -> Measured + Sync,
) -> Result<Vec<(&'static str, Measured)>, Failure> {
    thread::scope(|scope| {
        let replay = &replay;
        let running: Vec<_> =
            ways.iter().map(|way| (way.name, scope.spawn(move || replay(way)))).collect();
        let ended = running.into_iter().map(|(name, thread)| Some((name, thread.join().ok()?)));
        ended.collect::<Option<_>>()
    })
    .with_context(|| format!("merging the lines of {} panicked", flow.name))
    .exit_with(Exit::Bug)
}

fn pace(given: Option<Rate>, sample: &Sample) -> Pace {
    if let Some(rate) = given {
        return Pace { rate, source: "given".to_owned() };
    }
    match sample.written_in() {
        Some(time) => {
            let rate = crate::cost::approximate(sample.size()) / time.as_secs_f64();
            let time = super::figures::seconds(time.as_secs());
            Pace { rate: Rate::Bytes(rate), source: format!("observed: written in {time}") }
        }
        None => Pace {
            rate: Rate::Lines(ASSUMED),
            source: "assumed: nothing tells how fast the files were written; give --rate"
                .to_owned(),
        },
    }
}

/// Reads a rate: a number is lines a second, a size bytes a second.
fn rate(text: &str) -> Result<Rate, String> {
    let lines = text.parse::<f64>().ok();
    let rate = match lines {
        Some(lines) => Rate::Lines(lines),
        None => Rate::Bytes(crate::cost::approximate(size(text)?)),
    };
    let (Rate::Bytes(number) | Rate::Lines(number)) = rate;
    if number.is_finite() && number > 0.0 { Ok(rate) } else { Err("must be above 0".to_owned()) }
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_lines_or_a_size() {
        assert_eq!(rate("0.5"), Ok(Rate::Lines(0.5)));
        assert_eq!(rate("2 MB"), Ok(Rate::Bytes(2_000_000.0)));
        for wrong in ["0", "-1", "inf", "NaN", "many", "0 MB"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_no_setting_asks_for_is_what_an_empty_flow_means() {
        let text = "produce: [{ name: files, files: [/a], stream: s }]";
        let config = crate::config::Config::parse(text, "agent.yaml").unwrap();
        let mut flow = config.produce[0].clone();
        (flow.files, flow.stream) = (Vec::new(), String::new());
        assert_eq!(format!("{flow:?}"), format!("{:?}", default_flow()));
    }
}
