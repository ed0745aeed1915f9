//! A load: records over a time, and what a month of that costs in each way that streams are billed.
//!
//! Invariant: every charge that taking the records and reading them once brings about is in a
//! total; what further consumers, longer retention and enhanced fan-out cost is not.

use std::time::Duration;

use super::{Prices, Usage, approximate, gigabytes};

/// Records a second that a shard takes.
const SHARD_RECORDS: f64 = 1_000.0;

/// Bytes a second that a shard takes, in the reading that needs more shards (the other: 1 MiB).
const SHARD_BYTES: f64 = 1_000_000.0;

/// Shards for each that the average load needs: logs have busy hours.
const HEADROOM: f64 = 1.25;

/// The hours that a month has here: 30 days.
const MONTH_HOURS: f64 = 720.0;

/// Bytes a second, in each direction, that on-demand Advantage bills an account in a Region at
/// least: 25 MiB.
const ADVANTAGE_BYTES: u64 = 25 << 20;

/// Records that came in a time.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// What they amount to.
    pub usage: &'a Usage,
    /// The time; no time at all counts as a nanosecond.
    pub time: Duration,
}

/// What a month costs, by how the stream is billed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Month {
    /// A provisioned stream.
    pub provisioned: Provisioned,
    /// A stream on demand.
    pub on_demand: OnDemand,
    /// A stream on demand in an account with Advantage.
    pub advantage: Advantage,
}

/// Dollars for a month of a provisioned stream; reading from it costs nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Provisioned {
    /// For PUT payload units.
    pub put: f64,
    /// For shard hours.
    pub shards: f64,
}

/// Dollars for a month of an on-demand standard stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnDemand {
    /// For what is written.
    pub ingest: f64,
    /// For what one consumer reads.
    pub retrieval: f64,
    /// For stream hours.
    pub stream: f64,
}

/// Dollars for a month of a stream in an account with on-demand Advantage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Advantage {
    /// For what is written, each record rounded up to 1,024 bytes as in on-demand standard: the
    /// price list does not say that it is not.
    pub ingest: f64,
    /// The same, should records not be rounded up.
    pub ingest_exact: f64,
    /// For what one consumer reads.
    pub retrieval: f64,
}

impl Provisioned {
    /// Returns the sum.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.put + self.shards
    }
}

impl OnDemand {
    /// Returns the sum.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.ingest + self.retrieval + self.stream
    }
}

impl Advantage {
    /// Returns the sum.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.ingest + self.retrieval
    }

    /// Returns what an account with Advantage pays in a Region at least, whatever its streams take.
    #[must_use]
    pub fn floor(prices: &Prices) -> f64 {
        let month = gigabytes(ADVANTAGE_BYTES) * MONTH_HOURS * 3_600.0;
        month * (prices.advantage_ingest + prices.advantage_retrieval)
    }
}

impl Load<'_> {
    /// Returns the seconds that one shard at its limits needs to take the records.
    #[must_use]
    pub fn shard_seconds(&self) -> f64 {
        let records = approximate(self.usage.records) / SHARD_RECORDS;
        records.max(approximate(self.usage.bytes) / SHARD_BYTES)
    }

    /// Returns the shards that a provisioned stream needs: for the average load and a quarter more,
    /// at least one.
    #[must_use]
    pub fn shards(&self) -> u64 {
        let shards = self.shard_seconds() / self.seconds() * HEADROOM;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 1")]
        let whole = shards.ceil().max(1.0) as u64;
        whole
    }

    /// Returns what a month of this costs.
    #[must_use]
    pub fn month(&self, prices: &Prices) -> Month {
        let Usage { bytes, on_demand_bytes, .. } = *self.usage;
        let times = MONTH_HOURS * 3_600.0 / self.seconds();
        let (sent, billed) = (gigabytes(bytes) * times, gigabytes(on_demand_bytes) * times);
        Month {
            provisioned: Provisioned {
                put: self.usage.provisioned_dollars(prices) * times,
                shards: approximate(self.shards()) * MONTH_HOURS * prices.shard_hour,
            },
            on_demand: OnDemand {
                ingest: self.usage.on_demand_dollars(prices) * times,
                retrieval: sent * prices.on_demand_retrieval,
                stream: MONTH_HOURS * prices.stream_hour,
            },
            advantage: Advantage {
                ingest: billed * prices.advantage_ingest,
                ingest_exact: sent * prices.advantage_ingest,
                retrieval: sent * prices.advantage_retrieval,
            },
        }
    }

    fn seconds(&self) -> f64 {
        self.time.as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    /// A billion lines of 200 bytes a day, under a key of 36 bytes, in records of `lines` lines
    /// that have `size` bytes each.
    fn day(lines: u64, size: u64) -> Usage {
        let mut usage = Usage::default();
        usage.add(1_000_000_000_u64.div_ceil(lines), size);
        usage
    }

    fn shown(usage: &Usage) -> String {
        let load = Load { usage, time: DAY };
        let month = load.month(&Prices::default());
        format!(
            "{} shards; {:.2} + {:.2}; {:.0}, {:.0}; {:.0} / {:.0} + {:.0}",
            load.shards(),
            month.provisioned.put,
            month.provisioned.shards,
            month.on_demand.ingest,
            month.on_demand.retrieval,
            month.advantage.ingest_exact,
            month.advantage.ingest,
            month.advantage.retrieval,
        )
    }

    #[test]
    fn a_billion_lines_a_day_cost_what_the_price_list_says() {
        let unmerged = shown(&day(1, 236));
        assert_eq!(unmerged, "15 shards; 420.00 + 162.00; 2289, 264; 211 / 916 + 106");
        let ten = shown(&day(10, 2_063));
        assert_eq!(ten, "3 shards; 42.00 + 32.40; 687, 231; 184 / 275 + 92");
        let kpl = shown(&day(119, 24_846));
        assert_eq!(kpl, "4 shards; 3.53 + 43.20; 481, 233; 187 / 192 + 93");
    }

    #[test]
    fn a_load_is_bound_by_records_or_by_bytes() {
        let mut usage = Usage::default();
        usage.add(30_000, 236);
        let load = Load { usage: &usage, time: Duration::from_secs(30) };
        assert!((load.shard_seconds() - 30.0).abs() < 1e-9);
        assert_eq!(load.shards(), 2, "the average load fits in one, and busy hours do not");
        let mut usage = Usage::default();
        usage.add(49, 24_649);
        let seconds = Load { usage: &usage, time: DAY }.shard_seconds();
        assert_eq!(format!("{seconds:.1}"), "1.2");
    }

    #[test]
    fn nothing_in_no_time_costs_no_more_than_a_shard_and_a_stream() {
        let usage = Usage::default();
        let month = Load { usage: &usage, time: Duration::ZERO }.month(&Prices::default());
        let totals = [month.provisioned.total(), month.on_demand.total(), month.advantage.total()];
        assert_eq!(totals.map(|dollars| format!("{dollars:.2}")), ["10.80", "28.80", "0.00"]);
        assert_eq!(format!("{:.1}", Advantage::floor(&Prices::default())), "3037.5");
    }
}
