//! Kinesis as a stream that pushes its records: consumers, and the events of their subscriptions.
//!
//! Invariant: a subscription is begun within the timeout of a call; what comes of it then is taken from
//! the connection (HTTP/2 over TLS, a stream of it each) only where somebody asks for it.

use aws_sdk_kinesis::config::Config;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::primitives::event_stream::EventReceiver;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_sdk_kinesis::types::{
    ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEvent,
    SubscribeToShardEventStream,
};

use super::read::fetched;
use super::readable::{child, meant, no_region};
use super::{Kinesis, lanes, outcome, within};
use crate::position::{SequenceNumber, ShardId};
use crate::stream::read::{Event, Events, Place, ReadError, Registered, Subscribable};
use crate::stream::{Outcome, Stream};

/// A subscription to a shard of Kinesis.
#[derive(Debug)]
pub struct Subscription {
    events: EventReceiver<SubscribeToShardEventStream, SubscribeToShardEventStreamError>,
    _place: lanes::Place,
}

impl Events for Subscription {
    async fn next(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            match self.events.recv().await {
                Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(told))) => {
                    return Ok(Some(event(told)));
                }
                // An event of a kind that is not known yet.
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) => {
                    let code = error.as_service_error().and_then(code);
                    return Err(told(code, outcome::of_event(&error, code)));
                }
            }
        }
    }
}

impl Subscribable for Kinesis {
    type Events = Subscription;

    async fn consumer(&self, name: &str) -> Result<Option<Registered>, ReadError> {
        let arn = self.arn().await?;
        let client = self.client().await.ok_or_else(no_region)?;
        let call = client.describe_stream_consumer().stream_arn(arn).consumer_name(name);
        match call.send().await {
            Ok(answer) => Ok(answer
                .consumer_description
                .map(|found| registered(found.consumer_arn, &found.consumer_status))),
            Err(error) if error.code() == Some("ResourceNotFoundException") => Ok(None),
            Err(error) => Err(self.read_error(&error).await),
        }
    }

    async fn register(&self, name: &str) -> Result<Registered, ReadError> {
        let arn = self.arn().await?;
        let client = self.client().await.ok_or_else(no_region)?;
        let call = client.register_stream_consumer().stream_arn(arn).consumer_name(name);
        match call.send().await {
            Ok(answer) => answer
                .consumer
                .map(|made| registered(made.consumer_arn, &made.consumer_status))
                .ok_or_else(|| ReadError::Failed("an answer without a consumer".to_owned())),
            Err(error) => Err(self.refusal(&error).await),
        }
    }

    async fn subscribe(
        &self,
        consumer: &str,
        shard: &ShardId,
        place: &Place,
    ) -> Result<Subscription, ReadError> {
        let client = self.client().await.ok_or_else(no_region)?;
        let (http, lane) = self.lanes.place();
        let call = client
            .subscribe_to_shard()
            .consumer_arn(consumer)
            .shard_id(&*shard.0)
            .starting_position(position(place)?)
            .customize()
            .config_override(Config::builder().http_client(http));
        // The call is done with the first message, which the attempt's own timeout does not cover.
        match within(self.timeout, call.send()).await {
            None => Err(ReadError::Failed("timed out".to_owned())),
            Some(Ok(answer)) => Ok(Subscription { events: answer.event_stream, _place: lane }),
            Some(Err(error)) => Err(self.refusal(&error).await),
        }
    }
}

impl Kinesis {
    /// Notes a failure that may be about another subscription, or another registration, and returns
    /// what it means.
    async fn refusal<E>(&self, error: &SdkError<E, HttpResponse>) -> ReadError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let outcome = outcome::of(error);
        self.note(&outcome).await;
        told(error.code(), outcome)
    }

    /// Returns the stream's ARN, which consumers are known under.
    async fn arn(&self) -> Result<String, ReadError> {
        if let Some(arn) = &self.name.arn {
            return Ok(arn.clone());
        }
        match self.describe().await {
            Ok(stream) => {
                stream.arn.ok_or_else(|| ReadError::Failed("a stream without an ARN".to_owned()))
            }
            Err((Some(trouble), message)) => Err(ReadError::Unavailable { trouble, message }),
            Err((None, message)) => Err(ReadError::Failed(message)),
        }
    }
}

/// Returns the code of what the service said in a stream of events, where it is the type that says it.
fn code(error: &SubscribeToShardEventStreamError) -> Option<&str> {
    use SubscribeToShardEventStreamError as Error;
    match error {
        Error::InternalFailureException(_) => Some("InternalFailureException"),
        Error::KmsAccessDeniedException(_) => Some("KMSAccessDeniedException"),
        Error::KmsDisabledException(_) => Some("KMSDisabledException"),
        Error::KmsInvalidStateException(_) => Some("KMSInvalidStateException"),
        Error::KmsNotFoundException(_) => Some("KMSNotFoundException"),
        Error::KmsOptInRequired(_) => Some("KMSOptInRequired"),
        Error::KmsThrottlingException(_) => Some("KMSThrottlingException"),
        Error::ResourceInUseException(_) => Some("ResourceInUseException"),
        Error::ResourceNotFoundException(_) => Some("ResourceNotFoundException"),
        other => other.code(),
    }
}

/// Returns what a failure means that may be about another subscription, or another registration.
fn told(code: Option<&str>, outcome: Outcome) -> ReadError {
    match code {
        Some("ResourceInUseException") => ReadError::Taken(outcome::trouble(outcome).1),
        _ => meant(outcome),
    }
}

fn registered(arn: String, status: &ConsumerStatus) -> Registered {
    Registered { arn, status: status.as_str().to_owned() }
}

fn position(place: &Place) -> Result<StartingPosition, ReadError> {
    let builder = StartingPosition::builder();
    let builder = match place {
        Place::TrimHorizon => builder.r#type(ShardIteratorType::TrimHorizon),
        Place::Time(millis) => {
            let time = DateTime::from_millis(i64::try_from(*millis).unwrap_or(i64::MAX));
            builder.r#type(ShardIteratorType::AtTimestamp).timestamp(time)
        }
        Place::At(number) => {
            builder.r#type(ShardIteratorType::AtSequenceNumber).sequence_number(&*number.0)
        }
        Place::After(number) => {
            builder.r#type(ShardIteratorType::AfterSequenceNumber).sequence_number(&*number.0)
        }
    };
    // It has the type that it needs.
    builder.build().map_err(|error| ReadError::Failed(error.to_string()))
}

fn event(told: SubscribeToShardEvent) -> Event {
    let continuation = Some(told.continuation_sequence_number).filter(|number| !number.is_empty());
    Event {
        records: told.records.into_iter().map(fetched).collect(),
        behind: u64::try_from(told.millis_behind_latest).ok().map(std::time::Duration::from_millis),
        continuation: continuation.map(|number| SequenceNumber::from(&*number)),
        children: told.child_shards.into_iter().flatten().map(child).collect(),
    }
}
