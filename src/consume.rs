//! A stream into files: the tasks and channels between the stages below, and the only wiring.
//!
//! Invariant: no channel is unbounded, and what was read and is not committed is bounded by
//! `read.buffer`; how far a shard is goes to the coordinator once it is committed.
//!
//! ```text
//!  list ──▶ conduct ──▶ read a shard ──▶ ▒ batches ▒ ──▶ write, commit
//!              ▲  ▲          │ tip                            │
//!              │  └──────────┘                                │
//!              └──────────────── done ◀──────────────────────-┘
//! ```

mod conduct;
pub mod coordinate;
mod fan_out;
pub mod leases;
pub mod path;
pub mod received;
pub mod records;
pub mod shards;
pub mod sink;
pub mod source;
pub mod split;
pub mod status;
pub mod subscription;
mod writing;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::task;

use self::conduct::Conductor;
use self::coordinate::Coordinator;
use self::sink::{Commits, Sink, SinkError};
use self::status::Shared;
use self::writing::Writing;
use crate::checkpoint::{Commit, ConsumerCommit, ConsumerRows, Writer};
use crate::config::{Consume, ConsumeStart};
use crate::stream::read::{Place, Subscribable};

/// Batches between reading and writing.
const BATCHES: usize = 64;

/// News of commits on their way back.
const NEWS: usize = 256;

/// What a flow is started with.
#[derive(Debug)]
pub struct Start<R> {
    /// Its configuration.
    pub flow: Consume,
    /// Its stream.
    pub stream: Arc<R>,
    /// What the checkpoint knows of it.
    pub rows: ConsumerRows,
    /// Whether anything the checkpoint knew may have been lost.
    pub damaged: bool,
    /// Where what is written is committed.
    pub writer: Arc<Writer>,
    /// How often.
    pub checkpoint_interval: Duration,
}

/// A running flow.
#[derive(Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    tip: watch::Sender<Option<Instant>>,
    stop: watch::Sender<bool>,
    conducting: Option<task::JoinHandle<()>>,
    writing: Option<JoinHandle<()>>,
    abandon: Arc<AtomicBool>,
}

/// Why a flow cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What it writes to cannot be opened.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A thread cannot be started.
    #[error(transparent)]
    Thread(#[from] io::Error),
}

/// Commits by the writer that all flows share.
struct ByWriter(Arc<Writer>);

impl Commits for ByWriter {
    fn commit(&self, commit: ConsumerCommit) -> Result<(), String> {
        let commit = Commit { consumers: vec![commit], ..Commit::default() };
        match self.0.commit(commit).blocking_recv() {
            Ok(outcome) => outcome.map_err(|rejected| rejected.error.to_string()),
            Err(_) => Err("the committing thread has ended".to_owned()),
        }
    }
}

impl Flow {
    /// Starts the tasks and the thread of a flow, which reads the shards that `coordinator` grants. To be called within a tokio runtime.
    ///
    /// # Errors
    /// A directory that cannot be written, or a thread that cannot be started.
    pub async fn start<R: Subscribable, C: Coordinator>(
        mut start: Start<R>,
        mut coordinator: C,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new(&start.flow));
        let commits = Box::new(ByWriter(Arc::clone(&start.writer)));
        let (flow, rows) = (start.flow.clone(), start.rows.clone());
        let opened = task::spawn_blocking(move || {
            let started = begin(&flow, &rows, &*commits)?;
            Ok::<_, SinkError>((Sink::open(flow, &rows, commits)?, started))
        });
        let (sink, started) = opened.await.map_err(io::Error::other)??;
        start.rows.started = Some(started);
        coordinator.started(started);
        let (orders_in, orders) = mpsc::channel(BATCHES);
        let (done_in, done) = mpsc::channel(NEWS);
        let abandon = Arc::new(AtomicBool::new(false));
        let interval = start.checkpoint_interval;
        let (stopping, fence) = (Arc::clone(&abandon), coordinator.fence());
        let writing = Writing::new(sink, Arc::clone(&shared), interval, done_in, stopping, fence);
        let writing = thread::Builder::new()
            .name(format!("write {}", start.flow.name))
            .spawn(move || writing.run(orders))?;
        let (tip, at_tip) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let place = place(&start);
        let conductor = Conductor::new(
            start,
            coordinator,
            place,
            Arc::clone(&shared),
            orders_in,
            (at_tip, stopped),
        );
        let conducting = Some(tokio::spawn(conductor.run(done)));
        Ok(Self { shared, tip, stop, conducting, writing: Some(writing), abandon })
    }

    /// Returns what can be asked of the flow from elsewhere.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Asks the flow to end once all that is in the stream now is written.
    pub fn end_at_tip(&self) {
        self.tip.send_if_modified(|tip| {
            let is_new = tip.is_none();
            tip.get_or_insert_with(Instant::now);
            is_new
        });
    }

    /// Asks reading to end; what was read is still written.
    pub fn stop_reading(&self) {
        self.stop.send_replace(true);
    }

    /// Resolves when reading has ended and all that was read is committed.
    pub async fn drained(&mut self) {
        if let Some(conducting) = &mut self.conducting {
            // A panic ends the process in production; in a test the flow counts as ended.
            let _ = conducting.await;
            self.conducting = None;
        }
    }

    /// Ends now: what is not committed is read again by the next run.
    pub async fn end(mut self) {
        self.stop_reading();
        self.abandon.store(true, Ordering::Release);
        self.drained().await;
        if let Some(writing) = self.writing.take() {
            let _ = task::spawn_blocking(move || writing.join()).await;
        }
    }
}

/// Notes when a flow started first; returns it, in milliseconds since 1970.
fn begin(flow: &Consume, rows: &ConsumerRows, commits: &dyn Commits) -> Result<u64, SinkError> {
    if let Some(started) = rows.started {
        return Ok(started);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let commit = ConsumerCommit {
        flow: Arc::clone(&flow.name),
        started: Some(started),
        ..ConsumerCommit::default()
    };
    commits.commit(commit).map_err(SinkError::Commit)?;
    Ok(started)
}

/// Returns where shards begin of which nothing is done. `latest` is the time of the very first start:
/// what arrived since then is not skipped, whenever the agent was killed.
fn place<R>(start: &Start<R>) -> Place {
    match (start.flow.start_at, start.rows.started) {
        (ConsumeStart::Time(millis), _) => Place::Time(millis),
        (ConsumeStart::Latest, Some(started)) if !start.damaged => Place::Time(started),
        _ => Place::TrimHorizon,
    }
}
