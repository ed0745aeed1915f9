//! The control socket: what `kinetail status` and its like ask a running agent.
//!
//! Invariant: it only ever reads, and it never makes the pipelines wait.

pub mod status;
