//! The floor: a program that does only what nobody can avoid who ships a file to Kinesis.
//!
//! It reads from the page cache, cuts at newlines into records of one payload unit, writes them in
//! base64 straight into the body of a PutRecords call, hashes and signs that (`SigV4`), sends it over
//! one kept-alive connection and reads the answer. One thread, one call at a time, three buffers;
//! no positions, no checkpoint, no retries. What an agent uses beyond this is the agent's own cost.
//!
//! ```text
//! floor URL [--ca FILE] [--request BYTES] [--record BYTES] FILE...
//! ```
//!
//! Prints the bytes, records and calls it sent, as JSON.
//!
//! Invariant: every byte of every file is sent once, in order.

#![allow(clippy::print_stdout, reason = "a program of the benchmarks")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use aws_smithy_types::date_time::{DateTime, Format};
use hmac::{Hmac, KeyInit, Mac};
use memchr::memmem;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use sha2::{Digest, Sha256};

/// How much is read at a time: the cheapest size there is.
const BLOCK: usize = 256 * 1024;
/// Bytes of the partition key, as many as kinetail's `partition_key: file` has.
const KEY: &str = "0123456789abcdef";
/// The most records in a call (Kinesis's limit).
const CALL_RECORDS: usize = 500;

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    let mut body = Body::new(&options);
    let mut caller = Caller::connect(&options)?;
    let mut block = Vec::new();
    let mut sent = Sent::default();
    for path in &options.files {
        let mut file = File::open(path).with_context(|| path.clone())?;
        let (mut filled, mut ended) = (0, false);
        while !ended {
            if block.len() < filled + BLOCK {
                block.resize(filled + BLOCK, 0);
            }
            let read = file.read(block.get_mut(filled..filled + BLOCK).unwrap_or_default())?;
            (filled, ended) = (filled + read, read == 0);
            let mut rest = block.get(..filled).unwrap_or_default();
            while let Some(length) = record(rest, options.record, ended) {
                let (data, after) = rest.split_at(length);
                if !body.takes(data.len()) {
                    caller.call(&mut body, &mut sent)?;
                }
                body.push(data);
                rest = after;
            }
            let left = rest.len();
            block.copy_within(filled - left..filled, 0);
            filled = left;
        }
    }
    caller.call(&mut body, &mut sent)?;
    let Sent { bytes, records, calls } = sent;
    println!("{{\"bytes\": {bytes}, \"records\": {records}, \"calls\": {calls}}}");
    Ok(())
}

/// What was sent.
#[derive(Debug, Default)]
struct Sent {
    bytes: usize,
    records: usize,
    calls: usize,
}

/// Returns how long the next record at the start of `bytes` is: whole lines of at most `limit`
/// bytes, or one longer line; `None` where more has to be read first.
fn record(bytes: &[u8], limit: usize, ended: bool) -> Option<usize> {
    if bytes.len() < limit {
        return (ended && !bytes.is_empty()).then_some(bytes.len());
    }
    let (window, beyond) = bytes.split_at(limit);
    if let Some(newline) = memchr::memrchr(b'\n', window) {
        return Some(newline + 1);
    }
    match memchr::memchr(b'\n', beyond) {
        Some(newline) => Some(limit + newline + 1),
        None => ended.then_some(bytes.len()),
    }
}

/// The body of a call, written into one buffer that is used again.
#[derive(Debug)]
struct Body {
    json: Vec<u8>,
    head: usize,
    records: usize,
    /// Bytes of data.
    bytes: usize,
    request: usize,
}

impl Body {
    fn new(options: &Options) -> Self {
        let json = b"{\"StreamName\":\"bench\",\"Records\":[".to_vec();
        Self { head: json.len(), json, records: 0, bytes: 0, request: options.request }
    }

    fn takes(&self, bytes: usize) -> bool {
        let size = self.bytes + bytes + (self.records + 1) * KEY.len();
        self.records == 0 || (self.records < CALL_RECORDS && size <= self.request)
    }

    fn push(&mut self, data: &[u8]) {
        if self.records > 0 {
            self.json.push(b',');
        }
        self.json.extend_from_slice(b"{\"Data\":\"");
        base64_simd::STANDARD.encode_append(data, &mut self.json);
        self.json.extend_from_slice(b"\",\"PartitionKey\":\"");
        self.json.extend_from_slice(KEY.as_bytes());
        self.json.extend_from_slice(b"\"}");
        self.records += 1;
        self.bytes += data.len();
    }

    fn clear(&mut self) {
        self.json.truncate(self.head);
        (self.records, self.bytes) = (0, 0);
    }
}

/// A kept-alive connection, and what signs the calls on it.
struct Caller {
    socket: Socket,
    host: String,
    signing_key: (u64, Vec<u8>),
    answer: Vec<u8>,
}

/// A socket, plain or with TLS.
enum Socket {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Caller {
    fn connect(options: &Options) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(&options.host).with_context(|| options.host.clone())?;
        tcp.set_nodelay(true)?;
        let socket = if options.tls {
            let ca = options.ca.as_deref().context("https needs --ca FILE")?;
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(ca)?)?;
            let config =
                rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            let name = options.host.rsplit_once(':').context("a port")?.0.to_owned();
            let client =
                rustls::ClientConnection::new(Arc::new(config), ServerName::try_from(name)?)?;
            Socket::Tls(Box::new(rustls::StreamOwned::new(client, tcp)))
        } else {
            Socket::Plain(tcp)
        };
        let host = options.host.clone();
        Ok(Self { socket, host, signing_key: (0, Vec::new()), answer: vec![0; BLOCK] })
    }

    /// Sends the body, empties it, and reads the answer, which must take every record.
    fn call(&mut self, body: &mut Body, sent: &mut Sent) -> anyhow::Result<()> {
        if body.records == 0 {
            return Ok(());
        }
        body.json.extend_from_slice(b"]}");
        let head = self.head(&body.json)?;
        let answer = match &mut self.socket {
            Socket::Plain(tcp) => exchange(tcp, &head, &body.json, &mut self.answer)?,
            Socket::Tls(tls) => exchange(tls, &head, &body.json, &mut self.answer)?,
        };
        if !answer.starts_with(b"HTTP/1.1 200 ")
            || memmem::find(answer, b"\"FailedRecordCount\":0").is_none()
            || memmem::find_iter(answer, b"\"ShardId\"").count() != body.records
        {
            bail!("not taken: {}", String::from_utf8_lossy(answer));
        }
        sent.calls += 1;
        sent.records += body.records;
        sent.bytes += body.bytes;
        body.clear();
        Ok(())
    }

    /// Returns the head of a call, signed (AWS Signature Version 4).
    fn head(&mut self, body: &[u8]) -> anyhow::Result<String> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let now = DateTime::from_secs(i64::try_from(seconds)?).fmt(Format::DateTime)?;
        let stamp = now.replace(['-', ':'], "");
        let date = stamp.split('T').next().unwrap_or_default();
        let (host, hash) = (&self.host, hex(&Sha256::digest(body)));
        let names = "content-type;host;x-amz-date;x-amz-target";
        let canonical = format!(
            "POST\n/\n\ncontent-type:application/x-amz-json-1.1\nhost:{host}\nx-amz-date:{stamp}\n\
             x-amz-target:Kinesis_20131202.PutRecords\n\n{names}\n{hash}"
        );
        let scope = format!("{date}/us-east-1/kinesis/aws4_request");
        let canonical = hex(&Sha256::digest(canonical));
        let signed = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{canonical}");
        if self.signing_key.0 != seconds / 86_400 || self.signing_key.1.is_empty() {
            let mut key = b"AWS4example-secret".to_vec();
            for part in [date, "us-east-1", "kinesis", "aws4_request"] {
                key = hmac(&key, part)?;
            }
            self.signing_key = (seconds / 86_400, key);
        }
        let signature = hex(&hmac(&self.signing_key.1, &signed)?);
        Ok(format!(
            "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-amz-json-1.1\r\n\
             x-amz-date: {stamp}\r\nx-amz-target: Kinesis_20131202.PutRecords\r\n\
             content-length: {}\r\nauthorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, \
             SignedHeaders={names}, Signature={signature}\r\n\r\n",
            body.len()
        ))
    }
}

/// Writes a call and reads the whole answer to it.
fn exchange<'a>(
    socket: &mut (impl Read + Write),
    head: &str,
    body: &[u8],
    buffer: &'a mut [u8],
) -> anyhow::Result<&'a [u8]> {
    socket.write_all(head.as_bytes())?;
    socket.write_all(body)?;
    socket.flush()?;
    let mut filled = 0;
    loop {
        if let Some(whole) = answer_length(buffer.get(..filled).unwrap_or_default())?
            && filled >= whole
        {
            return Ok(buffer.get(..whole).unwrap_or_default());
        }
        let free = buffer.get_mut(filled..).filter(|free| !free.is_empty());
        let read = socket.read(free.context("an answer too long")?)?;
        if read == 0 {
            bail!("the connection was closed");
        }
        filled += read;
    }
}

/// Returns how long the answer is, head and body, once its head is there.
fn answer_length(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = str::from_utf8(bytes.get(..end).unwrap_or_default())?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    Ok(Some(end + 4 + length.context("no content-length")?.trim().parse::<usize>()?))
}

fn hmac(key: &[u8], text: &str) -> anyhow::Result<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key)?;
    mac.update(text.as_bytes());
    Ok(mac.finalize().into_bytes().to_vec())
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

/// What was typed.
#[derive(Debug)]
struct Options {
    host: String,
    tls: bool,
    ca: Option<String>,
    request: usize,
    record: usize,
    files: Vec<String>,
}

impl Options {
    fn parse() -> anyhow::Result<Self> {
        let mut arguments = std::env::args().skip(1);
        let url = arguments.next().context("usage: floor URL [--ca FILE] FILE...")?;
        let (scheme, host) = url.split_once("://").context("URL is http://HOST:PORT")?;
        let (mut ca, mut request, mut unit, mut files) = (None, 1_000_000, 25_000, Vec::new());
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument}: a value"));
            match argument.as_str() {
                "--ca" => ca = Some(value()?),
                "--request" => request = value()?.parse()?,
                "--record" => unit = value()?.parse()?,
                _ => files.push(argument),
            }
        }
        // The key counts towards the payload unit.
        let record = usize::checked_sub(unit, KEY.len()).context("--record is too small")?;
        let (host, tls) = (host.trim_end_matches('/').to_owned(), scheme == "https");
        Ok(Self { host, tls, ca, request, record, files })
    }
}
