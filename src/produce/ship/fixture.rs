//! Records and outcomes for the tests of shipping.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::smallvec;

use crate::config;
use crate::position::{FileKey, Mark, Run, Span};
use crate::record::Record;
use crate::stream::EntryOutcome;

/// Returns a record of an ordered key that holds `data` as one line.
pub(super) fn record(key: &str, data: &str) -> Record {
    let span = Span { file: FileKey(1), start: 0, end: data.len() as u64 };
    Record {
        partition_key: Arc::from(key),
        ordered: true,
        data: Bytes::copy_from_slice(data.as_bytes()),
        runs: smallvec![Run { span, mark: Mark::default(), lines: 1 }],
    }
}

/// Returns a record of a random key.
pub(super) fn unordered(key: &str, data: &str) -> Record {
    Record { ordered: false, ..record(key, data) }
}

/// Returns limits small enough to be met.
pub(super) fn limits() -> config::Ship {
    config::Ship {
        request_records: 500,
        request_bytes: 1_000_000,
        joined_bytes: 0,
        in_flight: 4,
        timeout: Duration::from_secs(30),
        backoff_max: Duration::from_secs(10),
    }
}

/// Returns the outcome of an accepted entry.
pub(super) fn accepted(shard: &str) -> EntryOutcome {
    EntryOutcome::Accepted { shard: Arc::from(shard) }
}

/// Returns the outcome of a throttled entry.
pub(super) fn throttled(shard: Option<&str>) -> EntryOutcome {
    EntryOutcome::Throttled { shard: shard.map(Arc::from) }
}

/// Returns the outcome of an entry that failed.
pub(super) fn failed() -> EntryOutcome {
    EntryOutcome::Failed { message: "Internal Service Failure".to_owned() }
}
