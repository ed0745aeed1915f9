//! How much is tried: a fixed number in `cargo test`, as much as fits a given time under `tests/soak`.
//!
//! Invariant: what is tried follows from the seed that is printed; the time decides only how many.

use std::time::{Duration, Instant};

/// The environment variables that `tests/soak` sets.
const SECONDS: &str = "KINETAIL_SOAK_SECONDS";
const SEED: &str = "KINETAIL_SOAK_SEED";

/// Returns the numbers of the tries, from 0: `count` of them, or as many as begin within the time.
pub(crate) fn tries(count: u64) -> impl Iterator<Item = u64> {
    let end = variable(SECONDS).map(|seconds| Instant::now() + Duration::from_secs(seconds));
    (0..).take_while(move |tried| end.map_or(*tried < count, |end| Instant::now() < end))
}

/// Returns the seed: `usual`, or one that follows from it and the seed of the soak.
pub(crate) fn seed(usual: u64) -> u64 {
    variable(SEED).map_or(usual, |seed| usual ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// Returns the number that an environment variable holds, where it is set.
pub(crate) fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
