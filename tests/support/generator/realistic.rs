//! Logs as servers write them: what repeats in real logs repeats here, and what does not, does not.
//!
//! Invariant: the same seed gives the same bytes. Files take turns in being an access log, JSON lines,
//! logfmt, syslog and an application's log with stack traces. Paths, user agents, users and messages
//! are drawn from pools, a few of them far more often than the rest; times go on; request and trace
//! ids, latencies and sizes are fresh.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::{Generated, shares};

const SECTIONS: [&str; 12] = [
    "products",
    "cart",
    "checkout",
    "search",
    "account",
    "orders",
    "static/js",
    "static/css",
    "images",
    "api/v1/items",
    "api/v2/users",
    "health",
];
const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "kube-probe/1.31",
];
const MESSAGES: [&str; 8] = [
    "request completed",
    "cache miss, fetching from origin",
    "connection accepted from upstream pool",
    "retrying after transient failure",
    "user authenticated",
    "payment authorised",
    "slow query detected",
    "session expired, redirecting to login",
];
const SERVICES: [&str; 5] = ["gateway", "catalogue", "billing", "identity", "mailer"];

/// Writes `files` files of `total_bytes` bytes together into `dir`, which it makes.
///
/// # Errors
/// The directory or a file cannot be written.
pub fn generate(
    dir: &Path,
    seed: u64,
    files: usize,
    total_bytes: u64,
) -> io::Result<Vec<Generated>> {
    std::fs::create_dir_all(dir)?;
    let mut draws = fastrand::Rng::with_seed(seed);
    let mut generated = Vec::with_capacity(files);
    for (index, bytes) in shares(&mut draws, files, total_bytes).into_iter().enumerate() {
        let path = dir.join(format!("app-{index:04}.log"));
        let mut file = BufWriter::new(File::create(&path)?);
        let mut server = Server { draws: draws.fork(), millis: 0, host: index };
        let (mut left, mut line, mut lines) = (bytes, Vec::new(), 0);
        while left > 0 {
            line.clear();
            server.entry(index, &mut line)?;
            line.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            // A file ends with a newline, wherever it is cut.
            if left == line.len() as u64 {
                line.pop();
                line.push(b'\n');
            }
            file.write_all(&line)?;
            left -= line.len() as u64;
            lines += memchr::memchr_iter(b'\n', &line).count() as u64;
        }
        file.flush()?;
        generated.push(Generated { path, bytes, lines });
    }
    Ok(generated)
}

/// One server at work.
struct Server {
    draws: fastrand::Rng,
    /// Since it began.
    millis: u64,
    host: usize,
}

impl Server {
    /// Adds a line, or a line and its stack trace, of the `style`th kind.
    fn entry(&mut self, style: usize, line: &mut Vec<u8>) -> io::Result<()> {
        self.millis += self.draws.u64(0..40);
        match style % 5 {
            0 => self.access(line),
            1 => self.json(line),
            2 => self.logfmt(line),
            3 => self.syslog(line),
            _ => self.application(line),
        }
    }

    /// Draws from a pool in which the first are met most often, as with pages and users.
    fn popular(&mut self, most: u32) -> u32 {
        let spread = self.draws.u32(1..=most);
        self.draws.u32(0..spread)
    }

    fn one<'a>(&mut self, pool: &[&'a str]) -> &'a str {
        let most = u32::try_from(pool.len()).unwrap_or(1);
        pool[self.popular(most) as usize]
    }

    fn clock(&self) -> (u64, u64, u64, u64) {
        let seconds = self.millis / 1000;
        (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60, self.millis % 1000)
    }

    fn access(&mut self, line: &mut Vec<u8>) -> io::Result<()> {
        let (hour, minute, second, _) = self.clock();
        let (client, item) = (self.popular(40_000), self.popular(8_000));
        let (section, agent) = (self.one(&SECTIONS), self.one(&AGENTS));
        let status = ["200", "200", "200", "304", "302", "404", "500"][self.popular(7) as usize];
        let (size, took) = (self.draws.u32(120..60_000), self.draws.u32(1..900));
        writeln!(
            line,
            "{}.{}.{}.{} - - [23/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000] \"GET /{section}/{item} \
             HTTP/1.1\" {status} {size} \"https://www.example.com/{section}\" \"{agent}\" 0.{took:03}",
            10 + client % 90,
            client / 90 % 256,
            client / 7 % 256,
            client % 251,
        )
    }

    fn json(&mut self, line: &mut Vec<u8>) -> io::Result<()> {
        let (hour, minute, second, milli) = self.clock();
        let (user, item) = (self.popular(20_000), self.popular(8_000));
        let (service, message) = (self.one(&SERVICES), self.one(&MESSAGES));
        let level = ["info", "info", "info", "debug", "warn", "error"][self.popular(6) as usize];
        let (trace, took) = (self.draws.u128(..), self.draws.u32(1..2_000));
        writeln!(
            line,
            "{{\"time\":\"2026-11-23T{hour:02}:{minute:02}:{second:02}.{milli:03}Z\",\"level\":\"{level}\",\
             \"service\":\"{service}\",\"host\":\"ip-10-0-{}-17\",\"trace_id\":\"{trace:032x}\",\
             \"user\":{{\"id\":\"u-{user}\"}},\"item\":{item},\"duration_ms\":{took},\
             \"message\":\"{message}\"}}",
            self.host,
        )
    }

    fn logfmt(&mut self, line: &mut Vec<u8>) -> io::Result<()> {
        let (hour, minute, second, milli) = self.clock();
        let (component, message) = (self.one(&SERVICES), self.one(&MESSAGES));
        let (request, took) = (self.draws.u64(..), self.draws.u32(10..90_000));
        let user = self.popular(20_000);
        writeln!(
            line,
            "ts=2026-11-23T{hour:02}:{minute:02}:{second:02}.{milli:03}Z level=info caller=server.go:{} \
             component={component} request_id={request:016x} user={user} duration={took}us msg=\"{message}\"",
            100 + self.popular(40),
        )
    }

    fn syslog(&mut self, line: &mut Vec<u8>) -> io::Result<()> {
        let (hour, minute, second, _) = self.clock();
        let (process, client) = (1000 + self.popular(300), self.popular(40_000));
        let program =
            ["sshd", "systemd", "cron", "kernel", "postfix/smtpd"][self.popular(5) as usize];
        let (message, port) = (self.one(&MESSAGES), self.draws.u32(1024..65_536));
        writeln!(
            line,
            "Nov 23 {hour:02}:{minute:02}:{second:02} web-{} {program}[{process}]: {message}: \
             rhost=10.0.{}.{} port {port}",
            self.host,
            client / 250 % 256,
            client % 250,
        )
    }

    fn application(&mut self, line: &mut Vec<u8>) -> io::Result<()> {
        let (hour, minute, second, milli) = self.clock();
        let (thread, message) = (self.popular(64), self.one(&MESSAGES));
        let (service, order) = (self.one(&SERVICES), self.draws.u32(..));
        let broken = self.draws.u32(0..25) == 0;
        let level = if broken { "ERROR" } else { "INFO " };
        writeln!(
            line,
            "2026-11-23 {hour:02}:{minute:02}:{second:02},{milli:03} {level} [http-nio-8080-exec-{thread}] \
             com.example.{service}.OrderService - {message} (order {order})",
        )?;
        if broken {
            writeln!(line, "java.lang.IllegalStateException: order {order} is not open")?;
            for depth in 0..self.draws.u32(8..40) {
                writeln!(
                    line,
                    "\tat com.example.{service}.Step{}.run(Step{0}.java:{})",
                    depth % 17,
                    20 + depth * 7
                )?;
            }
        }
        Ok(())
    }
}
