//! Many writers, each of a log of its own, that open their logs anew when they are told to.
//!
//! Invariant: a line counts as written exactly when all of it is in the file, whatever the file is
//! called by then; until a writer has opened its log anew, it writes to the one it has.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::oracle::{Minter, Oracle};

/// Threads that share the logs.
const THREADS: usize = 4;
/// How often a thread writes to each of its logs.
const TICK: Duration = Duration::from_millis(10);
/// Every so many lines, one is written in two pieces, so that readers meet unfinished lines.
const TORN_EVERY: u64 = 37;

/// How a log is written.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Lines a second and log.
    pub rate: u32,
    /// Whether some lines are written in two pieces.
    pub torn: bool,
}

/// Writers at work. Dropping them stops them.
#[derive(Debug)]
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How often the logs are to have been opened.
    openings: AtomicU64,
    /// The sum over all threads of how often they have opened theirs.
    opened: AtomicU64,
    stop: AtomicBool,
}

/// One log and where its lines come from.
struct Log {
    path: PathBuf,
    file: File,
    minter: Minter,
    written: u64,
}

impl Writers {
    /// Starts to write to every one of `paths`.
    #[must_use]
    pub fn start(paths: &[PathBuf], oracle: &Oracle, style: Style) -> Self {
        let shared = Arc::new(Shared::default());
        let logs = paths.iter().map(|path| Log {
            path: path.clone(),
            file: open(path),
            minter: oracle.minter(),
            written: 0,
        });
        let mut parts: Vec<Vec<Log>> = (0..THREADS).map(|_| Vec::new()).collect();
        for (number, log) in logs.enumerate() {
            parts[number % THREADS].push(log);
        }
        let spawn = |logs| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || write(logs, style, &shared))
        };
        let threads = parts.into_iter().map(spawn).collect();
        Self { shared, threads }
    }

    /// Has every log opened anew, and returns when that is done.
    pub fn reopen(&self) {
        let wanted = self.shared.openings.fetch_add(1, Ordering::AcqRel) + 1;
        while self.shared.opened.load(Ordering::Acquire) < wanted * THREADS as u64 {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()), "a writer failed");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops after the lines that are being written.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.end();
        }
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// A thread's life: every tick it writes to each log what is due by then.
fn write(mut logs: Vec<Log>, style: Style, shared: &Shared) {
    let (begun, mut openings) = (Instant::now(), 0);
    while !shared.stop.load(Ordering::Acquire) {
        let wanted = shared.openings.load(Ordering::Acquire);
        if wanted > openings {
            for log in &mut logs {
                log.file = open(&log.path);
                log.minter.next_file();
            }
            shared.opened.fetch_add(wanted - openings, Ordering::AcqRel);
            openings = wanted;
        }
        let due = begun.elapsed().as_secs_f64() * f64::from(style.rate);
        for log in &mut logs {
            // A thread that was held up catches up a little a tick: a flood is no log.
            for _ in 0..=(2 * style.rate / 100) {
                if (log.written as f64) < due {
                    log.write_line(style.torn);
                }
            }
        }
        thread::sleep(TICK);
    }
}

impl Log {
    fn write_line(&mut self, torn: bool) {
        let line = self.minter.next_line();
        let cut = if torn && self.written.is_multiple_of(TORN_EVERY) {
            line.len() / 2
        } else {
            line.len()
        };
        let (start, end) = line.split_at(cut);
        self.file.write_all(start).unwrap();
        self.file.write_all(end).unwrap();
        self.written += 1;
    }
}

/// Opens a log as a server does.
fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}
