//! The reading and making side of a stream: what the demo, the local endpoint and the tests need.
//!
//! Invariant: pages of one shard follow each other without gap: each begins after the last sequence
//! number of the one before.

use std::time::{Duration, Instant};

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::types::{Record, ShardIteratorType};

use super::{Kinesis, outcome};
use crate::position::SequenceNumber;
use crate::stream::read::Fetched;
use crate::stream::{Stream, Trouble};

/// Pages without records that are walked through in one call (they are normal over gaps).
const EMPTY_PAGES_MAX: u32 = 20;

/// How often a stream that is being made is asked whether it is ready.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// An operation that did not come off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} of stream {stream}: {message}")]
pub struct StreamError {
    /// The operation, such as `GetRecords`.
    pub operation: &'static str,
    /// The stream's name or ARN.
    pub stream: String,
    /// What somebody must mend, where that is known.
    pub trouble: Option<Trouble>,
    /// The service's words.
    pub message: String,
}

/// What was read of a shard at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The records, in order.
    pub records: Vec<Fetched>,
    /// True where nothing more was in the shard just then.
    pub caught_up: bool,
    /// The last sequence number read: where the next page begins after. That which was handed in
    /// where the page is empty.
    pub last: Option<String>,
}

impl Kinesis {
    /// Makes the stream with that many shards. It must be named by its name, and is not ready at once.
    ///
    /// # Errors
    /// The service's, such as that the stream exists.
    pub async fn create_stream(&self, shards: u32) -> Result<(), StreamError> {
        let operation = "CreateStream";
        let client = self.client().await.ok_or_else(|| self.no_region(operation))?;
        let call = client
            .create_stream()
            .set_stream_name(self.name.name.clone())
            .shard_count(i32::try_from(shards).unwrap_or(i32::MAX));
        call.send().await.map_err(|error| self.failed(operation, &error))?;
        Ok(())
    }

    /// Waits until the stream is active.
    ///
    /// # Errors
    /// The last answer, where it is not by `deadline`.
    pub async fn wait_active(&self, deadline: Instant) -> Result<(), StreamError> {
        loop {
            let (trouble, message) = match self.describe().await {
                Ok(stream) if stream.status == "ACTIVE" => return Ok(()),
                Ok(stream) => (Some(Trouble::Missing), format!("it is {}", stream.status)),
                Err(told) => told,
            };
            if Instant::now() >= deadline {
                let operation = "DescribeStreamSummary";
                return Err(StreamError { operation, stream: self.shown(), trouble, message });
            }
            tokio::time::sleep(ASK_INTERVAL).await;
        }
    }

    /// Returns the ids of all shards, closed ones included.
    ///
    /// # Errors
    /// The service's.
    pub async fn shards(&self) -> Result<Vec<String>, StreamError> {
        let operation = "ListShards";
        let client = self.client().await.ok_or_else(|| self.no_region(operation))?;
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
            let answer = call.send().await.map_err(|error| self.failed(operation, &error))?;
            shards.extend(answer.shards.into_iter().flatten().map(|shard| shard.shard_id));
            token = answer.next_token;
            if token.is_none() {
                return Ok(shards);
            }
        }
    }

    /// Returns the next records of `shard`: from its beginning, or after a sequence number.
    ///
    /// # Errors
    /// The service's.
    pub async fn records(&self, shard: &str, after: Option<&str>) -> Result<Page, StreamError> {
        let operation = "GetRecords";
        let client = self.client().await.ok_or_else(|| self.no_region(operation))?;
        let mut iterator = self.iterator(shard, after).await?;
        for _ in 0..EMPTY_PAGES_MAX {
            let Some(place) = iterator else {
                return Ok(Page {
                    caught_up: true,
                    last: after.map(str::to_owned),
                    ..Page::default()
                });
            };
            let call =
                client.get_records().set_stream_arn(self.name.arn.clone()).shard_iterator(place);
            let answer = call.send().await.map_err(|error| self.failed(operation, &error))?;
            let at_tip = answer.next_shard_iterator.is_none()
                || answer.millis_behind_latest.is_none_or(|behind| behind == 0);
            if !answer.records.is_empty() || at_tip {
                let records: Vec<_> = answer.records.into_iter().map(fetched).collect();
                let last = records.last().map(|record| record.sequence_number.to_string());
                // Not every emulator counts how far behind a full page leaves the reader.
                let caught_up = at_tip && records.is_empty();
                return Ok(Page { caught_up, last: last.or(after.map(str::to_owned)), records });
            }
            iterator = answer.next_shard_iterator;
        }
        Ok(Page { last: after.map(str::to_owned), ..Page::default() })
    }

    async fn iterator(
        &self,
        shard: &str,
        after: Option<&str>,
    ) -> Result<Option<String>, StreamError> {
        let operation = "GetShardIterator";
        let client = self.client().await.ok_or_else(|| self.no_region(operation))?;
        let kind = match after {
            Some(_) => ShardIteratorType::AfterSequenceNumber,
            None => ShardIteratorType::TrimHorizon,
        };
        let call = client
            .get_shard_iterator()
            .set_stream_name(self.name.name.clone())
            .set_stream_arn(self.name.arn.clone())
            .shard_id(shard)
            .shard_iterator_type(kind)
            .set_starting_sequence_number(after.map(str::to_owned));
        let answer = call.send().await.map_err(|error| self.failed(operation, &error))?;
        Ok(answer.shard_iterator)
    }

    fn failed<E>(&self, operation: &'static str, error: &SdkError<E, HttpResponse>) -> StreamError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let (trouble, message) = outcome::trouble(outcome::of(error));
        StreamError { operation, stream: self.shown(), trouble, message }
    }

    fn no_region(&self, operation: &'static str) -> StreamError {
        let (trouble, message) = outcome::trouble(outcome::no_region());
        StreamError { operation, stream: self.shown(), trouble, message }
    }

    fn shown(&self) -> String {
        self.name.name.clone().or_else(|| self.name.arn.clone()).unwrap_or_default()
    }
}

pub(super) fn fetched(record: Record) -> Fetched {
    Fetched {
        partition_key: record.partition_key.unwrap_or_default(),
        data: record.data.into_bytes(),
        sequence_number: SequenceNumber::from(&*record.sequence_number),
    }
}
