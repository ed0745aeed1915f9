//! What a process takes, sampled over a while.

use std::fmt;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::agent::Agent;

/// How often it is looked at.
const PERIOD: Duration = Duration::from_millis(500);

/// What was seen.
#[derive(Debug)]
pub struct Meter {
    /// The most resident memory since the process started, in KiB.
    peak: u64,
    /// Resident memory, sample by sample, in KiB.
    resident: Vec<u64>,
    descriptors: Vec<usize>,
    threads: Vec<u64>,
    /// The share of one core.
    processor: f64,
}

impl Meter {
    /// Looks at an agent for so long.
    #[must_use]
    pub fn over(agent: &Agent, time: Duration) -> Self {
        let id = agent.id();
        let (begun, ticks) = (Instant::now(), ticks(id));
        let mut own = Self {
            peak: 0,
            resident: Vec::new(),
            descriptors: Vec::new(),
            threads: Vec::new(),
            processor: 0.0,
        };
        while begun.elapsed() < time {
            let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
            own.peak = field(&status, "VmHWM:");
            own.resident.push(field(&status, "VmRSS:"));
            own.threads.push(field(&status, "Threads:"));
            own.descriptors.push(fs::read_dir(format!("/proc/{id}/fd")).unwrap().count());
            thread::sleep(PERIOD);
        }
        // A tick is a hundredth of a second wherever Linux runs.
        own.processor = (self::ticks(id) - ticks) as f64 / 100.0 / begun.elapsed().as_secs_f64();
        own
    }

    /// Panics where the agent took more than it may.
    pub fn assert_bounded(&self, memory: u64, growth: u64, descriptors: usize) {
        assert!(self.peak <= memory, "{} KiB at the peak, {memory} KiB allowed", self.peak);
        let second_half = &self.resident[self.resident.len() / 2..];
        let grown = second_half.last().unwrap().saturating_sub(second_half[0]);
        assert!(grown <= growth, "{grown} KiB more at the end: {:?}", self.resident);
        let most = self.most_descriptors();
        assert!(most <= descriptors, "{most} descriptors, {descriptors} allowed");
        let threads = &self.threads[self.threads.len() / 2..];
        let steady = threads.iter().all(|count| count == &threads[0]);
        assert!(steady, "threads come and go: {:?}", self.threads);
    }

    fn most_descriptors(&self) -> usize {
        self.descriptors.iter().copied().max().unwrap_or(0)
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:.1} MiB at the peak, {:.1} to {:.1} MiB resident, {} descriptors, {} threads, {:.1} % of a core",
            self.peak as f64 / 1024.0,
            self.resident[0] as f64 / 1024.0,
            *self.resident.last().unwrap() as f64 / 1024.0,
            self.most_descriptors(),
            self.threads.iter().max().unwrap(),
            self.processor * 100.0,
        )
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn ticks(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields = stat.rsplit(") ").next().unwrap().split(' ').collect::<Vec<_>>();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
