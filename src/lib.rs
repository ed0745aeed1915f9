//! kinetail: a sidecar agent for Amazon Kinesis Data Streams.
//!
//! ```text
//!  produce   config ─▶ watch ─▶ tail ─▶ ▒ channel ▒ ─▶ merge ─▶ ship ─▶ acknowledge ─▶ checkpoint
//!                      Change    Chunk    (bounded)     Record    Receipt   Run            Position
//! ```

pub mod agent;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod control;
pub mod cost;
#[cfg(feature = "demo")]
pub mod local;
pub mod metrics;
pub mod position;
pub mod produce;
pub mod record;
pub mod shutdown;
pub mod stream;
pub mod telemetry;
