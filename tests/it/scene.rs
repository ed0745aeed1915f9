//! A scene: an endpoint, a home and an oracle, for tests of the whole agent.
//!
//! Invariant: nothing here waits for time to pass; every wait is for a condition, with a deadline that
//! a busy machine of two cores does not reach.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::agent::{Agent, Home};
use crate::support::endpoint::{EntryOutcome, FaultEndpoint, Log, Options, Script};
use crate::support::oracle::{Layout, Minter, Oracle, Order, Report, Shape};
use crate::support::writer::{LogWriter, Pace};

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// How often a status is asked for.
const POLL: Duration = Duration::from_millis(20);

/// An `agent.yaml` of one flow, `web`, over all logs of a home.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Top-level lines, each with its newline.
    pub top: &'static str,
    /// What stands within `merge: { }`.
    pub merge: &'static str,
    /// The partition key.
    pub key: &'static str,
    /// What stands within `ship: { }`.
    pub ship: &'static str,
    /// What stands within `tail: { }`.
    pub tail: &'static str,
    /// Further lines of the flow, each indented by four and with its newline.
    pub flow: &'static str,
}

/// Small records and short pauses: much happens in a short time.
impl Default for Settings {
    fn default() -> Self {
        Self {
            top: "checkpoint_interval: 50 ms\n",
            merge: "max_bytes: 1 KB, max_age: 50 ms",
            key: "file",
            ship: "timeout: 5 s, backoff_max: 200 ms, joined_bytes: 4 KB",
            tail: "buffer: 1 MiB, scan_interval: 200 ms",
            flow: "",
        }
    }
}

impl Settings {
    /// Returns the template of a home's configuration.
    #[must_use]
    pub fn template(&self) -> String {
        let Self { top, merge, key, ship, tail, flow } = self;
        ["state_dir: {state}\naws: { endpoint_url: '{endpoint}' }\n", top]
            .into_iter()
            .chain(["produce:\n  - name: web\n    files: ['{logs}/**/*.log']\n    stream: web\n"])
            .chain(["    merge: { ", merge, " }\n    partition_key: ", key])
            .chain(["\n    ship: { ", ship, " }\n    tail: { ", tail, " }\n", flow])
            .collect()
    }
}

/// An endpoint, a home whose agents talk to it, and the oracle of its lines.
#[derive(Debug)]
pub struct Scene {
    /// The endpoint.
    pub endpoint: FaultEndpoint,
    /// The home.
    pub home: Home,
    /// The oracle.
    pub oracle: Oracle,
}

impl Scene {
    /// Sets a scene with plain lines and an endpoint of four shards.
    #[must_use]
    pub fn new(seed: u64, settings: &Settings, script: Script) -> Self {
        Self::with(Oracle::new(seed, Shape::Plain), settings, Options::default(), script)
    }

    /// Sets any scene.
    #[must_use]
    pub fn with(oracle: Oracle, settings: &Settings, options: Options, script: Script) -> Self {
        eprintln!("seed {}", oracle.seed());
        let endpoint = FaultEndpoint::start_with(options, script);
        let home = Home::new(&endpoint.url(), &settings.template());
        Self { endpoint, home, oracle }
    }

    /// Returns the path of the log with this number.
    #[must_use]
    pub fn log(&self, number: usize) -> PathBuf {
        self.home.logs().join(format!("{number}.log"))
    }

    /// Writes so many lines to a log of its own, and returns the source of more.
    pub fn write(&self, number: usize, lines: u64) -> Minter {
        self.write_more(number, self.oracle.minter(), lines)
    }

    /// Appends so many lines.
    pub fn write_more(&self, number: usize, minter: Minter, lines: u64) -> Minter {
        LogWriter::start(&self.log(number), minter, Pace::burst(lines)).finish()
    }

    /// Waits until every line has arrived as a slice, in the order of its file, and judges.
    #[must_use]
    pub fn arrived(&self) -> Report {
        self.oracle.wait_for_all(&self.endpoint, &Layout::Slices, Order::WithinFile, DEADLINE)
    }

    /// Waits until the log of the endpoint satisfies the condition.
    pub fn wait(&self, claim: &str, condition: impl FnMut(&Log) -> bool) {
        if let Err(timed_out) = self.endpoint.wait_until(claim, DEADLINE, condition) {
            panic!("{timed_out:?}");
        }
    }

    /// Waits until no request is under way, and looks into the log.
    pub fn settled<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        use crate::support::endpoint::Delivery::Pending;
        self.wait("no request is under way", |log| {
            log.requests.iter().all(|request| request.answer != Pending)
        });
        self.endpoint.with_log(look)
    }

    /// Waits until an agent (running or stopped) says a status that satisfies the condition.
    pub fn status(&self, claim: &str, condition: impl Fn(&Value) -> bool) -> Value {
        status(&self.home, claim, condition)
    }

    /// Waits until all that the files hold is acknowledged, and checks that the books say just that.
    pub fn at_rest(&self) -> Value {
        let written = self.oracle.bytes();
        let status = self.status("all is acknowledged", |status| {
            number(status, "/flows/0/totals/acknowledged_bytes") >= written
        });
        assert_books_balance(&status);
        let totals = &status["flows"][0]["totals"];
        assert_eq!(totals["acknowledged_bytes"], written, "{status:#}");
        assert_eq!(totals["read_bytes"], written, "{status:#}");
        assert_eq!(totals["acknowledged_lines"], self.oracle.lines(), "{status:#}");
        for file in status["flows"][0]["files"].as_array().unwrap() {
            assert_eq!((&file["offset"], &file["lag_bytes"]), (&file["size"], &0.into()), "{file}");
        }
        status
    }

    /// Asserts what holds of every run: what was reported accepted was not sent again.
    pub fn assert_nothing_accepted_was_resent(&self) {
        let resent = self.endpoint.with_log(|log| log.resent_accepted.clone());
        assert!(resent.is_empty(), "{} records, first: {:?}", resent.len(), resent.first());
    }
}

/// Ends an agent in order.
pub fn stop(agent: Agent) {
    agent.terminate();
    let finished = agent.wait(DEADLINE);
    assert_eq!(finished.code(), Some(0), "{finished:?}");
}

/// Waits until an agent of `home` says a status that satisfies the condition.
pub fn status(home: &Home, claim: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let config = home.config();
    let end = Instant::now() + DEADLINE;
    loop {
        let finished =
            home.run(&["status", "--json", "--config", config.to_str().unwrap()], DEADLINE);
        // It fails where no agent has made its state directory yet.
        if finished.status.success() {
            let status = serde_json::from_str(&finished.stdout).unwrap();
            if condition(&status) {
                return status;
            }
        }
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {claim}: {finished:?}");
        thread::sleep(POLL);
    }
}

/// Returns the number at a JSON pointer.
#[must_use]
pub fn number(status: &Value, pointer: &str) -> u64 {
    let value = status.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {status:#}"));
    value.as_u64().unwrap_or_else(|| panic!("{pointer} is no number: {status:#}"))
}

/// Returns what the first flow says is wrong.
#[must_use]
pub fn problems(status: &Value) -> Vec<&str> {
    let problems = status["flows"][0]["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem.as_str().unwrap()).collect()
}

/// Asserts that, for every file and in all, read = acknowledged + in flight + dead-lettered + skipped.
pub fn assert_books_balance(status: &Value) {
    for flow in status["flows"].as_array().unwrap() {
        for books in flow["files"].as_array().unwrap().iter().chain([&flow["totals"]]) {
            let parts = ["acknowledged", "in_flight", "dead_lettered", "skipped"];
            let sum: u64 = parts.iter().map(|part| number(books, &format!("/{part}_bytes"))).sum();
            assert_eq!(number(books, "/read_bytes"), sum, "{books:#} of {status:#}");
        }
    }
}

/// Appends bytes to a file.
pub fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Sends an HTTP request and returns all that comes back.
#[must_use]
pub fn http(address: SocketAddr, request_line: &str, headers: &str, body: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(
        socket,
        "{request_line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        body.len(),
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// Returns how many entries were refused.
#[must_use]
pub fn refused_entries(log: &Log) -> usize {
    let outcomes = log.puts().flat_map(|request| &request.outcomes);
    outcomes.filter(|outcome| matches!(outcome, EntryOutcome::Refused(_))).count()
}
