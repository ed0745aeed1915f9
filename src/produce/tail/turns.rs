//! Whose turn it is to be read, and with which descriptors.
//!
//! Invariant: every file with something to read gets its turn, whatever the others have; and no more
//! descriptors are open than are allowed, but for files that have lost their name.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::FileEvent;
use super::file::{More, Name, Turn};
use super::generations::Candidate;
use super::tailer::{TRUNCATED, Tailer};
use crate::position::{FileKey, Fingerprint};

/// Turns between two looks at what has changed: a busy file must not delay the notice of a rename.
const TURNS: usize = 16;

/// Where more files were looked at, there are more turns, one for so many: where thousands are renamed all
/// the time, looks must not keep what they find from being read. A look costs about as much less.
const LOOKS_A_TURN: usize = 8;

/// Looks between which files have turns: a scan or a storm of renames may look at thousands, and an agent
/// that is stopped again before it has seen them all must not have looked only.
const LOOKS: usize = TURNS * LOOKS_A_TURN;

/// How long files wait for a whole block before they take what their shares allow. While the stream
/// takes what is sent, memory comes back sooner, and whole blocks cost a fraction of many small reads;
/// a throttled shard may keep its half of the memory for seconds.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// How often at most memory that records took is looked for: in that time, a fast stream settles less
/// than the memory there is.
const SETTLING: Duration = Duration::from_millis(20);

/// What is known while memory is short.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// Since when no whole block was to be had, while something waited to be read.
    pub(super) since: Option<Instant>,
    /// Whether those behind know that nothing can be read, and nothing was since.
    pub(super) told: bool,
}

impl Tailer {
    /// A file was looked at, and others will be at once: what is known of it is passed on and read meanwhile.
    pub(super) fn looked(&mut self, now: Instant) {
        if self.looked_at >= LOOKS && !self.around.stop.load(Ordering::Acquire) {
            self.read(now);
        }
        // Of what is found, no more is held than those behind cannot take yet. Should they be gone, the
        // next step ends.
        let _ = self.deliver();
    }

    /// Reads a few turns; returns true where something is left to read and there is no room for it.
    pub(super) fn read(&mut self, now: Instant) -> bool {
        self.around.wake.set_starved(true);
        if !self.around.budget.is_ample() {
            self.settle_owed(now);
        }
        let turns = TURNS.max(std::mem::take(&mut self.looked_at) / LOOKS_A_TURN);
        for _ in 0..turns {
            if !self.deliver() || self.ready.is_empty() {
                break;
            }
            if !self.outbox.has_room() || self.around.budget.is_ahead() {
                return true;
            }
            if !self.around.budget.has_room() || !self.turn(now) {
                self.tell_starved();
                return true;
            }
        }
        self.around.wake.set_starved(false);
        false
    }

    /// Tells those behind that no memory is left to read into.
    fn tell_starved(&mut self) {
        if !self.shortage.told {
            self.shortage.told = true;
            self.outbox.push_starved();
        }
    }

    /// Gives back what settled records took beside their bytes. That looks at every file of which some
    /// are on their way, thousands perhaps, and so it waits for more of them to be settled.
    fn settle_owed(&mut self, now: Instant) {
        self.settling_waits = now < self.next_settling;
        if !self.settling_waits {
            self.next_settling = now + SETTLING;
            let (files, budget) = (&mut self.files, &self.around.budget);
            self.owing
                .retain(|key| files.get_mut(*key).is_some_and(|file| file.settle_owed(budget)));
        }
    }

    /// Gives the file whose turn it is one; false where there was no room for it.
    fn turn(&mut self, now: Instant) -> bool {
        let Some((key, portion)) = self.next_ready(now) else { return self.ready.is_empty() };
        if !self.make_open(key, now) {
            return true;
        }
        let Some(file) = self.files.get_mut(key) else { return true };
        let bounds = (self.around.limit.get(), self.once);
        match file.turn(&self.around.budget, (portion, &self.weights), bounds, now) {
            Ok(Turn::Chunk(chunk, more)) => {
                self.pass_on(chunk);
                self.owing.insert(key);
                self.refresh_fingerprint(key);
                if more == More::Likely { self.enqueue(key) } else { self.rest(key) }
            }
            Ok(Turn::Quiet(_)) => self.rest(key),
            Ok(Turn::Searching) => self.enqueue(key),
            Ok(Turn::Rewritten { size_before }) => {
                self.end(key, size_before, TRUNCATED, now);
                self.next_scan = now;
            }
            Ok(Turn::NoRoom) => {
                file.queued = true;
                self.ready.push_front(key);
                return false;
            }
            Err(error) => self.trouble(key, &error),
        }
        true
    }

    /// Takes the next file that has not taken its share of the memory yet, and how much it may read:
    /// the files of a throttled shard cannot take what the others need.
    fn next_ready(&mut self, now: Instant) -> Option<(FileKey, usize)> {
        if self.around.budget.is_ample() {
            self.shortage.since = None;
        } else if now < *self.shortage.since.get_or_insert(now) + PATIENCE {
            return None;
        }
        let files = self.files.named_len();
        for _ in 0..self.ready.len() {
            let key = self.ready.pop_front()?;
            let Some(file) = self.files.get_mut(key) else { continue };
            let (unsettled, searched) = (file.unsettled(), file.searched());
            if let Some(portion) = self.around.budget.portion(unsettled, searched, files) {
                file.queued = false;
                return Some((key, portion));
            }
            self.ready.push_back(key);
        }
        None
    }

    /// Puts a file into the queue of those to read.
    pub(super) fn enqueue(&mut self, key: FileKey) {
        if let Some(file) = self.files.get_mut(key)
            && !file.queued
        {
            file.queued = true;
            self.ready.push_back(key);
        }
    }

    /// A file has been read to its end for now.
    pub(super) fn rest(&mut self, key: FileKey) {
        self.idle.push_back(key);
        if self.idle.len() > self.open.saturating_mul(2).saturating_add(64) {
            // The queue holds a file as often as it came to rest: keep the last time only.
            let mut seen = HashSet::new();
            self.idle = self.idle.drain(..).rev().filter(|key| seen.insert(*key)).collect();
            self.idle.make_contiguous().reverse();
        }
    }

    /// Makes sure that the file is open; false where it cannot be now.
    fn make_open(&mut self, key: FileKey, now: Instant) -> bool {
        let Some(file) = self.files.get(key) else { return false };
        if file.handle.is_some() {
            return true;
        }
        let path = Arc::clone(&file.path);
        let linked = file.name == Name::Linked;
        match Candidate::open(&path, linked) {
            Ok(candidate) if Some(key) == self.files.at(candidate.facts.place()) => {
                self.reopen(key, candidate, now)
            }
            // Another file stands there now, or none.
            Ok(_) => {
                self.observe(&path, now);
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.observe(&path, now);
                false
            }
            Err(error) => {
                self.trouble(key, &error);
                false
            }
        }
    }

    fn reopen(&mut self, key: FileKey, candidate: Candidate, now: Instant) -> bool {
        let Some(file) = self.files.get_mut(key) else { return false };
        if file.is_born_otherwise(candidate.facts.birth) {
            // The inode was used again.
            let size = file.size;
            self.end(key, size, "deleted", now);
            self.consider(candidate, now);
            return false;
        }
        file.handle = Some(candidate.handle);
        self.opened_again(key);
        true
    }

    /// Counts the descriptor of a file that had none.
    pub(super) fn opened_again(&mut self, key: FileKey) {
        let is_nameless = self.nameless.contains_key(&key);
        self.nameless_open = self.nameless_open.saturating_add(usize::from(is_nameless));
        self.opened_one();
    }

    /// Counts a descriptor, and closes idle ones beyond the bound.
    pub(super) fn opened_one(&mut self) {
        self.open = self.open.saturating_add(1);
        while self.named_open().saturating_add(self.empties.len()) > self.flow.tail.open_files {
            let Some(dropped) = self.empties.drop_one() else { break };
            self.unopened.let_go(dropped);
        }
        while self.named_open() > self.flow.tail.open_files {
            let Some(key) = self.idle.pop_front() else { break };
            if let Some(file) = self.files.get_mut(key)
                && file.name != Name::Lost
                && !file.queued
                && !file.has_unread()
                && file.handle.take().is_some()
            {
                file.trail.thin();
                file.settle_owed(&self.around.budget);
                self.open = self.open.saturating_sub(1);
            }
        }
        self.close_waiting();
    }

    /// Closes files that have something left, beyond the bound: those whose turn comes last.
    fn close_waiting(&mut self) {
        for at in (0..self.ready.len()).rev() {
            if self.named_open() <= self.flow.tail.open_files {
                break;
            }
            let file = self.ready.get(at).and_then(|key| self.files.get_mut(*key));
            if file.is_some_and(|file| file.name != Name::Lost && file.handle.take().is_some()) {
                self.open = self.open.saturating_sub(1);
            }
        }
    }

    /// A short file's fingerprint grows with it.
    fn refresh_fingerprint(&mut self, key: FileKey) {
        let Some(file) = self.files.get_mut(key) else { return };
        if usize::from(file.identity.fingerprint.len) >= Fingerprint::WIDTH {
            return;
        }
        let Some(Ok(head)) = file.handle.as_ref().map(super::file::read_head) else { return };
        if head.len() > usize::from(file.identity.fingerprint.len) {
            file.identity.fingerprint = Fingerprint::of(&head);
            file.set_prefix(&head);
            let (identity, size) = (file.identity, file.size);
            self.outbox.push(FileEvent::Seen { key, size, identity });
        }
    }

    /// A file cannot be read: told, and tried again at the next scan.
    fn trouble(&mut self, key: FileKey, error: &io::Error) {
        if let Some(file) = self.files.get(key) {
            self.around.status.trouble(&file.path, error);
        }
    }
}
