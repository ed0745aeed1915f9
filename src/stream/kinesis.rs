//! Kinesis itself, on the AWS SDK, which this file, its folder and `dynamodb.rs` name alone.
//!
//! Invariant: a call ends in an [`Outcome`] within its timeout (twice that, where credentials are
//! read afresh before it), whatever happens; it is made once (the SDK's own retries are off, the
//! retry loop is the shipper's); a record's bytes are read once, on their way into the request's
//! text; and no message holds a secret.

mod body;
mod lanes;
pub(super) mod outcome;
mod put;
mod read;
mod readable;
pub(super) mod session;
mod subscribable;

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Config;
use aws_sdk_kinesis::types::PutRecordsResultEntry;

use self::body::{Body, Pool};
use self::lanes::Lanes;
use self::put::{OwnBody, Turns};
use self::session::Sessions;

pub use self::read::{Page, StreamError};

use super::{Description, Entry, EntryOutcome, Outcome, Stream, Trouble};
use crate::config;

/// Looks at a call whose time is over, each after all others had their turn: the socket is read in one,
/// and its answer told in the next; the rest is for answers that come in pieces.
const LAST_LOOKS: u32 = 16;

/// Shard names remembered, so that an answer of 500 entries allocates none. An account's largest
/// default quota of shards in a region is 20,000.
const SHARD_NAMES_MAX: usize = 20_000;

/// A stream of Amazon Kinesis Data Streams, or of an endpoint that speaks its protocol.
#[derive(Debug)]
pub struct Kinesis {
    name: Name,
    timeout: Duration,
    sessions: Sessions,
    bodies: Pool,
    turns: Turns,
    lanes: Lanes,
    shard_names: Mutex<HashSet<Arc<str>>>,
}

/// How a stream is named in a request: one of the two.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    name: Option<String>,
    arn: Option<String>,
}

impl Name {
    fn new(stream: &str) -> Self {
        if stream.starts_with("arn:") {
            Self { name: None, arn: Some(stream.to_owned()) }
        } else {
            Self { name: Some(stream.to_owned()), arn: None }
        }
    }

    fn len(&self) -> usize {
        self.name.iter().chain(&self.arn).map(String::len).sum()
    }
}

/// Returns the region of `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`; none where it is a name.
pub(super) fn region(stream: &str) -> Option<&str> {
    let arn = Some(stream).filter(|stream| stream.starts_with("arn:"))?;
    arn.split(':').nth(3).filter(|region| !region.is_empty())
}

impl Kinesis {
    /// Returns the stream of that name or ARN; a call to it may take `timeout`. Nothing is sent to it yet;
    /// the SDK may read its files and ask the instance's metadata service for a region where none
    /// is set.
    ///
    /// The region is `aws.region`, else the one in the ARN, else what the SDK's chain finds. An endpoint
    /// on this machine is taken for an emulator: where neither the environment nor a profile says
    /// otherwise, it gets the region `us-east-1` and placeholder credentials.
    pub async fn connect(aws: &config::Aws, stream: &str, timeout: Duration) -> Self {
        let name = Name::new(stream);
        let region = region(stream).map(str::to_owned);
        Self {
            name,
            timeout,
            sessions: Sessions::open(aws.clone(), region, timeout).await,
            bodies: Pool::default(),
            turns: Turns::default(),
            lanes: Lanes::default(),
            shard_names: Mutex::new(HashSet::new()),
        }
    }

    /// Returns a client to make a call with, or `None` where no region is known.
    async fn client(&self) -> Option<Client> {
        self.sessions.client().await
    }

    /// Takes note of a refusal of the credentials.
    async fn note(&self, outcome: &Outcome) {
        if let Outcome::Unavailable { trouble: Trouble::Credentials, .. } = outcome {
            self.sessions.refused().await;
        }
    }

    fn answered(&self, entries: &[PutRecordsResultEntry]) -> Outcome {
        let mut names = self.shard_names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() > SHARD_NAMES_MAX {
            names.clear();
        }
        let mut intern = |name: &str| {
            if let Some(known) = names.get(name) {
                return Arc::clone(known);
            }
            let name: Arc<str> = Arc::from(name);
            names.insert(Arc::clone(&name));
            name
        };
        Outcome::Answered(entries.iter().map(|entry| entry_outcome(entry, &mut intern)).collect())
    }
}

impl Stream for Kinesis {
    async fn put_records(&self, entries: Vec<Entry>) -> Outcome {
        let Some(client) = self.client().await else { return outcome::no_region() };
        let turn = self.turns.next().await;
        let body = Body::new(&self.name, &entries, &self.bodies);
        // The SDK chooses the endpoint by the name; what it would write itself is not used.
        let call = client
            .put_records()
            .set_stream_name(self.name.name.clone())
            .set_stream_arn(self.name.arn.clone())
            .customize()
            .config_override(Config::builder().timeout_config(session::untimed()))
            .interceptor(OwnBody::new(body, turn));
        match within(self.timeout, call.send()).await {
            None => Outcome::Unknown { message: "timed out".to_owned() },
            Some(Ok(answer)) => self.answered(&answer.records),
            Some(Err(error)) => {
                let outcome = outcome::of(&error);
                self.note(&outcome).await;
                outcome
            }
        }
    }

    async fn describe(&self) -> Result<Description, (Option<Trouble>, String)> {
        let Some(client) = self.client().await else {
            return Err(outcome::trouble(outcome::no_region()));
        };
        let call = client
            .describe_stream_summary()
            .set_stream_name(self.name.name.clone())
            .set_stream_arn(self.name.arn.clone());
        match call.send().await {
            Ok(answer) => answer
                .stream_description_summary
                .map(description)
                .ok_or_else(|| (None, "an answer without a description".to_owned())),
            Err(error) => {
                let outcome = outcome::of(&error);
                self.note(&outcome).await;
                Err(outcome::trouble(outcome))
            }
        }
    }
}

/// Returns what `call` comes to within `time`. Where the whole process stood still for longer, the answer
/// may have come meanwhile, and what reads it waits for its turn as this does: it has some first.
async fn within<T>(time: Duration, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    if let Ok(done) = tokio::time::timeout(time, &mut call).await {
        return Some(done);
    }
    for _ in 0..LAST_LOOKS {
        tokio::task::yield_now().await;
        let look = poll_fn(|context| Poll::Ready(call.as_mut().poll(context)));
        if let Poll::Ready(done) = look.await {
            return Some(done);
        }
    }
    None
}

fn entry_outcome(
    entry: &PutRecordsResultEntry,
    intern: &mut impl FnMut(&str) -> Arc<str>,
) -> EntryOutcome {
    let code = entry.error_code().filter(|code| !code.is_empty());
    match (code, entry.shard_id()) {
        (Some(code), _) => {
            outcome::of_entry(code, entry.error_message().unwrap_or_default(), intern)
        }
        (None, Some(shard)) => EntryOutcome::Accepted { shard: intern(shard) },
        (None, None) => {
            EntryOutcome::Failed { message: "an entry with neither shard nor error".to_owned() }
        }
    }
}

fn description(summary: aws_sdk_kinesis::types::StreamDescriptionSummary) -> Description {
    let count = |number: i32| u32::try_from(number).ok();
    Description {
        status: summary.stream_status.as_str().to_owned(),
        mode: summary.stream_mode_details.map(|mode| mode.stream_mode.as_str().to_owned()),
        open_shards: count(summary.open_shard_count),
        max_record_kib: summary.max_record_size_in_kib.and_then(count),
        distribution: summary.record_distribution_strategy.map(|kind| kind.as_str().to_owned()),
        arn: Some(summary.stream_arn).filter(|arn| !arn.is_empty()),
        encryption: summary.encryption_type.map(|kind| kind.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests;
