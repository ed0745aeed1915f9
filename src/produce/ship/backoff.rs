//! How long to wait before the next try.
//!
//! Invariant: no pause is longer than the cap, and the bound of the pause doubles with every failure
//! in a row: 100 ms, 200 ms, 400 ms … cap.

use std::time::Duration;

use fastrand::Rng;

/// The bound of the first pause. A shard's budget is counted by the second (1 MB, 1,000 records): a
/// tenth of that is the shortest time in which a worthwhile share of it has come back, and about
/// what a call itself takes.
const BASE: Duration = Duration::from_millis(100);

/// Exponential pauses with full jitter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    cap: Duration,
}

impl Backoff {
    /// Returns pauses of at most `cap`.
    pub(super) fn new(cap: Duration) -> Self {
        Self { cap }
    }

    /// Returns a pause after `failures` in a row, drawn evenly from 0 to the bound ("full jitter":
    /// of the known kinds it brings the least work where many wait for one thing).
    pub(super) fn jittered(self, failures: u32, rng: &mut Rng) -> Duration {
        let bound = u64::try_from(self.bound(failures).as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(rng.u64(0..=bound))
    }

    /// Returns the pause before the next probe of a stream that fails as a whole: jittered on the
    /// way up, which spreads a fleet over seconds; at the cap the cap itself, so that a dead
    /// endpoint sees exactly one call in that time and a healed one is found within it.
    pub(super) fn probing(self, failures: u32, rng: &mut Rng) -> Duration {
        if self.bound(failures) < self.cap { self.jittered(failures, rng) } else { self.cap }
    }

    fn bound(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1);
        BASE.saturating_mul(2_u32.saturating_pow(doublings)).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_cap() {
        let backoff = Backoff::new(Duration::from_secs(1));
        let bounds: Vec<_> = (0..7).map(|n| backoff.bound(n).as_millis()).collect();
        assert_eq!(bounds, [100, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.bound(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn jitter_uses_the_whole_range() {
        let backoff = Backoff::new(Duration::from_secs(10));
        let mut rng = Rng::with_seed(1);
        let pauses: Vec<_> = (0..1000).map(|_| backoff.jittered(3, &mut rng).as_millis()).collect();
        assert!(pauses.iter().all(|&pause| pause <= 400));
        assert!(pauses.iter().any(|&pause| pause < 40));
        assert!(pauses.iter().any(|&pause| pause > 360));
    }

    #[test]
    fn at_the_cap_a_probe_waits_for_the_cap_itself() {
        let backoff = Backoff::new(Duration::from_secs(10));
        let mut rng = Rng::with_seed(1);
        assert_eq!(backoff.probing(8, &mut rng), Duration::from_secs(10));
        assert!(backoff.probing(2, &mut rng) <= Duration::from_millis(200));
    }
}
