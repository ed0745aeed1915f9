//! How far `kinetail run --once` is, and what it did in the end.
//!
//! Invariant: what is shown as done is settled: accepted, dead-lettered or left out by a setting.

use std::fmt;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::figures::{bytes, count, duration, many, rate, seconds};
use crate::status::{ConsumerTotals, Status, Totals};

/// A way to show progress.
pub(super) trait Progress {
    /// Shows how far `status` is.
    fn show(&mut self, status: &Status, now: Instant);

    /// Takes away what was shown.
    fn clear(&mut self) {}
}

/// Bytes settled, of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reached {
    done: u64,
    total: u64,
}

impl Reached {
    /// What lies beyond the settled prefix of a file may be settled already, out of order: then the
    /// total is a little too large until the gap closes, never too small.
    fn of(status: &Status) -> Self {
        let done: u64 = status.flows.iter().map(|flow| settled(&flow.totals)).sum();
        let files = status.flows.iter().flat_map(|flow| &flow.files);
        let lag: u64 = files.map(|file| file.lag_bytes).sum();
        Self { done, total: done.saturating_add(lag) }
    }
}

fn settled(totals: &Totals) -> u64 {
    let given_up = totals.dead_lettered_bytes.saturating_add(totals.skipped_bytes);
    totals.acknowledged_bytes.saturating_add(given_up)
}

/// A bar on a terminal.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Returns a bar that is not shown yet.
    pub(super) fn new() -> Self {
        let template = "{bar:32} {percent:>3} %  {binary_bytes} of {binary_total_bytes}  \
                        {binary_bytes_per_sec}  {eta} left";
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("━╸─");
        Self(ProgressBar::new(0).with_style(style))
    }
}

impl Progress for Bar {
    fn show(&mut self, status: &Status, _: Instant) {
        let Reached { done, total } = Reached::of(status);
        self.0.set_length(total);
        self.0.set_position(done);
    }

    fn clear(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Log lines.
#[derive(Debug)]
pub(super) struct Lines {
    started: Instant,
}

impl Lines {
    /// Returns the progress of a run that started at `started`.
    pub(super) fn new(started: Instant) -> Self {
        Self { started }
    }
}

impl Progress for Lines {
    fn show(&mut self, status: &Status, now: Instant) {
        let Reached { done, total } = Reached::of(status);
        let took = now.saturating_duration_since(self.started);
        let rate = rate(done, took);
        let left = total.saturating_sub(done).checked_div(rate);
        tracing::info!(
            done_bytes = done,
            total_bytes = total,
            bytes_per_second = rate,
            left = left.map(seconds),
            "shipping"
        );
    }
}

/// The closing line.
#[derive(Debug)]
pub(super) struct Closing {
    files: u64,
    totals: Totals,
    records: u64,
    calls: u64,
    payload_units: u64,
    unmerged: u64,
    consumed: Option<ConsumerTotals>,
    has_flows: bool,
    took: Duration,
}

impl Closing {
    /// Returns what `status`, the last one of a run, amounts to.
    pub(super) fn of(status: &Status, took: Duration) -> Self {
        let mut closing = Self {
            files: 0,
            totals: Totals::default(),
            records: 0,
            calls: 0,
            payload_units: 0,
            unmerged: 0,
            consumed: consumed(status),
            has_flows: !status.flows.is_empty(),
            took,
        };
        for flow in &status.flows {
            closing.files += flow.files.len() as u64;
            closing.totals.acknowledged_bytes += flow.totals.acknowledged_bytes;
            closing.totals.acknowledged_lines += flow.totals.acknowledged_lines;
            closing.totals.dead_lettered_bytes += flow.totals.dead_lettered_bytes;
            closing.totals.skipped_bytes += flow.totals.skipped_bytes;
            closing.totals.lost_bytes += flow.totals.lost_bytes;
            closing.records += flow.sent.records;
            closing.calls += flow.sent.calls;
            closing.payload_units += flow.sent.payload_units;
            closing.unmerged += flow.sent.payload_units_unmerged;
        }
        closing
    }
}

impl fmt::Display for Closing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_flows {
            self.shipped(formatter)?;
        }
        let Some(consumed) = &self.consumed else { return Ok(()) };
        if self.has_flows {
            formatter.write_str("; ")?;
        }
        write!(
            formatter,
            "wrote {} and {} of {}, in {} ({}/s)",
            bytes(consumed.bytes),
            many(consumed.lines, "line"),
            many(consumed.records, "record"),
            duration(self.took),
            bytes(rate(consumed.bytes, self.took)),
        )
    }
}

/// Returns what all consuming flows have written, where there is one.
fn consumed(status: &Status) -> Option<ConsumerTotals> {
    status.consumers.iter().map(|flow| flow.totals).reduce(|sum, totals| ConsumerTotals {
        bytes: sum.bytes.saturating_add(totals.bytes),
        lines: sum.lines.saturating_add(totals.lines),
        records: sum.records.saturating_add(totals.records),
        ..sum
    })
}

impl Closing {
    fn shipped(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sent = self.totals.acknowledged_bytes;
        write!(
            formatter,
            "shipped {} and {} of {} in {} and {}, {}",
            bytes(sent),
            many(self.totals.acknowledged_lines, "line"),
            many(self.files, "file"),
            many(self.records, "record"),
            many(self.calls, "call"),
            many(self.payload_units, "payload unit"),
        )?;
        if self.unmerged > self.payload_units {
            write!(formatter, " instead of {}", count(self.unmerged))?;
        }
        write!(formatter, ", in {} ({}/s)", duration(self.took), bytes(rate(sent, self.took)))?;
        let others = [
            ("dead-lettered", self.totals.dead_lettered_bytes),
            ("left out", self.totals.skipped_bytes),
            ("lost", self.totals.lost_bytes),
        ];
        for (what, number) in others.into_iter().filter(|&(_, number)| number > 0) {
            write!(formatter, "; {what}: {}", bytes(number))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{FileStatus, FlowStatus, Sent};

    fn status() -> Status {
        let totals = Totals {
            acknowledged_bytes: 6_000_000,
            acknowledged_lines: 30_000,
            dead_lettered_bytes: 2_000,
            skipped_bytes: 500,
            ..Totals::default()
        };
        let file = FileStatus { lag_bytes: 1_000_000, ..FileStatus::default() };
        let sent = Sent {
            records: 242,
            calls: 7,
            payload_units: 242,
            payload_units_unmerged: 30_000,
            ..Sent::default()
        };
        let flow =
            FlowStatus { files: vec![file.clone(), file], totals, sent, ..FlowStatus::default() };
        Status { flows: vec![flow], ..Status::default() }
    }

    #[test]
    fn done_is_what_is_settled_and_total_what_is_left_with_it() {
        assert_eq!(Reached::of(&status()), Reached { done: 6_002_500, total: 8_002_500 });
        assert_eq!(Reached::of(&Status::default()), Reached::default());
    }

    #[test]
    fn the_bar_takes_its_template() {
        let mut bar = Bar::new();
        bar.show(&status(), Instant::now());
        assert_eq!(bar.0.length(), Some(8_002_500));
        assert_eq!(bar.0.position(), 6_002_500);
        bar.clear();
    }

    #[test]
    fn the_closing_line_tells_all_that_happened() {
        let closing = Closing::of(&status(), Duration::from_secs(3)).to_string();
        insta::assert_snapshot!(closing, @"shipped 5.7 MiB and 30,000 lines of 2 files in 242 records and 7 calls, 242 payload units instead of 30,000, in 3.00 s (1.9 MiB/s); dead-lettered: 2.0 KiB; left out: 500 B");
    }
}
