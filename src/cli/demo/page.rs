//! What the demo shows: steps while it runs, then the comparison and the bill.
//!
//! Invariant: without a terminal every line is written once and stays.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::proof::Verdict;
use crate::cli::chart::bar;
use crate::cli::figures::{bytes, count, dollars, duration, many, rate};
use crate::cli::print;
use crate::cli::screen::Style;
use crate::cli::table::{Align, Table};
use crate::cost::{Prices, Usage, approximate, saving};
use crate::status::Status;

/// The widest bar of the chart.
const CHART_WIDTH: u64 = 44;

/// The width of the live bar.
const LIVE_WIDTH: u64 = 24;

/// Days of the month that prices are shown for.
const MONTH_DAYS: u64 = 30;

/// Differences that are shown; one is enough to look further.
const DIFFERENCES_SHOWN: usize = 5;

/// Returns the first lines.
pub(super) fn opening(style: Style) -> String {
    format!(
        "\n{}\n{}\n\n",
        style.bold("kinetail demo"),
        style.dim("six access logs → merged records → a stream → back again, all on this machine")
    )
}

/// Shows steps as they are done, and what is going on in between where there is a terminal.
#[derive(Debug)]
pub(super) struct Live {
    style: Style,
    line: ProgressBar,
}

impl Live {
    /// Returns a screen on which nothing stands.
    pub(super) fn new(style: Style) -> Self {
        let target = if io::stdout().is_terminal() {
            ProgressDrawTarget::stdout()
        } else {
            ProgressDrawTarget::hidden()
        };
        let template = ProgressStyle::with_template("  {spinner} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        Self { style, line: ProgressBar::with_draw_target(None, target).with_style(template) }
    }

    /// Shows that a step is done.
    pub(super) fn step(&self, name: &str, words: &str) {
        let line = format!("  {} {name:<10} {words}\n", self.style.green("✔"));
        let shown = self.line.suspend(|| print(line.as_bytes()));
        if shown.is_err() {
            tracing::debug!("standard output cannot be written to");
        }
    }

    /// Shows how the agent keeps up with `written` bytes.
    pub(super) fn follow(&self, status: Option<&Status>, written: u64) {
        let shipped: u64 = status.map_or(0, |status| {
            status.flows.iter().map(|flow| flow.totals.acknowledged_bytes).sum()
        });
        self.line.set_message(keeping_up(written, shipped));
        self.line.tick();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.line.finish_and_clear();
    }
}

fn keeping_up(written: u64, shipped: u64) -> String {
    format!(
        "following  {}  written {:>9}   shipped {:>9}   behind {:>9}",
        bar(shipped, written, LIVE_WIDTH, '░'),
        bytes(written),
        bytes(shipped),
        bytes(written.saturating_sub(shipped)),
    )
}

/// Returns what the agent says it has shipped.
pub(super) fn shipped(status: &Status) -> String {
    let sum = |number: fn(&crate::status::FlowStatus) -> u64| -> u64 {
        status.flows.iter().map(number).sum()
    };
    format!(
        "{} in {} and {}, all logs rotated once on the way",
        many(sum(|flow| flow.totals.acknowledged_lines), "line"),
        many(sum(|flow| flow.sent.records), "record"),
        many(sum(|flow| flow.sent.calls), "call"),
    )
}

/// Returns what was read back.
pub(super) fn read_back(shards: usize, merged: &Usage) -> String {
    format!("{shards} shards, {} records, {}", count(merged.records), bytes(merged.bytes))
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The comparison.
    pub(super) verdict: Verdict,
    /// What the records cost.
    pub(super) merged: Usage,
    /// What the lines would have cost one a record.
    pub(super) unmerged: Usage,
    /// The calls that were made.
    pub(super) calls: u64,
    /// For how long the logs were written.
    pub(super) wrote: Duration,
    /// How long all of it took.
    pub(super) took: Duration,
}

impl Outcome {
    /// Returns the last screen, with what it costs at `prices`.
    pub(super) fn closing(&self, prices: &Prices, style: Style) -> String {
        let verdict = self.comparison(style);
        if !self.verdict.holds() {
            return verdict;
        }
        let saving = saving(&self.unmerged, &self.merged);
        format!(
            "{verdict}\n{}\n{}\n{}\n\n{}\n",
            self.bill(prices),
            style.bold("  PUT payload units"),
            self.chart(),
            style.dim(&format!(
                "  Merged, a provisioned stream charges 1/{:.0} for its PUTs, and an on-demand \
                 one 1/{:.1}\n  for ingest. A month: {MONTH_DAYS} days at the demo's {} lines/s. \
                 Prices: {},\n  PUT units or ingest alone, without shard and stream \
                 hours. It took {}.",
                saving.provisioned,
                saving.on_demand,
                count(rate(self.unmerged.records, self.wrote)),
                prices.as_of,
                duration(self.took),
            )),
        )
    }

    fn comparison(&self, style: Style) -> String {
        let Verdict { written, equal, differences } = &self.verdict;
        if self.verdict.holds() {
            let words = format!("every byte arrived: {} of {}", count(*equal), count(*written));
            return format!(
                "\n  {} {}, in order, each once\n",
                style.green("✔"),
                style.bold(&words)
            );
        }
        let words =
            format!("{} of {} bytes arrived in their place", count(*equal), count(*written));
        let mut out = format!("\n  {} {}\n", style.red("✘"), style.bold(&words));
        for difference in differences.iter().take(DIFFERENCES_SHOWN) {
            let _infallible = writeln!(out, "    {difference}");
        }
        out
    }

    fn bill(&self, prices: &Prices) -> Table {
        let (one, all) = (&self.unmerged, &self.merged);
        let month = |amount: f64| dollars(amount * self.times_a_month());
        let right = |heading| (heading, Align::Right);
        let headings = [("", Align::Left), right("a line a record"), right("merged")];
        let mut table = Table::new(2, &headings);
        let mut row = |what: &str, before: String, after: String| {
            table.row([what.to_owned(), before, after]);
        };
        row("lines", count(one.records), count(one.records));
        row("records", count(one.records), count(all.records));
        // Nobody sent the lines unmerged: the fewest calls that could carry them.
        row("PutRecords calls", count(one.fewest_calls()), count(self.calls));
        row("PUT payload units", count(one.payload_units), count(all.payload_units));
        row("on-demand bytes billed", bytes(one.on_demand_bytes), bytes(all.on_demand_bytes));
        row(
            "a month, provisioned",
            month(one.provisioned_dollars(prices)),
            month(all.provisioned_dollars(prices)),
        );
        row(
            "a month, on demand",
            month(one.on_demand_dollars(prices)),
            month(all.on_demand_dollars(prices)),
        );
        table
    }

    fn times_a_month(&self) -> f64 {
        let seconds = self.wrote.as_secs_f64().max(f64::EPSILON);
        approximate(MONTH_DAYS * 86_400) / seconds
    }

    fn chart(&self) -> String {
        let most = self.unmerged.payload_units.max(self.merged.payload_units);
        let line = |name: &str, units: u64| {
            let bar = bar(units, most, CHART_WIDTH, ' ');
            format!("  {name:<15}  {} {}", bar.trim_end(), count(units))
        };
        let before = line("a line a record", self.unmerged.payload_units);
        format!("{before}\n{}", line("merged", self.merged.payload_units))
    }
}

#[cfg(test)]
mod tests {
    use super::super::proof::Difference;
    use super::*;

    fn outcome(verdict: Verdict) -> Outcome {
        let (mut merged, mut unmerged) = (Usage::default(), Usage::default());
        unmerged.add(54_000, 213);
        merged.add(460, 24_980);
        Outcome {
            verdict,
            merged,
            unmerged,
            calls: 61,
            wrote: Duration::from_secs(6),
            took: Duration::from_millis(7_560),
        }
    }

    #[test]
    fn the_closing_screen_shows_the_proof_and_the_bill() {
        let verdict = Verdict { written: 11_490_000, equal: 11_490_000, differences: Vec::new() };
        insta::assert_snapshot!(outcome(verdict).closing(&Prices::default(), Style::plain()), @r#"
        ✔ every byte arrived: 11,490,000 of 11,490,000, in order, each once

                                a line a record    merged
        lines                            54,000    54,000
        records                          54,000       460
        PutRecords calls                    108        61
        PUT payload units                54,000       460
        on-demand bytes billed         52.7 MiB  11.2 MiB
        a month, provisioned           $ 326.59    $ 2.78
        a month, on demand              $ 1,780  $ 379.03

        PUT payload units
        a line a record  ████████████████████████████████████████████ 54,000
        merged           ▎ 460

        Merged, a provisioned stream charges 1/117 for its PUTs, and an on-demand one 1/4.7
        for ingest. A month: 30 days at the demo's 9,000 lines/s. Prices: us-east-1, November 2026,
        PUT units or ingest alone, without shard and stream hours. It took 7.56 s.
        "#);
    }

    #[test]
    fn what_differs_is_told_instead_of_the_bill() {
        let lost = Difference::Log { name: "web-1/access.log".to_owned(), at: 200 };
        let verdict = Verdict { written: 1_000, equal: 200, differences: vec![lost] };
        insta::assert_snapshot!(outcome(verdict).closing(&Prices::default(), Style::plain()), @r#"
        ✘ 200 of 1,000 bytes arrived in their place
          web-1/access.log does not go on after byte 200
        "#);
    }

    #[test]
    fn keeping_up_is_one_line_of_steady_width() {
        let (few, many) = (keeping_up(0, 0), keeping_up(9_999_999, 1_023));
        assert_eq!(few.chars().count(), many.chars().count());
    }
}
