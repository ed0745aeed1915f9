//! The bounds of the real binary: what it takes of memory, descriptors, threads and processor while its
//! endpoint is dead, takes everything and answers nothing, or takes a byte a second, with a thousand
//! files that grow by 10 MB/s together; how it catches up then; and what ten thousand files cost.
//! `tests/bounds` runs this.
//!
//! Promise 5: "Memory, file descriptors and every queue are bounded, by named settings with defaults.
//! The source files are the buffer; a dead endpoint costs no memory."
//!
//! Memory, descriptors, threads and calls are judged; the processor's share and the rates are told only,
//! for they depend on the machine.
//!
//! In the environment: `KINETAIL_BOUNDS_SECONDS` of each trouble, and `KINETAIL_BINARY`, the binary
//! under test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    unreachable_pub,
    reason = "a test ends by a panic that says where; `support` is written as a library"
)]

#[path = "limits/load.rs"]
mod load;
#[path = "limits/meter.rs"]
mod meter;
#[allow(dead_code, unused_imports, reason = "a module of tests uses what it needs of it")]
mod support;

use std::time::{Duration, Instant};

use load::Load;
use meter::Meter;
use support::agent::{Agent, Home};
use support::endpoint::{FaultEndpoint, Options, Script};

/// The agent's settings are the defaults but for the endpoint and the files.
const TEMPLATE: &str = r#"
state_dir: {state}
aws: { region: eu-west-1, endpoint_url: "{endpoint}" }
produce:
  - name: bounds
    stream: bounds
    files: ["{logs}/*.log"]
"#;

/// How long anything may take before it counts as stuck.
const DEADLINE: Duration = Duration::from_mins(10);
/// The most resident memory, in KiB.
const MEMORY_MAX: u64 = 64 * 1024;
/// What resident memory may grow by in the second half of a trouble, in KiB: pages that are touched for
/// the first time, no leak.
const GROWTH_MAX: u64 = 2 * 1024;
/// The most descriptors: those of files by default, and what else there is.
const DESCRIPTORS_MAX: usize = 512 + 64;
/// How soon the first record must be stored once the endpoint heals: the longest pause between two
/// tries, and time to be late on a busy machine.
const FIRST_MAX: Duration = Duration::from_secs(10 + 20);

/// What is wrong with the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Dead,
    BlackHole,
    Slow,
}

fn start(sink: bool) -> (FaultEndpoint, Home) {
    let options = Options {
        sink: sink.then(|| -> support::endpoint::Sink { Box::new(|_| ()) }),
        ..Options::default()
    };
    let endpoint = FaultEndpoint::start_with(options, Script::healthy());
    let home = Home::new(&endpoint.url(), TEMPLATE);
    (endpoint, home)
}

/// Starts the agent and waits until it answers.
fn run(home: &Home) -> Agent {
    let agent = home.start();
    agent.wait_for_stderr("it runs", DEADLINE, |text| text.contains("running"));
    agent
}

fn end(agent: Agent) {
    agent.terminate();
    assert_eq!(agent.wait(DEADLINE).code(), Some(0));
}

fn total(home: &Home, name: &str) -> u64 {
    home.status(DEADLINE)["flows"][0]["totals"][name].as_u64().unwrap()
}

fn calls(home: &Home) -> u64 {
    home.status(DEADLINE)["flows"][0]["sent"]["calls"].as_u64().unwrap()
}

/// A thousand files that grow by 10 MB/s, while the endpoint is in trouble for `time`.
fn trouble(trouble: Trouble, time: Duration) {
    let (mut endpoint, home) = start(true);
    let load = Load::start(&home.logs(), 1_000, 10_000_000);
    let agent = run(&home);
    endpoint.wait_until("it ships", DEADLINE, |log| log.stored_bytes > 1_000_000).unwrap();
    match trouble {
        Trouble::Dead => endpoint.die(),
        Trouble::BlackHole => endpoint.set_script(Script::black_hole()),
        Trouble::Slow => endpoint.set_script(Script::healthy().read_rate(1)),
    }
    let (before, stored) = (calls(&home), endpoint.with_log(|log| log.stored_bytes));
    let meter = Meter::over(&agent, time);
    let tries = calls(&home) - before;
    let written = load.stop();
    let (healed, behind) = (Instant::now(), written - total(&home, "acknowledged_bytes"));
    match trouble {
        Trouble::Dead => endpoint.listen(),
        _ => endpoint.set_script(Script::healthy()),
    }
    endpoint.wait_until("it heals", DEADLINE, |log| log.stored_bytes > stored).unwrap();
    let first = healed.elapsed();
    let end_of_wait = Instant::now() + DEADLINE;
    while total(&home, "acknowledged_bytes") < written {
        assert!(Instant::now() < end_of_wait, "it does not catch up");
        std::thread::sleep(Duration::from_millis(100));
    }
    let caught_up = healed.elapsed();
    eprintln!(
        "{trouble:?}, 1,000 files, 10 MB/s, {time:?}: {meter}; {tries} calls begun; first record {:.1} s \
         after it healed, {:.0} MB behind in {:.1} s, {:.1} MB/s",
        first.as_secs_f64(),
        behind as f64 / 1e6,
        caught_up.as_secs_f64(),
        behind as f64 / 1e6 / caught_up.as_secs_f64(),
    );
    assert_eq!(total(&home, "acknowledged_bytes"), written);
    assert_eq!(total(&home, "read_bytes"), written);
    end(agent);
    meter.assert_bounded(MEMORY_MAX, GROWTH_MAX, DESCRIPTORS_MAX);
    // One try a window's place and longest pause, and the first quick ones.
    let most = 4 * (time.as_secs() / 5 + 10);
    assert!(tries <= most, "{tries} calls in {time:?}, at most {most}");
    assert!(
        first <= FIRST_MAX,
        "the first record was stored {first:?} after the endpoint had healed"
    );
}

#[test]
fn a_dead_endpoint() {
    trouble(Trouble::Dead, seconds());
}

#[test]
fn an_endpoint_that_never_answers() {
    trouble(Trouble::BlackHole, seconds());
}

#[test]
fn an_endpoint_that_takes_a_byte_a_second() {
    trouble(Trouble::Slow, seconds());
}

/// Ten thousand files, of which fifty grow, and then none.
#[test]
fn ten_thousand_files() {
    let (endpoint, home) = start(true);
    let mut written = load::make(&home.logs(), 10_000);
    let agent = run(&home);
    endpoint.wait_until("all came", DEADLINE, |log| log.stored_bytes >= written).unwrap();
    let load = Load::start(&home.logs(), 50, 100_000);
    let busy = Meter::over(&agent, seconds());
    written += load.stop();
    endpoint.wait_until("all came", DEADLINE, |log| log.stored_bytes >= written).unwrap();
    let idle = Meter::over(&agent, seconds());
    eprintln!("10,000 files, 50 of them growing by 100 KB/s: {busy}\n10,000 files at rest: {idle}");
    for meter in [busy, idle] {
        meter.assert_bounded(MEMORY_MAX, GROWTH_MAX, DESCRIPTORS_MAX);
    }
    assert_eq!(total(&home, "read_bytes"), written);
    end(agent);
}

fn seconds() -> Duration {
    let text = std::env::var("KINETAIL_BOUNDS_SECONDS").unwrap_or_else(|_| "30".to_owned());
    Duration::from_secs(text.parse().expect("KINETAIL_BOUNDS_SECONDS is a number"))
}
