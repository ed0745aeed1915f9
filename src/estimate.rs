//! Estimating: what lines would cost, merged in several ways.
//!
//! Invariant: every figure comes from records that the real merge made of real lines at the
//! pace of a rate; nothing is extrapolated but the month.
//!
//! ```text
//!  files ─▶ Sample ─▶ Replay: lines arrive at a rate ─▶ Merger ─▶ Measured ─▶ cost
//!           whole lines          (simulated time)       one a way
//! ```

mod replay;
pub mod sample;

use std::time::Duration;

pub use replay::{Measured, replay};

use crate::config::{Compression, Format, Merge, Produce, defaults};

/// One way to merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// What it is called.
    pub name: &'static str,
    /// How lines become records.
    pub merge: Merge,
}

/// The name of the way that a configuration asks for.
pub const CONFIGURED: &str = "as configured";

/// Returns the ways that a flow's lines can be merged in, from a line a record on; with `configured`,
/// also the flow's own.
#[must_use]
pub fn ways(flow: &Produce, configured: bool) -> Vec<Way> {
    let own = &flow.merge;
    let full = Merge { max_age: own.max_age, ..Merge::default() };
    let compressed = |by| Merge { compression: Some(by), ..full.clone() };
    let delimited = match &own.format {
        Format::Lines { .. } => own.format.clone(),
        _ => Format::default(),
    };
    let mut ways = vec![
        Way { name: "a line a record", merge: Merge { format: Format::None, ..full.clone() } },
        Way {
            name: "10 lines",
            merge: Merge { format: delimited, max_lines: Some(10), ..full.clone() },
        },
        Way { name: "25 KB", merge: full.clone() },
        Way { name: "25 KB + gzip", merge: compressed(Compression::Gzip(defaults::GZIP_LEVEL)) },
        Way { name: "25 KB + zstd", merge: compressed(Compression::Zstd(defaults::ZSTD_LEVEL)) },
        Way { name: "25 KB, kpl", merge: Merge { format: Format::Kpl, ..full } },
    ];
    if configured {
        ways.push(Way { name: CONFIGURED, merge: own.clone() });
    }
    ways
}

/// How fast lines come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Bytes a second.
    Bytes(f64),
    /// Lines a second.
    Lines(f64),
}

impl Rate {
    /// Returns in what time `bytes` come, which hold `lines` lines.
    #[must_use]
    pub fn time(self, bytes: u64, lines: u64) -> Duration {
        let seconds = match self {
            Self::Bytes(rate) => crate::cost::approximate(bytes) / rate,
            Self::Lines(rate) => crate::cost::approximate(lines) / rate,
        };
        // A rate of next to nothing is no time that a month has room for.
        Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST)
    }
}

/// The longest time that a sample is spread over: a century.
const LONGEST: Duration = Duration::from_hours(24 * 36_525);

#[cfg(test)]
mod tests;
