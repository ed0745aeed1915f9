//! The ledger case by case: what its model cannot say as plainly.

use bytes::Bytes;
use smallvec::smallvec;

use super::*;
use crate::position::{Fingerprint, Identity, Mark, Position, Span};
use crate::produce::tail::Progress;

fn ledger() -> Ledger {
    Ledger::new("flow".into(), "stream".into())
}

fn opened(key: u64, offset: u64, head: &[u8]) -> (Opened, Arc<Progress>) {
    let progress = Arc::new(Progress::default());
    progress.read_to(offset);
    let opened = Opened {
        key: FileKey(key),
        path: Arc::from(Path::new("/var/log/app.log")),
        origin: Arc::from(Path::new("/var/log/app.log")),
        identity: Identity { fingerprint: Fingerprint::of(head), ..Identity::default() },
        start: Position { offset, mark: Mark::default() },
        size: offset,
        progress: Arc::clone(&progress),
    };
    (opened, progress)
}

fn open(ledger: &mut Ledger, key: u64, offset: u64) -> Arc<Progress> {
    let (opened, progress) = opened(key, offset, b"head");
    ledger.on_file(&FileEvent::Opened(opened));
    progress
}

fn run(key: u64, start: u64, end: u64) -> Run {
    Run { span: Span { file: FileKey(key), start, end }, mark: Mark::default(), lines: 2 }
}

fn commit(ledger: &mut Ledger) -> Commit {
    let commit = ledger.take_commit().unwrap();
    ledger.committed();
    commit
}

#[test]
fn a_dead_letter_says_where_its_bytes_stand() {
    let mut ledger = ledger();
    open(&mut ledger, 1, 0).read_to(50);
    let record = Record {
        partition_key: "key".into(),
        ordered: true,
        data: Bytes::from_static(b"data"),
        runs: smallvec![run(1, 20, 50)],
    };
    ledger.dead_lettered(&record, "too large", 7);
    ledger.accepted(&[run(1, 0, 20)]);
    let commit = commit(&mut ledger);
    assert_eq!(commit.files[0].position.offset, 50);
    assert_eq!(commit.dead_letters[0].source, "/var/log/app.log at byte 20");
    assert_eq!(commit.dead_letters[0].reason, "too large");
    assert_eq!(commit.dead_letters[0].at, 7);
    assert_eq!(ledger.totals().dead_lettered_bytes, 30);
    assert_eq!(ledger.totals().acknowledged_lines, 2);
}

#[test]
fn the_first_commit_announces_the_flow_even_without_files_until_it_is_written() {
    let mut ledger = ledger();
    let first = ledger.take_commit().unwrap();
    assert_eq!(first.started, [Arc::from("flow")]);
    assert!(ledger.take_commit().is_none());
    ledger.commit_failed(first);
    assert_eq!(commit(&mut ledger).started.len(), 1);
    assert!(!ledger.is_dirty());
    assert!(ledger.take_commit().is_none());
}

#[test]
fn a_failed_commit_is_offered_again_with_what_came_since_and_letters_in_order() {
    let mut ledger = ledger();
    open(&mut ledger, 1, 0).read_to(30);
    let record = |start: u64| Record {
        partition_key: "key".into(),
        ordered: true,
        data: Bytes::from(start.to_string()),
        runs: smallvec![run(1, start, start + 10)],
    };
    ledger.dead_lettered(&record(0), "", 0);
    let first = ledger.take_commit().unwrap();
    assert_eq!(first.files[0].position.offset, 10);
    ledger.dead_lettered(&record(10), "", 0);
    ledger.commit_failed(first);
    let second = commit(&mut ledger);
    assert_eq!(second.files[0].position.offset, 20);
    let letters: Vec<_> = second.dead_letters.iter().map(|letter| &letter.data[..]).collect();
    assert_eq!(letters, [b"0".as_slice(), b"10"]);
}

#[test]
fn many_rows_are_committed_in_several_commits_and_all_again_where_one_fails() {
    let mut ledger = ledger();
    let files = COMMIT_ROWS_MAX as u64 * 2 + 1;
    for key in 1..=files {
        open(&mut ledger, key, 0).read_to(10);
    }
    assert_eq!(commit(&mut ledger).files.len(), COMMIT_ROWS_MAX);
    assert!(ledger.has_rest());
    ledger.accepted(&[run(1, 0, 10), run(files, 0, 10)]);
    let second = ledger.take_commit().unwrap();
    ledger.commit_failed(second);
    assert!(!ledger.has_rest(), "it begins anew");
    let rows: Vec<_> = (0..2).flat_map(|_| commit(&mut ledger).files).collect();
    assert!(!ledger.is_dirty());
    let keys: Vec<_> = rows.iter().map(|row| row.key.0).collect();
    let expected: Vec<_> = [1].into_iter().chain(COMMIT_ROWS_MAX as u64 + 1..=files).collect();
    assert_eq!(keys, expected, "what changed since, and what was not written");
    let last = rows.last().map(|row| row.position.offset);
    assert_eq!((rows[0].position.offset, last), (10, Some(10)));
}

#[test]
fn a_file_that_is_gone_leaves_the_table_once_it_is_settled() {
    let mut ledger = ledger();
    open(&mut ledger, 1, 0).read_to(30);
    ledger.on_file(&FileEvent::Closed { key: FileKey(1), end: 30, gone: true });
    assert_eq!(ledger.files()[0].state, "ended");
    assert!(!ledger.is_settled());
    assert!(!commit(&mut ledger).files[0].ended);
    ledger.accepted(&[run(1, 0, 30)]);
    assert!(ledger.files().is_empty() && ledger.is_settled());
    let row = &commit(&mut ledger).files[0];
    assert!(row.ended);
    assert_eq!((row.position.offset, row.books.acknowledged), (30, 30));
    assert_eq!(ledger.totals().acknowledged_bytes, 30);
}

#[test]
fn an_empty_file_that_is_gone_leaves_no_row() {
    let mut ledger = ledger();
    let (opened, _progress) = opened(1, 0, b"");
    ledger.on_file(&FileEvent::Opened(opened));
    commit(&mut ledger);
    ledger.on_file(&FileEvent::Closed { key: FileKey(1), end: 0, gone: true });
    let commit = commit(&mut ledger);
    assert_eq!(commit.removed, [FileKey(1)]);
    assert!(commit.files.is_empty());
}

#[test]
fn restored_books_go_on_and_totals_count_this_run_only() {
    let mut ledger = ledger();
    let books = Books { acknowledged: 100, skipped: 20, lines: 9, ..Books::default() };
    let (opened, progress) = opened(1, 120, b"head");
    ledger.restore(&FileRow {
        key: FileKey(1),
        flow: "flow".into(),
        path: Arc::clone(&opened.path),
        origin: Arc::clone(&opened.origin),
        identity: opened.identity,
        position: opened.start,
        size: 120,
        ended: false,
        books,
    });
    assert!(ledger.files().is_empty());
    ledger.on_file(&FileEvent::Opened(opened));
    assert_eq!(progress.settled(), 120);
    progress.read_to(150);
    ledger.accepted(&[run(1, 120, 130)]);
    let status = &ledger.files()[0];
    assert_eq!((status.read_bytes, status.acknowledged_bytes), (150, 110));
    assert_eq!((status.in_flight_bytes, status.skipped_bytes), (20, 20));
    assert_eq!((status.acknowledged_lines, status.lag_bytes), (11, 20));
    let totals = ledger.totals();
    assert_eq!((totals.read_bytes, totals.acknowledged_bytes), (30, 10));
}

#[test]
fn a_file_that_vanished_while_the_agent_was_stopped_ends_with_its_loss_counted() {
    let mut ledger = ledger();
    let row = {
        let (opened, _progress) = opened(1, 10, b"head");
        ledger.on_file(&FileEvent::Opened(opened));
        commit(&mut ledger).files.remove(0)
    };
    let mut ledger = self::ledger();
    ledger.restore(&row);
    let key = row.key;
    ledger.on_file(&FileEvent::Lost { key, bytes: 5, reason: "deleted" });
    ledger.on_file(&FileEvent::Closed { key, end: 10, gone: true });
    let row = &commit(&mut ledger).files[0];
    assert!(row.ended);
    assert_eq!(row.books.lost, 5);
    assert_eq!(ledger.totals().lost_bytes, 5);
    assert_eq!(ledger.faults(), 0);
}

#[test]
fn ended_files_are_remembered_within_the_bound() {
    let mut ledger = ledger();
    let last = u64::try_from(ENDED_ROWS_MAX).unwrap() + 5;
    for key in 1..=last {
        open(&mut ledger, key, 1);
        ledger.on_file(&FileEvent::Closed { key: FileKey(key), end: 1, gone: true });
    }
    assert_eq!(ledger.known.len(), ENDED_ROWS_MAX);
    assert_eq!(ledger.ended.len(), ENDED_ROWS_MAX);
    let mut rows = commit(&mut ledger).files.len();
    while ledger.has_rest() {
        rows += commit(&mut ledger).files.len();
    }
    assert_eq!(rows, ENDED_ROWS_MAX);
    open(&mut ledger, last, 1);
    assert_eq!(ledger.ended.len(), ENDED_ROWS_MAX - 1);
    assert!(!commit(&mut ledger).files[0].ended);
}

#[test]
fn what_cannot_be_is_refused_and_counted() {
    let refused = |act: fn(&mut Ledger)| {
        let mut ledger = ledger();
        let progress = open(&mut ledger, 1, 10);
        progress.read_to(40);
        ledger.accepted(&[run(1, 20, 30)]);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&mut ledger)));
        assert_eq!(caught.is_err(), cfg!(debug_assertions));
        assert_eq!(progress.settled(), 10);
        assert_eq!(ledger.totals().acknowledged_bytes, 10);
        assert_eq!(ledger.files()[0].in_flight_bytes, 20);
    };
    refused(|ledger| ledger.accepted(&[run(1, 20, 30)]));
    refused(|ledger| ledger.accepted(&[run(1, 0, 20)]));
    refused(|ledger| ledger.accepted(&[run(1, 25, 40)]));
    refused(|ledger| ledger.accepted(&[run(2, 0, 5)]));
}
