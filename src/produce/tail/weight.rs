//! What is read weighs more than its bytes where it becomes many records: a record takes memory of its own,
//! however short its line. Pure.
//!
//! Invariant: the weight of a chunk is no less than its bytes and what its records take beside them. So the
//! share of the memory that a file has bounds its records, too: those of a shard that takes nothing leave
//! room for the others all the way to the stream.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use memchr::memchr_iter;

use crate::config::{Format, PartitionKey, Produce};

/// What a record takes beyond its bytes: itself, its key, and its place in the queues it goes through.
pub const RECORD: usize = 512;

/// How many records the lines of a flow become.
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// The most lines of a record, where there is a bound. Where lines do not go by their file's key, no
    /// share of a file could keep a shard's records apart: then they are bounded together, by shipping.
    lines: Option<usize>,
    /// About the most bytes of a record.
    bytes: usize,
    /// How long a record is open at most: one more goes out in that time, however little is in it.
    age: Duration,
}

impl Weights {
    /// Returns how the lines of `flow` weigh.
    #[must_use]
    pub fn of(flow: &Produce) -> Self {
        let merge = &flow.merge;
        let lines = if merge.format == Format::None { Some(1) } else { merge.max_lines };
        let lines = lines.and_then(|lines| usize::try_from(lines).ok());
        let is_by_file = matches!(flow.partition_key, PartitionKey::File);
        Self { lines: lines.filter(|_| is_by_file), bytes: merge.max_bytes, age: merge.max_age }
    }

    /// Returns how much of `data`, which begins with a line, weighs `most` or less; a line at least.
    #[must_use]
    pub fn cut(&self, data: &[u8], most: usize) -> usize {
        let Some(per_record) = self.lines else { return data.len() };
        let mut fits = 0;
        for (number, at) in memchr_iter(b'\n', data).enumerate() {
            let end = at.saturating_add(1);
            let records = (number / per_record.max(1)).saturating_add(1);
            if fits > 0 && end.saturating_add(records.saturating_mul(RECORD)) > most {
                return fits;
            }
            fits = end;
        }
        data.len()
    }

    /// Returns what `data` weighs beyond its bytes.
    fn beyond(&self, data: &[u8]) -> usize {
        let by_lines = self
            .lines
            .map_or(0, |per_record| memchr_iter(b'\n', data).count().div_ceil(per_record.max(1)));
        by_lines.max(data.len() / self.bytes.max(1)).saturating_mul(RECORD)
    }
}

/// What is on its way of one file weighs beyond its bytes.
#[derive(Debug, Default)]
pub struct Owed {
    /// By the offset where each chunk ends, in order.
    chunks: VecDeque<(u64, usize)>,
    sum: usize,
    /// When the last record that may be open was counted.
    opened: Option<Instant>,
}

impl Owed {
    /// Returns the sum.
    #[must_use]
    pub fn sum(&self) -> usize {
        self.sum
    }

    /// Adds a chunk that ends at `end`; returns what it weighs.
    pub fn add(&mut self, weights: &Weights, data: &[u8], end: u64, now: Instant) -> usize {
        let mut weight = weights.beyond(data);
        let is_open = |opened: Instant| now.saturating_duration_since(opened) < weights.age;
        if !self.opened.is_some_and(is_open) {
            self.opened = Some(now);
            weight = weight.saturating_add(RECORD);
        }
        if weight > 0 {
            self.chunks.push_back((end, weight));
            self.sum = self.sum.saturating_add(weight);
        }
        weight
    }

    /// Takes out what is settled; returns what it weighed.
    pub fn settle(&mut self, settled: u64) -> usize {
        let mut weight = 0_usize;
        while let Some((_, own)) = self.chunks.pop_front_if(|(end, _)| *end <= settled) {
            weight = weight.saturating_add(own);
        }
        self.sum = self.sum.saturating_sub(weight);
        weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(lines: Option<usize>) -> Weights {
        Weights { lines, bytes: 25_000, age: Duration::from_secs(1) }
    }

    #[test]
    fn a_line_that_is_a_record_weighs_as_one() {
        let data = b"a\n".repeat(100);
        let each = weights(Some(1));
        assert_eq!(each.beyond(&data), 100 * RECORD);
        assert_eq!(each.cut(&data, 10 * (RECORD + 2)), 20);
        assert_eq!(each.cut(&data, 0), 2, "a line at least");
        assert_eq!(each.cut(&data, usize::MAX), 200);
        assert_eq!(weights(Some(30)).beyond(&data), 4 * RECORD);
        assert_eq!(weights(Some(30)).cut(&data, 120 + 2 * RECORD), 120);
        assert_eq!((weights(None).beyond(&data), weights(None).cut(&data, 0)), (0, 200));
    }

    #[test]
    fn a_record_that_may_be_open_is_counted_once_in_its_time() {
        let (mut owed, now) = (Owed::default(), Instant::now());
        let weights = weights(None);
        let at = |millis| now + Duration::from_millis(millis);
        assert_eq!(owed.add(&weights, b"a\n", 2, at(0)), RECORD);
        assert_eq!(owed.add(&weights, b"b\n", 4, at(999)), 0);
        assert_eq!(owed.add(&weights, b"c\n", 6, at(1_000)), RECORD);
        assert_eq!(owed.add(&weights, &b"x".repeat(50_000), 50_006, at(1_001)), 2 * RECORD);
        assert_eq!(owed.settle(5), RECORD);
        assert_eq!(owed.sum(), 3 * RECORD);
        assert_eq!(owed.settle(50_006), 3 * RECORD);
        assert_eq!((owed.sum(), owed.settle(u64::MAX)), (0, 0));
    }
}
