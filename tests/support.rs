//! What the integration tests stand on: an endpoint that fails on purpose, an oracle that knows
//! what must arrive, writers and a generator of logs, and the agent's process.
//!
//! ```text
//!  oracle ──▶ writer ──▶ files ──▶ agent (the real binary) ──▶ endpoint ──▶ log
//!    │      generator ──▶   │                                                │
//!    └──────────── verify ◀─┴──────────────── reassembler ◀──────────────────┘
//! ```
//!
//! A whole test, where `TEMPLATE` is an `agent.yaml` that says `{state}`, `{logs}` and
//! `{endpoint}`:
//!
//! ```text
//!  let script = Script::seeded(7).entry(EntryFault::InternalFailure, 0.05);
//!  let endpoint = FaultEndpoint::start(script);
//!  let (home, oracle) = (Home::new(&endpoint.url(), TEMPLATE), Oracle::new(7, Shape::Wild));
//!  let log = home.logs().join("a.log");
//!  drop(LogWriter::start(&log, oracle.minter(), Pace::burst(5_000)).finish());
//!  let agent = home.start();
//!  let report =
//!      oracle.wait_for_all(&endpoint, &Layout::Slices, Order::WithinFile, DEADLINE);
//!  report.assert_exactly_once();
//! ```
//!
//! Invariant: nothing here knows the agent's code; it sees files, sockets, signals and exit codes.

pub mod agent;
pub mod dynamodb;
pub mod endpoint;
pub mod generator;
pub mod oracle;
pub mod reassembler;
pub mod recorder;
pub mod writer;
