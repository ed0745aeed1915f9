//! Tests of the support: a check that cannot fail proves nothing, so each of its checks is shown a
//! failure, and each of its faults is seen from the client's side.

#[path = "support_selftest/endpoint.rs"]
mod endpoint;
#[path = "support_selftest/faults.rs"]
mod faults;
#[path = "support_selftest/files.rs"]
mod files;
#[path = "support_selftest/oracle.rs"]
mod oracle;
#[path = "support_selftest/process.rs"]
mod process;
#[path = "support_selftest/raw.rs"]
mod raw;
