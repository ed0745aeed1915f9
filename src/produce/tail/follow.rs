//! What a path means now: followed on, renamed, replaced, truncated, gone, new, or a copy.
//!
//! Invariant: a file is opened before anything is decided about it, and every decision is made of the
//! facts of the open descriptor. A file that vanishes in between changes nothing.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use memchr::memrchr;

use super::buffer::BLOCK;
use super::file::{Name, TailedFile, Turn, read_full, read_head, read_preceding};
use super::generations::{Candidate, Ended, FINISHED};
use super::identity::may_be_copy;
use super::tailer::{Phase, TRUNCATED, Tailer};
use crate::position::{FileKey, Fingerprint, Preceding};
use crate::produce::watch::facts::{Facts, Place};
use crate::produce::watch::patterns::Found;

impl Tailer {
    /// Takes note of a file that a scan or an event found under a path.
    pub(super) fn follow(&mut self, found: Found, now: Instant) {
        self.looked_at = self.looked_at.saturating_add(1);
        let place = found.facts.place();
        let key = self.files.at(place);
        if let Some(key) = key.filter(|key| self.has_name(*key, &found.path)) {
            return self.see_again(key, &found, now);
        }
        self.yield_path(&found.path, place, now);
        if let Some(key) = key {
            self.see_again(key, &found, now);
        } else if self.empties.contains(place) {
            self.see_empty(&found, now);
        } else if let Some((held, ..)) =
            self.held.iter_mut().find(|(held, ..)| held.facts.place() == place)
        {
            held.path = Arc::from(found.path);
        } else if self.deferred.see(place, &found.path) {
            // What it is will be told at the end of this scan.
        } else if self.patterns.matches(&found.path)
            && !self.ignored.contains(&(place, found.facts.birth))
        {
            match Candidate::open(&found.path, found.linked) {
                // It was renamed since: a file that is known stands under the path by now.
                Ok(candidate) if self.is_open(candidate.facts.place()) => {
                    self.follow(Found { facts: candidate.facts, ..found }, now);
                }
                Ok(candidate) => self.consider(candidate, now),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.around.status.trouble(&found.path, &error),
            }
        } else if !self.patterns.matches(&found.path) && self.generations.goes_on(&found.facts) {
            self.go_on(&found, now);
        }
    }

    /// Returns true where the path is the one that the file has: then no other file has it.
    fn has_name(&self, key: FileKey, path: &Path) -> bool {
        let file = self.files.get(key);
        file.is_some_and(|file| {
            file.name != Name::Lost && file.path.as_os_str() == path.as_os_str()
        })
    }

    /// A rotated file that was read to its end and let go has grown: whoever writes to it is late, or
    /// does not know of the rotation.
    fn go_on(&mut self, found: &Found, now: Instant) {
        let opened = Candidate::open(&found.path, found.linked);
        let known = opened.and_then(|candidate| {
            let known = self.generations.recognise_content(&candidate)?;
            Ok(known.map(|(known, before)| (known, before, candidate)))
        });
        match known {
            Ok(Some((known, before, candidate))) => self.adopt(&known, before, candidate, now),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.around.status.trouble(&found.path, &error),
        }
    }

    /// A followed inode was found under a path: its own, a new one, or a second one.
    fn see_again(&mut self, key: FileKey, found: &Found, now: Instant) {
        let Some(file) = self.files.get_mut(key) else { return };
        if file.handle.is_none() && file.is_born_otherwise(found.facts.birth) {
            // The inode was used again while no descriptor kept it.
            let size = file.size;
            self.end(key, size, "deleted", now);
            return self.follow(found.clone(), now);
        }
        if file.path.as_os_str() != found.path.as_os_str() {
            // Found under a second name, it keeps its own; what was written to it counts all the same.
            let has_name = file.name != Name::Lost && stands_at(&file.path, found.facts.place());
            if !has_name {
                self.rename(key, found, now);
            }
        } else if file.name == Name::Lost && self.patterns.matches(&found.path) {
            self.name(key, found, now);
        }
        let Some(file) = self.files.get_mut(key) else { return };
        if file.path.as_os_str() == found.path.as_os_str() {
            file.look = self.look;
        }
        // Written since the last look: looked at even at the same size, for what was read may have
        // been truncated and written again.
        let written = file.modified != found.facts.modified;
        file.modified = found.facts.modified;
        if found.facts.size < file.offset || written && !is_as_read(file) {
            let size_before = file.size;
            self.end(key, size_before, TRUNCATED, now);
            self.next_scan = now;
            return;
        }
        file.see(found.facts.size, now);
        // Of what was written and is there as it was read, only an unfinished line may be another one.
        let is_checked = file.handle.is_some() && file.is_drained();
        if file.has_unread() || written && !is_checked {
            self.enqueue(key);
        }
    }

    fn rename(&mut self, key: FileKey, found: &Found, now: Instant) {
        let is_covered = self.patterns.matches(&found.path);
        self.files.unname(key);
        let Some(file) = self.files.get_mut(key) else { return };
        file.path = Arc::from(found.path.as_path());
        self.moved(key);
        if is_covered {
            self.name(key, found, now);
        } else {
            self.lose_name(key, now);
        }
    }

    /// The file stands under its path, and whatever stood there before does not.
    fn name(&mut self, key: FileKey, found: &Found, now: Instant) {
        if let Some(other) = self.files.named(&found.path).filter(|other| *other != key) {
            self.lose_name(other, now);
        }
        let Some(file) = self.files.get_mut(key) else { return };
        file.progress.set_rotated(false);
        let rests = file.name == Name::Lost && !file.queued;
        self.files.name(key);
        self.set_name(key, Name::found(found.linked));
        if rests {
            // The queue of the resting may have passed over it while it had no name.
            self.rest(key);
        }
    }

    /// A path that was seen before stands for no file now.
    pub(super) fn observe_gone(&mut self, path: &Path, now: Instant) {
        self.empties.lose_name(path, now);
        if let Some(key) = self.files.named(path) {
            self.lose_name(key, now);
        }
    }

    /// No pattern finds the file any more: what is left is read from its descriptor.
    pub(super) fn lose_name(&mut self, key: FileKey, now: Instant) {
        self.files.unname(key);
        let Some(file) = self.files.get_mut(key) else { return };
        if file.name != Name::Lost {
            file.progress.set_rotated(true);
            file.changed_at = now;
            let is_open = file.handle.is_some();
            self.set_name(key, Name::Lost);
            self.nameless.insert(key, now);
            self.nameless_open = self.nameless_open.saturating_add(usize::from(is_open));
        }
        // Where thousands are renamed at once, those that were read to their end must not stand in the way
        // of those that were not.
        if self.files.get_mut(key).is_some_and(has_news) {
            self.enqueue(key);
        }
    }

    /// Decides what a file that is not followed is.
    pub(super) fn consider(&mut self, candidate: Candidate, now: Instant) {
        match self.recognise(&candidate, now) {
            Ok(Some((known, before))) => self.adopt(&known, before, candidate, now),
            Ok(None) => match self.generations.recognise_beginning(&candidate, now) {
                Ok(true) => self.begin_at(candidate.facts.size, candidate, now),
                Ok(false) => self.consider_new(candidate, now),
                Err(error) => self.around.status.trouble(&candidate.path, &error),
            },
            Err(error) => self.around.status.trouble(&candidate.path, &error),
        }
    }

    fn recognise(
        &mut self,
        candidate: &Candidate,
        now: Instant,
    ) -> io::Result<Option<(Ended, Preceding)>> {
        let found = self.generations.recognise_place(candidate, now)?;
        if found.is_some() || self.phase == Phase::Starting {
            return Ok(found);
        }
        self.generations.recognise_content(candidate)
    }

    fn consider_new(&mut self, candidate: Candidate, now: Instant) {
        if candidate.facts.size == 0 {
            // Followed from its first byte on; until then there is nothing to know it by.
            return self.hold_empty(candidate);
        }
        if candidate.is_compressed() {
            tracing::info!(
                flow = &*self.flow.name, path = %candidate.path.display(),
                "a compressed file is not followed"
            );
            self.ignored.insert((candidate.facts.place(), candidate.facts.birth));
            return;
        }
        if self.phase == Phase::Starting {
            // What it is can be told once it is known which known files are missing.
            return self.defer(candidate);
        }
        match if self.phase == Phase::Started { self.suspect(&candidate) } else { None } {
            Some(original) => self.held.push((candidate, original, now)),
            None => self.begin(candidate, now),
        }
    }

    /// Returns the followed file that `candidate` may be a copy of, by what is remembered of it: it
    /// may have been truncated already.
    fn suspect(&self, candidate: &Candidate) -> Option<FileKey> {
        let may_be = |file: &&TailedFile| {
            let width = file.prefix().len().min(candidate.head.len());
            let known = file.identity.fingerprint;
            if file.prefix().get(..width) != candidate.head.get(..width) {
                false
            } else if candidate.head.len() >= usize::from(known.len) {
                known.matches(&candidate.head)
            } else {
                // The copy is still being made, or was made of less; the original may be truncated by now.
                let head = file.handle.as_ref().map(read_head);
                head.is_none_or(|head| head.is_ok_and(|head| may_be_copy(&candidate.head, &head)))
                    || !is_as_read(file)
            }
        };
        self.files.iter().find(may_be).map(|file| file.key)
    }

    fn is_open(&self, place: Place) -> bool {
        self.files.at(place).is_some() || self.empties.contains(place)
    }

    /// Follows a file that is not known.
    fn begin(&mut self, candidate: Candidate, now: Instant) {
        match if self.begins_at_end() { last_line_start(&candidate) } else { Ok(0) } {
            Ok(start) => self.begin_at(start, candidate, now),
            Err(error) => self.around.status.trouble(&candidate.path, &error),
        }
    }

    /// Follows a file that is not known from an offset on.
    fn begin_at(&mut self, start: u64, candidate: Candidate, now: Instant) {
        let Some(key) = self.around.keys.allot() else {
            // The next commit reserves more numbers, and the next scan finds the file again.
            return;
        };
        match read_preceding(&candidate.handle, start) {
            Ok(before) => {
                let origin = Arc::clone(&candidate.origin);
                self.take_on(key, origin, (start, before), candidate, now);
            }
            Err(error) => self.around.status.trouble(&candidate.path, &error),
        }
    }

    /// Goes on with a known generation where it was left. What a copy of it lacks, because it was
    /// written between the copy and the truncation, is lost.
    pub(super) fn adopt(
        &mut self,
        known: &Ended,
        before: Preceding,
        candidate: Candidate,
        now: Instant,
    ) {
        let start = (known.known.position.offset, before);
        let was_there = known.known.position.offset.saturating_add(known.unread);
        let unread = was_there.saturating_sub(candidate.facts.size);
        self.take_on(known.key, Arc::clone(&known.origin), start, candidate, now);
        if known.reason == TRUNCATED && unread > 0 {
            self.lose(&Ended { unread, ..known.clone() });
        }
    }

    fn take_on(
        &mut self,
        key: FileKey,
        origin: Arc<Path>,
        start: (u64, Preceding),
        candidate: Candidate,
        now: Instant,
    ) {
        let identity = candidate.facts.identity(Fingerprint::of(&candidate.head));
        let opened = (candidate.handle, candidate.facts);
        // Most are where they were first found.
        let path = if *origin == *candidate.path { Arc::clone(&origin) } else { candidate.path };
        let mut file = TailedFile::new(key, Arc::clone(&path), opened, identity, start, now);
        file.origin = origin;
        file.look = self.look;
        file.set_prefix(&candidate.head);
        file.until = self.once.then_some(candidate.facts.size);
        if candidate.named {
            self.yield_path(&path, candidate.facts.place(), now);
        }
        self.announce(&file);
        let has_unread = file.has_unread();
        self.files.insert(file);
        if candidate.named {
            self.files.name(key);
        }
        self.set_name(key, Name::found(candidate.linked));
        if !candidate.named || !self.patterns.matches(&path) {
            self.lose_name(key, now);
        }
        if has_unread {
            self.enqueue(key);
        } else {
            self.rest(key);
        }
        self.opened_one();
        let is_beyond = self.named_open() > self.flow.tail.open_files || !self.has_descriptor();
        if is_beyond && let Some(file) = self.files.get_mut(key) {
            // Every descriptor is needed for something that waits to be read: this one waits without.
            file.handle = None;
            self.open = self.open.saturating_sub(1);
            let is_nameless = self.nameless.contains_key(&key);
            self.nameless_open = self.nameless_open.saturating_sub(usize::from(is_nameless));
        }
    }

    /// Decides about the files that may be copies, as soon as it can be told.
    pub(super) fn settle_held(&mut self, now: Instant) {
        for (mut candidate, original, since) in std::mem::take(&mut self.held) {
            let size = candidate.facts.size;
            if let Err(error) = candidate.refresh() {
                self.around.status.trouble(&candidate.path, &error);
            }
            candidate.named = stands_at(&candidate.path, candidate.facts.place());
            let since = if candidate.facts.size == size { since } else { now };
            let waited = now.saturating_duration_since(since) >= self.flow.tail.scan_interval;
            // Compared before it is known whether the original is whole: a truncation in between must
            // not make its copy look like another file.
            let differs = self.files.get(original).is_some_and(|file| differs(&candidate, file));
            match self.files.get(original) {
                None => self.consider(candidate, now),
                Some(file) if !is_as_read(file) => {
                    // It was truncated: its next turn ends it.
                    self.enqueue(original);
                    self.held.push((candidate, original, since));
                }
                Some(_) if waited || differs => self.begin(candidate, now),
                Some(_) => self.held.push((candidate, original, since)),
            }
        }
    }

    /// A file without a name has been quiet for long enough: its last line is taken as it stands, and
    /// the generation ends.
    pub(super) fn finish(&mut self, key: FileKey, now: Instant) {
        let Some(file) = self.files.get_mut(key) else { return };
        let size = file.size;
        if file.offset >= size {
            return self.end(key, size, FINISHED, now);
        }
        let bounds = (self.around.limit.get(), true);
        match file.turn(&self.around.budget, (BLOCK, &self.weights), bounds, now) {
            Ok(Turn::Chunk(chunk, _)) => self.pass_on(chunk),
            Ok(Turn::Rewritten { size_before }) => self.end(key, size_before, TRUNCATED, now),
            Ok(Turn::Quiet(_) | Turn::Searching | Turn::NoRoom) => {}
            Err(error) => {
                let path = Arc::clone(&file.path);
                self.around.status.trouble(&path, &error);
                self.end(key, size, "unreadable", now);
            }
        }
    }
}

/// Returns true where `path` stands for the file in `place`.
pub(super) fn stands_at(path: &Path, place: Place) -> bool {
    let found = crate::produce::watch::patterns::find(path);
    found.is_ok_and(|found| found.is_some_and(|found| found.facts.place() == place))
}

/// Returns true where the first bytes and those before the offset are still what they were.
fn is_as_read(file: &TailedFile) -> bool {
    let Some(handle) = &file.handle else { return true };
    let before = read_preceding(handle, file.offset);
    before.is_ok_and(|before| before == file.preceding)
        && read_head(handle).is_ok_and(|head| file.identity.fingerprint.matches(&head))
}

/// Returns true where a turn of the file would find more than what was read, by its descriptor.
fn has_news(file: &mut TailedFile) -> bool {
    let metadata = file.handle.as_ref().and_then(|handle| handle.metadata().ok());
    let Some(facts) = metadata.map(|metadata| Facts::of(&metadata)) else {
        return file.has_unread();
    };
    if facts.size != file.size || !file.is_drained() {
        return true;
    }
    let written = std::mem::replace(&mut file.modified, facts.modified) != facts.modified;
    written && !is_as_read(file)
}

/// Returns true where `candidate` is certainly no copy of `file`, finished or not: it is longer, or
/// its last bytes are others.
fn differs(candidate: &Candidate, file: &TailedFile) -> bool {
    let size = candidate.facts.size;
    let Some(original) = &file.handle else { return false };
    match (read_preceding(&candidate.handle, size), read_preceding(original, size)) {
        (Ok(one), Ok(other)) => one != other,
        _ => true,
    }
}

/// Returns where the last line begins that is still being written: after the last newline.
fn last_line_start(candidate: &Candidate) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = candidate.facts.size;
    let mut block = vec![0; usize::try_from(STEP).unwrap_or_default()];
    while end > 0 {
        let from = end.saturating_sub(STEP);
        let width = usize::try_from(end.saturating_sub(from)).unwrap_or_default();
        let part = block.get_mut(..width).unwrap_or_default();
        let filled = read_full(&candidate.handle, part, from)?;
        if let Some(at) = memrchr(b'\n', part.get(..filled).unwrap_or_default()) {
            return Ok(from.saturating_add(at as u64).saturating_add(1));
        }
        end = from;
    }
    Ok(0)
}
