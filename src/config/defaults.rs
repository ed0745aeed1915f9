//! What holds where `agent.yaml` says nothing, and why.
//!
//! Invariant: `agent.yaml.example` says the same (a test holds it).

use std::time::Duration;

use super::template::{Template, Variable};
use super::{
    ConsumeStart, Coordinate, Format, Layout, Merge, OnOversize, PartitionKey, Reading, Ship,
    StartAt, Tail, Writing,
};

/// The file that `kinetail` reads unless told otherwise.
pub const FILE: &str = "/etc/kinetail/agent.yaml";

/// Where systemd's `StateDirectory=kinetail` puts it.
pub const STATE_DIR: &str = "/var/lib/kinetail";

/// One transaction a second: an agent that is killed sends at most a second's work again, and the
/// disk does not notice.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// A third of the grace that Kubernetes (30 s) gives a process to end.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// The session's name that AWS `CloudTrail` shows.
pub const SESSION_NAME: &str = "kinetail";

/// A line ends as it does in the file, so a record is an exact slice of it.
pub const DELIMITER: &[u8] = b"\n";

/// One PUT payload unit, whether "25 KB" is read as 25,000 or 25,600 bytes.
pub const MAX_BYTES: usize = 25_000;

/// A second of delay is what a log reader forgives; at 25 lines of 1 KB a second the records are
/// full before.
pub const MAX_AGE: Duration = Duration::from_secs(1);

/// What gzip itself takes for the best compromise.
pub const GZIP_LEVEL: u32 = 6;

/// The fastest: what is saved by sending less pays for it, and higher levels save little more on lines.
pub const ZSTD_LEVEL: u32 = 1;

/// The next line of a stack trace follows within milliseconds.
pub const MULTILINE_MAX_AGE: Duration = Duration::from_secs(1);

/// A deep stack trace with its causes has some 100 KB; what is ten times that is no group.
pub const MULTILINE_MAX_BYTES: usize = 1 << 20;

/// Several calls in flight and one being filled; the files themselves are the real buffer.
pub const BUFFER: usize = 8 << 20;

/// Half of 1,024, the usual soft limit of descriptors.
pub const OPEN_FILES: usize = 512;

/// Inotify tells of changes at once; the scan is for what it misses.
pub const SCAN_INTERVAL: Duration = Duration::from_secs(10);

/// Four looks a second at known files cost next to nothing.
pub const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// A server told to reopen its log does so within seconds of the rotation; this is a minute.
pub const HOLD_ROTATED: Duration = Duration::from_mins(1);

/// A stream that takes nothing for a day is noticed; a disk that fills up stops the server.
pub const HOLD_UNREAD: Duration = Duration::from_hours(24);

/// Hours of a busy server's logs, and little of a disk.
pub const HOLD_DELETED_BYTES: usize = 4 << 30;

/// The limit of `PutRecords`.
pub const REQUEST_RECORDS: usize = 500;

/// The cheapest size of a call, and small in memory; a shard takes 1 MB a second.
pub const REQUEST_BYTES: usize = 1_000_000;

/// Twenty payload units: what a call costs is small beside it, and it is half of what a shard takes
/// in a second.
pub const JOINED_BYTES: usize = 500_000;

/// Four calls of 1 MB hide the round trip to any region.
pub const IN_FLIGHT: usize = 4;

/// Many times what the slowest healthy call takes.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A recovered stream is found again within this time.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The agent is there to ship what is written, the first time too.
pub const START_AT: StartAt = StartAt::Beginning;

/// Order within a file is kept, and files spread over the shards.
pub const PARTITION_KEY: PartitionKey = PartitionKey::File;

/// Nothing is left out.
pub const ON_OVERSIZE: OnOversize = OnOversize::Split;

/// It takes what every producer writes; a mirror needs records that say where they come from.
pub const LAYOUT: Layout = Layout::Append;

/// Nothing that is in the stream is left out.
pub const CONSUME_START: ConsumeStart = ConsumeStart::TrimHorizon;

/// One agent reads every shard.
pub const COORDINATE: Coordinate = Coordinate::Local;

/// A quarter of 1,024, the usual soft limit of descriptors.
pub const WRITE_OPEN_FILES: usize = 256;

/// Ten years of daily rotation of 27 logs; a stranger who makes up names stops here.
pub const MAX_FILES: usize = 100_000;

/// What the Kinesis Client Library takes.
pub const FAILOVER: Duration = Duration::from_secs(10);

/// What the Kinesis Client Library waits, near enough: other readers of the shard get their share.
pub const READ_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Three of the largest replies.
pub const READ_BUFFER: usize = 32 << 20;

/// A file of each name for every host.
#[must_use]
pub fn append_path() -> Template {
    template("{stream}/{host}/{file}")
}

/// The files of each host as they stand there.
#[must_use]
pub fn mirror_path() -> Template {
    template("{host}/{path}")
}

/// A file for each shard.
#[must_use]
pub fn other_path() -> Template {
    template("{stream}/{shard}.log")
}

fn template(text: &str) -> Template {
    // A test holds that each is sound.
    Template::parse(text, &Variable::ALL).unwrap_or_else(|_| Template::plain("kinetail.log"))
}

impl Default for Writing {
    fn default() -> Self {
        Self { open_files: WRITE_OPEN_FILES, max_files: MAX_FILES }
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            poll_interval: READ_POLL_INTERVAL,
            buffer: READ_BUFFER,
            timeout: TIMEOUT,
            backoff_max: BACKOFF_MAX,
        }
    }
}

impl Default for Format {
    fn default() -> Self {
        Self::Lines { delimiter: DELIMITER.to_vec() }
    }
}

impl Default for Merge {
    fn default() -> Self {
        Self {
            format: Format::default(),
            max_lines: None,
            max_bytes: MAX_BYTES,
            max_age: MAX_AGE,
            compression: None,
        }
    }
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            buffer: BUFFER,
            open_files: OPEN_FILES,
            scan_interval: SCAN_INTERVAL,
            poll_interval: POLL_INTERVAL,
            hold_rotated: HOLD_ROTATED,
            hold_unread: HOLD_UNREAD,
            hold_deleted_bytes: HOLD_DELETED_BYTES,
        }
    }
}

impl Default for Ship {
    fn default() -> Self {
        Self {
            request_records: REQUEST_RECORDS,
            request_bytes: REQUEST_BYTES,
            joined_bytes: JOINED_BYTES,
            in_flight: IN_FLIGHT,
            timeout: TIMEOUT,
            backoff_max: BACKOFF_MAX,
        }
    }
}
