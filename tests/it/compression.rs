//! Compressed records and large ones, as a consumer sees them, and aggregates where the stream takes
//! none.

use kinetail::record::compression::Algorithm;
use kinetail::record::kpl;
use kinetail::record::split::{By, Splitter};

use super::scene::{DEADLINE, Scene, Settings, append, number, stop};
use crate::support::endpoint::{Accepted, Delivery, Options, Script};
use crate::support::oracle::{Layout, Oracle, Order, Shape};

/// Splits records as kinetail's own consumer does, and puts each together again as a slice.
fn unfold(records: &mut [Accepted], by: By) -> u64 {
    let ended = matches!(by, By::Content);
    let mut splitter = Splitter::new(by);
    for record in records {
        let mut lines = Vec::new();
        for piece in splitter.split(&record.data) {
            lines.extend_from_slice(&piece.data);
            if !ended || !lines.ends_with(b"\n") {
                lines.push(b'\n');
            }
        }
        record.data = lines.into();
    }
    let found = splitter.found();
    assert_eq!(found.unsplit, 0);
    found.compressed + found.kpl
}

/// Writes so many logs of so many lines, and ships them with `--once`.
fn drained(oracle: Oracle, settings: &Settings, (logs, lines): (usize, u64)) -> Scene {
    let scene = Scene::with(oracle, settings, Options::default(), Script::healthy());
    for log in 0..logs {
        drop(scene.write(log, lines));
    }
    let finished = scene.home.once(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{}, {}: {finished:?}", settings.merge, settings.tail);
    scene
}

/// Every format arrives whole and in order, compressed in every way, and no record is over `max_bytes`.
#[test]
fn compressed_lines_arrive_exactly_once() {
    let delimited = || By::Delimiter(b"#-#".to_vec());
    for (seed, merge, shape, by) in [
        (80, "compression: zstd", Shape::Plain, By::Content),
        (81, "compression: { gzip: 9 }", Shape::Wild, By::Content),
        (82, "delimiter: '#-#', compression: { zstd: 3 }", Shape::Plain, delimited()),
        (83, "format: json_array, compression: gzip", Shape::Json, By::JsonArray),
        (84, "format: kpl, compression: zstd", Shape::Wild, By::Content),
        (85, "format: kpl, compression: gzip, max_lines: 100", Shape::Plain, By::Content),
    ] {
        let merge: &'static str = format!("{merge}, max_bytes: 4 KB, max_age: 1 min").leak();
        let settings = Settings { merge, tail: "buffer: 8 MiB", ..Settings::default() };
        let scene = drained(Oracle::new(seed, shape), &settings, (2, 3_000));
        let mut records = scene.endpoint.accepted();
        let most = records.iter().map(|record| record.data.len() + record.key.len()).max();
        // Some wild lines are longer than that, and go alone.
        assert!(shape == Shape::Wild || most <= Some(4_000), "{merge}: {most:?}");
        assert!(records.len() > 4, "{merge}");
        let compressed = |data: &[u8]| Algorithm::of(data).is_some() || kpl::is_marked(data);
        assert!(records.iter().all(|record| compressed(&record.data)), "{merge}");
        let split = unfold(&mut records, by);
        assert_eq!(split, records.len() as u64, "{merge}");
        let report = scene.oracle.verify(&records, &Layout::Slices, Order::WithinFile);
        report.assert_exactly_once();
    }
}

/// Many files have piled up, and what waits of each to fill its record is more than may wait in all: the
/// fullest records go as they are, long before `max_age`, and reading goes on.
#[test]
fn many_files_that_piled_up_do_not_wait_for_full_records() {
    for (seed, merge, tail) in [
        (89, "compression: zstd, max_age: 5 min", "buffer: 2 MiB"),
        (90, "compression: zstd, max_age: 5 min", "buffer: 1 MiB"),
        (91, "max_age: 5 min", "buffer: 1 MiB"),
    ] {
        let settings = Settings { merge, tail, ..Settings::default() };
        let scene = drained(Oracle::new(seed, Shape::Plain), &settings, (40, 2_000));
        let mut records = scene.endpoint.accepted();
        unfold(&mut records, By::Content);
        let report = scene.oracle.verify(&records, &Layout::Slices, Order::WithinFile);
        report.assert_exactly_once();
    }
}

/// A record of 10 MiB goes through where the stream takes it; a line over that goes by `on_oversize`,
/// and its neighbours are as ever.
#[test]
fn a_record_of_10_mib_goes_through_and_a_longer_line_leaves_its_neighbours_alone() {
    let options = Options { max_record_kib: 10 * 1024, ..Options::default() };
    let settings = Settings {
        ship: "request_bytes: 10 MiB, timeout: 1 min",
        tail: "buffer: 64 MiB",
        ..Settings::default()
    };
    let oracle = Oracle::new(86, Shape::Plain);
    let scene = Scene::with(oracle, &settings, options, Script::healthy());
    let agent = scene.home.start();
    scene.wait("it asked the stream", |log| {
        log.requests.iter().any(|request| {
            request.operation == "DescribeStreamSummary" && request.answer == Delivery::Delivered
        })
    });
    // What the answer says is known once a later line has been sent.
    append(&scene.log(0), b"before\n");
    scene.wait("a line arrived", |log| log.stored == 1);
    let limit = 10 * 1024 * 1024;
    let key = scene.endpoint.accepted()[0].key.len();
    let line = [vec![b'x'; limit - key - 1], b"\n".to_vec()].concat();
    append(&scene.log(0), &line);
    scene.wait("the line of 10 MiB arrived", |log| log.stored == 2);
    let records = scene.endpoint.accepted();
    assert_eq!(records.len(), 2);
    assert_eq!(records[1].data.len() + key, limit);
    assert!(records[1].data == line, "it came whole");

    let longer = [b"near\n", &vec![b'y'; limit][..], b"\nafter\n"].concat();
    append(&scene.log(0), &longer);
    scene.wait("its neighbours arrived", |log| {
        log.records.last().is_some_and(|record| record.data.ends_with(b"after\n"))
    });
    let records = scene.endpoint.accepted();
    assert!(records.iter().all(|record| record.data.len() + key <= limit));
    let sent: Vec<u8> = records[2..].iter().flat_map(|record| record.data.to_vec()).collect();
    assert!(sent == longer, "nothing of it is lost: {} of {}", sent.len(), longer.len());
    stop(agent);
}

/// Streams that spread records by themselves do not support aggregation: `check --connect` refuses, and
/// the agent holds the lines, says why, and sends none of them.
#[test]
fn aggregates_are_refused_where_the_stream_spreads_records_by_itself() {
    let options = Options { distribution: Some("AUTO"), ..Options::default() };
    let settings = Settings { merge: "format: kpl, max_age: 50 ms", ..Settings::default() };
    let oracle = Oracle::new(87, Shape::Plain);
    let scene = Scene::with(oracle, &settings, options, Script::healthy());
    let config = scene.home.config();
    let arguments = ["check", "--connect", "--config", config.to_str().unwrap()];
    let checked = scene.home.run(&arguments, DEADLINE);
    assert_eq!(checked.code(), Some(74), "{checked:?}");
    assert!(checked.stdout.contains("RecordDistributionStrategy is AUTO"), "{checked:?}");
    drop(scene.write(0, 100));
    let agent = scene.home.start();
    let status = scene.status("it says why it sends nothing", |status| {
        status["flows"][0]["problems"].to_string().contains("RecordDistributionStrategy is AUTO")
    });
    assert_eq!(number(&status, "/flows/0/totals/acknowledged_bytes"), 0);
    assert_eq!(scene.endpoint.with_log(|log| log.stored), 0);
    stop(agent);
}
