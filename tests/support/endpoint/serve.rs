//! Serving: a thread for the listener, one for each connection, and the road of a request.
//!
//! ```text
//!  head ─▶ number, plan ─▶ body ─▶ parse, check ─▶ store ─▶ delay ─▶ answer ─▶ confirm
//!            │ cut             │ cut, black hole,  │ cut, black hole,  │ cut inside,
//!            ▼                 ▼ error             ▼ 500               ▼ too short, garbage
//! ```
//!
//! Invariant: every request that got a number ends as delivered or lost, and its entries are
//! confirmed only where the whole answer went to a client that was still there.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::http::{Answer, Connection, Head};
use super::log::{Accepted, Delivery, EntryOutcome, Print};
use super::protocol::{self, Put};
use super::reads;
use super::script::{CallFault, EntryFault, Plan, ReadFault, Script};
use super::upstream::Upstream;
use super::{Shared, State};

/// The longest body that is read: 10 MiB of data in base64, and JSON around it.
const BODY_MAX: usize = 20 * 1024 * 1024;

/// Accepts connections until the listening of this `epoch` ends.
pub(super) fn accept(shared: &Arc<Shared>, listener: &TcpListener, epoch: u64) {
    for socket in listener.incoming() {
        let Ok(socket) = socket else { continue };
        let mut state = shared.lock();
        if state.listening != Some(epoch) {
            return;
        }
        let Ok(twin) = socket.try_clone() else { continue };
        let id = state.next_connection;
        state.next_connection += 1;
        state.connections.insert(id, twin);
        drop(state);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // An error here is a client that went away: its requests stand in the log as lost.
            converse(&shared, socket).ok();
            shared.lock().connections.remove(&id);
        });
    }
}

/// Answers the requests of one connection until it ends.
fn converse(shared: &Shared, socket: TcpStream) -> io::Result<()> {
    let mut connection = Connection::new(socket)?;
    let mut upstream = shared.options.upstream.map(Upstream::new);
    while let Some(head) = connection.read_head()? {
        let mut exchange = Exchange::begin(shared, &mut connection, upstream.as_mut(), &head);
        let outcome = exchange.run(&head);
        exchange.finish();
        if !outcome? || head.closes {
            connection.cut();
            return Ok(());
        }
    }
    Ok(())
}

/// One request on its way.
struct Exchange<'a> {
    shared: &'a Shared,
    connection: &'a mut Connection,
    upstream: Option<&'a mut Upstream>,
    script: Arc<Script>,
    plan: Plan,
    script_epoch: u64,
    listening: Option<u64>,
    number: u64,
    operation: String,
    delivery: Delivery,
    stored: Vec<Print>,
}

impl<'a> Exchange<'a> {
    /// Gives the request its number and its plan.
    fn begin(
        shared: &'a Shared,
        connection: &'a mut Connection,
        upstream: Option<&'a mut Upstream>,
        head: &Head,
    ) -> Self {
        let operation = match head.target.strip_prefix("Kinesis_20131202.") {
            Some(operation) => operation.to_owned(),
            None => head.target.clone(),
        };
        let mut state = shared.lock();
        let number = state.log.begin(&operation);
        let script = Arc::clone(&state.script);
        let plan = script.plan(number, &operation);
        state.log.request(number).fault = plan.call;
        let (script_epoch, listening) = (state.script_epoch, state.listening);
        drop(state);
        shared.changed.notify_all();
        Self {
            shared,
            connection,
            upstream,
            script,
            plan,
            script_epoch,
            listening,
            number,
            operation,
            delivery: Delivery::Lost,
            stored: Vec::new(),
        }
    }

    /// Goes the road of the request; returns whether the connection lives on.
    fn run(&mut self, head: &Head) -> io::Result<bool> {
        if self.plan.call == Some(CallFault::CutBeforeReading) {
            return Ok(false);
        }
        let body = match self.receive(head)? {
            Ok(body) => body,
            Err(refusal) => {
                self.answer(&refusal)?;
                return Ok(false);
            }
        };
        let answer = match (protocol_errors(self.shared, head, &self.plan), self.operation.as_str())
        {
            (refusal, "PutRecords") if self.upstream.is_none() => self.store_all(&body, refusal),
            (Some(refusal), _) => refusal,
            (None, _) => self.carry_out(head, &body),
        };
        let answer = self.spoil(answer);
        match self.plan.call {
            Some(CallFault::BlackHole | CallFault::BlackHoleAfterStoring) => self.vanish(),
            Some(CallFault::CutBeforeStoring | CallFault::CutAfterStoring) => return Ok(false),
            _ => self.wait(),
        }
        self.reply(&answer)
    }

    /// Reads the body, or says why it is not read.
    fn receive(&mut self, head: &Head) -> io::Result<Result<Vec<u8>, Answer>> {
        let Some(length) = head.content_length else {
            let refusal = Answer::error(411, "MissingContentLength", "Content-Length is required");
            return Ok(Err(refusal));
        };
        if length > BODY_MAX {
            return Ok(Err(Answer::error(413, "RequestEntityTooLarge", "the body is too large")));
        }
        if head.expects_continue {
            self.connection.say_continue()?;
        }
        self.connection.read_body(length, self.plan.read_rate).map(Ok)
    }

    /// Does what a request asks that is not refused, unless a fault keeps it from being done.
    fn carry_out(&mut self, head: &Head, body: &[u8]) -> Answer {
        if !self.plan.call.is_none_or(CallFault::stores) {
            return Answer::ok(Vec::new());
        }
        if self.plan.read == Some(ReadFault::Empty) {
            return reads::nothing_yet(body);
        }
        if self.upstream.is_some() {
            return self.hand_on(head, body);
        }
        let options = &self.shared.options;
        let mut state = self.shared.lock();
        match &*self.operation {
            "GetShardIterator" => reads::iterator(body, options, &state.log),
            "GetRecords" => reads::records(body, &state.log),
            operation => protocol::answer_other(operation, body, options, &mut state.streams),
        }
    }

    /// Hands the request on to the endpoint behind this one, but for the entries that a draw refuses.
    fn hand_on(&mut self, head: &Head, body: &[u8]) -> Answer {
        let Some(upstream) = &mut self.upstream else { return internal_failure() };
        match &*self.operation {
            "GetRecords" => upstream.call(head, &reads::limited(body)),
            "PutRecords" => {
                let (script, plan) = (&self.script, &mut self.plan);
                let Some((rest, outcomes)) =
                    protocol::without_refused(body, || script.entry_fault(plan))
                else {
                    return Answer::error(400, "SerializationException", "the body is not JSON");
                };
                let all_refused = !outcomes.contains(&EntryOutcome::Accepted);
                let carried_out = if all_refused {
                    // Nothing is left that could be asked for.
                    Answer::ok(b"{\"Records\":[],\"FailedRecordCount\":0}".to_vec())
                } else {
                    upstream.call(head, &rest)
                };
                if carried_out.status != 200 {
                    return carried_out;
                }
                let answer = protocol::with_refused(carried_out, &outcomes);
                let mut state = self.shared.lock();
                let request = state.log.request(self.number);
                request.entries = outcomes.len();
                request.outcomes = outcomes;
                answer
            }
            _ => upstream.call(head, body),
        }
    }

    /// Returns what the plan makes of an answer that is to be told.
    fn spoil(&self, answer: Answer) -> Answer {
        match self.plan.call {
            _ if answer.status != 200 => answer,
            Some(CallFault::InternalFailureAfterStoring) => internal_failure(),
            Some(CallFault::Garbage) => Answer::ok(b"{\"Records\": [<html>".to_vec()),
            _ => answer,
        }
    }

    /// Stores what a `PutRecords` call holds and a fault lets through, unless it is refused.
    fn store_all(&mut self, body: &[u8], refusal: Option<Answer>) -> Answer {
        let options = &self.shared.options;
        let put = match protocol::parse_put(body, options) {
            Ok(put) => put,
            Err(answer) => return answer,
        };
        let prints = put.entries.iter().map(|entry| Print::new(&entry.data)).collect::<Vec<_>>();
        let poisoned = put.entries.iter().position(|e| self.script.poisons(&e.key, &e.data));
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let request = state.log.request(self.number);
        request.entries = put.entries.len();
        request.bytes = put.entries.iter().map(protocol::Entry::size).sum();
        for (index, (entry, print)) in put.entries.iter().zip(&prints).enumerate() {
            state.log.arrived(self.number, index, &entry.key, print);
        }
        let checked = protocol::check_exists(&put.stream, options, &state.streams)
            .and_then(|()| protocol::check_put(&put, options));
        if let Some(index) = poisoned.filter(|_| checked.is_ok()) {
            let message = format!("Invalid record at {index}");
            return Answer::error(400, "InvalidArgumentException", &message);
        }
        if let Err(answer) = checked {
            return answer;
        }
        if !self.plan.call.is_none_or(CallFault::stores) || refusal.is_some() {
            return refusal.unwrap_or_else(|| Answer::ok(Vec::new()));
        }
        let first = state.log.stored;
        let outcomes = self.store(state, &put);
        for (print, outcome) in prints.iter().zip(&outcomes) {
            if *outcome == EntryOutcome::Accepted {
                self.stored.push(*print);
            }
        }
        let answer = protocol::put_answer(&put, &outcomes, first);
        state.log.request(self.number).outcomes = outcomes;
        drop(guard);
        self.shared.changed.notify_all();
        answer
    }

    /// Stores the entries that no throttle and no draw refuses.
    fn store(&mut self, state: &mut State, put: &Put) -> Vec<EntryOutcome> {
        let now = Instant::now();
        let age = now.duration_since(state.script_since);
        let mut outcomes = Vec::with_capacity(put.entries.len());
        for (index, entry) in put.entries.iter().enumerate() {
            let drawn = self.script.entry_fault(&mut self.plan);
            let shard = usize::try_from(entry.shard).unwrap();
            let load = &mut state.loads[shard];
            let taken = load.takes(now, age, entry.size(), &self.script, entry.shard);
            outcomes.push(match (taken, drawn) {
                (false, _) => EntryOutcome::Refused(EntryFault::Throttled),
                (true, Some(fault)) => EntryOutcome::Refused(fault),
                (true, None) => EntryOutcome::Accepted,
            });
            if outcomes.last() == Some(&EntryOutcome::Accepted) {
                state.log.store(Accepted {
                    sequence: 0,
                    at: now,
                    request: self.number,
                    index,
                    stream: Arc::clone(&put.stream),
                    key: Arc::clone(&entry.key),
                    data: entry.data.clone(),
                    shard: entry.shard,
                });
            }
        }
        outcomes
    }

    /// Sends the answer, whole or in the way the plan spoils it.
    fn reply(&mut self, answer: &Answer) -> io::Result<bool> {
        match self.plan.call {
            Some(CallFault::CutInAnswer) => {
                self.connection.answer_partly(self.number, answer, None);
                Ok(false)
            }
            Some(CallFault::WrongLength) => {
                self.connection.answer_partly(self.number, answer, Some(64));
                Ok(false)
            }
            Some(CallFault::BlackHole | CallFault::BlackHoleAfterStoring) => Ok(false),
            _ => self.answer(answer).map(|()| true),
        }
    }

    /// Sends the whole answer, and notes what the client knows by it.
    fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        self.shared.lock().log.request(self.number).error = answer.error;
        if self.connection.is_abandoned() {
            return Ok(());
        }
        // Confirmed before it is written: the client may send its next request before this thread
        // runs again.
        if self.plan.call.is_none() {
            self.shared.lock().log.confirm(&self.stored);
        }
        if let Err(error) = self.connection.answer(self.number, answer) {
            self.shared.lock().log.retract(&self.stored);
            return Err(error);
        }
        let understood = self.plan.call != Some(CallFault::Garbage);
        let says_so = self.plan.call != Some(CallFault::InternalFailureAfterStoring);
        if understood && says_so {
            self.delivery = Delivery::Delivered;
        }
        Ok(())
    }

    /// Waits until the script changes or the endpoint stops.
    fn vanish(&self) {
        let state = self.shared.lock();
        let stays = |state: &mut State| {
            state.script_epoch == self.script_epoch && state.listening == self.listening
        };
        drop(self.shared.changed.wait_while(state, stays).unwrap());
    }

    /// Waits as long as the plan holds the answer back, or until the endpoint stops.
    fn wait(&self) {
        let delay = self.plan.delay.unwrap_or(Duration::ZERO);
        if !delay.is_zero() {
            let state = self.shared.lock();
            let stays = |state: &mut State| state.listening == self.listening;
            drop(self.shared.changed.wait_timeout_while(state, delay, stays).unwrap());
        }
    }

    /// Closes the request's entry in the log.
    fn finish(self) {
        self.shared.lock().log.request(self.number).answer = self.delivery;
        self.shared.changed.notify_all();
    }
}

/// Returns the refusal that does not depend on the body, if there is one.
fn protocol_errors(shared: &Shared, head: &Head, plan: &Plan) -> Option<Answer> {
    if head.method != "POST" {
        return Some(Answer::error(405, "MethodNotAllowed", "only POST"));
    }
    if shared.options.check_signatures {
        let checked = protocol::check_signature(head.authorization.as_deref());
        if let Err(refusal) = checked {
            return Some(refusal);
        }
    }
    if plan.read == Some(ReadFault::Expired) {
        return Some(Answer::error(400, "ExpiredIteratorException", "Iterator expired."));
    }
    let (status, kind, message) = match plan.call? {
        CallFault::AccessDenied => {
            (400, "AccessDeniedException", "User is not authorized to perform: kinesis:PutRecords")
        }
        CallFault::ExpiredToken => {
            (400, "ExpiredTokenException", "The security token included in the request is expired")
        }
        CallFault::InternalFailure => return Some(internal_failure()),
        CallFault::InvalidArgument => {
            (400, "InvalidArgumentException", "An argument of the call is invalid")
        }
        CallFault::KmsThrottled => (400, "KMSThrottlingException", "KMS rate exceeded"),
        CallFault::ResourceNotFound => {
            (400, "ResourceNotFoundException", "Stream under account 123456789012 not found.")
        }
        CallFault::Throttled => {
            (400, "ProvisionedThroughputExceededException", "Rate exceeded for the stream")
        }
        CallFault::Unavailable => (503, "ServiceUnavailable", "Service Unavailable"),
        _ => return None,
    };
    Some(Answer::error(status, kind, message))
}

/// Returns the answer of a service that broke.
fn internal_failure() -> Answer {
    Answer::error(500, "InternalFailure", "Internal Service Failure")
}

/// Ends every connection there is.
pub(super) fn cut_all(state: &State) {
    for connection in state.connections.values() {
        // One that has ended by itself is as good as cut.
        connection.shutdown(Shutdown::Both).ok();
    }
}
