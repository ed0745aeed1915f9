//! Coordination: which shards this agent may read, among others that read the same stream.
//!
//! Invariant: a shard is read, and what was read of it written, only while it is granted; and how far it
//! is goes to whoever coordinates after it was committed here, never before.

use std::fmt::Debug;
use std::future;
use std::sync::Arc;

use crate::position::{Progress, ShardId};
use crate::stream::read::{Child, Place, Shard};

/// A shard that may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The shard.
    pub shard: ShardId,
    /// How far it was dealt with, by whichever agent; `None` where nobody began it, or where only this
    /// agent's own checkpoint knows.
    pub progress: Option<Progress>,
    /// Where it begins while there is no progress; `None`: where the flow starts. A shard that goes on
    /// where another ended begins at its oldest record.
    pub begin: Option<Place>,
}

/// Tells the writing side which shards are still this agent's, by the clock: reading is told to stop, and
/// an agent that was stopped for long would still hold what it read before.
pub trait Fence: Debug + Send + Sync {
    /// Returns true while what was read of the shard may be written.
    fn may_write(&self, shard: &ShardId) -> bool;
}

/// Who decides which shards this agent reads: [`Local`], or leases in a table that many agents share.
///
/// All calls are made by one task, in turn. Only [`granted`](Self::granted) and [`closed`](Self::closed)
/// wait for anything.
pub trait Coordinator: Send + 'static {
    /// The flow was first started at this time, in milliseconds since 1970. Told before anything else.
    fn started(&mut self, at: u64);

    /// The stream holds these shards now.
    fn listed(&mut self, shards: &[Shard]);

    /// Resolves to all that may be read now, whenever that has changed; at the first call at once.
    /// Dropped before it resolves, it loses nothing.
    fn granted(&mut self) -> impl Future<Output = Vec<Grant>> + Send;

    /// The shard is dealt with, written and committed up to here.
    fn checkpoint(&mut self, shard: &ShardId, progress: &Progress);

    /// The shard is dealt with to its end; these go on where it ended. Where none are named, those that
    /// were listed do.
    fn finished(&mut self, shard: &ShardId, children: &[Child]);

    /// The shard is not read any more, and all that was is committed or given up: where it was asked
    /// for, another agent may have it.
    fn released(&mut self, shard: &ShardId);

    /// Returns true where a shard that is not granted now will be, as far as can be told: a run that
    /// ends once all is read waits for it.
    fn expects(&self, shard: &ShardId) -> bool;

    /// Returns the shards that were dealt with to their ends, by whichever agent, as of the last grants.
    fn ended(&self) -> Vec<ShardId>;

    /// The agent ends: no shard is taken from now on, and what is [`released`](Self::released) is given
    /// back.
    fn retire(&mut self);

    /// No shard is read any more: what is still this agent's is given back. Resolves once that is done, or
    /// has taken too long.
    fn closed(&mut self) -> impl Future<Output = ()> + Send;

    /// What is wrong just now, in words.
    fn problem(&self) -> Option<String>;

    /// Returns what tells which shards may be written.
    fn fence(&self) -> Arc<dyn Fence>;
}

/// This agent reads every shard.
#[derive(Debug, Default)]
pub struct Local {
    shards: Vec<ShardId>,
    changed: bool,
}

/// Nobody else writes.
#[derive(Debug)]
struct Open;

impl Fence for Open {
    fn may_write(&self, _: &ShardId) -> bool {
        true
    }
}

impl Coordinator for Local {
    fn started(&mut self, _: u64) {}

    fn listed(&mut self, shards: &[Shard]) {
        let listed: Vec<ShardId> = shards.iter().map(|shard| shard.id.clone()).collect();
        self.changed |= listed != self.shards;
        self.shards = listed;
    }

    async fn granted(&mut self) -> Vec<Grant> {
        if !std::mem::take(&mut self.changed) {
            future::pending::<()>().await;
        }
        let grant = |shard: &ShardId| Grant { shard: shard.clone(), progress: None, begin: None };
        self.shards.iter().map(grant).collect()
    }

    fn checkpoint(&mut self, _: &ShardId, _: &Progress) {}

    fn finished(&mut self, _: &ShardId, children: &[Child]) {
        for child in children {
            if !self.shards.contains(&child.id) {
                self.shards.push(child.id.clone());
                self.changed = true;
            }
        }
    }

    fn released(&mut self, _: &ShardId) {}

    fn expects(&self, _: &ShardId) -> bool {
        true
    }

    fn ended(&self) -> Vec<ShardId> {
        Vec::new()
    }

    fn retire(&mut self) {}

    async fn closed(&mut self) {}

    fn problem(&self) -> Option<String> {
        None
    }

    fn fence(&self) -> Arc<dyn Fence> {
        Arc::new(Open)
    }
}
