//! A raw HTTP client: it sees exactly what comes over the socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// A header in the form of Signature Version 4.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 \
    Credential=AKIDEXAMPLE/20261123/eu-west-1/kinesis/aws4_request, \
    SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
    Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";

/// What the client saw.
#[derive(Debug)]
pub(super) enum Seen {
    /// A whole answer.
    Answer(u16, String),
    /// The connection ended early, after so many bytes.
    Cut(usize),
    /// Nothing came in time.
    Silence,
}

impl Seen {
    /// Returns status and body as JSON of an answer that came whole.
    pub(super) fn json(&self) -> (u16, Value) {
        let Self::Answer(status, body) = self else { panic!("{self:?}") };
        (*status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    /// Returns the status and `__type` of an error.
    pub(super) fn error(&self) -> (u16, String) {
        let (status, body) = self.json();
        (status, body["__type"].as_str().unwrap_or_default().to_owned())
    }
}

/// Sends one signed request and looks at what comes back, for at most `patience`.
pub(super) fn post(address: SocketAddr, operation: &str, body: &[u8], patience: Duration) -> Seen {
    post_signed(address, operation, body, patience, Some(AUTHORIZATION))
}

/// As [`post`], with any `Authorization` header.
pub(super) fn post_signed(
    address: SocketAddr,
    operation: &str,
    body: &[u8],
    patience: Duration,
    authorization: Option<&str>,
) -> Seen {
    let mut socket = send(address, operation, body, authorization);
    socket.set_read_timeout(Some(patience)).unwrap();
    receive(&mut socket)
}

/// Sends one signed request, and goes without waiting for what comes back.
pub(super) fn send_and_go(address: SocketAddr, operation: &str, body: &[u8]) {
    drop(send(address, operation, body, Some(AUTHORIZATION)));
}

fn send(
    address: SocketAddr,
    operation: &str,
    body: &[u8],
    authorization: Option<&str>,
) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    let signed = authorization.map(|value| format!("Authorization: {value}\r\n"));
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nX-Amz-Target: Kinesis_20131202.{operation}\r\n\
         Content-Length: {}\r\n{}\r\n",
        body.len(),
        signed.unwrap_or_default(),
    );
    // An endpoint that cuts early may refuse the body: what counts is what is read then.
    socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body)).ok();
    socket
}

/// Reads an answer to the length it announces.
fn receive(socket: &mut TcpStream) -> Seen {
    let mut came = Vec::new();
    let mut block = [0; 4096];
    loop {
        if let Some(seen) = whole(&came) {
            return seen;
        }
        match socket.read(&mut block) {
            Ok(0) => return Seen::Cut(came.len()),
            Ok(count) => came.extend_from_slice(&block[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Seen::Silence,
            Err(_) => return Seen::Cut(came.len()),
        }
    }
}

/// Returns the answer, where all of it has come.
fn whole(came: &[u8]) -> Option<Seen> {
    let text = String::from_utf8_lossy(came);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?;
    let status = head.split(' ').nth(1)?.parse().unwrap();
    let complete = body.len() >= length.parse::<usize>().unwrap();
    complete.then(|| Seen::Answer(status, body.to_owned()))
}

/// Returns the body of a `PutRecords` call.
pub(super) fn put_body(records: &[(&str, &[u8])]) -> Vec<u8> {
    let entry = |(key, data): &(&str, &[u8])| {
        let data = base64_simd::STANDARD.encode_to_string(data);
        json!({ "PartitionKey": key, "Data": data })
    };
    let records = records.iter().map(entry).collect::<Vec<_>>();
    json!({ "StreamName": "web", "Records": records }).to_string().into_bytes()
}

/// Puts records and waits for the answer as long as a test may.
pub(super) fn put(address: SocketAddr, records: &[(&str, &[u8])]) -> Seen {
    post(address, "PutRecords", &put_body(records), Duration::from_secs(30))
}
