//! The log: what the endpoint was asked, what it stored, and what the client can know of it.
//!
//! Invariant: a record stands in the log exactly when it was stored, in the order of storing; a
//! request stands at the place of its number.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::script::{CallFault, EntryFault};

/// A stored record.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The how-manieth record of the endpoint's life, from 0.
    pub sequence: u64,
    /// When it was stored.
    pub at: Instant,
    /// The number of its request.
    pub request: u64,
    /// Its place in the request.
    pub index: usize,
    /// The stream's name.
    pub stream: Arc<str>,
    /// The partition key.
    pub key: Arc<str>,
    /// The data, after base64.
    pub data: Bytes,
    /// The shard, from 0.
    pub shard: u32,
}

/// A request, of any operation.
#[derive(Clone, Debug)]
pub struct Request {
    /// From 0, in the order in which heads were read; its place in [`Log::requests`].
    pub number: u64,
    /// When its head was read.
    pub at: Instant,
    /// The operation, such as `PutRecords`.
    pub operation: String,
    /// Entries in it; 0 until its body was read.
    pub entries: usize,
    /// Bytes of data and keys in it.
    pub bytes: usize,
    /// What became of each entry; empty where the call was not carried out.
    pub outcomes: Vec<EntryOutcome>,
    /// The fault that the script had planned for the call.
    pub fault: Option<CallFault>,
    /// The error that the call was answered with.
    pub error: Option<&'static str>,
    /// What the client got.
    pub answer: Delivery,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryOutcome {
    /// Stored.
    Accepted,
    /// Refused.
    Refused(EntryFault),
}

/// What the client got as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nothing yet.
    Pending,
    /// The whole of it: written to a socket that the client held open.
    Delivered,
    /// Nothing, or a part that says nothing.
    Lost,
}

/// An entry that came again in a run although the client had been told that it was accepted.
#[derive(Clone, Debug)]
pub struct Resent {
    /// The request it came again in.
    pub request: u64,
    /// Its place there.
    pub index: usize,
    /// Its key.
    pub key: Arc<str>,
    /// How long its data is.
    pub bytes: usize,
}

/// Takes stored records in order instead of the log's keeping them.
pub type Sink = Box<dyn FnMut(&Accepted) + Send + Sync>;

/// The log. Read it through [`FaultEndpoint`](super::FaultEndpoint).
#[derive(Default)]
pub struct Log {
    /// Every request, at the place of its number.
    pub requests: Vec<Request>,
    /// Every stored record in order; empty where a sink takes them.
    pub records: Vec<Accepted>,
    /// How many records were stored.
    pub stored: u64,
    /// How many bytes of data were stored.
    pub stored_bytes: u64,
    /// Entries that should not have come again. An entry is known by its data alone (a refused
    /// record may come again under another key), so this means something where lines are unique.
    pub resent_accepted: Vec<Resent>,
    confirmed: HashSet<u64>,
    sink: Option<Sink>,
}

impl fmt::Debug for Log {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.requests.iter().rev().take(5).collect::<Vec<_>>();
        formatter
            .debug_struct("Log")
            .field("requests", &self.requests.len())
            .field("stored", &self.stored)
            .field("stored_bytes", &self.stored_bytes)
            .field("resent_accepted", &self.resent_accepted.len())
            .field("last_requests", &last)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Returns an empty log, whose records go to the sink where there is one.
    pub(super) fn new(sink: Option<Sink>) -> Self {
        Self { sink, ..Self::default() }
    }

    /// Returns the `PutRecords` requests.
    pub fn puts(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| request.operation == "PutRecords")
    }

    /// Returns the bytes of requests that were stored at least in part while their answer was lost,
    /// or is still out: what a client may rightly send again.
    #[must_use]
    pub fn unknown_bytes(&self) -> u64 {
        let unknown = self.puts().filter(|request| {
            request.answer != Delivery::Delivered
                && request.outcomes.contains(&EntryOutcome::Accepted)
        });
        unknown.map(|request| request.bytes as u64).sum()
    }

    /// Opens the entry of a request and returns its number.
    pub(super) fn begin(&mut self, operation: &str) -> u64 {
        let number = self.requests.len() as u64;
        self.requests.push(Request {
            number,
            at: Instant::now(),
            operation: operation.to_owned(),
            entries: 0,
            bytes: 0,
            outcomes: Vec::new(),
            fault: None,
            error: None,
            answer: Delivery::Pending,
        });
        number
    }

    /// Returns the request of this number.
    pub(super) fn request(&mut self, number: u64) -> &mut Request {
        let place = usize::try_from(number).unwrap();
        &mut self.requests[place]
    }

    /// Notes that an entry came, whatever becomes of it.
    pub(super) fn arrived(&mut self, request: u64, index: usize, key: &Arc<str>, entry: &Print) {
        if self.confirmed.contains(&entry.hash) {
            let key = Arc::clone(key);
            self.resent_accepted.push(Resent { request, index, key, bytes: entry.bytes });
        }
    }

    /// Stores a record.
    pub(super) fn store(&mut self, mut record: Accepted) {
        record.sequence = self.stored;
        self.stored += 1;
        self.stored_bytes += record.data.len() as u64;
        match &mut self.sink {
            Some(sink) => sink(&record),
            None => self.records.push(record),
        }
    }

    /// Notes that the client knows these entries to be stored.
    pub(super) fn confirm(&mut self, entries: &[Print]) {
        self.confirmed.extend(entries.iter().map(|entry| entry.hash));
    }

    /// Notes that the client does not know it after all.
    pub(super) fn retract(&mut self, entries: &[Print]) {
        for entry in entries {
            self.confirmed.remove(&entry.hash);
        }
    }

    /// Forgets what earlier clients knew: after a crash they may send it again.
    pub(super) fn begin_run(&mut self) {
        self.confirmed.clear();
    }
}

/// By what an entry is known again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Print {
    hash: u64,
    bytes: usize,
}

impl Print {
    /// Returns the print of an entry's data.
    pub(super) fn new(data: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(data);
        Self { hash: hasher.finish(), bytes: data.len() }
    }
}
