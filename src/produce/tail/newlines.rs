//! How many lines end in a part of a chunk, without looking at it again.
//!
//! Invariant: the count of a part is that of its newlines, whether or not an index was made.
//!
//! A chunk is counted where it was just read, by the thread that has it in the cache of its core, and
//! once: merging asks for the count of each record that it cuts from the chunk, and has only the ends
//! of that to look at. There, on another core, all of it would have to come over first.

/// Bytes for each entry of the index: what is looked at again, twice half of it on average, is a
/// twenty-fifth of a record of 25 KB.
const STRETCH: usize = 1024;

/// Chunks that are shorter are counted when it is asked for: a few lines need no index.
const SHORT: usize = 4 * STRETCH;

/// An index of the newlines in a chunk.
#[derive(Clone, Debug, Default)]
pub struct Newlines {
    /// How many stand before the end of each stretch; nothing where there is no index.
    before: Box<[u32]>,
}

impl Newlines {
    /// Indexes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.len() < SHORT {
            return Self::default();
        }
        let mut before = 0_u32;
        let counted = bytes.chunks_exact(STRETCH).map(|stretch| {
            let count = u32::try_from(newlines(stretch)).unwrap_or(u32::MAX);
            before = before.saturating_add(count);
            before
        });
        Self { before: counted.collect() }
    }

    /// Returns how many newlines stand in the part `from..to` of `bytes`, which were indexed.
    #[must_use]
    pub fn count(&self, bytes: &[u8], from: usize, to: usize) -> usize {
        if self.before.is_empty() || to.saturating_sub(from) < STRETCH {
            return newlines(bytes.get(from..to).unwrap_or_default());
        }
        self.count_before(bytes, to).saturating_sub(self.count_before(bytes, from))
    }

    fn count_before(&self, bytes: &[u8], end: usize) -> usize {
        let stretches = (end / STRETCH).min(self.before.len());
        let indexed = stretches.checked_sub(1).and_then(|last| self.before.get(last)).copied();
        let rest = bytes.get(stretches.saturating_mul(STRETCH)..end).unwrap_or_default();
        newlines(rest).saturating_add(indexed.map_or(0, |count| count as usize))
    }
}

/// Returns true where the last line of `bytes` lacks its newline.
#[must_use]
pub fn is_unfinished(bytes: &[u8]) -> bool {
    bytes.last().is_some_and(|last| *last != b'\n')
}

/// Returns how many newlines stand in `bytes`.
#[must_use]
pub fn newlines(bytes: &[u8]) -> usize {
    bytecount::count(bytes, b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of lengths from 1 to 700, some short in a row, and an unfinished one.
    fn text(length: usize) -> Vec<u8> {
        let is_end = |at: usize| at % 701 == 700 || at % 5003 < 40;
        (0..length).map(|at| if is_end(at) { b'\n' } else { b'x' }).collect()
    }

    #[test]
    fn counts_every_part_as_a_search_would() {
        for length in [0, 1, STRETCH, SHORT - 1, SHORT, SHORT + 1, 10 * STRETCH + 17] {
            let bytes = text(length);
            let index = Newlines::of(&bytes);
            let ends =
                || (0..=length).filter(|at| at % 97 == 0 || at % STRETCH < 2 || *at == length);
            for from in ends() {
                for to in ends().filter(|to| *to >= from) {
                    let expected = memchr::memchr_iter(b'\n', &bytes[from..to]).count();
                    assert_eq!(index.count(&bytes, from, to), expected, "{from}..{to} of {length}");
                }
            }
        }
    }

    #[test]
    fn counts_without_an_index_too() {
        let bytes = text(3 * SHORT);
        let (index, none) = (Newlines::of(&bytes), Newlines::default());
        assert_eq!(none.count(&bytes, 5, 2 * SHORT), index.count(&bytes, 5, 2 * SHORT));
    }
}
