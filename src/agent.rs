//! The agent: a configuration becomes running flows, and a shutdown drains them.
//!
//! Invariant: the state directory is held from before the first file is opened until after the last
//! commit.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::checkpoint::{self, Store, Writer};
use crate::config::{Aws, Config, Consume, ConsumeStart, Coordinate, LeaseTable, Produce};
use crate::consume::coordinate::Local;
use crate::consume::leases::Leases;
use crate::consume::leases::lease::{Checkpoint, WorkerId};
use crate::consume::leases::table::Table;
use crate::consume::leases::worker::Settings;
use crate::consume::{self, StartError};
use crate::control::StatusSource;
use crate::cost::Prices;
use crate::produce::{Flow, Shared, Start};
use crate::status::Status;
use crate::stream::kinesis::Kinesis;

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Follow the files until told to stop.
    Follow,
    /// Ship what is there, then end.
    Once,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state directory cannot be used, or another agent holds it.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A flow's threads cannot be started.
    #[error("cannot start flow {flow}: {source}")]
    Flow {
        /// The flow.
        flow: String,
        /// Why.
        source: io::Error,
    },
    /// A consuming flow cannot be started.
    #[error("cannot start flow {flow}: {source}")]
    Consumer {
        /// The flow.
        flow: String,
        /// Why.
        source: StartError,
    },
}

impl Error {
    /// Returns true where another agent holds the state directory.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Checkpoint(checkpoint::Error::InUse { .. }))
    }
}

/// Descriptors for what is no followed file: connections, the state directory, inotify, logs.
const DESCRIPTORS_OTHER: u64 = 128;

/// Allows the process as many descriptors as it may have, and returns how many the files of each of
/// so many flows may take. The usual 1,024 are there for programs that use `select`, and a backlog of
/// rotated files needs more: each can be read by its descriptor only.
fn descriptors(flows: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        limit = raised;
    }
    let all = limit.current.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_OTHER);
    usize::try_from(all).unwrap_or(usize::MAX) / flows.max(1)
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    mode: Mode,
    flows: Vec<Flow>,
    consumers: Vec<consume::Flow>,
    handle: Handle,
    writer: Arc<Writer>,
}

/// Answers for a running agent; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    state_dir: PathBuf,
    started: Instant,
    prices: Prices,
    flows: Vec<Arc<Shared>>,
    consumers: Vec<Arc<consume::status::Shared>>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Whether everything that was read is settled.
    pub settled: bool,
    /// Records that were put into the dead-letter store in this run.
    pub dead_lettered: u64,
    /// The last status.
    pub status: Status,
}

impl Agent {
    /// Opens the state directory and starts all flows.
    ///
    /// # Errors
    /// A state directory that cannot be used or is in use, or a thread that cannot be started.
    pub async fn start(config: Config, mode: Mode) -> Result<Self, Error> {
        let store = Store::open(&config.state_dir)?;
        let host = hostname::get()
            .map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned());
        let mut loaded = Vec::new();
        for flow in &config.produce {
            loaded.push((store.load(&flow.name)?, store.is_first_start(&flow.name)?));
        }
        let mut kept = Vec::new();
        for flow in &config.consume {
            kept.push(store.load_consumer(&flow.name)?);
        }
        let keys = store.keys();
        // A flow of either kind has one commit under way at a time.
        let capacity = config.produce.len().saturating_add(config.consume.len());
        let writer = Arc::new(Writer::start(store, capacity)?);
        let mut flows = Vec::new();
        let descriptors = descriptors(config.produce.len());
        for (flow, (rows, first_ever)) in config.produce.iter().zip(loaded) {
            let stream = Kinesis::connect(&config.aws, &flow.stream, flow.ship.timeout).await;
            let start = Start {
                flow: flow.clone(),
                host: host.clone(),
                stream: Arc::new(stream),
                rows,
                first_ever,
                once: mode == Mode::Once,
                descriptors,
                keys: keys.clone(),
                writer: Arc::clone(&writer),
                checkpoint_interval: config.checkpoint_interval,
            };
            flows.push(Flow::start(start).map_err(|source| refused(flow, source))?);
        }
        let mut consumers = Vec::new();
        for (flow, (rows, damaged)) in config.consume.iter().zip(kept) {
            let stream = Kinesis::connect(&config.aws, &flow.stream, flow.read.timeout).await;
            let start = consume::Start {
                flow: flow.clone(),
                stream: Arc::new(stream),
                rows,
                damaged,
                writer: Arc::clone(&writer),
                checkpoint_interval: config.checkpoint_interval,
            };
            let started = match &flow.coordinate {
                Coordinate::Local => consume::Flow::start(start, Local::default()).await,
                Coordinate::DynamoDb(table) => {
                    let leases = leases(&config.aws, flow, table, &host);
                    consume::Flow::start(start, leases).await
                }
            };
            consumers.push(started.map_err(|source| no_consumer(flow, source))?);
        }
        let handle = Handle {
            state_dir: config.state_dir,
            started: Instant::now(),
            prices: config.prices,
            flows: flows.iter().map(Flow::shared).collect(),
            consumers: consumers.iter().map(consume::Flow::shared).collect(),
        };
        Ok(Self { mode, flows, consumers, handle, writer })
    }

    /// Returns a handle that answers for the agent from anywhere.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Resolves when every flow has ended by itself, which only [`Mode::Once`] lets happen: then
    /// consuming flows write all that is in their streams once the producing ones are through.
    pub async fn ended(&mut self) {
        for flow in &mut self.flows {
            flow.drained().await;
        }
        if self.mode == Mode::Once {
            for flow in &self.consumers {
                flow.end_at_tip();
            }
        }
        for flow in &mut self.consumers {
            flow.drained().await;
        }
    }

    /// Resolves when all that was read is settled, once reading has ended.
    async fn drained(&mut self) {
        for flow in &mut self.flows {
            flow.drained().await;
        }
        for flow in &mut self.consumers {
            flow.drained().await;
        }
    }

    /// Stops reading, ships what was read until the deadline, commits, and says how it ended.
    pub async fn shutdown(mut self, deadline: Duration) -> Summary {
        for flow in &self.flows {
            flow.stop_reading();
        }
        for flow in &self.consumers {
            flow.stop_reading();
        }
        // What is not drained by then is given up below; its bytes are still in their files.
        let drained = tokio::time::timeout(deadline, self.drained()).await.is_ok();
        let mut settled = drained;
        for flow in self.flows {
            settled &= flow.end().await.records == 0;
        }
        for flow in self.consumers {
            flow.end().await;
        }
        let status = self.handle.status().await;
        // Closed in order, the database stands in one file, which `status` can read without writing.
        drop(self.writer.close());
        let dead_lettered = status.flows.iter().map(|flow| flow.sent.records_dead_lettered).sum();
        settled &= status.flows.iter().all(|flow| flow.totals.in_flight_bytes == 0);
        Summary { settled, dead_lettered, status }
    }
}

impl StatusSource for Handle {
    async fn status(&self) -> Status {
        let committed: Vec<_> = self.flows.iter().map(|flow| flow.committed()).collect();
        let written: Vec<_> = self.consumers.iter().map(|flow| flow.last_commit()).collect();
        let times = committed.iter().map(|one| one.at).chain(written.iter().map(|(at, _)| *at));
        let oldest = times.flatten().min();
        Status {
            running: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: Some(std::process::id()),
            uptime_seconds: Some(self.started.elapsed().as_secs()),
            state_dir: self.state_dir.display().to_string(),
            checkpoint_error: committed.iter().find_map(|one| one.error.clone()),
            checkpoint_age_seconds: oldest.map(|at| at.elapsed().as_secs_f64()),
            prices: self.prices.as_of.clone(),
            flows: self.flows.iter().map(|flow| flow.status(&self.prices)).collect(),
            consumers: self.consumers.iter().map(|flow| flow.status()).collect(),
        }
    }
}

/// Begins to keep leases for a flow. To be called within a tokio runtime.
fn leases(aws: &Aws, flow: &Consume, table: &LeaseTable, host: &str) -> Leases {
    // No two runs of any agent have one name: a lease of an earlier run is another's.
    let id = WorkerId::from(format!("{host}:{:016x}", fastrand::u64(..)));
    let start = match flow.start_at {
        ConsumeStart::TrimHorizon => Checkpoint::TrimHorizon,
        ConsumeStart::Latest => Checkpoint::Latest,
        ConsumeStart::Time(_) => Checkpoint::AtTimestamp,
    };
    let settings = Settings { id, failover: table.failover, start };
    Leases::start(Table::of(aws, flow, table), table.create, settings)
}

fn refused(flow: &Produce, source: io::Error) -> Error {
    Error::Flow { flow: flow.name.to_string(), source }
}

fn no_consumer(flow: &Consume, source: StartError) -> Error {
    Error::Consumer { flow: flow.name.to_string(), source }
}
