//! What is true of every flow, whatever the lines, the chunks, the keys, the ages and the limits.

use proptest::prelude::*;

use super::*;
use crate::config::Compression;
use crate::record::compression::{Algorithm, Decompressor};
use crate::record::split::{By, Splitter};
use crate::record::{json_array, kpl, lines};

/// The inputs of one history.
#[derive(Clone, Debug)]
struct History {
    format: Format,
    compression: Option<Compression>,
    partition_key: u8,
    max_lines: Option<u32>,
    max_bytes: usize,
    limit: usize,
    buffer: usize,
    on_oversize: OnOversize,
    multiline: bool,
    files: Vec<Vec<u8>>,
    sizes: Vec<usize>,
    ticks: Vec<u8>,
}

impl History {
    fn flow(&self) -> Produce {
        let mut flow = flow(self.format.clone());
        flow.merge.compression = self.compression;
        flow.merge.max_lines = self.max_lines;
        flow.merge.max_bytes = self.max_bytes;
        flow.on_oversize = self.on_oversize;
        flow.tail.buffer = self.buffer;
        flow.partition_key = match self.partition_key {
            0 => PartitionKey::File,
            1 => PartitionKey::Host,
            2 => PartitionKey::Random,
            3 => PartitionKey::Regex(Regex::new("([a-z#])").unwrap()),
            _ => PartitionKey::JsonField(vec!["k".to_owned()]),
        };
        flow.multiline = self.multiline.then(|| Multiline {
            start: Regex::new("^a").unwrap(),
            max_age: Duration::from_millis(3),
            max_bytes: 60,
        });
        flow
    }

    /// Runs the history: files take turns, the clock moves a millisecond a chunk.
    fn run(&self) -> Vec<Output> {
        let mut flow = self.flow();
        flow.merge.max_age = Duration::from_millis(4);
        let (mut merger, mut out) = (merger(&flow, self.limit), Vec::new());
        let mut now = Instant::now();
        let mut files: Vec<_> = (1..)
            .zip(&self.files)
            .map(|(file, bytes)| chunks(file, bytes, &self.sizes, now).into_iter())
            .collect();
        for file in 1..=files.len() {
            merger.on_input(opened(file as u64, &format!("/{file}")), &mut out);
        }
        let mut ticks = self.ticks.iter().cycle();
        loop {
            let turn: Vec<_> = files.iter_mut().filter_map(Iterator::next).collect();
            if turn.is_empty() {
                break;
            }
            for mut chunk in turn {
                now += Duration::from_millis(1);
                chunk.read_at = now;
                let bytes = chunk.data.len();
                merger.on_input(tail::Output::Chunk(chunk), &mut out);
                assert!(merger.held_bytes() <= self.buffer + bytes + files.len());
                if ticks.next() == Some(&1) {
                    merger.on_tick(now, &mut out);
                    assert!(merger.next_deadline().is_none_or(|deadline| deadline > now));
                }
            }
        }
        merger.flush(&mut out);
        assert_eq!((merger.held_bytes(), merger.next_deadline()), (0, None));
        out
    }

    fn source(&self, run: &Run) -> &[u8] {
        let at = |offset: u64| usize::try_from(offset).unwrap();
        let file = at(run.span.file.0) - 1;
        &self.files[file][at(run.span.start)..at(run.span.end)]
    }
}

fn any_line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(prop::sample::select(&b"ab#-\r\x00\xff "[..]), 0..12),
        2 => "\\{\"k\":(\"[ab]\"|[0-9]|true|null)\\}".prop_map(String::into_bytes),
        1 => (0_usize..90).prop_map(|length| vec![b'x'; length]),
    ]
}

fn any_file() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(any_line(), 0..25), any::<bool>()).prop_map(|(lines, ends)| {
        let mut bytes = lines.join(&b"\n"[..]);
        if ends && !bytes.is_empty() {
            bytes.push(b'\n');
        }
        bytes
    })
}

fn any_format() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(lines_by("\n")),
        Just(lines_by("\n")),
        Just(lines_by("#-#")),
        Just(lines_by("#")),
        Just(Format::JsonArray),
        Just(Format::Kpl),
        Just(Format::None),
    ]
}

fn any_compression() -> impl Strategy<Value = Option<Compression>> {
    prop::sample::select(vec![
        None,
        None,
        None,
        Some(Compression::Gzip(1)),
        Some(Compression::Gzip(6)),
        Some(Compression::Zstd(1)),
        Some(Compression::Zstd(3)),
    ])
}

fn any_history() -> impl Strategy<Value = History> {
    let on_oversize =
        prop::sample::select(vec![OnOversize::Split, OnOversize::Skip, OnOversize::Truncate]);
    let limits = (
        prop::option::of(1_u32..5),
        18_usize..90,
        20_usize..120,
        prop::sample::select(vec![10_usize, 60, 1 << 20]),
    );
    let input = (
        prop::collection::vec(any_file(), 1..4),
        prop::collection::vec(1_usize..80, 1..4),
        prop::collection::vec(0_u8..2, 1..6),
    );
    let format = (any_format(), any_compression());
    (format, 0_u8..5, limits, on_oversize, prop::bool::weighted(0.3), input).prop_map(
        |(format, partition_key, limits, on_oversize, multiline, (files, sizes, ticks))| {
            let (format, compression) = format;
            let compression = compression.filter(|_| format != Format::None);
            let (max_lines, mut max_bytes, mut limit, buffer) = limits;
            if compression.is_some() {
                // What begins and ends the compressed data; the limit has room for its bound.
                max_bytes += 20;
                limit += 80;
            }
            if format == Format::Kpl {
                // Beside short lines, tags and headers count; the limit has room for the longest.
                max_bytes += 150;
                limit += aggregate::Aggregation::envelope(256);
            }
            History {
                format,
                compression,
                partition_key,
                max_lines,
                max_bytes,
                limit,
                buffer,
                on_oversize,
                multiline,
                files,
                sizes,
                ticks,
            }
        },
    )
}

/// Asserts that records and skipped runs are a partition of the files, by bytes and by lines.
fn assert_nothing_lost_or_doubled(history: &History, out: &[Output]) {
    let mut runs: Vec<Run> = Vec::new();
    for output in out {
        match output {
            Output::Record(record) => runs.extend(&record.runs),
            Output::Skipped(run) => {
                assert!(history.on_oversize != OnOversize::Split);
                runs.push(*run);
            }
            Output::File(_) => {}
        }
    }
    runs.sort_by_key(|run| (run.span.file, run.span.start));
    for (file, bytes) in (1..).map(FileKey).zip(&history.files) {
        let (mut end, mut count) = (0, 0);
        for run in runs.iter().filter(|run| run.span.file == file) {
            assert_eq!(run.span.start, end, "gap or overlap");
            end = run.span.end;
            count += run.lines as usize;
            assert!(run.mark.matches(&bytes[..usize::try_from(end).unwrap()]));
        }
        assert_eq!((end, count), (bytes.len() as u64, unit::lines(bytes)));
    }
}

/// Asserts that the runs of a key go forward in every file.
fn assert_order_within_keys(out: &[Output]) {
    let mut ends = std::collections::HashMap::new();
    for record in records(out).into_iter().filter(|record| record.ordered) {
        for run in &record.runs {
            let end = ends.entry((&record.partition_key, run.span.file)).or_insert(0);
            assert!(*end <= run.span.start, "overtaken");
            *end = run.span.end;
        }
    }
}

fn assert_limits(history: &History, record: &Record) {
    assert!(record.size() <= history.limit, "over the record limit");
    assert!((1..=256).contains(&record.partition_key.chars().count()));
    let lone = record.lines() <= 1 || history.multiline;
    assert!(lone || record.size() <= history.max_bytes, "over max_bytes");
    let max_lines = history.max_lines.map_or(u64::MAX, u64::from);
    assert!(lone || record.lines() <= max_lines, "over max_lines");
}

/// Asserts that a record's data decodes to the lines of its runs.
fn assert_decodes(history: &History, record: &Record) {
    let source: Vec<u8> = record.runs.iter().flat_map(|run| history.source(run)).copied().collect();
    let bare = source.strip_suffix(b"\n").unwrap_or(&source);
    let raw = record.lines() <= 1 || history.multiline;
    let data = unfolded(history, record);
    let lines_in: Vec<&[u8]> =
        record.runs.iter().flat_map(|run| lines::split(history.source(run), b"\n")).collect();
    match &history.format {
        Format::Lines { delimiter } if delimiter == b"\n" => assert_eq!(data, source),
        Format::None => assert_eq!(data, bare),
        Format::Kpl => assert_aggregates(record, &source),
        _ if raw && data == bare => {}
        _ if history.multiline => {}
        Format::Lines { delimiter } => {
            assert_eq!(lines::split(&data, delimiter).collect::<Vec<_>>(), lines_in);
        }
        Format::JsonArray => {
            let elements = json_array::split(&data).unwrap();
            assert_eq!(elements.len(), lines_in.len());
            for (found, line) in elements.into_iter().zip(lines_in) {
                let mut expected = Vec::new();
                assert!(json_array::element(line, &mut expected));
                assert_eq!(found, expected.trim_ascii());
            }
        }
    }
}

/// Returns the data of a record as it was before it was compressed as a whole.
fn unfolded(history: &History, record: &Record) -> Bytes {
    let algorithm = match history.compression {
        Some(_) if history.format == Format::Kpl => return record.data.clone(),
        None => return record.data.clone(),
        Some(Compression::Gzip(_)) => Algorithm::Gzip,
        Some(Compression::Zstd(_)) => Algorithm::Zstd,
    };
    assert_eq!(Algorithm::of(&record.data), Some(algorithm));
    Decompressor::default().decompress(algorithm, &record.data, 1 << 20).unwrap().into()
}

/// Asserts that an aggregate holds the source, under the outer key, and says where each run begins.
fn assert_aggregates(record: &Record, source: &[u8]) {
    let aggregate = kpl::decode(&record.data).unwrap();
    for user in aggregate.records() {
        assert_eq!(user.partition_key, record.partition_key.as_bytes());
        assert_eq!(user.explicit_hash_key, None);
    }
    assert!(record.ordered, "sent again under another key, it would not be its own any more");
    let pieces = Splitter::new(By::Kpl).split(&record.data);
    let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.to_vec()).collect();
    assert_eq!(joined, source);
    let origins = pieces.iter().filter_map(|piece| piece.origin.as_ref());
    let said: Vec<_> = origins.map(|o| (FileKey(o.source.generation), o.offset)).collect();
    let runs: Vec<_> = record.runs.iter().map(|run| (run.span.file, run.span.start)).collect();
    assert_eq!(said, runs);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_once_in_order_within_limits_and_decodes(history in any_history()) {
        let out = history.run();
        assert_nothing_lost_or_doubled(&history, &out);
        assert_order_within_keys(&out);
        for record in records(&out) {
            assert_limits(&history, record);
            assert_decodes(&history, record);
        }
    }

    #[test]
    fn records_do_not_depend_on_how_the_file_was_cut(
        mut history in any_history(),
        sizes in prop::collection::vec(1_usize..80, 1..4),
    ) {
        if history.compression.is_some() && history.partition_key > 2 {
            // Records of several keys learn from each other how well lines compress, in the order of
            // their age, which comes with the chunk.
            history.partition_key = 0;
        }
        let records_of = |sizes: Vec<usize>| {
            let files = vec![history.files[0].clone()];
            let (ticks, buffer) = (vec![0], 1 << 20);
            let history = History { buffer, files, sizes, ticks, ..history.clone() };
            let out = history.run();
            let key = |record: &Record| match history.partition_key {
                2 => Arc::from("random"),
                _ => Arc::clone(&record.partition_key),
            };
            let sent = |record: &&Record| (key(record), record.data.clone());
            records(&out).iter().map(sent).collect::<Vec<_>>()
        };
        prop_assert_eq!(records_of(history.sizes.clone()), records_of(sizes));
    }
}

#[test]
fn a_backlog_fills_records_to_98_percent() {
    let slices = |record: &Record| record.data.to_vec();
    let sizes = backlog(&flow(lines_by("\n")), slices);
    assert!(filled(&sizes) >= 98, "{} %", filled(&sizes));
    let sizes = backlog(&flow(Format::Kpl), |record| split(By::Kpl, record));
    assert!(filled(&sizes) >= 98, "{} %", filled(&sizes));
}

/// Filled after compression, and hardly a byte compressed twice.
#[test]
fn a_backlog_fills_compressed_records_to_95_percent() {
    for format in [lines_by("\n"), Format::Kpl] {
        for compression in [Compression::Gzip(6), Compression::Zstd(1)] {
            let mut flow = flow(format.clone());
            flow.merge.compression = Some(compression);
            let sizes = backlog(&flow, |record| split(By::Content, record));
            let filled = filled(&sizes);
            assert!(filled >= 95, "{format:?} {compression:?}: {filled} % of {}", sizes.len());
        }
    }
}

/// Files whose lines compress by four and by thirty, in turn under one key.
#[test]
fn files_of_several_formats_fill_compressed_records_under_one_key() {
    let mut flow = flow(lines_by("\n"));
    flow.merge.max_bytes = 25_000;
    flow.partition_key = PartitionKey::Random;
    flow.merge.compression = Some(Compression::Zstd(1));
    let (mut merger, mut out) = (merger(&flow, RecordLimit::FLOOR), Vec::new());
    let mut rng = fastrand::Rng::with_seed(22);
    let texts: Vec<_> = [8, 60]
        .into_iter()
        .map(|width| {
            let line = |rng: &mut fastrand::Rng| {
                format!("{:08x} GET /{} 200\n", rng.u32(..), "index/".repeat(width))
            };
            (0..5_000_000 / (width * 6 + 18)).map(|_| line(&mut rng)).collect::<String>()
        })
        .collect();
    let files: Vec<_> = (1..)
        .zip(&texts)
        .map(|(file, text)| chunks(file, text.as_bytes(), &[256 * 1024], Instant::now()))
        .collect();
    for turn in 0..files[0].len().max(files[1].len()) {
        for chunk in files.iter().filter_map(|chunks| chunks.get(turn)) {
            merger.on_input(tail::Output::Chunk(chunk.clone()), &mut out);
        }
    }
    let held = merger.held_bytes();
    let work = merger.records.packing.as_ref().map_or(0, |packing| packing.packer.work);
    let text = (texts.iter().map(String::len).sum::<usize>() - held) as u64;
    assert!(work <= text * 110 / 100, "{work} bytes were compressed of {text}");
    let sizes: Vec<_> = records(&out).iter().map(|record| record.size()).collect();
    assert!(filled(&sizes) >= 95, "{} % of {}", filled(&sizes), sizes.len());
}

fn split(by: By, record: &Record) -> Vec<u8> {
    let pieces = Splitter::new(by).split(&record.data);
    pieces.iter().flat_map(|piece| piece.data.to_vec()).collect()
}

/// Returns the average fill of all records but the last, in percent.
fn filled(sizes: &[usize]) -> usize {
    let full = sizes.split_last().map_or(sizes, |(_, full)| full);
    full.iter().sum::<usize>() * 100 / (full.len() * 25_000)
}

/// Merges 10 MB of one file into records of 25,000 bytes, and returns their sizes.
fn backlog(flow: &Produce, decode: impl Fn(&Record) -> Vec<u8>) -> Vec<usize> {
    let mut flow = flow.clone();
    flow.merge.max_bytes = 25_000;
    flow.partition_key = PartitionKey::File;
    let mut rng = fastrand::Rng::with_seed(20);
    let mut bytes = Vec::with_capacity(10_000_500);
    while bytes.len() < 10_000_000 {
        let (user, item) = (rng.u32(0..5_000), rng.u32(..));
        let words = ["GET", "POST", "index", "cart", "checkout", "search", "images", "api"];
        let path = words[rng.usize(..8)];
        let text = "x".repeat(rng.usize(0..200));
        let line = format!("10.0.0.{} user-{user} /{path}/{item} 200 {text}\n", item >> 24);
        bytes.extend_from_slice(line.as_bytes());
    }
    let mut merger = merger(&flow, RecordLimit::FLOOR);
    let mut out = Vec::new();
    merger.on_input(opened(1, "/var/log/app.log"), &mut out);
    for chunk in chunks(1, &bytes, &[256 * 1024], Instant::now()) {
        merger.on_input(tail::Output::Chunk(chunk), &mut out);
    }
    merger.flush(&mut out);
    if let Some(packing) = &merger.records.packing {
        let (work, most) = (packing.packer.work, bytes.len() as u64 * 115 / 100);
        assert!(work <= most, "{work} bytes were compressed of {}", bytes.len());
    }
    let records = records(&out);
    let joined: Vec<u8> = records.iter().flat_map(|record| decode(record)).collect();
    assert!(joined == bytes, "the records are the file");
    records.iter().map(|record| record.size()).collect()
}
