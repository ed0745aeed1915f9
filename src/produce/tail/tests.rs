//! The tailer on real files, driven a step at a time. Goal: every byte once, in order, whatever
//! happens to the files. Method: after each change of the file system the tailer is stepped until it
//! has nothing to do; what it passed on is put together by generation and compared.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

mod coming;
mod descriptors;
mod haste;
mod play;
mod races;

use super::buffer::{BLOCK, Budget};
use super::tailer::{Surroundings, Tailer};
use super::wake::Wake;
use super::{FileEvent, Opened, Output, TailStatus};
use crate::checkpoint::{Books, FileRow, KeyAllocator, Store};
use crate::config::{self, Format, Merge, OnOversize, PartitionKey, Produce, StartAt};
use crate::position::{FileKey, Mark, Position};
use crate::produce::merge::RecordLimit;

/// What became of one generation, put together from what was passed on.
#[derive(Debug)]
struct Seen {
    opened: Opened,
    start: u64,
    bytes: Vec<u8>,
    lost: u64,
    closed: bool,
}

struct Bench {
    directory: tempfile::TempDir,
    flow: Produce,
    tailer: Option<Tailer>,
    output: Receiver<Output>,
    budget: Arc<Budget>,
    keys: KeyAllocator,
    seen: BTreeMap<FileKey, Seen>,
    now: Instant,
    line_max: usize,
    status: Arc<TailStatus>,
    descriptors: usize,
    /// Outputs that wait for nobody.
    places: usize,
    stop: Arc<AtomicBool>,
}

impl Bench {
    fn new(files: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let flow = Produce {
            name: Arc::from("test"),
            files: files.iter().map(|glob| format!("{}/{glob}", root.display())).collect(),
            exclude: Vec::new(),
            stream: "stream".to_owned(),
            start_at: StartAt::Beginning,
            merge: Merge {
                format: Format::None,
                max_lines: None,
                max_bytes: 25_000,
                max_age: Duration::ZERO,
                compression: None,
            },
            partition_key: PartitionKey::File,
            multiline: None,
            on_oversize: OnOversize::Split,
            tail: config::Tail {
                buffer: 64 * BLOCK,
                open_files: 512,
                scan_interval: Duration::from_secs(10),
                poll_interval: Duration::from_millis(250),
                hold_rotated: Duration::from_mins(1),
                hold_unread: Duration::from_hours(24),
                hold_deleted_bytes: 1 << 30,
            },
            ship: config::Ship {
                request_records: 500,
                request_bytes: 1_000_000,

                joined_bytes: 0,
                in_flight: 4,
                timeout: Duration::from_secs(30),
                backoff_max: Duration::from_secs(10),
            },
        };
        let keys = Store::open(&root.join(".state")).unwrap().keys();
        Self {
            directory,
            flow,
            tailer: None,
            output: bounded(0).1,
            budget: Budget::new(64 * BLOCK, Arc::default()),
            keys,
            seen: BTreeMap::new(),
            now: Instant::now(),
            line_max: 1024 * 1024,
            status: Arc::new(TailStatus::default()),
            descriptors: usize::MAX,
            places: 64,
            stop: Arc::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    fn append(&self, name: &str, text: &[u8]) {
        append(&self.path(name), text);
    }

    fn rename_if_there(&self, from: &str, to: &str) {
        if self.path(from).exists() {
            self.rename(from, to);
        }
    }

    fn missed(&self) -> u64 {
        self.status.missed_files()
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Starts a tailer with what a checkpoint would hold of everything passed on so far.
    fn start(&mut self, once: bool) {
        self.make(once);
        self.step();
    }

    /// Makes a tailer that has not looked at anything yet.
    fn make(&mut self, once: bool) {
        let rows: Vec<FileRow> = self.seen.values().map(row).collect();
        let first_ever = rows.is_empty();
        let (sender, output) = bounded(self.places);
        let wake = Arc::new(Wake::new());
        self.budget = Budget::new(64 * BLOCK, Arc::clone(&wake));
        let around = Surroundings {
            descriptors: self.descriptors,
            output: sender,
            budget: Arc::clone(&self.budget),
            wake,
            keys: self.keys.clone(),
            limit: Arc::new(RecordLimit::with_floor(self.line_max)),
            status: Arc::clone(&self.status),
            stop: Arc::clone(&self.stop),
        };
        let mode = (first_ever, once);
        self.tailer = Some(Tailer::new(self.flow.clone(), around, &rows, mode, self.now).unwrap());
        self.output = output;
    }

    /// Looks at everything (as the periodic scan does) and steps until nothing is left to do.
    fn step(&mut self) {
        self.pass(self.flow.tail.scan_interval);
    }

    /// Lets time pass and steps until nothing is left to do.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        let Some(mut tailer) = self.tailer.take() else { return };
        let mut quiet = 0;
        while quiet < 3 {
            let ended = tailer.step(self.now).is_none();
            let before = self.output.len();
            self.drain();
            if ended {
                return;
            }
            quiet = if before == 0 { quiet + 1 } else { 0 };
            // Housekeeping has its own, shorter interval.
            self.now += Duration::from_millis(200);
        }
        self.tailer = Some(tailer);
    }

    /// Takes what was passed on so far.
    fn drain(&mut self) {
        while let Ok(output) = self.output.try_recv() {
            self.take(output);
        }
    }

    /// Stops the tailer as the agent does.
    fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.tailer.take().unwrap().run();
        self.drain();
        self.stop.store(false, Ordering::Release);
    }

    fn take(&mut self, output: Output) {
        self.budget.taken(output.bytes());
        match output {
            Output::Chunk(chunk) => {
                let seen = self.seen.get_mut(&chunk.span.file).expect("opened before its chunks");
                assert_eq!(chunk.span.start, seen.start + seen.bytes.len() as u64, "a gap");
                assert_eq!(chunk.span.len(), chunk.data.len() as u64);
                seen.bytes.extend_from_slice(&chunk.data);
                if seen.start == 0 {
                    assert_eq!(chunk.preceding.mark_after(&chunk.data), Mark::of(&seen.bytes));
                }
                seen.opened.progress.settle(chunk.span.end);
            }
            Output::File(FileEvent::Opened(opened)) => self.open(opened),
            Output::File(FileEvent::Closed { key, end, .. }) => {
                let seen = self.seen.get_mut(&key).unwrap();
                assert_eq!(end, seen.start + seen.bytes.len() as u64);
                seen.closed = true;
            }
            Output::File(FileEvent::Lost { key, bytes, .. }) => {
                self.seen.get_mut(&key).unwrap().lost += bytes;
            }
            Output::File(FileEvent::Moved { key, path }) => {
                self.seen.get_mut(&key).unwrap().opened.path = path;
            }
            Output::File(FileEvent::Seen { key, identity, .. }) => {
                self.seen.get_mut(&key).unwrap().opened.identity = identity;
            }
            Output::File(FileEvent::Scanned) | Output::Starved => {}
        }
    }

    fn open(&mut self, opened: Opened) {
        if let Some(known) = self.seen.get_mut(&opened.key) {
            assert_eq!(opened.start.offset, known.start + known.bytes.len() as u64);
            assert_eq!(opened.origin, known.opened.origin);
            known.opened = opened;
            known.closed = false;
        } else {
            let start = opened.start.offset;
            let seen = Seen { opened, start, bytes: Vec::new(), lost: 0, closed: false };
            self.seen.insert(seen.opened.key, seen);
        }
    }

    /// The texts of all generations, by the path where each was first found, oldest first.
    fn texts(&self) -> Vec<String> {
        let text = |seen: &Seen| String::from_utf8_lossy(&seen.bytes).into_owned();
        let mut all: Vec<&Seen> = self.seen.values().collect();
        all.sort_by_key(|seen| (Arc::clone(&seen.opened.origin), seen.opened.key));
        all.into_iter().map(text).filter(|text| !text.is_empty()).collect()
    }

    fn lost(&self) -> u64 {
        self.seen.values().map(|seen| seen.lost).sum()
    }
}

fn row(seen: &Seen) -> FileRow {
    let offset = seen.start + seen.bytes.len() as u64;
    let mark = if seen.bytes.is_empty() { seen.opened.start.mark } else { Mark::of(&seen.bytes) };
    FileRow {
        key: seen.opened.key,
        flow: Arc::from("test"),
        path: Arc::clone(&seen.opened.path),
        origin: Arc::clone(&seen.opened.origin),
        identity: seen.opened.identity,
        position: Position { offset, mark },
        size: seen.opened.progress.size(),
        ended: seen.closed,
        books: Books::default(),
    }
}

fn append(path: &Path, text: &[u8]) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text).unwrap();
}

fn copy_truncate(bench: &Bench, from: &str, to: &str) {
    fs::copy(bench.path(from), bench.path(to)).unwrap();
    File::options().write(true).open(bench.path(from)).unwrap().set_len(0).unwrap();
}

/// Lines of more than a fingerprint, and their text.
fn lines(from: usize, count: usize) -> String {
    let lines = (from..from + count).map(|number| format!("{number:08} and some text of a line\n"));
    lines.collect::<Vec<_>>().concat()
}

/// Each generation's first and last line, and its length.
fn told_of(texts: &[String]) -> Vec<(String, String, usize)> {
    let line = |line: Option<&str>| line.unwrap_or_default().to_owned();
    let tell = |text: &String| (line(text.lines().next()), line(text.lines().last()), text.len());
    texts.iter().map(tell).collect()
}

fn told(bench: &Bench) -> Vec<(String, String, usize)> {
    told_of(&bench.texts())
}

/// Looks at a path as after an event, and not at the others.
fn look_at(bench: &mut Bench, name: &str) {
    let (now, path) = (bench.now, bench.path(name));
    bench.tailer.as_mut().unwrap().observe(&path, now);
    bench.pass(Duration::ZERO);
}

/// Lets the tailer see what events tell until the condition holds, between two scans.
fn until(bench: &mut Bench, holds: impl Fn(&Bench) -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds(bench) {
        assert!(Instant::now() < end, "{:?}", bench.texts());
        std::thread::sleep(Duration::from_millis(5));
        bench.pass(Duration::ZERO);
    }
}

#[test]
fn lines_are_passed_on_whole_and_a_partial_one_waits() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", b"one\ntwo\nthr");
    bench.start(false);
    assert_eq!(bench.texts(), ["one\ntwo\n"]);
    bench.append("a.log", b"ee\n");
    bench.step();
    assert_eq!(bench.texts(), ["one\ntwo\nthree\n"]);
}

#[test]
fn start_at_end_holds_for_files_of_the_first_start_only() {
    let mut bench = Bench::new(&["*.log"]);
    bench.flow.start_at = StartAt::End;
    bench.append("old.log", b"one\ntwo\npart");
    bench.start(false);
    bench.append("old.log", b"ial\n");
    bench.append("new.log", b"first of all\n");
    bench.step();
    assert_eq!(bench.texts(), ["first of all\n", "partial\n"]);
}

#[test]
fn once_takes_what_is_there_with_a_last_line_without_newline_and_ends() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", b"one\ntwo");
    bench.append("b.log", &vec![b'x'; 3 * BLOCK]);
    bench.start(true);
    assert!(bench.tailer.is_none(), "ended by itself");
    assert_eq!(bench.texts()[0], "one\ntwo");
    assert_eq!(bench.texts()[1].len(), 3 * BLOCK);
}

#[test]
fn a_renamed_file_is_read_to_its_end_and_the_new_one_from_its_start() {
    for glob in ["app.log", "app.log*"] {
        let mut bench = Bench::new(&[glob]);
        bench.append("app.log", b"one\n");
        bench.start(false);
        for round in 0..10 {
            let old = format!("app.log.{round}");
            bench.append("app.log", b"before\n");
            bench.rename("app.log", &old);
            bench.append(&old, b"late\n");
            bench.append("app.log", format!("new {round}\n").as_bytes());
            bench.step();
        }
        let texts = bench.texts();
        assert_eq!(texts.len(), 11, "{glob}");
        assert_eq!(texts[0], "one\nbefore\nlate\n");
        assert!((1..10).all(|n| texts[n] == format!("new {}\nbefore\nlate\n", n - 1)), "{texts:?}");
        assert_eq!(bench.lost(), 0);
    }
}

#[test]
fn a_copied_and_truncated_file_is_read_once_whether_the_copy_is_covered_or_not() {
    for glob in ["app.log", "app.log*"] {
        let mut bench = Bench::new(&[glob]);
        bench.append("app.log", b"the first line of all, round -1\n");
        bench.start(false);
        for round in 0..10 {
            copy_truncate(&bench, "app.log", &format!("app.log.{round}"));
            bench.append("app.log", format!("after truncation {round}\n").as_bytes());
            bench.step();
        }
        let texts = bench.texts();
        assert_eq!(texts.len(), 11, "{glob}: {texts:?}");
        assert_eq!(bench.lost(), 0);
    }
}

#[test]
fn what_was_not_read_before_a_truncation_is_read_from_the_copy() {
    let mut bench = Bench::new(&["app.log*"]);
    bench.append("app.log", b"a line that was read\n");
    bench.start(false);
    bench.append("app.log", b"a line that was not read before the truncation\n");
    copy_truncate(&bench, "app.log", "app.log.1");
    bench.append("app.log", b"new\n");
    bench.step();
    bench.step();
    let whole = "a line that was read\na line that was not read before the truncation\n";
    assert_eq!(bench.texts(), [whole, "new\n"]);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn bytes_truncated_away_unread_are_counted() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", b"read\n");
    bench.start(false);
    bench.append("app.log", b"partial, never ended");
    bench.step();
    File::options().write(true).open(bench.path("app.log")).unwrap().set_len(0).unwrap();
    bench.append("app.log", b"new\n");
    bench.step();
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.texts(), ["read\n", "new\n"]);
    assert_eq!(bench.lost(), b"partial, never ended".len() as u64);
}

#[test]
fn a_truncation_is_noticed_even_when_the_file_is_longer_afterwards() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", b"old line one\nold line two\n");
    bench.start(false);
    fs::write(bench.path("app.log"), b"rewritten, and longer than it was before\n").unwrap();
    bench.step();
    bench.step();
    let expected = ["old line one\nold line two\n", "rewritten, and longer than it was before\n"];
    assert_eq!(bench.texts(), expected);
}

#[test]
fn a_deleted_file_is_read_to_its_end_with_its_last_line() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", b"one\n");
    bench.start(false);
    let mut writer = OpenOptions::new().append(true).open(bench.path("app.log")).unwrap();
    fs::remove_file(bench.path("app.log")).unwrap();
    bench.step();
    writer.write_all(b"two\nlast without newline").unwrap();
    bench.pass(Duration::from_secs(1));
    bench.pass(Duration::from_secs(5));
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.texts(), ["one\ntwo\nlast without newline"]);
    assert!(bench.seen.values().all(|seen| seen.closed));
}

#[test]
fn a_restart_goes_on_where_it_was_and_finds_files_renamed_meanwhile() {
    for (glob, renamed) in [("app.log", "elsewhere"), ("app.log*", "app.log.1")] {
        let mut bench = Bench::new(&[glob]);
        bench.append("app.log", b"one\n");
        bench.start(false);
        bench.tailer = None;
        bench.append("app.log", b"two\n");
        bench.rename("app.log", renamed);
        bench.append("app.log", b"three\n");
        bench.start(false);
        assert_eq!(bench.texts(), ["one\ntwo\n", "three\n"], "{glob}");
        assert_eq!(bench.lost(), 0);
    }
}

#[test]
fn a_restart_after_copytruncate_goes_on_in_the_copy() {
    let mut bench = Bench::new(&["app.log*"]);
    bench.append("app.log", b"the first line\n");
    bench.start(false);
    bench.tailer = None;
    bench.append("app.log", b"the second line\n");
    copy_truncate(&bench, "app.log", "app.log.1");
    bench.append("app.log", b"the third line, and longer than both\n");
    bench.start(false);
    bench.step();
    let expected = ["the first line\nthe second line\n", "the third line, and longer than both\n"];
    assert_eq!(bench.texts(), expected);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn what_is_gone_after_a_restart_is_counted_once() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", b"one\n");
    bench.start(false);
    bench.append("app.log", b"partial");
    bench.step();
    bench.tailer = None;
    fs::remove_file(bench.path("app.log")).unwrap();
    bench.start(false);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.lost(), 7);
    bench.start(false);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.lost(), 7);
}

#[test]
fn different_files_with_equal_content_are_all_read() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", b"same\n");
    bench.append("b.log", b"same\n");
    bench.start(false);
    bench.append("c.log", b"same\n");
    bench.step();
    bench.append("a.log", b"then a\n");
    bench.append("c.log", b"then c\n");
    bench.step();
    bench.step();
    assert_eq!(bench.texts(), ["same\nthen a\n", "same\n", "same\nthen c\n"]);
}

#[test]
fn a_compressed_rotation_is_not_read_again() {
    let mut bench = Bench::new(&["app.log*"]);
    bench.append("app.log", b"one\n");
    bench.start(false);
    fs::write(bench.path("app.log.1.gz"), b"\x1f\x8b\x08\0binary\n").unwrap();
    bench.step();
    assert_eq!(bench.texts(), ["one\n"]);
}

#[test]
fn hard_and_symbolic_links_are_one_file() {
    let mut bench = Bench::new(&["*.log", "a*"]);
    bench.append("a.log", b"one\n");
    fs::hard_link(bench.path("a.log"), bench.path("b.log")).unwrap();
    std::os::unix::fs::symlink(bench.path("a.log"), bench.path("c.log")).unwrap();
    bench.start(false);
    bench.append("b.log", b"two\n");
    bench.step();
    assert_eq!(bench.texts(), ["one\ntwo\n"]);
}

#[test]
fn lines_longer_than_a_block_come_whole_and_longer_than_a_record_in_pieces() {
    let mut bench = Bench::new(&["*.log"]);
    bench.line_max = 2 * BLOCK;
    let mut text = Vec::new();
    for length in
        [10, BLOCK - 70, BLOCK - 64, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK]
    {
        text.extend(std::iter::repeat_n(b'x', length));
        text.extend_from_slice(b"\nshort\n");
    }
    text.extend(std::iter::repeat_n(b'y', 5 * BLOCK));
    bench.append("a.log", &text);
    bench.start(false);
    bench.append("a.log", b"\nend\n");
    bench.step();
    text.extend_from_slice(b"\nend\n");
    let seen = bench.seen.values().next().unwrap();
    assert!(seen.bytes == text, "{} of {} bytes", seen.bytes.len(), text.len());
}
