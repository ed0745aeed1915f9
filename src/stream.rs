//! The stream: the one seam between the agent and Kinesis.
//!
//! Invariant: what a call did is an [`Outcome`], never an exception: in particular "no answer" is a
//! value of its own ([`Outcome::Unknown`]), because the records may have been stored all the same.

pub mod aggregating;
pub mod dynamodb;
pub mod kinesis;
pub mod read;

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

/// What a stream says of itself (`DescribeStreamSummary`); a field is `None` where the endpoint does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// `ACTIVE`, `UPDATING`, `CREATING`, `DELETING`.
    pub status: String,
    /// `PROVISIONED` or `ON_DEMAND`.
    pub mode: Option<String>,
    /// Open shards.
    pub open_shards: Option<u32>,
    /// The largest record in KiB (`MaxRecordSizeInKiB`); 1024 where the endpoint does not tell.
    pub max_record_kib: Option<u32>,
    /// `USER_PARTITION_KEY` or `AUTO` (`RecordDistributionStrategy`).
    pub distribution: Option<String>,
    /// The stream's ARN.
    pub arn: Option<String>,
    /// `NONE` or `KMS`.
    pub encryption: Option<String>,
}

impl Description {
    /// Returns true where the stream spreads records over its shards by itself, whatever their
    /// partition keys (`AUTO`, on-demand streams only): it does not support KPL aggregation.
    #[must_use]
    pub fn spreads_by_itself(&self) -> bool {
        self.distribution.as_deref() == Some("AUTO")
    }
}

/// One entry of a PutRecords call: cheap to clone, the bytes are shared.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The partition key.
    pub partition_key: Arc<str>,
    /// The data blob, before base64, in the pieces it is made of: one for each record that goes in it.
    pub data: SmallVec<[Bytes; 1]>,
}

/// What became of one entry of an answered call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryOutcome {
    /// Stored.
    Accepted {
        /// The shard that stored it, such as `shardId-000000000003`.
        shard: Arc<str>,
    },
    /// `InternalFailure`: try again.
    Failed {
        /// The service's words.
        message: String,
    },
    /// Refused for what it is (some endpoints answer so for a record that is too large): no retry helps.
    Poison {
        /// The service's words.
        message: String,
    },
    /// `ProvisionedThroughputExceededException`: the shard takes no more just now.
    Throttled {
        /// The shard, where the message names it.
        shard: Option<Arc<str>>,
    },
}

/// Why a stream cannot be used until somebody mends something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Access denied.
    Access,
    /// No credentials, expired or refused ones, or a clock too wrong to sign with.
    Credentials,
    /// The stream does not take records in the flow's format.
    Format,
    /// The KMS key of the stream cannot be used.
    Key,
    /// The stream does not exist, or is not active.
    Missing,
}

/// What became of a PutRecords call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// HTTP 200: one outcome an entry, in the order of the request.
    Answered(Vec<EntryOutcome>),
    /// The call was refused for what it holds (`InvalidArgumentException`, `ValidationException`,
    /// 413, `SerializationException`): some record in it is poison; nothing was stored.
    Refused {
        /// The service's words.
        message: String,
    },
    /// The whole call was throttled (request rate, KMS); nothing was stored.
    Throttled {
        /// The service's words.
        message: String,
    },
    /// Nothing was stored, and nothing will be until somebody mends it.
    Unavailable {
        /// What kind of trouble.
        trouble: Trouble,
        /// The service's words.
        message: String,
    },
    /// No answer, a broken one, or a 5xx: the records may or may not have been stored.
    Unknown {
        /// What happened.
        message: String,
    },
}

/// A place that takes records. Implemented by Kinesis, and by fakes in tests.
pub trait Stream: Send + Sync + 'static {
    /// Puts the entries (1 to 500, within the request limit); returns within the request timeout.
    fn put_records(&self, entries: Vec<Entry>) -> impl Future<Output = Outcome> + Send;

    /// Asks the stream for its properties.
    ///
    /// # Errors
    /// The trouble where access, credentials or the stream are missing, `None` where the endpoint
    /// did not answer; with the words to show.
    fn describe(
        &self,
    ) -> impl Future<Output = Result<Description, (Option<Trouble>, String)>> + Send;
}
