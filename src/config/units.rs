//! Sizes and durations as people write them: `25 KB`, `1 MiB`, `250 ms`, `1 h`.
//!
//! Invariant: what [`Size`] and [`Period`] display is read back as the same value.
//!
//! Units are case-sensitive. `kb` and `mb` are refused, because half the world reads them as bits
//! or as powers of 1024, and a limit that is read two ways is no limit.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// One size unit: its name and its bytes. Of two that fit equally well, the first is shown.
const SIZES: [(&str, u64); 8] = [
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("KB", 1_000),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// One duration unit: its name and its milliseconds. Of two that are equal, the first is shown.
const PERIODS: [(&str, u64); 6] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a size or a duration cannot be read. Displays what is wrong as the end of a sentence.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UnitError {
    /// Digits are missing, or are not whole.
    #[error("is not a whole number with a unit")]
    NotANumber,
    /// A number without a unit, where one is needed.
    #[error("has no unit")]
    NoUnit,
    /// More than a `u64` counts.
    #[error("is too large")]
    TooLarge,
    /// A unit nobody knows.
    #[error("has an unknown unit")]
    UnknownUnit,
}

/// Reads a size in bytes: `25 KB`, `1 MiB`, or plain digits. The space may be left out.
///
/// # Errors
/// Where it is no whole number, or the unit is none of B, kB, KB, MB, GB, KiB, MiB, GiB.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)?;
    let bytes = if unit.is_empty() { 1 } else { find(&SIZES, unit)? };
    number.checked_mul(bytes).ok_or(UnitError::TooLarge)
}

/// Reads a duration: `250 ms`, `1 s`, `5 min` (or `5 m`), `1 h`, `2 d`, or `0`. The space may be
/// left out.
///
/// # Errors
/// Where it is no whole number, has no unit (other than `0`), or the unit is none of these.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return if number == 0 { Ok(Duration::ZERO) } else { Err(UnitError::NoUnit) };
    }
    let millis = number.checked_mul(find(&PERIODS, unit)?).ok_or(UnitError::TooLarge)?;
    Ok(Duration::from_millis(millis))
}

/// Parts leading digits from the unit behind them.
fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() || rest.starts_with(['.', ',', '_']) {
        return Err(UnitError::NotANumber);
    }
    let number = digits.parse().map_err(|_| UnitError::TooLarge)?;
    Ok((number, rest.trim_start()))
}

/// Returns what one `unit` counts.
fn find(units: &[(&str, u64)], unit: &str) -> Result<u64, UnitError> {
    let found = units.iter().find(|(name, _)| *name == unit);
    found.map(|(_, worth)| *worth).ok_or(UnitError::UnknownUnit)
}

/// Writes `value` in the unit that needs the fewest digits and loses nothing.
fn write_shortest(
    formatter: &mut fmt::Formatter<'_>,
    value: u64,
    units: &[(&str, u64)],
) -> fmt::Result {
    let exact = units.iter().filter(|(_, worth)| value.is_multiple_of(*worth));
    match exact.min_by_key(|(_, worth)| value / worth) {
        Some((unit, worth)) => write!(formatter, "{} {unit}", value / worth),
        None => write!(formatter, "{value}"),
    }
}

/// A size in bytes that displays as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return formatter.write_str("0 B");
        }
        write_shortest(formatter, self.0, &SIZES)
    }
}

/// A duration that displays as people write it, cut to whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl fmt::Display for Period {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return formatter.write_str("0");
        }
        write_shortest(formatter, millis, &PERIODS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_written() {
        for (text, bytes) in [
            ("25 KB", 25_000),
            ("25 kB", 25_000),
            ("25KB", 25_000),
            ("1 MiB", 1_048_576),
            ("10 MB", 10_000_000),
            ("512 KiB", 524_288),
            ("1 GiB", 1_073_741_824),
            ("1 GB", 1_000_000_000),
            ("100 B", 100),
            (" 7 ", 7),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_can_be_read_two_ways_are_refused() {
        for (text, error) in [
            ("25 kb", UnitError::UnknownUnit),
            ("25 mb", UnitError::UnknownUnit),
            ("25 K", UnitError::UnknownUnit),
            ("1.5 MB", UnitError::NotANumber),
            ("1,000", UnitError::NotANumber),
            ("-1 KB", UnitError::NotANumber),
            ("KB", UnitError::NotANumber),
            ("", UnitError::NotANumber),
            ("99999999999 GiB", UnitError::TooLarge),
            ("99999999999999999999", UnitError::TooLarge),
        ] {
            assert_eq!(parse_size(text), Err(error), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_written() {
        for (text, millis) in [
            ("250 ms", 250),
            ("1 s", 1_000),
            ("1s", 1_000),
            ("5 m", 300_000),
            ("5 min", 300_000),
            ("1 h", 3_600_000),
            ("2 d", 172_800_000),
            ("0", 0),
            ("0 s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_no_duration() {
        assert_eq!(parse_duration("10"), Err(UnitError::NoUnit));
        assert_eq!(parse_duration("10 sec"), Err(UnitError::UnknownUnit));
        assert_eq!(parse_duration("0.5 s"), Err(UnitError::NotANumber));
        assert_eq!(parse_duration("soon"), Err(UnitError::NotANumber));
    }

    #[test]
    fn values_are_shown_in_their_shortest_unit() {
        let sizes = [25_000, 1 << 20, 8 << 20, 1_000_000, 25_001, 1_024_000, 0];
        let shown: Vec<String> = sizes.iter().map(|bytes| Size(*bytes).to_string()).collect();
        assert_eq!(shown, ["25 KB", "1 MiB", "8 MiB", "1 MB", "25001 B", "1000 KiB", "0 B"]);
        let periods = [250, 1_000, 60_000, 90_000, 86_400_000, 0];
        let shown: Vec<String> =
            periods.iter().map(|ms| Period(Duration::from_millis(*ms)).to_string()).collect();
        assert_eq!(shown, ["250 ms", "1 s", "1 min", "90 s", "1 d", "0"]);
    }

    proptest! {
        /// forall sizes: what is displayed is read back as the same size.
        #[test]
        fn a_displayed_size_reads_back(number in any::<u64>(), scale in 0_u32..40) {
            let bytes = number >> scale << (scale / 2);
            prop_assert_eq!(parse_size(&Size(bytes).to_string()), Ok(bytes));
        }

        /// forall whole milliseconds: what is displayed is read back as the same duration.
        #[test]
        fn a_displayed_duration_reads_back(
            number in 0_u64..100_000,
            unit in prop::sample::select(vec![1_u64, 10, 1_000, 60_000, 3_600_000]),
        ) {
            let duration = Duration::from_millis(number * unit);
            prop_assert_eq!(parse_duration(&Period(duration).to_string()), Ok(duration));
        }

        /// forall text: reading ends in an answer.
        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            let _ = (parse_size(&text), parse_duration(&text));
        }
    }
}
