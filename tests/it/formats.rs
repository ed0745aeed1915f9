//! Formats: what stands in the records, as a consumer sees it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use memchr::memmem;

use super::scene::{DEADLINE, Scene, Settings, append, number, stop};
use crate::support::endpoint::{Options, Script};
use crate::support::oracle::{Layout, Oracle, Order, Shape};

/// Ships what is there and asserts that it went well.
fn once(scene: &Scene) {
    let finished = scene.home.once(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
}

/// Sets a scene of lines of this shape under `merge`, with random keys.
fn scene(seed: u64, shape: Shape, merge: &'static str) -> Scene {
    let settings = Settings {
        merge,
        key: "random",
        ship: "request_records: 500, in_flight: 1",
        tail: "buffer: 8 MiB",
        ..Settings::default()
    };
    Scene::with(Oracle::new(seed, shape), &settings, Options::default(), Script::healthy())
}

/// Sets a scene in which a file of 10,000 lines was there before the agent, and ships it.
fn backlog(seed: u64, settings: &Settings) -> Scene {
    let scene = Scene::new(seed, settings, Script::healthy());
    drop(scene.write(0, 10_000));
    once(&scene);
    scene
}

/// Returns the records of a stream by key, in order.
fn by_key(scene: &Scene) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut records: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for record in scene.endpoint.accepted() {
        records.entry(record.key.to_string()).or_default().push(record.data.to_vec());
    }
    records
}

/// As its consumers split them, the seed's records give the lines: ten a record, 500 records a call.
/// The endpoint answers nothing until all is read, so that there is enough to fill calls with.
#[test]
fn the_seeds_consumers_get_ten_lines_a_record_and_500_records_a_call() {
    let settings = Settings {
        merge: "delimiter: '#-#', max_lines: 10, max_age: 1 min",
        key: "random",
        ship: "timeout: 5 s, backoff_max: 200 ms",
        tail: "buffer: 8 MiB",
        ..Settings::default()
    };
    let oracle = Oracle::new(60, Shape::Plain);
    let scene = Scene::with(oracle, &settings, Options::default(), Script::black_hole());
    drop(scene.write(0, 20_005));
    let agent = scene.home.start();
    scene.status("all is read, and as many calls wait as may", |status| {
        number(status, "/flows/0/totals/read_bytes") == scene.oracle.bytes()
            && number(status, "/flows/0/sent/in_flight") == 4
    });
    scene.endpoint.set_script(Script::healthy());
    scene.wait("full records came", |log| log.stored >= 2_000);
    stop(agent);
    let layout = Layout::Delimited(b"#-#".to_vec());
    let records = scene.endpoint.accepted();
    scene.oracle.verify(&records, &layout, Order::Any).assert_exactly_once();
    let mut lines: Vec<_> =
        records.iter().map(|record| memmem::find_iter(&record.data, b"#-#").count() + 1).collect();
    lines.sort_unstable();
    assert_eq!((lines[0], lines[1], lines.len()), (5, 10, 2_001));
    assert_eq!(lines.last(), Some(&10));
    let calls: Vec<_> = scene.endpoint.with_log(|log| log.puts().map(|r| r.entries).collect());
    assert_eq!(calls.iter().max(), Some(&500), "{calls:?}");
    let keys: std::collections::HashSet<_> = records.iter().map(|record| &record.key).collect();
    assert_eq!(keys.len(), records.len(), "a fresh key a record");
}

/// "**Bytes are bytes.** Lines arrive as they stood in the file": also between a delimiter that some
/// of the lines contain.
#[test]
fn lines_that_contain_the_delimiter_arrive_alone_and_whole() {
    let scene = scene(61, Shape::Wild, "delimiter: '#-#', max_lines: 10");
    drop(scene.write(0, 3_000));
    once(&scene);
    let layout = Layout::Delimited(b"#-#".to_vec());
    scene.oracle.verify(&scene.endpoint.accepted(), &layout, Order::Any).assert_exactly_once();
}

/// "**Bytes are bytes.** … no re-encoding, no trimming, NUL and invalid UTF-8 included".
#[test]
fn wild_bytes_arrive_as_they_stood() {
    for (seed, merge, layout) in
        [(62, "max_bytes: 25 KB", Layout::Slices), (63, "format: none", Layout::Single)]
    {
        let scene = scene(seed, Shape::Wild, merge);
        drop(scene.write(0, 3_000));
        once(&scene);
        scene.oracle.verify(&scene.endpoint.accepted(), &layout, Order::Any).assert_exactly_once();
    }
}

/// Lines that are JSON arrive as elements of an array, byte for byte.
#[test]
fn json_lines_arrive_as_arrays() {
    let scene = scene(64, Shape::Json, "format: json_array, max_lines: 10, max_age: 1 min");
    drop(scene.write(0, 3_000));
    once(&scene);
    let records = scene.endpoint.accepted();
    scene.oracle.verify(&records, &Layout::JsonArray, Order::Any).assert_exactly_once();
    assert_eq!(records.len(), 300);
}

/// Records are filled to 98 % of `max_bytes`, key included, and never beyond; joined while they wait,
/// they cost no payload unit more.
#[test]
fn records_are_full() {
    for (seed, key) in [(65, "file"), (66, "random"), (67, "host"), (68, "{ constant: all }")] {
        let settings = Settings {
            merge: "max_bytes: 25 KB, max_age: 1 min",
            key,
            ship: "joined_bytes: 0",
            tail: "buffer: 8 MiB",
            ..Settings::default()
        };
        let scene = backlog(seed, &settings);
        let mut records = scene.endpoint.accepted();
        let order = if key == "random" { Order::Any } else { Order::WithinFile };
        scene.oracle.verify(&records, &Layout::Slices, order).assert_exactly_once();
        // The last lines have no company to wait for.
        records.pop();
        let sizes: Vec<_> = records.iter().map(|r| r.data.len() + r.key.len()).collect();
        assert!(sizes.iter().all(|size| *size <= 25_000), "{key}: {sizes:?}");
        let fill = sizes.iter().sum::<usize>() * 100 / (sizes.len() * 25_000);
        assert!(fill >= 98, "{key}: {fill} %");

        let scene = backlog(seed, &Settings { ship: "timeout: 5 s", ..settings });
        let joined = scene.endpoint.accepted();
        scene.oracle.verify(&joined, &Layout::Slices, order).assert_exactly_once();
        let units = |size: usize| size.div_ceil(25_000);
        let cost: usize = joined.iter().map(|r| units(r.data.len() + r.key.len())).sum();
        assert!(cost <= sizes.len() + 1, "{key}: {cost} units instead of {}", sizes.len() + 1);
        let is_joined = joined.iter().any(|record| record.data.len() > 25_000);
        assert_eq!(is_joined, key != "random", "{key}");
    }
}

/// A lone line waits for company as long as `max_age` says, and not for ever.
#[test]
fn a_lone_line_goes_when_it_is_old() {
    let age = Duration::from_millis(700);
    let settings = Settings { merge: "max_age: 700 ms", ..Settings::default() };
    let scene = Scene::new(69, &settings, Script::healthy());
    let agent = scene.home.start();
    scene.status("it follows", |status| status["running"] == true);
    let written = Instant::now();
    drop(scene.write(0, 1));
    scene.arrived().assert_exactly_once();
    let waited = scene.endpoint.accepted()[0].at - written;
    assert!(waited >= age, "it did not wait for company: {waited:?}");
    stop(agent);
}

/// A key for each value of a group, of a JSON field, of the host, of the file.
#[test]
fn keys_are_found_in_lines() {
    let lines: Vec<String> =
        (0..600).map(|n| format!("{{\"n\":{n},\"user\":{{\"id\":\"u{}\"}}}}\n", n % 7)).collect();
    for key in ["{ json_field: user.id }", r#"{ regex: '"id":"(u\d)"' }"#] {
        let settings = Settings { key, ..Settings::default() };
        let scene = Scene::new(70, &settings, Script::healthy());
        append(&scene.log(0), lines.concat().as_bytes());
        once(&scene);
        let records = by_key(&scene);
        assert_eq!(records.len(), 7, "{key}");
        for (number, (name, records)) in records.into_iter().enumerate() {
            assert_eq!(name, format!("u{number}"));
            let of_user: String = lines.iter().skip(number).step_by(7).cloned().collect();
            assert_eq!(String::from_utf8(records.concat()).unwrap(), of_user, "{key}, in order");
        }
    }
    let fixed = |key| {
        let settings = Settings { key, ..Settings::default() };
        let scene = Scene::new(71, &settings, Script::healthy());
        append(&scene.log(0), lines.concat().as_bytes());
        append(&scene.log(1), lines.concat().as_bytes());
        once(&scene);
        by_key(&scene).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(fixed("{ constant: all }"), ["all"]);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(fixed("host"), [host.trim_end()]);
    assert_eq!(fixed("file").len(), 2);
}

/// A line over the stream's record limit: in pieces that join to the line, cut, or left out and
/// counted; the lines around it are as ever.
#[test]
fn lines_over_the_record_limit_go_by_on_oversize() {
    let long: Vec<u8> = (0..2_500_000_u32).map(|n| b'a' + u8::try_from(n % 23).unwrap()).collect();
    let file = [b"before\n", &long[..], b"\nafter\n"].concat();
    for (flow, kept) in [
        ("    on_oversize: split\n", file.len()),
        ("    on_oversize: truncate\n", 0),
        ("    on_oversize: skip\n", b"before\nafter\n".len()),
    ] {
        let settings = Settings {
            merge: "max_age: 1 min",
            tail: "buffer: 8 MiB",
            flow,
            ..Settings::default()
        };
        let scene = Scene::new(72, &settings, Script::healthy());
        append(&scene.log(0), &file);
        once(&scene);
        let records = scene.endpoint.accepted();
        let limit = 1024 * 1024;
        assert!(records.iter().all(|r| r.data.len() + r.key.len() <= limit), "{flow}");
        let data: Vec<u8> = records.iter().flat_map(|record| record.data.to_vec()).collect();
        let kept = if kept == 0 { data.len() } else { kept };
        assert_eq!(data.len(), kept, "{flow}");
        assert!(data.starts_with(b"before\n") && data.ends_with(b"after\n"), "{flow}");
        let middle = &data[b"before\n".len()..data.len() - b"after\n".len()];
        let middle = middle.strip_suffix(b"\n").unwrap_or(middle);
        assert!(long.starts_with(middle), "{flow}: {} bytes of the line", middle.len());
        if flow.contains("truncate") {
            assert!((1_000_000..limit).contains(&middle.len()), "{}", middle.len());
        }
        let status = scene.status("what a stopped agent left", |_| true);
        super::scene::assert_books_balance(&status);
        let skipped = number(&status, "/flows/0/totals/skipped_bytes");
        assert_eq!(skipped, (file.len() - data.len()) as u64, "{flow}");
        assert_eq!(number(&status, "/flows/0/files/0/offset"), file.len() as u64, "{flow}");
    }
}

/// A stream that takes larger records is asked how large, and lines up to there go whole.
#[test]
fn the_streams_own_record_limit_counts() {
    let options = Options { max_record_kib: 4096, ..Options::default() };
    let settings = Settings { tail: "buffer: 16 MiB", ..Settings::default() };
    let oracle = Oracle::new(73, Shape::Plain);
    let scene = Scene::with(oracle, &settings, options, Script::healthy());
    let agent = scene.home.start();
    scene.wait("it asked the stream", |log| {
        log.requests.iter().any(|request| {
            request.operation == "DescribeStreamSummary"
                && request.answer == crate::support::endpoint::Delivery::Delivered
        })
    });
    // What the answer says is known once a later line has been sent.
    drop(scene.write(1, 1));
    drop(scene.arrived());
    let line = [vec![b'x'; 3_000_000], b"\n".to_vec()].concat();
    append(&scene.log(0), &line);
    scene.wait("the long line arrived", |log| log.stored_bytes > 3_000_000);
    let records = scene.endpoint.accepted();
    assert_eq!(records.len(), 2);
    assert!(records[1].data == line, "it came whole");
    stop(agent);
}

/// Lines that belong together are never parted, and go when their group is complete or old.
#[test]
fn lines_that_belong_together_stay_together() {
    let settings = Settings {
        merge: "format: none",
        tail: "buffer: 8 MiB",
        flow: "    multiline: { start: '^\\d{4}-', max_age: 300 ms }\n",
        ..Settings::default()
    };
    let scene = Scene::new(74, &settings, Script::healthy());
    let groups = [
        "a line before any group",
        "2026-11-23 ERROR one\n\tat a\n\tat b\n\n\tat c",
        "2026-11-23 INFO two",
        "2026-11-23 ERROR three\n\tat d",
    ];
    append(&scene.log(0), (groups.join("\n") + "\n").as_bytes());
    let agent = scene.home.start();
    scene.wait("all groups arrived", |log| log.stored == 4);
    let records = by_key(&scene).into_values().next().unwrap();
    let records: Vec<_> = records.iter().map(|r| std::str::from_utf8(r).unwrap()).collect();
    assert_eq!(records, groups);
    stop(agent);
}

/// Every line is a user record of an aggregate whose one key is the outer record's, and a reader
/// knows of each where it stood.
#[test]
fn aggregates_hold_the_lines_and_say_where_they_stood() {
    use kinetail::record::kpl;
    use kinetail::record::split::{By, Splitter};

    for (seed, key) in [(75, "file"), (76, "host"), (77, "random")] {
        let settings = Settings {
            merge: "format: kpl, max_age: 1 min",
            key,
            ship: "request_records: 500",
            tail: "buffer: 8 MiB",
            ..Settings::default()
        };
        let scene = backlog(seed, &settings);
        let file = std::fs::read(scene.log(0)).unwrap();
        let mut records = scene.endpoint.accepted();
        let mut splitter = Splitter::new(By::Content);
        for record in &mut records {
            let aggregate = kpl::decode(&record.data).unwrap();
            assert!(aggregate.records().all(|user| user.partition_key == record.key.as_bytes()));
            let pieces = splitter.split(&record.data);
            let origin = pieces[0].origin.clone().unwrap();
            assert_eq!(origin.source.path, scene.log(0));
            let lines: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.to_vec()).collect();
            let at = usize::try_from(origin.offset).unwrap();
            assert!(file[at..].starts_with(&lines), "{key}: the bytes that stand at {at}");
            record.data = lines.into();
        }
        let found = splitter.found();
        assert_eq!((found.kpl, found.unsplit), (records.len() as u64, 0));
        let order = if key == "random" { Order::Any } else { Order::WithinFile };
        scene.oracle.verify(&records, &Layout::Slices, order).assert_exactly_once();
    }
}
