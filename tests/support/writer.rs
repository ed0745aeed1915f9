//! Writers of log files: threads that append an oracle's lines at a rate, and rotate as logrotate
//! does.
//!
//! Invariant: a line counts as written exactly when all of it is in the file; a rotation happens
//! between two lines, by the writing thread itself, so that no test has to guess at a race.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::oracle::Minter;

/// Every so many lines, one is written in two pieces, so that readers meet unfinished lines.
const TORN_EVERY: u64 = 37;

/// How fast and how much is written.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Lines a second; as fast as it goes where `None`.
    pub lines_per_second: Option<u32>,
    /// Lines after which the writer only waits to be told what to do; no end where `None`.
    pub lines: Option<u64>,
}

impl Pace {
    /// So many lines a second, without end.
    #[must_use]
    pub fn rate(lines_per_second: u32) -> Self {
        Self { lines_per_second: Some(lines_per_second), lines: None }
    }

    /// So many lines, as fast as it goes.
    #[must_use]
    pub fn burst(lines: u64) -> Self {
        Self { lines_per_second: None, lines: Some(lines) }
    }
}

/// A writer at work. Dropping it stops it after the line it writes.
#[derive(Debug)]
pub struct LogWriter {
    orders: Option<Sender<Told>>,
    thread: Option<JoinHandle<io::Result<Minter>>>,
}

/// What a writer is told.
enum Order {
    /// Rename the file, write so many more lines to it, then open a new one under the old name.
    Rename(PathBuf, u64),
    /// Copy the file, then truncate it.
    CopyTruncate(PathBuf),
    /// Unlink the file, write so many more lines to it, then open a new one.
    Delete(u64),
    /// Write the rest of the lines of the pace.
    Finish,
}

/// An order, and where to say that it is carried out. A writer that fails drops the sender.
type Told = (Order, Sender<()>);

impl LogWriter {
    /// Starts to append the minter's lines to `path`, which is made where it is missing.
    #[must_use]
    pub fn start(path: &Path, minter: Minter, pace: Pace) -> Self {
        let (orders, inbox) = bounded(1);
        let file = open(path).unwrap();
        let state = Writing {
            path: path.to_owned(),
            file,
            minter,
            pace,
            begun: Instant::now(),
            written: 0,
            finishing: None,
        };
        let thread = thread::spawn(move || state.run(&inbox));
        Self { orders: Some(orders), thread: Some(thread) }
    }

    /// Rotates by rename: the writer keeps its handle for `late_lines` more lines, as a server does
    /// until it is told to reopen. Returns when the new file is open.
    pub fn rotate_by_rename(&self, to: &Path, late_lines: u64) {
        self.order(Order::Rename(to.to_owned(), late_lines));
    }

    /// Rotates by copy and truncation; lines that nobody read before are only in the copy.
    pub fn rotate_by_copytruncate(&self, to: &Path) {
        self.order(Order::CopyTruncate(to.to_owned()));
    }

    /// Unlinks the file; `late_lines` more lines go to the unlinked one before a new one is made.
    pub fn delete(&self, late_lines: u64) {
        self.order(Order::Delete(late_lines));
    }

    /// Waits until all lines of the pace are written, and stops; only for a pace that has an end.
    #[must_use]
    pub fn finish(mut self) -> Minter {
        self.order(Order::Finish);
        self.end()
    }

    /// Stops after the line that is being written.
    #[must_use]
    pub fn stop(mut self) -> Minter {
        self.end()
    }

    /// Tells the thread to do something and waits until it has.
    fn order(&self, order: Order) {
        let (done, wait) = bounded(1);
        self.orders.as_ref().unwrap().send((order, done)).expect("the writer failed");
        wait.recv().expect("the writer failed");
    }

    fn end(&mut self) -> Minter {
        self.orders = None;
        self.thread.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // Its test is over, well or badly; an error of the writer would add nothing.
            thread.join().ok();
        }
    }
}

/// The thread's own state.
struct Writing {
    path: PathBuf,
    file: File,
    minter: Minter,
    pace: Pace,
    begun: Instant,
    written: u64,
    finishing: Option<Sender<()>>,
}

impl Writing {
    /// Writes at its pace and obeys, until the orders end.
    fn run(mut self, inbox: &Receiver<Told>) -> io::Result<Minter> {
        loop {
            let order = match self.pause() {
                Some(Duration::ZERO) => inbox.try_recv().map_err(|error| error.is_disconnected()),
                Some(pause) => inbox
                    .recv_timeout(pause)
                    .map_err(|error| error == RecvTimeoutError::Disconnected),
                None => {
                    // All is written: whoever waits for that may go on.
                    self.tell_finished();
                    inbox.recv().map_err(|_| true)
                }
            };
            match order {
                Ok(order) => self.obey(order)?,
                Err(true) => return Ok(self.minter),
                Err(false) => self.write_line()?,
            }
        }
    }

    /// Returns how long to wait before the next line; `None` where there is none any more.
    fn pause(&self) -> Option<Duration> {
        if self.pace.lines.is_some_and(|lines| self.written >= lines) {
            return None;
        }
        let Some(rate) = self.pace.lines_per_second else {
            return Some(Duration::ZERO);
        };
        let due = Duration::from_secs(self.written) / rate;
        Some(due.saturating_sub(self.begun.elapsed()))
    }

    fn write_line(&mut self) -> io::Result<()> {
        let line = self.minter.next_line();
        if self.written % TORN_EVERY == TORN_EVERY - 1 {
            let (start, end) = line.split_at(line.len() / 2);
            self.file.write_all(start)?;
            thread::yield_now();
            self.file.write_all(end)?;
        } else {
            self.file.write_all(&line)?;
        }
        self.written += 1;
        Ok(())
    }

    fn obey(&mut self, (order, done): Told) -> io::Result<()> {
        match order {
            Order::Rename(to, late_lines) => {
                fs::rename(&self.path, to)?;
                self.reopen(late_lines)?;
            }
            Order::Delete(late_lines) => {
                fs::remove_file(&self.path)?;
                self.reopen(late_lines)?;
            }
            Order::CopyTruncate(to) => {
                fs::copy(&self.path, to)?;
                self.file.set_len(0)?;
                self.minter.next_file();
            }
            Order::Finish => {
                assert!(self.pace.lines.is_some(), "this writer never finishes by itself");
                self.finishing = Some(done);
                return Ok(());
            }
        }
        // Whoever gave the order waits for this.
        done.send(()).map_err(io::Error::other)
    }

    fn tell_finished(&mut self) {
        if let Some(done) = self.finishing.take() {
            // Whoever asked waits; a test that has given up meanwhile needs no answer.
            done.send(()).ok();
        }
    }

    /// Writes the late lines to the old handle, then opens a new file.
    fn reopen(&mut self, late_lines: u64) -> io::Result<()> {
        for _ in 0..late_lines {
            self.write_line()?;
        }
        self.file = open(&self.path)?;
        self.minter.next_file();
        Ok(())
    }
}

/// Opens a log as a server does.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
