//! A relay that stands before any endpoint and keeps the names of the operations it was asked for.
//!
//! Invariant: bytes pass unchanged both ways; an operation is known before the endpoint answers it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use memchr::memmem;

/// The header that names the operation, as `API_VERSION.Operation`. Clients of HTTP/1.1 write it in
/// lower case.
const HEADER: &[u8] = b"\r\nx-amz-target: ";

/// A relay at work, for as long as the tests run.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    targets: Arc<Mutex<BTreeSet<String>>>,
}

impl Recorder {
    /// Starts a relay to the endpoint at `url` (`http://HOST:PORT`) on a free port of 127.0.0.1.
    #[must_use]
    pub fn before(url: &str) -> Self {
        let endpoint: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let targets = Arc::new(Mutex::new(BTreeSet::new()));
        let heard = Arc::clone(&targets);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(endpoint).unwrap();
                let (from, to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || pass_on(from, to, |_| ()));
                let heard = Arc::clone(&heard);
                let mut unread = Vec::new();
                thread::spawn(move || {
                    pass_on(client, server, |bytes| hear(&heard, &mut unread, bytes));
                });
            }
        });
        Self { address, targets }
    }

    /// Returns where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns all that was asked for so far, such as `Kinesis_20131202.PutRecords`.
    #[must_use]
    pub fn targets(&self) -> BTreeSet<String> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Passes bytes on until one side ends, and shows them first.
fn pass_on(mut from: TcpStream, mut to: TcpStream, mut show: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        show(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // A side that has gone already is what ends a connection, too.
    let _gone = to.shutdown(Shutdown::Both);
}

/// Takes the operations out of what a client wrote; what may be the beginning of one stays in `unread`.
fn hear(targets: &Mutex<BTreeSet<String>>, unread: &mut Vec<u8>, bytes: &[u8]) {
    unread.extend_from_slice(bytes);
    while let Some(at) = memmem::find(unread, HEADER) {
        let value = at + HEADER.len();
        let Some(end) = memmem::find(&unread[value..], b"\r\n") else {
            return;
        };
        let target = String::from_utf8_lossy(&unread[value..value + end]).into_owned();
        targets.lock().unwrap_or_else(PoisonError::into_inner).insert(target);
        unread.drain(..value + end);
    }
    let kept = unread.len().min(HEADER.len());
    unread.drain(..unread.len() - kept);
}
