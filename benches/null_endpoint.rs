//! The null endpoint: takes every PutRecords call, keeps nothing, and uses as little CPU as it can.
//!
//! ```text
//! null-endpoint [--tls CERT KEY] [--delay-ms N] [--latency]
//! ```
//!
//! Its first line of output is its URL, on a port of its own of the loopback interface. Then it
//! answers each line of its input with one line of JSON: what it has accepted since the last such
//! line. It ends with its input.
//!
//! With `--latency` every line is expected to begin with the nanoseconds since 1970 at which it was
//! written, and a space; the report then holds percentiles of the time until the call that carried
//! it had arrived whole. `--delay-ms` holds every answer back, as a distant endpoint would.
//!
//! Invariant: what is reported as accepted was answered as accepted. It is no measure of
//! correctness: bytes are counted, not looked at.

#![allow(clippy::print_stdout, reason = "a program of the benchmarks")]

#[path = "null_endpoint/http.rs"]
mod http;
#[path = "null_endpoint/scan.rs"]
mod scan;
#[path = "null_endpoint/tally.rs"]
mod tally;

use std::io::{self, BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use self::tally::Tally;

/// How the endpoint behaves; the same for all connections.
struct Manner {
    delay: Duration,
    latency: bool,
    tls: Option<Arc<rustls::ServerConfig>>,
    tally: Mutex<Tally>,
}

fn main() -> anyhow::Result<()> {
    let manner = Arc::new(parse()?);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let scheme = if manner.tls.is_some() { "https" } else { "http" };
    println!("{scheme}://{}", listener.local_addr()?);
    let accepting = Arc::clone(&manner);
    std::thread::spawn(move || accept(&listener, &accepting));
    for order in io::stdin().lock().lines() {
        order?;
        let tally = std::mem::take(&mut *lock(&manner.tally));
        println!("{}", tally.report());
        io::stdout().flush()?;
    }
    Ok(())
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves each connection on a thread of its own: as many as the client has calls in flight.
fn accept(listener: &TcpListener, manner: &Arc<Manner>) {
    for connection in listener.incoming().flatten() {
        let manner = Arc::clone(manner);
        // A connection that breaks is the client's affair: it ends, and its thread.
        std::thread::spawn(move || serve(connection, &manner));
    }
}

fn serve(connection: TcpStream, manner: &Manner) -> anyhow::Result<()> {
    connection.set_nodelay(true)?;
    match &manner.tls {
        None => http::serve(connection, manner),
        Some(config) => {
            let tls = rustls::ServerConnection::new(Arc::clone(config))?;
            http::serve(rustls::StreamOwned::new(tls, connection), manner)
        }
    }
}

fn parse() -> anyhow::Result<Manner> {
    let mut manner = Manner {
        delay: Duration::ZERO,
        latency: false,
        tls: None,
        tally: Mutex::new(Tally::default()),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument}: a value"));
        match argument.as_str() {
            "--delay-ms" => manner.delay = Duration::from_millis(value()?.parse()?),
            "--latency" => manner.latency = true,
            "--tls" => {
                let chain = vec![CertificateDer::from_pem_file(value()?)?];
                let key = PrivateKeyDer::from_pem_file(value()?)?;
                let config = rustls::ServerConfig::builder()
                    .with_no_client_auth()
                    .with_single_cert(chain, key)?;
                manner.tls = Some(Arc::new(config));
            }
            _ => anyhow::bail!("usage: null-endpoint [--tls CERT KEY] [--delay-ms N] [--latency]"),
        }
    }
    Ok(manner)
}
