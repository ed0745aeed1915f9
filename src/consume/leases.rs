//! Leases: many agents share the shards of a stream, through a table in DynamoDB.
//!
//! Invariant: what to do with a lease is decided by a [`Worker`], which is pure; here are the clock, the calls
//! and the waiting. A shard is granted while its lease is held, and one that was lost is granted again only
//! after it was seen to be lost.
//!
//! ```text
//!  consume ──▶ Leases ──▶ Worker ◀── keep: scan, write ──▶ Table (DynamoDB)
//! ```

pub mod kcl;
pub mod lease;
pub mod table;
pub mod worker;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time;

use self::lease::{Checkpoint, Lease, Outcome, WorkerId, Write};
use self::table::{Problem, Table};
use self::worker::{Call, Held, Settings, Worker};
use super::coordinate::{Coordinator, Fence, Grant};
use crate::position::{Progress, ShardId};
use crate::stream::read::{Child, Place, Shard};

/// Calls under way at once: with a thousand leases, a renewal of all takes a second or so.
const CALLS: usize = 16;

/// How soon a table that cannot be used is tried again.
const PREPARE_RETRY: Duration = Duration::from_secs(5);

/// The leases of a flow.
#[derive(Debug)]
pub struct Leases {
    shared: Arc<Shared>,
    changes: watch::Receiver<()>,
    told: Option<(Vec<ShardId>, Vec<ShardId>)>,
    listed: Vec<Shard>,
    /// How long giving all back may take: then they run out instead.
    patience: Duration,
    keeping: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    worker: Worker,
    problem: Option<Problem>,
}

/// What came of a call.
enum Answer {
    Scanned(Result<Vec<Lease>, Problem>),
    Written(Box<Write>, Outcome),
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic ends the process in production (`panic = "abort"`).
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fence for Shared {
    fn may_write(&self, shard: &ShardId) -> bool {
        self.state().worker.may_write(shard, Instant::now())
    }
}

impl Leases {
    /// Begins to keep leases in `table`, which is created where `create` says so and it is not there. To be
    /// called within a tokio runtime.
    #[must_use]
    pub fn start(table: Table, create: bool, settings: Settings) -> Self {
        let (id, patience) = (Arc::clone(&settings.id), settings.failover / 2);
        let worker = Worker::new(settings, Rng::new(), Instant::now());
        let state = Mutex::new(State { worker, problem: None });
        let shared = Arc::new(Shared { state, wake: Notify::new() });
        let (tell, changes) = watch::channel(());
        let keeper = Keeper { table: Arc::new(table), id, shared: Arc::clone(&shared), tell };
        let keeping = tokio::spawn(keeper.run(create));
        Self { shared, changes, told: None, listed: Vec::new(), patience, keeping }
    }

    /// Tells the worker something, and its keeper that there is something to do.
    fn tell(&self, tell: impl FnOnce(&mut Worker, Instant)) {
        tell(&mut self.shared.state().worker, Instant::now());
        self.shared.wake.notify_one();
    }

    fn children(&self, shard: &ShardId) -> Vec<Child> {
        let children = self.listed.iter().filter(|listed| listed.parents.contains(shard));
        let child = |shard: &Shard| Child {
            id: shard.id.clone(),
            parents: shard.parents.clone(),
            first_hash: shard.first_hash.clone(),
            last_hash: shard.last_hash.clone(),
        };
        children.map(child).collect()
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

impl Coordinator for Leases {
    fn started(&mut self, at: u64) {
        self.tell(|worker, _| worker.on_started(at));
    }

    fn listed(&mut self, shards: &[Shard]) {
        self.listed = shards.to_vec();
        self.tell(|worker, _| worker.on_listed(shards));
    }

    async fn granted(&mut self) -> Vec<Grant> {
        loop {
            let (held, ended) = {
                let worker = &mut self.shared.state().worker;
                (worker.readable(Instant::now()), worker.ended())
            };
            let names: Vec<ShardId> = held.iter().map(|held| held.shard.clone()).collect();
            // A checkpoint moves without a change of what is granted.
            let now = Some((names, ended));
            if self.told != now {
                self.told = now;
                // What was taken back may be taken again only now.
                self.shared.wake.notify_one();
                return held.iter().map(grant).collect();
            }
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn checkpoint(&mut self, shard: &ShardId, progress: &Progress) {
        self.tell(|worker, now| worker.checkpoint(shard, progress.clone(), now));
    }

    fn finished(&mut self, shard: &ShardId, children: &[Child]) {
        let children = if children.is_empty() { self.children(shard) } else { children.to_vec() };
        self.tell(|worker, now| worker.finish(shard, children, now));
    }

    fn released(&mut self, shard: &ShardId) {
        self.tell(|worker, now| worker.release(shard, now));
    }

    fn expects(&self, shard: &ShardId) -> bool {
        self.shared.state().worker.expects(shard)
    }

    fn ended(&self) -> Vec<ShardId> {
        self.told.as_ref().map(|(_, ended)| ended.clone()).unwrap_or_default()
    }

    fn retire(&mut self) {
        self.tell(|worker, _| worker.retire());
    }

    async fn closed(&mut self) {
        self.tell(Worker::release_all);
        let Self { shared, changes, .. } = self;
        let given_back = async {
            while shared.state().worker.holds_any(Instant::now()) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if time::timeout(self.patience, given_back).await.is_err() {
            tracing::warn!("not all leases could be given back: they run out");
        }
    }

    fn problem(&self) -> Option<String> {
        let state = self.shared.state();
        state.problem.as_ref().map(|problem| format!("shards are not shared: {problem}"))
    }

    fn fence(&self) -> Arc<dyn Fence> {
        Arc::clone(&self.shared) as Arc<dyn Fence>
    }
}

/// What keeps the leases: it makes the calls that the worker wants.
struct Keeper {
    table: Arc<Table>,
    id: WorkerId,
    shared: Arc<Shared>,
    tell: watch::Sender<()>,
}

impl Keeper {
    async fn run(self, create: bool) {
        while let Err(problem) = self.table.prepare(create).await {
            self.note(Some(problem));
            self.tell.send_replace(());
            time::sleep(PREPARE_RETRY).await;
        }
        self.note(None);
        let mut calls = JoinSet::new();
        loop {
            while calls.len() < CALLS {
                let Some(call) = self.shared.state().worker.next(Instant::now()) else { break };
                calls.spawn(make(Arc::clone(&self.table), Arc::clone(&self.id), call));
            }
            self.tell.send_replace(());
            let due = self.shared.state().worker.due();
            let due = due.unwrap_or_else(|| Instant::now() + PREPARE_RETRY);
            tokio::select! {
                Some(Ok((sent, answer))) = calls.join_next() => self.take(sent, answer),
                () = time::sleep_until(due.into()) => {}
                () = self.shared.wake.notified() => {}
            }
        }
    }

    fn take(&self, sent: Instant, answer: Answer) {
        let now = Instant::now();
        match answer {
            Answer::Scanned(Ok(leases)) => {
                self.shared.state().worker.on_scanned(leases, sent, now);
                self.note(None);
            }
            Answer::Scanned(Err(problem)) => {
                let mut state = self.shared.state();
                state.worker.on_scan_failed(now);
                if let Problem::Unusable(_) = problem {
                    // Nothing that is held is renewed: the others must not be disturbed.
                    state.worker.disown();
                }
                drop(state);
                self.note(Some(problem));
            }
            Answer::Written(write, outcome) => {
                if let Outcome::Unknown(reason) = &outcome {
                    tracing::warn!(shard = %write.shard(), reason, "a lease could not be written");
                }
                self.shared.state().worker.on_written(&write, outcome, sent, now);
            }
        }
    }

    fn note(&self, problem: Option<Problem>) {
        let mut state = self.shared.state();
        if state.problem == problem {
            return;
        }
        if let Some(problem) = &problem {
            tracing::error!(%problem, "the leases cannot be used");
        } else {
            tracing::info!("the leases can be used");
        }
        state.problem = problem;
    }
}

async fn make(table: Arc<Table>, id: WorkerId, call: Call) -> (Instant, Answer) {
    let sent = Instant::now();
    let answer = match call {
        Call::Scan => Answer::Scanned(table.scan().await),
        Call::Write(write) => {
            let outcome = table.write(&id, &write).await;
            Answer::Written(write, outcome)
        }
    };
    (sent, answer)
}

fn grant(held: &Held) -> Grant {
    let progress = match &held.checkpoint {
        Checkpoint::At(progress) => Some(progress.clone()),
        _ => None,
    };
    let begin = match held.checkpoint {
        Checkpoint::TrimHorizon => Some(Place::TrimHorizon),
        Checkpoint::Latest => held.since.map(Place::Time),
        _ => None,
    };
    Grant { shard: held.shard.clone(), progress, begin }
}
