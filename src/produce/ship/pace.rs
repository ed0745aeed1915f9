//! The pace of a whole flow: when the next call may go out, and what is wrong when it may not.
//!
//! ```text
//!            a call fails as a whole, or
//!            13 in a row lead to no acceptance
//!   Open ─────────────────────────────────────▶ Probing { failures, until } ─┐ fails again:
//!    ▲  as many calls as the window has places      one call at a time       │ failures + 1
//!    └───────────────────────────────────────────────────┘ ◀─────────────────┘
//!                 a call is answered
//! ```
//!
//! Invariant: while `Probing`, at most one call is in flight and none starts before `until`.

use std::time::Instant;

use fastrand::Rng;

use super::backoff::Backoff;
use super::window::Window;
use crate::config;
use crate::stream::Trouble;

/// So many calls in a row without a single acceptance are still taken for bad luck of theirs. The
/// road to one poisoned record among 500 is ten refusals long (⌈log₂ 500⌉ + 1), so fewer would
/// mistake one bad record for a bad stream.
const FRUITLESS_MAX: u32 = 12;

/// So many failures in a row are no problem to tell of: lost answers and throttled calls are daily bread.
const QUIET_FAILURES: u32 = 2;

/// Why a call failed as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    /// No answer.
    Unknown,
    /// Throttled.
    Throttled,
    /// Somebody must mend something.
    Unavailable(Trouble),
}

/// A moment in the life of the pace. A call that fails is news only where it was sent after the
/// last news: calls sent side by side fail side by side, and that is one event, not four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch(u64);

/// When calls may go out.
#[derive(Debug)]
pub(super) struct Pace {
    backoff: Backoff,
    window: Window,
    epoch: Epoch,
    failures: u32,
    until: Option<Instant>,
    fruitless: u32,
    problem: Option<String>,
}

impl Pace {
    /// Returns the pace at the start: open.
    pub(super) fn new(limits: &config::Ship) -> Self {
        Self {
            backoff: Backoff::new(limits.backoff_max),
            window: Window::new(limits.in_flight),
            epoch: Epoch(0),
            failures: 0,
            until: None,
            fruitless: 0,
            problem: None,
        }
    }

    /// Returns when a call may go out (at once: `now`), or `None` where a call in flight must end first.
    pub(super) fn opens_at(&self, now: Instant, in_flight: usize) -> Option<Instant> {
        let places = if self.failures > 0 { 1 } else { self.window.places() };
        (in_flight < places).then(|| self.until.map_or(now, |until| until.max(now)))
    }

    /// Returns the moment to mark a call with that goes out now.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns how many calls may be in flight.
    pub(super) fn places(&self) -> usize {
        if self.failures > 0 { 1 } else { self.window.places() }
    }

    /// Returns what is wrong, in one sentence.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Returns true while so many calls in a row came to nothing that no single record can be blamed.
    pub(super) fn doubts_the_stream(&self) -> bool {
        self.fruitless > FRUITLESS_MAX
    }

    /// An answer in which records were accepted, and `throttled` of `entries` refused for throughput.
    pub(super) fn on_progress(&mut self, epoch: Epoch, throttled: usize, entries: usize) {
        self.fruitless = 0;
        self.recover();
        if throttled == 0 {
            self.window.grow();
        } else if epoch == self.epoch {
            self.window.shrink(throttled, entries);
            self.epoch = Epoch(self.epoch.0.saturating_add(1));
        }
    }

    /// An answer, or a refusal for what the call held, by which nothing was accepted.
    pub(super) fn on_fruitless(&mut self, now: Instant, epoch: Epoch, words: &str, rng: &mut Rng) {
        self.fruitless = self.fruitless.saturating_add(1);
        if self.doubts_the_stream() {
            self.back_off(now, epoch, rng);
            self.problem = Some(format!("the stream accepts no record: {words}"));
        } else {
            self.recover();
        }
    }

    /// A call that failed as a whole.
    pub(super) fn on_failure(
        &mut self,
        now: Instant,
        epoch: Epoch,
        failure: Failure,
        words: &str,
        rng: &mut Rng,
    ) {
        self.back_off(now, epoch, rng);
        match failure {
            Failure::Unavailable(trouble) => self.problem = Some(describe(trouble, words)),
            Failure::Unknown if self.failures > QUIET_FAILURES => {
                self.problem = Some(format!("no answer from the stream: {words}"));
            }
            Failure::Throttled if self.failures > QUIET_FAILURES => {
                self.problem = Some(format!("every call is throttled: {words}"));
            }
            Failure::Unknown | Failure::Throttled => {}
        }
    }

    fn back_off(&mut self, now: Instant, epoch: Epoch, rng: &mut Rng) {
        if epoch != self.epoch {
            return;
        }
        self.epoch = Epoch(self.epoch.0.saturating_add(1));
        self.window.shrink(1, 1);
        self.failures = self.failures.saturating_add(1);
        self.until = now.checked_add(self.backoff.probing(self.failures, rng));
    }

    fn recover(&mut self) {
        self.failures = 0;
        self.until = None;
        self.problem = None;
    }
}

fn describe(trouble: Trouble, words: &str) -> String {
    match trouble {
        Trouble::Access => format!("the stream refuses access: {words}"),
        Trouble::Credentials => format!("no valid credentials (or a wrong clock): {words}"),
        Trouble::Format => format!("the stream does not take this format: {words}"),
        Trouble::Key => format!("the KMS key of the stream cannot be used: {words}"),
        Trouble::Missing => format!("the stream does not exist or is not active: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pace() -> Pace {
        Pace::new(&config::Ship {
            request_records: 500,
            request_bytes: 1_000_000,
            joined_bytes: 0,
            in_flight: 4,
            timeout: Duration::from_secs(30),
            backoff_max: Duration::from_secs(10),
        })
    }

    #[test]
    fn calls_that_fail_side_by_side_are_one_failure() {
        let (mut pace, mut rng, now) = (pace(), Rng::with_seed(1), Instant::now());
        let epoch = pace.epoch();
        for _ in 0..4 {
            pace.on_failure(now, epoch, Failure::Unknown, "cut", &mut rng);
        }
        assert_eq!(pace.failures, 1);
        assert_eq!(pace.window.places(), 2);
        assert_eq!(pace.problem(), None, "a single lost answer is no problem");
    }

    #[test]
    fn while_failing_one_call_at_a_time_goes_out_after_the_pause() {
        let (mut pace, mut rng, now) = (pace(), Rng::with_seed(1), Instant::now());
        for _ in 0..8 {
            let epoch = pace.epoch();
            pace.on_failure(now, epoch, Failure::Throttled, "slow down", &mut rng);
        }
        assert_eq!(pace.opens_at(now, 1), None);
        assert_eq!(pace.opens_at(now, 0), Some(now + Duration::from_secs(10)));
        assert_eq!(pace.problem(), Some("every call is throttled: slow down"));
        pace.on_progress(pace.epoch(), 0, 1);
        assert_eq!(pace.opens_at(now, 0), Some(now));
        assert_eq!(pace.problem(), None);
    }

    #[test]
    fn trouble_is_told_at_once_and_a_change_of_it_too() {
        let (mut pace, mut rng, now) = (pace(), Rng::with_seed(1), Instant::now());
        let failure = Failure::Unavailable(Trouble::Access);
        pace.on_failure(now, pace.epoch(), failure, "not authorized", &mut rng);
        assert_eq!(pace.problem(), Some("the stream refuses access: not authorized"));
        let failure = Failure::Unavailable(Trouble::Missing);
        pace.on_failure(now, pace.epoch(), failure, "no such stream", &mut rng);
        let told = "the stream does not exist or is not active: no such stream";
        assert_eq!(pace.problem(), Some(told));
    }

    #[test]
    fn many_calls_without_any_acceptance_slow_the_flow_down() {
        let (mut pace, mut rng, now) = (pace(), Rng::with_seed(1), Instant::now());
        for _ in 0..FRUITLESS_MAX {
            pace.on_fruitless(now, pace.epoch(), "bad", &mut rng);
            assert!(!pace.doubts_the_stream());
        }
        pace.on_fruitless(now, pace.epoch(), "bad", &mut rng);
        assert!(pace.doubts_the_stream());
        assert_eq!(pace.opens_at(now, 1), None);
        pace.on_progress(pace.epoch(), 0, 1);
        assert!(!pace.doubts_the_stream());
    }

    #[test]
    fn partial_throttling_shrinks_the_window_once_for_what_was_in_flight() {
        let (mut pace, epoch) = (pace(), Epoch(0));
        for _ in 0..4 {
            pace.on_progress(epoch, 50, 100);
        }
        assert_eq!(pace.places(), 3);
    }
}
