//! The estimate as a page of text: a table and a chart a flow.
//!
//! Invariant: the first way is a line a record, which all others are compared with.

use std::fmt;

use super::report::{Report, WayReport};
use crate::cli::chart::bar;
use crate::cli::figures::{bytes, count, dollars, many};
use crate::cli::screen::Style;
use crate::cli::table::{Align, Table};
use crate::cost::{Advantage, Prices};

/// The widest bar of the chart.
const CHART_WIDTH: u64 = 40;

/// Files that are not merged and told by name.
const SKIPPED_SHOWN: usize = 5;

/// Reports on their way to a person.
#[derive(Debug)]
pub(super) struct Page<'a> {
    reports: &'a [Report],
    prices: &'a Prices,
    style: Style,
}

impl<'a> Page<'a> {
    /// Returns the page of `reports`.
    pub(super) fn new(reports: &'a [Report], prices: &'a Prices, style: Style) -> Self {
        Self { reports, prices, style }
    }

    fn flow(&self, report: &Report, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = many(report.files.len() as u64, "file");
        write!(out, "{}: {files}, {}", self.style.bold(&report.flow), bytes(report.bytes))?;
        if report.sampled_bytes < report.bytes {
            write!(out, "; merged was a sample of {}", bytes(report.sampled_bytes))?;
        }
        writeln!(out, ", {}", many(report.lines, "line"))?;
        let rate = format!(
            "{} lines/s, {}/s ({})",
            number(report.lines_per_second),
            bytes(whole(report.bytes_per_second)),
            report.rate_source
        );
        writeln!(out, "{}", self.style.dim(&rate))?;
        for skipped in report.skipped.iter().take(SKIPPED_SHOWN) {
            writeln!(
                out,
                "{}",
                self.style.dim(&format!("not {}: {}", skipped.path, skipped.reason))
            )?;
        }
        let more = report.skipped.len().saturating_sub(SKIPPED_SHOWN);
        if more > 0 {
            writeln!(out, "{}", self.style.dim(&format!("nor {} more", count(more as u64))))?;
        }
        writeln!(out, "\n{}", table(&report.ways))?;
        writeln!(out, "{}", self.style.bold("  Dollars a month"))?;
        chart(&report.ways, out)
    }

    fn notes(&self) -> String {
        let floor = dollars(Advantage::floor(self.prices));
        format!(
            "A month: 30 days at that rate. Prices: {}.\n\
             Provisioned: PUT payload units, and shards for the average rate and a quarter more.\n\
             On demand, Advantage: writing, and reading once. With Advantage an account pays at least\n\
             {floor} in a Region, whatever its streams take.\n\
             Waits: how long a line waits for company, on average and at most.",
            self.prices.as_of
        )
    }
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for report in self.reports {
            self.flow(report, formatter)?;
            writeln!(formatter)?;
        }
        writeln!(formatter, "{}", self.style.dim(&self.notes()))
    }
}

fn table(ways: &[WayReport]) -> Table {
    let right = |heading| (heading, Align::Right);
    let headings = [
        ("", Align::Left),
        right("records"),
        right("calls"),
        right("units"),
        right("shards"),
        right("waits"),
        right("provisioned"),
        right("on demand"),
        right("Advantage"),
    ];
    let mut table = Table::new(2, &headings);
    for way in ways {
        table.row([
            way.way.to_owned(),
            count(way.records),
            count(way.calls),
            count(way.payload_units),
            count(way.shards),
            format!("{:.2}, {:.2} s", way.waiting_seconds_mean, way.waiting_seconds_most),
            dollars(way.month.provisioned),
            dollars(way.month.on_demand),
            dollars(way.month.advantage),
        ]);
    }
    table
}

fn chart(ways: &[WayReport], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let cents = |dollars: f64| whole(dollars * 100.0);
    let bars = ways.iter().flat_map(|way| {
        [(way.way, "provisioned", way.month.provisioned), ("", "on demand", way.month.on_demand)]
    });
    let most = bars.clone().map(|(_, _, amount)| cents(amount)).max().unwrap_or(0);
    let width = ways.iter().map(|way| way.way.len()).max().unwrap_or(0);
    for (way, billed, amount) in bars {
        let bar = bar(cents(amount), most, CHART_WIDTH, ' ');
        writeln!(out, "  {way:<width$}  {billed:<11}  {} {}", bar.trim_end(), dollars(amount))?;
    }
    Ok(())
}

/// Returns a rate of lines with the digits that matter.
fn number(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.2}") } else { count(whole(rate)) }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither is below 0")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}
