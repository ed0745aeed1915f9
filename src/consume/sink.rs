//! The sink: lines go to their files, and only then does the checkpoint move.
//!
//! Invariant: what is committed is written and synced, and how far a shard is, is committed together
//! with how long the files are that its lines went to. A file that is longer than that when the sink
//! opens is cut back, so that every line stands in it once. What comes again is known by its origin.
//!
//! ```text
//!  record ─▶ pieces ─▶ runs ─┬─ with an origin ─┬─ append: name by the template, new bytes only
//!                            │                  └─ mirror: the generation's file, at its offset
//!                            └─ without, or with a name that is refused ─▶ other_path
//!
//!  write ─ write ─ write ─▶ sync ─▶ commit (shards, lengths, ranges) ─▶ rotate
//!    └────────── a failure: cut back to the last commit, and write it all again
//! ```

mod book;
mod chores;
mod files;
mod mirror;
mod place;
mod rotate;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use memchr::memchr_iter;
use rustix::io::Errno;

use self::book::{Book, State};
use self::chores::{Chores, Found};
use self::files::{FileError, Files};
use super::path::{Name, Root};
use super::received::Range;
use super::records::Batch;
use super::split::Splitters;
use crate::checkpoint::{Chore, ChoreKind, ConsumerCommit, ConsumerRows, OutputRow, ShardRow};
use crate::config::{Consume, Layout};
use crate::position::ShardId;
use crate::record::origin::Origin;
use crate::record::split::{Found as Formats, Piece};

/// The largest offset that is believed. File systems take files of 16 TiB; beyond half of that an
/// offset is made up.
const OFFSET_MAX: u64 = 1 << 43;

/// The most sources that are remembered where they are not mirrored: what comes again of one is known
/// as long as it is remembered.
const SOURCES_MAX: usize = 10_000;

/// How long nothing must have come of a generation that has a successor until it counts as over, in
/// seconds.
const OVER_AFTER: u64 = 30;

/// Where changes are committed.
pub trait Commits: Send {
    /// Commits, and returns once it would outlive a power cut.
    ///
    /// # Errors
    /// Why not, in words; nothing of it is committed then.
    fn commit(&self, commit: ConsumerCommit) -> Result<(), String>;
}

/// Why something could not be written. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The state directory.
    #[error("cannot commit: {0}")]
    Commit(String),
}

/// What was done, since the sink was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records.
    pub records: u64,
    /// Bytes of lines.
    pub bytes: u64,
    /// Lines.
    pub lines: u64,
    /// Bytes that had come before, and were not written again.
    pub duplicate_bytes: u64,
    /// Runs of lines whose source has a name that is refused.
    pub refused: u64,
    /// Runs of lines for which there are too many files.
    pub beyond_files: u64,
}

impl Tally {
    fn plus(self, other: Self) -> Self {
        Self {
            records: self.records.saturating_add(other.records),
            bytes: self.bytes.saturating_add(other.bytes),
            lines: self.lines.saturating_add(other.lines),
            duplicate_bytes: self.duplicate_bytes.saturating_add(other.duplicate_bytes),
            refused: self.refused.saturating_add(other.refused),
            beyond_files: self.beyond_files.saturating_add(other.beyond_files),
        }
    }
}

/// What is known of mirrored generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Generations {
    /// All.
    pub known: u64,
    /// Over, and checked to be what was received.
    pub verified: u64,
    /// Over, and found to be something else.
    pub damaged: u64,
    /// Bytes missing in generations that are over.
    pub hole_bytes: u64,
}

/// Writes one flow's lines.
pub struct Sink {
    consume: Consume,
    stream: Arc<str>,
    splitters: Splitters,
    files: Files,
    book: Book,
    commits: Box<dyn Commits>,
    chores: Chores,
    others: HashMap<ShardId, Name>,
    /// Counted since the last commit, by shard.
    pending: HashMap<ShardId, Tally>,
    totals: HashMap<ShardId, Tally>,
    to_cut: Vec<(Name, u64)>,
    /// The bytes of the run at hand.
    block: Vec<u8>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sink").field("book", &self.book).finish_non_exhaustive()
    }
}

impl Sink {
    /// Opens the directory, does what an earlier run had begun, and cuts files back to what is committed.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn open(
        consume: Consume,
        rows: &ConsumerRows,
        commits: Box<dyn Commits>,
    ) -> Result<Self, SinkError> {
        let failed = |operation| {
            let name = Name::new(b"directory");
            move |source: io::Error| match name {
                Ok(name) => SinkError::File(FileError { operation, name, source }),
                Err(refused) => SinkError::Commit(refused.to_string()),
            }
        };
        let root = Root::open(&consume.directory).map_err(failed("open the"))?;
        let chores = Chores::start(&consume.directory).map_err(failed("start working in the"))?;
        let mut sink = Self {
            stream: Arc::from(consume.stream_name()),
            splitters: Splitters::new(&consume.split),
            files: Files::new(root, consume.write.open_files),
            book: Book::new(Arc::clone(&consume.name), rows),
            commits,
            chores,
            others: HashMap::new(),
            pending: HashMap::new(),
            totals: HashMap::new(),
            to_cut: Vec::new(),
            block: Vec::new(),
            consume,
        };
        sink.resume(&rows.chores)?;
        let outputs = sink.book.outputs().map(|(name, row)| (name.clone(), row.length)).collect();
        sink.cut_back(outputs)?;
        sink.files.sync()?;
        Ok(sink)
    }

    /// Does again what may not have been done.
    fn resume(&mut self, chores: &[Chore]) -> Result<(), SinkError> {
        let mut chores = chores.to_vec();
        chores.sort_by_key(|chore| chore.id);
        let mut done = Vec::new();
        for chore in chores {
            let (Ok(source), Ok(target)) = (Name::new(&chore.source), Name::new(&chore.target))
            else {
                done.push(chore.id);
                continue;
            };
            match chore.kind {
                ChoreKind::Rename => {
                    self.rename(&source, &target)?;
                    done.push(chore.id);
                }
                ChoreKind::Compress => self.chores.compress(chore.id, source, target),
            }
        }
        self.chores_done(done)
    }

    fn chores_done(&mut self, chores_done: Vec<u64>) -> Result<(), SinkError> {
        if chores_done.is_empty() {
            return Ok(());
        }
        let flow = Arc::clone(&self.book.flow);
        let commit = ConsumerCommit { flow, chores_done, ..ConsumerCommit::default() };
        self.commits.commit(commit).map_err(SinkError::Commit)
    }

    /// Cuts appended files back to what is committed.
    fn cut_back(&mut self, outputs: Vec<(Name, u64)>) -> Result<(), SinkError> {
        self.to_cut.extend(outputs);
        while let Some((name, length)) = self.to_cut.last().cloned() {
            let found = self.files.cut(&name, length)?;
            if found < length {
                tracing::warn!(
                    flow = &*self.book.flow, file = %name, length, found,
                    "a file is shorter than what was written to it; it is gone on with as it is"
                );
                let row = OutputRow { length: found, open_end: None, ..self.row(&name) };
                self.book.committed_output(row);
            }
            self.to_cut.pop();
        }
        Ok(())
    }

    fn row(&self, name: &Name) -> OutputRow {
        let new = || OutputRow { name: name.as_bytes().to_vec(), ..OutputRow::default() };
        self.book.output(name).cloned().unwrap_or_else(new)
    }

    /// Writes the lines of a batch, at `now` in seconds since 1970. Nothing of it counts before
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    /// [`SinkError`]: then all since the last commit is to be [rolled back](Self::roll_back).
    pub fn write(&mut self, shard: &ShardId, batch: &Batch, now: u64) -> Result<(), SinkError> {
        let mut splitters =
            std::mem::replace(&mut self.splitters, Splitters::on(&self.consume.split, 1));
        let mut skip = usize::try_from(batch.skip).unwrap_or(usize::MAX);
        let outcome = splitters.each(&batch.records, |_, pieces| {
            self.tally(shard).records += 1;
            self.record(shard, &pieces, std::mem::take(&mut skip), now)
        });
        self.splitters = splitters;
        outcome?;
        let finished = batch.end.is_some();
        let progress = batch.progress();
        if progress.is_some() || finished {
            self.book.advance(ShardRow { shard: shard.clone(), progress, finished });
        }
        Ok(())
    }

    fn tally(&mut self, shard: &ShardId) -> &mut Tally {
        self.pending.entry(shard.clone()).or_default()
    }

    /// Writes a record's pieces but the first `skip`.
    fn record(
        &mut self,
        shard: &ShardId,
        pieces: &[Piece],
        mut skip: usize,
        now: u64,
    ) -> Result<(), SinkError> {
        let mut rest = pieces;
        while let Some((first, others)) = rest.split_first() {
            let length = others.iter().take_while(|piece| piece.origin.is_none()).count();
            let (run, after) = rest.split_at(length.saturating_add(1).min(rest.len()));
            rest = after;
            let skipped = skip.min(run.len());
            skip = skip.saturating_sub(skipped);
            let (before, run) = run.split_at(skipped);
            if run.is_empty() {
                continue;
            }
            match &first.origin {
                Some(origin) => {
                    let offset = origin.offset.saturating_add(bytes(before));
                    let origin = Origin { source: Arc::clone(&origin.source), offset };
                    self.run(shard, &origin, run, now)?;
                }
                None => self.foreign(shard, run, now)?,
            }
        }
        Ok(())
    }

    /// Writes lines that do not say where they come from, each with a newline.
    fn foreign(&mut self, shard: &ShardId, run: &[Piece], now: u64) -> Result<(), SinkError> {
        let name = self.other(shard)?;
        let mut block = std::mem::take(&mut self.block);
        block.clear();
        for piece in run {
            block.extend_from_slice(&piece.data);
            if !piece.data.ends_with(b"\n") {
                block.push(b'\n');
            }
        }
        let outcome = self.append(shard, &name, None, &block, now);
        self.block = block;
        outcome
    }

    /// Writes what is new of a run.
    fn run(
        &mut self,
        shard: &ShardId,
        origin: &Origin,
        run: &[Piece],
        now: u64,
    ) -> Result<(), SinkError> {
        let (start, length) = (origin.offset, bytes(run));
        let end = start.saturating_add(length);
        if end > OFFSET_MAX {
            self.tally(shard).refused += 1;
            return self.foreign(shard, run, now);
        }
        let id = self.source(shard, &origin.source, now)?;
        let place = self.place(shard, id)?;
        let Some(source) = self.book.source(id) else { return Ok(()) };
        let missing = source.received.missing(start, end);
        let fresh: u64 = missing.iter().map(|(from, to)| to.saturating_sub(*from)).sum();
        self.tally(shard).duplicate_bytes += length.saturating_sub(fresh);
        let mut block = std::mem::take(&mut self.block);
        let outcome = missing.into_iter().try_for_each(|(from, to)| {
            copy(run, start, from, to, &mut block);
            match &place {
                Place::Mirror(name) => self.patch(shard, name, from, &block)?,
                Place::Append(name) => self.append(shard, name, Some((id, from)), &block, now)?,
            }
            if let Some(source) = self.book.change_source(id) {
                // Where it is too much to remember, it may come twice.
                source.received.add(Range { start: from, end: to, crc: crc32fast::hash(&block) });
                source.state = State::Open;
                source.touched = now;
            }
            Ok(())
        });
        self.block = block;
        outcome
    }

    fn patch(
        &mut self,
        shard: &ShardId,
        name: &Name,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), SinkError> {
        self.count(shard, bytes);
        Ok(self.files.write(name, at, bytes)?)
    }

    /// Appends bytes that stand at `from` of a source, or whole lines of no known source. A line without
    /// its newline is gone on with by its own source alone; before anything else it is ended.
    fn append(
        &mut self,
        shard: &ShardId,
        name: &Name,
        from: Option<(u64, u64)>,
        bytes: &[u8],
        now: u64,
    ) -> Result<(), SinkError> {
        self.count(shard, bytes);
        let row = self.book.change_output(name);
        let mut at = row.length;
        let is_open = row.open_end.is_some() && row.open_end != from;
        let ended = at.saturating_add(u64::from(is_open));
        row.length = ended.saturating_add(bytes.len() as u64);
        row.open_end = from
            .filter(|_| !bytes.ends_with(b"\n"))
            .map(|(id, offset)| (id, offset.saturating_add(bytes.len() as u64)));
        if row.begun == 0 {
            row.begun = now;
        }
        if is_open {
            self.files.write(name, at, b"\n")?;
            at = ended;
        }
        Ok(self.files.write(name, at, bytes)?)
    }

    fn count(&mut self, shard: &ShardId, bytes: &[u8]) {
        let tally = self.tally(shard);
        tally.bytes += bytes.len() as u64;
        tally.lines += memchr_iter(b'\n', bytes).count() as u64;
    }

    /// Returns true where nothing waits for a commit.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.book.is_committed()
    }

    /// Syncs and commits what was written, and rotates what is due. Returns how far which shards are.
    ///
    /// # Errors
    /// [`SinkError`]: then all since the last commit is to be [rolled back](Self::roll_back).
    pub fn commit(&mut self, now: u64) -> Result<Vec<ShardRow>, SinkError> {
        self.files.sync()?;
        let changes = self.book.changes();
        let outputs: Vec<OutputRow> = changes.outputs.clone();
        self.commits.commit(changes).map_err(SinkError::Commit)?;
        let shards = self.book.committed();
        for (shard, tally) in self.pending.drain() {
            let total = self.totals.entry(shard).or_default();
            *total = total.plus(tally);
        }
        // What follows is no part of the commit: where it fails it is tried at a later one.
        for output in outputs {
            if rotate::is_due(&self.consume.rotate, &output, now)
                && let Err(error) = self.rotate(&output, now)
            {
                tracing::warn!(flow = &*self.book.flow, %error, "a file could not be rotated");
            }
        }
        if let Err(error) = self.look_after(now) {
            tracing::warn!(flow = &*self.book.flow, %error, "what is over could not be noted");
        }
        Ok(shards)
    }

    /// Returns an error where the disk has no room for so many bytes, as far as it tells.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn check_room(&self, bytes: u64) -> Result<(), SinkError> {
        // A file system that does not tell is tried.
        let Ok(facts) = rustix::fs::statvfs(&self.consume.directory) else { return Ok(()) };
        if facts.f_bavail.saturating_mul(facts.f_frsize) >= bytes {
            return Ok(());
        }
        let source = Errno::NOSPC.into();
        let name =
            Name::new(b"directory").map_err(|refused| SinkError::Commit(refused.to_string()))?;
        Err(FileError { operation: "write to the", name, source }.into())
    }

    /// Takes back all that was written since the last commit.
    ///
    /// # Errors
    /// [`SinkError`]: it is to be called again before anything is written.
    pub fn roll_back(&mut self) -> Result<(), SinkError> {
        self.files.forget();
        self.pending.clear();
        let outputs = self.book.roll_back();
        self.cut_back(outputs)
    }

    /// Gives a file that is due its other name; the next line begins a new one.
    fn rotate(&mut self, output: &OutputRow, now: u64) -> Result<(), SinkError> {
        let refused = |refused: super::path::Refused| SinkError::Commit(refused.to_string());
        let name = Name::new(&output.name).map_err(refused)?;
        let mut target = name.with_suffix(&rotate::suffix(now)).map_err(refused)?;
        let algorithm = self.consume.rotate.compression;
        let mut tries = 0;
        while self.is_taken(&target)? {
            tries += 1;
            let suffix = format!("{}-{tries}", rotate::suffix(now));
            target = name.with_suffix(&suffix).map_err(refused)?;
        }
        let rename = self.book.chore();
        let chore = |id, kind, source: &Name, target: &Name| Chore {
            id,
            kind,
            source: source.as_bytes().to_vec(),
            target: target.as_bytes().to_vec(),
        };
        let mut chores = vec![chore(rename, ChoreKind::Rename, &name, &target)];
        let compress = match algorithm {
            Some(algorithm) => {
                let packed = target.with_suffix(rotate::compressed(algorithm)).map_err(refused)?;
                let id = self.book.chore();
                chores.push(chore(id, ChoreKind::Compress, &target, &packed));
                Some((id, packed))
            }
            None => None,
        };
        let row = OutputRow { name: output.name.clone(), ..OutputRow::default() };
        self.files.close(&name)?;
        self.commits
            .commit(ConsumerCommit {
                flow: Arc::clone(&self.book.flow),
                outputs: vec![row.clone()],
                chores,
                ..ConsumerCommit::default()
            })
            .map_err(SinkError::Commit)?;
        self.rename(&name, &target)?;
        self.book.committed_output(row);
        self.chores_done(vec![rename])?;
        if let Some((id, packed)) = compress {
            self.chores.compress(id, target, packed);
        }
        Ok(())
    }

    /// Renames a file; one that has its new name already, or is gone, is left as it is.
    fn rename(&mut self, from: &Name, to: &Name) -> Result<(), SinkError> {
        self.files.close(from)?;
        match self.files.root().rename(from, to) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists
                ) =>
            {
                Err(FileError { operation: "rename", name: from.clone(), source: error }.into())
            }
            _ => Ok(()),
        }
    }

    /// Returns what was done, by shard.
    #[must_use]
    pub fn tallies(&self) -> &HashMap<ShardId, Tally> {
        &self.totals
    }

    /// Returns what kinds of records came.
    #[must_use]
    pub fn formats(&self) -> Formats {
        self.splitters.found()
    }

    /// Returns how many files there are.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.book.files()
    }
}

/// Where a run goes.
#[derive(Debug)]
enum Place {
    Append(Name),
    Mirror(Name),
}

fn bytes(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| piece.data.len() as u64).sum()
}

/// Puts what lies within `from..to` of a run that begins at `at` into `block`.
fn copy(run: &[Piece], mut at: u64, from: u64, to: u64, block: &mut Vec<u8>) {
    block.clear();
    for Piece { data, .. } in run {
        let place = |offset: u64| {
            usize::try_from(offset.saturating_sub(at)).unwrap_or(usize::MAX).min(data.len())
        };
        block.extend_from_slice(data.get(place(from)..place(to)).unwrap_or_default());
        at = at.saturating_add(data.len() as u64);
    }
}
