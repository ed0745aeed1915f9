//! Reading: what `GetShardIterator` and `GetRecords` give of the log.
//!
//! Invariant: what stands in the log is given once, in the order of storing, to whoever follows the
//! iterators; a reply holds no more than Kinesis would give at once.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Options;
use super::http::Answer;
use super::log::{Accepted, Log};
use super::protocol;
use super::shards;

/// The most records of a reply.
const RECORDS_MAX: usize = 10_000;
/// The most bytes of a reply.
const BYTES_MAX: usize = 10_000_000;
/// So many records of a payload unit each have the size of the largest reply: what is asked of an endpoint
/// that counts records and not bytes.
const UNITS_MAX: usize = BYTES_MAX / 25_000;

/// Answers `GetShardIterator`. An iterator is the stream, the shard and the number of the next record.
pub(super) fn iterator(body: &[u8], options: &Options, log: &Log) -> Answer {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Answer::error(400, "SerializationException", "the body is not JSON");
    };
    let named = protocol::stream_name(body["StreamName"].as_str(), body["StreamARN"].as_str());
    let stream = match named {
        Ok(stream) => stream,
        Err(refusal) => return refusal,
    };
    let shard = body["ShardId"].as_str().unwrap_or_default();
    if !(0..options.shards).any(|k| shards::name(k) == shard) {
        let message = format!("Shard {shard} in stream {stream} does not exist");
        return Answer::error(400, "ResourceNotFoundException", &message);
    }
    let from = match body["ShardIteratorType"].as_str().unwrap_or_default() {
        "TRIM_HORIZON" => Some(0),
        "LATEST" => Some(log.stored),
        "AT_SEQUENCE_NUMBER" => number(&body["StartingSequenceNumber"]),
        "AFTER_SEQUENCE_NUMBER" => number(&body["StartingSequenceNumber"]).map(|number| number + 1),
        "AT_TIMESTAMP" => body["Timestamp"].as_f64().map(|time| since(log, time)),
        _ => None,
    };
    match from {
        Some(from) => {
            let iterator = format!("{stream}/{shard}/{from}");
            Answer::ok(json!({ "ShardIterator": iterator }).to_string().into_bytes())
        }
        None => Answer::error(400, "InvalidArgumentException", "no such place in the shard"),
    }
}

/// Answers `GetRecords`.
pub(super) fn records(body: &[u8], log: &Log) -> Answer {
    assert_eq!(log.records.len() as u64, log.stored, "what a sink has taken cannot be read");
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let iterator = body["ShardIterator"].as_str().unwrap_or_default();
    let parts: Vec<&str> = iterator.split('/').collect();
    let from = parts.get(2).and_then(|digits| digits.parse::<usize>().ok());
    let ([stream, shard, _], Some(from)) = (&parts[..], from) else {
        return Answer::error(400, "InvalidArgumentException", "Invalid ShardIterator.");
    };
    let limit = body["Limit"].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.unwrap_or(RECORDS_MAX).min(RECORDS_MAX);
    let (mut records, mut bytes, mut next) = (Vec::new(), 0, from);
    let mut behind = 0;
    for record in log.records.iter().skip(from) {
        let is_of_shard = &*record.stream == *stream && shards::name(record.shard) == *shard;
        if is_of_shard && (records.len() == limit || bytes + record.data.len() > BYTES_MAX) {
            // What is left over came a moment ago at least.
            behind = record.at.elapsed().as_millis().max(1);
            break;
        }
        next += 1;
        if is_of_shard {
            bytes += record.data.len();
            records.push(shown(record));
        }
    }
    let reply = json!({
        "Records": records,
        "NextShardIterator": format!("{stream}/{shard}/{next}"),
        "MillisBehindLatest": u64::try_from(behind).unwrap_or(u64::MAX),
    });
    Answer::ok(reply.to_string().into_bytes())
}

/// Answers `GetRecords` by nothing: there may be records, and an iterator says where.
pub(super) fn nothing_yet(body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let reply = json!({
        "Records": [],
        "NextShardIterator": body["ShardIterator"],
        "MillisBehindLatest": 1_000,
    });
    Answer::ok(reply.to_string().into_bytes())
}

/// Returns a `GetRecords` call that asks for no more than Kinesis would give.
pub(super) fn limited(body: &[u8]) -> Vec<u8> {
    let mut call: Value = serde_json::from_slice(body).unwrap_or_default();
    let limit = call["Limit"].as_u64().unwrap_or(u64::MAX).min(UNITS_MAX as u64);
    call["Limit"] = limit.into();
    call.to_string().into_bytes()
}

fn shown(record: &Accepted) -> Value {
    json!({
        "Data": base64_simd::STANDARD.encode_to_string(&record.data),
        "PartitionKey": &*record.key,
        "SequenceNumber": shards::sequence_number(record.sequence),
        "ApproximateArrivalTimestamp": arrived(record, SystemTime::now(), Instant::now()),
    })
}

/// Returns the number that a sequence number was made of.
fn number(sequence: &Value) -> Option<u64> {
    sequence.as_str()?.strip_prefix("4957")?.parse().ok()
}

/// Returns the number of the first record that was stored at `time` or later.
fn since(log: &Log, time: f64) -> u64 {
    let (wall, now) = (SystemTime::now(), Instant::now());
    let before = log.records.iter().take_while(|record| arrived(record, wall, now) < time);
    before.count() as u64
}

/// Returns when a record was stored, in seconds since 1970.
fn arrived(record: &Accepted, wall: SystemTime, now: Instant) -> f64 {
    let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    wall.saturating_sub(now.saturating_duration_since(record.at)).as_secs_f64()
}
