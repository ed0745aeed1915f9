//! The reading side of a stream: its shards, and the records of a shard.
//!
//! Invariant: a reply says where the shard goes on ([`Reply::next`]) or that it has ended, and never
//! neither; what a failed call means is a [`ReadError`], so that whoever reads need know no service.
//! What is not asked for again and again but pushed ([`Subscribable`]) comes as fast as it is taken.

use std::time::Duration;

use bytes::Bytes;

use super::Trouble;
use crate::position::{Progress, SequenceNumber, ShardId};

/// A shard, as `ListShards` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub id: ShardId,
    /// The shards it was split or merged from: none, one or two. They may be gone from the stream.
    pub parents: Vec<ShardId>,
    /// True once it takes no more records: it ends.
    pub closed: bool,
    /// The lowest hash key that it holds, decimal.
    pub first_hash: String,
    /// The highest.
    pub last_hash: String,
}

/// A shard that goes on where another ended (`ChildShards` of the last reply).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub id: ShardId,
    /// Its parents.
    pub parents: Vec<ShardId>,
    /// The lowest hash key that it holds, decimal.
    pub first_hash: String,
    /// The highest.
    pub last_hash: String,
}

/// A record as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The partition key; empty on a stream that distributes records itself.
    pub partition_key: String,
    /// The data.
    pub data: Bytes,
    /// The place in the shard.
    pub sequence_number: SequenceNumber,
}

/// Where reading a shard begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the oldest record there is.
    TrimHorizon,
    /// At the first record that arrived at this time or later, in milliseconds since 1970.
    Time(u64),
    /// At this record.
    At(SequenceNumber),
    /// After this record.
    After(SequenceNumber),
}

impl From<&Progress> for Place {
    fn from(progress: &Progress) -> Self {
        let sequence = progress.sequence.clone();
        // Of a record that is done in part, the rest is still to come.
        match progress.pieces {
            None => Self::After(sequence),
            Some(_) => Self::At(sequence),
        }
    }
}

/// What a read brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The records, in order; none is normal, also where more follow.
    pub records: Vec<Fetched>,
    /// How far the end of the shard is behind what arrives now; `None` where the endpoint does not
    /// tell.
    pub behind: Option<Duration>,
    /// The iterator of what follows; `None`: the shard ends here.
    pub next: Option<String>,
    /// The shards that follow one that ends here.
    pub children: Vec<Child>,
}

/// What a subscription brought at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The records, in order; none is normal.
    pub records: Vec<Fetched>,
    /// How far the end of the event is behind what arrives now.
    pub behind: Option<Duration>,
    /// After this the next subscription begins; `None`: the shard ends here.
    pub continuation: Option<SequenceNumber>,
    /// The shards that follow one that ends here.
    pub children: Vec<Child>,
}

/// A consumer that may subscribe to the shards of a stream (enhanced fan-out).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its ARN.
    pub arn: String,
    /// `ACTIVE`, `CREATING`, `DELETING`.
    pub status: String,
}

/// Why a read did not come off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The iterator is too old or unknown: get a new one.
    #[error("{0}")]
    Expired(String),
    /// The consumer subscribed to the shard a moment ago: later.
    #[error("{0}")]
    Taken(String),
    /// The shard or the call is throttled: later.
    #[error("{0}")]
    Throttled(String),
    /// Nothing will be read until somebody mends it.
    #[error("{message}")]
    Unavailable {
        /// What kind of trouble.
        trouble: Trouble,
        /// The service's words.
        message: String,
    },
    /// No answer, or a broken one, or a 5xx: again.
    #[error("{0}")]
    Failed(String),
}

/// A stream whose records can be read. Implemented by Kinesis, and by fakes in tests.
pub trait Readable: Send + Sync + 'static {
    /// Returns all shards of which records may still be there, closed ones included.
    ///
    /// # Errors
    /// [`ReadError`].
    fn list(&self) -> impl Future<Output = Result<Vec<Shard>, ReadError>> + Send;

    /// Returns an iterator, which is good for five minutes.
    ///
    /// # Errors
    /// [`ReadError`].
    fn iterator(
        &self,
        shard: &ShardId,
        place: &Place,
    ) -> impl Future<Output = Result<String, ReadError>> + Send;

    /// Returns the records at an iterator, at most `limit`.
    ///
    /// # Errors
    /// [`ReadError`].
    fn get(
        &self,
        iterator: &str,
        limit: u32,
    ) -> impl Future<Output = Result<Reply, ReadError>> + Send;
}

/// A stream that pushes the records of a shard. Implemented by Kinesis, and by fakes in tests.
pub trait Subscribable: Readable {
    /// A subscription to a shard.
    type Events: Events;

    /// Returns the consumer of that name; `None` where there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    fn consumer(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<Registered>, ReadError>> + Send;

    /// Registers a consumer; it takes a moment until it can be used.
    ///
    /// # Errors
    /// [`ReadError`]: [`Taken`](ReadError::Taken) where it is there.
    fn register(&self, name: &str) -> impl Future<Output = Result<Registered, ReadError>> + Send;

    /// Subscribes the consumer of that ARN to a shard, in the place of any subscription that it had.
    ///
    /// # Errors
    /// [`ReadError`].
    fn subscribe(
        &self,
        consumer: &str,
        shard: &ShardId,
        place: &Place,
    ) -> impl Future<Output = Result<Self::Events, ReadError>> + Send;
}

/// The events of a subscription.
pub trait Events: Send + 'static {
    /// Returns the next event, `None` once the subscription is over: Kinesis ends each after five minutes.
    /// Dropped before it resolves, it loses nothing; not called, it holds the service up.
    ///
    /// # Errors
    /// [`ReadError`], and the subscription is over.
    fn next(&mut self) -> impl Future<Output = Result<Option<Event>, ReadError>> + Send;
}
