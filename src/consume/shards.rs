//! Shards: which there are, and which may be read now.
//!
//! Invariant: a shard is read only once all its parents are written to their ends, as far as the
//! stream still holds them; so records of a key are written in the order in which they came, across
//! every split and merge.
//!
//! ```text
//!            granted, parents finished           its last batch is written
//!  Waiting ──────────────────────────▶ Reading ──────────────────────────▶ Finished
//!     ▲                                   │
//!     └──────── the grant is gone ────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::position::ShardId;
use crate::stream::read::{Child, Shard};

/// What becomes of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is not read: a parent is not finished, or another agent reads it.
    Waiting,
    /// It is read.
    Reading,
    /// All its records are written, and no more will come.
    Finished,
}

#[derive(Clone, Debug)]
struct Known {
    parents: Vec<ShardId>,
    stage: Stage,
}

/// The shards of a stream.
#[derive(Debug, Default)]
pub struct Shards {
    known: BTreeMap<ShardId, Known>,
    granted: BTreeSet<ShardId>,
    /// Those that other agents dealt with to their ends.
    ended: BTreeSet<ShardId>,
}

impl Shards {
    /// Takes note of a shard that was finished in an earlier run.
    pub fn restore_finished(&mut self, id: ShardId) {
        self.known.insert(id, Known { parents: Vec::new(), stage: Stage::Finished });
    }

    /// Takes note of all shards that the stream holds. Returns those that were known and are gone: they
    /// are forgotten, unless they are being read.
    pub fn on_listed(&mut self, listed: &[Shard]) -> Vec<ShardId> {
        for shard in listed {
            self.note(&shard.id, &shard.parents);
        }
        let there: BTreeSet<&ShardId> = listed.iter().map(|shard| &shard.id).collect();
        let gone = |(id, known): (&ShardId, &Known)| {
            (known.stage != Stage::Reading && !there.contains(id)).then(|| id.clone())
        };
        let gone: Vec<ShardId> = self.known.iter().filter_map(gone).collect();
        for id in &gone {
            self.known.remove(id);
        }
        gone
    }

    /// Sets which shards may be read as far as other agents are concerned. Returns those that are read
    /// and may be no longer: to be stopped.
    pub fn on_granted(&mut self, granted: impl IntoIterator<Item = ShardId>) -> Vec<ShardId> {
        self.granted = granted.into_iter().collect();
        let lost = |(id, known): (&ShardId, &Known)| {
            (known.stage == Stage::Reading && !self.granted.contains(id)).then(|| id.clone())
        };
        self.known.iter().filter_map(lost).collect()
    }

    /// Sets which shards were dealt with to their ends, by whichever agent.
    pub fn on_ended(&mut self, ended: Vec<ShardId>) {
        self.ended = ended.into_iter().collect();
    }

    /// Returns the shards that are granted although they are finished: whoever grants does not know.
    #[must_use]
    pub fn granted_in_vain(&self) -> Vec<ShardId> {
        let is_finished =
            |id: &&ShardId| self.known.get(*id).is_some_and(|known| known.stage == Stage::Finished);
        self.granted.iter().filter(is_finished).cloned().collect()
    }

    /// Returns the shards to begin to read, oldest first; they count as being read from now on.
    pub fn start(&mut self) -> Vec<ShardId> {
        let ready = |(id, known): (&ShardId, &Known)| {
            let may = known.stage == Stage::Waiting && self.granted.contains(id);
            (may && known.parents.iter().all(|parent| self.is_done(parent))).then(|| id.clone())
        };
        let ready: Vec<ShardId> = self.known.iter().filter_map(ready).collect();
        for id in &ready {
            self.set(id, Stage::Reading);
        }
        ready
    }

    /// Reading has stopped before the end of the shard.
    pub fn on_stopped(&mut self, id: &ShardId) {
        if self.stage(id) == Some(Stage::Reading) {
            self.set(id, Stage::Waiting);
        }
    }

    /// All records of the shard are written. Its children are known from now on, before the next list.
    pub fn on_finished(&mut self, id: &ShardId, children: &[Child]) {
        self.set(id, Stage::Finished);
        for child in children {
            self.note(&child.id, &child.parents);
        }
    }

    /// Returns what becomes of a shard.
    #[must_use]
    pub fn stage(&self, id: &ShardId) -> Option<Stage> {
        self.known.get(id).map(|known| self.stage_of(id, known))
    }

    /// Returns all shards and what becomes of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ShardId, Stage)> {
        self.known.iter().map(|(id, known)| (id, self.stage_of(id, known)))
    }

    fn stage_of(&self, id: &ShardId, known: &Known) -> Stage {
        match known.stage {
            Stage::Waiting if self.ended.contains(id) => Stage::Finished,
            stage => stage,
        }
    }

    /// A parent that the stream does not hold any more has nothing that could be read.
    fn is_done(&self, parent: &ShardId) -> bool {
        self.stage(parent).is_none_or(|stage| stage == Stage::Finished)
    }

    fn note(&mut self, id: &ShardId, parents: &[ShardId]) {
        let known = Known { parents: parents.to_vec(), stage: Stage::Waiting };
        let known = self.known.entry(id.clone()).or_insert(known);
        if known.parents.is_empty() {
            known.parents = parents.to_vec();
        }
    }

    fn set(&mut self, id: &ShardId, stage: Stage) {
        if let Some(known) = self.known.get_mut(id) {
            known.stage = stage;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> ShardId {
        ShardId::from(&*format!("shardId-{number:012}"))
    }

    fn shard(number: usize, parents: &[usize]) -> Shard {
        Shard {
            id: id(number),
            parents: parents.iter().map(|&parent| id(parent)).collect(),
            closed: false,
            first_hash: String::new(),
            last_hash: String::new(),
        }
    }

    fn all(listed: &[Shard]) -> Vec<ShardId> {
        listed.iter().map(|shard| shard.id.clone()).collect()
    }

    fn child(number: usize, parents: &[usize]) -> Child {
        let Shard { id, parents, first_hash, last_hash, .. } = shard(number, parents);
        Child { id, parents, first_hash, last_hash }
    }

    #[test]
    fn children_wait_for_all_their_parents_across_a_split_and_a_merge() {
        // 0 ─▶ 2, 3 ; 1, 3 ─▶ 4
        let listed =
            [shard(0, &[]), shard(1, &[]), shard(2, &[0]), shard(3, &[0]), shard(4, &[1, 3])];
        let mut shards = Shards::default();
        shards.on_listed(&listed);
        assert!(shards.start().is_empty(), "nothing is granted yet");
        shards.on_granted(all(&listed));
        assert_eq!(shards.start(), [id(0), id(1)]);
        assert!(shards.start().is_empty());
        shards.on_finished(&id(0), &[]);
        assert_eq!(shards.start(), [id(2), id(3)]);
        shards.on_finished(&id(3), &[]);
        assert!(shards.start().is_empty(), "1 is still read");
        shards.on_finished(&id(1), &[]);
        assert_eq!(shards.start(), [id(4)]);
    }

    #[test]
    fn a_parent_that_is_gone_from_the_stream_holds_nobody_up() {
        let mut shards = Shards::default();
        shards.restore_finished(id(0));
        let listed = [shard(2, &[0, 1])];
        assert_eq!(shards.on_listed(&listed), [id(0)]);
        shards.on_granted(all(&listed));
        assert_eq!(shards.start(), [id(2)]);
    }

    #[test]
    fn a_shard_that_was_lost_to_another_agent_can_come_back() {
        let listed = [shard(0, &[]), shard(1, &[])];
        let mut shards = Shards::default();
        shards.on_listed(&listed);
        shards.on_granted(all(&listed));
        assert_eq!(shards.start().len(), 2);
        assert_eq!(shards.on_granted([id(1)]), [id(0)]);
        shards.on_stopped(&id(0));
        assert!(shards.start().is_empty());
        shards.on_granted(all(&listed));
        assert_eq!(shards.start(), [id(0)]);
    }

    #[test]
    fn children_of_what_another_agent_has_finished_are_read() {
        let listed = [shard(0, &[]), shard(1, &[0])];
        let mut shards = Shards::default();
        shards.on_listed(&listed);
        shards.on_granted([id(1)]);
        assert!(shards.start().is_empty());
        shards.on_ended(vec![id(0)]);
        assert_eq!(shards.stage(&id(0)), Some(Stage::Finished));
        assert_eq!(shards.start(), [id(1)]);
        assert!(shards.granted_in_vain().is_empty());
    }

    #[test]
    fn what_was_finished_here_and_is_granted_again_is_told() {
        let listed = [shard(0, &[]), shard(1, &[0])];
        let mut shards = Shards::default();
        shards.restore_finished(id(0));
        shards.on_listed(&listed);
        shards.on_granted([id(0)]);
        assert!(shards.start().is_empty());
        assert_eq!(shards.granted_in_vain(), [id(0)]);
    }

    #[test]
    fn children_are_known_by_the_last_reply_of_their_parent() {
        let mut shards = Shards::default();
        shards.on_listed(&[shard(0, &[])]);
        shards.on_granted([id(0), id(1)]);
        assert_eq!(shards.start(), [id(0)]);
        shards.on_finished(&id(0), &[child(1, &[0])]);
        assert_eq!(shards.start(), [id(1)]);
        assert_eq!(shards.stage(&id(0)), Some(Stage::Finished));
    }

    #[test]
    fn what_was_finished_before_is_not_read_again() {
        let mut shards = Shards::default();
        shards.restore_finished(id(0));
        let listed = [shard(0, &[]), shard(1, &[0])];
        assert!(shards.on_listed(&listed).is_empty());
        shards.on_granted(all(&listed));
        assert_eq!(shards.start(), [id(1)]);
    }

    proptest! {
        /// forall family trees and orders of ends: no child is read before its parents' ends, and all
        /// shards are read in the end.
        #[test]
        fn no_child_is_read_before_its_parents_end(seed in any::<u64>()) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut listed = Vec::new();
            for number in 0..rng.usize(1..20) {
                let parents = (0..rng.usize(..3)).filter(|_| number > 0);
                let parents: Vec<usize> = parents.map(|_| rng.usize(..number)).collect();
                listed.push(shard(number, &parents));
            }
            let mut shards = Shards::default();
            shards.on_listed(&listed);
            let (mut reading, mut done) = (Vec::new(), BTreeSet::new());
            while done.len() < listed.len() {
                let lost = shards.on_granted(all(&listed).into_iter().filter(|_| rng.bool()));
                for id in &lost {
                    shards.on_stopped(id);
                }
                reading.retain(|id| !lost.contains(id));
                for id in shards.start() {
                    let shard = listed.iter().find(|shard| shard.id == id).unwrap();
                    prop_assert!(shard.parents.iter().all(|parent| done.contains(parent)));
                    reading.push(id);
                }
                if !reading.is_empty() && rng.bool() {
                    let id = reading.swap_remove(rng.usize(..reading.len()));
                    shards.on_finished(&id, &[]);
                    done.insert(id);
                }
            }
        }
    }
}
