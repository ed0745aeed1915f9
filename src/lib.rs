//! kinetail: a sidecar agent for Amazon Kinesis Data Streams.
//!
//! ```text
//!  produce   config ─▶ watch ─▶ tail ─▶ ▒ channel ▒ ─▶ merge ─▶ ship ─▶ acknowledge ─▶ checkpoint
//!                      Change    Chunk    (bounded)     Record    Receipt   Run            Position
//! ```
//!
//! Decisions are plain state machines fed with inputs and the time; thin shells around them own threads,
//! sockets, files and clocks. Imports run one way, and siblings among the stages name only the
//! output of the stage before:
//!
//! ```text
//!  main ─▶ cli ─▶ agent ─▶ produce ─▶ record, checkpoint, stream ─▶ config, position, status, …
//! ```

pub mod agent;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod consume;
pub mod control;
pub mod cost;
#[cfg(test)]
#[path = "../tests/it/effort.rs"]
mod effort;
pub mod estimate;
#[cfg(feature = "demo")]
pub mod local;
pub mod metrics;
pub mod position;
pub mod produce;
pub mod record;
pub mod shutdown;
pub mod status;
pub mod stream;
pub mod telemetry;
