//! The producer's suite against ferrokinesis, the endpoint of `kinetail demo` and `kinetail local`.
//!
//! It keeps the order of a shard and everything else the suite asks for; its GetRecords gives no more
//! than asked for, whatever the size, and its DescribeStreamSummary tells no record limit.

use std::net::Ipv4Addr;
use std::thread;

use kinetail::local::Endpoint;

use crate::producer_suite::{self, Target};

/// Starts an endpoint, which answers for as long as the tests run.
fn start() -> Target {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = runtime.block_on(Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into())).unwrap();
    let target = Target { url: endpoint.url(), settings: "" };
    thread::spawn(move || runtime.block_on(endpoint.serve()));
    target
}

#[test]
fn ferrokinesis_passes_the_producer_suite() {
    let target = start();
    for case in producer_suite::cases() {
        drop(producer_suite::run(&target, &case));
    }
}
