//! Prices on the command line.
//!
//! Invariant: figures that come of prices other than the table's own never go under its name.

use clap::Args;

use crate::cost::Prices;

/// Where and when prices hold that were given one by one.
const GIVEN: &str = "as given";

#[derive(Debug, Args)]
pub(super) struct PriceArguments {
    /// A price, such as `payload_units=0.0165`; may be given for each
    #[arg(long, value_name = "NAME=DOLLARS", value_parser = price)]
    price: Vec<(String, f64)>,
}

impl PriceArguments {
    /// Returns `prices` with those changed that are given.
    pub(super) fn of(&self, mut prices: Prices) -> Prices {
        for (name, dollars) in &self.price {
            if let Some(price) = prices.named(name) {
                *price = *dollars;
                GIVEN.clone_into(&mut prices.as_of);
            }
        }
        prices
    }
}

fn price(text: &str) -> Result<(String, f64), String> {
    let known = || format!("write NAME=DOLLARS; the names are {}", Prices::NAMES.join(", "));
    let (name, dollars) = text.split_once('=').ok_or_else(known)?;
    if !Prices::NAMES.contains(&name) {
        return Err(known());
    }
    let dollars = dollars.parse::<f64>().map_err(|_| known())?;
    if dollars.is_finite() && dollars >= 0.0 {
        Ok((name.to_owned(), dollars))
    } else {
        Err("a price is 0 or more".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_has_a_known_name() {
        assert_eq!(price("shard_hour=0.018"), Ok(("shard_hour".to_owned(), 0.018)));
        assert!(price("shards=1").unwrap_err().contains("payload_units"));
        for wrong in ["shard_hour", "shard_hour=", "shard_hour=-1", "shard_hour=inf"] {
            assert!(price(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn prices_that_are_given_go_under_another_name() {
        let given = PriceArguments { price: vec![("shard_hour".to_owned(), 1.0)] };
        let prices = given.of(Prices::default());
        assert_eq!((prices.shard_hour, &*prices.as_of), (1.0, "as given"));
        let none = PriceArguments { price: Vec::new() };
        assert_eq!(none.of(Prices::default()), Prices::default());
    }
}
