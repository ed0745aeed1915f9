//! Poison: a record that can never be accepted is found, kept and counted, and stops nothing.

use rusqlite::{Connection, OpenFlags};

use super::scene::{DEADLINE, Scene, Settings, assert_books_balance, number, stop};
use crate::support::agent::Home;
use crate::support::endpoint::{EntryOutcome, Script};
use crate::support::oracle::{Layout, Order};

/// The line that the endpoint refuses, by the beginning the oracle gives it.
const POISON: &[u8] = b"0:1234:";

fn is_poison(data: &[u8]) -> bool {
    data.starts_with(POISON)
}

/// A line a record: exactly one line is poison.
fn settings(key: &'static str) -> Settings {
    Settings {
        merge: "format: none, max_age: 50 ms",
        key,
        ship: "backoff_max: 100 ms, request_records: 500",
        ..Settings::default()
    }
}

/// A dead letter as it stands in the store.
#[derive(Debug)]
struct Letter {
    stream: String,
    reason: String,
    source: String,
    data: Vec<u8>,
}

fn letters(home: &Home) -> Vec<Letter> {
    let path = std::fs::read_dir(home.state()).unwrap().map(|entry| entry.unwrap().path());
    let is_database = |path: &std::path::PathBuf| {
        path.is_file() && std::fs::read(path).unwrap().starts_with(b"SQLite format 3")
    };
    let path = path.into_iter().find(is_database).expect("a database in the state directory");
    let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut statement =
        store.prepare("SELECT stream, reason, source, data FROM dead_letters").unwrap();
    let letter = |row: &rusqlite::Row<'_>| {
        Ok(Letter {
            stream: row.get(0)?,
            reason: row.get(1)?,
            source: row.get(2)?,
            data: row.get(3)?,
        })
    };
    statement.query_map([], letter).unwrap().map(Result::unwrap).collect()
}

/// Asserts that of 3,000 lines all but the poison arrived once, and it is in the store.
fn assert_isolated(scene: &Scene, order: Order) {
    let report = scene.oracle.verify(&scene.endpoint.accepted(), &Layout::Single, order);
    assert_eq!((report.written, report.arrived), (3_000, 2_999), "{report}");
    assert_eq!((report.duplicates, report.unknown.count), (0, 0), "{report}");
    assert_eq!((report.damaged.count, report.reordered.count), (0, 0), "{report}");
    assert_eq!(report.missing.cases, ["line 0:1234"]);
    let letters = letters(&scene.home);
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0];
    assert!(is_poison(&letter.data), "{letter:?}");
    assert_eq!(letter.stream, "web");
    assert!(letter.reason.contains("Invalid record"), "{letter:?}");
    assert!(letter.source.contains("0.log"), "{letter:?}");
    let status = scene.status("what a stopped agent left", |_| true);
    assert_books_balance(&status);
    let totals = &status["flows"][0]["totals"];
    // The newline is not sent, but it is a byte of the file.
    assert_eq!(number(totals, "/dead_lettered_bytes"), letter.data.len() as u64 + 1);
    assert_eq!(number(totals, "/read_bytes"), scene.oracle.bytes());
    scene.assert_nothing_accepted_was_resent();
}

/// Nothing is silently dropped: `--once` says by its exit code that something is in the dead-letter
/// store; and the poison is found among 500 records in log₂(500) + 1 calls.
#[test]
fn a_poisoned_record_is_isolated_by_bisection() {
    let script = Script::healthy().poison(|_, data| is_poison(data));
    let scene = Scene::new(40, &settings("random"), script);
    drop(scene.write(0, 3_000));
    let finished = scene.home.once(DEADLINE);
    assert_eq!(finished.code(), Some(74), "{finished:?}");
    assert!(finished.stderr.contains("1 records could not be sent"), "{finished:?}");
    assert_isolated(&scene, Order::Any);
    let refused = scene.endpoint.with_log(|log| {
        log.puts().filter(|request| request.error == Some("InvalidArgumentException")).count()
    });
    assert!(refused <= 10, "{refused} calls were refused, which is more than log2(500) + 1");
}

/// Under ordered keys, what stands behind the poison in its file goes on in order; a running agent
/// counts it, and a restart neither forgets it nor sends it again.
#[test]
fn a_poisoned_record_does_not_stop_its_key() {
    let script = Script::healthy().poison(|_, data| is_poison(data));
    let scene = Scene::new(41, &settings("file"), script);
    drop(scene.write(0, 2_000));
    drop(scene.write(1, 1_000));
    let agent = scene.home.start();
    let status = scene.status("all is settled", |status| {
        let totals = &status["flows"][0]["totals"];
        let settled =
            number(totals, "/acknowledged_bytes") + number(totals, "/dead_lettered_bytes");
        settled >= scene.oracle.bytes()
    });
    assert_books_balance(&status);
    assert_eq!(number(&status, "/flows/0/sent/records_dead_lettered"), 1);
    stop(agent);
    assert_isolated(&scene, Order::WithinFile);
    let again = scene.home.once(DEADLINE);
    assert_eq!(again.code(), Some(0), "{again:?}");
    assert_isolated(&scene, Order::WithinFile);
}

/// A call that is refused for one record stores none of its others twice.
#[test]
fn many_poisoned_records_are_all_isolated() {
    let script = Script::healthy().poison(|_, data| {
        // Lines 0:100:, 0:200: and so on.
        data.strip_prefix(b"0:").is_some_and(|rest| rest.get(1..4) == Some(b"00:"))
    });
    let scene = Scene::new(42, &settings("random"), script);
    drop(scene.write(0, 1_000));
    let finished = scene.home.once(DEADLINE);
    assert_eq!(finished.code(), Some(74), "{finished:?}");
    let report = scene.oracle.verify(&scene.endpoint.accepted(), &Layout::Single, Order::Any);
    assert_eq!((report.arrived, report.missing.count, report.duplicates), (991, 9, 0), "{report}");
    assert_eq!(letters(&scene.home).len(), 9);
    let outcomes =
        scene.endpoint.with_log(|log| log.puts().map(|r| r.outcomes.len()).sum::<usize>());
    assert_eq!(outcomes, 991, "refused calls store nothing");
    let refused = |log: &crate::support::endpoint::Log| {
        log.puts().flat_map(|r| &r.outcomes).filter(|o| **o != EntryOutcome::Accepted).count()
    };
    assert_eq!(scene.endpoint.with_log(refused), 0);
}
