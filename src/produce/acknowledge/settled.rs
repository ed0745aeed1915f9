//! What of one file is settled: a prefix, and intervals beyond it that wait for the gap to close.
//!
//! Invariant: the prefix never moves back, and never passes a byte that is not settled; intervals lie
//! beyond it, apart from each other. They are as few as the runs in flight can cut the rest into.
//!
//! ```text
//!  0          position.offset     start   end          start  end
//!  ├──────────────┤                 ├──────┤             ├─────┤
//!     settled          in flight    settled   in flight  settled
//! ```

use std::collections::BTreeMap;

use crate::checkpoint::Books;
use crate::position::{Mark, Position, Run};

/// A run that covers bytes that are settled already, or is no range at all: nothing was changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overlap;

/// The settled bytes of one file, and what became of them.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    position: Position,
    books: Books,
    beyond: BTreeMap<u64, Interval>,
    beyond_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Interval {
    end: u64,
    mark: Mark,
    books: Books,
}

impl Settled {
    /// Starts with everything before `position` settled as `books` say.
    pub(super) fn new(position: Position, books: Books) -> Self {
        Self { position, books, beyond: BTreeMap::new(), beyond_bytes: 0 }
    }

    /// Returns the end of the prefix and its mark.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Returns what became of the bytes of the prefix.
    pub(super) fn books(&self) -> Books {
        self.books
    }

    /// Returns the books, for what is counted beside the bytes that are settled: losses.
    pub(super) fn books_mut(&mut self) -> &mut Books {
        &mut self.books
    }

    /// Returns what became of all settled bytes, the intervals beyond the prefix included.
    pub(super) fn books_in_all(&self) -> Books {
        self.beyond.values().fold(self.books, |sum, interval| sum.plus(&interval.books))
    }

    /// Returns how many of the bytes before `read` are not settled.
    pub(super) fn unsettled_before(&self, read: u64) -> u64 {
        read.saturating_sub(self.position.offset).saturating_sub(self.beyond_bytes)
    }

    /// Settles `run`, counted as `books`. Returns true where the prefix moved.
    ///
    /// # Errors
    /// [`Overlap`] where any byte of it is settled already.
    pub(super) fn settle(&mut self, run: &Run, books: Books) -> Result<bool, Overlap> {
        let (start, end) = (run.span.start, run.span.end);
        if end < start || start < self.position.offset || self.overlaps(start, end) {
            return Err(Overlap);
        }
        if start == end {
            return Ok(false);
        }
        let interval = Interval { end, mark: run.mark, books };
        if start > self.position.offset {
            self.insert(start, interval);
            return Ok(false);
        }
        self.advance(interval);
        if let Some(next) = self.beyond.remove(&end) {
            self.beyond_bytes -= next.end - end;
            self.advance(next);
        }
        if self.beyond.is_empty() {
            // An empty tree keeps its last node, which is a kilobyte a file.
            self.beyond = BTreeMap::new();
        }
        Ok(true)
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        let before = self.beyond.range(..=start).next_back();
        let after = self.beyond.range(start..).next();
        before.is_some_and(|(_, interval)| interval.end > start)
            || after.is_some_and(|(next, _)| *next < end)
    }

    /// Inserts an interval, made one with those that touch it.
    fn insert(&mut self, mut start: u64, mut interval: Interval) {
        self.beyond_bytes += interval.end - start;
        if let Some(next) = self.beyond.remove(&interval.end) {
            interval.end = next.end;
            interval.mark = next.mark;
            interval.books = interval.books.plus(&next.books);
        }
        let before = self.beyond.range(..start).next_back();
        if let Some((previous, books)) = before
            .filter(|(_, earlier)| earlier.end == start)
            .map(|(previous, earlier)| (*previous, earlier.books))
        {
            start = previous;
            interval.books = interval.books.plus(&books);
        }
        self.beyond.insert(start, interval);
    }

    /// Moves the prefix over an interval that starts where it ends.
    fn advance(&mut self, interval: Interval) {
        self.position = Position { offset: interval.end, mark: interval.mark };
        self.books = self.books.plus(&interval.books);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{FileKey, Span};

    fn run(start: u64, end: u64) -> Run {
        let mark = Mark { len: 1, hash: u32::try_from(end).unwrap() };
        Run { span: Span { file: FileKey(1), start, end }, mark, lines: 1 }
    }

    fn settle(settled: &mut Settled, start: u64, end: u64) -> Result<bool, Overlap> {
        let books = Books { acknowledged: end.saturating_sub(start), lines: 1, ..Books::default() };
        settled.settle(&run(start, end), books)
    }

    #[test]
    fn runs_out_of_order_move_the_prefix_once_the_gap_is_closed() {
        let mut settled = Settled::new(Position::default(), Books::default());
        assert_eq!(settle(&mut settled, 20, 30), Ok(false));
        assert_eq!(settle(&mut settled, 10, 20), Ok(false));
        assert_eq!(settled.position(), Position::default());
        assert_eq!(settled.books(), Books::default());
        assert_eq!(settled.unsettled_before(40), 20);
        assert_eq!(settle(&mut settled, 0, 10), Ok(true));
        assert_eq!(settled.position().offset, 30);
        assert_eq!(settled.position().mark.hash, 30);
        assert_eq!(settled.books().acknowledged, 30);
        assert_eq!(settled.books().lines, 3);
        assert!(settled.beyond.is_empty());
        assert_eq!(settled.beyond_bytes, 0);
    }

    #[test]
    fn touching_intervals_become_one() {
        let mut settled = Settled::new(Position::default(), Books::default());
        for (start, end) in [(50, 60), (10, 20), (30, 40), (20, 30), (40, 50)] {
            assert_eq!(settle(&mut settled, start, end), Ok(false));
        }
        assert_eq!(settled.beyond.len(), 1);
        assert_eq!(settled.unsettled_before(60), 10);
    }

    #[test]
    fn whatever_overlaps_is_refused_and_changes_nothing() {
        let position = Position { offset: 10, mark: Mark::default() };
        let mut settled = Settled::new(position, Books::default());
        settle(&mut settled, 20, 30).unwrap();
        for (start, end) in
            [(0, 5), (0, 10), (5, 15), (20, 30), (15, 21), (29, 31), (22, 25), (12, 40), (16, 15)]
        {
            assert_eq!(settle(&mut settled, start, end), Err(Overlap), "{start}..{end}");
        }
        assert_eq!(settled.position(), position);
        assert_eq!(settled.books_in_all().acknowledged, 10);
        assert_eq!(settle(&mut settled, 10, 20), Ok(true));
        assert_eq!(settled.position().offset, 30);
    }

    #[test]
    fn an_empty_run_settles_nothing() {
        let mut settled = Settled::new(Position::default(), Books::default());
        assert_eq!(settle(&mut settled, 0, 0), Ok(false));
        assert_eq!(settle(&mut settled, 7, 7), Ok(false));
        assert!(settled.beyond.is_empty());
    }
}
