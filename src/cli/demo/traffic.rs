//! Access logs as a few web servers would write them, and what was written, for the proof.
//!
//! Invariant: the ledger holds exactly the bytes that were written, by file generation, in order.
//! Lines carry a number, so that no two lines of all logs are the same.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The servers, each with its own log: their partition keys spread over the shards.
pub(super) const SERVERS: [&str; 6] = ["web-1", "web-2", "web-3", "web-4", "api-1", "api-2"];

/// The name of a log; a rotation renames it to the same with `.1`.
pub(super) const LOG_NAME: &str = "access.log";

/// How often lines are written: smooth to the eye, and many small appends for the agent.
const STEP: Duration = Duration::from_millis(20);

/// Lines of one log in one step: 50 steps a second make about 9,000 lines a second over all logs.
const LINES_A_STEP: u64 = 30;

/// One generation of one log: the path it was created at, and all that was written to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// `web-1/access.log`, and whether it was rotated away.
    pub(super) name: String,
    /// Its bytes.
    pub(super) data: Vec<u8>,
}

/// Writes lines into every log under `directory` for `time`, with a rotation by rename in the
/// middle.
///
/// `look` is told the bytes written so far after every step, and may end the writing early.
///
/// # Errors
/// Where a file cannot be created, written or renamed.
pub(super) fn write(
    directory: &Path,
    time: Duration,
    seed: u64,
    mut look: impl FnMut(u64) -> ControlFlow<()>,
) -> io::Result<Vec<Written>> {
    let mut visitors = Visitors { random: fastrand::Rng::with_seed(seed), number: 0 };
    let mut logs = SERVERS
        .iter()
        .map(|server| Log::open(&directory.join(server), server))
        .collect::<io::Result<Vec<_>>>()?;
    let started = Instant::now();
    let mut rotated = false;
    let mut bytes: u64 = 0;
    // A machine that stalls past the end rotates all the same.
    while !rotated || started.elapsed() < time {
        if !rotated && started.elapsed() >= time / 2 {
            rotated = true;
            logs.iter_mut().try_for_each(Log::rotate)?;
        }
        for log in &mut logs {
            bytes = bytes.saturating_add(log.append(&mut visitors)?);
        }
        if look(bytes).is_break() {
            break;
        }
        std::thread::sleep(STEP);
    }
    Ok(logs.into_iter().flat_map(Log::into_written).collect())
}

/// One log that is being written.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    rotated: Option<Written>,
    current: Written,
}

impl Log {
    fn open(directory: &Path, server: &str) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join(LOG_NAME);
        let name = format!("{server}/{LOG_NAME}");
        let current = Written { name, data: Vec::new() };
        Ok(Self { file: append_to(&path)?, path, rotated: None, current })
    }

    /// What logrotate does by default: rename, and create anew.
    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, self.path.with_extension("log.1"))?;
        self.file = append_to(&self.path)?;
        let name = self.current.name.clone();
        let before = std::mem::replace(&mut self.current, Written { name, data: Vec::new() });
        self.rotated = Some(Written { name: format!("{} (rotated)", before.name), ..before });
        Ok(())
    }

    fn append(&mut self, visitors: &mut Visitors) -> io::Result<u64> {
        let mut lines = Vec::new();
        for _ in 0..LINES_A_STEP {
            visitors.visit(&mut lines);
        }
        self.file.write_all(&lines)?;
        self.current.data.extend_from_slice(&lines);
        Ok(lines.len() as u64)
    }

    fn into_written(self) -> impl Iterator<Item = Written> {
        self.rotated.into_iter().chain([self.current])
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Who looks at the web servers.
#[derive(Debug)]
struct Visitors {
    random: fastrand::Rng,
    number: u64,
}

const PATHS: [&str; 12] = [
    "/",
    "/cart",
    "/checkout/payment",
    "/assets/css/main.8f3a1c.css",
    "/assets/js/vendor.min.js",
    "/images/products/teapot-large.webp",
    "/search?q=brown+teapot&sort=price&page=",
    "/products/",
    "/api/v2/orders/",
    "/api/v2/users/me",
    "/blog/2026/11/how-we-made-tea-faster",
    "/favicon.ico",
];

const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 \
     (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 \
     (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
    "curl/8.16.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "ELB-HealthChecker/2.0",
];

const REFERERS: [&str; 4] =
    ["-", "-", "https://shop.example/", "https://www.google.com/search?q=teapots+and+kettles"];

/// Most requests go well.
const STATUSES: [u16; 10] = [200, 200, 200, 200, 200, 200, 304, 301, 404, 500];

impl Visitors {
    /// Adds one line in the combined log format, with the request's number and time at its end.
    fn visit(&mut self, out: &mut Vec<u8>) {
        let random = &mut self.random;
        self.number = self.number.saturating_add(1);
        let pick = |random: &mut fastrand::Rng, of: &[&'static str]| {
            random.choice(of.iter()).copied().unwrap_or_default()
        };
        let path = pick(random, &PATHS);
        let tail = if path.ends_with(['/', '=']) && path.len() > 1 {
            random.u32(1..90_000).to_string()
        } else {
            String::new()
        };
        let second = self.number / 9_000;
        let line = format!(
            "{}.{}.{}.{} - - [23/Nov/2026:10:{:02}:{:02} +0000] \
             \"{} {path}{tail} HTTP/1.1\" {} {} \"{}\" \"{}\" {:.3} {}\n",
            random.u8(11..=223),
            random.u8(..),
            random.u8(..),
            random.u8(1..=254),
            second / 60 % 60,
            second % 60,
            pick(random, &["GET", "GET", "GET", "GET", "POST", "HEAD"]),
            random.choice(STATUSES).unwrap_or(200),
            random.u32(0..90_000),
            pick(random, &REFERERS),
            pick(random, &AGENTS),
            random.f64() * 0.8,
            self.number,
        );
        out.extend_from_slice(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 23;

    #[test]
    fn what_is_told_is_what_stands_in_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = 0;
        let written = write(directory.path(), Duration::from_millis(100), SEED, |so_far| {
            bytes = so_far;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(written.len(), SERVERS.len() * 2);
        assert_eq!(written.iter().map(|log| log.data.len() as u64).sum::<u64>(), bytes);
        for log in written {
            let (name, file) = match log.name.strip_suffix(" (rotated)") {
                Some(name) => (name, format!("{name}.1")),
                None => (log.name.as_str(), log.name.clone()),
            };
            assert_eq!(fs::read(directory.path().join(file)).unwrap(), log.data, "{name}");
        }
    }

    #[test]
    fn lines_are_whole_varied_and_each_there_once() {
        let mut visitors = Visitors { random: fastrand::Rng::with_seed(SEED), number: 0 };
        let mut out = Vec::new();
        for _ in 0..1000 {
            visitors.visit(&mut out);
        }
        let text = String::from_utf8(out).unwrap();
        let lines: std::collections::BTreeSet<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1000);
        assert!(text.ends_with('\n'));
        let mean = text.len() / 1000;
        assert!((120..300).contains(&mean), "lines of {mean} bytes");
    }
}
