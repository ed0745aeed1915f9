//! Leases: what stands in the table for a shard, and the conditional writes that change it.
//!
//! Invariant: every write that changes an owner or a checkpoint raises [`Lease::counter`] and is made
//! only where the counter is the one that was seen, so that of two writers one is refused. The words,
//! the fields and the conditions are those of version 2 of the Kinesis Client Library.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::position::{Progress, SequenceNumber, ShardId};

/// The name of one run of one agent; never used by another.
pub type WorkerId = Arc<str>;

/// How far the shard of a lease is dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// Nothing is; it begins at its oldest record.
    TrimHorizon,
    /// Nothing is; it begins with what comes from now on.
    Latest,
    /// Nothing is; it begins at the time that the consumers are configured with.
    AtTimestamp,
    /// Up to here.
    At(Progress),
    /// To its end.
    ShardEnd,
}

/// The sub-sequence number of a record of which all pieces are done: a client library that goes on
/// from here compares, and skips all of them.
pub const WHOLE: u64 = i64::MAX as u64;

impl Checkpoint {
    /// Returns what the attributes `checkpoint` and `checkpointSubSequenceNumber` stand for.
    #[must_use]
    pub fn parse(checkpoint: &str, sub_sequence: u64) -> Option<Self> {
        Some(match checkpoint {
            "TRIM_HORIZON" => Self::TrimHorizon,
            "LATEST" => Self::Latest,
            "AT_TIMESTAMP" => Self::AtTimestamp,
            "SHARD_END" => Self::ShardEnd,
            digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                // The library counts the pieces from 0, and notes the last that is done.
                let pieces = (sub_sequence < WHOLE).then(|| sub_sequence.saturating_add(1));
                Self::At(Progress { sequence: SequenceNumber::from(digits), pieces })
            }
            _ => return None,
        })
    }

    /// Returns the attributes `checkpoint` and `checkpointSubSequenceNumber`.
    #[must_use]
    pub fn written(&self) -> (&str, u64) {
        match self {
            Self::TrimHorizon => ("TRIM_HORIZON", 0),
            Self::Latest => ("LATEST", 0),
            Self::AtTimestamp => ("AT_TIMESTAMP", 0),
            Self::ShardEnd => ("SHARD_END", 0),
            Self::At(Progress { sequence, pieces }) => {
                // No piece done is no checkpoint that the library knows: it would skip the first.
                (&sequence.0, pieces.map_or(WHOLE, |pieces| pieces.saturating_sub(1)))
            }
        }
    }

    /// Returns true where this is further than `other`.
    #[must_use]
    pub fn is_beyond(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::ShardEnd) | (Self::TrimHorizon | Self::Latest | Self::AtTimestamp, _) => {
                false
            }
            (Self::At(this), Self::At(other)) => this.is_beyond(other),
            (Self::ShardEnd | Self::At(_), _) => true,
        }
    }
}

/// What stands in the table for a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The shard.
    pub shard: ShardId,
    /// Raised by every write; one that stands still for the failover time says that the owner is dead.
    pub counter: u64,
    /// Who reads the shard; `None`: it is free.
    pub owner: Option<WorkerId>,
    /// How far it is dealt with.
    pub checkpoint: Checkpoint,
    /// The shards it was split or merged from.
    pub parents: BTreeSet<ShardId>,
    /// The shards that go on where it ended, once it has.
    pub children: BTreeSet<ShardId>,
    /// The lowest and the highest hash key that the shard holds, decimal.
    pub hash_keys: Option<(String, String)>,
    /// How often the owner has changed since the last checkpoint.
    pub switches: u64,
    /// What `LATEST` means, in milliseconds since 1970: the time at which the agent first started that added
    /// the lease. Else each owner would begin with what comes after its own start, and what came between two
    /// owners would be read by none. Only kinetail knows this attribute.
    pub since: Option<u64>,
    /// Who asks the owner to hand the shard over once it is drained. Only kinetail knows this attribute;
    /// others leave it alone, and are not asked twice.
    pub wanted_by: Option<WorkerId>,
}

impl Lease {
    /// Returns the lease of a shard that nobody has begun.
    #[must_use]
    pub fn new(shard: ShardId, checkpoint: Checkpoint) -> Self {
        Self {
            shard,
            counter: 0,
            owner: None,
            checkpoint,
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            hash_keys: None,
            switches: 0,
            since: None,
            wanted_by: None,
        }
    }

    /// Returns true where the shard is dealt with to its end.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.checkpoint == Checkpoint::ShardEnd
    }

    /// Returns true where `worker` owns it.
    #[must_use]
    pub fn is_owned_by(&self, worker: &str) -> bool {
        self.owner.as_deref() == Some(worker)
    }
}

/// A conditional write of one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Adds it, where there is none.
    Create(Lease),
    /// Makes this worker its owner, where the counter is the one seen.
    Take {
        /// The lease as it was seen.
        seen: Lease,
    },
    /// Says that its owner is alive, where the counter is the one seen.
    Renew {
        /// The shard.
        shard: ShardId,
        /// The counter seen.
        counter: u64,
        /// Refuses who asks for it.
        decline: bool,
    },
    /// Notes how far the shard is dealt with, where the counter is the one seen and the worker owns it.
    Checkpoint {
        /// The shard.
        shard: ShardId,
        /// The counter seen.
        counter: u64,
        /// How far.
        checkpoint: Checkpoint,
        /// Who goes on, once the shard is finished.
        children: BTreeSet<ShardId>,
    },
    /// Asks the owner to hand the shard over, where the owner and who asks already are those seen.
    Ask {
        /// The lease as it was seen.
        seen: Lease,
    },
    /// Gives it to another or nobody, where the counter is the one seen and the worker owns it.
    Give {
        /// The shard.
        shard: ShardId,
        /// The counter seen.
        counter: u64,
        /// To whom.
        to: Option<WorkerId>,
    },
    /// Removes it, where it is finished.
    Remove {
        /// The shard.
        shard: ShardId,
    },
}

impl Write {
    /// Returns the shard whose lease it writes.
    #[must_use]
    pub fn shard(&self) -> &ShardId {
        match self {
            Self::Create(lease) | Self::Take { seen: lease } | Self::Ask { seen: lease } => {
                &lease.shard
            }
            Self::Renew { shard, .. }
            | Self::Checkpoint { shard, .. }
            | Self::Give { shard, .. }
            | Self::Remove { shard } => shard,
        }
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is made, and this is the lease now (nothing where it was removed).
    Done(Option<Lease>),
    /// The condition did not hold, and this is the lease now.
    Refused(Option<Lease>),
    /// No answer, or an error: it may be made or not.
    Unknown(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_the_words_and_numbers_of_the_client_library() {
        let at = |sequence: &str, pieces| {
            Checkpoint::At(Progress { sequence: SequenceNumber::from(sequence), pieces })
        };
        for (text, sub, checkpoint) in [
            ("TRIM_HORIZON", 0, Checkpoint::TrimHorizon),
            ("LATEST", 0, Checkpoint::Latest),
            ("AT_TIMESTAMP", 0, Checkpoint::AtTimestamp),
            ("SHARD_END", 0, Checkpoint::ShardEnd),
            ("49590338271490256608559692538361571095921575989136588898", 0, {
                at("49590338271490256608559692538361571095921575989136588898", Some(1))
            }),
            ("12", 6, at("12", Some(7))),
            ("12", WHOLE, at("12", None)),
        ] {
            assert_eq!(Checkpoint::parse(text, sub), Some(checkpoint.clone()));
            assert_eq!(checkpoint.written(), (text, sub));
        }
        for text in ["", "-1", "trim_horizon", "1.5"] {
            assert_eq!(Checkpoint::parse(text, 0), None, "{text}");
        }
    }

    #[test]
    fn a_checkpoint_is_beyond_what_is_nearer_to_the_beginning() {
        let at = |sequence: &str| Checkpoint::At(Progress::after(SequenceNumber::from(sequence)));
        let order = [Checkpoint::TrimHorizon, at("9"), at("10"), Checkpoint::ShardEnd];
        for (one, low) in order.iter().enumerate() {
            for (two, high) in order.iter().enumerate() {
                assert_eq!(high.is_beyond(low), two > one, "{high:?} {low:?}");
            }
        }
        assert!(!Checkpoint::Latest.is_beyond(&Checkpoint::TrimHorizon));
    }
}
