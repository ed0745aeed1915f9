//! A worker: one agent among those that share a table, and what it does with every lease.
//!
//! Invariant: a lease is held only from a write that made this worker its owner until the failover time
//! after the last good write *was sent*, by this worker's clock; and another worker's lease is taken only
//! when its counter stood still for the failover time after it *was seen*, or when its owner is asked
//! first. So without a steal two never hold a lease at once, whatever the network does; the checkpoint of
//! a lease never moves back; and a child's lease is there before its parent's says that it is finished.
//!
//! ```text
//!          take: free, or its counter stood still      drained, or expired, or a write was refused
//!  Theirs ───────────────────────────────────▶ Held ─────────────────────────────────────▶ Theirs
//!     │  ask the most loaded; it drains and gives ▲ │ finish: children first
//!     └───────────────────────────────────────────┘ └──────────────────────▶ Finished
//! ```
//!
//! Leases of a worker that does not answer (one of the Java library) are stolen one at a time, as it does.

mod answer;
mod next;
mod plan;
mod seed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::lease::{Checkpoint, Lease, Outcome, WorkerId, Write};
use crate::position::{Progress, ShardId};
use crate::stream::read::{Child, Shard};

/// What a worker wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Read the whole table.
    Scan,
    /// Write one lease.
    Write(Box<Write>),
}

/// How a worker behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub id: WorkerId,
    /// After this time without a sign of life a lease is taken from its owner. The same for all.
    pub failover: Duration,
    /// Where a shard begins that nobody has begun, and that has no parent in the table.
    pub start: Checkpoint,
}

/// How many times within the failover time a lease is renewed, and the table is read: two may fail.
const SIGNS_OF_LIFE: u32 = 3;

/// The table is read so often within the failover time while leases were asked for: they come soon.
const LOOKS_WHILE_WAITING: u32 = 10;

/// A lease, and what this worker makes of it.
#[derive(Debug)]
struct Entry {
    lease: Lease,
    /// When the counter was last seen to change.
    since: Instant,
    /// As of when it is known: a look at the table tells how it was when that was asked for, at least.
    heard: Instant,
    /// A write of it is on its way.
    busy: bool,
    holding: Option<Holding>,
    /// Since when this worker asks for it.
    asked: Option<Instant>,
    /// Since when whoever asks for it was seen to.
    wanted: Instant,
}

/// What the owner of a lease knows besides.
#[derive(Debug)]
struct Holding {
    /// When the last good write was sent.
    confirmed: Instant,
    renew: Instant,
    /// To be noted in the table.
    progress: Option<Progress>,
    /// The shard is finished, and these go on.
    finished: Option<Vec<Child>>,
    /// Since when it is to be handed over, and to whom.
    leaving: Option<(Instant, Option<WorkerId>)>,
    /// It is not read any more.
    stopped: bool,
    /// Who asks for it is refused.
    decline: bool,
    /// Nothing is written before: the last write failed.
    pause: Option<Instant>,
}

/// A shard that this worker holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The shard.
    pub shard: ShardId,
    /// How far it is dealt with.
    pub checkpoint: Checkpoint,
    /// The time that [`Checkpoint::Latest`] means.
    pub since: Option<u64>,
}

/// One agent among those that share a table.
#[derive(Debug)]
pub struct Worker {
    settings: Settings,
    /// When this agent first started, in milliseconds since 1970; known before any shard is.
    started: Option<u64>,
    entries: BTreeMap<ShardId, Entry>,
    listed: Vec<Shard>,
    /// Shards that were once listed as open, and so were open when this agent first started, or came later.
    opened: BTreeSet<ShardId>,
    /// Leases to add, parents first.
    missing: Vec<Lease>,
    /// Leases to take, to ask for or to remove, as of the last look at the table.
    planned: Vec<Write>,
    /// Shards that were lost since [`Worker::readable`] was last asked. They are not taken before: whoever
    /// reads them would not notice, and go on where it stood.
    lost: BTreeSet<ShardId>,
    scan_due: Instant,
    scanning: bool,
    scanned: bool,
    /// When the last look at the table that came off was asked for.
    looked: Instant,
    /// The lease that is being added.
    creating: Option<ShardId>,
    retired: bool,
    rng: Rng,
}

impl Worker {
    /// Returns a worker that holds nothing.
    #[must_use]
    pub fn new(settings: Settings, rng: Rng, now: Instant) -> Self {
        Self {
            settings,
            started: None,
            entries: BTreeMap::new(),
            listed: Vec::new(),
            opened: BTreeSet::new(),
            missing: Vec::new(),
            planned: Vec::new(),
            lost: BTreeSet::new(),
            scan_due: now,
            scanning: false,
            scanned: false,
            looked: now,
            creating: None,
            retired: false,
            rng,
        }
    }

    /// The stream holds these shards.
    pub fn on_listed(&mut self, shards: &[Shard]) {
        self.listed = shards.to_vec();
        self.listed.sort_by(|one, two| one.id.cmp(&two.id));
        self.opened.retain(|id| self.listed.binary_search_by(|shard| shard.id.cmp(id)).is_ok());
        let open = shards.iter().filter(|shard| !shard.closed);
        self.opened.extend(open.map(|shard| shard.id.clone()));
        if self.scanned {
            self.seed();
        }
    }

    /// Returns the next call to make, until there is none.
    pub fn next(&mut self, now: Instant) -> Option<Call> {
        self.expire(now);
        if !self.scanning && now >= self.scan_due && !self.retired {
            self.scanning = true;
            return Some(Call::Scan);
        }
        let write = self.next_of_held(now).or_else(|| self.next_missing());
        let write = write.or_else(|| self.next_planned())?;
        self.set_busy(write.shard(), true);
        Some(Call::Write(Box::new(write)))
    }

    /// Returns when to ask for the next call if nothing happens before.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let scan = (!self.scanning && !self.retired).then_some(self.scan_due);
        let held = self.entries.values().filter_map(|entry| {
            let holding = entry.holding.as_ref()?;
            let expiry = self.expiry(holding);
            let leave = holding.leaving.as_ref().map(|(since, _)| *since + self.settings.failover);
            let renew = (!entry.busy).then_some(holding.renew);
            let due = renew.into_iter().chain(leave.filter(|_| !entry.busy));
            due.chain(holding.pause).chain([expiry]).min()
        });
        scan.into_iter().chain(held).min()
    }

    /// The table was read, in a call that was sent at `sent`.
    pub fn on_scanned(&mut self, leases: Vec<Lease>, sent: Instant, now: Instant) {
        self.scanning = false;
        (self.scanned, self.looked) = (true, sent);
        let there: BTreeSet<ShardId> = leases.iter().map(|lease| lease.shard.clone()).collect();
        let lost = &mut self.lost;
        self.entries.retain(|shard, entry| {
            let stays = entry.busy || entry.heard > sent || there.contains(shard);
            if !stays && entry.holding.is_some() {
                lost.insert(shard.clone());
            }
            stays
        });
        for lease in leases {
            self.see(lease, sent, now);
        }
        self.expire(now);
        self.seed();
        self.plan(now);
        let waits = self.entries.values().any(|entry| entry.asked.is_some());
        let parts = if waits { LOOKS_WHILE_WAITING } else { SIGNS_OF_LIFE };
        self.scan_due = now + self.settings.failover / parts;
    }

    /// The table could not be read.
    pub fn on_scan_failed(&mut self, now: Instant) {
        self.scanning = false;
        self.scan_due = now + self.settings.failover / LOOKS_WHILE_WAITING;
    }

    /// A write that was sent at `sent` had this outcome.
    pub fn on_written(&mut self, write: &Write, outcome: Outcome, sent: Instant, now: Instant) {
        self.set_busy(write.shard(), false);
        if matches!(write, Write::Create(_)) {
            self.creating = None;
        }
        match outcome {
            Outcome::Done(Some(lease)) => self.on_done(write, lease, sent, now),
            Outcome::Done(None) => {
                self.entries.remove(write.shard());
            }
            Outcome::Refused(lease) => self.on_refused(write, lease, now),
            Outcome::Unknown(_) => self.on_unknown(write, now),
        }
    }

    /// The shard is dealt with up to here, to be noted in the table while the lease is held.
    pub fn checkpoint(&mut self, shard: &ShardId, progress: Progress, now: Instant) {
        self.expire(now);
        let Some((lease, holding)) = self.held(shard) else { return };
        if Checkpoint::At(progress.clone()).is_beyond(&lease.checkpoint) {
            holding.progress = Some(progress);
        }
    }

    /// The shard is dealt with to its end, and these go on; to be noted in the table while the lease is
    /// held.
    pub fn finish(&mut self, shard: &ShardId, children: Vec<Child>, now: Instant) {
        self.expire(now);
        if let Some((_, holding)) = self.held(shard) {
            holding.finished = Some(children);
        }
    }

    /// The shard is not read any more, and how far it is was said before: it is given to who asked for
    /// it, or to nobody where the worker retires. One that was lost and taken again meanwhile stays.
    pub fn release(&mut self, shard: &ShardId, now: Instant) {
        self.expire(now);
        let retired = self.retired;
        let Some((_, holding)) = self.held(shard) else { return };
        if holding.leaving.is_none() && retired {
            holding.leaving = Some((now, None));
        }
        holding.stopped = holding.leaving.is_some();
    }

    /// No lease is taken from now on.
    pub fn retire(&mut self) {
        self.retired = true;
        self.planned.clear();
        self.missing.clear();
    }

    /// Returns true while the shard may be read here, and what was read of it be written.
    pub fn may_write(&mut self, shard: &ShardId, now: Instant) -> bool {
        self.expire(now);
        let holding = self.entries.get(shard).and_then(|entry| entry.holding.as_ref());
        holding.is_some_and(|holding| !holding.stopped)
    }

    /// Gives all that is held to nobody, and takes no other from now on. No shard may be read any more.
    pub fn release_all(&mut self, now: Instant) {
        self.retire();
        let held = self.entries.iter().filter(|(_, entry)| entry.holding.is_some());
        for shard in held.map(|(shard, _)| shard.clone()).collect::<Vec<_>>() {
            self.release(&shard, now);
        }
    }

    /// Returns true while a lease is this worker's, and may not be another's.
    pub fn holds_any(&mut self, now: Instant) -> bool {
        self.expire(now);
        self.entries.values().any(|entry| entry.holding.is_some())
    }

    /// Drops all that is held without a word to the table, which is used in another way now.
    pub fn disown(&mut self) {
        self.planned.clear();
        self.missing.clear();
        for (shard, entry) in &mut self.entries {
            if entry.holding.take().is_some() {
                self.lost.insert(shard.clone());
            }
        }
    }

    /// Returns true where the shard is this worker's, or may become so before long: nobody else has it.
    #[must_use]
    pub fn expects(&self, shard: &ShardId) -> bool {
        let Some(entry) = self.entries.get(shard) else { return true };
        let others = entry.lease.owner.as_ref().is_some_and(|owner| *owner != self.settings.id);
        !others && !entry.lease.is_finished()
    }

    /// Returns the shards that may be read, by name. Those that are not among them are read no more.
    pub fn readable(&mut self, now: Instant) -> Vec<Held> {
        self.expire(now);
        self.lost.clear();
        let readable = |(shard, entry): (&ShardId, &Entry)| {
            let holding = entry.holding.as_ref()?;
            let reads = holding.leaving.is_none() && holding.finished.is_none();
            let Lease { checkpoint, since, .. } = &entry.lease;
            reads.then(|| Held {
                shard: shard.clone(),
                checkpoint: checkpoint.clone(),
                since: *since,
            })
        };
        self.entries.iter().filter_map(readable).collect()
    }

    /// Takes note of when this agent first started.
    pub fn on_started(&mut self, at: u64) {
        self.started = Some(at);
    }

    /// Returns the shards that were dealt with to their ends, by whichever worker.
    #[must_use]
    pub fn ended(&self) -> Vec<ShardId> {
        let finished = self.entries.values().filter(|entry| entry.lease.is_finished());
        let cleaned = self.listed.iter().filter(|shard| {
            self.scanned && !self.entries.contains_key(&shard.id) && self.is_done(&shard.id)
        });
        let finished = finished.map(|entry| entry.lease.shard.clone());
        finished.chain(cleaned.map(|shard| shard.id.clone())).collect()
    }

    fn expire(&mut self, now: Instant) {
        let failover = self.settings.failover;
        for (shard, entry) in &mut self.entries {
            let Some(holding) = &entry.holding else { continue };
            if now >= holding.confirmed + failover {
                entry.holding = None;
                self.lost.insert(shard.clone());
            }
        }
    }

    fn expiry(&self, holding: &Holding) -> Instant {
        holding.confirmed + self.settings.failover
    }

    fn held(&mut self, shard: &ShardId) -> Option<(&Lease, &mut Holding)> {
        let entry = self.entries.get_mut(shard)?;
        Some((&entry.lease, entry.holding.as_mut()?))
    }

    fn set_busy(&mut self, shard: &ShardId, busy: bool) {
        if let Some(entry) = self.entries.get_mut(shard) {
            entry.busy = busy;
        }
    }
}

impl Entry {
    fn new(lease: Lease, now: Instant) -> Self {
        let (since, heard, wanted) = (now, now, now);
        Self { lease, since, heard, wanted, busy: false, holding: None, asked: None }
    }

    fn become_lease(&mut self, lease: Lease, now: Instant) {
        if self.lease.counter != lease.counter || self.lease.owner != lease.owner {
            self.since = now;
        }
        if self.lease.wanted_by != lease.wanted_by {
            self.wanted = now;
        }
        self.heard = now;
        self.lease = lease;
    }
}

impl Holding {
    fn new(confirmed: Instant, renew: Instant) -> Self {
        Self {
            confirmed,
            renew,
            progress: None,
            finished: None,
            leaving: None,
            stopped: false,
            decline: false,
            pause: None,
        }
    }
}
