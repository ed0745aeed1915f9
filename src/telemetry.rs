//! Telemetry: where log events go, and how often one cause may be told.
//!
//! Invariant: logs go to standard error only, so that standard output stays what a command answers;
//! they are text with colours for a person at a terminal, JSON lines for a machine.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that sets the level: a level, or directives such as
/// `kinetail::produce=debug`.
pub const LEVEL_VARIABLE: &str = "KINETAIL_LOG";

/// Everything but kinetail itself stays at `warn`: the SDK tells every request at `debug`.
const OTHERS: &str = "warn";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// How a log event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// A line for people.
    Text,
}

impl Format {
    /// Returns the format for standard error as it is: text on a terminal, else JSON.
    #[must_use]
    pub fn detect() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Sends log events to standard error from now on. A second call changes nothing.
///
/// # Errors
/// The part of `level` or of [`LEVEL_VARIABLE`] that is no directive.
pub fn start(format: Format, level: Option<&str>) -> Result<(), ParseError> {
    let variable = std::env::var(LEVEL_VARIABLE).ok();
    let filter: Targets = directives(level, variable.as_deref()).parse()?;
    // The filter decides, not the level that the formatter would stop at by itself.
    let events =
        tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(io::stderr);
    let started = match format {
        Format::Json => {
            // The span names the flow. Of spans within spans the innermost says enough.
            let events = events.json().flatten_event(true);
            let events = events.with_current_span(true).with_span_list(false).finish();
            events.with(filter).try_init().is_ok()
        }
        Format::Text => {
            let events = events.with_target(false).with_ansi(colours()).finish();
            events.with(filter).try_init().is_ok()
        }
    };
    if !started {
        tracing::debug!("log events already go elsewhere");
    }
    Ok(())
}

/// Returns whether standard error may be coloured: a terminal, and `NO_COLOR` unset or empty.
#[must_use]
pub fn colours() -> bool {
    io::stderr().is_terminal() && allows_colour(std::env::var_os("NO_COLOR").as_deref())
}

/// Returns whether a `NO_COLOR` of this value allows colour (<https://no-color.org>).
#[must_use]
pub fn allows_colour(no_color: Option<&std::ffi::OsStr>) -> bool {
    no_color.is_none_or(std::ffi::OsStr::is_empty)
}

/// Returns the filter: a level given on the command line wins over the variable; a bare level
/// is meant for kinetail, not for the libraries under it.
fn directives(level: Option<&str>, variable: Option<&str>) -> String {
    let asked = level.or(variable).map(str::trim).filter(|asked| !asked.is_empty());
    match asked {
        None => format!("{OTHERS},kinetail=info"),
        Some(asked) if LEVELS.contains(&asked.to_ascii_lowercase().as_str()) => {
            format!("{OTHERS},kinetail={asked}")
        }
        Some(asked) => format!("{OTHERS},kinetail=info,{asked}"),
    }
}

/// Lets one event a cause through in an interval, and counts the others.
///
/// ```text
/// ask:      x   x  x   x    x        x
/// answer:   0   –  –   –    – (60 s) 4      the event to log, with what was suppressed before it
/// ```
#[derive(Debug)]
pub struct Throttle<Cause> {
    interval: Duration,
    causes: BTreeMap<Cause, Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    suppressed: u64,
}

impl<Cause: Ord> Default for Throttle<Cause> {
    fn default() -> Self {
        Self::new(Self::INTERVAL)
    }
}

impl<Cause: Ord> Throttle<Cause> {
    /// One event a cause in this time: often enough for somebody who starts to look now.
    pub const INTERVAL: Duration = Duration::from_mins(1);

    /// The most causes remembered. Beyond it those whose interval has passed are forgotten, and
    /// where there are none, a new cause is suppressed: memory and log stay bounded.
    pub const CAUSES_MAX: usize = 1024;

    /// Returns a throttle with an interval of its own.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, causes: BTreeMap::new() }
    }

    /// Returns how many events of `cause` were suppressed since the last one that was let through,
    /// where this one is to be let through; `None` where it is to be suppressed.
    pub fn admit(&mut self, cause: Cause, now: Instant) -> Option<u64> {
        if let Some(told) = self.causes.get_mut(&cause) {
            if now.saturating_duration_since(told.at) < self.interval {
                told.suppressed = told.suppressed.saturating_add(1);
                return None;
            }
            told.at = now;
            return Some(std::mem::take(&mut told.suppressed));
        }
        if self.causes.len() >= Self::CAUSES_MAX {
            let interval = self.interval;
            self.causes.retain(|_, told| now.saturating_duration_since(told.at) < interval);
        }
        if self.causes.len() >= Self::CAUSES_MAX {
            return None;
        }
        self.causes.insert(cause, Told { at: now, suppressed: 0 });
        Some(0)
    }

    /// Forgets `cause`: what it told of is over, and the next time is news again.
    pub fn forget(&mut self, cause: &Cause) {
        self.causes.remove(cause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_variable() {
        assert_eq!(directives(Some("debug"), Some("trace")), "warn,kinetail=debug");
        assert_eq!(directives(None, Some("trace")), "warn,kinetail=trace");
        assert_eq!(directives(None, None), "warn,kinetail=info");
        assert_eq!(directives(None, Some(" ")), "warn,kinetail=info");
    }

    #[test]
    fn a_directive_adds_to_what_is_told_anyway() {
        assert_eq!(
            directives(None, Some("aws_config=debug")),
            "warn,kinetail=info,aws_config=debug"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(directives(Some("kinetail=loud"), None).parse::<Targets>().is_err());
    }

    #[test]
    fn an_empty_no_color_allows_colour() {
        assert!(allows_colour(None));
        assert!(allows_colour(Some("".as_ref())));
        assert!(!allows_colour(Some("1".as_ref())));
    }

    #[test]
    fn a_cause_is_told_once_a_minute_with_what_was_suppressed() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(throttle.admit("a", at(0)), Some(0));
        assert_eq!(throttle.admit("a", at(1)), None);
        assert_eq!(throttle.admit("a", at(59)), None);
        assert_eq!(throttle.admit("b", at(59)), Some(0));
        assert_eq!(throttle.admit("a", at(60)), Some(2));
        assert_eq!(throttle.admit("a", at(61)), None);
    }

    #[test]
    fn a_cause_that_is_over_is_news_again() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit("a", now), Some(0));
        throttle.forget(&"a");
        assert_eq!(throttle.admit("a", now), Some(0));
    }

    #[test]
    fn causes_are_bounded_and_old_ones_make_room() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        for cause in 0..Throttle::<usize>::CAUSES_MAX {
            assert_eq!(throttle.admit(cause, now), Some(0));
        }
        assert_eq!(throttle.admit(usize::MAX, now), None);
        let later = now + Throttle::<usize>::INTERVAL;
        assert_eq!(throttle.admit(usize::MAX, later), Some(0));
        assert_eq!(throttle.causes.len(), 1);
    }
}
