//! Groups of lines that belong together, such as the lines of a stack trace.
//!
//! Invariant: a group is contiguous bytes of one file and leaves whole, as one unit; it is cut, at
//! the end of a line, only where it would be longer than `multiline.max_bytes`.
//!
//! ```text
//!  2026-01-01 ERROR boom   start ─┐
//!    at main.rs:3                 ├─ a group, until the next start, its age, or the file's end
//!    at lib.rs:7                  ┘
//!  2026-01-01 INFO ok      start ── the next
//! ```

use std::time::{Duration, Instant};

use regex::bytes::Regex;

use super::key::bare;
use super::unit::Unit;
use crate::config::Multiline;
use crate::position::Run;

/// What a flow's groups are.
#[derive(Debug)]
pub(super) struct Grouping {
    start: Regex,
    max_age: Duration,
    max_bytes: usize,
}

impl Grouping {
    pub(super) fn new(multiline: &Multiline) -> Self {
        let Multiline { start, max_age, max_bytes } = multiline.clone();
        Self { start, max_age, max_bytes }
    }

    /// Returns true where `line` cannot be in one group with the lines before it, in a record of
    /// at most `most` bytes.
    pub(super) fn parts(&self, group: &Group, line: &Unit<'_>, most: usize) -> bool {
        let follows = group.run.is_some_and(|run| run.span.is_followed_by(&line.run.span));
        let length = group.bytes.len().saturating_add(line.bytes.len());
        !follows
            || !group.bytes.ends_with(b"\n")
            || length > self.max_bytes.min(most)
            || self.start.is_match(bare(line.bytes))
    }

    /// Returns when a group has waited long enough for its next line.
    pub(super) fn deadline(&self, group: &Group) -> Option<Instant> {
        group.run.and(group.newest).and_then(|newest| newest.checked_add(self.max_age))
    }
}

/// The open group of one file; empty where `run` is `None`. Its memory serves one after another.
#[derive(Debug, Default)]
pub(super) struct Group {
    bytes: Vec<u8>,
    run: Option<Run>,
    oldest: Option<Instant>,
    newest: Option<Instant>,
}

impl Group {
    /// Returns the bytes held.
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Returns true where no line is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.run.is_none()
    }

    /// Appends a line.
    pub(super) fn add(&mut self, line: &Unit<'_>) {
        self.bytes.extend_from_slice(line.bytes);
        let mut run = line.run;
        if let Some(before) = self.run {
            run.span.start = before.span.start;
            run.lines = before.lines.saturating_add(run.lines);
        }
        self.run = Some(run);
        self.oldest = self.oldest.or(Some(line.read_at));
        self.newest = Some(line.read_at);
    }

    /// Returns the group as one unit.
    pub(super) fn unit(&self) -> Option<Unit<'_>> {
        let (run, read_at) = (self.run?, self.oldest?);
        Some(Unit { bytes: &self.bytes, backing: None, run, read_at })
    }

    /// Forgets the lines, which have gone on.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.run = None;
        self.oldest = None;
        self.newest = None;
    }
}
