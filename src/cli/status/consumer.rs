//! A consuming flow on the status page, and what a stopped agent left of one.
//!
//! Invariant: a number that is not known is shown as `-`, never as 0.

use crate::checkpoint::ConsumerRows;
use crate::cli::figures::{bytes, count, many, seconds};
use crate::cli::screen::Style;
use crate::cli::table::{Align, Table};
use crate::config::{Consume, Layout};
use crate::status::{ConsumerStatus, ConsumerTotals, ShardStatus};

/// The characters of a sequence number that are shown: its last ones tell records apart.
const NUMBER_CHARS: usize = 12;

/// Returns the part of the page about a flow.
pub(super) fn shown(flow: &ConsumerStatus, running: bool, style: Style) -> String {
    let title = format!(
        "{} {} {} {} {}",
        style.bold(&flow.name),
        style.dim("←"),
        flow.stream,
        style.dim(&format!("({} to", flow.layout)),
        style.dim(&format!("{})", flow.directory)),
    );
    let nothing = if flow.shards.is_empty() { "  no shards\n" } else { "" };
    let written = if running { written(&flow.totals) } else { String::new() };
    format!("\n{title}\n{nothing}{}{written}", shards(&flow.shards))
}

fn shards(shards: &[ShardStatus]) -> String {
    if shards.is_empty() {
        return String::new();
    }
    let right = |heading| (heading, Align::Right);
    let mut table = Table::new(
        2,
        &[
            ("shard", Align::Left),
            ("state", Align::Left),
            right("position"),
            right("behind"),
            right("records"),
            right("lines"),
            right("bytes"),
            right("refused"),
            right("throttled"),
        ],
    );
    for shard in shards {
        let behind = shard.millis_behind_latest.map(|millis| seconds(millis / 1000));
        table.row([
            shard.shard.clone(),
            shard.state.clone(),
            shard.sequence_number.as_deref().map_or_else(|| "-".to_owned(), shortened),
            behind.unwrap_or_else(|| "-".to_owned()),
            count(shard.records),
            count(shard.lines),
            bytes(shard.bytes),
            count(shard.names_refused),
            count(shard.reads_throttled),
        ]);
    }
    table.to_string()
}

fn shortened(number: &str) -> String {
    let skipped = number.chars().count().saturating_sub(NUMBER_CHARS);
    let last: String = number.chars().skip(skipped).collect();
    if skipped > 0 { format!("…{last}") } else { last }
}

fn written(totals: &ConsumerTotals) -> String {
    let mut table = Table::new(2, &[("", Align::Left), ("", Align::Left)]);
    let lines = format!(
        "{} and {} of {} to {}, {} known already",
        bytes(totals.bytes),
        many(totals.lines, "line"),
        many(totals.records, "record"),
        many(totals.files, "file"),
        bytes(totals.duplicate_bytes),
    );
    table.row(["written".to_owned(), lines]);
    let elsewhere = format!(
        "{} refused, {} beyond max_files, {} not split",
        many(totals.names_refused, "name"),
        count(totals.beyond_max_files),
        many(totals.records_unsplit, "record"),
    );
    table.row(["elsewhere".to_owned(), elsewhere]);
    if totals.generations > 0 {
        let mirrored = format!(
            "{}, {} over and verified, {} damaged; {} missing",
            many(totals.generations, "generation"),
            count(totals.generations_verified),
            count(totals.generations_damaged),
            bytes(totals.missing_bytes),
        );
        table.row(["mirrored".to_owned(), mirrored]);
    }
    format!("\n{table}")
}

/// Returns a flow as its rows tell.
pub(super) fn stopped(flow: &Consume, rows: &ConsumerRows) -> ConsumerStatus {
    let shard = |row: &crate::checkpoint::ShardRow| ShardStatus {
        shard: row.shard.to_string(),
        state: if row.finished { "finished" } else { "waiting" }.to_owned(),
        sequence_number: row.progress.as_ref().map(|progress| progress.sequence.to_string()),
        ..ShardStatus::default()
    };
    let mirrored = rows.sources.iter().filter(|source| !source.name.is_empty()).count();
    let files = rows.outputs.len().saturating_add(mirrored);
    let totals = ConsumerTotals {
        files: files as u64,
        generations: mirrored as u64,
        ..ConsumerTotals::default()
    };
    ConsumerStatus {
        name: flow.name.to_string(),
        stream: flow.stream.clone(),
        directory: flow.directory.display().to_string(),
        layout: match flow.layout {
            Layout::Append => "append".to_owned(),
            Layout::Mirror => "mirror".to_owned(),
        },
        shards: rows.shards.iter().map(shard).collect(),
        totals,
        ..ConsumerStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_shown_with_its_shards() {
        let number = "49570000000000000000000000000000000000000000000000000042";
        let shard = ShardStatus {
            shard: "shardId-000000000000".to_owned(),
            state: "reading".to_owned(),
            sequence_number: Some(number.to_owned()),
            millis_behind_latest: Some(61_000),
            records: 12,
            bytes: 300_000,
            lines: 1_500,
            ..ShardStatus::default()
        };
        let waiting = ShardStatus {
            shard: "shardId-000000000001".to_owned(),
            state: "waiting".to_owned(),
            ..ShardStatus::default()
        };
        let flow = ConsumerStatus {
            name: "mirror".to_owned(),
            stream: "web".to_owned(),
            directory: "/srv/mirror".to_owned(),
            layout: "mirror".to_owned(),
            shards: vec![shard, waiting],
            totals: ConsumerTotals {
                records: 12,
                bytes: 300_000,
                lines: 1_500,
                files: 3,
                generations: 3,
                generations_verified: 2,
                ..ConsumerTotals::default()
            },
            ..ConsumerStatus::default()
        };
        insta::assert_snapshot!(shown(&flow, true, Style::plain()), @r##"

        mirror ← web (mirror to /srv/mirror)
          shard                 state         position      behind  records  lines      bytes  refused  throttled
          shardId-000000000000  reading  …000000000042  1 min 01 s       12  1,500  293.0 KiB        0          0
          shardId-000000000001  waiting              -           -        0      0        0 B        0          0

          written    293.0 KiB and 1,500 lines of 12 records to 3 files, 0 B known already
          elsewhere  0 names refused, 0 beyond max_files, 0 records not split
          mirrored   3 generations, 2 over and verified, 0 damaged; 0 B missing
        "##);
    }
}
