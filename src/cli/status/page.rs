//! The status as one page of text.
//!
//! Invariant: what is wrong stands on top; a column that would only hold zeros is still there, so
//! that the page looks the same on every day.

use std::fmt;

use super::consumer;
use crate::cli::figures::{bytes, count, dollars, many, percent, seconds};
use crate::cli::screen::Style;
use crate::cli::table::{Align, Table};
use crate::status::{Cost, FileStatus, FlowStatus, Status};

/// A status on its way to a person.
#[derive(Debug)]
pub(super) struct Page<'a> {
    status: &'a Status,
    style: Style,
}

impl<'a> Page<'a> {
    /// Returns the page of `status`.
    pub(super) fn new(status: &'a Status, style: Style) -> Self {
        Self { status, style }
    }

    fn head(&self) -> String {
        let Status { version, state_dir, .. } = self.status;
        let state = match (self.status.running, self.status.pid, self.status.uptime_seconds) {
            (false, _, _) => "not running".to_owned(),
            (true, Some(pid), Some(uptime)) => {
                format!("running for {}, process {pid}", seconds(uptime))
            }
            (true, _, _) => "running".to_owned(),
        };
        let head = self.style.bold(&format!("kinetail {version}: {state}"));
        let saved = match self.status.checkpoint_age_seconds {
            Some(age) => format!("state in {state_dir}, saved {age:.1} s ago"),
            None => format!("state in {state_dir}"),
        };
        format!("{head}\n{}\n", self.style.dim(&saved))
    }

    fn flow(&self, flow: &FlowStatus) -> String {
        let mut title =
            format!("{} {}", self.style.bold(&flow.name), self.style.dim("→")) + " " + &flow.stream;
        if flow.watching == "polling" {
            title += &self.style.dim(" (polling)");
        }
        let sent =
            if self.status.running { sent(flow, &self.status.prices) } else { String::new() };
        let nothing = if flow.files.is_empty() { "  no files\n" } else { "" };
        format!("\n{title}\n{nothing}{}{sent}", files(&flow.files))
    }
}

impl fmt::Display for Page<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.head())?;
        for problem in self.status.problems() {
            writeln!(formatter, "{} {problem}", self.style.red("problem:"))?;
        }
        for flow in &self.status.flows {
            formatter.write_str(&self.flow(flow))?;
        }
        for flow in &self.status.consumers {
            formatter.write_str(&consumer::shown(flow, self.status.running, self.style))?;
        }
        Ok(())
    }
}

fn files(files: &[FileStatus]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let right = |heading| (heading, Align::Right);
    let mut table = Table::new(
        2,
        &[
            ("file", Align::Left),
            ("state", Align::Left),
            right("offset"),
            right("size"),
            right("lag"),
            right("acknowledged"),
            right("lines"),
            right("in flight"),
            right("dead-lettered"),
            right("skipped"),
            right("lost"),
        ],
    );
    for file in files {
        table.row([
            file.path.clone(),
            file.state.clone(),
            count(file.offset),
            bytes(file.size),
            bytes(file.lag_bytes),
            bytes(file.acknowledged_bytes),
            count(file.acknowledged_lines),
            bytes(file.in_flight_bytes),
            bytes(file.dead_lettered_bytes),
            bytes(file.skipped_bytes),
            bytes(file.lost_bytes),
        ]);
    }
    table.to_string()
}

fn sent(flow: &FlowStatus, prices: &str) -> String {
    let sent = &flow.sent;
    let mut table = Table::new(2, &[("", Align::Left), ("", Align::Left)]);
    table.row([
        "sent".to_owned(),
        format!(
            "{} in {}, {}, {} full",
            many(sent.records, "record"),
            many(sent.calls, "call"),
            bytes(sent.bytes),
            percent(sent.fill)
        ),
    ]);
    table.row([
        "units".to_owned(),
        format!(
            "{}, {} if every line were a record",
            many(sent.payload_units, "payload unit"),
            count(sent.payload_units_unmerged)
        ),
    ]);
    // An older agent may answer, which says nothing of prices.
    if !prices.is_empty() {
        let [provisioned, on_demand] = cost(&flow.cost);
        table.row(["cost".to_owned(), provisioned]);
        table.row([String::new(), format!("{on_demand}; prices: {prices}")]);
    }
    table.row([
        "refused".to_owned(),
        format!(
            "{} throttled, {} failed, {} dead-lettered; {} failed",
            many(sent.records_throttled, "record"),
            count(sent.records_failed),
            count(sent.records_dead_lettered),
            many(sent.calls_failed, "call")
        ),
    ]);
    let last = sent.last_accepted_seconds.map_or_else(
        || "nothing accepted yet".to_owned(),
        |age| format!("last record accepted {age:.1} s ago"),
    );
    let calls = format!("{} of {} calls in flight, {last}", sent.in_flight, sent.window);
    table.row(["now".to_owned(), calls]);
    if let Some(error) = &sent.last_error {
        table.row(["last error".to_owned(), error.clone()]);
    }
    format!("\n{table}")
}

/// Returns what was sent costs, by how the stream may be billed.
fn cost(cost: &Cost) -> [String; 2] {
    let words = |what: &str, merged: f64, unmerged: f64| {
        let (merged, unmerged) = (dollars(merged), dollars(unmerged));
        format!("{merged} {what}, {unmerged} if every line were a record")
    };
    [
        words(
            "for PUTs of a provisioned stream",
            cost.provisioned_dollars,
            cost.provisioned_dollars_unmerged,
        ),
        words("for ingest on demand", cost.on_demand_dollars, cost.on_demand_dollars_unmerged),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Prices;
    use crate::status::{Sent, Totals};

    fn file(path: &str, offset: u64, size: u64) -> FileStatus {
        FileStatus {
            path: path.to_owned(),
            offset,
            size,
            lag_bytes: size - offset,
            read_bytes: offset,
            acknowledged_bytes: offset,
            acknowledged_lines: offset / 200,
            state: "following".to_owned(),
            ..FileStatus::default()
        }
    }

    fn status() -> Status {
        let prices = Prices::default();
        let sent = Sent {
            calls: 25,
            records: 242,
            bytes: 6_008_712,
            records_throttled: 3,
            payload_units: 242,
            payload_units_unmerged: 30_000,
            on_demand_bytes: 6_194_176,
            on_demand_bytes_unmerged: 30_720_000,
            fill: 0.9931,
            in_flight: 1,
            window: 4,
            last_error: Some("Rate exceeded for shard shardId-000000000001".to_owned()),
            last_accepted_seconds: Some(0.25),
            ..Sent::default()
        };
        Status {
            running: true,
            version: "1.2.3".to_owned(),
            pid: Some(4242),
            uptime_seconds: Some(8_000),
            state_dir: "/var/lib/kinetail".to_owned(),
            checkpoint_age_seconds: Some(0.4),
            prices: prices.as_of.clone(),
            flows: vec![FlowStatus {
                name: "access".to_owned(),
                stream: "web-access".to_owned(),
                watching: "inotify".to_owned(),
                files: vec![
                    file("/var/log/nginx/access.log", 6_000_000, 6_100_000),
                    file("/var/log/nginx/access.log.1", 200, 200),
                ],
                totals: Totals::default(),
                cost: sent.cost(&prices),
                sent,
                ..FlowStatus::default()
            }],
            ..Status::default()
        }
    }

    #[test]
    fn a_running_agent_on_one_page() {
        insta::assert_snapshot!(Page::new(&status(), Style::plain()).to_string(), @r#"
        kinetail 1.2.3: running for 2 h 13 min, process 4242
        state in /var/lib/kinetail, saved 0.4 s ago

        access → web-access
          file                         state         offset     size       lag  acknowledged   lines  in flight  dead-lettered  skipped  lost
          /var/log/nginx/access.log    following  6,000,000  5.8 MiB  97.7 KiB       5.7 MiB  30,000        0 B            0 B      0 B   0 B
          /var/log/nginx/access.log.1  following        200    200 B       0 B         200 B       1        0 B            0 B      0 B   0 B

          sent        242 records in 25 calls, 5.7 MiB, 99.3 % full
          units       242 payload units, 30,000 if every line were a record
          cost        $ 0.0000034 for PUTs of a provisioned stream, $ 0.00042 if every line were a record
                      $ 0.00046 for ingest on demand, $ 0.0023 if every line were a record; prices: us-east-1, November 2026
          refused     3 records throttled, 0 failed, 0 dead-lettered; 0 calls failed
          now         1 of 4 calls in flight, last record accepted 0.2 s ago
          last error  Rate exceeded for shard shardId-000000000001
        "#);
    }

    #[test]
    fn problems_stand_on_top() {
        let mut status = status();
        status.checkpoint_error = Some("disk full".to_owned());
        status.flows[0].problems = vec!["access denied to web-access".to_owned()];
        let page = Page::new(&status, Style::plain()).to_string();
        let lines: Vec<&str> = page.lines().skip(2).take(2).collect();
        assert_eq!(
            lines,
            [
                "problem: positions are not saved: disk full",
                "problem: access: access denied to web-access"
            ]
        );
    }

    #[test]
    fn a_stopped_agent_shows_its_files() {
        let mut status = status();
        status.running = false;
        status.checkpoint_age_seconds = None;
        status.flows[0].files.truncate(1);
        insta::assert_snapshot!(Page::new(&status, Style::plain()).to_string(), @r#"
        kinetail 1.2.3: not running
        state in /var/lib/kinetail

        access → web-access
          file                       state         offset     size       lag  acknowledged   lines  in flight  dead-lettered  skipped  lost
          /var/log/nginx/access.log  following  6,000,000  5.8 MiB  97.7 KiB       5.7 MiB  30,000        0 B            0 B      0 B   0 B
        "#);
    }

    #[test]
    fn a_flow_without_files_says_so() {
        let flow =
            FlowStatus { name: "a".to_owned(), stream: "s".to_owned(), ..FlowStatus::default() };
        let status = Status { flows: vec![flow], ..Status::default() };
        let page = Page::new(&status, Style::plain()).to_string();
        assert!(page.ends_with("\na → s\n  no files\n"), "{page}");
    }
}
