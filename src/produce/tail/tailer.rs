//! The reading thread of one flow: which files are followed, and whose turn it is.
//!
//! Invariant: it never waits for anybody but its own [`Wake`]. While nothing behind takes more, it
//! still notices files, opens them and follows their renames, so that a dead stream costs no line
//! that a rotation deletes in the meantime.
//!
//! ```text
//!               changes, scan                 a chunk a turn                 as far as there is room
//!  file system ──────────────▶ files, ready ──────────────────▶ outbox ──────────────────────────────▶ merge
//! ```

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use super::buffer::Budget;
use super::empty::Empties;
use super::file::{Name, TailedFile};
use super::followed::Followed;
use super::generations::{Candidate, Ended, Generations};
use super::identity::Known;
use super::outbox::Outbox;
use super::start::Deferred;
use super::turns::{PATIENCE, Shortage};
use super::untold::Untold;
use super::wake::Wake;
use super::weight::Weights;
use super::{FileEvent, Opened, Output, TailStatus};
use crate::checkpoint::{FileRow, KeyAllocator};
use crate::config::{Produce, StartAt};
use crate::position::FileKey;
use crate::produce::merge::RecordLimit;
use crate::produce::watch::facts::{self, Facts, Place};
use crate::produce::watch::patterns::{Patterns, Walk};
use crate::produce::watch::unopened::Unopened;
use crate::produce::watch::{Change, Watch};

/// Why a generation ends whose file goes on with other content.
pub(super) const TRUNCATED: &str = "truncated";

/// Why a generation ends that was held for as long, or at as many bytes, as may be.
const GIVEN_UP: &str = "given up";

/// Looks in one scan: more are needed only while somebody makes one directory after the other, and
/// then reading has its turn in between.
pub(super) const LOOKS_MAX: u32 = 4;

/// How often files that wait for something (a copy being made, a rotated file to end) are looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// How long a deleted file is held after its last growth: a writer may still have it open.
pub(super) const HOLD_DELETED: Duration = Duration::from_secs(4);

/// How long a rotated file that was read to its end is held while more of them are held than
/// `open_files`: descriptors are needed for what is still to be read.
const HOLD_CROWDED: Duration = Duration::from_secs(1);

/// What the reading thread needs from around it.
#[derive(Debug)]
pub struct Surroundings {
    /// The most descriptors that all files may have, those without a name included.
    pub descriptors: usize,
    /// The bounded channel to merging.
    pub output: Sender<Output>,
    /// Memory to read into.
    pub budget: Arc<Budget>,
    /// The bell that everybody rings.
    pub wake: Arc<Wake>,
    /// Numbers for new generations.
    pub keys: KeyAllocator,
    /// The stream's record limit: no chunk needs to hold a longer line.
    pub limit: Arc<RecordLimit>,
    /// Where the thread tells how it is.
    pub status: Arc<TailStatus>,
    /// Set when reading is to end at the next line.
    pub stop: Arc<AtomicBool>,
}

/// How far the start of a tailer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In the first scan of a flow that has never run before.
    FirstEver,
    /// In the first scan of this run.
    Starting,
    /// The first scan is done.
    Started,
}

/// Follows the files of one flow.
#[derive(Debug)]
pub struct Tailer {
    pub(super) flow: Produce,
    pub(super) around: Surroundings,
    pub(super) patterns: Arc<Patterns>,
    pub(super) weights: Weights,
    watch: Watch,
    /// What came, until it is certain that it was opened.
    pub(super) unopened: Unopened,
    /// What ended, deleted, before it was told.
    pub(super) untold: Untold,
    /// What is empty so far.
    pub(super) empties: Empties,
    /// Ends when all that was there at the start has been passed on.
    pub(super) once: bool,
    /// How far the start is.
    pub(super) phase: Phase,
    pub(super) files: Followed,
    /// Those of the files that have lost their name, and when.
    pub(super) nameless: BTreeMap<FileKey, Instant>,
    /// How many of those are open.
    pub(super) nameless_open: usize,
    /// Those that are found through a symbolic link.
    linked: BTreeSet<FileKey>,
    /// Those of which records may be on their way.
    pub(super) owing: HashSet<FileKey>,
    /// The number of the last look through all patterns.
    pub(super) look: u32,
    /// Files that were looked at since the last turns of reading.
    pub(super) looked_at: usize,
    pub(super) ready: VecDeque<FileKey>,
    /// Open, read to their end: closed first when descriptors run short.
    pub(super) idle: VecDeque<FileKey>,
    pub(super) open: usize,
    pub(super) generations: Generations,
    /// Files that may be copies of followed ones, with that one and since when nothing changed.
    pub(super) held: Vec<(Candidate, FileKey, Instant)>,
    /// New files that the first scan found, until it is known which known ones are missing.
    pub(super) deferred: Deferred,
    /// Files that are not followed because they are compressed.
    pub(super) ignored: HashSet<(Place, u64)>,
    pub(super) outbox: Outbox,
    pub(super) next_scan: Instant,
    next_housekeeping: Instant,
    next_poll: Instant,
    pub(super) next_settling: Instant,
    /// Whether something may have been settled that was not looked for.
    pub(super) settling_waits: bool,
    pub(super) shortage: Shortage,
    /// Whether some files are polled: their changes ring no bell.
    polls: bool,
}

impl Tailer {
    /// Returns a tailer that follows nothing yet; `rows` is what the checkpoint knows of the flow, and
    /// `first_ever` says that it has never run.
    ///
    /// # Errors
    /// A pattern that does not compile.
    pub fn new(
        flow: Produce,
        around: Surroundings,
        rows: &[FileRow],
        (first_ever, once): (bool, bool),
        now: Instant,
    ) -> Result<Self, globset::Error> {
        let patterns = Arc::new(Patterns::new(&flow.files, &flow.exclude)?);
        let watch = Watch::new(Arc::clone(&around.wake));
        Ok(Self {
            weights: Weights::of(&flow),
            flow,
            patterns,
            watch,
            unopened: Unopened::default(),
            untold: Untold::default(),
            empties: Empties::default(),
            once,
            phase: if first_ever { Phase::FirstEver } else { Phase::Starting },
            files: Followed::default(),
            nameless: BTreeMap::new(),
            nameless_open: 0,
            linked: BTreeSet::new(),
            owing: HashSet::new(),
            look: 0,
            looked_at: 0,
            ready: VecDeque::new(),
            idle: VecDeque::new(),
            open: 0,
            generations: Generations::stored(rows),
            held: Vec::new(),
            deferred: Deferred::default(),
            ignored: HashSet::new(),
            outbox: Outbox::default(),
            next_scan: now,
            next_housekeeping: now,
            next_poll: now,
            next_settling: now,
            settling_waits: false,
            shortage: Shortage::default(),
            polls: false,
            around,
        })
    }

    /// Follows until told to stop, or, with `once`, until all is passed on. Ends by closing the channel.
    pub fn run(mut self) {
        while !self.around.stop.load(Ordering::Acquire) {
            let Some(wait) = self.step(Instant::now()) else { break };
            if wait.is_zero() {
                continue;
            }
            if self.gathers_room() {
                self.around.wake.wait_and_gather(wait);
            } else {
                self.around.wake.wait(wait);
            }
        }
        self.wind_up(Instant::now());
    }

    /// Passes on what was read and not yet passed on, and what is known to be lost. Waits for room
    /// as long as somebody takes it.
    fn wind_up(mut self, now: Instant) {
        if self.generations.awaits_copy(now) {
            // Found in this run, it is known for what it is; in the next one, it would be a new file.
            self.scan(now);
            self.settle_held(now);
        }
        for lost in self.generations.take_all_lost(now) {
            self.lose(&lost);
        }
        self.deliver_all();
    }

    /// Does all that can be done now; returns how long nothing else needs to be done unless the bell
    /// rings, or nothing where all is done for good.
    pub fn step(&mut self, now: Instant) -> Option<Duration> {
        self.take_changes(now);
        if now >= self.next_scan {
            self.scan(now);
        }
        if now >= self.next_housekeeping {
            self.keep_house(now);
        }
        let starved = self.read(now);
        let is_taken = self.deliver() && (self.is_busy(starved) || self.deliver_names());
        if !is_taken {
            // The other side is gone: nobody will take what is read.
            return None;
        }
        if self.once && !starved && self.ready.is_empty() && self.outbox.is_empty() {
            return None;
        }
        let busy = self.is_busy(starved);
        Some(if busy { Duration::ZERO } else { self.until_next(now) })
    }

    /// Whether more can be read at once. What is left in the outbox waits for room, and that rings the bell.
    fn is_busy(&self, starved: bool) -> bool {
        !starved && self.outbox.has_room() && !self.ready.is_empty()
    }

    fn take_changes(&mut self, now: Instant) {
        let changes = self.watch.take();
        if self.once {
            return;
        }
        let patterns = Arc::clone(&self.patterns);
        for step in changes.steps {
            self.unopened.take(step, |path| patterns.matches(path));
        }
        if changes.rescan {
            self.around.status.events_lost(&self.flow.name);
            self.next_scan = now;
            // Where the names are not known any more, what can still be found is looked for there.
            self.unopened.look_at_all();
            self.open_unopened(now);
            self.unopened.forget();
            self.tell_missed();
            self.forget_deleted();
        }
        // Before the names are looked at: what was opened before its coming was told has its name still.
        self.tell_missed();
        // Names first: a rename must be known before the bytes written under the new name are read.
        let (names, data): (Vec<_>, Vec<_>) =
            changes.paths.into_iter().partition(|(_, change)| *change == Change::Name);
        for (path, _) in names {
            if path.is_dir() || self.watch.is_watched(&path) {
                self.watch.forget(&path);
                self.next_scan = now;
            } else {
                self.observe(&path, now);
                self.looked(now);
            }
        }
        for (path, _) in data {
            match self.files.named(&path) {
                Some(key) => self.enqueue(key),
                None => self.observe(&path, now),
            }
        }
        self.open_unopened(now);
    }

    fn scan(&mut self, now: Instant) {
        self.next_scan = now + self.flow.tail.scan_interval;
        let mut walk = self.walk(now);
        for look in 1..=LOOKS_MAX {
            if !self.watch.set_directories(&walk.directories) {
                break;
            }
            // What changed between the look and the watch is seen by looking again: files, and
            // directories that are to be watched in their turn.
            walk = self.walk(now);
            if look == LOOKS_MAX {
                self.next_scan = now;
            }
        }
        self.around.status.scanned(self.watch.degraded(), &walk.problems);
        self.look_after_others(now);
        self.scan_empties(now);
        self.unopened.scanned();
        self.untold.forget_old(now);
        if self.phase != Phase::Started {
            self.finish_start(now);
        }
    }

    /// Takes note of every file that the patterns find.
    pub(super) fn walk(&mut self, now: Instant) -> Walk {
        self.look = self.look.wrapping_add(1);
        let patterns = Arc::clone(&self.patterns);
        patterns.walk(&mut |found| {
            self.follow(found, now);
            self.looked(now);
        })
    }

    /// Looks after the files that the walk has not found under their paths, and those with something
    /// left that are in no queue: an error has taken them out.
    fn look_after_others(&mut self, now: Instant) {
        let (mut missing, mut left) = (Vec::new(), Vec::new());
        for file in self.files.iter() {
            if file.name != Name::Lost && file.look != self.look {
                missing.push(Arc::clone(&file.path));
            }
            if !file.queued && !file.is_drained() {
                left.push(file.key);
            }
        }
        for key in left {
            self.enqueue(key);
        }
        for path in missing {
            self.observe(&path, now);
        }
    }

    fn keep_house(&mut self, now: Instant) {
        debug_assert_eq!(self.nameless_open, self.count_nameless_open(), "counted one by one");
        self.next_housekeeping = now + HOUSEKEEPING;
        self.settle_held(now);
        self.polls = self.watch.degraded().is_some() || !self.linked.is_empty();
        for lost in self.generations.take_lost(now) {
            self.lose(&lost);
        }
        self.keep_rotated(now);
        self.keep_empties(now);
        if self.polls && now >= self.next_poll && !self.once {
            self.next_poll = now + self.flow.tail.poll_interval;
            let path_of = |file: &TailedFile| Arc::clone(&file.path);
            let polled: Vec<Arc<Path>> = if self.watch.degraded().is_some() {
                self.files.all_named().map(path_of).collect()
            } else {
                let linked = self.linked.iter().filter_map(|key| self.files.get(*key));
                linked.map(path_of).collect()
            };
            for path in polled {
                self.observe(&path, now);
            }
        }
    }

    /// Files without a name are read to their end, held while they may grow, and then let go.
    fn keep_rotated(&mut self, now: Instant) {
        let rotated: Vec<_> = self.nameless.iter().map(|(key, since)| (*key, *since)).collect();
        let crowded = rotated.len() > self.flow.tail.open_files;
        let (mut closed, mut deleted_files) = (Vec::new(), Vec::new());
        for (key, since) in rotated {
            let Some(file) = self.files.get_mut(key) else { continue };
            let Some(handle) = &file.handle else {
                closed.push(key);
                continue;
            };
            let Ok(metadata) = handle.metadata() else { continue };
            let deleted = metadata.nlink() == 0;
            let hold = if deleted { HOLD_DELETED } else { self.flow.tail.hold_rotated };
            let hold = if crowded { hold.min(HOLD_CROWDED) } else { hold };
            let held_for = now.saturating_duration_since(since);
            if deleted {
                deleted_files.push((since, key, metadata.len()));
            }
            if !file.is_drained() && held_for >= self.flow.tail.hold_unread {
                self.end(key, metadata.len(), GIVEN_UP, now);
            } else if file.see(metadata.len(), now) || file.has_unread() {
                self.enqueue(key);
            } else if file.is_settled() && now.saturating_duration_since(file.changed_at) >= hold {
                self.finish(key, now);
            }
        }
        if !closed.is_empty() && self.has_descriptor() {
            self.find_elsewhere(&closed, now);
        }
        self.bound_deleted(deleted_files, now);
    }

    /// Lets the disk have the oldest deleted files back where they are more than may be held.
    fn bound_deleted(&mut self, mut files: Vec<(Instant, FileKey, u64)>, now: Instant) {
        files.sort_unstable();
        let mut held: u64 = files.iter().map(|(.., size)| size).sum();
        for (_, key, size) in files {
            if held <= self.flow.tail.hold_deleted_bytes as u64 {
                break;
            }
            held = held.saturating_sub(size);
            self.end(key, size, GIVEN_UP, now);
        }
    }

    fn until_next(&self, now: Instant) -> Duration {
        let mut next = self.next_scan;
        let waiting = !self.held.is_empty()
            || self.generations.next_deadline().is_some()
            || !self.nameless.is_empty()
            || self.empties.any_adrift();
        if waiting {
            next = next.min(self.next_housekeeping);
        }
        if self.polls {
            next = next.min(self.next_poll);
        }
        if self.settling_waits {
            next = next.min(self.next_settling);
        }
        let patience = self.shortage.since.map(|since| since + PATIENCE).filter(|end| *end > now);
        next = patience.map_or(next, |end| next.min(end));
        next.saturating_duration_since(now).max(Duration::from_millis(1))
    }

    /// Tells those behind that a file is followed from now on.
    pub(super) fn announce(&mut self, file: &TailedFile) {
        self.outbox.push(FileEvent::Opened(Opened {
            key: file.key,
            path: Arc::clone(&file.path),
            origin: Arc::clone(&file.origin),
            identity: file.identity,
            start: file.position(),
            size: file.size,
            progress: Arc::clone(&file.progress),
        }));
    }

    pub(super) fn lose(&mut self, ended: &Ended) {
        tracing::warn!(
            flow = &*self.flow.name, path = %ended.path.display(), bytes = ended.unread,
            reason = ended.reason, "bytes were lost before they could be read"
        );
        let (key, bytes, reason) = (ended.key, ended.unread, ended.reason);
        self.outbox.push(FileEvent::Lost { key, bytes, reason });
    }

    /// Forgets how a file was found: by no name, or through a link.
    fn forget_name(&mut self, key: FileKey, is_open: bool) {
        if self.nameless.remove(&key).is_some() {
            self.nameless_open = self.nameless_open.saturating_sub(usize::from(is_open));
        }
        self.linked.remove(&key);
    }

    /// Notes how a file is found from now on.
    pub(super) fn set_name(&mut self, key: FileKey, name: Name) {
        let Some(file) = self.files.get_mut(key) else { return };
        file.name = name;
        let is_open = file.handle.is_some();
        self.forget_name(key, is_open);
        match name {
            // Whoever takes the name away says when.
            Name::Own | Name::Lost => {}
            Name::Linked => drop(self.linked.insert(key)),
        }
    }

    /// Ends a generation: it is followed no more, and remembered, for a copy of it may turn up.
    pub(super) fn end(
        &mut self,
        key: FileKey,
        size_before: u64,
        reason: &'static str,
        now: Instant,
    ) {
        // Where it stood last is what is remembered of it.
        self.post_name_of(key);
        let Some(mut file) = self.files.remove(key) else { return };
        if reason != TRUNCATED {
            self.note_untold(&file, now);
        }
        file.forget_owed(&self.around.budget);
        self.owing.remove(&key);
        self.forget_name(key, file.handle.is_some());
        if file.handle.is_some() {
            self.open = self.open.saturating_sub(1);
        }
        self.outbox.push(FileEvent::Closed { key, end: file.offset, gone: true });
        let known = Known { identity: file.identity, position: file.position() };
        let unread = size_before.saturating_sub(file.offset);
        let prefix = file.prefix().into();
        let metadata = file.handle.as_ref().and_then(|handle| handle.metadata().ok());
        let copied_before = match metadata.map(|metadata| Facts::of(&metadata)) {
            // The last write is no older than the truncation; but ext4 shows the size of a truncated
            // file before the time of it, and what is copied and truncated at once is looked at then.
            Some(facts) if reason == TRUNCATED => facts.modified.max(facts::now()),
            // Its name was changed or taken away then.
            Some(facts) => facts.changed,
            None => facts::now(),
        };
        let mut ended = Ended {
            key,
            path: file.path,
            origin: file.origin,
            known,
            unread,
            reason,
            prefix,
            trail: file.trail,
            copied_until: None,
            copied_before,
            lost_at: None,
        };
        if reason == TRUNCATED {
            ended.await_copy(now);
        }
        ended.give_up(now);
        self.generations.add(ended);
    }

    /// Where a file that was not known before begins.
    pub(super) fn begins_at_end(&self) -> bool {
        self.phase == Phase::FirstEver && self.flow.start_at == StartAt::End
    }

    /// Returns how many descriptors the files have that have a name. Those without one come on top: a
    /// file that was rotated can be read by its descriptor only.
    pub(super) fn named_open(&self) -> usize {
        self.open.saturating_sub(self.nameless_open)
    }

    fn count_nameless_open(&self) -> usize {
        let files = self.nameless.keys().filter_map(|key| self.files.get(*key));
        files.filter(|file| file.handle.is_some()).count()
    }

    /// Returns whether one more file may be opened.
    pub(super) fn has_descriptor(&self) -> bool {
        let waiting = self.empties.len().saturating_add(self.deferred.len());
        let all = self.open.saturating_add(waiting);
        all < self.around.descriptors.max(self.flow.tail.open_files)
    }

    /// Looks at a path again.
    pub(super) fn observe(&mut self, path: &Path, now: Instant) {
        match crate::produce::watch::patterns::find(path) {
            Ok(Some(found)) => self.follow(found, now),
            Ok(None) => self.observe_gone(path, now),
            Err(error) => self.around.status.trouble(path, &error),
        }
    }
}
