//! One kept-alive HTTP/1.1 connection: a call's body goes through one small buffer, which stays in
//! the processor's cache.
//!
//! Invariant: a call is tallied when its body has arrived whole, before it is answered.

use std::fmt::Write as _;
use std::io::{Read, Write};

use anyhow::{Context, bail};
use memchr::memmem;

use super::scan::Scan;
use super::{Manner, lock, tally};

/// Bytes read at a time.
const BUFFER: usize = 64 * 1024;

/// Answers call after call, until the client closes the connection.
///
/// # Errors
/// The connection breaks, or says something that is no HTTP/1.1 call with a length.
pub(super) fn serve(mut socket: impl Read + Write, manner: &Manner) -> anyhow::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    let mut answer = String::new();
    loop {
        let Some((head, rest)) = head(&mut socket, &mut buffer, &mut filled)? else {
            return Ok(());
        };
        let mut scan = Scan::new(manner.latency);
        let body = buffer.get(rest..filled).unwrap_or_default();
        scan.feed(body);
        let mut left = head.length.checked_sub(body.len()).context("more than one call")?;
        while left > 0 {
            let read = socket.read(&mut buffer)?;
            if read == 0 {
                bail!("closed in the middle of a call");
            }
            scan.feed(buffer.get(..read).unwrap_or_default());
            left = left.checked_sub(read).context("more than one call")?;
        }
        filled = 0;
        let accepted = tally::now();
        std::thread::sleep(manner.delay);
        answer.clear();
        if head.puts {
            put_records(&mut answer, scan.records())?;
            lock(&manner.tally).add(&scan, accepted);
        } else {
            answer.push_str(SUMMARY);
        }
        write!(
            socket,
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.1\r\n\
             x-amzn-requestid: 00000000-0000-0000-0000-000000000000\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )?;
        socket.flush()?;
    }
}

/// What a call's head says.
struct Head {
    length: usize,
    puts: bool,
}

/// Reads a head; returns it and where the body begins in the buffer, or `None` at the end.
fn head(
    socket: &mut impl Read,
    buffer: &mut [u8],
    filled: &mut usize,
) -> anyhow::Result<Option<(Head, usize)>> {
    loop {
        let bytes = buffer.get(..*filled).unwrap_or_default();
        if let Some(end) = memmem::find(bytes, b"\r\n\r\n") {
            let text = str::from_utf8(bytes.get(..end).unwrap_or_default())?.to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.context("a call without a length")?.trim().parse()?;
            let puts = text.contains("kinesis_20131202.putrecords");
            return Ok(Some((Head { length, puts }, end + 4)));
        }
        let free = buffer.get_mut(*filled..).filter(|free| !free.is_empty());
        let read = socket.read(free.context("a head too long")?)?;
        if read == 0 {
            return Ok(None);
        }
        *filled += read;
    }
}

/// Writes the answer to a PutRecords call of so many records: all of them accepted.
fn put_records(answer: &mut String, records: u64) -> anyhow::Result<()> {
    answer.push_str("{\"FailedRecordCount\":0,\"Records\":[");
    for number in 0..records {
        let comma = if number == 0 { "" } else { "," };
        write!(
            answer,
            "{comma}{{\"SequenceNumber\":\"4960000000000000000000000000000000000000000000000{number:06}\",\
             \"ShardId\":\"shardId-000000000000\"}}"
        )?;
    }
    answer.push_str("]}");
    Ok(())
}

/// What the stream says of itself.
const SUMMARY: &str = concat!(
    "{\"StreamDescriptionSummary\":{\"StreamName\":\"bench\",",
    "\"StreamARN\":\"arn:aws:kinesis:us-east-1:000000000000:stream/bench\",",
    "\"StreamStatus\":\"ACTIVE\",\"StreamModeDetails\":{\"StreamMode\":\"ON_DEMAND\"},",
    "\"RetentionPeriodHours\":24,\"StreamCreationTimestamp\":1.7e9,\"EnhancedMonitoring\":[],",
    "\"EncryptionType\":\"NONE\",\"OpenShardCount\":1,\"ConsumerCount\":0,",
    "\"MaxRecordSizeInKiB\":1024}}"
);
