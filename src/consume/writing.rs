//! The writing thread: batches in, commits out, and patience with a disk that is full.
//!
//! Invariant: a batch is held until it is committed; where writing fails, all since the last commit is
//! taken back and written again, until it succeeds or the flow ends. So nothing is torn and nothing
//! is left out. What was read of a shard that is another agent's by now is not written, nor anything
//! that follows it, until its reader has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::coordinate::Fence;
use super::records::Batch;
use super::sink::{Sink, SinkError};
use super::status::Shared;
use crate::position::{Progress, ShardId};
use crate::stream::read::Child;

/// Bytes written and not yet committed at most; then it is time for a commit, whatever the interval.
const UNCOMMITTED: u64 = 16 << 20;

/// The pause between two tries of writing, where it fails.
const RETRY: Duration = Duration::from_secs(1);

/// How often the pause is interrupted to see whether the flow ends.
const LOOK: Duration = Duration::from_millis(20);

/// What the writing thread is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Write a batch.
    Batch(Item),
    /// No more of the shard is to come: commit, and say so.
    Release(ShardId),
    /// Time has passed: commit what is due.
    Tick,
}

/// A batch on its way, with the memory that it takes.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) shard: ShardId,
    pub(super) batch: Batch,
    pub(super) _memory: Option<OwnedSemaphorePermit>,
}

/// What has been done.
#[derive(Debug)]
pub(super) enum Done {
    /// The shard is committed up to here.
    Committed { shard: ShardId, progress: Progress },
    /// All of the shard is committed; these go on where it ended.
    Finished { shard: ShardId, children: Vec<Child> },
    /// All that was read of the shard is committed, or given up.
    Released(ShardId),
}

/// The writing of one flow.
#[derive(Debug)]
pub(super) struct Writing {
    sink: Sink,
    shared: Arc<Shared>,
    interval: Duration,
    done: mpsc::Sender<Done>,
    /// Set where what is not committed is to be given up.
    abandon: Arc<AtomicBool>,
    fence: Arc<dyn Fence>,
    /// Shards of which something was dropped, until their readers have ended: what comes meanwhile has a
    /// gap before it, whoever holds the shard then.
    lost: BTreeSet<ShardId>,
    group: Vec<Item>,
    bytes: u64,
    since: Instant,
}

impl Writing {
    pub(super) fn new(
        sink: Sink,
        shared: Arc<Shared>,
        interval: Duration,
        done: mpsc::Sender<Done>,
        abandon: Arc<AtomicBool>,
        fence: Arc<dyn Fence>,
    ) -> Self {
        Self {
            sink,
            shared,
            interval,
            done,
            abandon,
            fence,
            lost: BTreeSet::new(),
            group: Vec::new(),
            bytes: 0,
            since: Instant::now(),
        }
    }

    /// Writes until nobody sends any more, commits the rest, and ends.
    pub(super) fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        self.publish();
        while let Some(order) = orders.blocking_recv() {
            match order {
                Order::Batch(item) => self.take(item),
                Order::Release(shard) => {
                    self.commit();
                    self.lost.remove(&shard);
                    self.tell(Done::Released(shard));
                }
                Order::Tick => {}
            }
            let is_due = self.since.elapsed() >= self.interval || self.bytes >= UNCOMMITTED;
            if is_due {
                self.commit();
            }
        }
        self.commit();
    }

    fn take(&mut self, item: Item) {
        if self.group.is_empty() {
            self.since = Instant::now();
        }
        if self.is_lost(&item.shard) {
            self.drop_item(item);
            return;
        }
        self.bytes = self.bytes.saturating_add(item.batch.bytes());
        let outcome = self.sink.write(&item.shard, &item.batch, now());
        self.group.push(item);
        if let Err(error) = outcome {
            self.again(error);
        }
    }

    fn commit(&mut self) {
        if self.group.is_empty() && self.sink.is_committed() {
            self.since = Instant::now();
            self.shared.committed();
            return;
        }
        let outcome =
            if self.drop_lost() { self.try_again() } else { self.sink.commit(now()).map(drop) };
        match outcome {
            Ok(()) => self.committed(),
            Err(error) => self.again(error),
        }
    }

    fn is_lost(&self, shard: &ShardId) -> bool {
        self.lost.contains(shard) || !self.fence.may_write(shard)
    }

    /// Drops what was written and not committed of shards that are lost. Returns true where there is any:
    /// the rest is to be written again.
    fn drop_lost(&mut self) -> bool {
        let shards: BTreeSet<&ShardId> = self.group.iter().map(|item| &item.shard).collect();
        let lost: BTreeSet<ShardId> =
            shards.into_iter().filter(|shard| self.is_lost(shard)).cloned().collect();
        let (lost, kept): (Vec<Item>, Vec<Item>) = std::mem::take(&mut self.group)
            .into_iter()
            .partition(|item| lost.contains(&item.shard));
        self.group = kept;
        let any = !lost.is_empty();
        for item in lost {
            self.drop_item(item);
        }
        any
    }

    fn drop_item(&mut self, item: Item) {
        if item.batch.end.is_none() {
            self.lost.insert(item.shard);
            return;
        }
        // Its reader has ended by itself.
        self.lost.remove(&item.shard);
        self.tell(Done::Released(item.shard));
    }

    /// Writes all since the last commit again, until it is committed.
    fn again(&mut self, error: SinkError) {
        let mut error = error;
        loop {
            self.shared.writing_failed(&error);
            // Meanwhile the files end where they were committed. Where that fails it is done before the next
            // try.
            let _ = self.sink.roll_back();
            if !self.pause() {
                // It was not committed, and is read again by the next run.
                self.group.clear();
                return;
            }
            match self.try_again() {
                Ok(()) => break,
                Err(next) => error = next,
            }
        }
        self.committed();
    }

    /// Takes back all since the last commit, writes again what is still to be written, and commits it.
    fn try_again(&mut self) -> Result<(), SinkError> {
        self.drop_lost();
        self.sink.roll_back()?;
        // To no purpose it would be written, and cut off again, time after time.
        self.sink.check_room(self.group.iter().map(|item| item.batch.bytes()).sum())?;
        for item in &self.group {
            self.sink.write(&item.shard, &item.batch, now())?;
        }
        self.sink.commit(now()).map(drop)
    }

    /// Waits for the next try. Returns false where the flow is to end instead.
    fn pause(&self) -> bool {
        let until = Instant::now() + RETRY;
        while Instant::now() < until {
            if self.abandon.load(Ordering::Acquire) {
                return false;
            }
            thread::sleep(LOOK);
        }
        !self.abandon.load(Ordering::Acquire)
    }

    /// Tells whoever coordinates how far the shards are, once each.
    fn committed(&mut self) {
        let mut reached: BTreeMap<ShardId, Progress> = BTreeMap::new();
        let mut ended = Vec::new();
        for Item { shard, batch, .. } in self.group.drain(..) {
            if let Some(progress) = batch.progress() {
                reached.insert(shard.clone(), progress);
            }
            ended.extend(batch.end.map(|children| (shard, children)));
        }
        self.bytes = 0;
        self.since = Instant::now();
        self.publish();
        for (shard, progress) in reached {
            self.shared.advanced(&shard, Some(&progress), false);
            self.tell(Done::Committed { shard, progress });
        }
        for (shard, children) in ended {
            self.shared.advanced(&shard, None, true);
            self.tell(Done::Finished { shard, children });
        }
        self.shared.committed();
    }

    fn tell(&self, done: Done) {
        // Nobody listens any more where the flow has ended.
        let _ = self.done.blocking_send(done);
    }

    fn publish(&self) {
        let sink = &self.sink;
        self.shared.written(sink.tallies(), sink.formats(), sink.generations(), sink.file_count());
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
