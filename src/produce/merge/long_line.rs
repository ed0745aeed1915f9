//! A line that spans several chunks, or is longer than a record may be.
//!
//! Invariant: what was taken in is held, sent or skipped, each byte once and in order; nothing sent
//! is longer than the limit at that moment.
//!
//! ```text
//!  Whole ── longer than the limit, on_oversize ─┬─ split ─────▶ Split: a piece for each full limit
//!                                               ├─ truncate ──▶ first piece sent ─▶ Skipped
//!                                               └─ skip ──────▶ Skipped: all the rest
//! ```

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::unit::{Layout, Unit, cut};
use crate::config::OnOversize;
use crate::position::Run;

/// What becomes of a part of a line over the limit.
pub(super) enum Part {
    /// It is left out.
    Skipped(Run),
    /// It is sent in a record of its own.
    Sent {
        /// The key all parts of the line share.
        key: Arc<str>,
        /// The bytes.
        data: Bytes,
        /// Where they stand.
        run: Run,
    },
}

#[derive(Debug)]
enum State {
    Skipped,
    Split(Arc<str>),
    Whole,
}

/// A line (or group) of which more may come.
#[derive(Debug)]
pub(super) struct LongLine {
    bytes: Vec<u8>,
    run: Run,
    read_at: Instant,
    state: State,
}

impl LongLine {
    pub(super) fn of(unit: &Unit<'_>) -> Self {
        let (bytes, state) = (unit.bytes.to_vec(), State::Whole);
        Self { bytes, run: unit.run, read_at: unit.read_at, state }
    }

    /// Appends what follows.
    pub(super) fn extend(&mut self, unit: &Unit<'_>) {
        self.bytes.extend_from_slice(unit.bytes);
        self.run.span.end = unit.run.span.end;
        self.run.mark = unit.run.mark;
        self.run.lines = self.run.lines.saturating_add(unit.run.lines);
    }

    /// Returns true where `unit` goes on just where this stops.
    pub(super) fn is_followed_by(&self, unit: &Unit<'_>) -> bool {
        self.run.span.is_followed_by(&unit.run.span)
    }

    /// Returns the bytes held.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns true where part of it has been sent or skipped.
    pub(super) fn is_shed(&self) -> bool {
        !matches!(self.state, State::Whole)
    }

    /// Returns the key of its pieces, if one has been sent.
    pub(super) fn key(&self) -> Option<&Arc<str>> {
        match &self.state {
            State::Split(key) => Some(key),
            State::Skipped | State::Whole => None,
        }
    }

    /// Lets go of what is over the limit of `most` bytes a piece.
    pub(super) fn shed(
        &mut self,
        on_oversize: OnOversize,
        key: &Arc<str>,
        (layout, most): (&Layout, usize),
        out: &mut impl FnMut(Part),
    ) {
        if matches!(self.state, State::Whole) {
            self.state = match on_oversize {
                OnOversize::Skip => State::Skipped,
                OnOversize::Split => State::Split(Arc::clone(key)),
                OnOversize::Truncate => {
                    self.send(most, key, out);
                    State::Skipped
                }
            };
        }
        match self.state {
            State::Skipped => self.skip(out),
            State::Split(_) | State::Whole => {
                while layout.content(&self.bytes).len() > most {
                    self.send(most, key, out);
                }
            }
        }
    }

    /// Sends what is held as one more piece, however short, but for its last byte: so the line's
    /// last piece is never empty, wherever its end comes.
    pub(super) fn release(&mut self, key: &Arc<str>, out: &mut impl FnMut(Part)) {
        if matches!(self.state, State::Whole) {
            self.state = State::Split(Arc::clone(key));
        }
        if self.bytes.len() > 1 {
            self.send(self.bytes.len().saturating_sub(1), key, out);
        }
    }

    /// Ends a line that was shed: sends or skips what is left.
    pub(super) fn rest(mut self, layout: &Layout, out: &mut impl FnMut(Part)) {
        if self.run.span.is_empty() && self.run.lines == 0 {
            return;
        }
        match &self.state {
            State::Skipped => self.skip(out),
            State::Split(key) => {
                let key = Arc::clone(key);
                let length = layout.content(&self.bytes).len();
                self.bytes.truncate(length);
                let data = Bytes::from(self.bytes);
                out(Part::Sent { key, data, run: self.run });
            }
            State::Whole => {}
        }
    }

    /// Takes the bytes of a line that was never shed, with where and when they were read.
    pub(super) fn into_parts(self) -> (Bytes, Run, Instant) {
        (Bytes::from(self.bytes), self.run, self.read_at)
    }

    fn send(&mut self, length: usize, key: &Arc<str>, out: &mut impl FnMut(Part)) {
        let length = length.min(self.bytes.len());
        let (run, rest) = cut(self.run, &self.bytes, length);
        let kept = self.bytes.split_off(length);
        let data = Bytes::from(std::mem::replace(&mut self.bytes, kept));
        self.run = rest;
        out(Part::Sent { key: Arc::clone(key), data, run });
    }

    fn skip(&mut self, out: &mut impl FnMut(Part)) {
        if !self.run.span.is_empty() {
            out(Part::Skipped(self.run));
        }
        self.bytes.clear();
        self.run.span.start = self.run.span.end;
        self.run.lines = 0;
    }
}
