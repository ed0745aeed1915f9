//! What an answer of the table means: a lease that was seen, and a write that is done, refused or unknown.
//!
//! Invariant: what is known of a lease is never replaced by what is older; and whoever reads a shard hears of it
//! where the lease is lost.

use std::time::Instant;

use super::{Entry, Holding, LOOKS_WHILE_WAITING, SIGNS_OF_LIFE, Worker};
use crate::consume::leases::lease::{Checkpoint, Lease, WorkerId, Write};
use crate::position::ShardId;

impl Worker {
    pub(super) fn see(&mut self, lease: Lease, sent: Instant, now: Instant) {
        let me = WorkerId::clone(&self.settings.id);
        let entry = match self.entries.get_mut(&lease.shard) {
            None => {
                let (shard, busy) =
                    (lease.shard.clone(), self.creating.as_ref() == Some(&lease.shard));
                self.entries.insert(shard, Entry { heard: sent, busy, ..Entry::new(lease, now) });
                return;
            }
            // What a write tells is newer than a look that began before it.
            Some(entry) if entry.busy || entry.heard > sent => return,
            Some(entry) => entry,
        };
        // One with another counter that is still this worker's was written by a write of its own, whose
        // answer was lost.
        if !lease.is_owned_by(&me) && entry.holding.take().is_some() {
            self.lost.insert(lease.shard.clone());
        }
        if lease.is_owned_by(&me) || lease.wanted_by != Some(me) {
            entry.asked = None;
        }
        entry.become_lease(lease, now);
        entry.heard = sent;
    }

    pub(super) fn on_done(&mut self, write: &Write, lease: Lease, sent: Instant, now: Instant) {
        let shard = lease.shard.clone();
        let failover = self.settings.failover;
        let is_mine = lease.is_owned_by(&self.settings.id);
        let finished = lease.is_finished();
        // What was seen of a lease while it was added is newer than what was added.
        let is_newer = !matches!(write, Write::Create(_)) || !self.entries.contains_key(&shard);
        let entry =
            self.entries.entry(shard.clone()).or_insert_with(|| Entry::new(lease.clone(), now));
        if is_newer {
            entry.become_lease(lease, now);
        }
        match write {
            Write::Take { .. } if is_mine && !finished => {
                entry.asked = None;
                let mut holding = Holding::new(sent, sent + failover / SIGNS_OF_LIFE);
                if self.retired {
                    (holding.leaving, holding.stopped) = (Some((now, None)), true);
                }
                entry.holding = Some(holding);
            }
            Write::Ask { .. } => entry.asked = Some(now),
            Write::Give { .. } if entry.holding.take().is_some() => {
                self.lost.insert(shard.clone());
            }
            _ => {}
        }
        if let Some(holding) = &mut entry.holding {
            holding.confirmed = holding.confirmed.max(sent);
            holding.renew = holding.confirmed + failover / SIGNS_OF_LIFE;
            holding.pause = None;
        }
        if let Write::Renew { decline: true, .. } = write
            && let Some(holding) = &mut entry.holding
        {
            holding.decline = false;
        }
        if let Write::Checkpoint { checkpoint, .. } = write {
            let noted = Some(checkpoint);
            if let Some(holding) = &mut entry.holding {
                let progress = holding.progress.clone().map(Checkpoint::At);
                holding.progress = holding.progress.take().filter(|_| progress.as_ref() != noted);
            }
            if finished {
                entry.holding = None;
            }
        }
        self.expire(now);
        self.consider_handing_over(&shard, now);
    }

    pub(super) fn on_refused(&mut self, write: &Write, lease: Option<Lease>, now: Instant) {
        let shard = write.shard().clone();
        let Some(lease) = lease else {
            if self.entries.remove(&shard).is_some_and(|entry| entry.holding.is_some()) {
                self.lost.insert(shard);
            }
            return;
        };
        let is_mine = lease.is_owned_by(&self.settings.id);
        let entry =
            self.entries.entry(shard.clone()).or_insert_with(|| Entry::new(lease.clone(), now));
        entry.become_lease(lease, now);
        if is_mine && !entry.lease.is_finished() {
            // An earlier write whose answer was lost was made after all: the counter is known again.
            if let (Write::Take { .. }, false) = (write, self.retired) {
                self.planned.push(Write::Take { seen: entry.lease.clone() });
            }
            return;
        }
        if entry.holding.take().is_some() {
            self.lost.insert(shard);
        }
        entry.asked = None;
    }

    pub(super) fn on_unknown(&mut self, write: &Write, now: Instant) {
        let until = now + self.settings.failover / LOOKS_WHILE_WAITING;
        let Some(entry) = self.entries.get_mut(write.shard()) else {
            // Until a child is there, its parent cannot be called finished; and until a parent is, no child
            // is added: it would look as if the parent had been dealt with and cleaned away.
            self.missing.clear();
            self.pause_parents(write.shard(), until);
            return;
        };
        // It is written again, until it is known to be there or the lease has run out.
        if let Some(holding) = &mut entry.holding {
            holding.pause = Some(until);
        }
    }

    fn pause_parents(&mut self, child: &ShardId, until: Instant) {
        for entry in self.entries.values_mut() {
            let Some(holding) = &mut entry.holding else { continue };
            let children = holding.finished.as_deref().unwrap_or_default();
            if children.iter().any(|known| known.id == *child) {
                holding.pause = Some(until);
            }
        }
    }
}
