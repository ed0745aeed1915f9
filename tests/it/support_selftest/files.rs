//! The generator, the reassembler and the writers.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::generator::{Generated, generate};
use crate::support::oracle::{Layout, Oracle, Order, Shape};
use crate::support::reassembler::Reassembler;
use crate::support::writer::{LogWriter, Pace};

/// Returns a directory with seven files of 2 MB together.
fn logs(seed: u64) -> (TempDir, Vec<Generated>) {
    logs_of(seed, 2_000_000)
}

/// Returns a directory with seven files of so many bytes together.
fn logs_of(seed: u64, bytes: u64) -> (TempDir, Vec<Generated>) {
    let dir = tempfile::tempdir().unwrap();
    let files = generate(&dir.path().join("logs"), seed, 7, bytes).unwrap();
    (dir, files)
}

/// The same seed gives the same bytes, and the files are as they are said to be.
#[test]
fn generated_files_follow_from_the_seed() {
    let ((_one, first), (_two, second), (_three, other)) = (logs(5), logs(5), logs(6));
    assert_eq!(first.iter().map(|file| file.bytes).sum::<u64>(), 2_000_000);
    for ((a, b), c) in first.iter().zip(&second).zip(&other) {
        let bytes = fs::read(&a.path).unwrap();
        assert_eq!(bytes.len() as u64, a.bytes);
        assert_eq!(bytes, fs::read(&b.path).unwrap());
        assert_ne!(bytes, fs::read(&c.path).unwrap());
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').count() as u64;
        assert_eq!(lines, a.lines, "{}", a.path.display());
    }
}

/// The hard cases are in it: no newline at the end, CRLF, empty lines, NUL, invalid UTF-8, one
/// byte, and lines far longer than a record should be.
#[test]
fn generated_files_hold_the_hard_cases() {
    let (_dir, files) = logs(5);
    let contents = files.iter().map(|file| fs::read(&file.path).unwrap()).collect::<Vec<_>>();
    assert!(contents.iter().any(|bytes| bytes.last() != Some(&b'\n')));
    assert!(contents.iter().any(|bytes| bytes.last() == Some(&b'\n')));
    let lines = || contents.iter().flat_map(|bytes| bytes.split(|byte| *byte == b'\n'));
    assert!(lines().any(|line| line.ends_with(b"\r")));
    assert!(lines().any(<[u8]>::is_empty));
    assert!(lines().any(|line| line.len() == 1));
    assert!(lines().any(|line| line.contains(&0)));
    assert!(lines().any(|line| std::str::from_utf8(line).is_err()));
    assert!(lines().any(|line| line.len() > 50_000));
    assert!(lines().all(|line| line.len() <= 100_000));
    assert!(lines().any(|line| line.starts_with(b"{\"time\"")));
    assert!(lines().any(|line| line.starts_with(b"\tat com.example")));
}

/// A record: its key and its data.
type Keyed = (String, Vec<u8>);

/// Cuts each file into records of up to 10,000 bytes, as an agent might; file by file.
fn cut(files: &[Generated]) -> Vec<Keyed> {
    let records = |(n, file): (usize, &Generated)| {
        let bytes = fs::read(&file.path).unwrap();
        let cut = |data: &[u8]| (format!("key {n}"), data.to_vec());
        bytes.chunks(10_000).map(cut).collect::<Vec<_>>()
    };
    files.iter().enumerate().flat_map(records).collect()
}

/// Feeds records to a reassembler of the files and returns its judgement.
fn reassemble(
    files: &[Generated],
    records: &[Keyed],
) -> Result<crate::support::reassembler::Assembled, String> {
    let mut reassembler = Reassembler::new(files.iter().map(|file| file.path.clone())).unwrap();
    for (key, data) in records {
        reassembler.record(key, data);
    }
    reassembler.finish()
}

/// Files that came whole pass, whatever the order between them.
#[test]
fn whole_files_are_reassembled() {
    let (_dir, files) = logs(5);
    let mut records = cut(&files);
    // Stable: within a file the order stays.
    records.sort_by_key(|(key, data)| (data.len() % 3 == 7, key.len()));
    let assembled = reassemble(&files, &records).unwrap();
    assert_eq!((assembled.bytes, assembled.duplicate_bytes), (2_000_000, 0));
}

/// Bytes that come again are counted, also where the records are cut otherwise the second time.
#[test]
fn repetitions_are_counted() {
    let (_dir, files) = logs(5);
    let mut records = cut(&files);
    let again = records[5].clone();
    records.insert(6, again);
    let across = [&records[2].1[5_000..], &records[3].1[..7_000]].concat();
    records.insert(3, (records[2].0.clone(), across));
    let shortened = records[4].1[7_000..].to_vec();
    records[4].1 = shortened;
    let assembled = reassemble(&files, &records).unwrap();
    assert_eq!((assembled.bytes, assembled.duplicate_bytes), (2_000_000, 15_000));
}

/// Each single lie about a record is caught.
#[test]
fn every_lie_about_one_record_is_caught() {
    let (_dir, files) = logs_of(5, 200_000);
    let truth = cut(&files);
    for place in (0..truth.len() - 1).step_by(2) {
        let lie = |change: &dyn Fn(&mut Vec<Keyed>)| {
            let mut records = truth.clone();
            change(&mut records);
            reassemble(&files, &records).unwrap_err()
        };
        lie(&|records| drop(records.remove(place)));
        lie(&|records| records[place].1[3] ^= 1);
        lie(&|records| records[place].1.truncate(truth[place].1.len() - 1));
        lie(&|records| records[place].1.push(b'!'));
        lie(&|records| records[place].1.clear());
        lie(&|records| "another key".clone_into(&mut records[place].0));
        if truth[place].0 == truth[place + 1].0 {
            lie(&|records| records.swap(place, place + 1));
        }
    }
    let mistakes = reassemble(&files, &truth[..10]).unwrap_err();
    assert!(mistakes.contains("never came"), "{mistakes}");
}

/// Judges the lines that stand in these files, one after the other.
fn judge(oracle: &Oracle, paths: &[PathBuf]) -> crate::support::oracle::Report {
    let mut judge = oracle.judge(Layout::Slices, Order::WithinWriter);
    for path in paths {
        judge.record(&fs::read(path).unwrap());
    }
    judge.finish()
}

/// A writer's lines stand in its files, whole and in order, through every kind of rotation.
#[test]
fn a_writer_writes_what_its_oracle_minted_through_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let oracle = Oracle::new(9, Shape::Wild);
    let writer = LogWriter::start(&at("a.log"), oracle.minter(), Pace::rate(20_000));
    wait_for_lines(&oracle, 100);
    writer.rotate_by_rename(&at("a.log.2"), 10);
    wait_for_lines(&oracle, 500);
    writer.rotate_by_copytruncate(&at("a.log.1"));
    wait_for_lines(&oracle, 1_000);
    drop(writer.stop());
    let paths = ["a.log.2", "a.log.1", "a.log"].map(at);
    judge(&oracle, &paths).assert_exactly_once();
    assert!(oracle.lines() >= 1_000);
    let unread = judge(&oracle, &paths[..2]);
    assert!(unread.missing.count > 0, "the lines of the last file are missed");
}

/// A pace with an end writes exactly so many lines; a deleted file's late lines go with it.
#[test]
fn a_writer_ends_after_its_lines_and_can_delete() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let oracle = Oracle::new(9, Shape::Plain);
    let writer = LogWriter::start(&path, oracle.minter(), Pace::burst(300));
    drop(writer.finish());
    assert_eq!(oracle.lines(), 300);
    judge(&oracle, std::slice::from_ref(&path)).assert_exactly_once();

    let writer = LogWriter::start(&path, oracle.minter(), Pace::burst(50));
    writer.delete(5);
    drop(writer.finish());
    assert!(count_lines(&path) <= 45);
}

fn count_lines(path: &Path) -> usize {
    memchr::memchr_iter(b'\n', &fs::read(path).unwrap()).count()
}

/// Waits until the oracle has minted so many lines.
fn wait_for_lines(oracle: &Oracle, lines: u64) {
    let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while oracle.lines() < lines {
        assert!(std::time::Instant::now() < end, "the writer stands still");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
