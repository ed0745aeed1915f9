//! The rules of merging, one test each; `properties` holds what is true of all of them.

mod properties;

use std::path::Path;

use bytes::Bytes;
use regex::bytes::Regex;

use super::*;
use crate::config::{
    Compression, Format, Merge, Multiline, OnOversize, PartitionKey, Ship, StartAt, Tail,
};
use crate::position::{Mark, Preceding, Span};
use crate::produce::tail::{Newlines, Opened};
use crate::record::kpl;
use crate::record::split::{By, Splitter};

/// A flow with room for 100 bytes a record and its key; tests change what they are about.
fn flow(format: Format) -> Produce {
    let second = Duration::from_secs(1);
    Produce {
        name: Arc::from("test"),
        files: Vec::new(),
        exclude: Vec::new(),
        stream: "test".to_owned(),
        start_at: StartAt::Beginning,
        merge: Merge { format, max_bytes: 101, max_age: second, ..Merge::default() },
        partition_key: PartitionKey::Constant(Arc::from("k")),
        multiline: None,
        on_oversize: OnOversize::Split,
        tail: Tail {
            buffer: 8 << 20,
            open_files: 512,
            scan_interval: second,
            poll_interval: second,
            hold_rotated: second,
            hold_unread: second,
            hold_deleted_bytes: 1 << 30,
        },
        ship: Ship {
            request_records: 500,
            request_bytes: 1_000_000,
            joined_bytes: 0,
            in_flight: 4,
            timeout: second,
            backoff_max: second,
        },
    }
}

fn lines_by(delimiter: &str) -> Format {
    Format::Lines { delimiter: delimiter.as_bytes().to_vec() }
}

fn merger(flow: &Produce, limit: usize) -> Merger {
    let limit = Arc::new(RecordLimit::with_floor(limit));
    Merger::new(flow, "host", limit, fastrand::Rng::with_seed(7))
}

fn opened(file: u64, origin: &str) -> tail::Output {
    let origin = Arc::from(Path::new(origin));
    tail::Output::File(FileEvent::Opened(Opened::begun(FileKey(file), origin)))
}

fn closed(file: u64, end: u64) -> tail::Output {
    tail::Output::File(FileEvent::Closed { key: FileKey(file), end, gone: true })
}

/// Cuts a file into chunks as reading does: whole lines of at most a size, or pieces of longer
/// lines; the sizes take turns.
fn chunks(file: u64, bytes: &[u8], sizes: &[usize], read_at: Instant) -> Vec<Chunk> {
    let (mut from, mut starts_line, mut preceding) = (0, true, Preceding::default());
    let origin: Arc<Path> = Arc::from(Path::new(&format!("/{file}.log")));
    let mut chunks = Vec::new();
    for size in sizes.iter().cycle() {
        let rest = &bytes[from..];
        if rest.is_empty() {
            break;
        }
        let window = &rest[..rest.len().min(*size)];
        let (len, ends_line) = match memrchr(b'\n', window) {
            _ if window.len() == rest.len() => (rest.len(), true),
            Some(newline) => (newline + 1, true),
            None => (window.len(), false),
        };
        let span = Span { file: FileKey(file), start: from as u64, end: (from + len) as u64 };
        let data = Bytes::copy_from_slice(&rest[..len]);
        let next = preceding.after(&data);
        let origin = Arc::clone(&origin);
        let newlines = Newlines::of(&data);
        chunks.push(Chunk {
            span,
            origin,
            data,
            newlines,
            preceding,
            starts_line,
            ends_line,
            read_at,
        });
        (from, starts_line, preceding) = (from + len, ends_line, next);
    }
    chunks
}

/// Merges one file in chunks of a size and returns what comes out, the end included.
fn merged(flow: &Produce, limit: usize, bytes: &[u8], size: usize) -> Vec<Output> {
    let (mut merger, mut out) = (merger(flow, limit), Vec::new());
    for chunk in chunks(1, bytes, &[size], Instant::now()) {
        merger.on_input(tail::Output::Chunk(chunk), &mut out);
    }
    merger.flush(&mut out);
    assert_eq!(merger.held_bytes(), 0);
    out
}

fn records(out: &[Output]) -> Vec<&Record> {
    out.iter()
        .filter_map(|output| if let Output::Record(record) = output { Some(record) } else { None })
        .collect()
}

fn texts(out: &[Output]) -> Vec<String> {
    let text = |record: &&Record| String::from_utf8_lossy(&record.data).into_owned();
    records(out).iter().map(text).collect()
}

fn text_of(flow: &Produce, limit: usize, bytes: &str) -> Vec<String> {
    texts(&merged(flow, limit, bytes.as_bytes(), 1 << 20))
}

#[test]
fn lines_are_an_exact_slice_of_the_file() {
    let flow = flow(lines_by("\n"));
    assert_eq!(text_of(&flow, 1000, "a\r\n\n b \nlast"), ["a\r\n\n b \nlast"]);
}

#[test]
fn a_record_full_within_a_chunk_is_a_slice_of_it() {
    let mut flow = flow(lines_by("\n"));
    flow.merge.max_lines = Some(2);
    let chunk = chunks(1, b"a\nb\nc\n", &[100], Instant::now()).remove(0);
    let (mut merger, mut out) = (merger(&flow, 1000), Vec::new());
    merger.on_input(tail::Output::Chunk(chunk.clone()), &mut out);
    assert_eq!(texts(&out), ["a\nb\n"]);
    assert_eq!(records(&out)[0].data.as_ptr(), chunk.data.as_ptr());
    assert_eq!(merger.held_bytes(), 2);
}

#[test]
fn a_last_line_without_newline_ends_its_record() {
    let flow = flow(lines_by("\n"));
    let (mut merger, mut out) = (merger(&flow, 1000), Vec::new());
    for chunk in [&b"a\nb"[..], b"c\n"].iter().zip(1..) {
        let chunk = chunks(chunk.1, chunk.0, &[100], Instant::now()).remove(0);
        merger.on_input(tail::Output::Chunk(chunk), &mut out);
    }
    merger.flush(&mut out);
    assert_eq!(texts(&out), ["a\nb", "c\n"]);
}

#[test]
fn lines_of_several_files_share_a_record_under_one_key() {
    let mut flow = flow(lines_by("\n"));
    let now = Instant::now();
    let mut run = |partition_key| {
        flow.partition_key = partition_key;
        let (mut merger, mut out) = (merger(&flow, 1000), Vec::new());
        for (file, bytes) in [(1, &b"a\n"[..]), (2, b"b\n")] {
            merger.on_input(opened(file, &format!("/{file}")), &mut out);
            let chunk = chunks(file, bytes, &[100], now).remove(0);
            merger.on_input(tail::Output::Chunk(chunk), &mut out);
        }
        merger.flush(&mut out);
        let ordered: Vec<_> = records(&out).iter().map(|record| record.ordered).collect();
        (texts(&out), ordered)
    };
    let (together, apart) = (vec!["a\nb\n".to_owned()], vec!["a\n".to_owned(), "b\n".to_owned()]);
    assert_eq!(run(PartitionKey::Host), (together.clone(), vec![true]));
    assert_eq!(run(PartitionKey::Random), (together, vec![false]));
    assert_eq!(run(PartitionKey::File), (apart, vec![true, true]));
}

#[test]
fn another_delimiter_stands_between_lines_and_max_lines_holds() {
    let mut flow = flow(lines_by("#-#"));
    flow.merge.max_lines = Some(2);
    assert_eq!(text_of(&flow, 1000, "a\r\nb\n\nc\nd"), ["a\r#-#b", "#-#c", "d"]);
}

#[test]
fn a_line_that_contains_the_delimiter_goes_alone() {
    let flow = flow(lines_by("#-#"));
    assert_eq!(text_of(&flow, 1000, "a\nx#-#y\nb\nc#-\nd\n"), ["a", "x#-#y", "b", "c#-", "d"]);
}

#[test]
fn a_json_array_holds_one_element_a_line() {
    let flow = flow(Format::JsonArray);
    assert_eq!(text_of(&flow, 1000, "{\"a\":1}\n\nhi\n"), [r#"[{"a":1},"","hi"]"#]);
    let out = merged(&flow, 1000, b"1\n\xff\n2\n", 100);
    assert_eq!(texts(&out), ["[1]", "\u{fffd}", "[2]"]);
    let long = format!("\"{}\"", "x".repeat(200));
    assert_eq!(text_of(&flow, 1000, &long), [format!("[{long}]")]);
    assert_eq!(text_of(&flow, 203, &long), [long], "no room for the brackets");
}

#[test]
fn none_sends_a_line_a_record_and_empty_lines_too() {
    assert_eq!(text_of(&flow(Format::None), 1000, "a\n\nb\r\nc"), ["a", "", "b\r", "c"]);
}

#[test]
fn max_bytes_counts_the_key_and_a_longer_line_goes_alone() {
    let mut flow = flow(lines_by("\n"));
    flow.merge.max_bytes = 5;
    assert_eq!(
        text_of(&flow, 1000, "a\nb\ncccccccc\nd\ne\nf\n"),
        ["a\nb\n", "cccccccc\n", "d\ne\n", "f\n"]
    );
    flow.merge.format = lines_by("#");
    assert_eq!(text_of(&flow, 1000, "a\nb\ncccccccc\nd\n"), ["a#b", "cccccccc", "d"]);
}

#[test]
fn a_line_over_the_limit_is_split_truncated_or_skipped() {
    for size in [1000, 7, 3, 1] {
        for (format, parts) in [
            (lines_by("\n"), ["aaaaaaaaaa", "bbbbbbbbb\n"]),
            (Format::None, ["aaaaaaaaaa", "bbbbbbbbb"]),
        ] {
            let mut flow = flow(format);
            flow.merge.max_bytes = 11;
            let input = b"x\naaaaaaaaaabbbbbbbbb\ny\n";
            let mut run = |on_oversize| {
                flow.on_oversize = on_oversize;
                let out = merged(&flow, 11, input, size);
                let skipped = |output: &Output| {
                    if let Output::Skipped(run) = output { run.span.len() } else { 0 }
                };
                let bytes: u64 = out.iter().map(skipped).sum();
                let texts: Vec<_> =
                    texts(&out).iter().map(|text| text.trim_end().to_owned()).collect();
                (texts.join("|"), bytes)
            };
            let (one, two) = (parts[0], parts[1].trim_end());
            assert_eq!(run(OnOversize::Split), (format!("x|{one}|{two}|y"), 0), "{size}");
            assert_eq!(run(OnOversize::Truncate), (format!("x|{one}|y"), 10), "{size}");
            assert_eq!(run(OnOversize::Skip), ("x|y".to_owned(), 20), "{size}");
        }
    }
}

#[test]
fn a_limit_that_moves_holds_from_then_on() {
    let flow = flow(Format::None);
    let limit = Arc::new(RecordLimit::with_floor(11));
    limit.set(1000);
    let rng = fastrand::Rng::with_seed(1);
    let (mut merger, mut out) = (Merger::new(&flow, "h", Arc::clone(&limit), rng), Vec::new());
    let mut parts = chunks(1, &[b'a'; 30], &[20], Instant::now()).into_iter();
    merger.on_input(tail::Output::Chunk(parts.next().unwrap()), &mut out);
    assert!(out.is_empty());
    limit.set(0);
    merger.on_input(tail::Output::Chunk(parts.next().unwrap()), &mut out);
    assert_eq!(texts(&out), ["a".repeat(10), "a".repeat(10), "a".repeat(10)]);
    limit.set(usize::MAX);
    assert_eq!((limit.get(), limit.floor()), (RecordLimit::CEILING, 11));
}

#[test]
fn pieces_of_a_line_share_one_key_even_where_keys_are_random() {
    let mut flow = flow(Format::None);
    flow.partition_key = PartitionKey::Random;
    let out = merged(&flow, 26, &[b'a'; 25], 7);
    let keys: Vec<_> = records(&out).iter().map(|record| &record.partition_key).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert!(records(&out).iter().all(|record| record.ordered));
}

#[test]
fn keys_in_lines_sort_them_into_records() {
    let mut flow = flow(lines_by("\n"));
    flow.partition_key = PartitionKey::Regex(Regex::new("^u=(.)").unwrap());
    let out = merged(&flow, 1000, b"u=1 a\nu=2 b\nu=1 c\n", 100);
    assert_eq!(texts(&out), ["u=1 a\nu=1 c\n", "u=2 b\n"]);
    assert_eq!(records(&out)[0].runs.len(), 2);
    let many: Vec<String> = (0..=fill::OPEN_RECORDS)
        .filter_map(|at| char::from_u32(0x4e00 + u32::try_from(at).unwrap()))
        .map(|character| format!("u={character}\n"))
        .collect();
    let (mut merger, mut out) = (merger(&flow, 1 << 20), Vec::new());
    let chunk = chunks(1, many.concat().as_bytes(), &[1 << 20], Instant::now()).remove(0);
    merger.on_input(tail::Output::Chunk(chunk), &mut out);
    assert_eq!(texts(&out), ["u=\u{4e00}\n"], "the oldest makes room");
}

#[test]
fn age_counts_from_the_oldest_line() {
    let flow = flow(lines_by("\n"));
    let (mut merger, mut out) = (merger(&flow, 1000), Vec::new());
    let now = Instant::now();
    let half = Duration::from_millis(500);
    assert_eq!(merger.next_deadline(), None);
    for (file, at) in [(1, now), (2, now + half)] {
        let chunk = chunks(file, b"a\n", &[100], at).remove(0);
        merger.on_input(tail::Output::Chunk(chunk), &mut out);
    }
    assert_eq!(merger.next_deadline(), Some(now + 2 * half));
    merger.on_tick(now + half, &mut out);
    assert!(out.is_empty());
    merger.on_tick(now + 2 * half, &mut out);
    assert_eq!((texts(&out), merger.next_deadline()), (vec!["a\na\n".to_owned()], None));
}

#[test]
fn without_an_age_nothing_waits() {
    let mut flow = flow(lines_by("\n"));
    flow.merge.max_age = Duration::ZERO;
    let (mut merger, mut out) = (merger(&flow, 1000), Vec::new());
    let chunk = chunks(1, b"a\nb\n", &[100], Instant::now()).remove(0);
    merger.on_input(tail::Output::Chunk(chunk), &mut out);
    assert_eq!((texts(&out), merger.held_bytes()), (vec!["a\nb\n".to_owned()], 0));
}

#[test]
fn a_closed_file_leaves_nothing_behind_but_what_waits_for_its_age() {
    let flow = flow(lines_by("\n"));
    let (mut merger, mut out) = (merger(&flow, 1000), Vec::new());
    merger.on_input(opened(1, "/a"), &mut out);
    let first = chunks(1, b"a\nbroken off", &[5, 3], Instant::now());
    for chunk in first.into_iter().take(2) {
        merger.on_input(tail::Output::Chunk(chunk), &mut out);
    }
    merger.on_input(closed(1, 5), &mut out);
    assert!(matches!(
        out[..],
        [Output::File(FileEvent::Opened(_)), Output::File(FileEvent::Closed { .. })]
    ));
    assert!(merger.files.is_empty());
    merger.flush(&mut out);
    assert_eq!(texts(&out), ["a\nbro"]);
}

#[test]
fn what_is_held_is_bounded_by_the_buffer() {
    let mut flow = flow(lines_by("\n"));
    flow.merge.max_bytes = 1000;
    flow.partition_key = PartitionKey::File;
    flow.tail.buffer = 50;
    let (mut merger, mut out) = (merger(&flow, 1000), Vec::new());
    for file in 1..20 {
        merger.on_input(opened(file, &file.to_string()), &mut out);
        for chunk in chunks(file, b"line\nbroken off", &[5], Instant::now()).into_iter().take(2) {
            merger.on_input(tail::Output::Chunk(chunk), &mut out);
            assert!(merger.held_bytes() <= 60, "{}", merger.held_bytes());
        }
    }
}

#[test]
fn while_reading_starves_the_fullest_records_go_until_it_does_not_for_them() {
    let mut flow = flow(lines_by("\n"));
    flow.partition_key = PartitionKey::File;
    flow.merge.compression = Some(Compression::Zstd(1));
    flow.merge.max_bytes = 25_000;
    flow.tail.buffer = 2 << 20;
    let (mut merger, mut out) = (merger(&flow, 1 << 20), Vec::new());
    for (file, kib) in [(1, 150), (2, 250), (3, 50), (4, 200)] {
        let text = format!("{file}\n").repeat(kib * 512);
        for chunk in chunks(file, text.as_bytes(), &[text.len()], Instant::now()) {
            merger.on_input(tail::Output::Chunk(chunk), &mut out);
        }
    }
    assert!(records(&out).is_empty() && merger.held_bytes() > 650 << 10);
    merger.on_input(tail::Output::Starved, &mut out);
    let gone: Vec<_> = records(&out).iter().map(|record| record.runs[0].span.file.0).collect();
    assert_eq!(gone, [2, 4]);
    assert!(merger.held_bytes() <= may_wait(2 << 20), "{}", merger.held_bytes());
    out.clear();
    merger.on_input(tail::Output::Starved, &mut out);
    assert!(records(&out).is_empty(), "what is kept is not what reading waits for");
}

fn traces() -> Produce {
    let mut flow = flow(lines_by("\n"));
    flow.merge.max_bytes = 21;
    flow.multiline = Some(Multiline {
        start: Regex::new("^[A-Z]").unwrap(),
        max_age: Duration::from_millis(300),
        max_bytes: 40,
    });
    flow
}

#[test]
fn a_group_is_never_torn() {
    let mut flow = traces();
    let input = " before\nOne\n at a\nTwo\n at b\n at c\nThree\n";
    let groups = [" before\nOne\n at a\n", "Two\n at b\n at c\n", "Three\n"];
    assert_eq!(text_of(&flow, 1000, input), groups);
    flow.merge.format = Format::None;
    let alone = [" before", "One\n at a", "Two\n at b\n at c", "Three"];
    assert_eq!(text_of(&flow, 1000, input), alone);
    flow.merge.format = lines_by("#");
    assert_eq!(text_of(&flow, 1000, "A\n b\nC\n"), ["A\n b#C"]);
    flow.merge.format = Format::JsonArray;
    assert_eq!(text_of(&flow, 1000, "A\n b\n"), [r#"["A\n b"]"#]);
}

#[test]
fn a_group_is_cut_at_a_line_end_where_it_is_too_long() {
    let flow = traces();
    let line = " 345678\n";
    let input = format!("One\n{}", line.repeat(6));
    let cut = [format!("One\n{}", line.repeat(4)), line.repeat(2)];
    assert_eq!(text_of(&flow, 1000, &input), cut);
}

#[test]
fn a_group_waits_for_its_next_line_no_longer_than_its_age() {
    let flow = traces();
    let (mut merger, mut out) = (merger(&flow, 1000), Vec::new());
    let now = Instant::now();
    let at = |milliseconds| now + Duration::from_millis(milliseconds);
    let parts = chunks(1, b"One\n at a\nTwo\n", &[6], now);
    for (mut chunk, read_at) in parts.into_iter().zip([at(0), at(200), at(250)]) {
        chunk.read_at = read_at;
        merger.on_input(tail::Output::Chunk(chunk), &mut out);
    }
    assert!(out.is_empty());
    assert!(merger.next_deadline().unwrap() > at(500));
    merger.on_tick(at(550), &mut out);
    assert_eq!(merger.next_deadline(), Some(at(1000)), "the age of its oldest line is left");
    merger.on_tick(at(1000), &mut out);
    assert_eq!(texts(&out), ["One\n at a\nTwo\n"]);
}

#[test]
fn a_run_carries_the_mark_of_its_end() {
    let flow = flow(lines_by("\n"));
    let bytes = "0123456789abcdef\n".repeat(30);
    for record in records(&merged(&flow, 1000, bytes.as_bytes(), 40)) {
        for run in &record.runs {
            let before = &bytes.as_bytes()[..usize::try_from(run.span.end).unwrap()];
            assert!(run.mark != Mark::default() && run.mark.matches(before));
        }
    }
}

/// A file may have ended long before its lines are compressed: what is said of it is not forgotten.
#[test]
fn a_compressed_aggregate_tells_of_files_that_have_ended() {
    let mut flow = flow(Format::Kpl);
    flow.merge.compression = Some(Compression::Zstd(1));
    flow.merge.max_bytes = 25_000;
    let (mut merger, mut out) = (merger(&flow, RecordLimit::FLOOR), Vec::new());
    for file in 1..=3 {
        merger.on_input(opened(file, &format!("/var/log/{file}.log")), &mut out);
        for chunk in chunks(file, b"one\ntwo\n", &[4], Instant::now()) {
            merger.on_input(tail::Output::Chunk(chunk), &mut out);
        }
        merger.on_input(closed(file, 8), &mut out);
    }
    assert!(records(&out).is_empty(), "small files wait for company under one key");
    merger.flush(&mut out);
    let record = records(&out)[0];
    assert_eq!(kpl::decode(&record.data).unwrap().len(), 3, "a frame for each run");
    let pieces = Splitter::new(By::Content).split(&record.data);
    let origins: Vec<_> = pieces.iter().filter_map(|piece| piece.origin.as_ref()).collect();
    let said: Vec<_> =
        origins.iter().map(|o| (o.source.path.to_str().unwrap(), o.offset)).collect();
    assert_eq!(said, [("/var/log/1.log", 0), ("/var/log/2.log", 0), ("/var/log/3.log", 0)]);
    assert_eq!(pieces.len(), 6);
}

/// What had no room in a compressed record is young: it waits as long as any line.
#[test]
fn what_a_full_record_leaves_waits_from_when_it_was_read() {
    let mut flow = flow(lines_by("\n"));
    flow.merge.compression = Some(Compression::Zstd(1));
    flow.merge.max_bytes = 2_000;
    let (mut merger, mut out) = (merger(&flow, RecordLimit::FLOOR), Vec::new());
    let mut rng = fastrand::Rng::with_seed(3);
    let text: Vec<u8> = std::iter::repeat_with(|| format!("{:016x}\n", rng.u64(..)))
        .take(4_000)
        .flat_map(String::into_bytes)
        .collect();
    let mut now = Instant::now();
    for mut chunk in chunks(1, &text, &[170], now) {
        now += Duration::from_millis(10);
        chunk.read_at = now;
        merger.on_input(tail::Output::Chunk(chunk), &mut out);
        merger.on_tick(now, &mut out);
        let left = merger.next_deadline().map(|deadline| deadline.duration_since(now));
        assert!(left.is_none_or(|left| left > Duration::from_millis(100)), "{left:?}");
    }
    let sizes: Vec<_> = records(&out).iter().map(|record| record.size()).collect();
    assert!(sizes.len() > 10 && sizes.iter().all(|size| *size > 1_700), "{sizes:?}");
}
