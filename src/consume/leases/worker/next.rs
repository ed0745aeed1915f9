//! Which write comes next.
//!
//! Invariant: a lease is written once at a time; what holds a lease comes before what is new, and a child is added
//! before its parent is called finished.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Worker;
use crate::consume::leases::lease::{Checkpoint, Lease, Write};
use crate::position::ShardId;

impl Worker {
    pub(super) fn next_of_held(&mut self, now: Instant) -> Option<Write> {
        let shards: Vec<ShardId> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.busy && entry.holding.is_some())
            .map(|(shard, _)| shard.clone())
            .collect();
        shards.iter().find_map(|shard| self.next_of(shard, now))
    }

    fn next_of(&mut self, shard: &ShardId, now: Instant) -> Option<Write> {
        let failover = self.settings.failover;
        let entry = self.entries.get(shard)?;
        let holding = entry.holding.as_ref()?;
        if holding.pause.is_some_and(|until| now < until) {
            return None;
        }
        let counter = entry.lease.counter;
        let shard = shard.clone();
        if let Some(children) = &holding.finished {
            let absent = children.iter().find(|child| !self.entries.contains_key(&child.id));
            if let Some(child) = absent.cloned() {
                return self.create(self.of_child(&child));
            }
            let children = children.iter().map(|child| child.id.clone()).collect();
            let checkpoint = Checkpoint::ShardEnd;
            return Some(Write::Checkpoint { shard, counter, checkpoint, children });
        }
        if let Some(progress) = &holding.progress {
            let checkpoint = Checkpoint::At(progress.clone());
            let children = BTreeSet::new();
            return Some(Write::Checkpoint { shard, counter, checkpoint, children });
        }
        if let Some((since, to)) = &holding.leaving
            && (holding.stopped || now >= *since + failover)
        {
            let to = to.clone();
            // The answer may be lost, and the other begin.
            if let Some((_, holding)) = self.held(&shard) {
                holding.stopped = true;
            }
            return Some(Write::Give { shard, counter, to });
        }
        let decline = holding.decline;
        (decline || now >= holding.renew).then_some(Write::Renew { shard, counter, decline })
    }

    pub(super) fn next_missing(&mut self) -> Option<Write> {
        // One after the other, so that no child is there before its parents are.
        if self.creating.is_some() || self.missing.is_empty() {
            return None;
        }
        let lease = self.missing.remove(0);
        // Another may have added it by now.
        if self.entries.contains_key(&lease.shard) { None } else { self.create(lease) }
    }

    fn create(&mut self, lease: Lease) -> Option<Write> {
        if self.creating.is_some() {
            return None;
        }
        self.creating = Some(lease.shard.clone());
        Some(Write::Create(lease))
    }

    pub(super) fn next_planned(&mut self) -> Option<Write> {
        while let Some(write) = self.planned.pop() {
            if self.entries.get(write.shard()).is_some_and(|entry| !entry.busy) {
                return Some(write);
            }
        }
        None
    }
}
