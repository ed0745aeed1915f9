//! Cost: what Kinesis bills for records, in payload units, rounded bytes and dollars.
//!
//! Invariant: a figure is never below what the service can bill: where its documentation leaves a
//! unit open, the reading that costs more is taken.
//!
//! ```text
//! provisioned   every record is billed by PUT payload units:  ⌈size / 25 KB⌉, at least 1
//! on demand     every record is billed by bytes, rounded up:  ⌈size / 1 KiB⌉ × 1 KiB
//! ```
//!
//! The pricing page never says whether its "25 KB" are 25,000 or 25,600 bytes, nor whether the
//! partition key counts. Here a unit is 25,000 bytes and the key counts: a record within that is
//! one unit under every reading, and the most that can be lost by it is 2.3 %.

mod load;
mod prices;

pub use load::{Advantage, Load, Month, OnDemand, Provisioned};
pub use prices::Prices;

/// The most records in a `PutRecords` call.
pub const CALL_RECORDS: u64 = 500;

/// The most bytes in a `PutRecords` call, partition keys included.
pub const CALL_BYTES: u64 = 10 << 20;

/// Bytes of one PUT payload unit, in the reading under which records cost most (the other: 25,600).
pub const PAYLOAD_UNIT_BYTES: u64 = 25_000;

/// On demand a record is rounded up to this many bytes (the pricing page: "1 KB (1,024 bytes)").
pub const ON_DEMAND_STEP_BYTES: u64 = 1_024;

/// Returns the PUT payload units of one record of `size` bytes, partition key included.
#[must_use]
pub fn payload_units(size: u64) -> u64 {
    size.div_ceil(PAYLOAD_UNIT_BYTES).max(1)
}

/// Returns the bytes billed on demand for one record of `size` bytes, partition key included.
#[must_use]
pub fn on_demand_bytes(size: u64) -> u64 {
    size.div_ceil(ON_DEMAND_STEP_BYTES).max(1).saturating_mul(ON_DEMAND_STEP_BYTES)
}

/// Returns `number` for a quotient or a price; above 2^53 the last digits are rounded.
#[expect(clippy::cast_precision_loss, reason = "figures for people; exact below 2^53")]
#[must_use]
pub fn approximate(number: u64) -> f64 {
    number as f64
}

/// Returns bytes as the GB that ingest and retrieval are priced by: of 2^30 bytes.
fn gigabytes(bytes: u64) -> f64 {
    approximate(bytes) / 1_073_741_824.0
}

/// What some records amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records.
    pub records: u64,
    /// Bytes, partition keys included.
    pub bytes: u64,
    /// PUT payload units.
    pub payload_units: u64,
    /// Bytes billed on demand.
    pub on_demand_bytes: u64,
}

impl Usage {
    /// Adds `count` records of `size` bytes each, partition key included.
    pub fn add(&mut self, count: u64, size: u64) {
        let add = |sum: &mut u64, each: u64| *sum = sum.saturating_add(each.saturating_mul(count));
        add(&mut self.records, 1);
        add(&mut self.bytes, size);
        add(&mut self.payload_units, payload_units(size));
        add(&mut self.on_demand_bytes, on_demand_bytes(size));
    }

    /// Returns what a provisioned stream charges for taking the records (shard hours excluded).
    #[must_use]
    pub fn provisioned_dollars(&self, prices: &Prices) -> f64 {
        prices.of_payload_units(self.payload_units)
    }

    /// Returns what an on-demand standard stream charges for taking the records (stream hours
    /// excluded).
    #[must_use]
    pub fn on_demand_dollars(&self, prices: &Prices) -> f64 {
        prices.of_on_demand_bytes(self.on_demand_bytes)
    }

    /// Returns the fewest `PutRecords` calls that can carry the records.
    #[must_use]
    pub fn fewest_calls(&self) -> u64 {
        self.records.div_ceil(CALL_RECORDS).max(self.bytes.div_ceil(CALL_BYTES))
    }
}

/// What merging saves, as factors: 119 means that merged costs 1/119 of unmerged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saving {
    /// On the PUT charge of a provisioned stream.
    pub provisioned: f64,
    /// On the ingest charge of an on-demand stream.
    pub on_demand: f64,
}

/// Returns what `merged` saves against `unmerged`; 1 where nothing was sent.
#[must_use]
pub fn saving(unmerged: &Usage, merged: &Usage) -> Saving {
    let factor = |before: u64, after: u64| {
        if after == 0 { 1.0 } else { approximate(before) / approximate(after) }
    };
    Saving {
        provisioned: factor(unmerged.payload_units, merged.payload_units),
        on_demand: factor(unmerged.on_demand_bytes, merged.on_demand_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the partition key in the worked table: a UUID.
    const KEY: u64 = 36;

    fn usage(records: &[(u64, u64)]) -> Usage {
        let mut usage = Usage::default();
        for &(count, size) in records {
            usage.add(count, size);
        }
        usage
    }

    fn dollars(amount: f64) -> String {
        format!("{amount:.7}")
    }

    #[test]
    fn a_record_costs_a_unit_for_every_25_000_bytes_begun() {
        let units: Vec<u64> =
            [0, 1, 24_999, 25_000, 25_001, 45_000, 1_000_000].map(payload_units).to_vec();
        assert_eq!(units, [1, 1, 1, 1, 2, 2, 40]);
    }

    #[test]
    fn on_demand_rounds_every_record_up_to_a_kib() {
        assert_eq!([0, 1, 1_024, 1_025].map(on_demand_bytes), [1_024, 1_024, 1_024, 2_048]);
    }

    #[test]
    fn thirty_thousand_lines_unmerged_cost_thirty_thousand_units() {
        let unmerged = usage(&[(30_000, 200 + KEY)]);
        assert_eq!((unmerged.bytes, unmerged.payload_units), (7_080_000, 30_000));
        assert_eq!(dollars(unmerged.provisioned_dollars(&Prices::default())), "0.0004200");
        assert_eq!(dollars(unmerged.on_demand_dollars(&Prices::default())), "0.0022888");
    }

    #[test]
    fn ten_lines_a_record_cost_a_tenth() {
        let unmerged = usage(&[(30_000, 200 + KEY)]);
        let merged = usage(&[(3_000, 2_027 + KEY)]);
        assert_eq!((merged.bytes, merged.payload_units), (6_189_000, 3_000));
        assert_eq!(dollars(merged.provisioned_dollars(&Prices::default())), "0.0000420");
        assert_eq!(dollars(merged.on_demand_dollars(&Prices::default())), "0.0006866");
        let saving = saving(&unmerged, &merged);
        assert_eq!(format!("{:.1} {:.1}", saving.provisioned, saving.on_demand), "10.0 3.3");
    }

    #[test]
    fn full_units_cost_a_hundred_and_nineteenth() {
        let unmerged = usage(&[(30_000, 200 + KEY)]);
        let merged = usage(&[(252, 24_846), (1, 2_590)]);
        assert_eq!((merged.bytes, merged.records), (6_263_782, 253));
        assert_eq!(dollars(merged.provisioned_dollars(&Prices::default())), "0.0000035");
        assert_eq!(dollars(merged.on_demand_dollars(&Prices::default())), "0.0004809");
        let saving = saving(&unmerged, &merged);
        assert_eq!(format!("{:.0} {:.1}", saving.provisioned, saving.on_demand), "119 4.8");
    }

    #[test]
    fn nothing_sent_saves_nothing() {
        let nothing = Usage::default();
        assert_eq!(saving(&nothing, &nothing), Saving { provisioned: 1.0, on_demand: 1.0 });
    }
}
