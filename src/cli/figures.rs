//! Figures as people read them: digits in groups, sizes with their unit, durations, dollars.
//!
//! Invariant: nothing is rounded up to a better-looking figure: "100 %" is all of it.

use std::time::Duration;

use crate::cost::approximate;

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// Returns `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len().saturating_add(digits.len() / 3));
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && digits.len().saturating_sub(index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Returns `1 record`, `1,234 records`.
pub(crate) fn many(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// Returns `999 B`, `1.2 KiB`, `34.5 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = approximate(number);
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"B");
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 {
        let Some(next) = units.next() else { break };
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// Returns `45 s`, `3 min 20 s`, `5 h 03 min`, `2 d 4 h`.
pub(crate) fn seconds(number: u64) -> String {
    let (minutes, hours, days) = (number / 60, number / 3600, number / 86_400);
    match number {
        0..60 => format!("{number} s"),
        60..3600 => format!("{minutes} min {:02} s", number % 60),
        3600..86_400 => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Returns `0.84 s` below ten seconds, else as [`seconds`].
pub(crate) fn duration(duration: Duration) -> String {
    if duration < Duration::from_secs(10) {
        return format!("{:.2} s", duration.as_secs_f64());
    }
    seconds(duration.as_secs())
}

/// Returns a share of 1 as `98.7 %`, rounded down.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}

/// Returns `$ 1,234`, `$ 12.34`, `$ 0.0042`, `$ 0.0000034`: cents where they matter, two digits where they are all
/// there is.
pub(crate) fn dollars(amount: f64) -> String {
    if (1e-9..0.000_95).contains(&amount) {
        let first = (4_u8..9).find(|&place| amount * 10_f64.powi(i32::from(place)) >= 0.95);
        return format!("$ {amount:.*}", usize::from(first.unwrap_or(9)).saturating_add(1));
    }
    if amount < 0.095 {
        return format!("$ {amount:.4}");
    }
    if amount < 1000.0 {
        return format!("$ {amount:.2}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive price")]
    let whole = amount.round() as u64;
    format!("$ {}", count(whole))
}

/// Returns `number` a second over `time`, 0 where there was none.
pub(crate) fn rate(number: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    number.saturating_mul(1000).checked_div(millis).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_groups_of_three() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"].map(str::to_owned)
        );
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2_000].map(|n| many(n, "call")), ["0 calls", "1 call", "2,000 calls"]);
    }

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        let sizes = [0, 1023, 1024, 1536, 1_048_575, 1_048_576, 5 << 30, u64::MAX];
        assert_eq!(
            sizes.map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "5.0 GiB", "16384.0 PiB"]
                .map(str::to_owned)
        );
    }

    #[test]
    fn durations_have_two_units_at_most() {
        assert_eq!(
            [0, 59, 60, 3599, 3600, 86_399, 90_000].map(seconds),
            ["0 s", "59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "23 h 59 min", "1 d 1 h"]
                .map(str::to_owned)
        );
        assert_eq!(duration(Duration::from_millis(1_234)), "1.23 s");
        assert_eq!(duration(Duration::from_secs(12)), "12 s");
    }

    #[test]
    fn only_all_of_it_is_a_hundred_percent() {
        assert_eq!(percent(0.999_99), "99.9 %");
        assert_eq!(percent(1.0), "100.0 %");
    }

    #[test]
    fn dollars_have_the_digits_that_matter() {
        assert_eq!(
            [0.094, 0.1, 12.345, 999.0, 12_345.6].map(dollars),
            ["$ 0.0940", "$ 0.10", "$ 12.35", "$ 999.00", "$ 12,346"].map(str::to_owned)
        );
        assert_eq!(
            [0.0, 1e-15, 0.000_003_388, 0.000_099_6, 0.000_42, 0.000_96, 0.0042].map(dollars),
            [
                "$ 0.0000",
                "$ 0.0000",
                "$ 0.0000034",
                "$ 0.00010",
                "$ 0.00042",
                "$ 0.0010",
                "$ 0.0042"
            ]
            .map(str::to_owned)
        );
    }

    #[test]
    fn a_rate_over_no_time_is_nothing() {
        assert_eq!(rate(10, Duration::ZERO), 0);
        assert_eq!(rate(3_000, Duration::from_millis(1_500)), 2_000);
    }
}
