//! Files that rotate, vanish, hide and come back, followed by the real binary.
//!
//! Promise 1: "Nothing is lost. A byte that was in a followed file and could be read is
//! acknowledged by the stream, or stands in the dead-letter store, or is still to be sent."
//! Promise 2: "Every gap is counted." Promise 7: "One bad thing never stops the rest."

#[path = "rotation/copytruncate.rs"]
mod copytruncate;
#[path = "rotation/discovery.rs"]
mod discovery;
#[path = "rotation/identity.rs"]
mod identity;
#[path = "rotation/odd_files.rs"]
mod odd_files;
#[path = "rotation/polling.rs"]
mod polling;
#[path = "rotation/rename.rs"]
mod rename;
#[path = "rotation/restart.rs"]
mod restart;
#[path = "rotation/scale.rs"]
mod scale;
#[path = "rotation/scenarios.rs"]
mod scenarios;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::agent::{Agent, Home};
use crate::support::endpoint::{FaultEndpoint, Script};

/// How long anything may take before a test fails; nothing takes nearly as long.
const DEADLINE: Duration = Duration::from_secs(90);

/// What the flows of these tests share: little waiting.
const TEMPLATE: &str = r#"
state_dir: {state}
checkpoint_interval: 50 ms
aws: { region: eu-west-1, endpoint_url: "{endpoint}" }
produce:
  - name: app
    stream: web
    merge: { max_age: 20 ms }
    ship: { timeout: 5 s, backoff_max: 200 ms }
"#;

/// A configuration whose flow follows `files` and has further `settings`, one a line.
fn template(files: &str, settings: &str) -> String {
    let settings = settings.lines().map(|line| format!("    {}\n", line.trim()));
    format!("{TEMPLATE}    files: {files}\n{}", settings.collect::<String>())
}

/// An endpoint, and a home beside it.
struct Rig {
    endpoint: FaultEndpoint,
    home: Home,
}

impl Rig {
    fn new(files: &str, settings: &str) -> Self {
        let endpoint = FaultEndpoint::start(Script::healthy());
        let home = Home::new(&endpoint.url(), &template(files, settings));
        Self { endpoint, home }
    }

    /// Returns the path of a log.
    fn log(&self, name: &str) -> PathBuf {
        self.home.logs().join(name)
    }

    /// Starts the agent and waits until it has looked at its files for the first time.
    fn start(&self) -> Agent {
        let agent = self.home.start();
        until("the agent answers", || self.home.state().join("control.sock").exists());
        agent
    }

    /// Returns all lines that arrived, sorted.
    fn lines(&self) -> Vec<String> {
        let lines = self.endpoint.with_log(|log| {
            let all = log.records.iter().flat_map(|record| lines_of(&record.data));
            all.map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>()
        });
        sorted(lines)
    }

    /// Waits until these lines have arrived, and no others.
    fn wait_for(&self, expected: &[&str]) {
        let expected = sorted(expected.iter().map(|line| (*line).to_owned()).collect());
        let bytes = expected.iter().map(String::len).sum::<usize>() as u64;
        let arrived = |log: &crate::support::endpoint::Log| log.stored_bytes >= bytes;
        let waited = self.endpoint.wait_until("the lines arrived", DEADLINE, arrived);
        assert_eq!(self.lines(), expected, "{waited:?}");
    }

    /// Ends the agent; then these lines have arrived, and no others.
    fn end(&self, agent: Agent, expected: &[&str]) {
        self.wait_for(expected);
        agent.terminate();
        let finished = agent.wait(DEADLINE);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
        self.wait_for(expected);
        crate::scene::assert_books_balance(&self.home.status(DEADLINE));
    }

    /// Returns a number of the only flow's status.
    fn number(&self, pointer: &str) -> u64 {
        let status = self.home.status(DEADLINE);
        let found = status.pointer(&format!("/flows/0{pointer}"));
        found.and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {status}"))
    }
}

/// Returns the lines of some bytes, newlines included.
fn lines_of(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Waits until a condition holds that nothing tells of.
fn until(claim: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {claim}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Appends as a server does.
fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
