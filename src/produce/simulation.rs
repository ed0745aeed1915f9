//! The producer's own state machines ([`Merger`], [`Shipper`], [`Ledger`]) on a simulated clock, over
//! simulated files, stream and checkpoint store, with crashes: a schedule a seed.
//!
//! Goal: whatever is drawn, (1) no durable position is ever beyond what the stream or the durable
//! dead letters hold; (2) once the faults end, every line is there, byte for byte; (3) the lines of an
//! ordered key first arrive in order; (4) what comes twice is no more than what was stored without an
//! answer, or stored and not committed at a crash; (5) the books balance. Method: a line says which
//! file and offset it is of, so the stream's content alone is judged, by nothing the agent says.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fastrand::Rng;

use super::acknowledge::Ledger;
use super::merge::{self, Merger, RecordLimit};
use super::ship::{FlightId, Receipt, Shipper};
use super::tail::{self, Chunk, FileEvent, Newlines, Opened, Progress};
use super::*;
use crate::checkpoint::Commit;
use crate::config::Config;
use crate::effort;
use crate::position::{FileKey, Fingerprint, Identity, Position, Preceding, Span};
use crate::stream::{Entry, EntryOutcome, Outcome, Trouble};

/// Schedules of a run of `cargo test`.
const SCHEDULES: u64 = 600;
/// Steps under faults.
const STEPS: usize = 400;
/// Steps within which all must have arrived once the faults have ended.
const STEPS_MAX: usize = 100_000;
/// The most bytes of a file that are read and not settled.
const UNSETTLED_MAX: u64 = 8_000;
const SHARDS: usize = 4;
const POISON: &[u8] = b"poison";

/// A file, and what of it has arrived.
#[derive(Default)]
struct Source {
    bytes: Vec<u8>,
    read: usize,
    preceding: Preceding,
    progress: Arc<Progress>,
    /// Where the lines start that the stream or a durable dead letter holds.
    arrived: BTreeSet<u64>,
    /// Everything before this has arrived.
    prefix: u64,
    /// Where the lines start that were given up in company with poison. Should the agent die before
    /// that is durable, they are merged anew, and may then come late, for themselves.
    given_up: BTreeSet<u64>,
    /// The last line that arrived for the first time.
    latest: Option<u64>,
}

impl Source {
    /// Returns the line, without its newline, that starts at an offset.
    fn line(&self, start: u64) -> &[u8] {
        let rest = &self.bytes[usize::try_from(start).unwrap()..];
        rest.split(|byte| *byte == b'\n').next().unwrap()
    }

    fn advance(&mut self) {
        while self.arrived.contains(&self.prefix) {
            self.prefix += self.line(self.prefix).len() as u64 + 1;
        }
    }

    /// Returns how many bytes have arrived from `offset` on.
    fn arrived_from(&self, offset: u64) -> u64 {
        self.arrived.range(offset..).map(|start| self.line(*start).len() as u64 + 1).sum()
    }
}

struct World {
    flow: Produce,
    rng: Rng,
    now: Instant,
    ordered: bool,
    files: BTreeMap<FileKey, Source>,
    merger: Merger,
    shipper: Shipper,
    ledger: Ledger,
    calls: BTreeMap<FlightId, Vec<Entry>>,
    offered: Option<Commit>,
    durable: BTreeMap<FileKey, FileRow>,
    /// The shard that takes nothing, and until when.
    hot: (usize, Instant),
    duplicate_bytes: u64,
    allowed_bytes: u64,
    crashes: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let flow = flow(&mut rng);
        let key = FileKey(0);
        let now = Instant::now();
        let mut world = Self {
            ordered: !matches!(flow.partition_key, crate::config::PartitionKey::Random),
            merger: Merger::new(&flow, "host", Arc::new(RecordLimit::default()), rng.fork()),
            shipper: Shipper::new(flow.ship.clone(), 0, flow.merge.joins(), rng.fork()),
            ledger: Ledger::new("flow".into(), "stream".into()),
            flow,
            now,
            files: (1..=rng.u64(1..5)).map(|file| (FileKey(file), Source::default())).collect(),
            calls: BTreeMap::new(),
            offered: None,
            durable: BTreeMap::new(),
            hot: (usize::MAX, now),
            duplicate_bytes: 0,
            allowed_bytes: 0,
            crashes: 0,
            rng,
        };
        assert!(!world.files.contains_key(&key), "keys count from 1, as the store's do");
        world.start();
        world
    }

    /// Starts the agent from what is durable.
    fn start(&mut self) {
        let limit = Arc::new(RecordLimit::default());
        self.merger = Merger::new(&self.flow, "host", limit, self.rng.fork());
        let joins = self.flow.merge.joins();
        self.shipper = Shipper::new(self.flow.ship.clone(), 0, joins, self.rng.fork());
        self.ledger = Ledger::new("flow".into(), "stream".into());
        self.durable.values().for_each(|row| self.ledger.restore(row));
        let mut out = Vec::new();
        for (key, file) in &mut self.files {
            let start = self.durable.get(key).map_or_else(Position::default, |row| row.position);
            file.read = usize::try_from(start.offset).unwrap();
            file.preceding = Preceding::default().after(&file.bytes[..file.read]);
            file.progress = Arc::new(Progress::default());
            file.progress.read_to(start.offset);
            let path = path_of(*key);
            let fingerprint = Fingerprint::of(b"head");
            let opened = FileEvent::Opened(Opened {
                key: *key,
                path: Arc::clone(&path),
                origin: path,
                identity: Identity { fingerprint, ..Identity::default() },
                start,
                size: file.bytes.len() as u64,
                progress: Arc::clone(&file.progress),
            });
            self.merger.on_input(tail::Output::File(opened), &mut out);
        }
        self.take_in(out);
    }

    fn take_in(&mut self, out: Vec<merge::Output>) {
        for output in out {
            match output {
                merge::Output::File(event) => self.ledger.on_file(&event),
                merge::Output::Record(record) => self.shipper.push(self.now, record),
                merge::Output::Skipped(run) => self.ledger.skipped(&run),
            }
        }
    }

    /// One of the things that can happen, drawn.
    fn step(&mut self) {
        match self.rng.u8(..) {
            0..60 => self.write(),
            60..120 => self.read(),
            120..190 => self.answer(true),
            190..220 => self.pass(),
            220..240 => self.commit(true),
            240..250 => self.hot = (self.rng.usize(..SHARDS), self.later(3_000)),
            250..254 => self.send(),
            _ => self.crash(),
        }
        self.send();
    }

    fn later(&mut self, millis_max: u64) -> Instant {
        self.now + Duration::from_millis(self.rng.u64(..millis_max))
    }

    fn write(&mut self) {
        let count = self.files.len() as u64;
        let key = FileKey(self.rng.u64(1..=count));
        let file = self.files.get_mut(&key).unwrap();
        for _ in 0..self.rng.usize(1..8) {
            let filler = "x".repeat(self.rng.usize(..200));
            let poison = if self.rng.u8(..) == 0 { "poison" } else { "" };
            let line = format!("{}:{}:{filler}{poison}\n", key.0, file.bytes.len());
            file.bytes.extend_from_slice(line.as_bytes());
        }
    }

    /// Reads a chunk of whole lines, where there is room for it.
    fn read(&mut self) {
        let most = self.rng.usize(1..3_000);
        let settled = |file: &Source| file.read as u64 <= file.progress.settled() + UNSETTLED_MAX;
        let unread =
            |(_, file): &(&FileKey, &mut Source)| file.read < file.bytes.len() && settled(file);
        if !self.shipper.has_room() {
            return;
        }
        let files: Vec<_> = self.files.iter_mut().filter(unread).collect();
        let Some((key, file)) = self.rng.choice(files) else { return };
        let rest = &file.bytes[file.read..];
        let window = &rest[..rest.len().min(most)];
        let newline = memchr::memrchr(b'\n', window).or_else(|| memchr::memchr(b'\n', rest));
        let data = Bytes::copy_from_slice(&rest[..=newline.unwrap()]);
        let (start, end) = (file.read as u64, (file.read + data.len()) as u64);
        let preceding = file.preceding;
        (file.read, file.preceding) = (file.read + data.len(), preceding.after(&data));
        file.progress.read_to(end);
        let chunk = Chunk {
            span: Span { file: *key, start, end },
            origin: path_of(*key),
            newlines: Newlines::of(&data),
            data,
            preceding,
            starts_line: true,
            ends_line: true,
            read_at: self.now,
        };
        let mut out = Vec::new();
        self.merger.on_input(tail::Output::Chunk(chunk), &mut out);
        self.take_in(out);
    }

    /// Lets time pass, often to just when something is due.
    fn pass(&mut self) {
        let due = self.merger.next_deadline().into_iter().chain(self.shipper.next_wakeup(self.now));
        let at = due.min().filter(|_| self.rng.bool()).unwrap_or(self.now);
        self.now = if at > self.now { at } else { self.later(500) };
        let mut out = Vec::new();
        self.merger.on_tick(self.now, &mut out);
        self.take_in(out);
    }

    fn send(&mut self) {
        while let Some(request) = self.shipper.next_request(self.now) {
            self.calls.insert(request.id, request.entries);
        }
    }

    /// Ends a call that is out, if one is.
    fn answer(&mut self, faulty: bool) {
        let ids: Vec<_> = self.calls.keys().copied().collect();
        let Some(id) = self.rng.choice(ids) else { return };
        let entries = self.calls.remove(&id).unwrap();
        self.now = self.later(100);
        let fault = if faulty { self.rng.u8(..16) } else { u8::MAX };
        let outcome = self.outcome(&entries, fault);
        let mut receipts = Vec::new();
        self.shipper.on_outcome(self.now, id, outcome, &mut receipts);
        for receipt in receipts {
            match receipt {
                Receipt::Accepted(record) => self.ledger.accepted(&record.runs),
                Receipt::Poisoned(record, reason) => {
                    assert!(is_poison(&record.data), "only poison is given up");
                    for (key, start, _) in lines(&record.data) {
                        self.files.get_mut(&key).unwrap().given_up.insert(start);
                    }
                    self.ledger.dead_lettered(&record, &reason, 0);
                }
            }
        }
    }

    fn outcome(&mut self, entries: &[Entry], fault: u8) -> Outcome {
        let message = || "words".to_owned();
        match fault {
            0 => Outcome::Unknown { message: message() },
            1 | 2 => {
                let share = if fault == 1 { 100 } else { self.rng.u8(..100) };
                self.store_unknown(entries, share);
                Outcome::Unknown { message: message() }
            }
            3 => Outcome::Throttled { message: message() },
            4 => Outcome::Unavailable { trouble: Trouble::Access, message: message() },
            5 => {
                self.store_unknown(entries, 100);
                Outcome::Answered(Vec::new())
            }
            _ if entries.iter().any(|entry| is_poison(&entry.data.concat())) => {
                Outcome::Refused { message: message() }
            }
            _ => {
                let refused = if fault < 9 { 30 } else { 0 };
                let answers = entries.iter().map(|entry| self.answer_entry(entry, refused));
                Outcome::Answered(answers.collect())
            }
        }
    }

    fn answer_entry(&mut self, entry: &Entry, refused: u8) -> EntryOutcome {
        let shard = entry.partition_key.bytes().map(usize::from).sum::<usize>() % SHARDS;
        let name: Arc<str> = Arc::from(format!("shardId-{shard:012}"));
        if self.hot.0 == shard && self.now < self.hot.1 {
            return EntryOutcome::Throttled { shard: self.rng.bool().then_some(name) };
        }
        if self.rng.u8(..100) < refused {
            return EntryOutcome::Failed { message: "internal".to_owned() };
        }
        self.store(&entry.data.concat());
        EntryOutcome::Accepted { shard: name }
    }

    /// Stores entries, each with the given chance in percent, without the agent's being told.
    fn store_unknown(&mut self, entries: &[Entry], share: u8) {
        for entry in entries {
            let data = entry.data.concat();
            if !is_poison(&data) && self.rng.u8(..100) < share {
                self.allowed_bytes += data.len() as u64 + 1;
                self.store(&data);
            }
        }
    }

    /// Takes in what the stream stores.
    fn store(&mut self, data: &[u8]) {
        for (key, start, bytes) in lines(data) {
            let file = self.files.get_mut(&key).unwrap();
            assert_eq!(file.line(start), bytes, "a line is changed");
            if !file.arrived.insert(start) {
                self.duplicate_bytes += bytes.len() as u64 + 1;
                continue;
            }
            if file.given_up.contains(&start) {
                file.advance();
                continue;
            }
            let in_order = file.latest.is_none_or(|latest| latest < start);
            assert!(in_order || !self.ordered, "{key}: {start} after {:?}", file.latest);
            file.latest = Some(start);
            file.advance();
        }
    }

    /// Offers a commit, or answers the one that is offered.
    fn commit(&mut self, faulty: bool) {
        let Some(commit) = self.offered.take() else {
            self.offered = self.ledger.take_commit();
            return;
        };
        if faulty && self.rng.u8(..4) == 0 {
            return self.ledger.commit_failed(commit);
        }
        self.write_commit(commit);
        self.ledger.committed();
    }

    /// Makes a commit durable, and checks that it promises nothing that is not so.
    fn write_commit(&mut self, commit: Commit) {
        for letter in &commit.dead_letters {
            for (key, start, bytes) in lines(&letter.data) {
                let file = self.files.get_mut(&key).unwrap();
                assert_eq!(file.line(start), bytes, "a dead letter is changed");
                file.arrived.insert(start);
                file.advance();
            }
        }
        for row in commit.files {
            let (file, offset) = (&self.files[&row.key], row.position.offset);
            assert!(offset <= file.prefix, "{}: {offset} beyond {}", row.key, file.prefix);
            let before = self.durable.get(&row.key).map_or(0, |row| row.position.offset);
            assert!(offset >= before, "{}: back from {before} to {offset}", row.key);
            let end = usize::try_from(offset).unwrap();
            assert!(row.position.mark.matches(&file.bytes[..end]), "{}: the mark", row.key);
            self.durable.insert(row.key, row);
        }
        for key in commit.removed {
            self.durable.remove(&key);
        }
    }

    /// Kills the agent: what is out may be stored, what is offered may be written.
    fn crash(&mut self) {
        self.crashes += 1;
        for entries in std::mem::take(&mut self.calls).into_values() {
            let share = *self.rng.choice(&[0, 50, 100]).unwrap();
            // Counted below, with all that is stored and not committed.
            let allowed = self.allowed_bytes;
            self.store_unknown(&entries, share);
            self.allowed_bytes = allowed;
        }
        if let Some(commit) = self.offered.take().filter(|_| self.rng.bool()) {
            self.write_commit(commit);
        }
        for (key, file) in &self.files {
            let durable = self.durable.get(key).map_or(0, |row| row.position.offset);
            self.allowed_bytes += file.arrived_from(durable);
        }
        self.start();
    }

    /// Lets everything arrive, without faults.
    fn finish(&mut self) {
        for _ in 0..STEPS_MAX {
            self.read();
            self.send();
            self.answer(false);
            self.commit(false);
            if self.calls.is_empty() {
                self.pass();
            }
            let mut files = self.files.iter();
            if self.offered.is_none()
                && files.all(|(key, file)| {
                    let row = self.durable.get(key).map_or(0, |row| row.position.offset);
                    row == file.bytes.len() as u64
                })
            {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.shipper.snapshot());
    }

    fn judge(&self) {
        for (key, file) in &self.files {
            assert_eq!(file.prefix, file.bytes.len() as u64, "{key}: lines are missing");
        }
        assert!(self.shipper.is_idle() && self.ledger.is_settled());
        assert_eq!(self.ledger.faults(), 0);
        let totals = self.ledger.totals();
        let settled = totals.acknowledged_bytes + totals.dead_lettered_bytes + totals.skipped_bytes;
        assert_eq!((totals.read_bytes, totals.in_flight_bytes), (settled, 0), "the books");
        let (twice, allowed) = (self.duplicate_bytes, self.allowed_bytes);
        assert!(twice <= allowed, "{twice} bytes twice, {allowed} allowed");
    }
}

fn path_of(key: FileKey) -> Arc<std::path::Path> {
    Arc::from(std::path::Path::new(&format!("/{key}.log")))
}

/// Draws a flow.
fn flow(rng: &mut Rng) -> Produce {
    let format = *rng.choice(&["lines", "lines", "none"]).unwrap();
    let key = *rng.choice(&["file", "file", "random", "host", "{ constant: k }"]).unwrap();
    let age = rng.u32(0..2_000);
    let max_lines = if rng.bool() { ", max_lines: 5" } else { "" };
    let max_lines = if format == "none" { "" } else { max_lines };
    let (records, in_flight) = (rng.u32(1..20), rng.u32(1..8));
    let joined = *rng.choice(&["0", "2 KB", "500 KB"]).unwrap();
    let text = format!(
        "state_dir: /nowhere\nproduce:\n  - name: simulated\n    files: ['/nowhere/*.log']\n    \
         stream: s\n    partition_key: {key}\n    \
         merge: {{ format: {format}, max_bytes: 1 KB, max_age: {age} ms{max_lines} }}\n    \
         ship: {{ request_records: {records}, in_flight: {in_flight}, joined_bytes: {joined}, \
         backoff_max: 1 s }}\n"
    );
    Config::parse(&text, "agent.yaml").unwrap().produce.remove(0)
}

fn is_poison(data: &[u8]) -> bool {
    memchr::memmem::find(data, POISON).is_some()
}

/// Returns the lines of a record's data: of which file, from which offset, the bytes.
fn lines(data: &[u8]) -> impl Iterator<Item = (FileKey, u64, &[u8])> {
    let whole = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    whole.map(|line| {
        let mut fields = std::str::from_utf8(line).unwrap().split(':');
        let mut number = || fields.next().unwrap().parse::<u64>().unwrap();
        (FileKey(number()), number(), line)
    })
}

/// Runs the schedule of a seed; returns its lines' bytes and its crashes.
fn schedule(seed: u64) -> (u64, u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.finish();
    world.judge();
    // A fresh line still gets through.
    world.write();
    world.finish();
    world.judge();
    (world.files.values().map(|file| file.bytes.len() as u64).sum(), world.crashes)
}

#[test]
fn whatever_happens_every_line_is_stored_in_order() {
    let first = effort::seed(1);
    let (mut tried, mut bytes, mut crashes) = (0_u64, 0, 0);
    for try_ in effort::tries(SCHEDULES) {
        let seed = first.wrapping_add(try_);
        println!("seed {seed}");
        let (written, died) = schedule(seed);
        tried += 1;
        bytes += written;
        crashes += died;
    }
    println!(
        "\ntried: {tried} simulated schedules from seed {first}, {bytes} bytes, {crashes} crashes, lost 0"
    );
    assert!(crashes > tried / 2, "crashes are part of it");
}
