//! The fault-injecting endpoint: a Kinesis-speaking server on a real socket that does what a
//! [`Script`] says and keeps a [`Log`] of what it stored.
//!
//! Invariant: what the log holds as stored is what a consumer of the stream would read. Everything
//! a test claims about loss, order and duplicates is claimed of this log.
//!
//! ```text
//!  client ──TCP──▶ serve ──▶ http ──▶ protocol ──▶ shards ──▶ log ──▶ wait_until, log()
//!                    ▲               │                   │     └────▶ Options::sink
//!                  Script            └─▶ upstream        └──▶ reads
//! ```

pub mod http;
pub mod log;
pub mod protocol;
mod reads;
pub mod script;
mod serve;
pub mod shards;
mod upstream;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use log::{Accepted, Delivery, EntryOutcome, Log, Sink};
pub use script::{CallFault, EntryFault, ReadFault, Script, Throttle};

/// What an endpoint is, beside its faults.
pub struct Options {
    /// How many shards the stream has.
    pub shards: u32,
    /// The streams that exist; every name does where this is empty.
    pub streams: Vec<String>,
    /// The largest record in KiB, key included (Kinesis: 1024 by default, up to 10240).
    pub max_record_kib: usize,
    /// The `RecordDistributionStrategy` that a description tells, if it tells one.
    pub distribution: Option<&'static str>,
    /// The most bytes in a call, keys included (Kinesis: 10 MiB).
    pub request_max: usize,
    /// Whether a Signature Version 4 header must be there, in form.
    pub check_signatures: bool,
    /// An endpoint that carries out what this one lets through, instead of this one's own store; the log
    /// then holds no records.
    pub upstream: Option<SocketAddr>,
    /// Takes stored records, in order and while the endpoint waits, instead of the log's keeping
    /// them: for volumes that do not fit in memory.
    pub sink: Option<Sink>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: 4,
            streams: Vec::new(),
            max_record_kib: 1024,
            distribution: None,
            request_max: 10 * 1024 * 1024,
            check_signatures: true,
            upstream: None,
            sink: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Options")
            .field("shards", &self.shards)
            .field("streams", &self.streams)
            .field("max_record_kib", &self.max_record_kib)
            .field("distribution", &self.distribution)
            .field("request_max", &self.request_max)
            .field("check_signatures", &self.check_signatures)
            .field("upstream", &self.upstream)
            .field("sink", &self.sink.is_some())
            .finish()
    }
}

/// A running endpoint. Dropping it ends it.
pub struct FaultEndpoint {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

/// A condition that did not come true in time; its `Debug` tells how things stood.
#[derive(Debug)]
pub struct TimedOut {
    /// What was waited for.
    pub claim: String,
    /// How things stood at the deadline.
    pub state: String,
}

/// What the endpoint's threads share.
struct Shared {
    options: Options,
    state: Mutex<State>,
    changed: Condvar,
}

/// What changes while the endpoint runs.
struct State {
    script: Arc<Script>,
    script_since: Instant,
    script_epoch: u64,
    /// The epoch of the listener that may accept; `None` while the endpoint is dead.
    listening: Option<u64>,
    listen_epoch: u64,
    streams: Vec<String>,
    loads: Vec<shards::Load>,
    log: Log,
    connections: BTreeMap<u64, TcpStream>,
    next_connection: u64,
}

impl Shared {
    /// Locks the state, even where a thread panicked with it: its test has failed already.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for FaultEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        formatter
            .debug_struct("FaultEndpoint")
            .field("address", &self.address)
            .field("script", &state.script)
            .field("log", &state.log)
            .finish_non_exhaustive()
    }
}

impl FaultEndpoint {
    /// Starts an endpoint with four shards on a free port of 127.0.0.1.
    #[must_use]
    pub fn start(script: Script) -> Self {
        Self::start_with(Options::default(), script)
    }

    /// Starts an endpoint as `options` say.
    #[must_use]
    pub fn start_with(mut options: Options, script: Script) -> Self {
        let now = Instant::now();
        let loads = (0..options.shards).map(|_| shards::Load::new(now)).collect();
        let state = State {
            script: Arc::new(script),
            script_since: now,
            script_epoch: 0,
            listening: None,
            listen_epoch: 0,
            streams: options.streams.clone(),
            loads,
            log: Log::new(options.sink.take()),
            connections: BTreeMap::new(),
            next_connection: 0,
        };
        let shared = Shared { options, state: Mutex::new(state), changed: Condvar::new() };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut endpoint = Self { shared: Arc::new(shared), address, accepting: None };
        endpoint.listen();
        endpoint
    }

    /// Returns the address to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL for `aws.endpoint_url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the plan for the requests to come, and cuts those that a black hole holds.
    pub fn set_script(&self, script: Script) {
        let mut state = self.shared.lock();
        state.script = Arc::new(script);
        state.script_since = Instant::now();
        state.script_epoch += 1;
        for load in &mut state.loads {
            *load = shards::Load::new(Instant::now());
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Dies: every connection is cut, and new ones are refused. The log is kept.
    pub fn die(&mut self) {
        let mut state = self.shared.lock();
        if state.listening.take().is_none() {
            return;
        }
        serve::cut_all(&state);
        drop(state);
        self.shared.changed.notify_all();
        // The accepting thread sees its end at the next connection; this is one. Where it fails,
        // the thread has gone already.
        TcpStream::connect(self.address).ok();
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
    }

    /// Listens again on the same port after [`die`](Self::die).
    pub fn listen(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                // Another process's connection may hold the port as its own for a moment.
                Err(error) if Instant::now() > deadline => panic!("{}: {error}", self.address),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        self.address = listener.local_addr().unwrap();
        let mut state = self.shared.lock();
        assert!(state.listening.is_none(), "the endpoint listens already");
        state.listen_epoch += 1;
        let epoch = state.listen_epoch;
        state.listening = Some(epoch);
        drop(state);
        let shared = Arc::clone(&self.shared);
        self.accepting = Some(thread::spawn(move || serve::accept(&shared, &listener, epoch)));
    }

    /// Begins a new run of the client: what the last one had been told is forgotten, so that what a
    /// killed agent sends again does not count as sent again without need.
    pub fn begin_run(&self) {
        self.shared.lock().log.begin_run();
    }

    /// Returns the stored records so far, in order (cheap: the data is shared). Empty where
    /// [`Options::sink`] takes them.
    #[must_use]
    pub fn accepted(&self) -> Vec<Accepted> {
        self.with_log(|log| log.records.clone())
    }

    /// Returns the requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<log::Request> {
        self.with_log(|log| log.requests.clone())
    }

    /// Returns the entries that came again in a run although the client had been told that they
    /// were accepted.
    #[must_use]
    pub fn resent_accepted(&self) -> Vec<log::Resent> {
        self.with_log(|log| log.resent_accepted.clone())
    }

    /// Waits until all that clients which are gone by now had sent is taken in, what stands in the
    /// sockets of connections that nobody has accepted yet included.
    ///
    /// # Panics
    /// Where a client is not gone, at the deadline.
    pub fn take_in_all(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        let wait = |holds: &dyn Fn(&State) -> bool| {
            while !holds(&self.shared.lock()) {
                assert!(Instant::now() < end, "a connection of a client that is gone stays open");
                thread::sleep(Duration::from_millis(1));
            }
        };
        // Connections are accepted in their order: once this one is, all before it are.
        let last = TcpStream::connect(self.address).unwrap();
        let own = last.local_addr().ok();
        wait(&|state| {
            let mut connections = state.connections.values();
            connections.any(|connection| connection.peer_addr().ok() == own)
        });
        drop(last);
        wait(&|state| state.connections.is_empty());
    }

    /// Looks into the log.
    pub fn with_log<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.shared.lock().log)
    }

    /// Waits until the log satisfies `condition`, which is asked anew whenever the log changes.
    ///
    /// # Errors
    /// The deadline passed.
    pub fn wait_until(
        &self,
        claim: &str,
        deadline: Duration,
        mut condition: impl FnMut(&Log) -> bool,
    ) -> Result<(), TimedOut> {
        let state = self.shared.lock();
        let waits = |state: &mut State| !condition(&state.log);
        let waited = self.shared.changed.wait_timeout_while(state, deadline, waits);
        let (state, result) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        if result.timed_out() {
            let state = format!("{:?}", state.log);
            return Err(TimedOut { claim: claim.to_owned(), state });
        }
        Ok(())
    }
}

impl Drop for FaultEndpoint {
    fn drop(&mut self) {
        self.die();
    }
}
