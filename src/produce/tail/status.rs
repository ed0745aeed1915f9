//! How the reading thread is: told by it, shown by `status` and the log.
//!
//! Invariant: one cause is logged at most once a minute, and what is remembered is bounded.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most paths with trouble that are remembered; `status` needs some, not all.
const PATHS_MAX: usize = 64;

/// How long a cause stays quiet after it was logged.
const QUIET: Duration = Duration::from_mins(1);

/// How the reading thread of one flow is.
#[derive(Debug, Default)]
pub struct TailStatus {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Why files are polled.
    degraded: Option<String>,
    /// What could not be read since the last scan but one: the error, and when it was logged.
    trouble: BTreeMap<PathBuf, Trouble>,
    /// Files that came and went before anybody could open them, and when that was logged.
    missed: u64,
    missed_logged: Option<Instant>,
    /// When it was logged that events were lost.
    events_lost_logged: Option<Instant>,
    /// Counts scans, so that trouble which is over is forgotten.
    scans: u64,
}

#[derive(Debug)]
struct Trouble {
    error: String,
    logged_at: Instant,
    scan: u64,
}

impl TailStatus {
    /// A path cannot be read.
    pub fn trouble(&self, path: &Path, error: &io::Error) {
        self.lock().note(path, error);
    }

    /// So many files came, were written, and went before anybody could open them; `path` is one.
    pub fn missed(&self, flow: &str, path: &Path, files: usize) {
        let mut inner = self.lock();
        inner.missed = inner.missed.saturating_add(files as u64);
        let now = Instant::now();
        if is_due(&mut inner.missed_logged, now) {
            tracing::warn!(
                flow, path = %path.display(), missed_files = inner.missed,
                "files came and went before they could be opened: what they held is lost"
            );
        }
    }

    /// More happened than events could tell: everything is looked through, but files that came and went
    /// meanwhile are not counted.
    pub fn events_lost(&self, flow: &str) {
        if is_due(&mut self.lock().events_lost_logged, Instant::now()) {
            tracing::warn!(flow, "events were lost: all files are looked through");
        }
    }

    /// Returns how many files came, were written, and went before anybody could open them.
    #[must_use]
    pub fn missed_files(&self) -> u64 {
        self.lock().missed
    }

    /// A scan was made.
    pub fn scanned(&self, degraded: Option<&str>, problems: &[(PathBuf, io::Error)]) {
        let mut inner = self.lock();
        inner.scans = inner.scans.saturating_add(1);
        if inner.degraded.as_deref() != degraded {
            if let Some(reason) = degraded {
                tracing::warn!(reason, "files are polled");
            } else {
                tracing::info!("files are watched by inotify again");
            }
            inner.degraded = degraded.map(str::to_owned);
        }
        for (path, error) in problems {
            inner.note(path, error);
        }
        let scans = inner.scans;
        inner.trouble.retain(|_, trouble| trouble.scan.saturating_add(1) >= scans);
    }

    /// Returns how changes are noticed: `inotify` or `polling`.
    #[must_use]
    pub fn watching(&self) -> &'static str {
        if self.lock().degraded.is_some() { "polling" } else { "inotify" }
    }

    /// Returns what is wrong just now, in words.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let inner = self.lock();
        let unreadable = inner
            .trouble
            .iter()
            .map(|(path, trouble)| format!("cannot read {}: {}", path.display(), trouble.error));
        inner.degraded.iter().cloned().chain(unreadable).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic ends the process in production, and every change here is whole by itself.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true where a cause may be logged again, and notes that it is.
fn is_due(logged: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = logged.is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
    if is_due {
        *logged = Some(now);
    }
    is_due
}

impl Inner {
    fn note(&mut self, path: &Path, error: &dyn Display) {
        let (now, scan) = (Instant::now(), self.scans);
        let text = error.to_string();
        if let Some(known) = self.trouble.get_mut(path) {
            known.scan = scan;
            if known.error == text && now.saturating_duration_since(known.logged_at) < QUIET {
                return;
            }
        } else if self.trouble.len() >= PATHS_MAX {
            return;
        }
        tracing::warn!(path = %path.display(), error = text, "cannot read a file");
        self.trouble.insert(path.to_owned(), Trouble { error: text, logged_at: now, scan });
    }
}
