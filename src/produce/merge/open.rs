//! Open records: those that still wait for company, by partition key and by age.
//!
//! Invariant: `by_slot` and `by_age` name the same records, and `held` is the sum of their bytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::packer::Atom;
use crate::position::Run;

/// Records that there is always room for in the table: more are open only where many files are found at
/// once, and what is then taken is given back when they are gone.
const ROOM: usize = 64;

/// A record being filled.
///
/// Its bytes are copied out of their chunks. That is never more copying than joining slices of
/// chunks at the end would be, because a record that is full within one chunk is a slice of it and
/// never opened; and an open record pins no chunk, however long it waits.
#[derive(Debug)]
pub(super) struct Open {
    /// The key, drawn when the record was opened.
    pub(super) key: Arc<str>,
    /// Where it is found: the key, or the one slot of random keys.
    pub(super) slot: Arc<str>,
    /// The data so far, in the flow's format; what is to be compressed waits as text.
    pub(super) body: Vec<u8>,
    /// What that text is made of; empty where nothing is compressed.
    pub(super) atoms: Vec<Atom>,
    /// What the text is expected to become, in the unit of the forecast.
    pub(super) expected: u64,
    /// Lines (or multiline groups) in it.
    pub(super) units: usize,
    /// Where they come from.
    pub(super) runs: SmallVec<[Run; 1]>,
    /// When the oldest of its lines was read.
    pub(super) oldest: Instant,
    /// Tells records of the same instant apart, in the order they were opened.
    number: u64,
}

impl Open {
    /// Returns the bytes it holds.
    fn held(&self) -> usize {
        let atoms = self.atoms.len().saturating_mul(size_of::<Atom>());
        self.body.len().saturating_add(atoms)
    }

    /// Takes note of where further bytes come from, and of when they were read.
    pub(super) fn note(&mut self, run: Run, read_at: Instant) {
        note(&mut self.runs, run);
        self.oldest = self.oldest.min(read_at);
    }
}

/// Appends `run`, joined to the last one where it goes on from there.
pub(super) fn note(runs: &mut SmallVec<[Run; 1]>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.span.is_followed_by(&run.span) => {
            last.span.end = run.span.end;
            last.mark = run.mark;
            last.lines = last.lines.saturating_add(run.lines);
        }
        _ => runs.push(run),
    }
}

/// All open records of a flow.
#[derive(Debug, Default)]
pub(super) struct OpenRecords {
    by_slot: HashMap<Arc<str>, Open>,
    by_age: BTreeMap<(Instant, u64), Arc<str>>,
    held: usize,
    opened: u64,
}

impl OpenRecords {
    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.by_slot.len()
    }

    /// Returns the bytes they hold.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Returns when the oldest line of all was read.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.by_age.first_key_value().map(|(&(oldest, _), _)| oldest)
    }

    /// Begins a record, which is not among these until it is [`put`](Self::put).
    pub(super) fn begin(&mut self, slot: &str, key: Arc<str>, read_at: Instant) -> Open {
        self.opened = self.opened.wrapping_add(1);
        let slot = if *slot == *key { Arc::clone(&key) } else { Arc::from(slot) };
        Open {
            key,
            slot,
            body: Vec::new(),
            atoms: Vec::new(),
            expected: 0,
            units: 0,
            runs: SmallVec::new(),
            oldest: read_at,
            number: self.opened,
        }
    }

    /// Puts a record among these.
    pub(super) fn put(&mut self, open: Open) {
        self.held = self.held.saturating_add(open.held());
        self.by_age.insert((open.oldest, open.number), Arc::clone(&open.slot));
        self.by_slot.insert(Arc::clone(&open.slot), open);
    }

    /// Takes the record of a slot out.
    pub(super) fn take(&mut self, slot: &str) -> Option<Open> {
        let open = self.by_slot.remove(slot)?;
        self.by_age.remove(&(open.oldest, open.number));
        self.held = self.held.saturating_sub(open.held());
        if self.by_slot.is_empty() {
            self.by_slot.shrink_to(ROOM);
        }
        Some(open)
    }

    /// Takes the record with the oldest line out.
    pub(super) fn take_oldest(&mut self) -> Option<Open> {
        let slot = Arc::clone(self.by_age.first_key_value()?.1);
        self.take(&slot)
    }

    /// Returns the slots of all records, the one that holds the most bytes first.
    pub(super) fn by_fullness(&self) -> Vec<Arc<str>> {
        let mut slots: Vec<_> =
            self.by_slot.values().map(|open| (open.held(), open.oldest, &open.slot)).collect();
        slots.sort_unstable_by_key(|&(held, oldest, _)| (Reverse(held), oldest));
        slots.into_iter().map(|(.., slot)| Arc::clone(slot)).collect()
    }

    /// Lets `change` change the record of a slot in its place, if there is one, and returns what
    /// it returns.
    pub(super) fn change<T>(
        &mut self,
        slot: &str,
        change: impl FnOnce(&mut Open) -> T,
    ) -> Option<T> {
        let open = self.by_slot.get_mut(slot)?;
        let (oldest, bytes) = (open.oldest, open.held());
        let returned = change(open);
        self.held = self.held.saturating_sub(bytes).saturating_add(open.held());
        if open.oldest != oldest {
            self.by_age.remove(&(oldest, open.number));
            self.by_age.insert((open.oldest, open.number), Arc::clone(&open.slot));
        }
        Some(returned)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::position::{FileKey, Mark, Span};

    fn run(file: u64, start: u64, end: u64) -> Run {
        let span = Span { file: FileKey(file), start, end };
        Run { span, mark: Mark::default(), lines: 1 }
    }

    #[test]
    fn runs_that_meet_become_one() {
        let mut runs = SmallVec::new();
        for run in [run(1, 0, 5), run(1, 5, 9), run(2, 9, 12), run(1, 9, 11), run(1, 12, 13)] {
            note(&mut runs, run);
        }
        let spans: Vec<_> = runs.iter().map(|run| (run.span.start, run.span.end)).collect();
        assert_eq!(spans, [(0, 9), (9, 12), (9, 11), (12, 13)]);
        assert_eq!(runs[0].lines, 2);
    }

    #[test]
    fn the_oldest_line_decides_even_where_it_came_last() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut records = OpenRecords::default();
        for (slot, second) in [("a", 2), ("b", 3)] {
            let mut open = records.begin(slot, Arc::from(slot), at(second));
            open.body.extend_from_slice(b"12345");
            records.put(open);
        }
        assert_eq!((records.len(), records.held(), records.oldest()), (2, 10, Some(at(2))));
        records.change("b", |open| {
            open.body.push(6);
            open.note(run(1, 0, 1), at(1));
        });
        assert_eq!((records.held(), records.oldest()), (11, Some(at(1))));
        assert_eq!(&*records.take_oldest().unwrap().key, "b");
        assert_eq!(&*records.take_oldest().unwrap().key, "a");
        assert!(records.take_oldest().is_none() && records.take("a").is_none());
        assert_eq!((records.len(), records.held(), records.oldest()), (0, 0, None));
    }
}
