//! The tally: what was accepted, and how long lines were on their way.
//!
//! Invariant: times are of one clock, that of the machine: writer and endpoint share it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::scan::Scan;

/// What was accepted since the last report.
#[derive(Debug, Default)]
pub(super) struct Tally {
    calls: u64,
    records: u64,
    bytes: u64,
    units: u64,
    /// When the first and the last call had arrived: nanoseconds since 1970.
    first: Option<u64>,
    last: u64,
    /// How long each line was on its way, in nanoseconds.
    latencies: Vec<u64>,
}

/// Returns the nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Tally {
    /// Adds a call that had arrived whole at `accepted`.
    pub(super) fn add(&mut self, scan: &Scan, accepted: u64) {
        self.calls += 1;
        self.records += scan.records();
        self.bytes += scan.bytes();
        self.units += scan.units();
        self.first.get_or_insert(accepted);
        self.last = accepted;
        for data in scan.data() {
            let Ok(lines) = base64_simd::STANDARD.decode_to_vec(data) else { continue };
            let written = lines.split(|&byte| byte == b'\n').filter_map(written);
            self.latencies.extend(written.map(|written| accepted.saturating_sub(written)));
        }
    }

    /// Returns all that as one line of JSON; latencies in microseconds.
    pub(super) fn report(mut self) -> String {
        self.latencies.sort_unstable();
        let at = |per_mille: usize| {
            let index = self.latencies.len().saturating_sub(1) * per_mille / 1_000;
            self.latencies.get(index).map_or(0, |nanoseconds| nanoseconds / 1_000)
        };
        let latencies = serde_json::json!({
            "lines": self.latencies.len(),
            "p50": at(500), "p90": at(900), "p99": at(990), "p999": at(999), "max": at(1_000),
        });
        serde_json::json!({
            "calls": self.calls, "records": self.records, "bytes": self.bytes, "units": self.units,
            "first_ns": self.first, "last_ns": self.last, "latency_us": latencies,
        })
        .to_string()
    }
}

/// Returns when a line was written, which it begins with.
fn written(line: &[u8]) -> Option<u64> {
    let number = line.split(|&byte| byte == b' ').next()?;
    str::from_utf8(number).ok()?.parse().ok()
}
