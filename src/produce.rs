//! Files into a stream: the threads and channels between the stages below, and the only wiring.
//!
//! Invariant: every queue between two stages is bounded, and what ends a stage ends the ones behind it
//! in order: each stage ends when its input does, after it has passed on all it held.
//!
//! ```text
//!   thread tail ──▶ crossbeam, CHUNKS ──▶ thread merge ──▶ tokio, QUEUED ──▶ task ship ──▶ Ledger
//!        ▲                                                                                     │
//!        └──────────────── Progress: what is settled ◀──────────────────────────────────────────┤
//!                                                        task commit, each interval ◀──────────┘
//! ```
//!
//! A flow has two threads of its own, so that a directory that hangs, or a stream that takes nothing,
//! holds up no other flow.

pub mod acknowledge;
pub mod merge;
pub mod ship;
#[cfg(test)]
mod simulation;
pub mod tail;
pub mod watch;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use tokio::sync::{Notify, mpsc, oneshot, watch as latest};
use tokio::task;
use tracing::Instrument;

use self::acknowledge::Ledger;
use self::merge::{Merger, RecordLimit};
use self::ship::{Receipt, Shipper, Sink, Snapshot, Unsettled};
use self::tail::buffer::Budget;
use self::tail::tailer::{Surroundings, Tailer};
use self::tail::wake::Wake;
use self::tail::{FileEvent, TailStatus};
use crate::checkpoint::{Commit, FileRow, KeyAllocator, Writer};
use crate::config::Produce;
use crate::cost::Prices;
use crate::position::Run;
use crate::status::FlowStatus;
use crate::stream::Stream;
use crate::stream::aggregating::Aggregating;

/// Chunks and news of files between reading and merging: enough that neither waits for the other where
/// hundreds of small files come at once. The flow's budget bounds their bytes.
const CHUNKS: usize = 64;

/// Bytes of records between merging and shipping, where they are full. Those that were put together
/// from several chunks are in nobody's budget but this.
const QUEUED: usize = 8 * 1024 * 1024;

/// The most records there, for those that are small: one full call.
const RECORDS: usize = 500;

/// How often a stream is asked for its properties again.
const DESCRIBE_INTERVAL: Duration = Duration::from_mins(5);

/// How soon it is asked again where it did not answer.
const DESCRIBE_RETRY: Duration = Duration::from_secs(10);

/// The stack of a flow's thread: no stage recurses, and memory is promised to stay small.
const STACK: usize = 256 * 1024;

/// What a flow is started with.
#[derive(Debug)]
pub struct Start<S> {
    /// Its configuration.
    pub flow: Produce,
    /// The host's name, for partition keys.
    pub host: String,
    /// Its stream.
    pub stream: Arc<S>,
    /// What the checkpoint knows of its files.
    pub rows: Vec<FileRow>,
    /// Whether it has never run before.
    pub first_ever: bool,
    /// Whether it ends when all that is there has been shipped.
    pub once: bool,
    /// The most descriptors that its files may have.
    pub descriptors: usize,
    /// Numbers for new files.
    pub keys: KeyAllocator,
    /// Where positions are committed.
    pub writer: Arc<Writer>,
    /// How often.
    pub checkpoint_interval: Duration,
}

/// A running flow.
#[derive(Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    shipping: Option<task::JoinHandle<Unsettled>>,
    stop_shipping: Option<oneshot::Sender<()>>,
    committing: task::JoinHandle<()>,
    stop_committing: oneshot::Sender<()>,
    describing: task::AbortHandle,
    unsettled: Unsettled,
}

/// What is asked of a flow from outside while it runs.
#[derive(Debug)]
pub struct Shared {
    name: Arc<str>,
    stream: String,
    ledger: Mutex<Ledger>,
    tail: Arc<TailStatus>,
    sent: latest::Receiver<Snapshot>,
    stop: Arc<AtomicBool>,
    wake: Arc<Wake>,
    writer: Arc<Writer>,
    committed: Mutex<Committed>,
    /// Told when the files of the first scan are in the ledger.
    scanned: Notify,
}

/// How the last commit of a flow went.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// When everything was committed last.
    pub at: Option<Instant>,
    /// Why the last one did not go through.
    pub error: Option<String>,
}

impl Flow {
    /// Starts the threads and tasks of a flow. To be called within a tokio runtime.
    ///
    /// # Errors
    /// A thread that cannot be started, or a pattern that does not compile.
    pub fn start<S: Stream>(start: Start<S>) -> io::Result<Self> {
        let wake = Arc::new(Wake::new());
        let limit = Arc::new(RecordLimit::default());
        let (snapshots, sent) = latest::channel(Snapshot::default());
        let shared = Arc::new(Shared::new(&start, &wake, sent));
        let (chunks_in, chunks) = bounded(CHUNKS);
        let queued = QUEUED.checked_div(start.flow.merge.max_bytes).unwrap_or(RECORDS);
        let (records_in, records) = mpsc::channel(queued.clamp(2, RECORDS));
        let budget = Budget::new(start.flow.tail.buffer, Arc::clone(&wake));
        let around = Surroundings {
            descriptors: start.descriptors,
            output: chunks_in,
            budget: Arc::clone(&budget),
            wake: Arc::clone(&wake),
            keys: start.keys.clone(),
            limit: Arc::clone(&limit),
            status: Arc::clone(&shared.tail),
            stop: Arc::clone(&shared.stop),
        };
        let mode = (start.first_ever, start.once);
        let tailer = Tailer::new(start.flow.clone(), around, &start.rows, mode, Instant::now())
            .map_err(io::Error::other)?;
        let merged_into = Arc::clone(&budget);
        let merger =
            Merger::new(&start.flow, &start.host, Arc::clone(&limit), fastrand::Rng::new());
        let reading = tracing::info_span!("reading", flow = &*start.flow.name);
        let shipping_span = tracing::info_span!("shipping", flow = &*start.flow.name);
        let threads = vec![
            spawn(format!("tail {}", start.flow.name), move || reading.in_scope(|| tailer.run()))?,
            spawn(format!("merge {}", start.flow.name), move || {
                merge(merger, &chunks, &records_in, &merged_into);
            })?,
        ];
        let (stop_shipping, stop) = oneshot::channel();
        let (limits, joins) = (start.flow.ship.clone(), start.flow.merge.joins());
        let shipper = Shipper::new(limits, start.flow.tail.buffer, joins, fastrand::Rng::new());
        let mut sink = Books { shared: Arc::clone(&shared), budget };
        let stream = Arc::new(Aggregating::new(start.stream, start.flow.merge.aggregates()));
        let told = Arc::clone(&stream);
        let shipping = async move {
            let stopped = async move {
                // A dropped sender means that nobody will ever say stop.
                if stop.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            ship::run(shipper, stream, records, &mut sink, &snapshots, stopped).await
        };
        let shipping = tokio::spawn(shipping.instrument(shipping_span.clone()));
        let (stop_committing, stop) = oneshot::channel();
        let interval = start.checkpoint_interval;
        let committing = tokio::spawn(commit_regularly(Arc::clone(&shared), interval, stop));
        let describing =
            describe_regularly(told, limit, start.flow.stream).instrument(shipping_span);
        Ok(Self {
            shared,
            threads,
            shipping: Some(shipping),
            stop_shipping: Some(stop_shipping),
            committing,
            stop_committing,
            describing: tokio::spawn(describing).abort_handle(),
            unsettled: Unsettled::default(),
        })
    }

    /// Returns what can be asked of the flow from elsewhere.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Asks reading to end at the next line; what was read is still shipped.
    pub fn stop_reading(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.ring();
    }

    /// Resolves when everything that was read is settled and reading has ended.
    pub async fn drained(&mut self) {
        if let Some(shipping) = &mut self.shipping {
            // A panic ends the process in production; in a test the flow counts as ended.
            self.unsettled = shipping.await.unwrap_or_default();
            self.shipping = None;
        }
    }

    /// Ends shipping now, commits what is settled, and joins the threads. Returns what was held and
    /// not settled: it is still in its files, before their checkpoints.
    pub async fn end(mut self) -> Unsettled {
        self.stop_reading();
        if let Some(stop) = self.stop_shipping.take() {
            let _ = stop.send(());
        }
        self.drained().await;
        self.describing.abort();
        // A commit that is under way is waited for, not cut off: only when it has ended can the
        // last one take what was settled since. The task has no other way to end.
        drop(self.stop_committing);
        let _ = self.committing.await;
        self.shared.commit().await;
        // With the receiving sides gone, both threads end at their next step. A thread that hangs in
        // the file system is left behind: the process is about to end, and nothing waits for it.
        let deadline = Instant::now() + Duration::from_millis(200);
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.unsettled
    }
}

impl Shared {
    fn new<S>(start: &Start<S>, wake: &Arc<Wake>, sent: latest::Receiver<Snapshot>) -> Self {
        let stream: Arc<str> = Arc::from(start.flow.stream.as_str());
        let mut ledger = Ledger::new(Arc::clone(&start.flow.name), stream);
        for row in &start.rows {
            ledger.restore(row);
        }
        Self {
            name: Arc::clone(&start.flow.name),
            stream: start.flow.stream.clone(),
            ledger: Mutex::new(ledger),
            tail: Arc::new(TailStatus::default()),
            sent,
            stop: Arc::new(AtomicBool::new(false)),
            wake: Arc::clone(wake),
            writer: Arc::clone(&start.writer),
            committed: Mutex::default(),
            scanned: Notify::new(),
        }
    }

    /// Returns what the flow says of itself, its costs at `prices`.
    #[must_use]
    pub fn status(&self, prices: &Prices) -> FlowStatus {
        let snapshot = self.sent.borrow().clone();
        let sent = snapshot.sent(Instant::now());
        let ledger = self.ledger();
        let mut problems: Vec<String> = snapshot.problem.iter().cloned().collect();
        problems.extend(self.tail.problems());
        FlowStatus {
            name: self.name.to_string(),
            stream: self.stream.clone(),
            watching: self.tail.watching().to_owned(),
            missed_files: self.tail.missed_files(),
            problems,
            files: ledger.files(),
            totals: ledger.totals(),
            cost: sent.cost(prices),
            sent,
        }
    }

    /// Returns how the last commit of positions went.
    #[must_use]
    pub fn committed(&self) -> Committed {
        lock(&self.committed).clone()
    }

    /// Commits what has changed since the last commit; what fails is offered again by the next.
    async fn commit(&self) {
        loop {
            let Some(commit) = self.ledger().take_commit() else { break };
            if !self.write(commit).await {
                return;
            }
            if !self.ledger().has_rest() {
                break;
            }
        }
        lock(&self.committed).at = Some(Instant::now());
    }

    /// Returns true where it was written.
    async fn write(&self, commit: Commit) -> bool {
        let offered = commit.clone();
        // No answer: the committing thread is gone, and nothing was written.
        let outcome = match self.writer.commit(commit).await {
            Ok(outcome) => {
                outcome.map_err(|rejected| (*rejected.commit, rejected.error.to_string()))
            }
            Err(_) => Err((offered, "the committing thread has ended".to_owned())),
        };
        match outcome {
            Ok(()) => {
                self.ledger().committed();
                lock(&self.committed).error = None;
                true
            }
            Err((commit, error)) => {
                self.ledger().commit_failed(commit);
                lock(&self.committed).error = Some(error);
                false
            }
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

/// Takes the ends of journeys into the ledger.
#[derive(Debug)]
struct Books {
    shared: Arc<Shared>,
    budget: Arc<Budget>,
}

impl Books {
    /// Returns how many bytes of the budget are free by it.
    fn settle(&self, receipt: Receipt) -> u64 {
        let mut ledger = self.shared.ledger();
        match receipt {
            Receipt::Accepted(record) => {
                ledger.accepted(&record.runs);
                record.held_text()
            }
            Receipt::Poisoned(record, reason) => {
                tracing::error!(
                    flow = &*self.shared.name,
                    reason,
                    bytes = record.data.len(),
                    "a record was put into the dead-letter store"
                );
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                ledger.dead_lettered(&record, &reason, now.as_secs());
                record.held_text()
            }
        }
    }
}

impl Sink for Books {
    fn on_file(&mut self, event: FileEvent) {
        self.shared.ledger().on_file(&event);
        if matches!(event, FileEvent::Scanned) {
            self.shared.scanned.notify_one();
        }
    }

    fn on_receipt(&mut self, receipt: Receipt) {
        let bytes = self.settle(receipt);
        self.budget.settled(bytes);
    }

    fn on_skipped(&mut self, run: Run) {
        self.shared.ledger().skipped(&run);
        self.budget.settled(run.span.len());
    }
}

/// The merging thread: ends when reading has ended, or when nobody takes records any more.
fn merge(
    mut merger: Merger,
    chunks: &Receiver<tail::Output>,
    records: &mpsc::Sender<merge::Output>,
    budget: &Budget,
) {
    let mut out = Vec::new();
    loop {
        let received = match merger.next_deadline() {
            Some(deadline) => chunks.recv_deadline(deadline),
            None => chunks.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            // What it was short of has come back meanwhile.
            Ok(tail::Output::Starved) if budget.is_ample() => {}
            Ok(output) => {
                budget.taken(output.bytes());
                merger.on_input(output, &mut out);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                merger.flush(&mut out);
                let _ = pass_on(&mut out, records, budget);
                return;
            }
        }
        // Not only at a timeout: chunks that never cease must not keep an old line waiting.
        merger.on_tick(Instant::now(), &mut out);
        if pass_on(&mut out, records, budget).is_err() {
            return;
        }
    }
}

fn pass_on(
    out: &mut Vec<merge::Output>,
    records: &mpsc::Sender<merge::Output>,
    budget: &Budget,
) -> Result<(), mpsc::error::SendError<merge::Output>> {
    out.drain(..).try_for_each(|output| {
        if let merge::Output::Record(record) = &output {
            // What compression has saved is free already. The rest is when the record is settled.
            let saved = record.saved_text();
            if saved > 0 {
                budget.settled(saved);
            }
        }
        records.blocking_send(output)
    })
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // The kernel shows 15 bytes of a thread's name.
    thread::Builder::new().name(name).stack_size(STACK).spawn(body)
}

/// Commits each interval, and ends between two commits, once the sender of `stop` is gone. What the first
/// scan has found is committed at once: should the agent be killed in its first interval, the next one
/// knows its files, whatever they are called by then.
async fn commit_regularly(
    shared: Arc<Shared>,
    interval: Duration,
    mut stop: oneshot::Receiver<()>,
) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = &mut stop => return,
            () = shared.scanned.notified() => {}
            _ = ticks.tick() => {}
        }
        shared.commit().await;
    }
}

/// Keeps the record limit at what the stream says; what it does not tell stays at the service's default.
async fn describe_regularly<S: Stream>(stream: Arc<S>, limit: Arc<RecordLimit>, name: String) {
    let mut told = None;
    loop {
        let pause = match stream.describe().await {
            Ok(description) => {
                let kib = description.max_record_kib.unwrap_or(1024);
                limit.set(usize::try_from(kib).unwrap_or(1024).saturating_mul(1024));
                DESCRIBE_INTERVAL
            }
            Err((_, message)) => {
                if told.as_ref() != Some(&message) {
                    tracing::warn!(stream = name, message, "the stream does not tell its limits");
                    told = Some(message);
                }
                DESCRIBE_RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic ends the process in production (`panic = "abort"`).
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
