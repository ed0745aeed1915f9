//! Files that grow at a rate.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How much is written to a file at a time: some lines.
const PIECE: usize = 1_000;
const LINE: usize = 100;

/// A thread that writes. Dropping it lets it run on; [`stop`](Self::stop) it.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Load {
    /// Starts to append lines to `files` files in turn, so many bytes a second together.
    #[must_use]
    pub fn start(logs: &Path, files: usize, bytes_per_second: u64) -> Self {
        let mut files: Vec<_> = (0..files).map(|number| open(&path(logs, number))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (begun, mut written, mut piece) = (Instant::now(), 0, 0);
            let count = files.len();
            while !told.load(Ordering::Acquire) {
                let due = begun.elapsed().as_secs_f64() * bytes_per_second as f64;
                // One that was held up catches up a little at a time: a flood is no log.
                for _ in 0..count / 4 + 1 {
                    if (written as f64) < due {
                        let text = lines(piece);
                        files[piece % count].write_all(&text).unwrap();
                        written += text.len() as u64;
                        piece += 1;
                    }
                }
                thread::sleep(Duration::from_millis(5));
            }
            written
        });
        Self { stop, thread }
    }

    /// Stops, and returns how many bytes were written.
    #[must_use]
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// Makes so many files of a line each; returns their bytes.
#[must_use]
pub fn make(logs: &Path, files: usize) -> u64 {
    let mut written = 0;
    for number in 0..files {
        let text = format!("the first line of file {number:>6}\n");
        open(&path(logs, number)).write_all(text.as_bytes()).unwrap();
        written += text.len() as u64;
    }
    written
}

fn path(logs: &Path, number: usize) -> PathBuf {
    logs.join(format!("app-{number:05}.log"))
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

/// Returns lines that no other piece has.
fn lines(piece: usize) -> Vec<u8> {
    let line = |line: usize| format!("{:0width$}\n", piece * PIECE + line, width = LINE - 1);
    (0..PIECE / LINE).map(line).collect::<String>().into_bytes()
}
