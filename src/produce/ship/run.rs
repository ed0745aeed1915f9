//! The task around a [`Shipper`]: makes its calls, keeps its time.
//!
//! Invariant: records are taken in only while there is room, and calls are never more than the
//! window allows; so a stream that does not answer fills the memory it may and then the road behind
//! stands still.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};

use super::{FlightId, Receipt, Shipper, Snapshot};
use crate::position::Run;
use crate::produce::merge;
use crate::produce::tail::FileEvent;
use crate::stream::{Outcome, Stream};

/// How often a snapshot is published while something changes: often enough for `top`, seldom
/// enough to cost nothing.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(100);

/// A problem that comes back in the same words within this time is not told again.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// What takes the ends of journeys. Called within the task: it must not block.
pub trait Sink: Send {
    /// Something about a file. A file's `Opened` comes before all else of it; its `Closed` may come
    /// before the receipts of its last records.
    fn on_file(&mut self, event: FileEvent);
    /// A record is settled.
    fn on_receipt(&mut self, receipt: Receipt);
    /// Bytes that a setting asks to leave out.
    fn on_skipped(&mut self, run: Run);
}

/// What was held when shipping ended. Nothing of it is lost: its bytes are still in their files,
/// before their checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// Records without a receipt.
    pub records: usize,
    /// Their bytes, keys included.
    pub bytes: usize,
}

/// Ships what comes through `outputs` until the channel is closed and all is settled, or until `stop`
/// is done; calls in flight are then dropped, and their records count as unsettled (the stream may
/// have stored them all the same).
pub async fn run<S: Stream, K: Sink>(
    shipper: Shipper,
    stream: Arc<S>,
    mut outputs: mpsc::Receiver<merge::Output>,
    sink: &mut K,
    snapshots: &watch::Sender<Snapshot>,
    stop: impl Future<Output = ()>,
) -> Unsettled {
    let mut shipping = Shipping::new(shipper, stream, sink, snapshots);
    let mut stop = pin!(stop);
    let mut open = true;
    while open || !shipping.shipper.is_idle() {
        shipping.send();
        let wakeup = shipping.tell(Instant::now());
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(done) = shipping.calls.join_next_with_id() => shipping.on_done(done),
            output = outputs.recv(), if open && shipping.shipper.has_room() => match output {
                Some(output) => shipping.take_in(output, &mut outputs),
                None => open = false,
            },
            () = sleep_until(wakeup), if wakeup.is_some() => {}
        }
    }
    shipping.publish(Instant::now());
    Unsettled { records: shipping.shipper.held_records, bytes: shipping.shipper.held_bytes }
}

async fn sleep_until(wakeup: Option<Instant>) {
    if let Some(at) = wakeup {
        tokio::time::sleep_until(at.into()).await;
    }
}

struct Shipping<'a, S, K> {
    shipper: Shipper,
    stream: Arc<S>,
    sink: &'a mut K,
    snapshots: &'a watch::Sender<Snapshot>,
    calls: JoinSet<(FlightId, Outcome)>,
    flights: HashMap<task::Id, FlightId>,
    receipts: Vec<Receipt>,
    voice: Voice,
    changed: bool,
    published: Instant,
}

impl<'a, S: Stream, K: Sink> Shipping<'a, S, K> {
    fn new(
        shipper: Shipper,
        stream: Arc<S>,
        sink: &'a mut K,
        snapshots: &'a watch::Sender<Snapshot>,
    ) -> Self {
        Self {
            shipper,
            stream,
            sink,
            snapshots,
            calls: JoinSet::new(),
            flights: HashMap::new(),
            receipts: Vec::new(),
            voice: Voice::default(),
            changed: true,
            published: Instant::now(),
        }
    }

    fn send(&mut self) {
        while let Some(request) = self.shipper.next_request(Instant::now()) {
            let stream = Arc::clone(&self.stream);
            let id = request.id;
            let call = async move { (id, stream.put_records(request.entries).await) };
            self.flights.insert(self.calls.spawn(call).id(), id);
            self.changed = true;
        }
    }

    /// Takes in `output` and what else is there already, so that one call holds it all.
    fn take_in(&mut self, output: merge::Output, outputs: &mut mpsc::Receiver<merge::Output>) {
        let now = Instant::now();
        let mut next = Some(output);
        while let Some(output) = next {
            match output {
                merge::Output::File(event) => self.sink.on_file(event),
                merge::Output::Record(record) => self.shipper.push(now, record),
                merge::Output::Skipped(run) => self.sink.on_skipped(run),
            }
            next = if self.shipper.has_room() { outputs.try_recv().ok() } else { None };
        }
        self.changed = true;
    }

    fn on_done(&mut self, done: Result<(task::Id, (FlightId, Outcome)), JoinError>) {
        let (task, outcome) = match done {
            Ok((task, (_, outcome))) => (task, outcome),
            Err(error) => {
                let message = "the call ended without an outcome".to_owned();
                (error.id(), Outcome::Unknown { message })
            }
        };
        if let Some(id) = self.flights.remove(&task) {
            self.shipper.on_outcome(Instant::now(), id, outcome, &mut self.receipts);
            for receipt in self.receipts.drain(..) {
                self.sink.on_receipt(receipt);
            }
            self.changed = true;
        }
    }

    /// Tells of problems and publishes what changed; returns when to come back at the latest.
    fn tell(&mut self, now: Instant) -> Option<Instant> {
        let news = self.voice.hear(now, self.shipper.problem());
        let due = self.published.checked_add(SNAPSHOT_INTERVAL);
        if news || self.changed && due.is_none_or(|due| due <= now) {
            self.publish(now);
        }
        let publish = due.filter(|_| self.changed);
        self.shipper.next_wakeup(now).into_iter().chain(publish).min()
    }

    fn publish(&mut self, now: Instant) {
        self.snapshots.send_replace(self.shipper.snapshot());
        self.changed = false;
        self.published = now;
    }
}

/// Says what is wrong when it begins, when it changes and when it is over; not at every try.
#[derive(Debug, Default)]
struct Voice {
    problem: Option<String>,
    told: Option<(String, Instant)>,
}

impl Voice {
    /// Returns true where something changed.
    fn hear(&mut self, now: Instant, problem: Option<&str>) -> bool {
        if self.problem.as_deref() == problem {
            return false;
        }
        self.problem = problem.map(str::to_owned);
        if problem.is_none() {
            tracing::info!("shipping goes on");
        }
        if let Some(problem) = problem.filter(|problem| self.is_news(now, problem)) {
            tracing::warn!(problem, "shipping is held up");
            self.told = Some((problem.to_owned(), now));
        }
        true
    }

    fn is_news(&self, now: Instant, problem: &str) -> bool {
        self.told.as_ref().is_none_or(|(told, at)| {
            told != problem || now.saturating_duration_since(*at) >= TELL_AGAIN
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use fastrand::Rng;
    use tokio::sync::Semaphore;

    use super::super::fixture::{accepted, limits, record};
    use super::*;
    use crate::config;
    use crate::position::{FileKey, Mark, Span};
    use crate::stream::{Description, Entry, Trouble};

    /// A stream that answers by a script, then accepts everything.
    #[derive(Default)]
    struct Scripted {
        script: Mutex<Vec<Outcome>>,
        seen: Mutex<Vec<usize>>,
        /// Calls wait here where it is shut.
        gate: Option<Semaphore>,
    }

    impl Stream for Scripted {
        async fn put_records(&self, entries: Vec<Entry>) -> Outcome {
            self.seen.lock().unwrap().push(entries.len());
            if let Some(gate) = &self.gate {
                drop(gate.acquire().await);
            }
            let next = self.script.lock().unwrap().pop();
            next.unwrap_or_else(|| Outcome::Answered(vec![accepted("s"); entries.len()]))
        }

        async fn describe(&self) -> Result<Description, (Option<Trouble>, String)> {
            Ok(Description::default())
        }
    }

    #[derive(Default)]
    struct Ends {
        events: Vec<String>,
    }

    impl Sink for Ends {
        fn on_file(&mut self, _: FileEvent) {
            self.events.push("file".to_owned());
        }

        fn on_receipt(&mut self, receipt: Receipt) {
            self.events.push(match receipt {
                Receipt::Accepted(record) => format!("accepted {}", record.partition_key),
                Receipt::Poisoned(record, _) => format!("poisoned {}", record.partition_key),
            });
        }

        fn on_skipped(&mut self, _: Run) {
            self.events.push("skipped".to_owned());
        }
    }

    fn shipper(limits: config::Ship) -> Shipper {
        Shipper::new(limits, 0, true, Rng::with_seed(1))
    }

    fn lost() -> merge::Output {
        let key = FileKey(1);
        merge::Output::File(FileEvent::Lost { key, bytes: 1, reason: "truncated" })
    }

    fn skipped() -> merge::Output {
        let span = Span { file: FileKey(1), start: 0, end: 1 };
        merge::Output::Skipped(Run { span, mark: Mark::default(), lines: 1 })
    }

    #[tokio::test]
    async fn everything_is_settled_when_the_channel_closes() {
        let (outputs, receiver) = mpsc::channel(16);
        let (snapshots, snapshot) = watch::channel(Snapshot::default());
        let stream = Arc::new(Scripted::default());
        *stream.script.lock().unwrap() = vec![Outcome::Unknown { message: "cut".to_owned() }];
        for output in [lost(), skipped()] {
            outputs.send(output).await.unwrap();
        }
        for key in ["a", "a", "b"] {
            outputs.send(merge::Output::Record(record(key, "x"))).await.unwrap();
        }
        drop(outputs);
        let mut ends = Ends::default();
        let stop = std::future::pending();
        let shipper = shipper(limits());
        let left = run(shipper, stream, receiver, &mut ends, &snapshots, stop).await;
        assert_eq!(left, Unsettled::default());
        assert_eq!(ends.events, ["file", "skipped", "accepted a", "accepted b", "accepted a"]);
        let sent = snapshot.borrow().sent(Instant::now());
        assert_eq!((sent.calls, sent.calls_failed, sent.records), (3, 1, 3));
        assert_eq!(sent.last_error.as_deref(), Some("cut"));
    }

    #[tokio::test]
    async fn a_stop_ends_it_at_once_and_says_what_was_left() {
        let (outputs, receiver) = mpsc::channel(16);
        let (snapshots, _snapshot) = watch::channel(Snapshot::default());
        let stream = Arc::new(Scripted { gate: Some(Semaphore::new(0)), ..Scripted::default() });
        outputs.send(merge::Output::Record(record("a", "xyz"))).await.unwrap();
        let mut ends = Ends::default();
        let stop = {
            let stream = Arc::clone(&stream);
            async move {
                while stream.seen.lock().unwrap().is_empty() {
                    task::yield_now().await;
                }
            }
        };
        let shipper = shipper(limits());
        let left = run(shipper, stream, receiver, &mut ends, &snapshots, stop).await;
        assert_eq!(left, Unsettled { records: 1, bytes: 4 });
        assert!(ends.events.is_empty());
    }

    #[tokio::test]
    async fn no_more_is_taken_in_than_there_is_room_for() {
        let small = config::Ship { request_bytes: 300, in_flight: 1, ..limits() };
        let (outputs, receiver) = mpsc::channel(1);
        let (snapshots, _snapshot) = watch::channel(Snapshot::default());
        let stream = Arc::new(Scripted { gate: Some(Semaphore::new(0)), ..Scripted::default() });
        let shut = Arc::clone(&stream);
        let feeding = tokio::spawn(async move {
            let (mut fed, mut refused) = (0, 0);
            while refused < 1000 {
                let output = merge::Output::Record(record(&format!("k{fed}"), "x"));
                match outputs.try_send(output) {
                    Ok(()) => fed += 1,
                    Err(_) => refused += 1,
                }
                task::yield_now().await;
            }
            shut.gate.as_ref().unwrap().add_permits(1);
            fed
        });
        let mut ends = Ends::default();
        let stop = std::future::pending();
        let left = run(shipper(small), stream, receiver, &mut ends, &snapshots, stop).await;
        assert_eq!(left, Unsettled::default());
        assert_eq!(feeding.await.unwrap(), 4, "three weigh two windows, and one in the channel");
    }

    #[test]
    fn a_problem_is_told_when_it_begins_changes_and_ends() {
        let (mut voice, now) = (Voice::default(), Instant::now());
        assert!(!voice.hear(now, None));
        assert!(voice.hear(now, Some("no access")));
        assert!(!voice.hear(now, Some("no access")));
        assert!(voice.hear(now, Some("no stream")));
        assert!(voice.hear(now, None));
        assert!(!voice.is_news(now, "no stream"));
        assert!(voice.is_news(now + TELL_AGAIN, "no stream"));
    }
}
