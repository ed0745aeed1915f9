//! The format `kpl`: the aggregated record of the Kinesis Producer Library, encoded and decoded.
//!
//! Invariant: what [`begin`], [`push`] and [`end`] wrote, [`decode`] gives back; what [`decode`]
//! accepts has the magic, a digest that matches and no index out of its tables. No input makes it
//! panic or allocate more than a few times its own size.
//!
//! ```text
//!  F3 89 9A C2 │ protobuf                                                   │ MD5 of the protobuf
//!  magic       │ 0A key │ 1A ( 08 00 │ 1A data │ 22 (0A name 12 value) … ) … │ 16 bytes
//!                table 1  a user record: index, data, tags
//! ```
//!
//! The rules that keep every reader right: one partition key for all user records of an aggregate,
//! which is the outer record's key too, and never an explicit hash key. The KCL drops an aggregate
//! whole if any of its user records hashes outside the shard's range; with one key none can. Tags
//! are part of the schema, and readers that do not know them pass over them.

mod decode;
mod wire;

use md5::{Digest as _, Md5};

pub use decode::{Aggregate, NotAggregated, Tag, Tags, UserRecord, decode, is_marked};

/// The first bytes of every aggregated record.
pub const MAGIC: [u8; 4] = [0xf3, 0x89, 0x9a, 0xc2];

/// The bytes of the digest at the end.
pub const DIGEST: usize = 16;

/// Keys of fields in wire type 2 (a length, then bytes), as the schema numbers them.
mod tag {
    pub(super) const KEY_TABLE: u8 = 0x0a;
    pub(super) const RECORD: u8 = 0x1a;
    pub(super) const KEY_INDEX: u8 = 0x08;
    pub(super) const DATA: u8 = 0x1a;
    pub(super) const TAG: u8 = 0x22;
    pub(super) const TAG_KEY: u8 = 0x0a;
    pub(super) const TAG_VALUE: u8 = 0x12;
}

/// Begins an aggregate under `partition_key`, in an empty buffer.
pub fn begin(partition_key: &str, into: &mut Vec<u8>) {
    into.extend_from_slice(&MAGIC);
    wire::bytes(tag::KEY_TABLE, partition_key.as_bytes(), into);
}

/// Appends a user record with tags that [`push_tag`] wrote.
pub fn push(data: &[u8], tags: &[u8], into: &mut Vec<u8>) {
    into.push(tag::RECORD);
    wire::varint(inner_len(data.len(), tags.len()), into);
    into.extend_from_slice(&[tag::KEY_INDEX, 0]);
    wire::bytes(tag::DATA, data, into);
    into.extend_from_slice(tags);
}

/// Appends one tag to the tags of a user record. A value is text by the schema; readers in use do
/// not look whether it is UTF-8, which the path of a file need not be.
pub fn push_tag(key: &str, value: &[u8], into: &mut Vec<u8>) {
    into.push(tag::TAG);
    let length = wire::bytes_len(key.len()).saturating_add(wire::bytes_len(value.len()));
    wire::varint(length, into);
    wire::bytes(tag::TAG_KEY, key.as_bytes(), into);
    wire::bytes(tag::TAG_VALUE, value, into);
}

/// Ends an aggregate that [`begin`] began.
pub fn end(into: &mut Vec<u8>) {
    let digest = Md5::digest(into.get(MAGIC.len()..).unwrap_or_default());
    into.extend_from_slice(&digest);
}

/// Returns the bytes of an aggregate without user records, under a key of `key` bytes.
#[must_use]
pub fn empty_len(key: usize) -> usize {
    MAGIC.len().saturating_add(DIGEST).saturating_add(wire::bytes_len(key))
}

/// Returns the bytes that a user record of `data` bytes and `tags` bytes of tags takes.
#[must_use]
pub fn pushed_len(data: usize, tags: usize) -> usize {
    wire::bytes_len(inner_len(data, tags))
}

/// Returns the bytes of a user record's message: a field of two bytes, the data, the tags.
fn inner_len(data: usize, tags: usize) -> usize {
    wire::bytes_len(data).saturating_add(2).saturating_add(tags)
}

#[cfg(test)]
mod tests;
