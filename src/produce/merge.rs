//! Merging: chunks in, well-filled records out, by lines, bytes and age. Pure.
//!
//! Invariant: every byte of every chunk stands in exactly one record or one skipped run, in file
//! order within a key; no record is over the stream's limit when it is emitted.
//!
//! ```text
//!            ┌─ pieces of a line over several chunks ─▶ LongLine ─ whole ─┐
//!  Chunk ──▶ ┤                                                           ▼
//!            └─ whole lines ─┬─ line by line ─▶ (Group) ─▶ Keying ─▶ Records::push ──────▶ Record
//!                            └─ delimiter "\n", one key a file, no groups ─▶ push_block ──▶ Record
//! ```
//!
//! The lower road is the fast one: it looks for one newline a record, and copies only the record
//! that spans two chunks. Where records are compressed, both roads lead over text that waits until
//! there is enough of it to fill one.
//!
//! A line longer than `max_bytes` and within the record limit goes alone. A line over the record
//! limit goes by `on_oversize`, in pieces that follow each other under one key: the flow's or the
//! file's, because where keys are found in lines such a line is not looked through.

mod aggregate;
mod fill;
mod forecast;
mod key;
mod long_line;
mod multiline;
mod open;
mod packer;
mod packing;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use memchr::{memchr, memrchr};

use self::fill::Records;
use self::key::{Key, Keying, file_key};
use self::long_line::LongLine;
use self::multiline::{Group, Grouping};
use self::unit::{Layout, Unit};
use crate::config::Produce;
use crate::position::{FileKey, Run};
use crate::produce::tail::buffer::may_wait;
use crate::produce::tail::{self, Chunk, FileEvent};
use crate::record::{Record, lines};

/// What merging passes on, in order.
#[derive(Debug)]
pub enum Output {
    /// Something about a file, passed through.
    File(FileEvent),
    /// A record to send.
    Record(Record),
    /// Bytes that a setting asks to leave out (`on_oversize: skip` or `truncate`): settled,
    /// counted, not sent.
    Skipped(Run),
}

/// The stream's record limit in bytes, partition key included: what every stream takes at first,
/// more once the stream has told. Shared by those who learn it and those who keep it.
#[derive(Debug)]
pub struct RecordLimit {
    floor: usize,
    bytes: AtomicUsize,
}

impl RecordLimit {
    /// What every stream takes, and the least a stream can be set to (`MaxRecordSizeInKiB` 1024).
    pub const FLOOR: usize = 1024 * 1024;

    /// The most a stream can be set to (`MaxRecordSizeInKiB` 10240).
    pub const CEILING: usize = 10 * 1024 * 1024;

    /// Makes a limit that starts at `floor` and never goes below it.
    #[must_use]
    pub fn with_floor(floor: usize) -> Self {
        Self { floor, bytes: AtomicUsize::new(floor) }
    }

    /// Sets what the stream tells; kept within the floor and [`RecordLimit::CEILING`].
    pub fn set(&self, bytes: usize) {
        self.bytes.store(bytes.min(Self::CEILING).max(self.floor), Ordering::Relaxed);
    }

    /// Returns the limit.
    #[must_use]
    pub fn get(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns what it never goes below. Lines are merged only up to here, so that no open record
    /// can become too large should the limit sink; more would save nothing.
    #[must_use]
    pub fn floor(&self) -> usize {
        self.floor
    }
}

impl Default for RecordLimit {
    fn default() -> Self {
        Self::with_floor(Self::FLOOR)
    }
}

/// What is held of one file.
#[derive(Debug)]
struct File {
    /// Its partition key, where lines or the flow have no other.
    key: Arc<str>,
    /// The line that the last chunk broke off in.
    long: Option<Box<LongLine>>,
    /// The group that is open, and its memory for the next; nothing while no line was grouped.
    group: Option<Box<Group>>,
}

/// Merges the lines of one flow.
#[derive(Debug)]
pub struct Merger {
    host: Arc<str>,
    keying: Keying,
    grouping: Option<Grouping>,
    records: Records,
    /// Files of which something is held that is in no open record. Ten thousand that are idle need no
    /// entry here.
    files: BTreeMap<FileKey, File>,
    /// Bytes of long lines and groups.
    held: usize,
    /// The most bytes to hold in all.
    hold: usize,
    /// The most bytes to keep while reading waits for memory.
    keep: usize,
    max_age: Duration,
}

impl Merger {
    /// Makes a merger for `flow` on `host`, within `limit`; `rng` draws random partition keys.
    ///
    /// It holds at most a quarter of `tail.buffer` beside the last chunk (or one full record), in at
    /// most twice the memory: when more wait for company, the oldest record goes. The rest is for
    /// what is on its way. Where records are compressed it is half, because many lines make one. Where
    /// reading waits for memory and that takes it, the fullest records go.
    #[must_use]
    pub fn new(flow: &Produce, host: &str, limit: Arc<RecordLimit>, rng: fastrand::Rng) -> Self {
        let share = if flow.merge.compression.is_some() { 2 } else { 4 };
        Self {
            host: Arc::from(host),
            keying: Keying::new(&flow.partition_key, host),
            grouping: flow.multiline.as_ref().map(Grouping::new),
            records: Records::new(flow, limit, rng),
            files: BTreeMap::new(),
            held: 0,
            hold: (flow.tail.buffer / share).max(flow.merge.max_bytes).min(flow.tail.buffer),
            keep: may_wait(flow.tail.buffer),
            max_age: flow.merge.max_age,
        }
    }

    /// Takes in what reading passed on, and appends what is ready to `out`.
    pub fn on_input(&mut self, input: tail::Output, out: &mut Vec<Output>) {
        match input {
            tail::Output::Chunk(chunk) => self.on_chunk(&chunk, out),
            tail::Output::File(event) => self.on_file(event, out),
            tail::Output::Starved => self.records.relieve(self.keep.saturating_sub(self.held), out),
        }
        if self.max_age.is_zero() {
            while self.records.emit_oldest(out) {}
        }
    }

    /// Emits what has waited long enough at `now`.
    pub fn on_tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<_> = self
            .grouped()
            .filter(|(_, file)| due(self.group_deadline(file)))
            .map(|(&key, _)| key)
            .collect();
        for key in late {
            if let Some(file) = self.files.remove(&key) {
                self.with_file(file, (key, out), Self::close_group);
            }
        }
        while due(self.record_deadline()) && self.records.emit_oldest(out) {}
    }

    /// Returns when [`on_tick`](Self::on_tick) next has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let groups = self.grouped().filter_map(|(_, file)| self.group_deadline(file)).min();
        groups.into_iter().chain(self.record_deadline()).min()
    }

    /// Emits all that is held: nothing more will come. A line that broke off ends here.
    pub fn flush(&mut self, out: &mut Vec<Output>) {
        for (key, file) in std::mem::take(&mut self.files) {
            self.with_file(file, (key, out), Self::end_file);
        }
        while self.records.emit_oldest(out) {}
    }

    /// Returns the bytes that are held, outside of the chunks they came in.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.records.open.held().saturating_add(self.held)
    }

    /// Returns the files that may hold a group: none where lines are not grouped, however many there are.
    fn grouped(&self) -> impl Iterator<Item = (&FileKey, &File)> {
        self.grouping.iter().flat_map(|_| &self.files)
    }

    fn group_deadline(&self, file: &File) -> Option<Instant> {
        self.grouping.as_ref().zip(file.group.as_ref()).and_then(|(all, group)| all.deadline(group))
    }

    fn record_deadline(&self) -> Option<Instant> {
        self.records.open.oldest().and_then(|oldest| oldest.checked_add(self.max_age))
    }

    fn on_file(&mut self, event: FileEvent, out: &mut Vec<Output>) {
        match &event {
            FileEvent::Closed { key, .. } => {
                if let Some(file) = self.files.remove(key) {
                    self.with_file(file, (*key, out), Self::end_file);
                }
            }
            FileEvent::Lost { .. }
            | FileEvent::Moved { .. }
            | FileEvent::Opened(_)
            | FileEvent::Scanned
            | FileEvent::Seen { .. } => {}
        }
        self.records.on_file(&self.host, &event);
        out.push(Output::File(event));
    }

    fn on_chunk(&mut self, chunk: &Chunk, out: &mut Vec<Output>) {
        let key = chunk.span.file;
        let file = self.files.remove(&key).unwrap_or_else(|| File {
            key: file_key(&self.host, &chunk.origin),
            long: None,
            group: None,
        });
        self.with_file(file, (key, out), |merger, file, out| {
            merger.on_lines(file, chunk, out);
            while merger.is_over(file) && merger.records.emit_oldest(out) {}
            if merger.is_over(file) {
                merger.release(file, out);
            }
        });
    }

    /// Lets `act` act on a file that was taken out, puts it back where something is held of it, and
    /// keeps account of how much.
    fn with_file(
        &mut self,
        mut file: File,
        (key, out): (FileKey, &mut Vec<Output>),
        act: impl FnOnce(&mut Self, &mut File, &mut Vec<Output>),
    ) {
        self.held = self.held.saturating_sub(file.held());
        act(self, &mut file, out);
        if file.holds() {
            self.held = self.held.saturating_add(file.held());
            self.files.insert(key, file);
        }
    }

    /// Returns true where more is held than may be, with what is held of `file`.
    fn is_over(&self, file: &File) -> bool {
        self.held_bytes().saturating_add(file.held()) > self.hold
    }

    /// Divides a chunk: the rest of a broken line, whole lines, the beginning of a broken line.
    fn on_lines(&mut self, file: &mut File, chunk: &Chunk, out: &mut Vec<Output>) {
        let bytes: &[u8] = &chunk.data;
        let mut from = 0;
        if chunk.starts_line {
            self.end_long(file, out);
        }
        if file.long.is_some() || !chunk.starts_line {
            let newline = memchr(b'\n', bytes);
            from = newline.map_or(bytes.len(), |at| at.saturating_add(1));
            let ends = newline.is_some() || chunk.ends_line;
            self.on_piece(file, chunk, (0, from, ends), out);
        }
        let rest = bytes.get(from..).unwrap_or_default();
        let whole = if chunk.ends_line {
            rest.len()
        } else {
            memrchr(b'\n', rest).map_or(0, |at| at.saturating_add(1))
        };
        let to = from.saturating_add(whole);
        if self.is_fast() {
            let key = self.keying.fallback(&file.key);
            self.records.push_block(&key, chunk, (from, to), out);
        } else {
            self.on_each_line(file, chunk, (from, to), out);
        }
        if to < bytes.len() {
            self.on_piece(file, chunk, (to, bytes.len(), false), out);
        }
    }

    /// Returns true where no line needs to be looked at by itself.
    fn is_fast(&self) -> bool {
        matches!(self.records.layout, Layout::Verbatim)
            && self.grouping.is_none()
            && !self.keying.is_by_line()
    }

    fn on_each_line(
        &mut self,
        file: &mut File,
        chunk: &Chunk,
        (from, to): (usize, usize),
        out: &mut Vec<Output>,
    ) {
        let whole = chunk.data.get(from..to).unwrap_or_default();
        let mut at = from;
        for end in lines::ends(whole) {
            let end = from.saturating_add(end);
            self.on_line(file, &piece(chunk, at, end, 1), out);
            at = end;
        }
    }

    fn on_line(&mut self, file: &mut File, line: &Unit<'_>, out: &mut Vec<Output>) {
        let Some(grouping) = &self.grouping else {
            return self.push(&file.key, line, out);
        };
        let most = self.records.most(&self.keying.fallback(&file.key));
        let open = file.group.as_ref().filter(|group| !group.is_empty());
        if open.is_some_and(|group| grouping.parts(group, line, most)) {
            self.close_group(file, out);
        }
        file.group.get_or_insert_default().add(line);
    }

    fn push(&mut self, file: &Arc<str>, unit: &Unit<'_>, out: &mut Vec<Output>) {
        // A line over the limit goes under the fallback, whatever key it holds.
        let by_line = self.keying.is_by_line();
        let key = self.keying.of(unit.bytes, file);
        let fallback = if by_line { Key::Shared(file) } else { key.clone() };
        self.records.push(&key, &fallback, unit, out);
    }

    fn close_group(&mut self, file: &mut File, out: &mut Vec<Output>) {
        let Some(group) = &mut file.group else { return };
        if let Some(unit) = group.unit() {
            self.push(&file.key, &unit, out);
        }
        group.clear();
    }

    /// Takes in a piece of a line that spans chunks.
    fn on_piece(
        &mut self,
        file: &mut File,
        chunk: &Chunk,
        (from, to, ends): (usize, usize, bool),
        out: &mut Vec<Output>,
    ) {
        let unit = piece(chunk, from, to, u32::from(ends));
        if file.long.as_ref().is_some_and(|long| !long.is_followed_by(&unit)) {
            self.end_long(file, out);
        }
        let mut long = match file.long.take() {
            None => Box::new(LongLine::of(&unit)),
            Some(mut long) => {
                long.extend(&unit);
                long
            }
        };
        if self.records.is_over(&long, &self.keying.fallback(&file.key)) {
            self.close_group(file, out);
            self.records.shed(&mut long, &self.keying.fallback(&file.key), out);
        }
        file.long = Some(long);
        if ends {
            self.end_long(file, out);
        }
    }

    /// Ends a line that spans chunks: it is then like any other, or its last piece goes.
    fn end_long(&mut self, file: &mut File, out: &mut Vec<Output>) {
        let Some(long) = file.long.take() else { return };
        let key = self.keying.fallback(&file.key);
        if self.records.is_over(&long, &key) {
            self.close_group(file, out);
        }
        let key = self.keying.fallback(&file.key);
        if let Some(whole) = self.records.finish(*long, &key, out) {
            let (bytes, run, read_at) = whole.into_parts();
            if bytes.is_empty() {
                return;
            }
            self.on_line(file, &Unit { bytes: &bytes, backing: Some(&bytes), run, read_at }, out);
        }
    }

    fn end_file(&mut self, file: &mut File, out: &mut Vec<Output>) {
        self.end_long(file, out);
        self.close_group(file, out);
    }

    /// Lets go of what is held of a file, to keep within memory: its group, and its long line.
    fn release(&mut self, file: &mut File, out: &mut Vec<Output>) {
        self.close_group(file, out);
        let key = self.keying.fallback(&file.key);
        if let Some(long) = &mut file.long {
            self.records.release(long, &key, out);
        }
        while self.is_over(file) && self.records.emit_oldest(out) {}
    }
}

impl File {
    fn holds(&self) -> bool {
        self.long.is_some() || self.group.as_ref().is_some_and(|group| !group.is_empty())
    }

    fn held(&self) -> usize {
        let group = self.group.as_ref().map_or(0, |group| group.held());
        group.saturating_add(self.long.as_ref().map_or(0, |long| long.bytes().len()))
    }
}

/// Returns the bytes `from..to` of a chunk, in which `lines` lines end, as a unit.
fn piece(chunk: &Chunk, from: usize, to: usize, lines: u32) -> Unit<'_> {
    Unit {
        bytes: chunk.data.get(from..to).unwrap_or_default(),
        backing: Some(&chunk.data),
        run: chunk.run(from, to, lines),
        read_at: chunk.read_at,
    }
}
