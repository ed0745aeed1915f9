//! The ledger against a reference model that remembers the fate of every single byte, over random
//! reads, settlements in any order, failed commits, restarts, ends of files and idle ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use smallvec::smallvec;

use super::*;
use crate::position::{Fingerprint, Identity, Mark, Position, Span};
use crate::produce::tail::Progress;

fn mark(offset: u64) -> Mark {
    if offset == 0 {
        Mark::default()
    } else {
        Mark { len: 1, hash: u32::try_from(offset).unwrap() }
    }
}

#[derive(Debug, Default)]
struct Bytewise {
    /// The fate of each byte that was read in this run or settled durably before, and whether a
    /// line ends there.
    bytes: Vec<(Option<Fate>, bool)>,
    in_flight: Vec<Run>,
    progress: Arc<Progress>,
    prefix: u64,
    lost: u64,
    is_gone: bool,
}

impl Bytewise {
    fn prefix(&self) -> u64 {
        let settled = self.bytes.iter().take_while(|(fate, _)| fate.is_some());
        u64::try_from(settled.count()).unwrap()
    }

    fn books(&self, range: std::ops::Range<u64>) -> Books {
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let mut books = Books::default();
        for (fate, ends_line) in &self.bytes[range] {
            match fate {
                Some(Fate::Acknowledged) => {
                    books.acknowledged += 1;
                    books.lines += u64::from(*ends_line);
                }
                Some(Fate::DeadLettered) => books.dead_lettered += 1,
                Some(Fate::Skipped) => books.skipped += 1,
                None => {}
            }
        }
        books
    }
}

struct World {
    ledger: Ledger,
    files: BTreeMap<FileKey, Bytewise>,
    next_key: u64,
    pending: Option<Commit>,
    durable: BTreeMap<FileKey, FileRow>,
    durable_letters: Vec<DeadLetter>,
}

#[derive(Clone, Debug)]
enum Step {
    New,
    Read { file: usize, runs: Vec<u64> },
    Settle { file: usize, run: usize, fate: Fate },
    Take,
    Answer { written: bool },
    Lost { file: usize, bytes: u64 },
    Idle { file: usize },
    Gone { file: usize },
    Restart { pending_written: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        6 => Just(Fate::Acknowledged), 1 => Just(Fate::DeadLettered), 1 => Just(Fate::Skipped)
    ];
    let file = 0..8_usize;
    prop_oneof![
        2 => Just(Step::New),
        8 => (file.clone(), prop::collection::vec(1..9_u64, 1..6))
            .prop_map(|(file, runs)| Step::Read { file, runs }),
        20 => (file.clone(), 0..64_usize, fate)
            .prop_map(|(file, run, fate)| Step::Settle { file, run, fate }),
        4 => Just(Step::Take),
        4 => any::<bool>().prop_map(|written| Step::Answer { written }),
        1 => (file.clone(), 1..50_u64).prop_map(|(file, bytes)| Step::Lost { file, bytes }),
        1 => file.clone().prop_map(|file| Step::Idle { file }),
        1 => file.prop_map(|file| Step::Gone { file }),
        1 => any::<bool>().prop_map(|pending_written| Step::Restart { pending_written }),
    ]
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            ledger: Ledger::new("flow".into(), "stream".into()),
            files: BTreeMap::new(),
            next_key: 1,
            pending: None,
            durable: BTreeMap::new(),
            durable_letters: Vec::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let key = FileKey(self.next_key);
        self.next_key += 1;
        self.files.insert(key, Bytewise::default());
        self.open(key);
    }

    /// Opens a file where the model says it was read to.
    fn open(&mut self, key: FileKey) {
        let file = self.files.get_mut(&key).unwrap();
        let read = u64::try_from(file.bytes.len()).unwrap();
        file.progress = Arc::new(Progress::default());
        file.progress.read_to(read);
        let path: Arc<Path> = Arc::from(Path::new("/var/log/app.log"));
        self.ledger.on_file(&FileEvent::Opened(Opened {
            key,
            path: Arc::clone(&path),
            origin: path,
            identity: Identity { fingerprint: Fingerprint::of(b"x"), ..Identity::default() },
            start: Position { offset: read, mark: mark(read) },
            size: read,
            progress: Arc::clone(&file.progress),
        }));
    }

    fn pick(&self, index: usize) -> Option<FileKey> {
        let keys: Vec<_> =
            self.files.iter().filter(|(_, file)| !file.is_gone).map(|(key, _)| *key).collect();
        keys.get(index % keys.len().max(1)).copied()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::New => self.start(),
            Step::Read { file, runs } => self.read(file, &runs),
            Step::Settle { file, run, fate } => {
                let key = *self.files.keys().nth(file % self.files.len()).unwrap();
                self.settle(key, run, fate);
            }
            Step::Take => self.take(),
            Step::Answer { written } => self.answer(written),
            Step::Lost { file, bytes } => {
                if let Some(key) = self.pick(file) {
                    self.files.get_mut(&key).unwrap().lost += bytes;
                    self.ledger.on_file(&FileEvent::Lost { key, bytes, reason: "truncated" });
                }
            }
            Step::Idle { file } => {
                if let Some(key) = self.pick(file) {
                    let end = self.files[&key].progress.read();
                    self.ledger.on_file(&FileEvent::Closed { key, end, gone: false });
                    self.open(key);
                }
            }
            Step::Gone { file } => {
                if let Some(key) = self.pick(file) {
                    let file = self.files.get_mut(&key).unwrap();
                    file.is_gone = true;
                    let end = file.progress.read();
                    self.ledger.on_file(&FileEvent::Closed { key, end, gone: true });
                }
            }
            Step::Restart { pending_written } => self.restart(pending_written),
        }
    }

    fn read(&mut self, index: usize, runs: &[u64]) {
        let Some(key) = self.pick(index) else { return };
        let file = self.files.get_mut(&key).unwrap();
        for len in runs {
            let start = u64::try_from(file.bytes.len()).unwrap();
            let end = start + len;
            file.bytes.extend((start..end).map(|at| (None, at + 1 == end)));
            let span = Span { file: key, start, end };
            file.in_flight.push(Run { span, mark: mark(end), lines: 1 });
            file.progress.read_to(end);
        }
    }

    fn settle(&mut self, key: FileKey, index: usize, fate: Fate) {
        let file = self.files.get_mut(&key).unwrap();
        if file.in_flight.is_empty() {
            return;
        }
        let run = file.in_flight.swap_remove(index % file.in_flight.len());
        let (start, end) = (run.span.start, run.span.end);
        for byte in &mut file.bytes[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()]
        {
            assert!(byte.0.replace(fate).is_none(), "the model settles a byte twice");
        }
        match fate {
            Fate::Acknowledged => self.ledger.accepted(&[run]),
            Fate::Skipped => self.ledger.skipped(&run),
            Fate::DeadLettered => {
                let record = Record {
                    partition_key: "key".into(),
                    ordered: true,
                    data: Bytes::from(format!("{}:{start}:{end}", key.0)),
                    runs: smallvec![run],
                };
                self.ledger.dead_lettered(&record, "too large", 7);
            }
        }
    }

    fn take(&mut self) {
        let commit = self.ledger.take_commit();
        if self.pending.is_some() {
            assert!(commit.is_none(), "two commits are with the store");
            return;
        }
        let Some(commit) = commit else { return };
        for row in &commit.files {
            let file = &self.files[&row.key];
            assert_eq!(row.position.offset, file.prefix(), "I1: {}", row.key);
            assert_eq!(row.position.mark, mark(row.position.offset));
            let books = Books { lost: file.lost, ..file.books(0..row.position.offset) };
            assert_eq!(row.books, books);
        }
        self.pending = Some(commit);
    }

    fn answer(&mut self, written: bool) {
        let Some(commit) = self.pending.take() else { return };
        if written {
            self.write(commit);
            self.ledger.committed();
        } else {
            self.ledger.commit_failed(commit);
        }
    }

    fn write(&mut self, commit: Commit) {
        for row in commit.files {
            self.durable.insert(row.key, row);
        }
        for key in commit.removed {
            self.durable.remove(&key);
        }
        self.durable_letters.extend(commit.dead_letters);
        for (key, row) in &self.durable {
            self.assert_letters_cover(*key, row.position.offset);
        }
    }

    /// Every dead-lettered byte that a durable position has passed stands in a durable letter.
    fn assert_letters_cover(&self, key: FileKey, prefix: u64) {
        let mut covered = vec![false; self.files[&key].bytes.len()];
        for letter in &self.durable_letters {
            let text = std::str::from_utf8(&letter.data).unwrap();
            let numbers: Vec<usize> = text.split(':').map(|n| n.parse().unwrap()).collect();
            if u64::try_from(numbers[0]).unwrap() == key.0 {
                let end = numbers[2].min(covered.len());
                covered[numbers[1].min(end)..end].fill(true);
            }
        }
        let bytes = self.files[&key].bytes.iter().zip(&covered);
        for ((fate, _), covered) in bytes.take(usize::try_from(prefix).unwrap()) {
            assert!(!matches!(fate, Some(Fate::DeadLettered)) || *covered, "a letter is lost");
        }
    }

    fn restart(&mut self, pending_written: bool) {
        if let Some(commit) = self.pending.take().filter(|_| pending_written) {
            self.write(commit);
        }
        self.ledger = Ledger::new("flow".into(), "stream".into());
        for row in self.durable.values() {
            self.ledger.restore(row);
        }
        for (key, mut file) in std::mem::take(&mut self.files) {
            let Some(row) = self.durable.get(&key) else {
                // Never committed: found again under a new key, from its beginning.
                if !file.is_gone {
                    self.start();
                }
                continue;
            };
            file.bytes.truncate(usize::try_from(row.position.offset).unwrap());
            file.in_flight.clear();
            file.prefix = row.position.offset;
            file.lost = row.books.lost;
            let (is_gone, is_ended, end) = (file.is_gone, row.ended, row.position.offset);
            self.files.insert(key, file);
            if is_ended {
                self.files.get_mut(&key).unwrap().is_gone = true;
            } else if is_gone {
                self.ledger.on_file(&FileEvent::Closed { key, end, gone: true });
            } else {
                self.open(key);
            }
        }
        if self.files.is_empty() {
            self.start();
        }
    }

    fn check(&mut self) {
        let mut in_flight = 0;
        let statuses: BTreeMap<_, _> =
            self.ledger.files().into_iter().map(|status| (FileKey(status.key), status)).collect();
        for (key, file) in &mut self.files {
            let prefix = file.prefix();
            assert!(prefix >= file.prefix, "I2: {key}");
            file.prefix = prefix;
            let flying: u64 = file.in_flight.iter().map(|run| run.span.len()).sum();
            in_flight += flying;
            let Some(status) = statuses.get(key) else {
                assert!(file.is_gone && flying == 0 && file.lost == 0, "{key} is missing");
                continue;
            };
            assert_eq!(status.lost_bytes, file.lost);
            if file.is_gone && flying == 0 {
                // Shown for what it lost only; what was in flight at a restart is in no book of it.
                continue;
            }
            assert_eq!(file.progress.settled(), prefix);
            assert_eq!(status.offset, prefix);
            assert_eq!(status.in_flight_bytes, flying);
            let books = file.books(0..u64::try_from(file.bytes.len()).unwrap());
            assert_eq!(status.acknowledged_bytes, books.acknowledged);
            assert_eq!(status.dead_lettered_bytes, books.dead_lettered);
            assert_eq!(status.skipped_bytes, books.skipped);
            assert_eq!(status.acknowledged_lines, books.lines);
            assert_eq!(status.read_bytes, file.progress.read(), "I3: {key}");
            assert_eq!(status.read_bytes, books.settled() + flying, "I3: {key}");
        }
        let totals = self.ledger.totals();
        assert_eq!(totals.in_flight_bytes, in_flight);
        assert_eq!(self.ledger.is_settled(), in_flight == 0);
        assert_eq!(
            totals.read_bytes,
            totals.acknowledged_bytes
                + totals.dead_lettered_bytes
                + totals.skipped_bytes
                + totals.in_flight_bytes
        );
        assert_eq!(self.ledger.faults(), 0);
    }

    /// All is accepted and committed: everything is durable.
    fn drain(&mut self) {
        for key in self.files.keys().copied().collect::<Vec<_>>() {
            while !self.files[&key].in_flight.is_empty() {
                self.settle(key, 0, Fate::Acknowledged);
                self.check();
            }
        }
        self.answer(false);
        self.take();
        self.answer(true);
        assert!(!self.ledger.is_dirty());
        for (key, file) in &self.files {
            let row = &self.durable[key];
            assert_eq!(row.position.offset, u64::try_from(file.bytes.len()).unwrap());
            assert_eq!(row.ended, file.is_gone);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_ledger_agrees_with_a_model_of_every_byte(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
            world.check();
        }
        world.drain();
    }
}
