//! The nouns every stage shares: which file generation, which bytes of it, and how far.
//!
//! Invariant: a [`FileKey`] names one *generation* of one file in one flow for ever. A rename keeps
//! the key; a truncation or a new file under an old name gets a new one. So a span never becomes
//! ambiguous, whatever happens to names and inodes.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The name of a shard, such as `shardId-000000000003`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub Arc<str>);

impl From<&str> for ShardId {
    fn from(name: &str) -> Self {
        Self(Arc::from(name))
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The place of a record in its shard: a decimal number of up to 128 digits, ordered as a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SequenceNumber(pub Arc<str>);

impl From<&str> for SequenceNumber {
    fn from(digits: &str) -> Self {
        Self(Arc::from(digits))
    }
}

impl SequenceNumber {
    fn digits(&self) -> &str {
        self.0.trim_start_matches('0')
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two) = (self.digits(), other.digits());
        // What is equal as a number and not as text is still told apart, as `Eq` does.
        one.len().cmp(&two.len()).then_with(|| one.cmp(two)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// How far a shard has been dealt with: everything before its record, and of that record the first
/// pieces (KCL's sub-sequence numbers), or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The record.
    pub sequence: SequenceNumber,
    /// How many of its pieces are done, counted from its first; `None`: the whole record.
    pub pieces: Option<u64>,
}

impl Progress {
    /// Returns the progress at the end of a record.
    #[must_use]
    pub fn after(sequence: SequenceNumber) -> Self {
        Self { sequence, pieces: None }
    }

    /// Returns true where this is further than `other` in the same shard.
    #[must_use]
    pub fn is_beyond(&self, other: &Self) -> bool {
        let pieces = |progress: &Self| progress.pieces.unwrap_or(u64::MAX);
        self.sequence.cmp(&other.sequence).then_with(|| pieces(self).cmp(&pieces(other)))
            == Ordering::Greater
    }
}

/// The number of one generation of one followed file, allotted by the checkpoint store and never
/// used again in that state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey(pub u64);

impl fmt::Display for FileKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "#{}", self.0)
    }
}

/// A half-open range of bytes, `start..end`, of one file generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The generation the bytes stand in.
    pub file: FileKey,
    /// Offset of the first byte.
    pub start: u64,
    /// Offset after the last byte; never below `start`.
    pub end: u64,
}

impl Span {
    /// Returns the number of bytes covered.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Returns true where no byte is covered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }

    /// Returns true where `next` goes on in the same file where this ends.
    #[must_use]
    pub fn is_followed_by(&self, next: &Self) -> bool {
        self.file == next.file && self.end == next.start
    }
}

/// A fingerprint of the (at most [`Mark::WIDTH`]) bytes that stand just before an offset.
///
/// Kept beside every position, it tells a file that grew from one that was truncated, rewritten or
/// replaced under the same inode: the bytes before the offset are then others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// How many bytes were hashed; 0 at offset 0.
    pub len: u8,
    /// CRC-32 (IEEE) of those bytes.
    pub hash: u32,
}

impl Mark {
    /// The most bytes a mark covers: enough to hold a time stamp and some text of a log line.
    pub const WIDTH: usize = 64;

    /// Returns the mark of the offset at the end of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let start = bytes.len().saturating_sub(Self::WIDTH);
        let last = bytes.get(start..).unwrap_or_default();
        Self { len: u8::try_from(last.len()).unwrap_or(u8::MAX), hash: crc32fast::hash(last) }
    }

    /// Returns true where `bytes`, which end at the marked offset, are the marked ones.
    /// Fewer bytes than were marked never match.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let width = usize::from(self.len);
        bytes
            .len()
            .checked_sub(width)
            .and_then(|start| bytes.get(start..))
            .is_some_and(|last| crc32fast::hash(last) == self.hash)
    }
}

/// How far a file generation has been dealt with, and the mark of the bytes before that point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Offset of the first byte that is still to be dealt with.
    pub offset: u64,
    /// The bytes before it.
    pub mark: Mark,
}

/// The last [`Mark::WIDTH`] bytes before the place where reading goes on: what a [`Mark`] is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Preceding {
    bytes: [u8; Mark::WIDTH],
    len: u8,
}

impl Default for Preceding {
    fn default() -> Self {
        Self { bytes: [0; Mark::WIDTH], len: 0 }
    }
}

impl fmt::Debug for Preceding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Preceding({} bytes)", self.len)
    }
}

impl Preceding {
    /// Returns the bytes held, oldest first.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Moves on by `data`, the bytes that follow.
    pub fn push(&mut self, data: &[u8]) {
        *self = self.after(data);
    }

    /// Returns what precedes the end of `data`, where `data` follows the bytes held.
    #[must_use]
    pub fn after(&self, data: &[u8]) -> Self {
        let mut next = Self::default();
        let from_data = data.len().min(Mark::WIDTH);
        let kept = usize::from(self.len).min(Mark::WIDTH.saturating_sub(from_data));
        let held = self.as_slice();
        let old = held.get(held.len().saturating_sub(kept)..).unwrap_or_default();
        let new = data.get(data.len().saturating_sub(from_data)..).unwrap_or_default();
        let len = kept.saturating_add(from_data);
        for (slot, byte) in next.bytes.iter_mut().zip(old.iter().chain(new)) {
            *slot = *byte;
        }
        next.len = u8::try_from(len).unwrap_or(0);
        next
    }

    /// Returns the mark of the place held.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark::of(self.as_slice())
    }

    /// Returns the mark of the end of `data`, where `data` follows the bytes held.
    #[must_use]
    pub fn mark_after(&self, data: &[u8]) -> Mark {
        if data.len() >= Mark::WIDTH { Mark::of(data) } else { self.after(data).mark() }
    }
}

/// A contiguous piece of one file inside a record: the span, the mark of its end (which becomes the
/// file's checkpoint mark should the acknowledged prefix end there), and how many lines it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The bytes.
    pub span: Span,
    /// The mark of `span.end`.
    pub mark: Mark,
    /// Lines that *end* in the run (a file's last line may end without a newline).
    pub lines: u32,
}

/// The hash and length of the first bytes of a file, by which a generation is known again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// How many bytes were hashed: the file's size when it was taken, at most [`Fingerprint::WIDTH`].
    /// 0: the file was empty, and nothing is known of its content yet.
    pub len: u16,
    /// CRC-32 (IEEE) of those bytes.
    pub hash: u32,
}

impl Fingerprint {
    /// The most bytes a fingerprint covers.
    pub const WIDTH: usize = 1024;

    /// Returns the fingerprint of a file that begins with `head` (longer input is cut).
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        let head = head.get(..Self::WIDTH).unwrap_or(head);
        Self { len: u16::try_from(head.len()).unwrap_or(0), hash: crc32fast::hash(head) }
    }

    /// Returns true where a file that begins with `head` can be the one this was taken of: its
    /// first `len` bytes are the same. A shorter file is another one; an empty fingerprint
    /// matches everything.
    #[must_use]
    pub fn matches(&self, head: &[u8]) -> bool {
        head.get(..usize::from(self.len)).is_some_and(|head| crc32fast::hash(head) == self.hash)
    }
}

/// By what a file generation is known again after a rename or a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `st_dev`; changes across reboots on some systems, so it alone decides nothing.
    pub device: u64,
    /// `st_ino`; used again by ext4 at once after a deletion.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970 where the file system keeps one, else 0.
    pub birth: u64,
    /// The first bytes.
    pub fingerprint: Fingerprint,
}
