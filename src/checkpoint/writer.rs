//! The committing thread: it owns the [`Store`], so that a slow disk delays nobody else.
//!
//! Invariant: every commit handed in is answered once, as written or handed back; they are written in
//! the order in which they came. Those that wait together are written in one transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::sync::oneshot;

use super::{Commit, Error, Store, io_error};

/// A repeated failure is logged as often as this.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Where the answer to a commit arrives; await it, or `blocking_recv` where there is no runtime.
pub type Answer = oneshot::Receiver<Result<(), Rejected>>;

/// A commit that was not written, and why.
#[derive(Debug)]
pub struct Rejected {
    /// What was handed in, to be offered again.
    pub commit: Box<Commit>,
    /// Why.
    pub error: Arc<Error>,
}

#[derive(Debug)]
struct Request {
    commit: Commit,
    answer: oneshot::Sender<Result<(), Rejected>>,
}

/// The handle of the committing thread.
#[derive(Debug)]
pub struct Writer {
    /// Nothing once the writer is closed.
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    sender: Sender<Request>,
    thread: JoinHandle<Store>,
}

impl Writer {
    /// Starts the thread. At most `capacity` commits wait: one a flow is enough, since a ledger hands
    /// out one at a time.
    ///
    /// # Errors
    /// [`Error::Io`] where the system has no thread left.
    pub fn start(store: Store, capacity: usize) -> Result<Self, Error> {
        let path = store.path().to_owned();
        let (sender, receiver) = crossbeam_channel::bounded(capacity.max(1));
        let thread = thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || run(store, &receiver))
            .map_err(io_error("start the thread that commits to", &path))?;
        Ok(Self { running: Mutex::new(Some(Running { sender, thread })) })
    }

    /// Hands in a commit, without waiting. It is handed back at once with [`Error::Busy`] where too
    /// many wait, and with [`Error::Closed`] where the writer is closed.
    #[must_use]
    pub fn commit(&self, commit: Commit) -> Answer {
        let (answer, receiver) = oneshot::channel();
        let request = Request { commit, answer };
        match &*self.running() {
            None => request.reply(Err(Arc::new(Error::Closed))),
            Some(running) => match running.sender.try_send(request) {
                Ok(()) => {}
                Err(TrySendError::Full(request)) => request.reply(Err(Arc::new(Error::Busy))),
                Err(TrySendError::Disconnected(request)) => {
                    request.reply(Err(Arc::new(Error::Closed)));
                }
            },
        }
        receiver
    }

    /// Writes what waits, ends the thread and closes the database, so that it stands in one file.
    /// Returns the store, should somebody want to go on with it: `None` where the thread panicked or
    /// the writer was closed before.
    pub fn close(&self) -> Option<Store> {
        let Running { sender, thread } = self.running().take()?;
        drop(sender);
        thread.join().ok()
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        // A panic ends the process in production, and nothing is left half done under the lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    fn reply(self, result: Result<(), Arc<Error>>) {
        let commit = Box::new(self.commit);
        // Nobody waits any more where the flow has ended meanwhile.
        let _ = self.answer.send(result.map_err(|error| Rejected { commit, error }));
    }
}

fn run(mut store: Store, receiver: &Receiver<Request>) -> Store {
    let mut journal = Journal::default();
    while let Ok(first) = receiver.recv() {
        let requests: Vec<_> = std::iter::once(first).chain(receiver.try_iter()).collect();
        write(&mut store, requests, &mut journal);
    }
    store
}

/// Writes the requests in one transaction. Where that fails each gets one of its own, so that a flow
/// whose dead letters find no room does not hold up the others.
fn write(store: &mut Store, requests: Vec<Request>, journal: &mut Journal) {
    if requests.len() > 1 && store.commit(&merged(&requests)).is_ok() {
        journal.note(None, Instant::now());
        for request in requests {
            request.reply(Ok(()));
        }
        return;
    }
    for request in requests {
        let result = store.commit(&request.commit).map_err(Arc::new);
        journal.note(result.as_ref().err().map(|error| &**error), Instant::now());
        request.reply(result);
    }
}

fn merged(requests: &[Request]) -> Commit {
    let mut sum = Commit::default();
    for Request { commit, .. } in requests {
        sum.started.extend_from_slice(&commit.started);
        sum.files.extend_from_slice(&commit.files);
        sum.removed.extend_from_slice(&commit.removed);
        sum.dead_letters.extend_from_slice(&commit.dead_letters);
        sum.consumers.extend_from_slice(&commit.consumers);
    }
    sum
}

/// What was logged of failures: each cause at most once a minute, and that it is over.
#[derive(Debug, Default)]
struct Journal {
    failing: Option<(String, Instant)>,
}

impl Journal {
    /// Notes what became of a commit. Returns true where it was logged.
    fn note(&mut self, error: Option<&Error>, now: Instant) -> bool {
        match (error, &self.failing) {
            (None, None) => return false,
            (None, Some(_)) => {
                self.failing = None;
                tracing::info!("positions are committed again");
            }
            (Some(error), failing) => {
                let words = error.to_string();
                let is_known = failing.as_ref().is_some_and(|(known, at)| {
                    *known == words && now.saturating_duration_since(*at) < LOG_INTERVAL
                });
                if is_known {
                    return false;
                }
                tracing::error!(
                    error = words,
                    "positions are not committed; shipping goes on, and after a restart lines may \
                     be sent twice"
                );
                self.failing = Some((words, now));
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::{letter, row};

    #[test]
    fn every_commit_is_answered_and_written_in_order() {
        let root = tempfile::tempdir().unwrap();
        let writer = Writer::start(Store::open(root.path()).unwrap(), 64).unwrap();
        let answers: Vec<_> = (1..=50)
            .map(|offset| {
                let files = vec![row(1, offset), row(offset + 1, offset)];
                writer.commit(Commit { files, ..Commit::default() })
            })
            .collect();
        for answer in answers {
            answer.blocking_recv().unwrap().unwrap();
        }
        let store = writer.close().unwrap();
        let rows = store.load("flow").unwrap();
        assert_eq!(rows.len(), 51);
        assert_eq!(rows[0].position.offset, 50);
        let refused = writer.commit(Commit::default()).blocking_recv().unwrap().unwrap_err();
        assert!(matches!(*refused.error, Error::Closed));
    }

    #[test]
    fn a_commit_that_finds_no_room_is_handed_back_and_holds_up_no_other() {
        let root = tempfile::tempdir().unwrap();
        let mut store = Store::open(root.path()).unwrap();
        store.limit_dead_letters(1_000);
        let requests = vec![
            Commit { files: vec![row(1, 10)], ..Commit::default() },
            Commit {
                files: vec![row(2, 20)],
                dead_letters: vec![letter(2_000)],
                ..Commit::default()
            },
            Commit { files: vec![row(3, 30)], ..Commit::default() },
        ];
        let (requests, answers): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .map(|commit| {
                let (answer, receiver) = oneshot::channel();
                (Request { commit, answer }, receiver)
            })
            .unzip();
        write(&mut store, requests, &mut Journal::default());
        let results: Vec<_> =
            answers.into_iter().map(|answer| answer.blocking_recv().unwrap()).collect();
        assert!(results[0].is_ok() && results[2].is_ok());
        let rejected = results[1].as_ref().unwrap_err();
        assert!(matches!(*rejected.error, Error::DeadLettersFull { .. }));
        assert_eq!(rejected.commit.dead_letters.len(), 1);
        let keys: Vec<_> = store.load("flow").unwrap().iter().map(|row| row.key.0).collect();
        assert_eq!(keys, [1, 3]);
    }

    #[test]
    fn a_failure_is_logged_once_a_minute_a_cause_and_so_is_its_end() {
        let mut journal = Journal::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!journal.note(None, at(0)));
        assert!(journal.note(Some(&Error::Busy), at(1)));
        assert!(!journal.note(Some(&Error::Busy), at(60)));
        assert!(journal.note(Some(&Error::LetterDamaged { id: 1 }), at(60)));
        assert!(!journal.note(Some(&Error::LetterDamaged { id: 1 }), at(119)));
        assert!(journal.note(Some(&Error::LetterDamaged { id: 1 }), at(120)));
        assert!(journal.note(None, at(121)));
        assert!(!journal.note(None, at(122)));
    }
}
