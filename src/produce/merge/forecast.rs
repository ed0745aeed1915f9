//! How long text will be when it is compressed, by what text of its file has become before. Pure.
//!
//! Invariant: what is expected of a text is the sum of what is expected of its parts, wherever it is cut.
//!
//! Files are told apart because their formats compress differently, by four or by fourteen, and under
//! one partition key the text of one follows that of another: an average of them would be wrong for each.

use std::collections::HashMap;

use crate::position::FileKey;

/// What is expected of a byte that does not compress. A power of two, so that sums of products stay exact.
const BYTE: u64 = 1 << 20;

/// What is expected of a byte before anything is known: log lines become shorter than that.
const FIRST: u64 = BYTE / 4;

/// The most that is expected of a byte: short lines, each with tags of its own.
const MOST: u64 = BYTE * 4;

/// What is known of a flow's files.
#[derive(Debug)]
pub(super) struct Forecast {
    files: HashMap<FileKey, u64>,
    /// What is expected of a file of which nothing is known: what the last text of all became.
    last: u64,
}

impl Forecast {
    /// Returns a forecast that knows nothing.
    pub(super) fn new() -> Self {
        Self { files: HashMap::new(), last: FIRST }
    }

    /// Returns what `bytes` compressed bytes are in the unit of [`expect`](Self::expect).
    pub(super) fn length(bytes: usize) -> u64 {
        (bytes as u64).saturating_mul(BYTE)
    }

    /// Returns what is expected of `text` bytes of a file.
    pub(super) fn expect(&self, file: FileKey, text: usize) -> u64 {
        (text as u64).saturating_mul(self.of(file))
    }

    /// Returns what is expected of text of these files, so many bytes of each.
    pub(super) fn expect_all(&self, parts: &[(FileKey, usize)]) -> u64 {
        parts.iter().fold(0, |sum, (file, text)| sum.saturating_add(self.expect(*file, *text)))
    }

    /// Returns how many bytes of text of these files, in their order, are expected to take `length`.
    pub(super) fn reach_in(&self, parts: &[(FileKey, usize)], length: u64) -> usize {
        let (mut left, mut reach) = (length, 0_usize);
        for (file, text) in parts {
            let expected = self.expect(*file, *text);
            if expected > left {
                return reach.saturating_add(self.reach(*file, left));
            }
            left = left.saturating_sub(expected);
            reach = reach.saturating_add(*text);
        }
        reach
    }

    /// Returns how many bytes of a file are expected to take `length`.
    pub(super) fn reach(&self, file: FileKey, length: u64) -> usize {
        usize::try_from(length / self.of(file)).unwrap_or(usize::MAX)
    }

    /// Takes note that text of these files, so many bytes of each, has become `length` bytes: all of
    /// them turned out longer than expected, or shorter, in the same proportion.
    pub(super) fn learn(&mut self, parts: &[(FileKey, usize)], length: usize) {
        let expected = self.expect_all(parts);
        let text: u64 = parts.iter().map(|(_, text)| *text as u64).sum();
        let Some(last) = Self::length(length).checked_div(text) else { return };
        let mut files: Vec<_> = parts.iter().map(|(file, _)| *file).collect();
        files.sort_unstable();
        files.dedup();
        for file in files {
            let now = u128::from(self.of(file)).saturating_mul(u128::from(Self::length(length)));
            let now = now.checked_div(u128::from(expected)).unwrap_or_default();
            self.files.insert(file, u64::try_from(now).unwrap_or(MOST).clamp(1, MOST));
        }
        self.last = last.clamp(1, MOST);
    }

    /// Forgets a file that has ended.
    pub(super) fn forget(&mut self, file: FileKey) {
        self.files.remove(&file);
    }

    fn of(&self, file: FileKey) -> u64 {
        self.files.get(&file).copied().unwrap_or(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: FileKey = FileKey(1);
    const B: FileKey = FileKey(2);

    #[test]
    fn each_file_is_expected_to_go_on_as_it_began() {
        let mut forecast = Forecast::new();
        assert_eq!(forecast.expect(A, 400), Forecast::length(100), "before anything is known");
        forecast.learn(&[(A, 1_000)], 100);
        forecast.learn(&[(B, 1_000)], 250);
        for (file, text) in [(A, 10_000), (B, 4_000)] {
            let expected = forecast.expect(file, text).abs_diff(Forecast::length(1_000));
            assert!(expected < Forecast::length(1), "{expected}");
            assert!(forecast.reach(file, Forecast::length(1_000)).abs_diff(text) <= 1);
        }
        let new = forecast.expect(FileKey(3), 4_000);
        assert_eq!(new, forecast.expect(B, 4_000), "a new file is like the last");
        forecast.learn(&[(A, 1_000)], 100);
        forecast.forget(B);
        assert_eq!(forecast.expect(B, 10), forecast.expect(A, 10));
    }

    #[test]
    fn what_is_wrong_about_several_files_is_shared() {
        let mut forecast = Forecast::new();
        forecast.learn(&[(A, 1_000)], 100);
        forecast.learn(&[(B, 1_000)], 200);
        // Expected were 100 + 400 + 100.
        forecast.learn(&[(A, 1_000), (B, 2_000), (A, 1_000)], 300);
        assert!(forecast.expect(A, 1_000).abs_diff(Forecast::length(50)) < Forecast::length(1));
        assert!(forecast.expect(B, 1_000).abs_diff(Forecast::length(100)) < Forecast::length(1));
        forecast.learn(&[], 5);
        forecast.learn(&[(A, 10)], 0);
        assert!(forecast.expect(A, 1) > 0, "never for nothing");
    }
}
