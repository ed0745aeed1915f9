//! The window: how many calls may be in flight, by what the stream takes.
//!
//! Invariant: at least one call, at most the configured number; a whole window of calls that go
//! well adds one, one that does not go well halves it (additive increase, multiplicative decrease).

/// One place in the window, so that shares of a place can be counted without fractions.
const PLACE: u64 = 1024;

/// The calls allowed in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    width: u64,
    limit: u64,
}

impl Window {
    /// Returns a window of `limit` places (at least one), all open: the limit is small and what is
    /// too much shows in the first answers.
    pub(super) fn new(limit: usize) -> Self {
        let limit = (limit.max(1) as u64).saturating_mul(PLACE);
        Self { width: limit, limit }
    }

    /// Returns how many calls may be in flight.
    pub(super) fn places(&self) -> usize {
        usize::try_from(self.width / PLACE).unwrap_or(usize::MAX).max(1)
    }

    /// A call went well.
    pub(super) fn grow(&mut self) {
        let share = PLACE.saturating_mul(PLACE) / self.width.max(1);
        self.width = self.width.saturating_add(share).min(self.limit);
    }

    /// `refused` of `entries` were refused for throughput: all of them halve the window, fewer
    /// take their share of that.
    pub(super) fn shrink(&mut self, refused: usize, entries: usize) {
        let entries = (entries.max(1) as u64).saturating_mul(2);
        let cut = self.width.saturating_mul(refused as u64) / entries;
        self.width = self.width.saturating_sub(cut).max(PLACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_halves_it_and_it_never_falls_below_one() {
        let mut window = Window::new(8);
        let places: Vec<_> = (0..5)
            .map(|_| {
                window.shrink(1, 1);
                window.places()
            })
            .collect();
        assert_eq!(places, [4, 2, 1, 1, 1]);
    }

    #[test]
    fn a_window_of_successes_adds_one_up_to_the_limit() {
        let mut window = Window::new(3);
        window.shrink(1, 1);
        window.shrink(1, 1);
        assert_eq!(window.places(), 1);
        window.grow();
        assert_eq!(window.places(), 2);
        for _ in 0..3 {
            window.grow();
        }
        assert_eq!(window.places(), 3);
        for _ in 0..100 {
            window.grow();
        }
        assert_eq!(window.places(), 3);
    }

    #[test]
    fn a_partial_refusal_takes_its_share() {
        let mut window = Window::new(4);
        window.shrink(100, 400);
        assert_eq!(window.width, 4 * PLACE - PLACE / 2);
        assert_eq!(window.places(), 3);
    }
}
