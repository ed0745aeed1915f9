//! kinetail: a sidecar agent for Amazon Kinesis Data Streams.
//!
//! ```text
//!  produce   config ─▶ watch ─▶ tail ─▶ ▒ channel ▒ ─▶ merge ─▶ ship ─▶ acknowledge ─▶ checkpoint
//!                      Change    Chunk    (bounded)     Record    Receipt   Run            Position
//! ```

pub mod checkpoint;
pub mod config;
pub mod control;
pub mod position;
pub mod produce;
pub mod record;
pub mod stream;
