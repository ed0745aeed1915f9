//! Shards: which one a key belongs to, and how fast each takes records.
//!
//! Invariant: the hash ranges of the shards are even, in order and without a gap, as in a stream
//! that was never resharded.

use std::time::{Duration, Instant};

use md5::{Digest, Md5};

use super::script::{Script, Throttle};

/// Returns the hash of a partition key: its MD5 as a number.
#[must_use]
pub fn hash(key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(key.as_bytes()).into())
}

/// Returns the shard, of `count`, that holds a hash.
#[must_use]
pub fn shard_of(hash: u128, count: u32) -> u32 {
    // The upper half decides, as `first_hash` has zeros in its lower half.
    let place = ((hash >> 64) * u128::from(count)) >> 64;
    u32::try_from(place).unwrap()
}

/// Returns the first hash of shard `k` of `count`; 0 for the shard after the last.
#[must_use]
pub fn first_hash(k: u32, count: u32) -> u128 {
    (u128::from(k) << 64).div_ceil(u128::from(count)) << 64
}

/// Returns a shard's id.
#[must_use]
pub fn name(k: u32) -> String {
    format!("shardId-{k:012}")
}

/// Returns a sequence number as long as real ones: 56 digits, ascending.
#[must_use]
pub fn sequence_number(sequence: u64) -> String {
    format!("4957{sequence:052}")
}

/// How much a shard was offered lately.
#[derive(Clone, Debug)]
pub struct Load {
    window: Instant,
    records: u64,
    bytes: u64,
    offered: u64,
}

impl Load {
    /// Returns the load of a shard that was never used.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { window: now, records: 0, bytes: 0, offered: 0 }
    }

    /// Offers an entry of so many bytes, `age` after the script was set; returns whether the shard
    /// takes it, and counts it if so.
    pub fn takes(
        &mut self,
        now: Instant,
        age: Duration,
        bytes: usize,
        script: &Script,
        shard: u32,
    ) -> bool {
        if now.duration_since(self.window) >= Duration::from_secs(1) {
            (self.window, self.records, self.bytes) = (now, 0, 0);
        }
        let bytes = bytes as u64;
        let refused = script.throttles(shard).any(|throttle| match throttle {
            Throttle::Above { records, bytes: most } => {
                self.records + 1 > records || self.bytes + bytes > most
            }
            Throttle::Always => true,
            Throttle::Entries(count) => self.offered < count,
            Throttle::For(duration) => age < duration,
        });
        self.offered += 1;
        if !refused {
            self.records += 1;
            self.bytes += bytes;
        }
        !refused
    }
}
