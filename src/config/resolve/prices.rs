//! What Kinesis charges where the streams are: the `prices` block.
//!
//! Invariant: figures that come of prices other than the table's own never go under its name.

use crate::config::diagnostic::Mistakes;
use crate::config::reader::{Block, Slot};
use crate::config::schema;
use crate::cost::Prices;

/// Where and when prices hold of which the configuration does not say so.
const UNNAMED: &str = "as configured";

/// Reads the `prices` block; a price that is not given is that of the table.
pub(super) fn prices(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<Prices> {
    let block = Block::open(slot, &schema::PRICES, mistakes)?;
    let mut prices = Prices::default();
    for name in Prices::NAMES {
        let Some(slot) = block.slot(name) else { continue };
        let Some(dollars) = slot.dollars(mistakes) else { continue };
        if let Some(price) = prices.named(name).filter(|price| price.to_bits() != dollars.to_bits())
        {
            *price = dollars;
            UNNAMED.clone_into(&mut prices.as_of);
        }
    }
    if let Some(text) = block.slot("as_of").and_then(|slot| slot.text(mistakes)) {
        text.clone_into(&mut prices.as_of);
    }
    Some(prices)
}
