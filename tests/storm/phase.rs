//! One mode of logrotate for a while, and the judgement of what arrived.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::logrotate::{Logrotate, POSTROTATE, Reload};
use super::writers::{Style, Writers};
use crate::support::agent::{Agent, Home};
use crate::support::endpoint::{FaultEndpoint, Log, Options, Script};
use crate::support::oracle::{Judge, Layout, MissingFiles, Oracle, Order, Report, Shape};

/// How long anything may take before it counts as lost.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often logrotate runs, where it is fast enough.
const PERIOD: Duration = Duration::from_millis(100);
/// Lines a second and log.
const RATE: u32 = 100;

/// The agent's settings are the defaults but for the endpoint and the files.
const TEMPLATE: &str = r#"
state_dir: {state}
aws: { region: eu-west-1, endpoint_url: "{endpoint}" }
produce:
  - name: storm
    stream: storm
    files: ["{logs}/*.log{suffix}"]
"#;

/// The columns of a row.
pub const HEADER: &str = "mode                             rotations     lines      lost    missed  repeated  \
                          on disk  delivered  descriptors";

/// One way to rotate.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Its name.
    pub name: &'static str,
    /// What logrotate's configuration says.
    pub directives: &'static str,
    /// What the agent's pattern has after `*.log`.
    pub suffix: &'static str,
    /// What goes wrong beside it.
    pub trouble: Trouble,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// The endpoint is dead for the second quarter of the time.
    DeadEndpoint,
    /// The agent is stopped in order every ten rotations, for three of them.
    Stops,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// A row of the table.
    pub row: String,
    /// What was wrong; nothing where all was right.
    pub wrong: Vec<String>,
}

/// Everything of one phase.
struct Phase {
    mode: Mode,
    endpoint: FaultEndpoint,
    home: Home,
    oracle: Oracle,
    judge: Arc<Mutex<Option<Judge>>>,
    /// What stands on the disk, for `copytruncate`.
    disk: Judge,
    /// The copies that were looked at last, by log.
    copies: HashMap<PathBuf, u64>,
    rotations: u64,
}

/// Runs a mode over so many logs for so long.
pub fn run(mode: &Mode, files: usize, seed: u64, time: Duration) -> Outcome {
    let mut phase = Phase::new(*mode, seed);
    let dir = phase.home.logs().parent().unwrap().to_owned();
    fs::create_dir(dir.join("old")).unwrap();
    let logs: Vec<_> =
        (0..files).map(|number| phase.home.logs().join(format!("app-{number:03}.log"))).collect();
    let directives = match mode.directives {
        shared if shared.contains("sharedscripts") || shared.contains("compress") => {
            format!("sharedscripts\n{shared}\n{POSTROTATE}")
        }
        plain => plain.to_owned(),
    };
    let logrotate = Logrotate::new(&dir, &phase.home.logs(), &directives);
    let style = Style { rate: RATE, torn: !phase.copies_and_truncates() };
    let agent = phase.start();
    let before = descriptors(&agent);
    let writers = Arc::new(Writers::start(&logs, &phase.oracle, style));
    let reload = Reload::start(&dir, &writers);
    let agent = phase.rotate(agent, &logrotate, &writers, (&logs, time));
    drop(reload);
    Arc::into_inner(writers).unwrap().stop();
    phase.judge_all(agent, &logs, before)
}

impl Phase {
    fn new(mode: Mode, seed: u64) -> Self {
        let oracle = Oracle::new(seed, Shape::Plain);
        let order = if mode.directives.contains("copytruncate") {
            // Which lines stand in which file is logrotate's affair.
            Order::Any
        } else {
            Order::WithinFile
        };
        let judge = Arc::new(Mutex::new(Some(oracle.judge(Layout::Slices, order))));
        let sink = Arc::clone(&judge);
        let options = Options {
            sink: Some(Box::new(move |accepted| {
                if let Some(judge) = &mut *sink.lock().unwrap() {
                    judge.record(&accepted.data);
                }
            })),
            ..Options::default()
        };
        let endpoint = FaultEndpoint::start_with(options, Script::healthy());
        let home = Home::new(&endpoint.url(), &TEMPLATE.replace("{suffix}", mode.suffix));
        let disk = oracle.judge(Layout::Slices, Order::Any);
        Self { mode, endpoint, home, oracle, judge, disk, copies: HashMap::new(), rotations: 0 }
    }

    fn copies_and_truncates(&self) -> bool {
        self.mode.copies_and_truncates()
    }

    fn start(&self) -> Agent {
        let agent = self.home.start();
        agent.wait_for_stderr("it runs", DEADLINE, |text| text.contains("running"));
        agent
    }

    /// Rotates all logs again and again.
    fn rotate(
        &mut self,
        agent: Agent,
        logrotate: &Logrotate,
        writers: &Writers,
        (logs, time): (&[PathBuf], Duration),
    ) -> Agent {
        let (begun, mut agent, mut dead) = (Instant::now(), Some(agent), false);
        while begun.elapsed() < time {
            let started = Instant::now();
            let is_second_quarter = (time / 4..time / 2).contains(&begun.elapsed());
            match self.mode.trouble {
                Trouble::DeadEndpoint if is_second_quarter && !dead => self.endpoint.die(),
                Trouble::DeadEndpoint if !is_second_quarter && dead => self.endpoint.listen(),
                Trouble::Stops if self.rotations % 10 == 6 => {
                    if let Some(agent) = agent.take() {
                        end(agent);
                    }
                }
                Trouble::Stops if self.rotations % 10 == 9 => {
                    agent.get_or_insert_with(|| self.start());
                }
                _ => {}
            }
            dead = self.mode.trouble == Trouble::DeadEndpoint && is_second_quarter;
            logrotate.run();
            self.rotations += 1;
            if self.copies_and_truncates() {
                self.look_at_copies(logs);
            } else if !self.mode.directives.contains("compress") {
                // Where no script told them, the writers are late.
                writers.reopen();
            }
            thread::sleep(PERIOD.saturating_sub(started.elapsed()));
        }
        if dead {
            self.endpoint.listen();
        }
        agent.unwrap_or_else(|| self.start())
    }

    /// Notes which lines the new copies hold, before the oldest of them are removed.
    fn look_at_copies(&mut self, logs: &[PathBuf]) {
        for log in logs {
            let copy = PathBuf::from(format!("{}.1", log.display()));
            let Ok(inode) = fs::metadata(&copy).map(|metadata| metadata.ino()) else { continue };
            if self.copies.insert(copy.clone(), inode) != Some(inode) {
                self.note_whole_lines(&copy);
            }
        }
    }

    fn note_whole_lines(&mut self, path: &Path) {
        let content = fs::read(path).unwrap();
        let end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.disk.record(&content[..end]);
    }

    /// Waits until all that can arrive has arrived, with a fresh line in every log, and judges.
    fn judge_all(mut self, agent: Agent, logs: &[PathBuf], before: usize) -> Outcome {
        let fresh = Style { rate: 1_000, torn: false };
        let lines = self.oracle.lines();
        let writers = Writers::start(logs, &self.oracle, fresh);
        let fresh = lines + 10 * logs.len() as u64;
        until(|| self.oracle.lines() >= fresh);
        writers.stop();
        if self.copies_and_truncates() {
            for log in logs {
                self.note_whole_lines(log);
            }
        }
        let written = self.oracle.lines();
        let arrived = until(|| {
            if self.copies_and_truncates() {
                self.with_judge(|judge| judge.lacking(&self.disk).1 == 0)
            } else {
                self.with_judge(Judge::arrived) >= written || self.accounts_for_all()
            }
        });
        let (missing, lost) = self.with_judge(|judge| judge.lacking(&self.disk));
        let files = self.with_judge(Judge::missing_files);
        let status = self.home.status(DEADLINE);
        let missed = missed_files(&status);
        let open = descriptors(&agent);
        let stderr = agent.stderr();
        let code = end(agent);
        let report = self.judge.lock().unwrap().take().unwrap().finish();
        let kept = self.disk.finish();
        let mut wrong = self.mode.verdict(&report, &self.endpoint, (missing, lost));
        if !self.mode.copies_and_truncates() {
            wrong.extend(unaccounted(&report, files, missed));
        }
        wrong.extend((!arrived).then(|| format!("not all arrived within {DEADLINE:?}")));
        wrong.extend((code != Some(0)).then(|| format!("exit {code:?}")));
        wrong.extend(unbalanced(&status));
        if !wrong.is_empty() {
            let warnings = stderr.lines().filter(|line| line.contains("WARN"));
            wrong.extend(warnings.take(5).map(str::to_owned));
        }
        let share = |part: u64| 100.0 * part as f64 / report.written as f64;
        let lost = if kept.records > 0 { lost } else { files.lines_of_others };
        let kept = if kept.records > 0 { share(kept.arrived) } else { 100.0 };
        let row = format!(
            "{:32} {:>9} {:>9} {lost:>9} {missed:>9} {:>9}  {kept:6.2} %   {:6.2} %  {before} to {open}",
            self.mode.name,
            self.rotations,
            report.written,
            report.duplicates,
            share(report.arrived),
        );
        Outcome { row, wrong }
    }

    /// Returns true where nothing is missing but all lines of so many files as the agent says that it
    /// could not open in time.
    fn accounts_for_all(&self) -> bool {
        let missing = self.with_judge(Judge::missing_files);
        missing.lines_of_others == 0 && missing.whole <= missed_files(&self.home.status(DEADLINE))
    }

    fn with_judge<T>(&self, look: impl FnOnce(&Judge) -> T) -> T {
        look(self.judge.lock().unwrap().as_ref().unwrap())
    }
}

impl Mode {
    fn copies_and_truncates(&self) -> bool {
        self.directives.contains("copytruncate")
    }

    /// Returns what is wrong with what arrived.
    fn verdict(
        &self,
        report: &Report,
        endpoint: &FaultEndpoint,
        (missing, lost): (Option<String>, u64),
    ) -> Vec<String> {
        let repeatable = endpoint.with_log(Log::unknown_bytes);
        let mut wrong = Vec::new();
        if let Some(missing) = missing {
            wrong.push(format!("{lost} lines that survive are lost, one is {missing}"));
        }
        for (name, marks) in [
            ("torn", &report.unknown),
            ("damaged", &report.damaged),
            ("reordered", &report.reordered),
        ] {
            if marks.count > 0 {
                wrong.push(format!("{name}: {marks:?}"));
            }
        }
        if report.duplicate_bytes > repeatable {
            wrong.push(format!("{} lines repeated", report.duplicates));
        }
        wrong
    }
}

/// Returns how many files a status says went before the agent could open them.
fn missed_files(status: &serde_json::Value) -> u64 {
    status["flows"][0]["missed_files"].as_u64().unwrap()
}

/// Returns what is missing beyond the files that the agent counted as missed. With `rotate 1` the disk
/// keeps a file for as long as two rotations take, and an agent that gets no processor for so long
/// cannot have it; then it must say so.
fn unaccounted(report: &Report, missing: MissingFiles, missed: u64) -> Option<String> {
    let is_sound = missing.lines_of_others == 0 && missing.whole <= missed;
    (!is_sound).then(|| format!("lost, {missed} counted: {missing:?}, {:?}", report.missing))
}

/// Returns what is wrong with the books of a status.
fn unbalanced(status: &serde_json::Value) -> Option<String> {
    let totals = &status["flows"][0]["totals"];
    let number = |name: &str| totals[format!("{name}_bytes")].as_u64().unwrap();
    let parts = ["acknowledged", "in_flight", "dead_lettered", "skipped"];
    let sum: u64 = parts.into_iter().map(number).sum();
    (number("read") != sum).then(|| format!("the books do not balance: {totals}"))
}

/// Ends an agent in order; returns its exit code.
fn end(agent: Agent) -> Option<i32> {
    agent.terminate();
    agent.wait(DEADLINE).code()
}

/// Waits for a condition; false where it does not come true in time.
fn until(mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Returns how many descriptors the agent has open.
fn descriptors(agent: &Agent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.id())).unwrap().count()
}
