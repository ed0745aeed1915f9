//! The configuration: what `agent.yaml` means once every mistake in it has been told.
//!
//! Invariant: a [`Config`] cannot be wrong by itself: numbers are within Kinesis's limits, names
//! are unique, globs and regular expressions compile. Only the world (a missing directory, a refused
//! credential) can still say no.
//!
//! ```text
//!  text ─▶ outline ─▶ document ─▶ reader ─▶ resolve ─▶ Config ─▶ describe
//!          places     values      kinds     meaning
//!            └───────────┴───────────┴─────────┴─▶ Diagnostics: agent.yaml:LINE:COLUMN: … (hint)
//! ```

pub mod defaults;
mod describe;
pub mod diagnostic;
mod document;
mod hint;
pub mod limits;
mod outline;
mod reader;
mod resolve;
mod schema;
pub mod template;
#[cfg(test)]
mod tests;
pub mod units;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;

use crate::cost::Prices;
use diagnostic::{At, Diagnostic, Diagnostics, Mistakes};
use template::Template;

use crate::record::compression::Algorithm;
use crate::record::split::By;

/// The whole of `agent.yaml`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where checkpoints, dead letters and the control socket live.
    pub state_dir: PathBuf,
    /// How AWS is reached.
    pub aws: Aws,
    /// The producing flows; there is at least one flow of either kind.
    pub produce: Vec<Produce>,
    /// The consuming flows.
    pub consume: Vec<Consume>,
    /// Where Prometheus may scrape; off where `None`.
    pub metrics: Option<SocketAddr>,
    /// What Kinesis charges, for `estimate` (default: us-east-1).
    pub prices: Prices,
    /// How often positions are committed (default 1 s).
    pub checkpoint_interval: Duration,
    /// How long SIGTERM may drain (default 10 s).
    pub drain_deadline: Duration,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// All mistakes in the file, or the one that it cannot be read.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        let name = path.display().to_string();
        let refuse = |mistake| Diagnostics::new(&name, vec![mistake]);
        let bytes = read(path).map_err(|error| refuse(unreadable(&error)))?;
        document::check_length(bytes.len()).map_err(refuse)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| refuse(not_utf8(&bytes, error)))?;
        Self::parse(text, &name)
    }

    /// Reads a configuration that the user knows as `file_name`.
    ///
    /// # Errors
    /// All mistakes in it.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Diagnostics> {
        let root =
            document::parse(text).map_err(|mistake| Diagnostics::new(file_name, vec![mistake]))?;
        let mut mistakes = Mistakes::default();
        let config = resolve::resolve(&root, &mut mistakes);
        let list = mistakes.into_list();
        match config {
            Some(config) if list.is_empty() => Ok(config),
            _ => Err(Diagnostics::new(file_name, list)),
        }
    }
}

/// Reads a file, but not more of it than shows that it is too long.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let most = u64::try_from(document::TEXT_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(error: &io::Error) -> Diagnostic {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "name another with --config, or begin with agent.yaml.example",
        io::ErrorKind::PermissionDenied => "the agent's user must be able to read it",
        _ => "",
    };
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    Diagnostic { at: None, message: format!("cannot be read: {words}"), hint: hint.to_owned() }
}

fn not_utf8(bytes: &[u8], error: std::str::Utf8Error) -> Diagnostic {
    let sound = bytes.get(..error.valid_up_to()).unwrap_or_default();
    let text = String::from_utf8_lossy(sound);
    let line = text.matches('\n').count().saturating_add(1);
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
    Diagnostic {
        at: Some(At { line, column }),
        message: "not UTF-8 text".to_owned(),
        hint: "save the file as UTF-8".to_owned(),
    }
}

/// The `aws` block. What is `None` is left to the SDK's own chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aws {
    /// The region, such as `eu-west-1`.
    pub region: Option<String>,
    /// Another endpoint for Kinesis.
    pub endpoint_url: Option<String>,
    /// A profile of the shared configuration files.
    pub profile: Option<String>,
    /// A role to assume.
    pub assume_role: Option<AssumeRole>,
}

/// A role to assume with the credentials found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumeRole {
    /// The role's ARN.
    pub role_arn: String,
    /// The external id the role's trust policy asks for.
    pub external_id: Option<String>,
    /// The session's name (default `kinetail`).
    pub session_name: String,
}

/// One producing flow: some files into one stream.
#[derive(Clone, Debug)]
pub struct Produce {
    /// Unique; names checkpoints and metrics.
    pub name: Arc<str>,
    /// Globs of absolute paths; `**` crosses directories.
    pub files: Vec<String>,
    /// Globs of paths, or of bare file names where they hold no `/`, to leave out.
    pub exclude: Vec<String>,
    /// The stream's name or ARN.
    pub stream: String,
    /// Where files begin that are there at the very first start.
    pub start_at: StartAt,
    /// How lines become records.
    pub merge: Merge,
    /// How a record's partition key is found.
    pub partition_key: PartitionKey,
    /// Lines that belong together.
    pub multiline: Option<Multiline>,
    /// A line over the record limit.
    pub on_oversize: OnOversize,
    /// Bounds and intervals of reading.
    pub tail: Tail,
    /// Bounds and intervals of sending.
    pub ship: Ship,
}

/// Where files begin that are present at the very first start of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At their first byte (default).
    Beginning,
    /// After their last byte.
    End,
}

/// The `merge` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The wire format.
    pub format: Format,
    /// The most lines in a record; no limit where `None`.
    pub max_lines: Option<u32>,
    /// The most bytes in a record, partition key included (default 25,000: one PUT payload unit
    /// under every reading of "25 KB").
    pub max_bytes: usize,
    /// How long a line may wait for company (default 1 s; 0: not at all).
    pub max_age: Duration,
    /// How the data of a record is compressed (default: not at all).
    pub compression: Option<Compression>,
}

impl Merge {
    /// Returns true where records are aggregates, which not every stream supports.
    #[must_use]
    pub fn aggregates(&self) -> bool {
        self.format == Format::Kpl
    }

    /// Returns true where a record's data may be followed by that of the next: slices of the file,
    /// of as many lines as fit.
    #[must_use]
    pub fn joins(&self) -> bool {
        let verbatim = matches!(&self.format, Format::Lines { delimiter } if delimiter == b"\n");
        // Compressed data is one member or frame: readers that expect one take the first of several.
        verbatim && self.max_lines.is_none() && self.compression.is_none()
    }
}

/// How the data of records is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// One gzip member a record, or a run; the level is 1 to 9 (default 6).
    Gzip(u32),
    /// One zstd frame a record, or a run; the level is 1 to 19 (default 1).
    Zstd(u32),
}

/// How the lines of a record are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines that are JSON, as one JSON array.
    JsonArray,
    /// User records of the Kinesis Producer Library's aggregated format, with tags that say where
    /// they come from.
    Kpl,
    /// Whole lines joined by a delimiter. With `"\n"` the record is an exact slice of the file.
    Lines {
        /// The bytes between two lines.
        delimiter: Vec<u8>,
    },
    /// A line a record, without its newline.
    None,
}

/// How the partition key of a line is found.
#[derive(Clone, Debug)]
pub enum PartitionKey {
    /// The same for every line.
    Constant(Arc<str>),
    /// One for each file, kept across its renames (default).
    File,
    /// The host's name.
    Host,
    /// A string or number in a JSON line, by path; lines without it get the file's key.
    JsonField(Vec<String>),
    /// A fresh one for each record.
    Random,
    /// The first group of a match in the line; lines without one get the file's key.
    Regex(Regex),
}

/// The `multiline` block: a line that matches `start` begins a new group; groups are not torn.
#[derive(Clone, Debug)]
pub struct Multiline {
    /// Matches the first line of a group.
    pub start: Regex,
    /// How long a group may wait for its next line (default 1 s).
    pub max_age: Duration,
    /// The most bytes of a group (default 1 MiB); a longer one is cut there.
    pub max_bytes: usize,
}

/// What becomes of a line over the record limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOversize {
    /// It is left out, and counted.
    Skip,
    /// It is sent in several records, nothing lost (default).
    Split,
    /// Its first part is sent, the rest counted.
    Truncate,
}

/// The `tail` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Bytes read and not yet acknowledged that the flow may hold in memory (default 8 MiB).
    pub buffer: usize,
    /// Files held open at a time (default 512).
    pub open_files: usize,
    /// How often all patterns are looked through, whatever inotify says (default 10 s).
    pub scan_interval: Duration,
    /// How often files are looked at where inotify cannot be had (default 250 ms).
    pub poll_interval: Duration,
    /// How long a renamed file that no pattern finds any more is held open after its last growth
    /// (default 60 s).
    pub hold_rotated: Duration,
    /// How long such a file is held at most while it is not read to its end (default 1 d). What is
    /// left then is given up, and counted as lost.
    pub hold_unread: Duration,
    /// The most bytes of deleted files that are held, which the disk cannot free meanwhile (default
    /// 4 GiB). Beyond it the oldest are given up, and what was not read of them is counted as lost.
    pub hold_deleted_bytes: usize,
}

/// The `ship` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ship {
    /// The most records in a call (default and limit 500).
    pub request_records: usize,
    /// The most bytes in a call, partition keys included (default 1 MB, limit 10 MiB).
    pub request_bytes: usize,
    /// Records of a key that have to wait for each other go as one, up to this size, partition key
    /// included (default 500 KB; 0: never). Only where lines are joined by `"\n"` without `max_lines`.
    pub joined_bytes: usize,
    /// The most calls in flight (default 4).
    pub in_flight: usize,
    /// How long a call may take before it counts as lost (default 30 s).
    pub timeout: Duration,
    /// The longest pause between two tries (default 10 s).
    pub backoff_max: Duration,
}

/// One consuming flow: a stream into files.
#[derive(Clone, Debug)]
pub struct Consume {
    /// Unique among all flows; names checkpoints and metrics.
    pub name: Arc<str>,
    /// The stream's name or ARN.
    pub stream: String,
    /// The root of all files that are written.
    pub directory: PathBuf,
    /// How lines become files.
    pub layout: Layout,
    /// The names of files whose lines say where they come from.
    pub path: Template,
    /// The names of files for all other lines.
    pub other_path: Template,
    /// How the lines of a record are told apart.
    pub split: By,
    /// Where shards begin that were never read.
    pub start_at: ConsumeStart,
    /// Who decides which shards this agent reads.
    pub coordinate: Coordinate,
    /// The enhanced fan-out consumer that records are pushed to; they are asked for where `None`.
    pub fan_out: Option<String>,
    /// When an appended file makes room for the next.
    pub rotate: Rotate,
    /// Bounds of writing.
    pub write: Writing,
    /// Bounds and intervals of reading.
    pub read: Reading,
}

/// How lines become files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Files that grow, each line once (default).
    Append,
    /// The source files again, byte for byte.
    Mirror,
}

/// Where shards begin that were never read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumeStart {
    /// At the oldest record there is (default).
    TrimHorizon,
    /// At what arrives from the very first start on.
    Latest,
    /// At what arrived at this time or later, in milliseconds since 1970.
    Time(u64),
}

/// Who decides which shards of a stream an agent reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coordinate {
    /// This agent reads every shard (default).
    Local,
    /// Leases in a table that many agents share.
    DynamoDb(LeaseTable),
}

/// A table of leases in `DynamoDB`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTable {
    /// Its name.
    pub name: String,
    /// Whether it is created where it is not there (default: no).
    pub create: bool,
    /// After this time without a sign of life the shards of an agent are taken by others (default 10 s).
    pub failover: Duration,
    /// Another endpoint for `DynamoDB`.
    pub endpoint_url: Option<String>,
}

/// The `rotate` block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotate {
    /// The size from which on a file is rotated; never by size where `None`.
    pub max_bytes: Option<u64>,
    /// The age from which on a file is rotated, counted from its first line; never where `None`.
    pub max_age: Option<Duration>,
    /// How a rotated file is compressed.
    pub compression: Option<Algorithm>,
}

impl Rotate {
    /// Returns true where files are never rotated.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.max_bytes.is_none() && self.max_age.is_none()
    }
}

/// The `write` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writing {
    /// Files held open at a time (default 256).
    pub open_files: usize,
    /// Files that are ever made (default 100,000); lines for others go to `other_path`.
    pub max_files: usize,
}

/// The `read` block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How often a shard is asked where nothing more is in it (default 1 s).
    pub poll_interval: Duration,
    /// Bytes of records read and not yet committed (default 32 MiB).
    pub buffer: usize,
    /// How long a call may take (default 30 s).
    pub timeout: Duration,
    /// The longest pause between two tries (default 10 s).
    pub backoff_max: Duration,
}

impl Consume {
    /// Returns the stream's name, where it is given by its ARN too.
    #[must_use]
    pub fn stream_name(&self) -> &str {
        self.stream.rsplit_once('/').map_or(&*self.stream, |(_, name)| name)
    }
}
