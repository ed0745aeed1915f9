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

#[allow(dead_code, unused_imports, reason = "a module of tests uses what it needs of it")]
mod support;

#[path = "it/support_selftest.rs"]
mod support_selftest;
