//! The work that is counted: each case makes its inputs for all rounds, then does some of them.
//!
//! Invariant: inputs depend on nothing but the case; what rounds that are not done would have used is
//! leaked, so that these rounds cost nothing.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kinetail::config::{Config, Produce};
use kinetail::position::{FileKey, Mark, Preceding, Run, Span};
use kinetail::produce::acknowledge::Ledger;
use kinetail::produce::merge::{Merger, RecordLimit};
use kinetail::produce::ship::Shipper;
use kinetail::produce::tail::{Chunk, FileEvent, Newlines, Opened, Output};
use kinetail::record::{Record, json_array, lines};
use kinetail::stream::{EntryOutcome, Outcome};

/// One thing that is counted.
pub(crate) struct Case {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// What one unit of it is.
    pub(crate) unit: &'static str,
    /// Units a round.
    pub(crate) units: u32,
    /// Does so many rounds of so many that are made ready.
    pub(crate) run: fn(u32, u32),
}

/// Lines a chunk: 200 KB, about what a turn reads.
const LINES: u32 = 1000;

/// Files that take turns, where the number matters to a map.
const FILES: u32 = 100;

/// Bytes of a cache line, and of the widest vector.
const CACHE_LINE: usize = 64;

/// All cases.
pub(crate) const CASES: &[Case] = &[
    Case { name: "merge/block", unit: "line", units: LINES, run: merge_block },
    Case { name: "merge/by-line", unit: "line", units: LINES, run: merge_by_line },
    Case { name: "merge/json-array", unit: "line", units: LINES, run: merge_json_array },
    Case { name: "ship/500-small-records", unit: "record", units: 500, run: ship_small },
    Case { name: "ship/40-full-records", unit: "record", units: 40, run: ship_full },
    Case { name: "acknowledge/accepted", unit: "record", units: FILES, run: accept },
    Case { name: "record/lines-split", unit: "line", units: LINES, run: split_lines },
    Case { name: "record/delimiter-split", unit: "line", units: LINES, run: split_delimited },
    Case { name: "record/json-array-split", unit: "line", units: LINES, run: split_json },
    Case { name: "position/mark", unit: "mark", units: LINES, run: marks },
];

/// Does `act` to the first `rounds` of what `make` makes for all `most`.
fn each<T>(rounds: u32, most: u32, make: impl Fn(u32) -> T, mut act: impl FnMut(T)) {
    let mut inputs: Vec<T> = (0..most).map(make).collect();
    let unused = inputs.split_off(rounds as usize);
    inputs.into_iter().for_each(&mut act);
    std::mem::forget((unused, act));
}

fn merge_block(rounds: u32, most: u32) {
    merged("lines", rounds, most);
}

fn merge_by_line(rounds: u32, most: u32) {
    merged("lines, delimiter: \"#-#\"", rounds, most);
}

fn merge_json_array(rounds: u32, most: u32) {
    merged("json_array", rounds, most);
}

/// A round: a chunk of one file through the merger. Nothing becomes old.
fn merged(format: &str, rounds: u32, most: u32) {
    let limit = Arc::new(RecordLimit::default());
    let mut merger = Merger::new(&flow(format), "host", limit, fastrand::Rng::with_seed(1));
    let mut out = Vec::new();
    merger.on_input(Output::File(opened(0)), &mut out);
    let (text, now) = (text(), Instant::now());
    let (len, origin) = (text.len() as u64, path(0));
    let chunk = |round: u32| {
        let start = u64::from(round) * len;
        Output::Chunk(Chunk {
            span: Span { file: FileKey(0), start, end: start + len },
            origin: Arc::clone(&origin),
            data: text.clone(),
            newlines: Newlines::of(&text),
            preceding: Preceding::default(),
            starts_line: true,
            ends_line: true,
            read_at: now,
        })
    };
    each(rounds, most, chunk, move |chunk| {
        merger.on_input(chunk, &mut out);
        black_box(&out);
        out.clear();
    });
}

fn ship_small(rounds: u32, most: u32) {
    shipped(500, 500, rounds, most);
}

fn ship_full(rounds: u32, most: u32) {
    shipped(40, 24_900, rounds, most);
}

/// A round: one call of records of as many ordered keys, pushed, sent, and accepted.
fn shipped(records: u32, bytes: usize, rounds: u32, most: u32) {
    let mut shipper = Shipper::new(flow("lines").ship, 0, true, fastrand::Rng::with_seed(1));
    let (data, start) = (Bytes::from(vec![b'x'; bytes]), Instant::now());
    let keys: Vec<Arc<str>> = (0..records).map(|key| Arc::from(format!("{key:032x}"))).collect();
    let shard: Arc<str> = Arc::from("shardId-000000000000");
    let call = |round: u32| {
        let record = |(file, key): (u64, &Arc<str>)| Record {
            partition_key: Arc::clone(key),
            ordered: true,
            data: data.clone(),
            runs: [run(file, round, bytes as u64)].into_iter().collect(),
        };
        let pushed: Vec<Record> = (0..).zip(&keys).map(record).collect();
        let accepted = EntryOutcome::Accepted { shard: Arc::clone(&shard) };
        // A call takes a while.
        let now = start + Duration::from_millis(10) * round;
        (now, pushed, Outcome::Answered(vec![accepted; records as usize]))
    };
    let mut receipts = Vec::new();
    each(rounds, most, call, move |(now, pushed, outcome)| {
        for record in pushed {
            shipper.push(now, record);
        }
        let request = shipper.next_request(now).unwrap();
        assert_eq!(request.entries.len(), records as usize, "one call");
        shipper.on_outcome(now, request.id, outcome, &mut receipts);
        assert_eq!(receipts.len(), records as usize, "all accepted");
        receipts.clear();
    });
}

/// A round: a record of each file is accepted, the second of two before the first, as happens with
/// several calls in flight; then the positions are committed. So rounds come in pairs.
fn accept(rounds: u32, most: u32) {
    let mut ledger = Ledger::new(Arc::from("flow"), Arc::from("stream"));
    for file in 0..u64::from(FILES) {
        ledger.on_file(&opened(file));
    }
    let round = |round: u32| -> Vec<[Run; 1]> {
        (0..u64::from(FILES)).map(|file| [run(file, round ^ 1, 25_000)]).collect()
    };
    each(rounds, most, round, move |records| {
        for runs in &records {
            ledger.accepted(runs);
        }
        black_box(ledger.take_commit());
        ledger.committed();
    });
}

fn split_lines(rounds: u32, most: u32) {
    over(&text(), rounds, most, |text| {
        assert_eq!(lines::split(black_box(text), b"\n").count(), LINES as usize);
    });
}

fn split_delimited(rounds: u32, most: u32) {
    over(&joined(b"", b"#-#", b""), rounds, most, |text| {
        assert_eq!(lines::split(black_box(text), b"#-#").count(), LINES as usize);
    });
}

fn split_json(rounds: u32, most: u32) {
    over(&joined(b"[", b",", b"]"), rounds, most, |array| {
        assert_eq!(json_array::split(black_box(array)).unwrap().len(), LINES as usize);
    });
}

fn marks(rounds: u32, most: u32) {
    over(&text(), rounds, most, |text| {
        for end in 1..=LINES as usize {
            black_box(Mark::of(black_box(&text[..end * 64])));
        }
    });
}

/// A round: the same bytes again.
fn over(bytes: &Bytes, rounds: u32, most: u32, mut act: impl FnMut(&[u8])) {
    each(rounds, most, |_| bytes.clone(), move |bytes| act(&bytes));
}

/// The lines of [`text`] with `between` between two of them.
fn joined(before: &[u8], between: &[u8], after: &[u8]) -> Bytes {
    let text = text();
    let lines: Vec<&[u8]> = lines::split(&text, b"\n").collect();
    aligned(&[before, &lines.join(between), after].concat())
}

/// JSON lines of 150 to 250 bytes, always the same.
fn text() -> Bytes {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut text = String::new();
    for line in 0..LINES {
        let path: String = (0..rng.usize(80..180)).map(|_| rng.alphanumeric()).collect();
        let (second, status) = (line % 60, rng.u16(200..599));
        let time = format!("2024-01-01T00:00:{second:02}Z");
        let fields = format!("\"time\":\"{time}\",\"n\":{line},\"status\":{status}");
        text.extend(["{", &fields, ",\"path\":\"/", &path, "\"}\n"]);
    }
    aligned(text.as_bytes())
}

/// Copies `bytes` to the start of a cache line: searching goes by vectors, and one step more or less
/// at the start of each search moved a count by 6 %.
fn aligned(bytes: &[u8]) -> Bytes {
    let mut room: Vec<u8> = Vec::with_capacity(bytes.len() + CACHE_LINE);
    let start = room.as_ptr().align_offset(CACHE_LINE);
    room.resize(start, 0);
    room.extend_from_slice(bytes);
    Bytes::from(room).slice(start..)
}

fn flow(format: &str) -> Produce {
    let text = format!(
        "state_dir: /nowhere\nproduce:\n  - name: counted\n    files: [\"/nowhere/*.log\"]\n    stream: s\n    merge: {{ format: {format}, max_age: 1 h }}\n"
    );
    Config::parse(&text, "agent.yaml").unwrap().produce.remove(0)
}

fn path(file: u64) -> Arc<Path> {
    Arc::from(Path::new(&format!("/nowhere/{file}.log")))
}

fn opened(file: u64) -> FileEvent {
    FileEvent::Opened(Opened::begun(FileKey(file), path(file)))
}

/// Returns the `number`th run of `len` bytes of a file.
fn run(file: u64, number: u32, len: u64) -> Run {
    let start = u64::from(number) * len;
    let span = Span { file: FileKey(file), start, end: start + len };
    Run { span, mark: Mark::default(), lines: 1 }
}
