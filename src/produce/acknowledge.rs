//! Acknowledgement: which bytes of which file are settled, hence how far each checkpoint may move. Pure.
//!
//! Invariants, for every file:
//! I1 a checkpoint never exceeds the settled prefix;
//! I2 the prefix never moves back;
//! I3 read = acknowledged + in flight + dead-lettered + skipped.
//!
//! ```text
//!  Opened, Seen, Moved, Lost, Closed ─▶ ┌────────┐ ─▶ take_commit ─▶ store ─┬─▶ committed
//!  accepted, dead_lettered, skipped  ─▶ │ Ledger │                          │
//!                                       └────────┘ ◀─────── commit_failed ──┘
//! ```
//!
//! One commit is with the store at a time. Were there two, the later could be written and the
//! earlier not, and a position would pass a dead letter that is nowhere.

mod file;
#[cfg(test)]
mod model;
mod settled;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use file::File;

use crate::checkpoint::{Books, Commit, DeadLetter, ENDED_ROWS_MAX, FileRow};
use crate::position::{FileKey, Run};
use crate::produce::tail::{FileEvent, Opened};
use crate::record::Record;
use crate::status::{FileStatus, Totals};

/// The most rows of a commit: ten thousand files that are found at once must not take memory for all
/// their rows at once.
pub const COMMIT_ROWS_MAX: usize = 1024;

/// What became of a run.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Acknowledged,
    DeadLettered,
    Skipped,
}

/// The books of one flow: every byte that was read, until it is settled and committed.
///
/// Memory: one entry a file that is followed or has bytes in flight, one a restored row whose file has
/// not turned up, and at most [`ENDED_ROWS_MAX`] of files that have ended.
#[derive(Debug)]
pub struct Ledger {
    flow: Arc<str>,
    stream: Arc<str>,
    /// Boxed, as below: a node of the tree has room for eleven, and holds six where keys ascend.
    live: BTreeMap<FileKey, Box<File>>,
    /// Rows of files that are not open: restored ones before their `Opened`, and ended ones.
    known: BTreeMap<FileKey, Box<FileRow>>,
    /// The keys of the ended rows in `known`, longest ended first.
    ended: VecDeque<FileKey>,
    changed: BTreeSet<FileKey>,
    /// Of those that had changed when a commit was begun, the ones that are still to follow.
    following: BTreeSet<FileKey>,
    removed: BTreeSet<FileKey>,
    letters: Vec<DeadLetter>,
    /// Whether the store has still to be told that the flow has started.
    announce: bool,
    /// Whether a commit is with the store.
    outstanding: bool,
    /// What was settled and lost in this run of the agent.
    settled: Books,
    faults: u64,
}

impl Ledger {
    /// Returns the empty ledger of the flow `flow`, which writes to `stream`.
    #[must_use]
    pub fn new(flow: Arc<str>, stream: Arc<str>) -> Self {
        Self {
            flow,
            stream,
            live: BTreeMap::new(),
            known: BTreeMap::new(),
            ended: VecDeque::new(),
            changed: BTreeSet::new(),
            following: BTreeSet::new(),
            removed: BTreeSet::new(),
            letters: Vec::new(),
            announce: true,
            outstanding: false,
            settled: Books::default(),
            faults: 0,
        }
    }

    /// Takes in a row that the store had at start, before the `Opened` of its file: the books go on
    /// from there.
    pub fn restore(&mut self, row: &FileRow) {
        self.keep(Box::new(row.clone()));
    }

    /// Notes what reading says of a file.
    ///
    /// `Opened` for a key that is in the table goes on where the file was read to before, and every
    /// settled byte stays so. For a restored key it starts at `start`, which may be before the
    /// restored position (bytes are read again) but not beyond it.
    pub fn on_file(&mut self, event: &FileEvent) {
        match event {
            FileEvent::Opened(opened) => self.on_opened(opened),
            FileEvent::Closed { key, end, gone: true } => self.on_gone(*key, *end),
            // Put away for a while, or by shutdown: it is still followed.
            FileEvent::Closed { gone: false, .. } | FileEvent::Scanned => {}
            FileEvent::Lost { key, bytes, .. } => self.on_lost(*key, *bytes),
            FileEvent::Moved { key, path } => self.on_moved(*key, path),
            FileEvent::Seen { key, size, identity } => {
                if let Some(file) = self.live.get_mut(key)
                    && (file.size, file.identity) != (*size, *identity)
                {
                    file.size = *size;
                    file.identity = *identity;
                    self.changed.insert(*key);
                }
            }
        }
    }

    /// Settles runs that the stream accepted.
    pub fn accepted(&mut self, runs: &[Run]) {
        for run in runs {
            self.settle(run, Fate::Acknowledged);
        }
    }

    /// Settles the runs of a record that no retry can save, and queues it for the dead-letter store:
    /// no commit holds a position past it without holding it, or coming after one that did.
    /// `reason` is the service's word, `now_unix` seconds since 1970.
    pub fn dead_lettered(&mut self, record: &Record, reason: &str, now_unix: u64) {
        self.letters.push(DeadLetter {
            flow: Arc::clone(&self.flow),
            stream: Arc::clone(&self.stream),
            partition_key: Arc::clone(&record.partition_key),
            data: record.data.clone(),
            reason: reason.to_owned(),
            source: self.source(record),
            at: now_unix,
        });
        for run in &record.runs {
            self.settle(run, Fate::DeadLettered);
        }
    }

    /// Settles a run that a setting asks to leave out.
    pub fn skipped(&mut self, run: &Run) {
        self.settle(run, Fate::Skipped);
    }

    /// Returns true where something is to be committed.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.announce
            || !self.changed.is_empty()
            || self.has_rest()
            || !self.removed.is_empty()
            || !self.letters.is_empty()
    }

    /// Returns true where the last commit left rows over for another one, to be taken at once.
    #[must_use]
    pub fn has_rest(&self) -> bool {
        !self.following.is_empty()
    }

    /// Returns what has changed since the last commit, at most [`COMMIT_ROWS_MAX`] rows of it. `None` where nothing has, and as long as the
    /// commit before is with the store: answer each with [`Ledger::committed`] or
    /// [`Ledger::commit_failed`].
    pub fn take_commit(&mut self) -> Option<Commit> {
        if self.outstanding || !self.is_dirty() {
            return None;
        }
        self.outstanding = true;
        let started = if self.announce { vec![Arc::clone(&self.flow)] } else { Vec::new() };
        self.announce = false;
        if self.following.is_empty() {
            self.following = std::mem::take(&mut self.changed);
        }
        let mut keys = std::mem::take(&mut self.following);
        if let Some(&first) = keys.iter().nth(COMMIT_ROWS_MAX) {
            self.following = keys.split_off(&first);
        }
        let files = keys.into_iter().filter_map(|key| self.row(key)).collect();
        Some(Commit {
            started,
            files,
            removed: std::mem::take(&mut self.removed).into_iter().collect(),
            dead_letters: std::mem::take(&mut self.letters),
            consumers: Vec::new(),
        })
    }

    /// Notes that the commit taken last is durable.
    pub fn committed(&mut self) {
        self.outstanding = false;
    }

    /// Takes back the commit taken last, which was not written: the next one offers all of it again.
    pub fn commit_failed(&mut self, commit: Commit) {
        self.outstanding = false;
        self.announce |= !commit.started.is_empty();
        self.changed.append(&mut self.following);
        self.changed.extend(commit.files.iter().map(|row| row.key));
        self.removed.extend(commit.removed);
        let later = std::mem::replace(&mut self.letters, commit.dead_letters);
        self.letters.extend(later);
    }

    /// Returns true where every byte that was read is settled. It says nothing of what was not read.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.live.values().all(|file| file.in_flight() == 0)
    }

    /// Returns the sums over all files, this run of the agent.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let in_flight: u64 = self.live.values().map(|file| file.in_flight()).sum();
        Totals {
            read_bytes: self.settled.settled().saturating_add(in_flight),
            acknowledged_bytes: self.settled.acknowledged,
            acknowledged_lines: self.settled.lines,
            in_flight_bytes: in_flight,
            dead_lettered_bytes: self.settled.dead_lettered,
            skipped_bytes: self.settled.skipped,
            lost_bytes: self.settled.lost,
        }
    }

    /// Returns the files that are followed, have something left to settle, or have lost something, by
    /// path.
    #[must_use]
    pub fn files(&self) -> Vec<FileStatus> {
        let losers = self.known.values().filter(|row| row.ended && row.books.lost > 0);
        let mut files: Vec<_> = losers.map(|row| row.status(row.size, "ended")).collect();
        files.extend(self.live.iter().map(|(key, file)| file.status(*key)));
        files.sort_by(|a, b| (&a.path, a.key).cmp(&(&b.path, b.key)));
        files
    }

    /// Returns how often a stage said what cannot be (bytes settled twice, an unknown file). Each
    /// was refused, and no position moved by it: more than 0 is a bug worth a report.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.faults
    }

    fn on_opened(&mut self, opened: &Opened) {
        let key = opened.key;
        self.removed.remove(&key);
        if let Some(file) = self.live.get_mut(&key) {
            self.changed.insert(key);
            let is_gap = opened.start.offset > file.read_to();
            file.reopen(opened);
            return self.expect(!is_gap, "a file is read on beyond a gap", key);
        }
        let row = self.known.remove(&key);
        if row.as_ref().is_some_and(|row| row.ended) {
            self.ended.retain(|ended| *ended != key);
        }
        let restored = row.as_ref().map_or(opened.start, |row| row.position);
        let is_gap = opened.start.offset > restored.offset;
        // Beyond the restored position, the position stays: the gap is then never settled, and read
        // at the next start rather than lost.
        let position = if is_gap { restored } else { opened.start };
        let books = row.as_ref().map_or_else(Books::default, |row| row.books);
        let file = File::new(opened, position, books);
        // Most files stand as they stood when the agent stopped: the store need not be told.
        if row.is_none_or(|row| *row != file.row(key, &self.flow)) {
            self.changed.insert(key);
        }
        self.live.insert(key, Box::new(file));
        self.expect(!is_gap, "a file is read from beyond its position", key);
    }

    fn on_gone(&mut self, key: FileKey, end: u64) {
        if let Some(file) = self.live.get_mut(&key) {
            file.end = Some(end);
            self.finish(key);
        } else if let Some(row) = self.known.remove(&key) {
            // Of a file that was never opened in this run nothing is in flight.
            self.changed.insert(key);
            self.end(Box::new(FileRow { ended: true, ..*row }));
        } else {
            self.expect(false, "an unknown file is gone", key);
        }
    }

    fn on_lost(&mut self, key: FileKey, bytes: u64) {
        self.settled.lost = self.settled.lost.saturating_add(bytes);
        let books = match (self.live.get_mut(&key), self.known.get_mut(&key)) {
            (Some(file), _) => Some(file.settled.books_mut()),
            (None, Some(row)) => Some(&mut row.books),
            (None, None) => None,
        };
        if let Some(books) = books {
            books.lost = books.lost.saturating_add(bytes);
            self.changed.insert(key);
        }
    }

    fn on_moved(&mut self, key: FileKey, path: &Arc<Path>) {
        let place = match (self.live.get_mut(&key), self.known.get_mut(&key)) {
            (Some(file), _) => Some(&mut file.path),
            (None, Some(row)) => Some(&mut row.path),
            (None, None) => None,
        };
        if let Some(place) = place {
            *place = Arc::clone(path);
            self.changed.insert(key);
        }
    }

    fn settle(&mut self, run: &Run, fate: Fate) {
        let key = run.span.file;
        let Some(file) = self.live.get_mut(&key) else {
            return self.expect(false, "a run of an unknown file", key);
        };
        let books = fate.books(run);
        let Ok(moved) = file.settled.settle(run, books) else {
            return self.expect(false, "bytes are settled twice", key);
        };
        self.settled = self.settled.plus(&books);
        if moved {
            file.report();
            self.changed.insert(key);
            self.finish(key);
        }
    }

    /// Moves a file that is gone and settled from the table to the rows that are only known.
    fn finish(&mut self, key: FileKey) {
        if !self.live.get(&key).is_some_and(|file| file.is_finished()) {
            return;
        }
        if let Some(file) = self.live.remove(&key) {
            self.changed.insert(key);
            self.end(Box::new(file.row(key, &self.flow)));
        }
    }

    /// Keeps the row of a file that has ended, unless it could never be known again.
    fn end(&mut self, row: Box<FileRow>) {
        if row.identity.fingerprint.len == 0 && row.books == Books::default() {
            self.changed.remove(&row.key);
            self.removed.insert(row.key);
        } else {
            self.keep(row);
        }
    }

    fn keep(&mut self, row: Box<FileRow>) {
        if row.ended {
            self.ended.push_back(row.key);
        }
        self.known.insert(row.key, row);
        while self.ended.len() > ENDED_ROWS_MAX {
            if let Some(oldest) = self.ended.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    fn row(&self, key: FileKey) -> Option<FileRow> {
        match self.live.get(&key) {
            Some(file) => Some(file.row(key, &self.flow)),
            None => self.known.get(&key).map(|row| FileRow::clone(row)),
        }
    }

    /// Where the first byte of `record` stands, for people.
    fn source(&self, record: &Record) -> String {
        let first = record.runs.first().map(|run| run.span);
        first.map_or_else(String::new, |span| match self.live.get(&span.file) {
            Some(file) => format!("{} at byte {}", file.path.display(), span.start),
            None => format!("file {} at byte {}", span.file, span.start),
        })
    }

    /// Counts and logs what cannot be. Tests stop at it; a running agent refuses the one input and
    /// goes on, since the position it leaves behind is only too old.
    fn expect(&mut self, holds: bool, what: &'static str, key: FileKey) {
        debug_assert!(holds, "{what}: {key} of {}", self.flow);
        if !holds {
            self.faults += 1;
            // Powers of two: a bug that repeats itself must not flood the log.
            if self.faults.is_power_of_two() {
                let (flow, faults) = (&self.flow, self.faults);
                tracing::error!(%flow, file = %key, faults, what, "the books were told what cannot be");
            }
        }
    }
}

impl Fate {
    fn books(self, run: &Run) -> Books {
        let bytes = run.span.len();
        match self {
            Self::Acknowledged => {
                Books { acknowledged: bytes, lines: u64::from(run.lines), ..Books::default() }
            }
            Self::DeadLettered => Books { dead_lettered: bytes, ..Books::default() },
            Self::Skipped => Books { skipped: bytes, ..Books::default() },
        }
    }
}
