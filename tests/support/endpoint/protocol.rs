//! The protocol, awsJson1.1: bodies in, what the service says about them out.
//!
//! Invariant: what real Kinesis refuses is refused here, whole and before anything is stored, with
//! the exception's own name. Limits: the service's page "Quotas and limits" and its API model.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Options;
use super::http::Answer;
use super::log::EntryOutcome;
use super::script::EntryFault;
use super::shards;

/// The account that ARNs and messages name.
const ACCOUNT: &str = "123456789012";
/// The most records in a call.
const RECORDS_MAX: usize = 500;
/// The most characters of a partition key.
const KEY_CHARACTERS_MAX: usize = 256;

/// A `PutRecords` body as it came; strings without escapes stay in the body.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PutBody<'a> {
    #[serde(borrow, default)]
    records: Vec<PutEntry<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    stream_name: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "StreamARN", skip_serializing_if = "Option::is_none")]
    stream_arn: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PutEntry<'a> {
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(borrow, default)]
    partition_key: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    explicit_hash_key: Option<Cow<'a, str>>,
}

/// A `PutRecords` call that may be carried out.
#[derive(Debug)]
pub struct Put {
    /// The stream's name.
    pub stream: Arc<str>,
    /// The records.
    pub entries: Vec<Entry>,
}

/// One record of a call.
#[derive(Debug)]
pub struct Entry {
    /// The partition key.
    pub key: Arc<str>,
    /// The data, after base64.
    pub data: Bytes,
    /// The shard that the key (or the explicit hash key) belongs to.
    pub shard: u32,
}

impl Entry {
    /// Returns the size that Kinesis counts.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len() + self.key.len()
    }
}

/// Returns the call that a body stands for, however many entries and bytes it has.
///
/// # Errors
/// The answer that refuses it.
pub fn parse_put(body: &[u8], options: &Options) -> Result<Put, Answer> {
    let refuse = |message: &str| Answer::error(400, "SerializationException", message);
    let body: PutBody<'_> =
        serde_json::from_slice(body).map_err(|error| refuse(&error.to_string()))?;
    let stream = stream_name(body.stream_name.as_deref(), body.stream_arn.as_deref())?;
    let mut entries = Vec::with_capacity(body.records.len());
    for entry in &body.records {
        let data = base64_simd::STANDARD
            .decode_to_vec(entry.data.as_bytes())
            .map_err(|_| refuse("the data is not base64"))?;
        let hash = match &entry.explicit_hash_key {
            Some(number) => explicit_hash(number)?,
            None => shards::hash(&entry.partition_key),
        };
        let shard = shards::shard_of(hash, options.shards);
        let key = Arc::from(&*entry.partition_key);
        entries.push(Entry { key, data: data.into(), shard });
    }
    Ok(Put { stream: stream.into(), entries })
}

/// Checks a call against the service's limits.
///
/// # Errors
/// The answer that refuses it.
pub fn check_put(put: &Put, options: &Options) -> Result<(), Answer> {
    if put.entries.is_empty() || put.entries.len() > RECORDS_MAX {
        let side = if put.entries.is_empty() { "greater" } else { "less" };
        let bound = if put.entries.is_empty() { 1 } else { RECORDS_MAX };
        return Err(constraint("records", &format!("length {side} than or equal to {bound}")));
    }
    let record_max = options.max_record_kib * 1024;
    for (index, entry) in put.entries.iter().enumerate() {
        let member = |field: &str| format!("records.{}.member.{field}", index + 1);
        let characters = entry.key.chars().count();
        if characters == 0 || characters > KEY_CHARACTERS_MAX {
            let range = format!("length between 1 and {KEY_CHARACTERS_MAX}");
            return Err(constraint(&member("partitionKey"), &range));
        }
        if entry.size() > record_max {
            let range = format!("length less than or equal to {record_max}");
            return Err(constraint(&member("data"), &range));
        }
    }
    if put.entries.iter().map(Entry::size).sum::<usize>() > options.request_max {
        let message = format!("Records size exceeds {} bytes limit", options.request_max);
        return Err(Answer::error(400, "InvalidArgumentException", &message));
    }
    Ok(())
}

/// Returns the answer to a call that was carried out; `first` is the sequence of its first record.
#[must_use]
pub fn put_answer(put: &Put, outcomes: &[EntryOutcome], first: u64) -> Answer {
    let mut sequence = first;
    let mut failed = 0;
    let mut records = Vec::with_capacity(outcomes.len());
    for (entry, outcome) in put.entries.iter().zip(outcomes) {
        let shard = shards::name(entry.shard);
        records.push(match outcome {
            EntryOutcome::Accepted => {
                sequence += 1;
                json!({ "SequenceNumber": shards::sequence_number(sequence - 1), "ShardId": shard })
            }
            EntryOutcome::Refused(fault) => {
                failed += 1;
                refusal(*fault, &shard, &put.stream)
            }
        });
    }
    let body = json!({ "FailedRecordCount": failed, "Records": records });
    Answer::ok(body.to_string().into_bytes())
}

/// Returns a call without the entries that are refused, and what becomes of each where the rest is carried
/// out; `None` where it is not to be understood.
pub fn without_refused(
    body: &[u8],
    mut draw: impl FnMut() -> Option<EntryFault>,
) -> Option<(Vec<u8>, Vec<EntryOutcome>)> {
    let mut put: PutBody<'_> = serde_json::from_slice(body).ok()?;
    let mut outcomes = Vec::with_capacity(put.records.len());
    put.records.retain(|_| {
        let refused = draw();
        outcomes.push(refused.map_or(EntryOutcome::Accepted, EntryOutcome::Refused));
        refused.is_none()
    });
    Some((serde_json::to_vec(&put).ok()?, outcomes))
}

/// Puts the refused entries back into the answer to a call that was carried out without them.
pub fn with_refused(answer: Answer, outcomes: &[EntryOutcome]) -> Answer {
    let Ok(mut body) = serde_json::from_slice::<Value>(&answer.body) else { return answer };
    let Some(carried_out) = body["Records"].as_array().cloned() else { return answer };
    let mut carried_out = carried_out.into_iter();
    let mut failed = body["FailedRecordCount"].as_u64().unwrap_or_default();
    let mut records = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        records.push(match outcome {
            EntryOutcome::Accepted => carried_out.next().unwrap_or_default(),
            EntryOutcome::Refused(fault) => {
                failed += 1;
                refusal(*fault, "shardId-000000000000", "stream")
            }
        });
    }
    body["Records"] = records.into();
    body["FailedRecordCount"] = failed.into();
    Answer::ok(body.to_string().into_bytes())
}

/// Returns what a refused entry looks like in an answer.
fn refusal(fault: EntryFault, shard: &str, stream: &str) -> Value {
    match fault {
        EntryFault::InternalFailure => {
            json!({ "ErrorCode": "InternalFailure", "ErrorMessage": "Internal Service Failure" })
        }
        EntryFault::Throttled => json!({
            "ErrorCode": "ProvisionedThroughputExceededException",
            "ErrorMessage": format!(
                "Rate exceeded for shard {shard} in stream {stream} under account {ACCOUNT}."
            ),
        }),
    }
}

/// Answers the operations beside `PutRecords`; `streams` holds the names that exist, where that is
/// limited at all, and grows by `CreateStream`.
pub fn answer_other(
    operation: &str,
    body: &[u8],
    options: &Options,
    streams: &mut Vec<String>,
) -> Answer {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Answer::error(400, "SerializationException", "the body is not JSON");
    };
    let name = match stream_name(body["StreamName"].as_str(), body["StreamARN"].as_str()) {
        Ok(name) => name,
        Err(answer) if operation != "ListStreams" => return answer,
        Err(_) => String::new(),
    };
    let ok = |body: Value| Answer::ok(body.to_string().into_bytes());
    match operation {
        "CreateStream" if streams.contains(&name) => {
            let message = format!("Stream {name} under account {ACCOUNT} already exists.");
            return Answer::error(400, "ResourceInUseException", &message);
        }
        "CreateStream" => {
            streams.push(name);
            return Answer::ok(Vec::new());
        }
        "ListStreams" => return ok(json!({ "StreamNames": streams, "HasMoreStreams": false })),
        _ => {}
    }
    if let Err(answer) = check_exists(&name, options, streams) {
        return answer;
    }
    match operation {
        "DescribeStreamSummary" => {
            ok(json!({ "StreamDescriptionSummary": summary(&name, options) }))
        }
        "DescribeStream" => {
            let mut description = summary(&name, options);
            description["Shards"] = shard_list(options);
            description["HasMoreShards"] = false.into();
            ok(json!({ "StreamDescription": description }))
        }
        "ListShards" => ok(json!({ "Shards": shard_list(options) })),
        "DeleteStream" => {
            streams.retain(|existing| *existing != name);
            Answer::ok(Vec::new())
        }
        _ => Answer::error(400, "UnknownOperationException", ""),
    }
}

/// Checks that the stream exists.
///
/// # Errors
/// The answer that refuses the call.
pub fn check_exists(name: &str, options: &Options, streams: &[String]) -> Result<(), Answer> {
    if options.streams.is_empty() || streams.iter().any(|existing| existing == name) {
        return Ok(());
    }
    let message = format!("Stream {name} under account {ACCOUNT} not found.");
    Err(Answer::error(400, "ResourceNotFoundException", &message))
}

/// Checks that an `Authorization` header has the form of Signature Version 4. The signature itself
/// is not computed: that the SDK signs rightly is not what these tests are about.
///
/// # Errors
/// The answer that refuses the call.
pub fn check_signature(authorization: Option<&str>) -> Result<(), Answer> {
    let Some(header) = authorization else {
        let message = "Request is missing Authentication Token";
        return Err(Answer::error(400, "MissingAuthenticationTokenException", message));
    };
    let field = |name: &str| {
        let rest = header.strip_prefix("AWS4-HMAC-SHA256 ")?;
        rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
    };
    let scope = field("Credential").map(|credential| credential.split('/').collect::<Vec<_>>());
    let scoped = matches!(
        scope.as_deref(),
        Some([_, date, _, "kinesis", "aws4_request"]) if date.len() == 8
    );
    let headers = field("SignedHeaders").is_some_and(|names| names.split(';').any(|n| n == "host"));
    let signed = field("Signature")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if scoped && headers && signed {
        return Ok(());
    }
    let message = "The request signature does not conform to AWS standards.";
    Err(Answer::error(400, "IncompleteSignatureException", message))
}

/// Returns the stream's name, given it or its ARN.
pub fn stream_name(name: Option<&str>, arn: Option<&str>) -> Result<String, Answer> {
    let from_arn = arn.and_then(|arn| Some(arn.strip_prefix("arn:")?.split_once(":stream/")?.1));
    let Some(name) = name.or(from_arn) else {
        let message = "Either StreamName or StreamARN must be given, and well-formed.";
        return Err(Answer::error(400, "InvalidArgumentException", message));
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(legal) {
        return Err(constraint("streamName", "the pattern [a-zA-Z0-9_.-]+, 1 to 128 characters"));
    }
    Ok(name.to_owned())
}

/// Returns an explicit hash key's number.
fn explicit_hash(text: &str) -> Result<u128, Answer> {
    text.parse().map_err(|_| {
        let message = format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. \
             Specified value was {text}"
        );
        Answer::error(400, "InvalidArgumentException", &message)
    })
}

/// Returns the refusal of a value that breaks the API model.
fn constraint(member: &str, rule: &str) -> Answer {
    let message = format!(
        "1 validation error detected: Value at '{member}' failed to satisfy constraint: \
         Member must have {rule}"
    );
    Answer::error(400, "ValidationException", &message)
}

/// Returns a stream's `StreamDescriptionSummary`.
fn summary(name: &str, options: &Options) -> Value {
    let mut summary = json!({
        "StreamName": name,
        "StreamARN": format!("arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/{name}"),
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": { "StreamMode": "PROVISIONED" },
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 1_700_000_000,
        "EnhancedMonitoring": [{ "ShardLevelMetrics": [] }],
        "EncryptionType": "NONE",
        "OpenShardCount": options.shards,
        "ConsumerCount": 0,
        "MaxRecordSizeInKiB": options.max_record_kib,
    });
    if let Some(strategy) = options.distribution {
        summary["RecordDistributionStrategy"] = strategy.into();
    }
    summary
}

/// Returns the shards, their even hash ranges among them.
fn shard_list(options: &Options) -> Value {
    let shard = |k: u32| {
        let first = shards::first_hash(k, options.shards);
        let next = shards::first_hash(k + 1, options.shards);
        // The next of the last shard would begin at 2^128, which wraps to 0.
        let last = next.wrapping_sub(1);
        json!({
            "ShardId": shards::name(k),
            "HashKeyRange":
                { "StartingHashKey": first.to_string(), "EndingHashKey": last.to_string() },
            "SequenceNumberRange": { "StartingSequenceNumber": shards::sequence_number(0) },
        })
    };
    (0..options.shards).map(shard).collect()
}
