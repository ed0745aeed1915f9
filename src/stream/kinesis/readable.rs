//! Kinesis as a stream whose records can be read: one call each, and what its errors mean to a reader.
//!
//! Invariant: as for every other call here, a call is made once and ends within its timeout.

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{ChildShard, HashKeyRange, ShardIteratorType};

use super::read::fetched;
use super::{Kinesis, outcome};
use crate::position::ShardId;
use crate::stream::Outcome;
use crate::stream::read::{Child, Place, ReadError, Readable, Reply, Shard};

impl Readable for Kinesis {
    async fn list(&self) -> Result<Vec<Shard>, ReadError> {
        let client = self.client().await.ok_or_else(no_region)?;
        let mut shards = Vec::new();
        let mut token = None;
        loop {
            // A token stands for the stream, too: both in one request are refused.
            let (name, arn) = match token {
                Some(_) => (None, None),
                None => (self.name.name.clone(), self.name.arn.clone()),
            };
            let call = client
                .list_shards()
                .set_stream_name(name)
                .set_stream_arn(arn)
                .set_next_token(token);
            let answer = match call.send().await {
                Ok(answer) => answer,
                Err(error) => return Err(self.read_error(&error).await),
            };
            shards.extend(answer.shards.into_iter().flatten().map(shard));
            token = answer.next_token;
            if token.is_none() {
                return Ok(shards);
            }
        }
    }

    async fn iterator(&self, shard: &ShardId, place: &Place) -> Result<String, ReadError> {
        let client = self.client().await.ok_or_else(no_region)?;
        let call = client
            .get_shard_iterator()
            .set_stream_name(self.name.name.clone())
            .set_stream_arn(self.name.arn.clone())
            .shard_id(&*shard.0);
        let call = match place {
            Place::TrimHorizon => call.shard_iterator_type(ShardIteratorType::TrimHorizon),
            Place::Time(millis) => {
                let time = DateTime::from_millis(i64::try_from(*millis).unwrap_or(i64::MAX));
                call.shard_iterator_type(ShardIteratorType::AtTimestamp).timestamp(time)
            }
            Place::At(number) => call
                .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
                .starting_sequence_number(&*number.0),
            Place::After(number) => call
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(&*number.0),
        };
        match call.send().await {
            Ok(answer) => answer
                .shard_iterator
                .ok_or_else(|| ReadError::Failed("an answer without an iterator".to_owned())),
            Err(error) => Err(self.read_error(&error).await),
        }
    }

    async fn get(&self, iterator: &str, limit: u32) -> Result<Reply, ReadError> {
        let client = self.client().await.ok_or_else(no_region)?;
        let call = client
            .get_records()
            .set_stream_arn(self.name.arn.clone())
            .shard_iterator(iterator)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX));
        match call.send().await {
            Ok(answer) => Ok(Reply {
                records: answer.records.into_iter().map(fetched).collect(),
                behind: answer
                    .millis_behind_latest
                    .and_then(|millis| u64::try_from(millis).ok())
                    .map(std::time::Duration::from_millis),
                next: answer.next_shard_iterator,
                children: answer.child_shards.into_iter().flatten().map(child).collect(),
            }),
            Err(error) => Err(self.read_error(&error).await),
        }
    }
}

impl Kinesis {
    pub(super) async fn read_error<E>(&self, error: &SdkError<E, HttpResponse>) -> ReadError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let outcome = outcome::of(error);
        self.note(&outcome).await;
        // Whatever else is wrong with an iterator (another stream's, a format that has changed), a new
        // one heals it.
        if error.code() == Some("ExpiredIteratorException") {
            return ReadError::Expired(outcome::trouble(outcome).1);
        }
        meant(outcome)
    }
}

/// Returns what an outcome means to a reader.
pub(super) fn meant(outcome: Outcome) -> ReadError {
    match outcome {
        Outcome::Refused { message } => ReadError::Expired(message),
        Outcome::Throttled { message } => ReadError::Throttled(message),
        Outcome::Unavailable { trouble, message } => ReadError::Unavailable { trouble, message },
        Outcome::Unknown { message } => ReadError::Failed(message),
        Outcome::Answered(_) => ReadError::Failed(String::new()),
    }
}

pub(super) fn no_region() -> ReadError {
    let (trouble, message) = outcome::trouble(outcome::no_region());
    match trouble {
        Some(trouble) => ReadError::Unavailable { trouble, message },
        None => ReadError::Failed(message),
    }
}

fn shard(shard: aws_sdk_kinesis::types::Shard) -> Shard {
    let (first_hash, last_hash) = range(shard.hash_key_range);
    let parents = shard.parent_shard_id.into_iter().chain(shard.adjacent_parent_shard_id);
    let closed =
        shard.sequence_number_range.is_some_and(|range| range.ending_sequence_number.is_some());
    Shard {
        id: ShardId::from(&*shard.shard_id),
        parents: parents.map(|id| ShardId::from(&*id)).collect(),
        closed,
        first_hash,
        last_hash,
    }
}

pub(super) fn child(child: ChildShard) -> Child {
    let (first_hash, last_hash) = range(child.hash_key_range);
    Child {
        id: ShardId::from(&*child.shard_id),
        parents: child.parent_shards.iter().map(|id| ShardId::from(&**id)).collect(),
        first_hash,
        last_hash,
    }
}

fn range(range: Option<HashKeyRange>) -> (String, String) {
    range.map(|range| (range.starting_hash_key, range.ending_hash_key)).unwrap_or_default()
}
