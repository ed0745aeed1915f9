//! A stream into files: the tasks and channels between the stages below, and the only wiring.

pub mod coordinate;
pub mod records;
pub mod shards;
pub mod source;
