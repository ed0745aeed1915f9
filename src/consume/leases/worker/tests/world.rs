//! The world of the simulation: many workers on a simulated table, with a simulated clock.
//!
//! Invariant: one seed is one history.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::super::*;
use super::{checkpoint, holds};

pub(super) const FAILOVER: Duration = Duration::from_secs(10);

/// How long an answer may take before it counts as lost.
pub(super) const TIMEOUT: u64 = 1_500;

/// The table: what the conditions of the real one say, in memory.
#[derive(Debug, Default)]
pub(in crate::consume::leases) struct Table(
    pub(in crate::consume::leases) BTreeMap<ShardId, Lease>,
);

impl Table {
    pub(in crate::consume::leases) fn apply(&mut self, write: &Write, me: &WorkerId) -> Outcome {
        let before = self.0.get(write.shard()).cloned();
        let Some(lease) = Self::changed(write, me, before.clone()) else {
            return Outcome::Refused(before);
        };
        if let Some(before) = &before {
            assert!(!before.checkpoint.is_beyond(&lease.checkpoint), "{before:?} {write:?}");
        }
        if let Write::Remove { .. } = write {
            self.0.remove(write.shard());
            return Outcome::Done(None);
        }
        self.0.insert(lease.shard.clone(), lease.clone());
        Outcome::Done(Some(lease))
    }

    pub(super) fn changed(write: &Write, me: &WorkerId, before: Option<Lease>) -> Option<Lease> {
        if let Write::Create(lease) = write {
            return before.is_none().then(|| lease.clone());
        }
        let mut lease = before?;
        match write {
            Write::Create(_) => return None,
            Write::Take { seen } => {
                let switched = lease.owner.as_ref().is_some_and(|owner| owner != me);
                lease.switches += u64::from(switched);
                (lease.owner, lease.wanted_by) = (Some(Arc::clone(me)), None);
                return raised(lease, seen.counter);
            }
            Write::Renew { counter, decline, .. } => {
                if *decline {
                    lease.wanted_by = None;
                }
                return raised(lease, *counter).filter(|lease| lease.is_owned_by(me));
            }
            Write::Checkpoint { counter, checkpoint, children, .. } => {
                (lease.checkpoint, lease.children) = (checkpoint.clone(), children.clone());
                lease.switches = 0;
                return raised(lease, *counter).filter(|lease| lease.is_owned_by(me));
            }
            Write::Give { counter, to, .. } => {
                let mine = lease.is_owned_by(me);
                (lease.owner, lease.wanted_by) = (to.clone(), None);
                return raised(lease, *counter).filter(|_| mine);
            }
            Write::Ask { seen } => {
                let same = lease.owner == seen.owner && lease.wanted_by == seen.wanted_by;
                lease.wanted_by = Some(Arc::clone(me));
                return same.then_some(lease);
            }
            Write::Remove { .. } => {}
        }
        lease.is_finished().then_some(lease)
    }
}

fn raised(mut lease: Lease, seen: u64) -> Option<Lease> {
    let same = lease.counter == seen;
    lease.counter += 1;
    same.then_some(lease)
}

/// What happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Apply { worker: usize, call: Call, sent: u64, answer: Option<u64> },
    Answer { worker: usize, call: Call, sent: u64, result: Answer },
}

#[derive(Debug)]
pub(super) enum Answer {
    Scanned(Option<Vec<Lease>>),
    Written(Outcome),
}

/// One agent: the worker and what reads the shards.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: WorkerId,
    pub(super) worker: Worker,
    /// The next record of each shard that is read.
    pub(super) reading: BTreeMap<ShardId, u64>,
    pub(super) checkpointed: u64,
    pub(super) paused_until: u64,
    pub(super) alive: bool,
    pub(super) stopping: bool,
}

/// A whole world in which one seed is one history.
pub(super) struct World {
    pub(super) epoch: Instant,
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) table: Table,
    pub(super) shards: Vec<Shard>,
    /// How many records each shard holds.
    pub(super) records: BTreeMap<ShardId, u64>,
    pub(super) closed: BTreeMap<ShardId, Vec<ShardId>>,
    /// How often each record was dealt with.
    pub(super) written: BTreeMap<ShardId, Vec<u32>>,
    pub(super) agents: Vec<Agent>,
    pub(super) events: BinaryHeap<Reverse<(u64, u64)>>,
    pub(super) waiting: BTreeMap<u64, Event>,
    pub(super) numbers: u64,
    pub(super) loss: f64,
    pub(super) started: u64,
    /// When a shard was last stolen: taken of an owner that was asked and did not answer.
    pub(super) stolen: BTreeMap<ShardId, u64>,
}

pub(super) fn shard_id(number: usize) -> ShardId {
    ShardId::from(&*format!("shardId-{number:012}"))
}

impl World {
    pub(super) fn new(seed: u64, shards: usize) -> Self {
        println!("seed {seed}");
        let mut world = Self {
            epoch: Instant::now(),
            now: 0,
            rng: Rng::with_seed(seed),
            table: Table::default(),
            shards: Vec::new(),
            records: BTreeMap::new(),
            closed: BTreeMap::new(),
            written: BTreeMap::new(),
            agents: Vec::new(),
            events: BinaryHeap::new(),
            waiting: BTreeMap::new(),
            numbers: 0,
            loss: 0.0,
            started: 0,
            stolen: BTreeMap::new(),
        };
        for _ in 0..shards {
            world.add_shard(&[]);
        }
        world
    }

    pub(super) fn add_shard(&mut self, parents: &[ShardId]) -> ShardId {
        let id = shard_id(self.shards.len());
        self.shards.push(Shard {
            id: id.clone(),
            parents: parents.to_vec(),
            closed: false,
            first_hash: "0".to_owned(),
            last_hash: "1".to_owned(),
        });
        self.records.insert(id.clone(), 0);
        self.written.insert(id.clone(), Vec::new());
        id
    }

    pub(super) fn split(&mut self) {
        let open: Vec<ShardId> = self.open();
        let parent = open[self.rng.usize(..open.len())].clone();
        let children: Vec<ShardId> =
            (0..2).map(|_| self.add_shard(std::slice::from_ref(&parent))).collect();
        self.close(parent, children);
    }

    pub(super) fn merge(&mut self) {
        let open = self.open();
        if let [one, two, ..] = &*open {
            let child = self.add_shard(&[one.clone(), two.clone()]);
            self.close(one.clone(), vec![child.clone()]);
            self.close(two.clone(), vec![child]);
        }
    }

    pub(super) fn close(&mut self, shard: ShardId, children: Vec<ShardId>) {
        let found = self.shards.iter_mut().find(|one| one.id == shard).unwrap();
        found.closed = true;
        self.closed.insert(shard, children);
    }

    pub(super) fn open(&self) -> Vec<ShardId> {
        let open = self.shards.iter().filter(|shard| !shard.closed);
        open.map(|shard| shard.id.clone()).collect()
    }

    pub(super) fn start(&mut self) -> usize {
        self.started += 1;
        let id: WorkerId = Arc::from(format!("agent-{}", self.started));
        let start = Checkpoint::TrimHorizon;
        let settings = Settings { id: Arc::clone(&id), failover: FAILOVER, start };
        let rng = Rng::with_seed(self.rng.u64(..));
        let mut worker = Worker::new(settings, rng, self.at(self.now));
        worker.on_listed(&self.shards);
        self.agents.push(Agent {
            id,
            worker,
            reading: BTreeMap::new(),
            checkpointed: 0,
            paused_until: 0,
            alive: true,
            stopping: false,
        });
        self.agents.len() - 1
    }

    pub(super) fn at(&self, millis: u64) -> Instant {
        self.epoch + Duration::from_millis(millis)
    }

    pub(super) fn schedule(&mut self, at: u64, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((at, self.numbers)));
        self.waiting.insert(self.numbers, event);
    }

    /// Runs for so many milliseconds.
    pub(super) fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now += self.rng.u64(20..120);
            while let Some(Reverse((at, number))) = self.events.peek().copied() {
                if at > self.now {
                    break;
                }
                self.events.pop();
                let event = self.waiting.remove(&number).unwrap();
                self.happen(at, event);
            }
            for agent in 0..self.agents.len() {
                self.turn(agent);
            }
            self.check();
        }
    }

    pub(super) fn happen(&mut self, at: u64, event: Event) {
        match event {
            Event::Apply { worker, call, sent, answer } => {
                let me = Arc::clone(&self.agents[worker].id);
                if let Call::Write(write) = &call
                    && let Write::Take { seen } = &**write
                {
                    let entry = self.agents[worker].worker.entries.get(&seen.shard);
                    let held = self
                        .agents
                        .iter()
                        .any(|agent| agent.alive && holds(&agent.worker, &seen.shard));
                    if held && entry.is_some_and(|entry| entry.asked.is_some()) {
                        self.stolen.insert(seen.shard.clone(), at);
                    }
                }
                let result = match &call {
                    Call::Scan => Answer::Scanned(Some(self.table.0.values().cloned().collect())),
                    Call::Write(write) => Answer::Written(self.table.apply(write, &me)),
                };
                if let Some(answer) = answer {
                    self.schedule(at.max(answer), Event::Answer { worker, call, sent, result });
                }
            }
            Event::Answer { worker, call, sent, result } => {
                let agent = &self.agents[worker];
                if !agent.alive {
                    return;
                }
                if agent.paused_until > self.now {
                    let later = agent.paused_until;
                    self.schedule(later, Event::Answer { worker, call, sent, result });
                    return;
                }
                let (sent, now) = (self.at(sent), self.at(self.now));
                let worker = &mut self.agents[worker].worker;
                match (call, result) {
                    (_, Answer::Scanned(Some(leases))) => worker.on_scanned(leases, sent, now),
                    (_, Answer::Scanned(None)) => worker.on_scan_failed(now),
                    (Call::Write(write), Answer::Written(outcome)) => {
                        worker.on_written(&write, outcome, sent, now);
                    }
                    (Call::Scan, Answer::Written(_)) => unreachable!(),
                }
            }
        }
    }

    pub(super) fn turn(&mut self, index: usize) {
        let (now, sent) = (self.at(self.now), self.now);
        let agent = &mut self.agents[index];
        if !agent.alive || agent.paused_until > self.now {
            return;
        }
        agent.worker.on_listed(&self.shards);
        self.read(index);
        while let Some(call) = self.agents[index].worker.next(now) {
            self.send(index, call, sent);
        }
    }

    pub(super) fn send(&mut self, worker: usize, call: Call, sent: u64) {
        let arrives = sent + self.rng.u64(1..80);
        let answer = arrives + self.rng.u64(1..80);
        let (request_lost, answer_lost) = (self.rng.f64() < self.loss, self.rng.f64() < self.loss);
        if request_lost || answer_lost {
            let result = match call {
                Call::Scan => Answer::Scanned(None),
                Call::Write(_) => Answer::Written(Outcome::Unknown(String::new())),
            };
            let again = call.clone();
            self.schedule(sent + TIMEOUT, Event::Answer { worker, call: again, sent, result });
        }
        if !request_lost {
            let answer = (!answer_lost).then_some(answer);
            self.schedule(arrives, Event::Apply { worker, call, sent, answer });
        }
    }

    /// What the consumer does: it deals with records of what it may read, and says how far it is.
    pub(super) fn read(&mut self, index: usize) {
        let now = self.at(self.now);
        let agent = &mut self.agents[index];
        let readable = agent.worker.readable(now);
        let dropped: Vec<ShardId> = agent
            .reading
            .keys()
            .filter(|shard| !readable.iter().any(|held| held.shard == **shard))
            .cloned()
            .collect();
        for shard in dropped {
            let next = agent.reading.remove(&shard).unwrap();
            // To be handed over: what was done is said first.
            checkpoint(&mut agent.worker, &shard, next, now);
            agent.worker.release(&shard, now);
        }
        if agent.stopping {
            agent.worker.retire();
            for (shard, next) in std::mem::take(&mut agent.reading) {
                checkpoint(&mut agent.worker, &shard, next, now);
                agent.worker.release(&shard, now);
            }
            let owns = |lease: &Lease| lease.is_owned_by(&agent.id) && !lease.is_finished();
            if !self.table.0.values().any(owns) {
                agent.alive = false;
            }
            return;
        }
        for held in readable {
            let shard = held.shard;
            let next = *agent.reading.entry(shard.clone()).or_insert(match held.checkpoint {
                Checkpoint::At(progress) => progress.sequence.0.parse::<u64>().unwrap() + 1,
                _ => 0,
            });
            let parents = &self.shards.iter().find(|one| one.id == shard).unwrap().parents;
            for parent in parents {
                let done = self.table.0.get(parent).is_none_or(Lease::is_finished);
                assert!(done, "{shard} is read before {parent} has ended");
            }
            let written = self.written.get_mut(&shard).unwrap();
            let end = self.records[&shard];
            let until = (next + self.rng.u64(0..5)).min(end);
            for record in next..until {
                let record = usize::try_from(record).unwrap();
                written.resize(written.len().max(record + 1), 0);
                written[record] += 1;
            }
            agent.reading.insert(shard.clone(), until);
            let children = self.closed.get(&shard);
            if let (Some(children), true) = (children, until == end) {
                let child = |id: &ShardId| {
                    let shard = self.shards.iter().find(|one| one.id == *id).unwrap().clone();
                    let Shard { id, parents, first_hash, last_hash, .. } = shard;
                    Child { id, parents, first_hash, last_hash }
                };
                agent.worker.finish(&shard, children.iter().map(child).collect(), now);
                agent.reading.remove(&shard);
            } else if self.now >= agent.checkpointed + 1_000 {
                checkpoint(&mut agent.worker, &shard, until, now);
            }
        }
        if self.now >= agent.checkpointed + 1_000 {
            agent.checkpointed = self.now;
        }
    }

    pub(super) fn produce(&mut self) {
        for shard in self.open() {
            *self.records.get_mut(&shard).unwrap() += self.rng.u64(0..20);
        }
    }

    pub(super) fn check(&mut self) {
        let now = self.at(self.now);
        for shard in self.records.keys() {
            let mut holders = Vec::new();
            for agent in &mut self.agents {
                let awake = agent.alive && agent.paused_until <= self.now;
                if awake && agent.worker.may_write(shard, now) {
                    holders.push(Arc::clone(&agent.id));
                }
            }
            let since = self.stolen.get(shard).map(|at| self.now - at);
            let stolen = since.is_some_and(|since| u128::from(since) < FAILOVER.as_millis());
            let at_most = if stolen { 2 } else { 1 };
            assert!(holders.len() <= at_most, "{shard} is held by {holders:?} at {}", self.now);
        }
    }

    pub(super) fn kill(&mut self, index: usize) {
        self.agents[index].alive = false;
    }

    pub(super) fn living(&self) -> Vec<usize> {
        (0..self.agents.len()).filter(|&index| self.agents[index].alive).collect()
    }

    pub(super) fn shares(&mut self) -> Vec<usize> {
        let now = self.at(self.now);
        let living = self.agents.iter_mut().filter(|agent| agent.alive);
        living.map(|agent| agent.worker.readable(now).len()).collect()
    }

    pub(super) fn assert_balanced(&mut self) {
        let shares = self.shares();
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= 1, "{shares:?}");
        assert_eq!(shares.iter().sum::<usize>(), self.open().len(), "{shares:?}");
    }

    pub(super) fn assert_all_written(&self, at_most: u32) {
        for (shard, records) in &self.records {
            let written = &self.written[shard];
            assert_eq!(written.len() as u64, *records, "{shard}");
            for (record, times) in written.iter().enumerate() {
                assert!(
                    (1..=at_most).contains(times),
                    "{shard}: {record} was written {times} times"
                );
            }
        }
    }
}
