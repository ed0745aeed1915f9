//! What a setting may be: the limits of the service, and bounds beyond which a value can only be a
//! slip of the hand.
//!
//! Invariant: every default lies within its range (a test holds it).

use std::ops::RangeInclusive;
use std::time::Duration;

const MIB: usize = 1 << 20;

/// Bytes of a record: at most 10 MiB, which `MaxRecordSizeInKiB` allows where a stream asks for it;
/// at least as much as a key and a short line need.
pub const MAX_BYTES: RangeInclusive<usize> = 64..=10 * MIB;

/// Lines of a record: more than a million of them need 10 MiB even when they are all but empty.
pub const MAX_LINES: RangeInclusive<usize> = 1..=1_000_000;

/// Levels of gzip.
pub const GZIP_LEVEL: RangeInclusive<usize> = 1..=9;

/// Levels of zstd: those above 19 ask the reader for more memory than it may be ready to give.
pub const ZSTD_LEVEL: RangeInclusive<usize> = 1..=19;

/// How long a line may wait for company.
pub const MAX_AGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

/// How long a group of lines may wait for its next line; with 0 there would be no groups.
pub const MULTILINE_MAX_AGE: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_hours(1);

/// Bytes of a delimiter: it must leave room in the smallest record.
pub const DELIMITER_BYTES: usize = 32;

/// Records of a call: `PutRecords` takes 500.
pub const REQUEST_RECORDS: RangeInclusive<usize> = 1..=500;

/// Bytes of a call: `PutRecords` takes 10 MiB where the account's limit was raised, else 5 MiB.
pub const REQUEST_BYTES: RangeInclusive<usize> = 64..=10 * MIB;

/// Bytes of records joined into one: what every stream takes as a record.
pub const JOINED_BYTES: RangeInclusive<usize> = 0..=MIB;

/// Calls in flight.
pub const IN_FLIGHT: RangeInclusive<usize> = 1..=64;

/// How long a call may take. A call of 10 MiB on a slow line needs minutes.
pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(5);

/// The longest pause between two tries.
pub const BACKOFF_MAX: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(5);

/// Bytes read and not yet acknowledged: one block of reading at least.
pub const BUFFER: RangeInclusive<usize> = MIB..=1024 * MIB;

/// Files held open; no system gives a process more descriptors than a million.
pub const OPEN_FILES: RangeInclusive<usize> = 1..=1_000_000;

/// How often all patterns are looked through.
pub const SCAN_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_hours(1);

/// How often files are looked at where inotify cannot be had.
pub const POLL_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_mins(1);

/// How long a rotated file is held open after its last growth.
pub const HOLD_ROTATED: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24);

/// How long a rotated file is held while it is not read to its end.
pub const HOLD_UNREAD: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(30 * 24);

/// Bytes of deleted files that are held: up to a tebibyte.
pub const HOLD_DELETED_BYTES: RangeInclusive<usize> = 0..=MIB.saturating_mul(MIB);

/// How often positions are committed; each commit is an `fsync`.
pub const CHECKPOINT_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(50)..=Duration::from_mins(1);

/// How long SIGTERM may drain.
pub const DRAIN_DEADLINE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(10);

/// Characters of a flow's name: it is part of paths and metric labels.
pub const NAME_CHARS: RangeInclusive<usize> = 1..=64;

/// Characters of a stream's name (`StreamName` in the Kinesis API).
pub const STREAM_CHARS: RangeInclusive<usize> = 1..=128;

/// Characters of a partition key (`PartitionKey` in the Kinesis API).
pub const PARTITION_KEY_CHARS: RangeInclusive<usize> = 1..=256;

/// Characters of an external id (`ExternalId` of `AssumeRole`).
pub const EXTERNAL_ID_CHARS: RangeInclusive<usize> = 2..=1224;

/// Characters of a session's name (`RoleSessionName` of `AssumeRole`).
pub const SESSION_NAME_CHARS: RangeInclusive<usize> = 2..=64;

/// Bytes of a pattern: Linux's `PATH_MAX`.
pub const PATTERN_BYTES: usize = 4096;

/// Bytes a compiled regular expression may take: enough for any line of a log, and quick to refuse.
pub const REGEX_BYTES: usize = MIB;

/// Bytes of an appended file before it is rotated; smaller ones would be rotated more often than read.
pub const ROTATE_BYTES: RangeInclusive<usize> = MIB..=1024 * 1024 * MIB;

/// The age of an appended file before it is rotated.
pub const ROTATE_AGE: RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(24 * 366);

/// Files that a consumer makes.
pub const MAX_FILES: RangeInclusive<usize> = 1..=10_000_000;

/// Characters of a consumer's name (`ConsumerName` in the Kinesis API).
pub const CONSUMER_CHARS: RangeInclusive<usize> = 1..=128;

/// Characters of a table's name (`TableName` in the DynamoDB API).
pub const TABLE_CHARS: RangeInclusive<usize> = 3..=255;

/// When a lease is taken from an agent that gives no sign of life. It gives three within this time, and a
/// call may be slow; a shard waits so long for the next agent.
pub const FAILOVER: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_mins(10);

/// How often a shard is asked whether there is something new; five times a second at most.
pub const READ_POLL_INTERVAL: RangeInclusive<Duration> =
    Duration::from_millis(200)..=Duration::from_mins(5);

/// Bytes read and not yet committed: one reply of a shard (10 MiB) at least.
pub const READ_BUFFER: RangeInclusive<usize> = 10 * MIB..=10 * 1024 * MIB;
