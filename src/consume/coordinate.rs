//! Coordination: which shards this agent may read, among others that read the same stream.
//!
//! Invariant: a shard is read only while it is granted, and how far it is goes to whoever coordinates
//! after it was committed here, never before.

use std::future;

use crate::position::{Progress, ShardId};
use crate::stream::read::{Child, Shard};

/// A shard that may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The shard.
    pub shard: ShardId,
    /// How far it was dealt with, by whichever agent; `None` where nobody began it, or where only this
    /// agent's own checkpoint knows.
    pub progress: Option<Progress>,
}

/// What was said to a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is noted; the shard is still this agent's.
    Held,
    /// It is not noted: another agent has the shard now. Reading it ends.
    Lost,
    /// It is not noted, and may be the next time.
    Unknown,
}

/// Who decides which shards this agent reads: [`Local`], or leases in a table that many agents share.
///
/// All calls are made by one task, in turn. One that takes long holds back the grants, and nothing
/// else: reading and writing go on.
pub trait Coordinator: Send + 'static {
    /// The stream holds these shards now.
    fn listed(&mut self, shards: &[Shard]) -> impl Future<Output = ()> + Send;

    /// Resolves to all that may be read now, whenever that has changed; at the first call at once.
    /// Dropped before it resolves, it loses nothing.
    fn granted(&mut self) -> impl Future<Output = Vec<Grant>> + Send;

    /// The shard is dealt with, written and committed up to here.
    fn checkpoint(
        &mut self,
        shard: &ShardId,
        progress: &Progress,
    ) -> impl Future<Output = Standing> + Send;

    /// The shard is dealt with to its end; these go on where it ended.
    fn finished(
        &mut self,
        shard: &ShardId,
        children: &[Child],
    ) -> impl Future<Output = Standing> + Send;

    /// The shard is not read any more, all that was is committed: another agent may have it.
    fn released(&mut self, shard: &ShardId) -> impl Future<Output = ()> + Send;

    /// Returns true where a shard that is not granted now will be, as far as can be told: a run that
    /// ends once all is read waits for it.
    fn expects(&self, shard: &ShardId) -> bool;

    /// What is wrong just now, in words.
    fn problem(&self) -> Option<String>;
}

/// This agent reads every shard.
#[derive(Debug, Default)]
pub struct Local {
    shards: Vec<ShardId>,
    changed: bool,
}

impl Coordinator for Local {
    async fn listed(&mut self, shards: &[Shard]) {
        let listed: Vec<ShardId> = shards.iter().map(|shard| shard.id.clone()).collect();
        self.changed |= listed != self.shards;
        self.shards = listed;
    }

    async fn granted(&mut self) -> Vec<Grant> {
        if !std::mem::take(&mut self.changed) {
            future::pending::<()>().await;
        }
        let grant = |shard: &ShardId| Grant { shard: shard.clone(), progress: None };
        self.shards.iter().map(grant).collect()
    }

    async fn checkpoint(&mut self, _: &ShardId, _: &Progress) -> Standing {
        Standing::Held
    }

    async fn finished(&mut self, _: &ShardId, children: &[Child]) -> Standing {
        for child in children {
            if !self.shards.contains(&child.id) {
                self.shards.push(child.id.clone());
                self.changed = true;
            }
        }
        Standing::Held
    }

    async fn released(&mut self, _: &ShardId) {}

    fn expects(&self, _: &ShardId) -> bool {
        true
    }

    fn problem(&self) -> Option<String> {
        None
    }
}
