//! One followed file: what has been read of it, and the next chunk.
//!
//! Invariant: `offset` is the end of what was passed on and always stands after a newline, but within
//! a line longer than a chunk may be. Every read takes the bytes before the offset along, and goes on
//! only if they are still the ones that were passed on.
//!
//! A partial last line is not kept in memory: only how far it was searched. It is read again, once,
//! when its newline has come.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use memchr::{memchr, memrchr};

use super::buffer::{BLOCK, Budget, PIECE};
use super::identity::Trail;
use super::newlines::Newlines;
use super::weight::{Owed, Weights};
use super::{Chunk, Progress};
use crate::position::{FileKey, Fingerprint, Identity, Mark, Position, Preceding, Span};
use crate::produce::watch::facts::{Facts, Place};

/// What one read takes beside the bytes before the offset.
const STEP: usize = BLOCK - Mark::WIDTH;

/// How many first bytes are remembered of each file: all that come before its first mark.
const PREFIX: usize = Mark::WIDTH;

/// What a turn found.
#[derive(Debug)]
pub enum Turn {
    /// Whole lines, and whether more may follow at once.
    Chunk(Chunk, More),
    /// No whole line there yet. Searched to the end of the file, whose size this is.
    Quiet(u64),
    /// The search for a newline goes on.
    Searching,
    /// The file is shorter than what was read of it, or other bytes stand there: it was truncated,
    /// and perhaps written again. The size it had when last seen before.
    Rewritten {
        /// Its size before.
        size_before: u64,
    },
    /// No memory to read into just now.
    NoRoom,
}

/// Whether more of a file may be read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// The read was full.
    Likely,
    /// The end of the file was reached.
    No,
}

/// How a followed file is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Under its path.
    Own,
    /// Through a symbolic link: no event of the link's directory tells of its changes.
    Linked,
    /// Not any more: it was renamed away from all patterns, or deleted.
    Lost,
}

impl Name {
    /// Returns how a file is found under a path that may be a symbolic link.
    #[must_use]
    pub fn found(linked: bool) -> Self {
        if linked { Self::Linked } else { Self::Own }
    }
}

/// A followed file.
#[derive(Debug)]
pub struct TailedFile {
    /// The generation.
    pub key: FileKey,
    /// Where it stands, or stood last.
    pub path: Arc<Path>,
    /// Where it was first found.
    pub origin: Arc<Path>,
    /// By what it is known again.
    pub identity: Identity,
    /// The first bytes, at most [`PREFIX`].
    prefix: [u8; PREFIX],
    prefix_len: u8,
    /// The descriptor, unless the file has been idle.
    pub handle: Option<File>,
    /// Up to where its bytes were passed on.
    pub offset: u64,
    /// Up to where the line after `offset` was searched for its newline.
    searched: u64,
    /// The bytes before `offset`.
    pub preceding: Preceding,
    /// What is on its way weighs beyond its bytes.
    owed: Option<Box<Owed>>,
    /// Marks of earlier offsets.
    pub trail: Trail,
    /// The size last seen.
    pub size: u64,
    /// False within a line that is longer than a chunk may be.
    at_line_start: bool,
    /// How it is found.
    pub name: Name,
    /// The last look through all patterns that found it under its path.
    pub look: u32,
    /// The time of the last write that a look at it told of.
    pub modified: i64,
    /// When it was last seen to change.
    pub changed_at: Instant,
    /// What reading and acknowledgement tell each other.
    pub progress: Arc<Progress>,
    /// Whether it stands in the queue of files to read.
    pub queued: bool,
    /// Where reading ends, for `--once`.
    pub until: Option<u64>,
    /// Whether it was taken for one whose deletion was told.
    pub told_gone: bool,
}

impl TailedFile {
    /// Returns a file that is read from `start`, where `preceding` stands before it.
    #[must_use]
    pub fn new(
        key: FileKey,
        path: Arc<Path>,
        (handle, facts): (File, Facts),
        identity: Identity,
        (start, preceding): (u64, Preceding),
        now: Instant,
    ) -> Self {
        let progress = Progress::default();
        progress.read_to(start);
        progress.settle(start);
        progress.seen(facts.size);
        Self {
            key,
            origin: Arc::clone(&path),
            path,
            identity,
            prefix: [0; PREFIX],
            prefix_len: 0,
            handle: Some(handle),
            offset: start,
            searched: start,
            preceding,
            owed: None,
            trail: Trail::default(),
            size: facts.size,
            at_line_start: true,
            name: Name::Own,
            look: 0,
            modified: facts.modified,
            changed_at: now,
            progress: Arc::new(progress),
            queued: false,
            until: None,
            told_gone: false,
        }
    }

    /// Returns its device and inode.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::of(&self.identity)
    }

    /// Returns true where a file that was born then, in the same place, is another one: the inode was used
    /// again. File systems that do not tell of births say 0.
    #[must_use]
    pub fn is_born_otherwise(&self, born: u64) -> bool {
        let known = self.identity.birth;
        born != known && born != 0 && known != 0
    }

    /// Returns true where no name stands for the open file any more, on the whole disk.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        let metadata = self.handle.as_ref().map(File::metadata);
        metadata.is_some_and(|metadata| metadata.is_ok_and(|metadata| metadata.nlink() == 0))
    }

    /// Returns where reading stands, with its mark.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { offset: self.offset, mark: self.preceding.mark() }
    }

    /// Returns true where nothing is left to read as far as is known.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.offset >= self.until.unwrap_or(self.size)
    }

    /// Returns true where bytes are there that were not searched for a newline.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.searched < self.until.unwrap_or(self.size)
    }

    /// Remembers the first bytes, by which most files are told from each other without a read.
    pub fn set_prefix(&mut self, head: &[u8]) {
        self.prefix_len = 0;
        for (own, byte) in self.prefix.iter_mut().zip(head) {
            *own = *byte;
            self.prefix_len += 1;
        }
    }

    /// Returns the first bytes, as many as are remembered.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        self.prefix.get(..usize::from(self.prefix_len)).unwrap_or_default()
    }

    /// Returns true where everything read is settled.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.progress.settled() >= self.offset
    }

    /// Returns what is read and not settled: its bytes, and what its records take beside them.
    #[must_use]
    pub fn unsettled(&self) -> u64 {
        let bytes = self.offset.saturating_sub(self.progress.settled());
        bytes.saturating_add(self.owed.as_ref().map_or(0, |owed| owed.sum()) as u64)
    }

    /// Gives back what settled records took beside their bytes; returns true where some are left.
    pub fn settle_owed(&mut self, budget: &Budget) -> bool {
        let Some(owed) = &mut self.owed else { return false };
        budget.give_back(owed.settle(self.progress.settled()));
        if owed.sum() == 0 {
            self.owed = None;
        }
        self.owed.is_some()
    }

    /// Gives back what all its records take beside their bytes: it is followed no more.
    pub fn forget_owed(&mut self, budget: &Budget) {
        if let Some(owed) = self.owed.take() {
            budget.give_back(owed.sum());
        }
    }

    /// Returns how long the line at the offset is, as far as was searched for its end.
    #[must_use]
    pub fn searched(&self) -> u64 {
        self.searched.saturating_sub(self.offset)
    }

    /// Takes note of the size seen; returns true where it changed.
    pub fn see(&mut self, size: u64, now: Instant) -> bool {
        let changed = size != self.size;
        if changed {
            self.size = size;
            self.changed_at = now;
            self.progress.seen(size);
        }
        changed
    }

    /// Reads the next chunk, about `portion` bytes, at most `line_max` bytes long where no newline is
    /// found before.
    /// `finish` takes a last line without its newline too.
    ///
    /// # Errors
    /// Those of reading; nothing has changed then, and the turn can be taken again.
    pub fn turn(
        &mut self,
        budget: &Arc<Budget>,
        (portion, weights): (usize, &Weights),
        (line_max, finish): (usize, bool),
        now: Instant,
    ) -> io::Result<Turn> {
        if self.searched() >= STEP as u64 {
            return self.long_line(budget, (line_max, finish), now);
        }
        let Some(mut loan) = budget.lend(BLOCK) else { return Ok(Turn::NoRoom) };
        let held = self.preceding.as_slice().len();
        let wanted = self.wanted(portion.min(STEP)).saturating_add(held);
        let from = self.offset.saturating_sub(held as u64);
        let Some(into) = loan.as_mut_slice().get_mut(..wanted) else { return Ok(Turn::NoRoom) };
        let filled = read_full(self.handle()?, into, from)?;
        let (before, data) = loan.as_slice().split_at(held.min(filled));
        if before != self.preceding.as_slice() {
            return Ok(Turn::Rewritten { size_before: self.size });
        }
        let data = data.get(..filled.saturating_sub(held)).unwrap_or_default();
        if held == 0 && self.at_line_start && !self.identity.fingerprint.matches(data) {
            // Nothing was passed on yet, but what was seen of the first line is not there any more.
            return Ok(Turn::Rewritten { size_before: self.size });
        }
        let at_end = filled < wanted || self.is_until(data.len());
        if at_end {
            self.see_end(data.len(), now);
        }
        let whole = match memrchr(b'\n', data) {
            Some(newline) => newline.saturating_add(1),
            None if finish && at_end && !data.is_empty() => data.len(),
            None if at_end => {
                self.searched = self.offset.saturating_add(data.len() as u64);
                return Ok(Turn::Quiet(self.size));
            }
            None => {
                self.searched = self.offset.saturating_add(data.len() as u64);
                return Ok(Turn::Searching);
            }
        };
        let whole = if finish && at_end { data.len() } else { whole };
        let light = weights.cut(data.get(..whole).unwrap_or_default(), portion);
        let (at_end, whole) = (at_end && light == whole, light);
        let lines = data.get(..whole).unwrap_or_default();
        let preceding = self.preceding.after(lines);
        let data = if whole <= PIECE {
            budget.copy(lines)
        } else {
            loan.freeze(held, held.saturating_add(whole))
        };
        let more = if at_end { More::No } else { More::Likely };
        budget.passed_on(data.len());
        let chunk = self.pass_on(data, preceding, true, now);
        let owed = self.owed.get_or_insert_default();
        budget.give_back(owed.settle(self.progress.settled()));
        budget.take(owed.add(weights, &chunk.data, chunk.span.end, now));
        Ok(Turn::Chunk(chunk, more))
    }

    /// A line longer than a block: searches on, a block a turn, then reads it whole.
    fn long_line(
        &mut self,
        budget: &Arc<Budget>,
        (line_max, finish): (usize, bool),
        now: Instant,
    ) -> io::Result<Turn> {
        let Some(mut loan) = budget.lend(BLOCK) else { return Ok(Turn::NoRoom) };
        let limit = self.until.unwrap_or(u64::MAX).saturating_sub(self.searched);
        let wanted = usize::try_from(limit).unwrap_or(BLOCK).min(BLOCK);
        let into = loan.as_mut_slice().get_mut(..wanted).unwrap_or_default();
        let filled = read_full(self.handle()?, into, self.searched)?;
        let newline = memchr(b'\n', loan.as_slice().get(..filled).unwrap_or_default());
        drop(loan);
        let found = newline.map(|at| self.searched.saturating_add(at as u64).saturating_add(1));
        let at_end = filled < wanted || wanted < BLOCK;
        if found.is_none() {
            self.searched = self.searched.saturating_add(filled as u64);
        }
        let end = found.unwrap_or(self.searched);
        let length = usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        if at_end && found.is_none() {
            let size = self.handle()?.metadata()?.len();
            if size < self.searched {
                return Ok(Turn::Rewritten { size_before: self.size });
            }
            self.see(size, now);
        }
        let ends_line = (found.is_some() || (finish && at_end)) && length <= line_max;
        if length == 0 || !ends_line && length < line_max {
            return Ok(if at_end { Turn::Quiet(self.size) } else { Turn::Searching });
        }
        self.read_piece(budget, (length.min(line_max), ends_line), now)
    }

    /// Reads `length` bytes at the offset: a long line, or a piece of one.
    fn read_piece(
        &mut self,
        budget: &Arc<Budget>,
        (length, ends_line): (usize, bool),
        now: Instant,
    ) -> io::Result<Turn> {
        let held = self.preceding.as_slice().len();
        let wanted = length.saturating_add(held);
        let Some(mut loan) = budget.lend(wanted) else { return Ok(Turn::NoRoom) };
        let Some(into) = loan.as_mut_slice().get_mut(..wanted) else { return Ok(Turn::NoRoom) };
        let from = self.offset.saturating_sub(held as u64);
        let filled = read_full(self.handle()?, into, from)?;
        let (before, data) = loan.as_slice().split_at(held);
        if filled < wanted || before != self.preceding.as_slice() {
            return Ok(Turn::Rewritten { size_before: self.size });
        }
        let preceding = self.preceding.after(data.get(..length).unwrap_or_default());
        let data = loan.freeze(held, wanted);
        budget.passed_on(data.len());
        Ok(Turn::Chunk(self.pass_on(data, preceding, ends_line, now), More::Likely))
    }

    fn pass_on(
        &mut self,
        data: Bytes,
        preceding: Preceding,
        ends_line: bool,
        now: Instant,
    ) -> Chunk {
        let end = self.offset.saturating_add(data.len() as u64);
        let chunk = Chunk {
            span: Span { file: self.key, start: self.offset, end },
            origin: Arc::clone(&self.origin),
            newlines: Newlines::of(&data),
            data,
            preceding: self.preceding,
            starts_line: self.at_line_start,
            ends_line,
            read_at: now,
        };
        self.offset = end;
        self.searched = self.searched.max(end);
        self.preceding = preceding;
        self.trail.pass(chunk.span.start, &chunk.data, self.position());
        self.at_line_start = ends_line;
        self.changed_at = now;
        self.progress.read_to(end);
        if end > self.size {
            self.see(end, now);
        }
        chunk
    }

    /// Takes note of the end of the file found after `read` bytes.
    fn see_end(&mut self, read: usize, now: Instant) {
        let end = self.offset.saturating_add(read as u64);
        if self.until.is_none() || end > self.size {
            self.see(end, now);
        }
    }

    fn wanted(&self, most: usize) -> usize {
        let left = self.until.unwrap_or(u64::MAX).saturating_sub(self.offset);
        usize::try_from(left).unwrap_or(most).min(most)
    }

    fn is_until(&self, read: usize) -> bool {
        self.until.is_some_and(|until| self.offset.saturating_add(read as u64) >= until)
    }

    fn handle(&self) -> io::Result<&File> {
        self.handle.as_ref().ok_or_else(|| io::Error::other("the file is not open"))
    }
}

/// Reads until `into` is full or the file ends; returns how much was read.
///
/// # Errors
/// Those of `pread`, but for interruptions.
pub fn read_full(file: &File, into: &mut [u8], from: u64) -> io::Result<usize> {
    let mut filled = 0_usize;
    while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, from.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads the first bytes of a file, as many as a fingerprint covers.
///
/// # Errors
/// Those of `pread`.
pub fn read_head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; Fingerprint::WIDTH];
    let filled = read_full(file, &mut head, 0)?;
    head.truncate(filled);
    Ok(head)
}

/// Reads the bytes before `offset`, as many as a mark covers and the file has.
///
/// # Errors
/// Those of `pread`.
pub fn read_preceding(file: &File, offset: u64) -> io::Result<Preceding> {
    let width = usize::try_from(offset).unwrap_or(Mark::WIDTH).min(Mark::WIDTH);
    let mut bytes = vec![0; width];
    let filled = read_full(file, &mut bytes, offset.saturating_sub(width as u64))?;
    bytes.truncate(filled);
    let mut preceding = Preceding::default();
    preceding.push(&bytes);
    Ok(preceding)
}
