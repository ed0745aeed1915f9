//! The oracle's judgement: counts, and the first cases of each kind.
//!
//! Invariant: only duplicates can be allowed; any other mark is a failure.

use std::fmt;

/// How many cases of a kind are told.
const CASES_MAX: usize = 5;
/// How many bytes of a line are shown.
const SHOWN_MAX: usize = 80;

/// How many duplicates are right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Lines.
    pub lines: u64,
    /// Bytes of such lines.
    pub bytes: u64,
}

impl Allowance {
    /// Any number of lines, up to so many bytes in all.
    #[must_use]
    pub fn bytes(bytes: u64) -> Self {
        Self { lines: u64::MAX, bytes }
    }
}

/// A kind of mark: how many, and the first few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// How many.
    pub count: u64,
    /// The first ones, in words.
    pub cases: Vec<String>,
}

impl Marks {
    fn add(&mut self, case: impl FnOnce() -> String) {
        self.count += 1;
        if self.cases.len() < CASES_MAX {
            self.cases.push(case());
        }
    }
}

/// What arrived of what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The oracle's seed.
    pub seed: u64,
    /// Records judged.
    pub records: u64,
    /// Lines written.
    pub written: u64,
    /// Lines that arrived, each counted once.
    pub arrived: u64,
    /// Written, and never arrived.
    pub missing: Marks,
    /// Arrived, and never written: torn lines among them.
    pub unknown: Marks,
    /// Arrived with other bytes than written.
    pub damaged: Marks,
    /// First arrived after a later line of the same file.
    pub reordered: Marks,
    /// Lines that arrived once more.
    pub duplicates: u64,
    /// Bytes of lines that arrived once more.
    pub duplicate_bytes: u64,
}

impl Report {
    /// Returns the judgement over nothing.
    #[must_use]
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            records: 0,
            written: 0,
            arrived: 0,
            missing: Marks::default(),
            unknown: Marks::default(),
            damaged: Marks::default(),
            reordered: Marks::default(),
            duplicates: 0,
            duplicate_bytes: 0,
        }
    }

    /// Returns the report itself where nothing is wrong but duplicates within the allowance.
    ///
    /// # Errors
    /// The report, whose `Display` tells what is wrong.
    pub fn check(self, allowance: Allowance) -> Result<Self, Box<Self>> {
        let marked = [&self.missing, &self.unknown, &self.damaged, &self.reordered];
        let sound = marked.iter().all(|marks| marks.count == 0);
        let few = self.duplicates <= allowance.lines && self.duplicate_bytes <= allowance.bytes;
        if sound && few { Ok(self) } else { Err(Box::new(self)) }
    }

    /// Panics with the report unless each line arrived exactly once, whole and in order.
    pub fn assert_exactly_once(self) {
        self.assert_within(Allowance::default());
    }

    /// Panics with the report unless each line arrived, whole and in order, with no more duplicates
    /// than allowed.
    pub fn assert_within(self, allowance: Allowance) {
        if let Err(report) = self.check(allowance) {
            panic!("{report}\nduplicates allowed: {allowance:?}");
        }
    }

    pub(super) fn missing(&mut self, writer: u32, place: u64) {
        self.missing.add(|| format!("line {writer}:{place}"));
    }

    pub(super) fn unknown(&mut self, bytes: &[u8], why: &str) {
        self.unknown.add(|| format!("{why}: {}", shown(bytes)));
    }

    pub(super) fn damaged(&mut self, writer: u32, place: u64, minted: &[u8], came: &[u8]) {
        let same = minted.iter().zip(came).take_while(|(a, b)| a == b).count();
        self.damaged.add(|| {
            format!(
                "line {writer}:{place} differs from byte {same} of {} (came: {}): {} instead of {}",
                minted.len(),
                came.len(),
                shown(&came[same..]),
                shown(&minted[same..]),
            )
        });
    }

    pub(super) fn reordered(&mut self, writer: u32, place: u64, after: u64) {
        self.reordered.add(|| format!("line {writer}:{place} came after {writer}:{after}"));
    }

    pub(super) fn duplicate(&mut self, bytes: usize) {
        self.duplicates += 1;
        self.duplicate_bytes += bytes as u64;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "oracle (seed {}): {} lines written, {} arrived in {} records, \
             {} duplicates ({} bytes)",
            self.seed,
            self.written,
            self.arrived,
            self.records,
            self.duplicates,
            self.duplicate_bytes,
        )?;
        let kinds = [
            ("missing", &self.missing),
            ("unknown", &self.unknown),
            ("damaged", &self.damaged),
            ("reordered", &self.reordered),
        ];
        for (kind, marks) in kinds.iter().filter(|(_, marks)| marks.count > 0) {
            writeln!(formatter, "  {kind}: {}", marks.count)?;
            for case in &marks.cases {
                writeln!(formatter, "    {case}")?;
            }
        }
        Ok(())
    }
}

/// Returns the first bytes, printable.
fn shown(bytes: &[u8]) -> String {
    let end = bytes.len().min(SHOWN_MAX);
    let dots = if end < bytes.len() { "…" } else { "" };
    format!("\"{}\"{dots}", bytes[..end].escape_ascii())
}
