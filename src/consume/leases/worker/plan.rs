//! Which leases to take and to ask for, and which to hand over: a fair share of the shards each.
//!
//! Invariant: a worker asks only one that has at least two shards more, and hands over only what leaves it
//! its own share: so shares differ by one at most in the end, and no shard goes to and fro.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Entry, Worker};
use crate::consume::leases::lease::{WorkerId, Write};
use crate::position::ShardId;

/// How many shards a worker has, counting what is on its way to it.
type Shares = BTreeMap<WorkerId, usize>;

impl Worker {
    /// Plans the writes until the next look at the table.
    pub(super) fn plan(&mut self, now: Instant) {
        self.planned.clear();
        if self.retired {
            return;
        }
        self.planned = self.outlived();
        self.finish_what_is_gone();
        let shares = self.shares(now);
        let total: usize = self.entries.values().filter(|entry| !entry.lease.is_finished()).count();
        let target = total.div_ceil(shares.len().max(1));
        let mine = shares.get(&self.settings.id).copied().unwrap_or_default();
        let mut needed = target.saturating_sub(mine);
        for shard in self.takeable(now) {
            let Some(entry) = self.entries.get(&shard) else { continue };
            let own = entry.lease.is_owned_by(&self.settings.id);
            if own || needed > 0 {
                needed = if own { needed } else { needed.saturating_sub(1) };
                self.planned.push(Write::Take { seen: entry.lease.clone() });
            }
        }
        let takes = self.planned.iter().any(|write| matches!(write, Write::Take { .. }));
        if needed > 0 && !takes {
            self.plan_to_ask(shares, needed, now);
        }
        let held: Vec<ShardId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.holding.is_some())
            .map(|(shard, _)| shard.clone())
            .collect();
        for shard in held {
            self.consider_handing_over(&shard, now);
        }
    }

    /// Hands the shard over to who asks for it, or refuses.
    pub(super) fn consider_handing_over(&mut self, shard: &ShardId, now: Instant) {
        let Some(entry) = self.entries.get(shard) else { return };
        let Some(holding) = &entry.holding else { return };
        let Some(wanted_by) = entry.lease.wanted_by.clone() else { return };
        if holding.leaving.is_some() || holding.finished.is_some() {
            return;
        }
        let mut shares = self.shares(now);
        shares.entry(WorkerId::clone(&wanted_by)).or_default();
        let total = self.entries.values().filter(|entry| !entry.lease.is_finished()).count();
        let fair = total.checked_div(shares.len()).unwrap_or_default();
        let stays = |entry: &&Entry| entry.holding.as_ref().is_some_and(|it| it.leaving.is_none());
        let left = self.entries.values().filter(stays).count();
        let agree = left > fair && wanted_by != self.settings.id;
        let Some((_, holding)) = self.held(shard) else { return };
        if agree {
            holding.leaving = Some((now, Some(wanted_by)));
        } else {
            holding.decline = true;
        }
    }

    /// Returns the shares of all workers that are alive; this one is.
    fn shares(&self, now: Instant) -> Shares {
        let mut shares = Shares::from([(WorkerId::clone(&self.settings.id), 0)]);
        for entry in self.entries.values().filter(|entry| !entry.lease.is_finished()) {
            let Some(owner) = entry.lease.owner.as_ref() else { continue };
            if !self.is_alive(entry, now) {
                continue;
            }
            *shares.entry(WorkerId::clone(owner)).or_default() += 1;
        }
        // What is asked for counts as given.
        for entry in self.entries.values().filter(|entry| !entry.lease.is_finished()) {
            let (Some(owner), Some(to)) = (&entry.lease.owner, self.wanted_by(entry, now)) else {
                continue;
            };
            if owner != to && self.is_alive(entry, now) {
                *shares.entry(WorkerId::clone(to)).or_default() += 1;
                if let Some(share) = shares.get_mut(owner) {
                    *share = share.saturating_sub(1);
                }
            }
        }
        shares
    }

    /// Returns who asks for it. A request that stands there for longer than an owner takes to answer is
    /// a dead worker's, or one that the owner does not understand.
    fn wanted_by<'a>(&self, entry: &'a Entry, now: Instant) -> Option<&'a WorkerId> {
        let fresh = now.saturating_duration_since(entry.wanted) <= self.patience();
        entry.lease.wanted_by.as_ref().filter(|_| fresh)
    }

    /// How long an owner may take to answer: until its next renewal, and then to drain the shard.
    fn patience(&self) -> Duration {
        self.settings.failover * 2
    }

    fn is_alive(&self, entry: &Entry, now: Instant) -> bool {
        match &entry.lease.owner {
            Some(owner) if *owner == self.settings.id => true,
            Some(_) => now.saturating_duration_since(entry.since) <= self.settings.failover,
            None => false,
        }
    }

    /// Returns the shards that are free, or whose owners are dead, or which this worker owns and does not
    /// hold (it was given them, or was stopped for long), and whose parents are finished; in an order by
    /// chance, so that workers that begin together seldom want the same, own ones last (taken first).
    fn takeable(&mut self, now: Instant) -> Vec<ShardId> {
        let takeable = |(shard, entry): (&ShardId, &Entry)| {
            let own = entry.lease.is_owned_by(&self.settings.id);
            let free = if own { entry.holding.is_none() } else { !self.is_alive(entry, now) };
            let waits = entry.busy || entry.lease.is_finished() || !self.is_ready(entry);
            let waits = waits || self.lost.contains(shard);
            (free && !waits).then(|| (!own, shard.clone()))
        };
        let mut shards: Vec<(bool, ShardId)> = self.entries.iter().filter_map(takeable).collect();
        self.rng.shuffle(&mut shards);
        shards.sort_by_key(|(others, _)| *others);
        shards.into_iter().map(|(_, shard)| shard).collect()
    }

    fn is_ready(&self, entry: &Entry) -> bool {
        entry.lease.parents.iter().all(|parent| self.is_done(parent))
    }

    /// Returns true where a shard was dealt with to its end, or is gone from the stream. One without a lease
    /// whose children have some was dealt with, unless what comes before it was not: then its lease
    /// is still to come.
    pub(super) fn is_done(&self, shard: &ShardId) -> bool {
        if let Some(entry) = self.entries.get(shard) {
            return entry.lease.is_finished() || self.is_gone(shard);
        }
        let Ok(found) = self.listed.binary_search_by(|listed| listed.id.cmp(shard)) else {
            return self.is_gone(shard);
        };
        let parents = self.listed.get(found).map(|listed| &*listed.parents).unwrap_or_default();
        self.is_dealt_with(shard)
            && parents.iter().all(|parent| {
                parent >= shard || (self.is_done(parent) && self.is_as_looked_at(parent))
            })
    }

    /// Returns true where no more is known of the lease than the last look at the table told. That it tells
    /// of no child of a parent means nothing where the parent was seen to be finished after it.
    fn is_as_looked_at(&self, shard: &ShardId) -> bool {
        self.entries.get(shard).is_none_or(|entry| entry.heard <= self.looked)
    }

    /// Returns true where the stream does not hold the shard any more. Names grow, so that one which is not
    /// in the list and larger than all in it came after the list was made.
    fn is_gone(&self, shard: &ShardId) -> bool {
        let found = self.listed.binary_search_by(|listed| listed.id.cmp(shard));
        found.is_err() && self.listed.last().is_some_and(|last| last.id > *shard)
    }

    /// Of a shard that is gone nothing will be read: it has ended.
    fn finish_what_is_gone(&mut self) {
        let gone = self.entries.keys().filter(|shard| self.is_gone(shard)).cloned();
        for shard in gone.collect::<Vec<_>>() {
            if let Some((_, holding)) = self.held(&shard) {
                holding.finished.get_or_insert_default();
            }
        }
    }

    /// Asks the most loaded workers, and steals one lease of a worker that was asked and does not answer.
    fn plan_to_ask(&mut self, mut shares: Shares, mut needed: usize, now: Instant) {
        let me = WorkerId::clone(&self.settings.id);
        let unanswered = |entry: &&Entry| {
            let asked = |since| now.saturating_duration_since(since) > self.patience();
            entry.asked.is_some_and(asked) && !entry.busy
        };
        let oldest = self.entries.values().filter(unanswered).min_by_key(|entry| entry.asked);
        if let Some(entry) = oldest {
            self.planned.push(Write::Take { seen: entry.lease.clone() });
        }
        let mut candidates: Vec<ShardId> = self.entries.keys().cloned().collect();
        self.rng.shuffle(&mut candidates);
        while needed > 0 {
            let mine = shares.get(&me).copied().unwrap_or_default();
            let Some((victim, count)) = shares.iter().max_by_key(|(_, count)| **count) else {
                return;
            };
            let victim = WorkerId::clone(victim);
            if *count < mine.saturating_add(2) {
                return;
            }
            let found = candidates.iter().position(|shard| self.can_be_asked(shard, &victim, now));
            let Some(shard) = found.map(|at| candidates.swap_remove(at)) else { return };
            if let Some(entry) = self.entries.get(&shard) {
                self.planned.push(Write::Ask { seen: entry.lease.clone() });
            }
            *shares.entry(victim).or_default() -= 1;
            *shares.entry(WorkerId::clone(&me)).or_default() += 1;
            needed = needed.saturating_sub(1);
        }
    }

    fn can_be_asked(&self, shard: &ShardId, victim: &str, now: Instant) -> bool {
        let Some(entry) = self.entries.get(shard) else { return false };
        let free = self.wanted_by(entry, now).is_none() && entry.asked.is_none();
        let open = !entry.lease.is_finished() && !entry.busy && self.is_ready(entry);
        open && free && entry.lease.is_owned_by(victim)
    }
}
