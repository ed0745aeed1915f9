//! The proof: what came out of the stream is what was written, byte for byte, in order.
//!
//! Invariant: every byte is compared. A byte that is missing, changed, there twice or out of order
//! is found, and the first place of each file where that happens is told.
//!
//! No two lines that were written are the same, so a line that arrives belongs to one log, and has
//! its place there: right after the line of that log that arrived before it.

use std::collections::BTreeMap;
use std::fmt;

use super::traffic::Written;
use crate::cost::Usage;

/// What arrives, held against what was written.
#[derive(Debug)]
pub(super) struct Proof<'a> {
    logs: Vec<Log<'a>>,
    /// The line that each log goes on with.
    next: BTreeMap<&'a [u8], usize>,
    strays: u64,
    /// What the records as they arrived cost.
    pub(super) merged: Usage,
    /// What their lines would have cost one a record.
    pub(super) unmerged: Usage,
}

/// One log, and how much of it has arrived.
#[derive(Debug)]
struct Log<'a> {
    name: &'a str,
    data: &'a [u8],
    arrived: usize,
}

impl<'a> Log<'a> {
    fn next(&self) -> Option<&'a [u8]> {
        lines(self.data.get(self.arrived..)?).next()
    }
}

fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split_inclusive(|&byte| byte == b'\n')
}

impl<'a> Proof<'a> {
    /// Returns the proof that nothing has been brought for yet.
    pub(super) fn new(written: &'a [Written]) -> Self {
        let logs: Vec<Log<'a>> = written
            .iter()
            .map(|log| Log { name: &log.name, data: &log.data, arrived: 0 })
            .collect();
        let next =
            logs.iter().enumerate().filter_map(|(index, log)| Some((log.next()?, index))).collect();
        let (merged, unmerged) = (Usage::default(), Usage::default());
        Self { logs, next, strays: 0, merged, unmerged }
    }

    /// Takes in one record: they are to come shard by shard, in the order of their sequence
    /// numbers.
    pub(super) fn record(&mut self, partition_key: &str, data: &[u8]) {
        let key = partition_key.len() as u64;
        self.merged.add(1, key.saturating_add(data.len() as u64));
        for line in lines(data) {
            self.unmerged.add(1, key.saturating_add(line.len() as u64));
            self.line(line);
        }
    }

    fn line(&mut self, line: &[u8]) {
        let Some(log) = self.next.remove(line) else {
            self.strays = self.strays.saturating_add(1);
            return;
        };
        let Some(known) = self.logs.get_mut(log) else { return };
        known.arrived = known.arrived.saturating_add(line.len());
        if let Some(next) = known.next() {
            self.next.insert(next, log);
        }
    }

    /// Returns how the comparison went, now that everything has arrived.
    pub(super) fn verdict(&self) -> Verdict {
        let sum = |bytes: fn(&Log<'_>) -> usize| -> u64 {
            self.logs.iter().map(|log| bytes(log) as u64).sum()
        };
        let differs = self.logs.iter().filter(|log| log.arrived < log.data.len());
        let mut differences: Vec<Difference> = differs
            .map(|log| Difference::Log { name: log.name.to_owned(), at: log.arrived })
            .collect();
        if self.strays > 0 {
            differences.push(Difference::Strays { lines: self.strays });
        }
        Verdict { written: sum(|log| log.data.len()), equal: sum(|log| log.arrived), differences }
    }
}

/// How the comparison went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Bytes written.
    pub(super) written: u64,
    /// Bytes that arrived at their place.
    pub(super) equal: u64,
    /// What is not as it was written.
    pub(super) differences: Vec<Difference>,
}

impl Verdict {
    /// Returns true where everything arrived as it was written, and nothing else.
    pub(super) fn holds(&self) -> bool {
        self.differences.is_empty() && self.equal == self.written
    }
}

/// One thing that is not as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// A log does not go on as it was written.
    Log {
        /// Which.
        name: String,
        /// The offset of the line that is missing, changed or out of order.
        at: usize,
    },
    /// Lines that have no place: they were never written, arrived before, or are out of order.
    Strays {
        /// How many.
        lines: u64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { name, at } => write!(formatter, "{name} does not go on after byte {at}"),
            Self::Strays { lines } => {
                write!(formatter, "{lines} lines came twice, changed or out of order")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(records: &[&str]) -> Verdict {
        let written = [("a (rotated)", "a1\na2\n"), ("a", "a3\n"), ("b", "b1\nb2\n"), ("c", "")]
            .map(|(name, data)| Written { name: name.to_owned(), data: data.as_bytes().to_vec() });
        let mut proof = Proof::new(&written);
        for data in records {
            proof.record("k", data.as_bytes());
        }
        proof.verdict()
    }

    fn stray(lines: u64) -> Difference {
        Difference::Strays { lines }
    }

    fn log(name: &str, at: usize) -> Difference {
        Difference::Log { name: name.to_owned(), at }
    }

    #[test]
    fn every_line_once_and_in_the_order_of_its_log_is_proof() {
        let together = verdict(&["a1\n", "b1\nb2\n", "a2\na3\n"]);
        assert!(together.holds(), "{together:?}");
        assert_eq!((together.written, together.equal), (15, 15));
        assert!(verdict(&["a3\n", "a1\n", "b1\na2\nb2\n"]).holds(), "logs have no order");
    }

    #[test]
    fn a_missing_line_is_found() {
        let verdict = verdict(&["a1\na3\n", "b2\n"]);
        assert_eq!(verdict.differences, [log("a (rotated)", 3), log("b", 0), stray(1)]);
        assert_eq!((verdict.holds(), verdict.equal), (false, 6));
    }

    #[test]
    fn a_duplicate_is_found() {
        let verdict = verdict(&["a1\na2\na3\n", "b1\nb2\n", "b2\n"]);
        assert_eq!(verdict.differences, [stray(1)]);
        assert!(!verdict.holds());
    }

    #[test]
    fn lines_out_of_order_are_found() {
        assert_eq!(
            verdict(&["a2\na1\na3\n", "b1\nb2\n"]).differences,
            [log("a (rotated)", 3), stray(1)]
        );
    }

    #[test]
    fn a_changed_byte_and_a_missing_newline_are_found() {
        assert!(!verdict(&["a1\na2\na3\n", "b1\nB2\n"]).holds());
        assert!(!verdict(&["a1\na2\na3\n", "b1\nb2"]).holds());
    }

    #[test]
    fn costs_are_counted_with_and_without_merging() {
        let mut proof = Proof::new(&[]);
        proof.record("key", b"one\ntwo\n");
        assert_eq!((proof.merged.records, proof.merged.bytes), (1, 11));
        assert_eq!((proof.unmerged.records, proof.unmerged.bytes), (2, 14));
    }
}
