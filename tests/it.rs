//! The integration tests: one binary, a module a concern, all on `support`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test ends by a panic that says where; `support` is written as a library"
)]

#[allow(dead_code, reason = "only with the embedded endpoint")]
mod producer_suite;
#[cfg(feature = "demo")]
mod resharding;
#[cfg(feature = "demo")]
mod sharing;
#[allow(dead_code, unused_imports, reason = "a module of tests uses what it needs of it")]
mod support;

#[path = "it/support_selftest.rs"]
mod support_selftest;

#[path = "it/scene.rs"]
mod scene;

#[path = "it/commands.rs"]
mod commands;
#[path = "it/compression.rs"]
mod compression;
#[cfg(feature = "demo")]
#[path = "it/consume.rs"]
mod consume;
#[path = "it/crash.rs"]
mod crash;
#[path = "it/effort.rs"]
mod effort;
#[path = "it/estimate.rs"]
mod estimate;
#[path = "it/faults.rs"]
mod faults;
#[cfg(feature = "demo")]
#[path = "it/ferrokinesis.rs"]
mod ferrokinesis;
#[path = "it/field.rs"]
mod field;
#[path = "it/formats.rs"]
mod formats;
#[path = "it/healing.rs"]
mod healing;
#[cfg(feature = "demo")]
#[path = "it/leases.rs"]
mod leases;
#[path = "it/life.rs"]
mod life;
#[path = "it/permissions.rs"]
mod permissions;
#[path = "it/poison.rs"]
mod poison;
#[path = "it/rotation.rs"]
mod rotation;
#[path = "it/schedules.rs"]
mod schedules;
#[path = "it/state.rs"]
mod state;
