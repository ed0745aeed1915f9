//! Reading an aggregated record, whoever wrote it.
//!
//! Invariant: an [`Aggregate`] was verified whole before it gives anything: digest, structure, the
//! indexes of all records. So whoever takes its records gets all of them or none.

use md5::{Digest as _, Md5};

use super::wire::{Fields, Value};
use super::{DIGEST, MAGIC};

/// Why data is no aggregated record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAggregated {
    /// It does not begin with the magic, or is too short to be more than magic and digest: a plain
    /// record.
    #[error("it does not begin as an aggregated record does")]
    Unmarked,
    /// The digest at the end is another.
    #[error("the digest does not match")]
    Digest,
    /// The digest matches, and what it covers is not by the schema.
    #[error("the content is not by the schema")]
    Malformed,
}

/// Returns true where `data` begins as an aggregated record does. A plain record that does is to be
/// wrapped in an aggregate, or readers would look into it.
#[must_use]
pub fn is_marked(data: &[u8]) -> bool {
    data.starts_with(&MAGIC)
}

/// Reads an aggregated record.
///
/// # Errors
/// [`NotAggregated`], and the data is to be handed on as it is.
pub fn decode(data: &[u8]) -> Result<Aggregate<'_>, NotAggregated> {
    let message = data.strip_prefix(&MAGIC).ok_or(NotAggregated::Unmarked)?;
    // As the KCL has it: there is something between magic and digest.
    let at = message.len().checked_sub(DIGEST).filter(|&at| at > 0);
    let (message, digest) = message.split_at(at.ok_or(NotAggregated::Unmarked)?);
    if Md5::digest(message).as_slice() != digest {
        return Err(NotAggregated::Digest);
    }
    Aggregate::read(message).ok_or(NotAggregated::Malformed)
}

/// A verified aggregated record.
#[derive(Clone, Debug)]
pub struct Aggregate<'a> {
    keys: Vec<&'a [u8]>,
    hash_keys: Vec<&'a [u8]>,
    message: &'a [u8],
    len: usize,
}

impl<'a> Aggregate<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let mut read = Self { keys: Vec::new(), hash_keys: Vec::new(), message, len: 0 };
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next().ok()? {
            match field {
                (1, Value::Bytes(key)) => read.keys.push(key),
                (2, Value::Bytes(key)) => read.hash_keys.push(key),
                (3, Value::Bytes(_)) => read.len = read.len.saturating_add(1),
                (1..=3, _) => return None,
                _ => {}
            }
        }
        // The tables may stand after the records, so these are looked at last.
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next().ok()? {
            if let (3, Value::Bytes(record)) = field {
                read.record(record)?;
            }
        }
        Some(read)
    }

    /// Returns how many user records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true where there are no user records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the user records in order.
    pub fn records(&self) -> impl Iterator<Item = UserRecord<'a>> {
        let mut fields = Fields::of(self.message);
        std::iter::from_fn(move || {
            loop {
                if let (3, Value::Bytes(record)) = fields.next().ok()?? {
                    return self.record(record);
                }
            }
        })
    }

    fn record(&self, message: &'a [u8]) -> Option<UserRecord<'a>> {
        let (mut key, mut explicit, mut data) = (None, None, None);
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next().ok()? {
            match field {
                (1, Value::Number(index)) => key = Some(index),
                (2, Value::Number(index)) => explicit = Some(index),
                (3, Value::Bytes(bytes)) => data = Some(bytes),
                (4, Value::Bytes(tag)) => drop(Tag::read(tag)?),
                (1..=4, _) => return None,
                _ => {}
            }
        }
        let explicit_hash_key = match explicit {
            Some(index) => Some(entry(&self.hash_keys, index)?),
            None => None,
        };
        Some(UserRecord {
            partition_key: entry(&self.keys, key?)?,
            explicit_hash_key,
            data: data?,
            tags: Tags { fields: Fields::of(message) },
        })
    }
}

fn entry<'a>(table: &[&'a [u8]], index: u64) -> Option<&'a [u8]> {
    table.get(usize::try_from(index).ok()?).copied()
}

/// One user record of an aggregate.
#[derive(Clone, Copy, Debug)]
pub struct UserRecord<'a> {
    /// The partition key: text by the schema, which not every writer keeps to.
    pub partition_key: &'a [u8],
    /// The explicit hash key, a decimal number, where its writer gave one. kinetail never does.
    pub explicit_hash_key: Option<&'a [u8]>,
    /// What was put.
    pub data: &'a [u8],
    /// What its writer says of it.
    pub tags: Tags<'a>,
}

/// The tags of a user record.
#[derive(Clone, Copy, Debug)]
pub struct Tags<'a> {
    fields: Fields<'a>,
}

impl<'a> Tags<'a> {
    /// Returns the tags in order.
    pub fn iter(self) -> impl Iterator<Item = Tag<'a>> {
        let mut fields = self.fields;
        std::iter::from_fn(move || {
            loop {
                if let (4, Value::Bytes(tag)) = fields.next().ok()?? {
                    return Tag::read(tag);
                }
            }
        })
    }

    /// Returns the value of the first tag of a name.
    #[must_use]
    pub fn get(self, key: &str) -> Option<&'a [u8]> {
        self.iter().find(|tag| tag.key == key.as_bytes()).map(|tag| tag.value)
    }
}

/// A name and a value that a writer put beside a user record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    /// The name.
    pub key: &'a [u8],
    /// The value; empty where there is none.
    pub value: &'a [u8],
}

impl<'a> Tag<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let (mut key, mut value) = (None, &[][..]);
        let mut fields = Fields::of(message);
        while let Some(field) = fields.next().ok()? {
            match field {
                (1, Value::Bytes(bytes)) => key = Some(bytes),
                (2, Value::Bytes(bytes)) => value = bytes,
                (1 | 2, _) => return None,
                _ => {}
            }
        }
        Some(Self { key: key?, value })
    }
}
