//! What Kinesis Data Streams charges: a table that every user can override.
//!
//! Invariant: a price is a finite number of dollars, 0 or more; [`Prices::NAMES`] names every one.
//!
//! Source: the AWS Price List and <https://aws.amazon.com/kinesis/data-streams/pricing/>.

use super::{approximate, gigabytes};

/// Prices in dollars, without taxes and without what a contract takes off.
#[derive(Clone, Debug, PartialEq)]
pub struct Prices {
    /// Where and when they hold; shown beside what is computed from them.
    pub as_of: String,
    /// Provisioned: a million PUT payload units.
    pub payload_units: f64,
    /// Provisioned: a shard for an hour.
    pub shard_hour: f64,
    /// On-demand standard: a stream for an hour.
    pub stream_hour: f64,
    /// On-demand standard: a GB (2^30 bytes) written, each record rounded up to 1,024 bytes.
    pub on_demand_ingest: f64,
    /// On-demand standard: a GB read.
    pub on_demand_retrieval: f64,
    /// On-demand Advantage: a GB written.
    pub advantage_ingest: f64,
    /// On-demand Advantage: a GB read.
    pub advantage_retrieval: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            as_of: "us-east-1, November 2026".to_owned(),
            payload_units: 0.014,
            shard_hour: 0.015,
            stream_hour: 0.04,
            on_demand_ingest: 0.08,
            on_demand_retrieval: 0.04,
            advantage_ingest: 0.032,
            advantage_retrieval: 0.016,
        }
    }
}

impl Prices {
    /// The names of all prices, as they stand in configurations.
    pub const NAMES: [&'static str; 7] = [
        "payload_units",
        "shard_hour",
        "stream_hour",
        "on_demand_ingest",
        "on_demand_retrieval",
        "advantage_ingest",
        "advantage_retrieval",
    ];

    /// Returns the price of a name, to be read or changed; `None` where no price is called so.
    pub fn named(&mut self, name: &str) -> Option<&mut f64> {
        Some(match name {
            "payload_units" => &mut self.payload_units,
            "shard_hour" => &mut self.shard_hour,
            "stream_hour" => &mut self.stream_hour,
            "on_demand_ingest" => &mut self.on_demand_ingest,
            "on_demand_retrieval" => &mut self.on_demand_retrieval,
            "advantage_ingest" => &mut self.advantage_ingest,
            "advantage_retrieval" => &mut self.advantage_retrieval,
            _ => return None,
        })
    }

    /// Returns what a provisioned stream charges for PUT payload units.
    #[must_use]
    pub fn of_payload_units(&self, units: u64) -> f64 {
        approximate(units) / 1e6 * self.payload_units
    }

    /// Returns what an on-demand standard stream charges for bytes written, each record rounded up.
    #[must_use]
    pub fn of_on_demand_bytes(&self, bytes: u64) -> f64 {
        gigabytes(bytes) * self.on_demand_ingest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_one_price() {
        let mut prices = Prices::default();
        for (number, name) in (1_u32..).zip(Prices::NAMES) {
            *prices.named(name).unwrap() = f64::from(number);
        }
        let sum: f64 = Prices::NAMES.iter().map(|name| *prices.named(name).unwrap()).sum();
        assert!((sum - 28.0).abs() < 1e-9, "{prices:?}");
        assert_eq!(prices.named("put"), None);
    }
}
