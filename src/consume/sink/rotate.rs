//! Rotation of appended files: when, and what the old one is called.
//!
//! Invariant: a file is rotated only where all of it is committed.

use std::time::Duration;

use time::OffsetDateTime;

use crate::checkpoint::OutputRow;
use crate::config::Rotate;
use crate::record::compression::Algorithm;

/// Returns true where a file has reached one of the bounds at `now`, in seconds since 1970.
pub(super) fn is_due(rotate: &Rotate, output: &OutputRow, now: u64) -> bool {
    let age = Duration::from_secs(now.saturating_sub(output.begun));
    let is_large = rotate.max_bytes.is_some_and(|most| output.length >= most);
    let is_old = rotate.max_age.is_some_and(|most| age >= most);
    // A line without its end is still to be continued.
    output.length > 0 && output.open_end.is_none() && (is_large || is_old)
}

/// Returns the suffix of a file that is rotated at `now`: `.YYYYMMDD-HHMMSS` in UTC.
pub(super) fn suffix(now: u64) -> String {
    let at = i64::try_from(now).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        ".{:04}{:02}{:02}-{:02}{:02}{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// Returns the suffix of compressed files.
pub(super) fn compressed(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Gzip => ".gz",
        Algorithm::Zstd => ".zst",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_due_by_size_or_by_age_and_never_while_a_line_is_open() {
        let rotate = Rotate {
            max_bytes: Some(100),
            max_age: Some(Duration::from_hours(1)),
            compression: None,
        };
        let output = |length, begun| OutputRow { length, begun, ..OutputRow::default() };
        assert!(!is_due(&rotate, &output(99, 1000), 1000));
        assert!(is_due(&rotate, &output(100, 1000), 1000));
        assert!(is_due(&rotate, &output(1, 1000), 4600));
        assert!(!is_due(&rotate, &output(0, 1000), 9000));
        assert!(!is_due(&rotate, &output(1, 1000), 500), "a clock that was set back");
        let open = OutputRow { open_end: Some((1, 2)), ..output(1000, 1000) };
        assert!(!is_due(&rotate, &open, 1000));
        assert!(!is_due(&Rotate::default(), &output(u64::MAX, 1), u64::MAX));
    }

    #[test]
    fn rotated_files_are_called_by_their_time() {
        assert_eq!(suffix(1_795_680_305), ".20261126-080505");
    }
}
