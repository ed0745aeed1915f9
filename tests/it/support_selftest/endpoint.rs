//! The endpoint as a service: the SDK can use it, and what Kinesis refuses it refuses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::operation::get_shard_iterator::builders::GetShardIteratorFluentBuilder;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType as Kind};

use super::raw::{post, post_signed, put, put_body, send_and_go};
use crate::support::endpoint::{
    Delivery, EntryFault, EntryOutcome, FaultEndpoint, Options, Script, shards,
};

/// Returns the SDK's client of an endpoint.
fn client(endpoint: &FaultEndpoint) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
        .endpoint_url(endpoint.url())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// Runs a future to its end.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn entry(key: &str, data: &[u8]) -> PutRecordsRequestEntry {
    PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(data)).build().unwrap()
}

/// What the SDK puts stands in the log as it was put: bytes, key, shard, order, delivery.
#[test]
fn the_sdk_can_put_and_the_log_holds_what_it_put() {
    let endpoint = FaultEndpoint::start(Script::healthy());
    let datas = (0..10u8).map(|n| vec![n, 0, 255, b'\n']).collect::<Vec<_>>();
    let entries = datas.iter().enumerate().map(|(n, data)| entry(&format!("k{n}"), data));
    let put =
        client(&endpoint).put_records().stream_name("web").set_records(Some(entries.collect()));
    let output = run(put.send()).unwrap();

    assert_eq!(output.failed_record_count(), Some(0));
    let accepted = endpoint.accepted();
    assert_eq!(accepted.len(), 10);
    for (n, record) in accepted.iter().enumerate() {
        assert_eq!((record.sequence, record.index), (n as u64, n));
        assert_eq!((&*record.key, &record.data[..]), (&*format!("k{n}"), &datas[n][..]));
        assert_eq!(&*record.stream, "web");
        let answered = &output.records()[n];
        assert_eq!(answered.shard_id(), Some(&*shards::name(record.shard)));
        assert_eq!(answered.sequence_number(), Some(&*shards::sequence_number(record.sequence)));
    }
    endpoint
        .wait_until("delivered", Duration::from_secs(10), |log| {
            log.requests[0].answer == Delivery::Delivered
        })
        .unwrap();
    let request = &endpoint.requests()[0];
    assert_eq!((&*request.operation, request.entries, request.bytes), ("PutRecords", 10, 60));
    assert_eq!(request.outcomes, vec![EntryOutcome::Accepted; 10]);
}

/// What the SDK reads of a shard is what was stored there, in order and once, from any place in it.
#[test]
fn the_sdk_can_read_what_was_put() {
    let options = Options { shards: 2, ..Options::default() };
    let endpoint = FaultEndpoint::start_with(options, Script::healthy());
    let client = client(&endpoint);
    for n in 0..20u8 {
        let put = client.put_records().stream_name("web").records(entry(&format!("k{n}"), &[n]));
        run(put.send()).unwrap();
    }
    for shard in 0..2 {
        let stored = endpoint.accepted().into_iter().filter(|record| record.shard == shard);
        let stored: Vec<_> = stored.map(|record| (record.sequence, record.data)).collect();
        assert!(stored.len() > 2, "seed of keys: {stored:?}");
        let read = |from: GetShardIteratorFluentBuilder| {
            let from = from.stream_name("web").shard_id(shards::name(shard));
            let mut next = run(from.send()).unwrap().shard_iterator;
            let mut all = Vec::new();
            loop {
                let page = client.get_records().set_shard_iterator(next).limit(1);
                let page = run(page.send()).unwrap();
                all.extend(page.records().iter().map(|it| it.data().as_ref().to_vec()));
                next = page.next_shard_iterator;
                if page.millis_behind_latest == Some(0) && page.records.is_empty() {
                    return all;
                }
            }
        };
        let from = |place: usize| -> Vec<Vec<u8>> {
            stored[place..].iter().map(|(_, data)| data.to_vec()).collect()
        };
        let second = shards::sequence_number(stored[1].0);
        let iterator = || client.get_shard_iterator();
        assert_eq!(read(iterator().shard_iterator_type(Kind::TrimHorizon)), from(0));
        assert_eq!(read(iterator().shard_iterator_type(Kind::Latest)), from(stored.len()));
        let at = iterator().starting_sequence_number(&second);
        assert_eq!(read(at.shard_iterator_type(Kind::AtSequenceNumber)), from(1));
        let after = iterator().starting_sequence_number(&second);
        assert_eq!(read(after.shard_iterator_type(Kind::AfterSequenceNumber)), from(2));
    }
}

/// An endpoint that stands before another tells of each entry what became of it there, at its place, whatever
/// it refuses itself.
#[test]
fn what_stands_behind_is_told_entry_by_entry() {
    let behind = FaultEndpoint::start(Script::healthy());
    let options = Options { upstream: Some(behind.address()), ..Options::default() };
    let script = Script::seeded(3).entry(EntryFault::Throttled, 0.3);
    let before = FaultEndpoint::start_with(options, script);
    let client = client(&before);
    let (mut told, mut refused) = (Vec::new(), 0);
    for call in 0..10u8 {
        let entries = (0..10u8).map(|n| entry(&format!("k{n}"), &[call, n])).collect();
        let put = client.put_records().stream_name("web").set_records(Some(entries));
        let output = run(put.send()).unwrap();
        for (n, answered) in (0..).zip(output.records()) {
            match answered.error_code() {
                None => told.push((answered.sequence_number().unwrap().to_owned(), vec![call, n])),
                Some(code) => {
                    assert_eq!(code, "ProvisionedThroughputExceededException");
                    refused += 1;
                }
            }
        }
        let failed = output.records().iter().filter(|record| record.error_code().is_some());
        assert_eq!(output.failed_record_count().unwrap(), i32::try_from(failed.count()).unwrap());
    }
    let stored = behind.accepted().into_iter();
    let stored: Vec<_> = stored
        .map(|record| (shards::sequence_number(record.sequence), record.data.to_vec()))
        .collect();
    assert_eq!(told, stored);
    assert!(refused > 10 && told.len() + refused == 100, "{refused} refused");
}

/// What a client had sent when it was gone is taken in, also where nobody had accepted its connection.
#[test]
fn all_that_dead_clients_sent_can_be_waited_for() {
    let endpoint = FaultEndpoint::start(Script::healthy());
    for sent in 1..=200 {
        let body = put_body(&[("key", b"data\n")]);
        send_and_go(endpoint.address(), "PutRecords", &body);
        endpoint.take_in_all(Duration::from_mins(1));
        assert_eq!(endpoint.with_log(|log| log.stored), sent);
    }
}

/// The stream can be described, by name and by ARN, and its shards cover all hashes.
#[test]
fn the_sdk_can_describe_the_stream_and_its_shards() {
    let options = Options { shards: 3, max_record_kib: 2048, ..Options::default() };
    let endpoint = FaultEndpoint::start_with(options, Script::healthy());
    let client = client(&endpoint);
    let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/web";
    let summary = run(client.describe_stream_summary().stream_arn(arn).send()).unwrap();
    let summary = summary.stream_description_summary().unwrap();
    assert_eq!((summary.stream_name(), summary.open_shard_count()), ("web", 3));
    assert_eq!(summary.max_record_size_in_kib(), Some(2048));

    let listed = run(client.list_shards().stream_name("web").send()).unwrap();
    let mut next = 0u128;
    for (k, shard) in (0..3).zip(listed.shards()) {
        assert_eq!(shard.shard_id(), shards::name(k));
        let range = shard.hash_key_range().unwrap();
        let first = range.starting_hash_key().parse::<u128>().unwrap();
        let last = range.ending_hash_key().parse::<u128>().unwrap();
        assert_eq!(first, next);
        assert_eq!((shards::shard_of(first, 3), shards::shard_of(last, 3)), (k, k));
        next = last.wrapping_add(1);
    }
    assert_eq!(next, 0, "the last shard ends at 2^128 - 1");
}

/// Streams that are not there are not found, until they are created.
#[test]
fn a_stream_exists_once_it_is_created() {
    let options = Options { streams: vec!["other".to_owned()], ..Options::default() };
    let endpoint = FaultEndpoint::start_with(options, Script::healthy());
    assert_eq!(
        put(endpoint.address(), &[("k", b"x")]).error(),
        (400, "ResourceNotFoundException".to_owned()),
    );
    run(client(&endpoint).create_stream().stream_name("web").shard_count(1).send()).unwrap();
    assert_eq!(put(endpoint.address(), &[("k", b"x")]).json().0, 200);
}

/// What the service's limits forbid is refused whole, and nothing of it is stored.
#[test]
fn what_kinesis_refuses_is_refused_and_not_stored() {
    let endpoint = FaultEndpoint::start(Script::healthy());
    let many = vec![("k", &b"x"[..]); 501];
    let large = vec![0; 1024 * 1024];
    let half = vec![0; 1024 * 1024 - 1];
    let full = vec![("k", &half[..]); 11];
    let long_key = "é".repeat(257);
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("no record", put_body(&[]), "ValidationException"),
        ("501 records", put_body(&many), "ValidationException"),
        ("an empty key", put_body(&[("", b"x")]), "ValidationException"),
        ("a long key", put_body(&[(&long_key, b"x")]), "ValidationException"),
        ("1 MiB and a key", put_body(&[("k", &large)]), "ValidationException"),
        ("over 10 MiB", put_body(&full), "InvalidArgumentException"),
        ("not JSON", b"{".to_vec(), "SerializationException"),
        (
            "not base64",
            br#"{"StreamName":"web","Records":[{"PartitionKey":"k","Data":"*"}]}"#.to_vec(),
            "SerializationException",
        ),
        (
            "no stream",
            br#"{"Records":[{"PartitionKey":"k","Data":"eA=="}]}"#.to_vec(),
            "InvalidArgumentException",
        ),
    ];
    let patience = Duration::from_mins(1);
    for (case, body, error) in cases {
        let seen = post(endpoint.address(), "PutRecords", &body, patience);
        assert_eq!(seen.error(), (400, error.to_owned()), "{case}");
    }
    let seen = post(endpoint.address(), "Dance", br#"{"StreamName":"web"}"#, patience);
    assert_eq!(seen.error(), (400, "UnknownOperationException".to_owned()));
    assert!(endpoint.accepted().is_empty());
}

/// The greatest that the limits allow is taken.
#[test]
fn what_kinesis_allows_is_taken() {
    let endpoint = FaultEndpoint::start(Script::healthy());
    let key = "é".repeat(256);
    let data = vec![7; 1024 * 1024 - key.len()];
    assert_eq!(put(endpoint.address(), &[(&key, &data)]).json().0, 200);
    assert_eq!(put(endpoint.address(), &[("k", &b"x"[..]); 500]).json().0, 200);
    assert_eq!(endpoint.with_log(|log| log.stored), 501);
}

/// A request must be signed, in form.
#[test]
fn a_request_without_a_well_formed_signature_is_refused() {
    let endpoint = FaultEndpoint::start(Script::healthy());
    let send = |authorization| {
        let body = put_body(&[("k", b"x")]);
        let patience = Duration::from_secs(30);
        post_signed(endpoint.address(), "PutRecords", &body, patience, authorization).error().1
    };
    assert_eq!(send(None), "MissingAuthenticationTokenException");
    assert_eq!(send(Some("Bearer abc")), "IncompleteSignatureException");
    let unsigned = "AWS4-HMAC-SHA256 Credential=A/20261123/r/kinesis/aws4_request, \
                    SignedHeaders=host, Signature=zz";
    assert_eq!(send(Some(unsigned)), "IncompleteSignatureException");
    assert!(endpoint.accepted().is_empty());
}

/// Records of one key fall to one shard, and many keys to all shards about evenly.
#[test]
fn keys_spread_evenly_over_the_shards() {
    let mut counts = [0; 7];
    for n in 0..7_000 {
        counts[shards::shard_of(shards::hash(&format!("key {n}")), 7) as usize] += 1;
    }
    assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    // MD5("a") is 0cc175b9…: the first sixteenth of the hashes.
    assert_eq!(shards::hash("a") >> 112, 0x0cc1);
}

/// With a sink, records are handed over in order and the log stays empty.
#[test]
fn a_sink_gets_the_records_instead_of_the_log() {
    let got = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&got);
    let sink = Box::new(move |record: &crate::support::endpoint::Accepted| {
        theirs.lock().unwrap().push((record.sequence, record.data.clone()));
    });
    let options = Options { sink: Some(sink), ..Options::default() };
    let endpoint = FaultEndpoint::start_with(options, Script::healthy());
    put(endpoint.address(), &[("a", b"1"), ("b", b"2")]).json();
    put(endpoint.address(), &[("a", b"3")]).json();
    assert!(endpoint.accepted().is_empty());
    let got = got.lock().unwrap();
    let texts = got.iter().map(|(n, data)| (*n, &data[..])).collect::<Vec<_>>();
    assert_eq!(texts, [(0, &b"1"[..]), (1, b"2"), (2, b"3")]);
}
