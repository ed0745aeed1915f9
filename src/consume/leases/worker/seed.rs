//! Which leases are missing for the shards of the stream.
//!
//! Invariant: a shard gets a lease only where none of those that go on after it has one: else it was
//! dealt with, its lease was cleaned away since, and all of it would be read again.

use super::Worker;
use crate::consume::leases::lease::{Checkpoint, Lease, Write};
use crate::position::ShardId;
use crate::stream::read::{Child, Shard};

impl Worker {
    /// Returns the lease of a shard that goes on where another ended.
    pub(super) fn of_child(&self, child: &Child) -> Lease {
        let (checkpoint, since) = self.begin_after(&child.parents);
        Lease {
            parents: child.parents.iter().cloned().collect(),
            hash_keys: Some((child.first_hash.clone(), child.last_hash.clone())),
            since,
            ..Lease::new(child.id.clone(), checkpoint)
        }
    }

    /// Returns where a shard begins that goes on after `parents`: at its oldest record. Where nothing was
    /// read of a parent since [`Checkpoint::Latest`], and nobody knows that it was open then, the
    /// child may hold what is older.
    fn begin_after(&self, parents: &[ShardId]) -> (Checkpoint, Option<u64>) {
        let parents = parents.iter().filter(|parent| !self.opened.contains(*parent));
        let since = parents.filter_map(|parent| self.entries.get(parent)).find_map(|entry| {
            let unread =
                matches!(entry.lease.checkpoint, Checkpoint::Latest | Checkpoint::ShardEnd);
            entry.lease.since.filter(|_| unread)
        });
        match since {
            Some(_) => (Checkpoint::Latest, since),
            None => (Checkpoint::TrimHorizon, None),
        }
    }

    /// Finds the leases that are missing, and those that the stream has outlived.
    pub(super) fn seed(&mut self) {
        if self.retired || self.listed.is_empty() {
            return;
        }
        let missing = self.listed.iter().filter_map(|shard| self.missing(shard)).collect();
        self.missing = missing;
    }

    /// Returns the removals of leases of finished shards that the stream does not hold any more.
    pub(super) fn outlived(&self) -> Vec<Write> {
        if self.listed.is_empty() {
            return Vec::new();
        }
        let finished = self.entries.iter().filter(|(_, entry)| entry.lease.is_finished());
        let gone = finished
            .filter(|(id, _)| self.listed.binary_search_by(|shard| shard.id.cmp(id)).is_err());
        gone.map(|(shard, _)| Write::Remove { shard: shard.clone() }).collect()
    }

    /// Returns true where a shard that goes on after this one has a lease.
    pub(super) fn is_dealt_with(&self, shard: &ShardId) -> bool {
        let mut next = vec![shard];
        // Names grow with every reshard, so a walk towards larger ones ends, whatever the list says.
        while let Some(parent) = next.pop() {
            for child in &self.listed {
                if child.parents.contains(parent) && child.id > *parent {
                    if self.entries.contains_key(&child.id) {
                        return true;
                    }
                    next.push(&child.id);
                }
            }
        }
        false
    }

    fn missing(&self, shard: &Shard) -> Option<Lease> {
        if self.entries.contains_key(&shard.id) || self.is_dealt_with(&shard.id) {
            return None;
        }
        let follows = shard.parents.iter().any(|parent| self.entries.contains_key(parent));
        let start = &self.settings.start;
        let (checkpoint, since) = if follows {
            self.begin_after(&shard.parents)
        } else {
            // What is closed may have been open at the first start.
            (start.clone(), self.started.filter(|_| *start == Checkpoint::Latest))
        };
        Some(Lease {
            parents: shard.parents.iter().cloned().collect(),
            hash_keys: Some((shard.first_hash.clone(), shard.last_hash.clone())),
            since,
            ..Lease::new(shard.id.clone(), checkpoint)
        })
    }
}
