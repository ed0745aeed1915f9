//! Splitting, on one core, beside a plain copy of the same bytes: `cargo bench --bench split`.
//!
//! Invariant: what is measured is CPU time of one thread, so that other work of the machine counts little;
//! every round splits all records, and the pieces are as many bytes as the copy copies.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    unreachable_pub,
    reason = "a measurement, run by hand"
)]

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/support"]
mod support {
    pub mod generator;
}

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use kinetail::config::Config;
use kinetail::position::{FileKey, Preceding, Span};
use kinetail::produce::merge::{self, Merger, RecordLimit};
use kinetail::produce::tail::{Chunk, FileEvent, Newlines, Opened, Output};
use kinetail::record::split::{By, Splitter};
use support::generator::realistic;

/// Bytes of logs: beyond any cache, so that both the copy and the splitting read from memory.
const BYTES: u64 = 64_000_000;
/// Bytes that the agent reads at a time.
const CHUNK: usize = 200_000;
/// Rounds, of which the middle one counts.
const ROUNDS: usize = 11;

fn main() {
    let directory = tempfile::tempdir().unwrap();
    let files = realistic::generate(directory.path(), 1, 5, BYTES).unwrap();
    let logs: Vec<Bytes> = files.iter().map(|file| fs::read(&file.path).unwrap().into()).collect();
    let bytes: usize = logs.iter().map(Bytes::len).sum();
    let mut room = vec![0_u8; bytes];
    let copy = seconds(|| {
        let mut at = 0;
        for log in &logs {
            room[at..at + log.len()].copy_from_slice(black_box(log));
            at += log.len();
        }
        black_box(&room);
    });
    println!("{:24} {:>10} {:>10} {:>12}", "", "records", "MB/s", "of a copy's");
    row("a plain copy", 1, bytes, copy, copy);
    for format in ["lines", "json_array", "kpl"] {
        for compression in ["none", "gzip", "zstd"] {
            let records = merged(format, compression, &logs);
            let mut splitter = Splitter::new(By::Content);
            let split = |splitter: &mut Splitter| -> usize {
                let pieces = records.iter().flat_map(|record| splitter.split(black_box(record)));
                pieces.map(|piece| piece.data.len()).sum()
            };
            // Without the newlines, and quoted where they are no JSON, elements are other bytes.
            let found = split(&mut splitter);
            assert!(format == "json_array" || found == bytes, "{found} of {bytes} bytes");
            let taken = seconds(|| {
                black_box(split(&mut splitter));
            });
            row(&format!("{format}, {compression}"), records.len(), bytes, taken, copy);
        }
    }
}

fn row(name: &str, records: usize, bytes: usize, seconds: f64, copy: f64) {
    let speed = bytes as f64 / seconds / 1e6;
    println!("{name:24} {records:>10} {speed:>10.0} {:>11.0}%", copy / seconds * 100.0);
}

/// Returns the CPU seconds of the middle one of all rounds.
fn seconds(mut act: impl FnMut()) -> f64 {
    let mut rounds: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let before = cpu_nanoseconds();
            act();
            cpu_nanoseconds() - before
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2] as f64 / 1e9
}

/// Returns how long this thread has run.
fn cpu_nanoseconds() -> u64 {
    let told = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    told.split(' ').next().unwrap().parse().unwrap()
}

/// Returns the records that a flow makes of the logs.
fn merged(format: &str, compression: &str, logs: &[Bytes]) -> Vec<Bytes> {
    let text = format!(
        "state_dir: /nowhere\nproduce:\n  - name: split\n    files: [\"/nowhere/*.log\"]\n    stream: s\n    \
         merge: {{ format: {format}, compression: {compression}, max_age: 1 h }}\n"
    );
    let flow = Config::parse(&text, "agent.yaml").unwrap().produce.remove(0);
    let limit = Arc::new(RecordLimit::default());
    let mut merger = Merger::new(&flow, "host", limit, fastrand::Rng::with_seed(1));
    let (mut out, now) = (Vec::new(), Instant::now());
    for (log, number) in logs.iter().zip(0..) {
        merger.on_input(opened(number), &mut out);
        let mut start = 0;
        while start < log.len() {
            let room = &log[start..log.len().min(start + CHUNK)];
            let end = start + memchr::memrchr(b'\n', room).map_or(room.len(), |place| place + 1);
            let span = Span { file: FileKey(number), start: start as u64, end: end as u64 };
            let data = log.slice(start..end);
            let chunk = Chunk {
                span,
                origin: path(number),
                newlines: Newlines::of(&data),
                data,
                preceding: Preceding::default(),
                starts_line: true,
                ends_line: true,
                read_at: now,
            };
            merger.on_input(Output::Chunk(chunk), &mut out);
            start = end;
        }
    }
    merger.flush(&mut out);
    let data = |output| match output {
        merge::Output::Record(record) => Some(record.data),
        _ => None,
    };
    out.into_iter().filter_map(data).collect()
}

fn path(file: u64) -> Arc<Path> {
    Arc::from(Path::new(&format!("/nowhere/{file}.log")))
}

fn opened(file: u64) -> Output {
    let path: Arc<Path> = Arc::from(Path::new(&format!("/nowhere/{file}.log")));
    Output::File(FileEvent::Opened(Opened::begun(FileKey(file), path)))
}
