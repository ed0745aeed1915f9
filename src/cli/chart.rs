//! Bars of text.
//!
//! Invariant: whatever is not nothing can be seen.

/// Returns a bar of `width` cells, filled by eighths of a cell; whatever is not nothing can be
/// seen.
pub(crate) fn bar(number: u64, most: u64, width: u64, empty: char) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let whole = width.saturating_mul(8);
    let eighths = number.saturating_mul(whole).checked_div(most).unwrap_or(0).min(whole);
    let eighths = eighths.max(u64::from(number > 0));
    let cells = |number: u64| usize::try_from(number).unwrap_or_default();
    let mut bar = "█".repeat(cells(eighths / 8));
    bar.push_str(EIGHTHS.get(cells(eighths % 8)).copied().unwrap_or_default());
    let used = bar.chars().count();
    bar.extend(std::iter::repeat_n(empty, cells(width).saturating_sub(used)));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_whatever_is_not_nothing() {
        assert_eq!(bar(0, 100, 4, ' '), "    ");
        assert_eq!(bar(1, 1_000_000, 4, ' '), "▏   ");
        assert_eq!(bar(50, 100, 4, '░'), "██░░");
        assert_eq!(bar(100, 100, 4, ' '), "████");
        assert_eq!(bar(5, 0, 4, ' '), "▏   ");
    }
}
