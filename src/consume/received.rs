//! Which bytes of a source have been written, as ranges with a checksum each.
//!
//! Invariant: ranges are in order, apart from each other, and none is empty; so what comes again is
//! known, and a file is whole where there is one range that begins at 0.

use crc32fast::Hasher;
use smallvec::SmallVec;

/// The most ranges that are kept. Records come in order but for what was on the way when a producer
/// failed; a source with more gaps is made up.
const RANGES_MAX: usize = 1024;

/// The bytes that a range takes when it is encoded.
const ENCODED: usize = 20;

/// A range of bytes and the CRC-32 of what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last.
    pub end: u64,
    /// The checksum.
    pub crc: u32,
}

/// The ranges of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received(SmallVec<[Range; 1]>);

impl Received {
    /// Returns the ranges, first to last.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// Returns the parts of `start..end` that have not been written.
    #[must_use]
    pub fn missing(&self, start: u64, end: u64) -> SmallVec<[(u64, u64); 2]> {
        let mut parts = SmallVec::new();
        let mut at = start;
        let from = self.0.partition_point(|range| range.end <= start);
        for range in self.0.iter().skip(from).take_while(|range| range.start < end) {
            if range.start > at {
                parts.push((at, range.start));
            }
            at = at.max(range.end);
        }
        if at < end {
            parts.push((at, end));
        }
        parts
    }

    /// Takes note of the bytes of `new`, of which none was written before. Returns false where there are
    /// too many ranges to remember another.
    pub fn add(&mut self, new: Range) -> bool {
        if new.start >= new.end {
            return true;
        }
        let at = self.0.partition_point(|range| range.end < new.start);
        let joins_before = self.0.get(at).is_some_and(|range| range.end == new.start);
        let after = if joins_before { at.saturating_add(1) } else { at };
        let joins_after = self.0.get(after).is_some_and(|range| range.start == new.end);
        if !joins_before && !joins_after && self.0.len() >= RANGES_MAX {
            return false;
        }
        let mut joined = new;
        if joins_after {
            joined = join(joined, self.0.remove(after));
        }
        if joins_before {
            joined = join(self.0.remove(at), joined);
        }
        self.0.insert(at, joined);
        true
    }

    /// Returns the offset after the last byte that was written.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |range| range.end)
    }

    /// Returns the bytes before [`end`](Self::end) that are missing.
    #[must_use]
    pub fn holes(&self) -> u64 {
        let written: u64 = self.0.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        self.end().saturating_sub(written)
    }

    /// Returns the checksum of the whole, where no byte is missing.
    #[must_use]
    pub fn whole(&self) -> Option<u32> {
        match &self.0[..] {
            [] => Some(0),
            [range] if range.start == 0 => Some(range.crc),
            _ => None,
        }
    }

    /// Writes the ranges as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len().saturating_mul(ENCODED));
        for range in &self.0 {
            bytes.extend_from_slice(&range.start.to_le_bytes());
            bytes.extend_from_slice(&range.end.to_le_bytes());
            bytes.extend_from_slice(&range.crc.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote; `None` where it is something else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (ranges, rest) = bytes.as_chunks::<ENCODED>();
        let mut received = Self::default();
        for chunk in ranges {
            let (start, rest) = chunk.split_first_chunk::<8>()?;
            let (end, crc) = rest.split_first_chunk::<8>()?;
            let range = Range {
                start: u64::from_le_bytes(*start),
                end: u64::from_le_bytes(*end),
                crc: u32::from_le_bytes(*crc.first_chunk::<4>()?),
            };
            let follows = received.0.last().is_none_or(|last| last.end < range.start);
            if !follows || range.start >= range.end {
                return None;
            }
            received.0.push(range);
        }
        rest.is_empty().then_some(received)
    }
}

fn join(first: Range, second: Range) -> Range {
    let mut crc = Hasher::new_with_initial_len(first.crc, first.end.saturating_sub(first.start));
    let length = second.end.saturating_sub(second.start);
    crc.combine(&Hasher::new_with_initial_len(second.crc, length));
    Range { start: first.start, end: second.end, crc: crc.finalize() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u64, bytes: &[u8]) -> Range {
        Range { start, end: start + bytes.len() as u64, crc: crc32fast::hash(bytes) }
    }

    #[test]
    fn what_is_missing_is_known() {
        let mut received = Received::default();
        assert_eq!(received.missing(3, 9)[..], [(3, 9)]);
        received.add(range(10, b"0123456789"));
        received.add(range(30, b"0123456789"));
        assert_eq!(received.missing(0, 50)[..], [(0, 10), (20, 30), (40, 50)]);
        assert!(received.missing(12, 18).is_empty());
        assert_eq!(received.missing(15, 35)[..], [(20, 30)]);
        assert_eq!((received.end(), received.holes(), received.whole()), (40, 20, None));
    }

    #[test]
    fn gaps_beyond_the_bound_are_not_remembered() {
        let mut received = Received::default();
        let mut start = 0;
        while received.add(range(start, b"x")) {
            start += 2;
        }
        assert_eq!(received.ranges().len(), RANGES_MAX);
        assert!(received.add(range(1, b"y")), "what fills a gap is taken all the same");
        assert_eq!(received.ranges().len(), RANGES_MAX - 1);
    }

    proptest! {
        /// forall pieces of a text in any order, some of them again: what is written once is the text.
        #[test]
        fn pieces_in_any_order_give_the_whole(seed in any::<u64>(), length in 1_usize..300) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let text: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
            let (mut received, mut file) = (Received::default(), vec![0; length]);
            let mut written = 0;
            while received.whole() != Some(crc32fast::hash(&text)) || received.end() < length as u64 {
                let start = rng.usize(..length);
                let end = (start + rng.usize(1..40)).min(length);
                for (from, to) in received.missing(start as u64, end as u64) {
                    let place = |offset| usize::try_from(offset).unwrap();
                    let (from, to) = (place(from), place(to));
                    prop_assert!(from >= start && to <= end);
                    file[from..to].copy_from_slice(&text[from..to]);
                    prop_assert!(received.add(range(from as u64, &text[from..to])));
                    written += to - from;
                }
                let again = Received::decode(&received.encode());
                prop_assert_eq!(again.as_ref(), Some(&received));
            }
            prop_assert_eq!(written, length);
            prop_assert_eq!(file, text);
        }

        #[test]
        fn arbitrary_bytes_decode_to_sound_ranges_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            if let Some(received) = Received::decode(&bytes) {
                prop_assert_eq!(received.encode(), bytes);
            }
        }
    }
}
