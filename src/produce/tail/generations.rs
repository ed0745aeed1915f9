//! Generations that are not being followed: those that have ended, those a checkpoint tells of that
//! were not found yet, and files that may turn out to be copies. Pure but for the reading of evidence.
//!
//! Invariant: the content of one generation is followed in one place only. `copytruncate` makes a
//! second place for it and then destroys the first: the copy takes the position over, so that nothing
//! is read twice, and what was not read before the truncation is read from the copy.
//!
//! ```text
//!             truncated, deleted, replaced                    found again (inode, or a copy)
//!  followed ───────────────────────────────▶ Ended ─────────────────────────────────────▶ followed
//!                                              │ unread, and nobody has it after a grace
//!                                              ▼
//!                                             lost, counted
//! ```

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::file::{read_head, read_preceding};
use super::identity::{Evidence, Known, Trail, Verdict, compare};
use crate::checkpoint::FileRow;
use crate::position::{FileKey, Fingerprint, Position, Preceding};
use crate::produce::watch::facts::{Facts, Place, now};

/// How long an ended generation with unread bytes waits for a copy of it to be found before these
/// count as lost: the copy was made before the truncation, so the scan that follows finds it.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Why a generation ends that was read to its end, without a name, and held for as long as it may be.
pub(super) const FINISHED: &str = "finished";

/// The most ended generations remembered; the oldest are forgotten first.
const ENDED_MAX: usize = 4096;

/// A generation that is known and not followed.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which.
    pub key: FileKey,
    /// Where it stood last.
    pub path: Arc<Path>,
    /// Where it was first found.
    pub origin: Arc<Path>,
    /// By what it is known, and how far it was read.
    pub known: Known,
    /// Bytes that were there and not read.
    pub unread: u64,
    /// Why it ended, in a word for the log.
    pub reason: &'static str,
    /// The first bytes, as far as they are remembered; none of a run before this one.
    pub prefix: Box<[u8]>,
    /// Marks of earlier offsets; none of a run before this one.
    pub trail: Trail,
    /// Until when a copy of its beginning may be found: one that was made before the truncation and
    /// is shorter than what was read. Nothing where it was not truncated in this run.
    pub copied_until: Option<Instant>,
    /// When its content was destroyed or its name taken away, at the latest, in nanoseconds since 1970:
    /// a file that was born later is no copy of it, however equal.
    pub copied_before: i64,
    /// Until when a copy may be found before `unread` counts as lost; nothing once that is settled.
    pub lost_at: Option<Instant>,
}

impl Ended {
    /// Returns what a checkpoint row says of a generation.
    #[must_use]
    pub fn stored(row: &FileRow) -> Self {
        Self {
            key: row.key,
            path: Arc::clone(&row.path),
            origin: Arc::clone(&row.origin),
            known: Known { identity: row.identity, position: row.position },
            unread: if row.ended { 0 } else { row.size.saturating_sub(row.position.offset) },
            reason: "missing",
            prefix: Box::default(),
            trail: Trail::default(),
            copied_until: None,
            // What was made while nobody looked may be a copy.
            copied_before: now(),
            lost_at: None,
        }
    }

    /// Returns its device and inode.
    #[must_use]
    pub fn place(&self) -> Place {
        Place::of(&self.known.identity)
    }

    /// Returns true where a file with these facts may be a copy by its age. Where the file system tells
    /// no births, all may.
    fn is_older(&self, facts: &Facts) -> bool {
        facts.birth.cast_signed() <= self.copied_before
    }

    /// Returns true where `candidate` begins as this did, as far as can be told: one that is shorter
    /// than what the fingerprint covers by the bytes that are remembered, and by its name, for two logs
    /// may begin with the same line.
    fn is_begun_by(&self, candidate: &Candidate) -> bool {
        let fingerprint = self.known.identity.fingerprint;
        if candidate.head.len() >= usize::from(fingerprint.len) {
            return fingerprint.matches(&candidate.head);
        }
        let width = self.prefix.len().min(candidate.head.len());
        candidate.head.get(..width) == self.prefix.get(..width)
            && is_named_after(&candidate.path, &self.path)
    }
}

/// Returns true where a rotation may have named `copy` after `original`: `app.log.1`, `app-1.log`.
fn is_named_after(copy: &Path, original: &Path) -> bool {
    let stem =
        original.file_name().and_then(|name| name.as_bytes().split(|byte| *byte == b'.').next());
    let name = copy.file_name().map(OsStrExt::as_bytes);
    stem.zip(name).is_some_and(|(stem, name)| name.starts_with(stem))
}

/// A file that was opened and is not followed yet.
#[derive(Debug)]
pub struct Candidate {
    /// Its path.
    pub path: Arc<Path>,
    /// Where it was first seen.
    pub origin: Arc<Path>,
    /// Its descriptor.
    pub handle: File,
    /// Its facts, by the descriptor.
    pub facts: Facts,
    /// Its first bytes.
    pub head: Vec<u8>,
    /// Whether the path is a symbolic link.
    pub linked: bool,
    /// Whether the path stands for it as far as is known; where not, it is read like any rotated file.
    pub named: bool,
}

impl Candidate {
    /// Opens `path` for a look.
    ///
    /// # Errors
    /// Those of opening and reading; nothing has changed then.
    pub fn open(path: &Path, linked: bool) -> io::Result<Self> {
        // The path may stand for a pipe by now, and opening one waits for its writer.
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        let handle = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
        let metadata = handle.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no regular file stands there"));
        }
        let facts = Facts::of(&metadata);
        let head = read_head(&handle)?;
        let path: Arc<Path> = Arc::from(path);
        let origin = Arc::clone(&path);
        Ok(Self { path, origin, handle, facts, head, linked, named: true })
    }

    /// Looks again: the size and the first bytes may have changed.
    ///
    /// # Errors
    /// Those of reading.
    pub fn refresh(&mut self) -> io::Result<()> {
        self.facts = Facts::of(&self.handle.metadata()?);
        self.head = read_head(&self.handle)?;
        Ok(())
    }

    /// Compares with a known generation; returns the bytes before its position too.
    ///
    /// # Errors
    /// Those of reading.
    pub fn compare(&self, known: &Known) -> io::Result<(Verdict, Preceding)> {
        let elsewhere = known.identity.inode != self.facts.inode;
        if elsewhere && !known.identity.fingerprint.matches(&self.head) {
            // Most are ruled out by what has been read already.
            return Ok((Verdict::Other, Preceding::default()));
        }
        let before = read_preceding(&self.handle, known.position.offset)?;
        let evidence = Evidence { facts: self.facts, head: &self.head, before };
        Ok((compare(known, &evidence), before))
    }

    /// Returns true where the file has the marked bytes at every one of some positions, and these are
    /// not none.
    fn holds<'a>(&self, marks: impl Iterator<Item = &'a Position>) -> io::Result<bool> {
        let mut any = false;
        for position in marks {
            let before = read_preceding(&self.handle, position.offset)?;
            if !position.mark.matches(before.as_slice()) {
                return Ok(false);
            }
            any = true;
        }
        Ok(any)
    }

    /// Returns true for what a rotation has compressed (gzip, zstd, xz, bzip2): its lines were, or
    /// will be, read from the original.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        is_compressed(&self.head)
    }
}

/// Returns true where a file that begins with `head` is compressed: gzip, zstd, xz or bzip2.
#[must_use]
pub fn is_compressed(head: &[u8]) -> bool {
    const MAGICS: [&[u8]; 4] = [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh"];
    MAGICS.iter().any(|magic| head.starts_with(magic))
}

/// The first bytes of a file, compared with thousands of fingerprints: most cover as much as each other,
/// and what they are compared with is hashed once.
#[derive(Debug)]
struct Beginning<'a> {
    head: &'a [u8],
    prints: HashMap<u16, Fingerprint>,
}

impl<'a> Beginning<'a> {
    fn of(head: &'a [u8]) -> Self {
        Self { head, prints: HashMap::new() }
    }

    /// Returns the same as [`Fingerprint::matches`].
    fn has(&mut self, fingerprint: Fingerprint) -> bool {
        let Some(covered) = self.head.get(..usize::from(fingerprint.len)) else { return false };
        let print = self.prints.entry(fingerprint.len);
        *print.or_insert_with(|| Fingerprint::of(covered)) == fingerprint
    }
}

/// The generations that are known and not followed.
#[derive(Debug, Default)]
pub struct Generations {
    /// Those of the checkpoint whose files were not looked for yet, by the place that should hold them.
    stored: HashMap<Place, Ended>,
    /// Those that have ended, oldest first.
    ended: VecDeque<Ended>,
}

impl Generations {
    /// Returns the generations that a checkpoint tells of.
    #[must_use]
    pub fn stored(rows: &[FileRow]) -> Self {
        let mut own = Self::default();
        for row in rows {
            let known = Ended::stored(row);
            if row.ended {
                own.ended.push_back(known);
            } else if let Some(older) = own.stored.insert(known.place(), known) {
                own.ended.push_back(older);
            }
        }
        own
    }

    /// Adds one that has just ended.
    pub fn add(&mut self, ended: Ended) {
        if self.ended.len() >= ENDED_MAX
            && let Some(at) = self.ended.iter().position(|known| known.lost_at.is_none())
        {
            self.ended.remove(at);
        }
        self.ended.push_back(ended);
    }

    /// Takes out the stored generation whose place `candidate` stands in, should it go on with it.
    /// Where it has other content, the generation has ended.
    ///
    /// # Errors
    /// Those of reading; nothing has changed then.
    pub fn recognise_place(
        &mut self,
        candidate: &Candidate,
        now: Instant,
    ) -> io::Result<Option<(Ended, Preceding)>> {
        let place = candidate.facts.place();
        let Some(known) = self.stored.get(&place) else { return Ok(None) };
        let (verdict, before) = candidate.compare(&known.known)?;
        let Some(mut known) = self.stored.remove(&place) else { return Ok(None) };
        if matches!(verdict, Verdict::Same | Verdict::Copy) {
            return Ok(Some((known, before)));
        }
        known.reason = "rewritten";
        known.give_up(now);
        self.add(known);
        Ok(None)
    }

    /// Takes out the ended generation that `candidate` holds the content of, if any.
    ///
    /// # Errors
    /// Those of reading; nothing has changed then.
    pub fn recognise_content(
        &mut self,
        candidate: &Candidate,
    ) -> io::Result<Option<(Ended, Preceding)>> {
        let mut beginning = Beginning::of(&candidate.head);
        for at in (0..self.ended.len()).rev() {
            let Some(known) = self.ended.get(at) else { continue };
            let is_elsewhere = known.place() != candidate.facts.place();
            let may_be_copy = candidate.head.starts_with(&known.prefix)
                && known.is_older(&candidate.facts)
                && beginning.has(known.known.identity.fingerprint);
            if is_elsewhere && !may_be_copy {
                // Nearly all are ruled out here, thousands where files rotate fast.
                continue;
            }
            let (verdict, before) = candidate.compare(&known.known)?;
            if matches!(verdict, Verdict::Same | Verdict::Copy) {
                return Ok(self.ended.remove(at).map(|known| (known, before)));
            }
        }
        Ok(None)
    }

    /// Returns true where `candidate` is a copy of the beginning of a file that was truncated just
    /// now, and all of it was read there. Whoever copies and truncates leaves a moment in between, in
    /// which the file grows and is read on.
    ///
    /// # Errors
    /// Those of reading; nothing has changed then.
    pub fn recognise_beginning(&self, candidate: &Candidate, now: Instant) -> io::Result<bool> {
        let (place, size) = (candidate.facts.place(), candidate.facts.size);
        let truncated = self.ended.iter().rev().filter(|known| {
            // Where its birth is told, that says more than how long it took to find it.
            known.copied_until.is_some_and(|until| now <= until || candidate.facts.birth > 0)
                && known.place() != place
                // It was made, and written, before the truncation.
                && known.is_older(&candidate.facts)
                && candidate.facts.modified <= known.copied_before
                && (1..known.known.position.offset).contains(&size)
                && known.is_begun_by(candidate)
        });
        for known in truncated {
            let is_all_remembered = size <= known.prefix.len() as u64;
            if is_all_remembered || candidate.holds(known.trail.within(size))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns true where the file in a place is one that was read to its end and let go, and has grown
    /// since.
    #[must_use]
    pub fn goes_on(&self, facts: &Facts) -> bool {
        self.ended.iter().rev().any(|known| {
            known.reason == FINISHED
                && known.place() == facts.place()
                && known.known.identity.birth == facts.birth
                && facts.size > known.known.position.offset
        })
    }

    /// Takes out the stored generations that no scan has found, to be looked for elsewhere.
    pub fn take_missing(&mut self) -> Vec<Ended> {
        let stored = std::mem::take(&mut self.stored);
        let mut missing: Vec<Ended> = stored.into_values().collect();
        missing.sort_by_key(|known| known.key);
        missing
    }

    /// Returns the generations whose unread bytes are lost by now, each once.
    pub fn take_lost(&mut self, now: Instant) -> Vec<Ended> {
        let mut lost = Vec::new();
        for known in &mut self.ended {
            if known.lost_at.is_some_and(|at| at <= now) {
                known.lost_at = None;
                lost.push(known.clone());
            }
        }
        lost
    }

    /// Returns all generations with unread bytes that nobody has turned up with so far, each once.
    pub fn take_all_lost(&mut self, now: Instant) -> Vec<Ended> {
        self.next_deadlines().max().map_or_else(Vec::new, |last| self.take_lost(last.max(now)))
    }

    /// Returns whether a copy of what was truncated just now may still be found.
    #[must_use]
    pub fn awaits_copy(&self, now: Instant) -> bool {
        self.ended.iter().rev().any(|known| known.copied_until.is_some_and(|until| now <= until))
    }

    fn next_deadlines(&self) -> impl Iterator<Item = Instant> {
        self.ended.iter().filter_map(|known| known.lost_at)
    }

    /// Returns when the next unread bytes count as lost.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next_deadlines().min()
    }
}

impl Ended {
    /// The file was truncated: from now on a copy of it may be found that is shorter than what was
    /// read.
    pub fn await_copy(&mut self, now: Instant) {
        self.copied_until = Some(now + GRACE);
    }

    /// What is unread counts as lost once nobody has turned up with it in time.
    pub fn give_up(&mut self, now: Instant) {
        self.lost_at = (self.unread > 0).then(|| now + GRACE);
    }
}
