//! Conducting: one task that knows the shards, asks the coordinator, and starts and stops readers.
//!
//! Invariant: the coordinator is called by this task alone; a shard counts as finished once its last
//! record is committed, and is given back once all that was read of it is. Of what is pushed, no shard
//! holds more than an event beside the memory of the flow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{self, MissedTickBehavior};

use super::Start;
use super::coordinate::{Coordinator, Grant};
use super::fan_out::{Consumer, Subscribed};
use super::records::{Pace, Reader};
use super::shards::{Shards, Stage};
use super::source::{News, Polling, Source};
use super::status::Shared;
use super::subscription::Subscriber;
use super::writing::{Done, Item, Order};
use crate::position::{Progress, ShardId};
use crate::stream::read::{Place, ReadError, Readable, Shard, Subscribable};

/// How often shards are listed: children are told of by the last reply of their parents, so this is
/// for what was missed.
const LIST_INTERVAL: Duration = Duration::from_secs(30);

/// How soon they are listed again where that failed.
const LIST_RETRY: Duration = Duration::from_secs(1);

/// The memory of a batch is counted in this unit.
const MEMORY_UNIT: usize = 4096;

/// The least and the most memory that a read is given before it is known what it brings: from a few
/// records to the largest reply.
const EXPECTED: (usize, usize) = (16 << 10, 10 << 20);

/// What readers tell.
#[derive(Debug)]
enum Told {
    /// At the time of the read that began then, nothing more was in the shard.
    Tip(ShardId, Instant),
    /// The reader has ended.
    Ended(ShardId),
}

type Listing = Result<Vec<Shard>, ReadError>;

/// The conductor of a flow.
#[derive(Debug)]
pub(super) struct Conductor<R, C> {
    stream: Arc<R>,
    coordinator: C,
    shared: Arc<Shared>,
    shards: Shards,
    place: Place,
    pace: Pace,
    /// Whom the shards are pushed to; they are asked where there is none.
    consumer: Option<Arc<Consumer>>,
    progress: BTreeMap<ShardId, Progress>,
    /// Where granted shards begin that do not begin where the flow starts.
    begins: BTreeMap<ShardId, Place>,
    memory: Memory,
    orders: mpsc::Sender<Order>,
    readers: BTreeMap<ShardId, watch::Sender<bool>>,
    reading: JoinSet<()>,
    at_tip: BTreeSet<ShardId>,
    tip: watch::Receiver<Option<Instant>>,
    stop: watch::Receiver<bool>,
    tick: Duration,
    listed: bool,
    /// Whether the coordinator has answered to a list.
    ready: bool,
    relist: Arc<Notify>,
}

impl<R: Subscribable, C: Coordinator> Conductor<R, C> {
    pub(super) fn new(
        start: Start<R>,
        coordinator: C,
        place: Place,
        shared: Arc<Shared>,
        orders: mpsc::Sender<Order>,
        (tip, stop): (watch::Receiver<Option<Instant>>, watch::Receiver<bool>),
    ) -> Self {
        let read = &start.flow.read;
        let mut shards = Shards::default();
        let mut progress = BTreeMap::new();
        for row in start.rows.shards {
            shared.advanced(&row.shard, row.progress.as_ref(), row.finished);
            if row.finished {
                shards.restore_finished(row.shard.clone());
            }
            if let Some(done) = row.progress {
                progress.insert(row.shard, done);
            }
        }
        Self {
            stream: start.stream,
            coordinator,
            shared,
            shards,
            place,
            pace: Pace { poll: read.poll_interval, backoff_max: read.backoff_max },
            consumer: start.flow.fan_out.clone().map(|name| Arc::new(Consumer::new(name))),
            progress,
            begins: BTreeMap::new(),
            memory: Memory::new(read.buffer),
            orders,
            readers: BTreeMap::new(),
            reading: JoinSet::new(),
            at_tip: BTreeSet::new(),
            tip,
            stop,
            tick: start.checkpoint_interval,
            listed: false,
            ready: false,
            relist: Arc::new(Notify::new()),
        }
    }

    /// Runs until it is told to stop or all that was wanted is written.
    pub(super) async fn run(mut self, mut done: mpsc::Receiver<Done>) {
        let (lists_in, mut lists) = mpsc::channel(1);
        let (told_in, mut told) = mpsc::channel(64);
        let listing = list(Arc::clone(&self.stream), Arc::clone(&self.relist), lists_in);
        let listing = tokio::spawn(listing);
        let mut ticks = time::interval(self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_through() {
            tokio::select! {
                () = stopped(&mut self.stop) => break,
                changed = self.tip.changed() => if changed.is_err() { break },
                Some(listed) = lists.recv() => self.on_listed(listed),
                grants = self.coordinator.granted() => self.on_granted(grants),
                Some(done) = done.recv() => self.on_done(done),
                Some(told) = told.recv() => self.on_told(told),
                _ = ticks.tick() => {
                    // Where it finds no room, batches are on their way, and with them a commit.
                    let _ = self.orders.try_send(Order::Tick);
                }
            }
            self.start_readers(&told_in);
            self.shared.staged(self.shards.iter());
            self.shared.coordinated(self.coordinator.problem());
        }
        listing.abort();
        drop(told_in);
        self.finish(done, told).await;
    }

    /// Stops all readers, and sees what they read committed and their shards given back.
    async fn finish(mut self, mut done: mpsc::Receiver<Done>, mut told: mpsc::Receiver<Told>) {
        self.coordinator.retire();
        let all: Vec<ShardId> = self.readers.keys().cloned().collect();
        self.halt(&all);
        let (closed, _) = mpsc::channel(1);
        // The writing thread ends, and with it `done`, once nobody sends batches any more.
        self.orders = closed;
        let (mut telling, mut committing) = (true, true);
        while telling || committing {
            tokio::select! {
                news = told.recv(), if telling => telling = news.is_some(),
                news = done.recv(), if committing => match news {
                    Some(news) => self.on_done(news),
                    None => committing = false,
                },
            }
        }
        while self.reading.join_next().await.is_some() {}
        self.coordinator.closed().await;
        self.shared.staged(self.shards.iter());
    }

    /// Returns true where all that was in the stream when that was asked for is written.
    fn is_through(&self) -> bool {
        let is_done = |(id, stage): (&ShardId, Stage)| match stage {
            Stage::Finished => true,
            Stage::Reading => self.at_tip.contains(id),
            Stage::Waiting => !self.coordinator.expects(id),
        };
        self.tip.borrow().is_some() && self.ready && self.shards.iter().all(is_done)
    }

    fn on_listed(&mut self, listed: Listing) {
        self.shared.listed(listed.as_ref().map(|_| ()));
        let Ok(listed) = listed else { return };
        for gone in self.shards.on_listed(&listed) {
            self.progress.remove(&gone);
        }
        self.coordinator.listed(&listed);
        self.listed = true;
        self.repeat_ends();
    }

    fn on_granted(&mut self, grants: Vec<Grant>) {
        self.begins.clear();
        for grant in &grants {
            self.further(&grant.shard, grant.progress.as_ref());
            if let Some(begin) = &grant.begin {
                self.begins.insert(grant.shard.clone(), begin.clone());
            }
        }
        let lost = self.shards.on_granted(grants.into_iter().map(|grant| grant.shard));
        self.shards.on_ended(self.coordinator.ended());
        self.halt(&lost);
        self.ready |= self.listed;
        self.repeat_ends();
    }

    /// An agent that was killed after it committed the end of a shard has not told of it; its children are
    /// known once shards are listed.
    fn repeat_ends(&mut self) {
        if self.listed {
            for shard in self.shards.granted_in_vain() {
                self.coordinator.finished(&shard, &[]);
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Committed { shard, progress } => {
                self.further(&shard, Some(&progress));
                self.coordinator.checkpoint(&shard, &progress);
            }
            Done::Finished { shard, children } => {
                self.coordinator.finished(&shard, &children);
                self.shards.on_finished(&shard, &children);
                self.relist.notify_one();
            }
            Done::Released(shard) => {
                self.shards.on_stopped(&shard);
                self.coordinator.released(&shard);
            }
        }
    }

    fn on_told(&mut self, told: Told) {
        match told {
            Told::Tip(shard, asked) => {
                if self.tip.borrow().is_some_and(|tip| asked >= tip) {
                    self.at_tip.insert(shard);
                }
            }
            Told::Ended(shard) => {
                self.readers.remove(&shard);
            }
        }
        while self.reading.try_join_next().is_some() {}
    }

    fn further(&mut self, shard: &ShardId, progress: Option<&Progress>) {
        let Some(progress) = progress else { return };
        let is_further = self.progress.get(shard).is_none_or(|known| progress.is_beyond(known));
        if is_further {
            self.progress.insert(shard.clone(), progress.clone());
        }
    }

    fn halt(&mut self, shards: &[ShardId]) {
        for reader in shards.iter().filter_map(|shard| self.readers.get(shard)) {
            reader.send_replace(true);
        }
    }

    fn start_readers(&mut self, told: &mpsc::Sender<Told>) {
        for shard in self.shards.start() {
            let (now, rng) = (Instant::now(), Rng::new());
            let progress = self.progress.get(&shard);
            let place = self.begins.get(&shard).unwrap_or(&self.place).clone();
            let (halt, halted) = watch::channel(false);
            let reading = Reading {
                shard: shard.clone(),
                shared: Arc::clone(&self.shared),
                memory: self.memory.clone(),
                orders: self.orders.clone(),
                told: told.clone(),
                expected: EXPECTED.0,
            };
            tracing::info!(flow = self.shared.name(), %shard, "reading a shard");
            let (stream, id) = (Arc::clone(&self.stream), shard.clone());
            if let Some(consumer) = &self.consumer {
                let longest = self.pace.backoff_max;
                let subscriber = Subscriber::new(place, progress, longest, now, rng);
                let source = Subscribed::new(stream, Arc::clone(consumer), id, subscriber);
                self.reading.spawn(reading.run(source, halted));
            } else {
                let reader = Reader::new(place, progress, self.pace, now, rng);
                self.reading.spawn(reading.run(Polling::new(stream, id, reader), halted));
            }
            self.readers.insert(shard, halt);
        }
    }
}

/// Lists the shards again and again, at once where that is asked for.
async fn list<R: Readable>(stream: Arc<R>, relist: Arc<Notify>, lists: mpsc::Sender<Listing>) {
    loop {
        let listed = stream.list().await;
        let pause = if listed.is_ok() { LIST_INTERVAL } else { LIST_RETRY };
        if lists.send(listed).await.is_err() {
            return;
        }
        // A second at least between two calls.
        time::sleep(LIST_RETRY).await;
        let _ = time::timeout(pause, relist.notified()).await;
    }
}

/// Resolves once `stop` says so; never where nobody will ever say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The reading of one shard.
struct Reading {
    shard: ShardId,
    shared: Arc<Shared>,
    memory: Memory,
    orders: mpsc::Sender<Order>,
    told: mpsc::Sender<Told>,
    expected: usize,
}

impl Reading {
    async fn run<S: Source>(mut self, mut source: S, mut halted: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut halted) => {
                // A subscription ends with it.
                drop(source);
                // Behind all that was read of it: once that is committed, it is given back.
                let _ = self.orders.send(Order::Release(self.shard.clone())).await;
            }
            () = self.read(&mut source) => {}
        }
        let _ = self.told.send(Told::Ended(self.shard)).await;
    }

    async fn read<S: Source>(&mut self, source: &mut S) {
        loop {
            let reserved = if S::PUSHED {
                // Who waits for what is pushed holds nothing meanwhile: it may take long.
                drop(self.memory.take(MEMORY_UNIT).await);
                None
            } else {
                self.memory.take(self.expected).await
            };
            match source.next().await {
                None => return,
                Some(News::Failed(error, _)) => self.shared.read_failed(&self.shard, &error),
                Some(News::Batch(batch, tip)) => {
                    self.shared.read(&self.shard, batch.behind);
                    let bytes = usize::try_from(batch.bytes()).unwrap_or(usize::MAX);
                    self.expected = bytes.saturating_mul(2).clamp(EXPECTED.0, EXPECTED.1);
                    if !batch.records.is_empty() || batch.end.is_some() {
                        let memory = if S::PUSHED {
                            self.memory.take(bytes).await
                        } else {
                            fit(reserved, bytes)
                        };
                        let item = Item { shard: self.shard.clone(), batch, _memory: memory };
                        if self.orders.send(Order::Batch(item)).await.is_err() {
                            return;
                        }
                    }
                    if let Some(asked) = tip {
                        let _ = self.told.send(Told::Tip(self.shard.clone(), asked)).await;
                    }
                }
            }
        }
    }
}

/// The memory for what was read and is not committed yet.
#[derive(Clone, Debug)]
struct Memory {
    free: Arc<Semaphore>,
    units: usize,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        let units = bytes / MEMORY_UNIT;
        Self { free: Arc::new(Semaphore::new(units)), units }
    }

    /// Waits until so much is free, or all of it where that is less, and takes it.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = bytes.div_ceil(MEMORY_UNIT).clamp(1, self.units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        // It is never closed.
        Arc::clone(&self.free).acquire_many_owned(units).await.ok()
    }
}

/// Gives back what was reserved and is not needed.
fn fit(memory: Option<OwnedSemaphorePermit>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let mut memory = memory?;
    let needed = bytes.div_ceil(MEMORY_UNIT).max(1);
    let excess = memory.num_permits().saturating_sub(needed);
    drop(memory.split(excess));
    Some(memory)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::config::Config;
    use crate::consume::records::Batch;
    use crate::position::SequenceNumber;
    use crate::stream::read::Fetched;

    /// Pushes as fast as it is asked to, and counts.
    struct Flood(Arc<AtomicUsize>);

    const EVENT: usize = 2_000_000;

    impl Source for Flood {
        const PUSHED: bool = true;

        async fn next(&mut self) -> Option<News> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let record = Fetched {
                partition_key: String::new(),
                data: Bytes::from(vec![0; EVENT]),
                sequence_number: SequenceNumber::from("1"),
            };
            let records = vec![record];
            Some(News::Batch(Batch { records, ..Batch::default() }, None))
        }
    }

    fn flow() -> crate::config::Consume {
        let text = "consume: [{ name: web, stream: web, directory: /srv/web }]";
        let mut config = Config::parse(text, "agent.yaml").unwrap();
        assert_eq!(config.consume[0].directory, PathBuf::from("/srv/web"));
        config.consume.remove(0)
    }

    /// "Memory … bounded": of what is pushed, no shard holds more than an event beside the buffer, however
    /// far the writer is behind.
    #[tokio::test]
    async fn what_is_pushed_waits_where_nobody_writes() {
        const SHARDS: usize = 3;
        const BUFFER: usize = 10 << 20;
        let memory = Memory::new(BUFFER);
        let shared = Arc::new(Shared::new(&flow()));
        let (orders, mut written) = mpsc::channel(64);
        let (told, _told) = mpsc::channel(64);
        let pushed = Arc::new(AtomicUsize::new(0));
        let (halt, halted) = watch::channel(false);
        let mut all = JoinSet::new();
        for number in 0..SHARDS {
            let reading = Reading {
                shard: ShardId::from(&*number.to_string()),
                shared: Arc::clone(&shared),
                memory: memory.clone(),
                orders: orders.clone(),
                told: told.clone(),
                expected: EXPECTED.0,
            };
            all.spawn(reading.run(Flood(Arc::clone(&pushed)), halted.clone()));
        }
        let fits = BUFFER / EVENT;
        // Once no task has anything to do, they are let run on for nothing.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let before = pushed.load(Ordering::Relaxed);
        assert!((fits + 1..=fits + SHARDS).contains(&before), "{before}");
        // What is written makes room for as much.
        drop(written.recv().await);
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let after = pushed.load(Ordering::Relaxed);
        assert!((before..=fits + 1 + SHARDS).contains(&after), "{before}, then {after}");
        halt.send_replace(true);
        let mut released = 0;
        while released < SHARDS {
            released += usize::from(matches!(written.recv().await, Some(Order::Release(_))));
        }
        while all.join_next().await.is_some() {}
    }
}
