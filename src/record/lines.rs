//! The format `lines`: lines joined by a delimiter.
//!
//! Invariant: [`split`] gives back the lines that were joined, where each but the last
//! [may stand before](Delimiter::may_follow) the delimiter.
//!
//! ```text
//!  "\n"    GET /a\nGET /b\n     an exact slice of the file: every line with its newline
//!  "#-#"   GET /a#-#GET /b      lines without their newline; the delimiter only between two
//! ```

use memchr::memchr_iter;
use memchr::memmem::{self, Finder};

/// A delimiter other than `"\n"`, and which lines it can follow.
#[derive(Clone, Debug)]
pub struct Delimiter {
    finder: Finder<'static>,
    /// Lengths of prefixes of the delimiter after which the delimiter, read on, would be found too
    /// early: the `#-` of `#-#`, because `#-` + `#-#` begins with `#-#`.
    overlaps: Vec<usize>,
}

impl Delimiter {
    /// Makes a delimiter of `bytes`; empty bytes separate nothing, so every line stands alone.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let overlaps = (1..bytes.len())
            .filter(|&at| bytes.get(at..).is_some_and(|rest| bytes.starts_with(rest)))
            .collect();
        Self { finder: Finder::new(bytes).into_owned(), overlaps }
    }

    /// Returns the bytes of the delimiter.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.finder.needle()
    }

    /// Returns true where a reader that looks for the delimiter from the start of `line` finds it
    /// just after the line. False where the line contains it, or ends with part of it so that it
    /// would be found early; such a line can only be sent alone.
    #[must_use]
    pub fn may_follow(&self, line: &[u8]) -> bool {
        let bytes = self.as_bytes();
        let early = |&len: &usize| bytes.get(..len).is_some_and(|part| line.ends_with(part));
        self.finder.find(line).is_none() && !self.overlaps.iter().any(early)
    }
}

/// Returns where each line of `bytes` ends, its newline included; a last line may lack it.
pub fn ends(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let last = (!bytes.is_empty() && !bytes.ends_with(b"\n")).then_some(bytes.len());
    memchr_iter(b'\n', bytes).map(|at| at.saturating_add(1)).chain(last)
}

/// Splits a record's data into its lines, without delimiters.
///
/// `"\n"` ends a line, so that `a\nb\n` and `a\nb` are two lines and empty data is none; any other
/// delimiter stands between two lines, so that empty data is one empty line.
pub fn split<'a>(data: &'a [u8], delimiter: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let ends = delimiter == b"\n";
    let mut rest = Some(data).filter(|data| !(ends && data.is_empty()));
    std::iter::from_fn(move || {
        let data = rest.take()?;
        let found = memmem::find(data, delimiter).filter(|_| !delimiter.is_empty());
        let Some(at) = found else { return Some(data) };
        rest = data.get(at.saturating_add(delimiter.len())..);
        rest = rest.filter(|rest| !(ends && rest.is_empty()));
        data.get(..at)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(data: &[u8], delimiter: &[u8]) -> Vec<Vec<u8>> {
        split(data, delimiter).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn a_newline_ends_a_line() {
        assert_eq!(lines(b"a\n\nb\r\n", b"\n"), [&b"a"[..], b"", b"b\r"]);
        assert_eq!(lines(b"a\nb", b"\n"), [b"a", b"b"]);
        assert!(lines(b"", b"\n").is_empty());
        assert_eq!(lines(b"\n", b"\n"), [b""]);
    }

    #[test]
    fn another_delimiter_stands_between_two_lines() {
        assert_eq!(lines(b"a#-#b", b"#-#"), [b"a", b"b"]);
        assert_eq!(lines(b"#", b"#"), [b"", b""]);
        assert_eq!(lines(b"", b"#"), [b""]);
    }

    #[test]
    fn a_line_that_would_be_found_torn_may_not_be_followed() {
        let delimiter = Delimiter::new(b"#-#");
        assert!(delimiter.may_follow(b"a#"));
        assert!(delimiter.may_follow(b""));
        assert!(!delimiter.may_follow(b"a#-#b"));
        assert!(!delimiter.may_follow(b"a#-"), "a#- + #-# is found one byte early");
        assert!(Delimiter::new(b"#").may_follow(b"a-"));
        assert!(!Delimiter::new(b"##").may_follow(b"a#"));
    }

    proptest! {
        #[test]
        fn split_gives_back_what_was_joined(
            lines_in in prop::collection::vec("[#a-]{0,6}", 1..8),
            delimiter in "[#-]{1,4}",
        ) {
            let delimiter = Delimiter::new(delimiter.as_bytes());
            let mut lines_in: Vec<_> = lines_in.into_iter().map(String::into_bytes).collect();
            lines_in.retain(|line| delimiter.may_follow(line));
            lines_in.push(b"b".to_vec());
            let data = lines_in.join(delimiter.as_bytes());
            prop_assert_eq!(lines(&data, delimiter.as_bytes()), lines_in);
        }
    }
}
