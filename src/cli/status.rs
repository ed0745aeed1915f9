//! `kinetail status`: how far every file is, and what is wrong.
//!
//! Invariant: an agent that answers is the truth; only where none runs, the state directory is
//! read, and then without changing it.

mod consumer;
mod page;

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, anyhow};
use clap::Args;

use self::page::Page;
use super::exit::{Exit, ExitWith, Failure};
use super::screen::Style;
use super::{ConfigFile, load, print};
use crate::checkpoint::{self, FileRow, View};
use crate::config::{Config, Produce};
use crate::control;
use crate::status::{FileStatus, FlowStatus, Status, Totals};

pub(super) const ABOUT: &str = "\
Show how far every file is, what was sent, how far every shard that is consumed is, and what is
wrong: as the running agent says, or, where none runs, as the state directory was left. Problems
stand on top.

With --json, print the whole status as JSON. Its field names are stable; new ones may be added.
For every file, read_bytes = acknowledged_bytes + dead_lettered_bytes + skipped_bytes +
in_flight_bytes.";

pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  shown
  64  the command line is wrong
  74  no agent runs and the state directory cannot be read, or the agent does not answer
  78  the configuration is wrong";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let config = load(&arguments.file.config)?;
    let status = match control::client::status(&config.state_dir).exit_with(Exit::Io)? {
        Some(status) => status,
        None => left_behind(&config)?,
    };
    if arguments.json {
        let mut text = serde_json::to_vec_pretty(&status).exit_with(Exit::Bug)?;
        text.push(b'\n');
        return print(&text);
    }
    print(Page::new(&status, Style::detect()).to_string().as_bytes())
}

/// Reads what a stopped agent left in the state directory.
fn left_behind(config: &Config) -> Result<Status, Failure> {
    let state_dir = &config.state_dir;
    if let Err(error) = std::fs::metadata(checkpoint::path_in(state_dir)) {
        let words = format!(
            "no agent runs with this configuration, and none has left checkpoints in {}",
            state_dir.display()
        );
        return Err(anyhow!(error).context(words)).exit_with(Exit::Io);
    }
    let read = || {
        let view = View::open(state_dir)?;
        let consumers = config
            .consume
            .iter()
            .map(|flow| Ok(consumer::stopped(flow, &view.consumer(&flow.name)?)));
        Ok::<_, checkpoint::Error>((view.files()?, consumers.collect::<Result<_, _>>()?))
    };
    let (rows, consumers): (Vec<FileRow>, _) = read()
        .with_context(|| format!("no agent runs, and {} cannot be read", state_dir.display()))
        .exit_with(Exit::Io)?;
    let of = |flow: &Produce| -> Vec<FileRow> {
        rows.iter().filter(|row| row.flow == flow.name).cloned().collect()
    };
    let flows = config.produce.iter().map(|flow| stopped(flow, &of(flow), size_now)).collect();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state_dir: state_dir.display().to_string(),
        flows,
        consumers,
        ..Status::default()
    })
}

/// Returns the size of the file of `row` where it still stands at its path.
fn size_now(row: &FileRow) -> Option<u64> {
    let metadata = std::fs::metadata(&row.path).ok()?;
    let same = metadata.ino() == row.identity.inode && metadata.dev() == row.identity.device;
    same.then_some(metadata.len())
}

/// Returns a flow as its rows tell: nothing is in flight, and what was read is what is settled.
fn stopped(
    flow: &Produce,
    rows: &[FileRow],
    size_now: impl Fn(&FileRow) -> Option<u64>,
) -> FlowStatus {
    let mut files: Vec<FileStatus> =
        rows.iter().map(|row| stopped_file(row, size_now(row))).collect();
    files.sort_by(|one, other| (&one.path, one.key).cmp(&(&other.path, other.key)));
    let mut totals = Totals::default();
    for file in &files {
        totals.read_bytes += file.read_bytes;
        totals.acknowledged_bytes += file.acknowledged_bytes;
        totals.acknowledged_lines += file.acknowledged_lines;
        totals.dead_lettered_bytes += file.dead_lettered_bytes;
        totals.skipped_bytes += file.skipped_bytes;
        totals.lost_bytes += file.lost_bytes;
    }
    FlowStatus {
        name: flow.name.to_string(),
        stream: flow.stream.clone(),
        files,
        totals,
        ..FlowStatus::default()
    }
}

fn stopped_file(row: &FileRow, size_now: Option<u64>) -> FileStatus {
    let state = match (row.ended, size_now) {
        (true, _) => "ended",
        (false, Some(_)) => "following",
        (false, None) => "rotated",
    };
    row.status(size_now.unwrap_or(row.size), state)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::checkpoint::Books;
    use crate::position::{FileKey, Identity, Mark, Position};

    fn row(ended: bool) -> FileRow {
        FileRow {
            key: FileKey(3),
            flow: Arc::from("access"),
            path: Arc::from(Path::new("/var/log/access.log")),
            origin: Arc::from(Path::new("/var/log/access.log")),
            identity: Identity::default(),
            position: Position { offset: 60, mark: Mark::default() },
            size: 100,
            ended,
            books: Books { acknowledged: 50, dead_lettered: 7, skipped: 3, lost: 11, lines: 5 },
        }
    }

    #[test]
    fn the_books_of_a_stopped_agent_balance() {
        let file = stopped_file(&row(false), Some(160));
        assert_eq!((file.offset, file.size, file.lag_bytes), (60, 160, 100));
        assert_eq!((file.read_bytes, file.in_flight_bytes, file.lost_bytes), (60, 0, 11));
        assert_eq!(file.state, "following");
    }

    #[test]
    fn a_file_that_is_elsewhere_now_lags_by_the_size_last_seen() {
        let file = stopped_file(&row(false), None);
        assert_eq!((file.size, file.lag_bytes, file.state.as_str()), (100, 40, "rotated"));
    }

    #[test]
    fn an_ended_generation_does_not_lag() {
        let file = stopped_file(&row(true), None);
        assert_eq!((file.lag_bytes, file.state.as_str()), (0, "ended"));
    }
}
