//! Shipping: records into PutRecords calls, and again what was refused.
//!
//! Invariant: every record pushed ends in exactly one [`Receipt`]; of an ordered partition key at most
//! one record is in flight, and the next goes out only after its receipt.

use crate::record::Record;

/// The end of one record's journey.
#[derive(Clone, Debug)]
pub enum Receipt {
    /// The stream accepted it.
    Accepted(Record),
    /// No retry can save it: the record, and the service's words.
    Poisoned(Record, String),
}
