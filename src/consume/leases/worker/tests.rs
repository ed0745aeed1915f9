//! Many workers on a simulated table, with a simulated clock: crashes, pauses, lost answers, reshards.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::*;
use crate::position::SequenceNumber;

const FAILOVER: Duration = Duration::from_secs(10);

/// How long an answer may take before it counts as lost.
const TIMEOUT: u64 = 1_500;

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

    fn changed(write: &Write, me: &WorkerId, before: Option<Lease>) -> Option<Lease> {
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
enum Event {
    Apply { worker: usize, call: Call, sent: u64, answer: Option<u64> },
    Answer { worker: usize, call: Call, sent: u64, result: Answer },
}

#[derive(Debug)]
enum Answer {
    Scanned(Option<Vec<Lease>>),
    Written(Outcome),
}

/// One agent: the worker and what reads the shards.
#[derive(Debug)]
struct Agent {
    id: WorkerId,
    worker: Worker,
    /// The next record of each shard that is read.
    reading: BTreeMap<ShardId, u64>,
    checkpointed: u64,
    paused_until: u64,
    alive: bool,
    stopping: bool,
}

/// A whole world in which one seed is one history.
struct World {
    epoch: Instant,
    now: u64,
    rng: Rng,
    table: Table,
    shards: Vec<Shard>,
    /// How many records each shard holds.
    records: BTreeMap<ShardId, u64>,
    closed: BTreeMap<ShardId, Vec<ShardId>>,
    /// How often each record was dealt with.
    written: BTreeMap<ShardId, Vec<u32>>,
    agents: Vec<Agent>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: BTreeMap<u64, Event>,
    numbers: u64,
    loss: f64,
    started: u64,
    /// When a shard was last stolen: taken of an owner that was asked and did not answer.
    stolen: BTreeMap<ShardId, u64>,
}

fn shard_id(number: usize) -> ShardId {
    ShardId::from(&*format!("shardId-{number:012}"))
}

impl World {
    fn new(seed: u64, shards: usize) -> Self {
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

    fn add_shard(&mut self, parents: &[ShardId]) -> ShardId {
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

    fn split(&mut self) {
        let open: Vec<ShardId> = self.open();
        let parent = open[self.rng.usize(..open.len())].clone();
        let children: Vec<ShardId> =
            (0..2).map(|_| self.add_shard(std::slice::from_ref(&parent))).collect();
        self.close(parent, children);
    }

    fn merge(&mut self) {
        let open = self.open();
        if let [one, two, ..] = &*open {
            let child = self.add_shard(&[one.clone(), two.clone()]);
            self.close(one.clone(), vec![child.clone()]);
            self.close(two.clone(), vec![child]);
        }
    }

    fn close(&mut self, shard: ShardId, children: Vec<ShardId>) {
        let found = self.shards.iter_mut().find(|one| one.id == shard).unwrap();
        found.closed = true;
        self.closed.insert(shard, children);
    }

    fn open(&self) -> Vec<ShardId> {
        let open = self.shards.iter().filter(|shard| !shard.closed);
        open.map(|shard| shard.id.clone()).collect()
    }

    fn start(&mut self) -> usize {
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

    fn at(&self, millis: u64) -> Instant {
        self.epoch + Duration::from_millis(millis)
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((at, self.numbers)));
        self.waiting.insert(self.numbers, event);
    }

    /// Runs for so many milliseconds.
    fn run(&mut self, millis: u64) {
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

    fn happen(&mut self, at: u64, event: Event) {
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

    fn turn(&mut self, index: usize) {
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

    fn send(&mut self, worker: usize, call: Call, sent: u64) {
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
    fn read(&mut self, index: usize) {
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

    fn produce(&mut self) {
        for shard in self.open() {
            *self.records.get_mut(&shard).unwrap() += self.rng.u64(0..20);
        }
    }

    fn check(&mut self) {
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

    fn kill(&mut self, index: usize) {
        self.agents[index].alive = false;
    }

    fn living(&self) -> Vec<usize> {
        (0..self.agents.len()).filter(|&index| self.agents[index].alive).collect()
    }

    fn shares(&mut self) -> Vec<usize> {
        let now = self.at(self.now);
        let living = self.agents.iter_mut().filter(|agent| agent.alive);
        living.map(|agent| agent.worker.readable(now).len()).collect()
    }

    fn assert_balanced(&mut self) {
        let shares = self.shares();
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= 1, "{shares:?}");
        assert_eq!(shares.iter().sum::<usize>(), self.open().len(), "{shares:?}");
    }

    fn assert_all_written(&self, at_most: u32) {
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

/// Returns true where the worker holds a lease that may have run out.
fn holds(worker: &Worker, shard: &ShardId) -> bool {
    let holding = worker.entries.get(shard).and_then(|entry| entry.holding.as_ref());
    holding.is_some_and(|holding| !holding.stopped)
}

fn checkpoint(worker: &mut Worker, shard: &ShardId, next: u64, now: Instant) {
    if let Some(last) = next.checked_sub(1) {
        let sequence = SequenceNumber::from(&*last.to_string());
        worker.checkpoint(shard, Progress::after(sequence), now);
    }
}

/// Lets a worker do all that it wants to; what `lost` says is done, and the answer lost. Returns the writes.
fn work(
    worker: &mut Worker,
    table: &mut Table,
    now: Instant,
    lost: impl Fn(&Write) -> bool,
) -> Vec<Write> {
    let me = Arc::clone(&worker.settings.id);
    let mut writes = Vec::new();
    while let Some(call) = worker.next(now) {
        let Call::Write(write) = call else {
            worker.on_scanned(table.0.values().cloned().collect(), now, now);
            continue;
        };
        let outcome = table.apply(&write, &me);
        let outcome = if lost(&write) { Outcome::Unknown(String::new()) } else { outcome };
        worker.on_written(&write, outcome, now, now);
        writes.push(*write);
    }
    writes
}

#[test]
fn what_was_noted_and_given_back_without_an_answer_is_written_again() {
    let start = Checkpoint::TrimHorizon;
    let settings = Settings { id: Arc::from("me"), failover: FAILOVER, start };
    let (mut now, mut table) = (Instant::now(), Table::default());
    let mut worker = Worker::new(settings, Rng::with_seed(0), now);
    let world = World::new(0, 1);
    worker.on_listed(&world.shards);
    work(&mut worker, &mut table, now, |_| false);
    now += FAILOVER / SIGNS_OF_LIFE;
    work(&mut worker, &mut table, now, |_| false);
    let shard = shard_id(0);
    assert!(worker.may_write(&shard, now), "{table:?}");
    checkpoint(&mut worker, &shard, 8, now);
    worker.retire();
    worker.release(&shard, now);
    for lost in 0..3 {
        let writes = work(&mut worker, &mut table, now, |_| true);
        assert_eq!(writes.len(), 1, "{lost}: {writes:?}");
        assert!(!worker.may_write(&shard, now));
        now += FAILOVER / LOOKS_WHILE_WAITING;
    }
    work(&mut worker, &mut table, now, |_| false);
    let lease = &table.0[&shard];
    assert_eq!(lease.owner, None);
    assert_eq!(lease.checkpoint, Checkpoint::At(Progress::after(SequenceNumber::from("7"))));
    assert!(!worker.holds_any(now));
}

#[test]
fn shards_are_shared_within_thirty_seconds_and_no_record_is_written_twice() {
    for seed in 0..6 {
        let mut world = World::new(seed, 12);
        for _ in 0..3 {
            world.start();
            let pause = world.rng.u64(0..8_000);
            world.run(pause);
            world.produce();
        }
        world.run(30_000);
        world.assert_balanced();
        world.assert_all_written(1);
        assert!(world.stolen.is_empty(), "{:?}", world.stolen);
    }
}

#[test]
fn agents_that_come_and_go_in_order_repeat_no_record() {
    for seed in 100..104 {
        let mut world = World::new(seed, 9);
        world.start();
        for _ in 0..12 {
            let pause = world.rng.u64(500..15_000);
            world.run(pause);
            world.produce();
            let living = world.living();
            if living.len() > 1 && world.rng.bool() {
                let one = living[world.rng.usize(..living.len())];
                world.agents[one].stopping = true;
            } else {
                world.start();
            }
            if world.rng.u8(..4) == 0 {
                world.split();
            }
        }
        if world.living().is_empty() {
            world.start();
        }
        world.run(90_000);
        world.assert_balanced();
        world.assert_all_written(1);
        assert!(world.stolen.is_empty(), "{:?}", world.stolen);
    }
}

#[test]
fn whatever_fails_no_lease_is_held_twice_and_no_record_is_lost() {
    for seed in 1_000..1_016 {
        let mut world = World::new(seed, 8);
        world.loss = [0.0, 0.02, 0.2][usize::try_from(seed % 3).unwrap()];
        for _ in 0..3 {
            world.start();
        }
        for _ in 0..20 {
            let pause = world.rng.u64(100..12_000);
            world.run(pause);
            world.produce();
            let living = world.living();
            match world.rng.u8(..7) {
                0 if living.len() > 1 => world.kill(living[0]),
                1 | 2 if living.len() < 6 => {
                    world.start();
                }
                3 if !living.is_empty() => {
                    let one = living[world.rng.usize(..living.len())];
                    let until = world.now + world.rng.u64(100..40_000);
                    world.agents[one].paused_until = until;
                }
                4 => world.split(),
                5 => world.merge(),
                _ => {}
            }
        }
        world.loss = 0.0;
        if world.living().is_empty() {
            world.start();
        }
        world.run(150_000);
        world.assert_balanced();
        world.assert_all_written(u32::MAX);
    }
}

/// A worker that begins at `latest`, and the table that it finds empty.
fn latest(shards: &[Shard], now: Instant) -> (Worker, Table) {
    let start = Checkpoint::Latest;
    let settings = Settings { id: Arc::from("agent"), failover: FAILOVER, start };
    let mut worker = Worker::new(settings, Rng::with_seed(1), now);
    worker.on_started(1_000);
    worker.on_listed(shards);
    (worker, Table::default())
}

fn listed(number: usize, parents: &[usize], closed: bool) -> Shard {
    Shard {
        id: shard_id(number),
        parents: parents.iter().map(|parent| shard_id(*parent)).collect(),
        closed,
        first_hash: "0".to_owned(),
        last_hash: "1".to_owned(),
    }
}

fn begins(table: &Table) -> Vec<(Checkpoint, Option<u64>)> {
    table.0.values().map(|lease| (lease.checkpoint.clone(), lease.since)).collect()
}

/// Between the first start and the leases a shard may have been closed, with what came in it by then.
#[test]
fn what_came_since_the_first_start_is_sought_in_closed_shards_too() {
    let now = Instant::now();
    let shards = [listed(0, &[], true), listed(1, &[0], false), listed(2, &[0], false)];
    let (mut worker, mut table) = latest(&shards, now);
    work(&mut worker, &mut table, now, |_| false);
    let since = (Checkpoint::Latest, Some(1_000));
    assert_eq!(begins(&table), [since.clone(), since.clone(), since]);
}

/// Of a parent in which nothing came since then it is not known whether it ended before: what its child holds
/// may be older.
#[test]
fn a_child_of_a_shard_that_brought_nothing_begins_at_the_first_start_too() {
    let now = Instant::now();
    let (mut worker, mut table) = latest(&[listed(0, &[], true)], now);
    let children = |shards: &[usize]| -> Vec<Child> {
        shards
            .iter()
            .map(|&number| {
                let Shard { id, parents, first_hash, last_hash, .. } = listed(number, &[0], false);
                Child { id, parents, first_hash, last_hash }
            })
            .collect()
    };
    work(&mut worker, &mut table, now, |_| false);
    let later = now + FAILOVER;
    work(&mut worker, &mut table, later, |_| false);
    assert!(holds(&worker, &shard_id(0)));
    worker.finish(&shard_id(0), children(&[1, 2]), later);
    work(&mut worker, &mut table, later, |_| false);
    let since = (Checkpoint::Latest, Some(1_000));
    assert_eq!(begins(&table)[1..], [since.clone(), since]);
    assert!(table.0[&shard_id(0)].is_finished());

    // One that was open at the first start, or brought something since, has no older children.
    let (mut worker, mut table) = latest(&[listed(0, &[], false)], now);
    work(&mut worker, &mut table, now, |_| false);
    work(&mut worker, &mut table, later, |_| false);
    worker.finish(&shard_id(0), children(&[1, 2]), later);
    work(&mut worker, &mut table, later, |_| false);
    let oldest = (Checkpoint::TrimHorizon, None);
    assert_eq!(begins(&table)[1..], [oldest.clone(), oldest]);
}
