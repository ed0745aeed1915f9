//! The body of a PutRecords request, written straight from the records' own bytes.
//!
//! Invariant: the text is what the SDK would write for the same entries, and `sha256` is its hash.
//! Every byte of a record is read once, on its way into base64; every byte of the text is hashed
//! while it is still in the CPU's cache. (The SDK encodes each blob into a string of its own, copies
//! that into a growing string, and hashes it at the end: half as much again in CPU per byte.)
//!
//! ```text
//!  {"Records":[{"Data":"<base64>","PartitionKey":"<JSON string>"},…],"StreamName":"<JSON string>"}
//! ```

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use base64_simd::STANDARD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Name;
use crate::stream::Entry;

/// How much text is hashed at a time where records are small: well within the second cache.
const HASH_STEP: usize = 64 * 1024;

/// Bytes of JSON around an entry's base64 and key.
const AROUND: usize = 40;

/// The text of a request, and its hash.
#[derive(Clone, Debug)]
pub(super) struct Body {
    /// The JSON text.
    pub(super) text: Bytes,
    /// The SHA-256 of the text, in hexadecimal: what a signature covers.
    pub(super) sha256: String,
}

/// Bodies kept to be used again. One comes back for one that is taken, so one hits nearly always, and
/// an idle agent does not hold the memory of its busiest moment.
const FREE_MAX: usize = 1;

/// Memory for bodies, used again: fresh memory for each megabyte costs page faults as dear as its
/// base64.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A body's memory on loan.
struct Loan {
    text: Vec<u8>,
    pool: Pool,
}

impl Pool {
    fn take(&self, capacity: usize) -> Vec<u8> {
        let mut text = self.lock().pop().unwrap_or_default();
        text.clear();
        text.reserve(capacity);
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut free = self.pool.lock();
        if free.len() < FREE_MAX {
            free.push(std::mem::take(&mut self.text));
        }
    }
}

impl Body {
    /// Writes the request that puts `entries` into the stream `name`.
    pub(super) fn new(name: &Name, entries: &[Entry], pool: &Pool) -> Self {
        let length = |entry: &Entry| {
            let data: usize = entry.data.iter().map(Bytes::len).sum();
            // A key may hold quotes and control characters, which JSON writes in up to six.
            data.div_ceil(3).saturating_mul(4).saturating_add(entry.partition_key.len() + AROUND)
        };
        let capacity =
            entries.iter().map(length).sum::<usize>().saturating_add(name.len() + AROUND);
        let mut writer = Writer { text: pool.take(capacity), hash: Sha256::new(), hashed: 0 };
        writer.push(b"{\"Records\":[");
        for (index, entry) in entries.iter().enumerate() {
            writer.push(if index == 0 { b"{\"Data\":\"" } else { b",{\"Data\":\"" });
            writer.base64(&entry.data);
            writer.push(b"\",\"PartitionKey\":");
            writer.string(&entry.partition_key);
            writer.push(b"}");
        }
        writer.push(b"]");
        for (member, value) in [("StreamName", &name.name), ("StreamARN", &name.arn)] {
            if let Some(value) = value {
                writer.push(b",");
                writer.string(member);
                writer.push(b":");
                writer.string(value);
            }
        }
        writer.push(b"}");
        writer.end(pool)
    }
}

/// Text in the making.
struct Writer {
    text: Vec<u8>,
    hash: Sha256,
    hashed: usize,
}

impl Writer {
    fn push(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    fn string(&mut self, string: &str) {
        // Writing text to memory cannot fail.
        let _ = serde_json::to_writer(&mut self.text, string);
    }

    /// Writes the pieces as one: three bytes make four characters, across the borders too.
    fn base64(&mut self, pieces: &[Bytes]) {
        let mut carry = [0_u8; 3];
        let mut held = 0;
        for piece in pieces {
            let mut rest: &[u8] = piece;
            while held > 0
                && let (Some(slot), Some((&byte, after))) =
                    (carry.get_mut(held), rest.split_first())
            {
                *slot = byte;
                rest = after;
                held += 1;
                if held == carry.len() {
                    STANDARD.encode_append(carry, &mut self.text);
                    held = 0;
                }
            }
            if rest.is_empty() {
                continue;
            }
            let (whole, left) = rest.split_at(rest.len() - rest.len() % carry.len());
            for step in whole.chunks(HASH_STEP / 4 * 3) {
                STANDARD.encode_append(step, &mut self.text);
                self.hash_step();
            }
            for (slot, &byte) in carry.iter_mut().zip(left) {
                *slot = byte;
            }
            held = left.len();
        }
        STANDARD.encode_append(carry.get(..held).unwrap_or_default(), &mut self.text);
    }

    fn hash_step(&mut self) {
        if self.text.len().saturating_sub(self.hashed) >= HASH_STEP / 2 {
            self.hash.update(self.text.get(self.hashed..).unwrap_or_default());
            self.hashed = self.text.len();
        }
    }

    fn end(mut self, pool: &Pool) -> Body {
        self.hash.update(self.text.get(self.hashed..).unwrap_or_default());
        let mut sha256 = String::with_capacity(64);
        for byte in self.hash.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(sha256, "{byte:02x}");
        }
        let loan = Loan { text: self.text, pool: pool.clone() };
        Body { text: Bytes::from_owner(loan), sha256 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use smallvec::SmallVec;

    use super::*;

    fn entry(key: &str, pieces: &[&[u8]]) -> Entry {
        let data: SmallVec<_> = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        Entry { partition_key: Arc::from(key), data }
    }

    fn text(body: &Body) -> &str {
        std::str::from_utf8(&body.text).unwrap()
    }

    #[test]
    fn the_text_is_what_the_service_reads() {
        let entries = [entry("a", &[b"one"]), entry("\"\\\n\u{7f}é", &[b"t", b"", b"wo"])];
        let body = Body::new(&Name::new("logs"), &entries, &Pool::default());
        let expected = "{\"Records\":[{\"Data\":\"b25l\",\"PartitionKey\":\"a\"},\
            {\"Data\":\"dHdv\",\"PartitionKey\":\"\\\"\\\\\\n\u{7f}é\"}],\"StreamName\":\"logs\"}";
        assert_eq!(text(&body), expected);
    }

    #[test]
    fn a_stream_may_be_named_by_its_arn() {
        let arn = "arn:aws:kinesis:eu-west-1:1:stream/logs";
        let body = Body::new(&Name::new(arn), &[], &Pool::default());
        assert_eq!(text(&body), format!("{{\"Records\":[],\"StreamARN\":\"{arn}\"}}"));
    }

    #[test]
    fn memory_is_used_again_and_little_is_kept() {
        let (pool, name) = (Pool::default(), Name::new("logs"));
        let body = Body::new(&name, &[entry("a", &[&[7; 10_000]])], &pool);
        let memory = body.text.as_ptr();
        drop(body);
        let body = Body::new(&name, &[entry("a", &[b"b"])], &pool);
        assert_eq!(body.text.as_ptr(), memory);
        assert!(text(&body).starts_with("{\"Records\""), "nothing is left of what stood there");
        drop(body);
        let bodies: Vec<_> = (0..9).map(|_| Body::new(&name, &[], &pool)).collect();
        drop(bodies);
        assert_eq!(pool.lock().len(), FREE_MAX);
    }

    proptest! {
        // Each case may hold a megabyte.
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

        #[test]
        fn pieces_are_encoded_as_one_and_the_hash_is_that_of_the_text(
            entries in prop::collection::vec(
                (".{0,6}", prop::collection::vec(prop::collection::vec(any::<u8>(), 0..8), 0..5), 0..3_usize),
                0..6,
            ),
        ) {
            let entries: Vec<_> = entries.iter().map(|(key, pieces, large)| {
                let large = vec![0xA5; large * HASH_STEP];
                let mut pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
                pieces.insert(pieces.len() / 2, &large);
                entry(key, &pieces)
            }).collect();
            let body = Body::new(&Name::new("s"), &entries, &Pool::default());
            let value: Value = serde_json::from_slice(&body.text).unwrap();
            let records = value["Records"].as_array().unwrap();
            prop_assert_eq!(records.len(), entries.len());
            for (record, entry) in records.iter().zip(&entries) {
                prop_assert_eq!(record["PartitionKey"].as_str(), Some(&*entry.partition_key));
                let data = STANDARD.decode_to_vec(record["Data"].as_str().unwrap()).unwrap();
                prop_assert!(data == entry.data.concat());
            }
            let hash: Vec<_> =
                Sha256::digest(&body.text).iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(&body.sha256, &hash.concat());
        }
    }
}
