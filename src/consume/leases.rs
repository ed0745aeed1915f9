//! Leases: many agents share the shards of a stream, through a table in DynamoDB.
//!
//! Invariant: what to do with a lease is decided by a [`Worker`], which is pure.

pub mod kcl;
pub mod lease;
pub mod worker;
