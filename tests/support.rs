//! What the integration tests stand on: an endpoint that fails on purpose, an oracle that knows what
//! must arrive, writers and a generator of logs, and the agent's process.
//!
//! ```text
//!  oracle ──▶ writer ──▶ files ──▶ agent (the real binary) ──▶ endpoint ──▶ log
//!    │      generator ──▶   │                                                │
//!    └──────────── verify ◀─┴──────────────── reassembler ◀──────────────────┘
//! ```
//!
//! Invariant: nothing here knows the agent's code; it sees files, sockets, signals and exit codes.

pub mod agent;
pub mod endpoint;
pub mod generator;
pub mod oracle;
pub mod reassembler;
pub mod writer;
