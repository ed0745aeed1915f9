//! The whole road through the SDK, against a socket that answers what it is told.

use std::time::Instant;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use smallvec::smallvec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::position::{SequenceNumber, ShardId};
use crate::stream::read::{Events, Fetched, Place, ReadError, Subscribable};

/// What the socket does with a request.
enum Reply {
    Json(u16, &'static str),
    CutAfterReading,
    CutInTheAnswer,
    /// Messages of an event stream, each its kind and its text; the last may be cut.
    Events(Vec<(&'static str, &'static str)>, Cut),
    Never,
}

/// Whether an event stream ends in the middle of its last message.
#[derive(PartialEq)]
enum Cut {
    No,
    Yes,
}

/// Answers one connection after another, each with the next reply; returns the endpoint's address
/// and what was asked.
async fn endpoint(replies: Vec<Reply>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut asked = Vec::new();
        for reply in replies {
            let (mut socket, _) = listener.accept().await.unwrap();
            asked.push(request(&mut socket).await);
            match reply {
                Reply::Json(status, body) => answer(&mut socket, status, body, body.len()).await,
                Reply::CutAfterReading => {}
                Reply::CutInTheAnswer => answer(&mut socket, 200, "{\"Fai", 500).await,
                Reply::Events(messages, cut) => push(&mut socket, &messages, &cut).await,
                Reply::Never => std::future::pending().await,
            }
        }
        asked
    });
    (url, task)
}

async fn request(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = socket.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if count == 0 || body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    }
}

async fn answer(socket: &mut TcpStream, status: u16, body: &str, length: usize) {
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/x-amz-json-1.1\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
}

async fn push(socket: &mut TcpStream, messages: &[(&str, &str)], cut: &Cut) {
    let mut bytes: Vec<u8> = messages.iter().flat_map(|(kind, text)| message(kind, text)).collect();
    if *cut == Cut::Yes {
        bytes.truncate(bytes.len() - 3);
    }
    let head = "HTTP/1.1 200 x\r\ncontent-type: application/vnd.amazon.eventstream\r\n\
                connection: close\r\n\r\n";
    socket.write_all(&[head.as_bytes(), &bytes].concat()).await.unwrap();
    socket.shutdown().await.unwrap();
}

/// Returns a message of an event stream: lengths, their checksum, headers, text, checksum of all.
fn message(kind: &str, text: &str) -> Vec<u8> {
    let (of, label) = match kind.strip_suffix("Exception") {
        Some(_) => (":exception-type", "exception"),
        None => (":event-type", "event"),
    };
    let mut headers = Vec::new();
    for (name, value) in
        [(":message-type", label), (of, kind), (":content-type", "application/json")]
    {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend_from_slice(name.as_bytes());
        // A string.
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap().to_be_bytes();
    let mut bytes = [length(16 + headers.len() + text.len()), length(headers.len())].concat();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes.extend_from_slice(&headers);
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

async fn connect(url: &str, timeout: Duration) -> Kinesis {
    let aws = config::Aws {
        region: Some("eu-west-1".to_owned()),
        endpoint_url: Some(url.to_owned()),
        ..config::Aws::default()
    };
    Kinesis::connect(&aws, "logs", timeout).await
}

fn entries(data: &[&'static str]) -> Vec<Entry> {
    let entry = |data: &&'static str| Entry {
        partition_key: Arc::from("key"),
        data: smallvec![Bytes::from_static(data.as_bytes())],
    };
    data.iter().map(entry).collect()
}

async fn put(reply: Reply) -> Outcome {
    let (url, task) = endpoint(vec![reply]).await;
    let kinesis = connect(&url, Duration::from_secs(20)).await;
    let outcome = kinesis.put_records(entries(&["one", "two"])).await;
    task.abort();
    outcome
}

async fn put_answered(status: u16, body: &'static str) -> Outcome {
    put(Reply::Json(status, body)).await
}

#[tokio::test]
async fn an_answer_is_read_entry_by_entry() {
    let body = r#"{"FailedRecordCount":2,"Records":[
        {"SequenceNumber":"1","ShardId":"shardId-000000000003","ErrorCode":null},
        {"ErrorCode":"ProvisionedThroughputExceededException",
         "ErrorMessage":"Rate exceeded for shard shardId-000000000001 in stream logs under account 1."},
        {"ErrorCode":"InternalFailure","ErrorMessage":"Internal Service Failure"}]}"#;
    let (url, task) = endpoint(vec![Reply::Json(200, body)]).await;
    let kinesis = connect(&url, Duration::from_secs(20)).await;
    let outcome = kinesis.put_records(entries(&["one", "two", "three"])).await;
    let message = "InternalFailure: Internal Service Failure".to_owned();
    let expected = vec![
        EntryOutcome::Accepted { shard: Arc::from("shardId-000000000003") },
        EntryOutcome::Throttled { shard: Some(Arc::from("shardId-000000000001")) },
        EntryOutcome::Failed { message },
    ];
    assert_eq!(outcome, Outcome::Answered(expected));
    let asked = task.await.unwrap().remove(0);
    assert!(asked.contains("Kinesis_20131202.PutRecords"), "{asked}");
    assert!(asked.contains(r#""StreamName":"logs""#), "{asked}");
    assert!(asked.contains("b25l"), "one, in base64: {asked}");
}

/// Signs again, by the service's documentation of Signature Version 4, what the socket received.
fn signature_of(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).unwrap().1
    };
    let authorization = header("authorization");
    let part = |from: &str| {
        let rest = authorization.split_once(from).unwrap().1;
        rest.split(',').next().unwrap().to_owned()
    };
    let (signed, credential) = (part("SignedHeaders="), part("Credential="));
    let scope = credential.split_once('/').unwrap().1;
    let lines: Vec<_> =
        signed.split(';').map(|name| format!("{name}:{}\n", header(name))).collect();
    let lines = lines.concat();
    let hex = |bytes: &[u8]| {
        let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat()
    };
    let canonical = format!("POST\n/\n\n{lines}\n{signed}\n{}", hex(&Sha256::digest(body)));
    let date = header("x-amz-date");
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let mac = |key: &[u8], text: &str| {
        Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text).finalize().into_bytes()
    };
    let mut key = mac(b"AWS4kinetail", scope.split('/').next().unwrap());
    for step in scope.split('/').skip(1) {
        key = mac(&key, step);
    }
    hex(&mac(&key, &text))
}

#[tokio::test]
async fn the_signature_covers_what_is_sent() {
    let body = r#"{"Records":[{"SequenceNumber":"1","ShardId":"shardId-000000000000"}]}"#;
    let (url, task) = endpoint(vec![Reply::Json(200, body)]).await;
    let kinesis = connect(&url, Duration::from_secs(20)).await;
    let outcome = kinesis.put_records(entries(&["one \"line\"\n"])).await;
    assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    let asked = task.await.unwrap().remove(0);
    assert!(asked.contains(&format!("Signature={}", signature_of(&asked))), "{asked}");
}

#[tokio::test]
async fn errors_of_a_call_have_their_meaning() {
    let body = r#"{"__type":"com.amazonaws.kinesis#AccessDeniedException","Message":"no"}"#;
    let message = "AccessDeniedException: no (HTTP 400)".to_owned();
    let expected = Outcome::Unavailable { trouble: Trouble::Access, message };
    assert_eq!(put_answered(400, body).await, expected);

    let body = r#"{"__type":"ExpiredTokenException","message":"expired"}"#;
    let outcome = put_answered(400, body).await;
    let trouble = Trouble::Credentials;
    assert!(matches!(outcome, Outcome::Unavailable { trouble: t, .. } if t == trouble));

    let body = r#"{"__type":"ValidationException","message":"too large"}"#;
    let message = "ValidationException: too large (HTTP 400)".to_owned();
    assert_eq!(put_answered(400, body).await, Outcome::Refused { message });

    let body = r#"{"__type":"KMSThrottlingException","message":"slow"}"#;
    let message = "KMSThrottlingException: slow (HTTP 400)".to_owned();
    assert_eq!(put_answered(400, body).await, Outcome::Throttled { message });

    let body = r#"{"__type":"InternalFailureException","message":"oops"}"#;
    assert!(matches!(put_answered(500, body).await, Outcome::Unknown { .. }));
}

#[tokio::test]
async fn answers_of_proxies_have_their_meaning() {
    assert!(matches!(put_answered(413, "<html>").await, Outcome::Refused { .. }));
    assert!(matches!(put_answered(503, "<html>").await, Outcome::Unknown { .. }));
    assert!(matches!(put_answered(200, "<html>").await, Outcome::Unknown { .. }));
}

#[tokio::test]
async fn an_empty_answer_tells_of_no_entry() {
    assert_eq!(put_answered(200, "").await, Outcome::Answered(Vec::new()));
}

#[tokio::test]
async fn no_answer_is_unknown() {
    assert!(matches!(put(Reply::CutAfterReading).await, Outcome::Unknown { .. }));
    assert!(matches!(put(Reply::CutInTheAnswer).await, Outcome::Unknown { .. }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let kinesis = connect(&url, Duration::from_secs(20)).await;
    let outcome = kinesis.put_records(entries(&["one"])).await;
    let Outcome::Unknown { message } = outcome else { panic!("{outcome:?}") };
    assert!(message.to_lowercase().contains("connection refused"), "{message}");
}

#[tokio::test]
async fn a_call_ends_with_its_timeout() {
    let (url, task) = endpoint(vec![Reply::Never]).await;
    let kinesis = connect(&url, Duration::from_millis(200)).await;
    let outcome = kinesis.put_records(entries(&["one"])).await;
    assert_eq!(outcome, Outcome::Unknown { message: "timed out".to_owned() });
    task.abort();
}

#[tokio::test]
async fn refused_credentials_are_read_again_before_the_next_call() {
    let refused = r#"{"__type":"UnrecognizedClientException","message":"token invalid"}"#;
    let accepted = r#"{"Records":[{"SequenceNumber":"1","ShardId":"shardId-000000000000"}]}"#;
    let (url, task) = endpoint(vec![Reply::Json(400, refused), Reply::Json(200, accepted)]).await;
    let kinesis = connect(&url, Duration::from_secs(20)).await;
    let outcome = kinesis.put_records(entries(&["one"])).await;
    assert!(matches!(outcome, Outcome::Unavailable { trouble: Trouble::Credentials, .. }));
    let outcome = kinesis.put_records(entries(&["one"])).await;
    assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    task.await.unwrap();
}

#[tokio::test]
async fn a_stream_describes_itself_and_an_older_endpoint_may_leave_things_out() {
    let body = r#"{"StreamDescriptionSummary":{"StreamName":"logs",
        "StreamARN":"arn:aws:kinesis:eu-west-1:1:stream/logs","StreamStatus":"ACTIVE",
        "RetentionPeriodHours":24,"StreamCreationTimestamp":1700000000,"EnhancedMonitoring":[],
        "EncryptionType":"NONE","OpenShardCount":4}}"#;
    let (url, task) = endpoint(vec![Reply::Json(200, body)]).await;
    let stream = connect(&url, Duration::from_secs(20)).await.describe().await.unwrap();
    assert_eq!(stream.status, "ACTIVE");
    assert_eq!(stream.open_shards, Some(4));
    assert_eq!((stream.mode, stream.max_record_kib, stream.distribution), (None, None, None));
    task.abort();

    let body = r#"{"__type":"ResourceNotFoundException","message":"Stream logs not found"}"#;
    let (url, task) = endpoint(vec![Reply::Json(400, body)]).await;
    let kinesis = connect(&url, Duration::from_secs(20)).await;
    let (trouble, message) = kinesis.describe().await.unwrap_err();
    assert_eq!(trouble, Some(Trouble::Missing));
    assert_eq!(message, "ResourceNotFoundException: Stream logs not found (HTTP 400)");
    task.abort();
}

#[tokio::test]
async fn empty_pages_are_walked_through() {
    let iterator = r#"{"ShardIterator":"i1"}"#;
    let empty = r#"{"Records":[],"NextShardIterator":"i2","MillisBehindLatest":5000}"#;
    let full = r#"{"Records":[{"SequenceNumber":"7","Data":"b25l","PartitionKey":"k"}],
        "NextShardIterator":"i3","MillisBehindLatest":0}"#;
    let replies = [iterator, empty, full].map(|body| Reply::Json(200, body)).into();
    let (url, task) = endpoint(replies).await;
    let kinesis = connect(&url, Duration::from_secs(20)).await;
    let page = kinesis.records("shardId-000000000000", Some("6")).await.unwrap();
    let record = Fetched {
        partition_key: "k".to_owned(),
        data: Bytes::from_static(b"one"),
        sequence_number: "7".into(),
    };
    assert_eq!(page, Page { records: vec![record], caught_up: false, last: Some("7".to_owned()) });
    let asked = task.await.unwrap();
    assert!(asked[0].contains("AFTER_SEQUENCE_NUMBER"), "{}", asked[0]);
    assert!(asked[2].contains(r#""ShardIterator":"i2""#), "{}", asked[2]);
}

#[test]
fn a_stream_is_named_by_name_or_by_arn() {
    let arn = "arn:aws:kinesis:eu-central-1:123456789012:stream/logs";
    assert_eq!(region(arn), Some("eu-central-1"));
    assert_eq!(Name::new(arn).name, None);
    assert_eq!(Name::new("logs").name.as_deref(), Some("logs"));
    assert_eq!(region("logs"), None);
}

/// An embedded endpoint: another implementation of the protocol than the socket above.
#[cfg(feature = "demo")]
#[tokio::test]
async fn what_is_put_is_read_back_from_a_whole_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let options = ferrokinesis::store::StoreOptions { create_stream_ms: 1, ..Default::default() };
    let (app, _store) = ferrokinesis::create_app(options);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let kinesis = connect(&url, Duration::from_secs(20)).await;
    let missing = kinesis.put_records(entries(&["one"])).await;
    assert!(matches!(missing, Outcome::Unavailable { trouble: Trouble::Missing, .. }));

    kinesis.create_stream(3).await.unwrap();
    kinesis.wait_active(Instant::now() + Duration::from_secs(20)).await.unwrap();
    let again = kinesis.create_stream(3).await.unwrap_err();
    assert!(again.to_string().starts_with("CreateStream of stream logs: ResourceInUse"), "{again}");
    let shards = kinesis.shards().await.unwrap();
    assert_eq!(shards.len(), 3);

    let Outcome::Answered(outcomes) = kinesis.put_records(entries(&["one", "two"])).await else {
        panic!("not answered");
    };
    let EntryOutcome::Accepted { shard: home } = &outcomes[0] else { panic!("{outcomes:?}") };
    for shard in &shards {
        let mut read = Vec::new();
        let mut last = None;
        loop {
            let page = kinesis.records(shard, last.as_deref()).await.unwrap();
            read.extend(page.records.into_iter().map(|record| record.data));
            last = page.last;
            if page.caught_up {
                break;
            }
        }
        let expected: &[&str] = if **shard == **home { &["one", "two"] } else { &[] };
        assert_eq!(read, expected);
    }
    server.abort();
}

/// The process stands still until the time of the call is over, and its answer is read by a task that has
/// its turn only after it.
#[tokio::test]
async fn an_answer_that_came_while_nothing_ran_is_taken() {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let reading = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        tokio::task::yield_now().await;
        answer.send(()).unwrap();
    });
    tokio::spawn(async { std::thread::sleep(Duration::from_millis(200)) });
    assert_eq!(within(Duration::from_millis(50), answered).await, Some(Ok(())));
    reading.await.unwrap();
    assert_eq!(within(Duration::from_millis(50), std::future::pending::<()>()).await, None);
}

#[tokio::test]
async fn a_subscription_begins_where_it_is_asked_to_and_ends_with_the_shard() {
    const CONSUMER: &str = "arn:aws:kinesis:eu-west-1:1:stream/logs/consumer/web:1";
    let shard = ShardId::from("shardId-000000000000");
    let events = vec![
        ("initial-response", "{}"),
        (
            "SubscribeToShardEvent",
            r#"{"Records":[{"SequenceNumber":"7","Data":"b25l","PartitionKey":"k"}],
                "ContinuationSequenceNumber":"8","MillisBehindLatest":1500}"#,
        ),
        // As the service puts it where a shard has ended.
        (
            "SubscribeToShardEvent",
            r#"{"Records":[],"ContinuationSequenceNumber":null,"MillisBehindLatest":0,"ChildShards":
                [{"ShardId":"shardId-000000000001","ParentShards":["shardId-000000000000"],
                  "HashKeyRange":{"StartingHashKey":"0","EndingHashKey":"9"}}]}"#,
        ),
    ];
    let (url, task) = endpoint(vec![Reply::Events(events, Cut::No)]).await;
    let kinesis = connect(&url, Duration::from_secs(20)).await;
    let place = Place::After(SequenceNumber::from("6"));
    let mut subscription = kinesis.subscribe(CONSUMER, &shard, &place).await.unwrap();
    let first = subscription.next().await.unwrap().unwrap();
    assert_eq!(first.records[0].data, "one");
    assert_eq!(first.continuation, Some(SequenceNumber::from("8")));
    assert_eq!(first.behind, Some(Duration::from_millis(1500)));
    let last = subscription.next().await.unwrap().unwrap();
    assert_eq!((last.continuation, last.records.len()), (None, 0));
    assert_eq!(last.children[0].parents, [shard]);
    assert_eq!(subscription.next().await.unwrap(), None);
    let asked = task.await.unwrap();
    let place = r#""StartingPosition":{"Type":"AFTER_SEQUENCE_NUMBER","SequenceNumber":"6"}"#;
    assert!(asked[0].contains(place), "{}", asked[0]);
    assert!(asked[0].contains(CONSUMER), "{}", asked[0]);
}

#[tokio::test]
async fn what_breaks_a_subscription_off_has_a_meaning() {
    let failed = async |messages, cut| {
        let (url, task) = endpoint(vec![Reply::Events(messages, cut)]).await;
        let kinesis = connect(&url, Duration::from_secs(20)).await;
        let shard = ShardId::from("shardId-000000000000");
        let subscribed = kinesis.subscribe("arn", &shard, &Place::TrimHorizon).await;
        task.abort();
        subscribed.unwrap().next().await.unwrap_err()
    };
    let words = r#"{"message":"another subscription"}"#;
    let taken = failed(vec![("ResourceInUseException", words)], Cut::No).await;
    assert!(matches!(&taken, ReadError::Taken(_)), "{taken:?}");
    assert!(taken.to_string().contains("another subscription"), "{taken}");
    let key = failed(vec![("KMSDisabledException", words)], Cut::No).await;
    assert!(matches!(key, ReadError::Unavailable { trouble: Trouble::Key, .. }), "{key:?}");
    let event = r#"{"Records":[],"ContinuationSequenceNumber":"8","MillisBehindLatest":0}"#;
    let cut = vec![("initial-response", "{}"), ("SubscribeToShardEvent", event)];
    let cut = failed(cut, Cut::Yes).await;
    assert!(matches!(cut, ReadError::Failed(_)), "{cut:?}");
}
