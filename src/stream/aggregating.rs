//! The stream as a flow with aggregated records sees it: refused while it spreads records itself.
//!
//! Invariant: while the stream is known to distribute records by itself
//! ([`Description::spreads_by_itself`]), no aggregated record is sent to it: consumers of such a
//! stream do not de-aggregate, and would take an aggregate for one line. The lines wait in their
//! files until the stream, or the format, is changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{Description, Entry, Outcome, Stream, Trouble};

/// What to do about it, for logs and `status`.
pub const HINT: &str = "the stream's RecordDistributionStrategy is AUTO, which does not support KPL \
                        aggregation: set `merge.format: lines`, or the strategy USER_PARTITION_KEY";

const UNKNOWN: u8 = 0;
const TAKES: u8 = 1;
const REFUSES: u8 = 2;

/// A stream, and whether it takes what the flow sends.
#[derive(Debug)]
pub struct Aggregating<S> {
    stream: Arc<S>,
    /// Whether the flow sends aggregated records.
    aggregates: bool,
    state: AtomicU8,
}

impl<S: Stream> Aggregating<S> {
    /// Returns `stream` for a flow that sends aggregated records, or, where it does not, the stream
    /// as it is.
    #[must_use]
    pub fn new(stream: Arc<S>, aggregates: bool) -> Self {
        Self { stream, aggregates, state: AtomicU8::new(UNKNOWN) }
    }
}

impl<S: Stream> Stream for Aggregating<S> {
    async fn put_records(&self, entries: Vec<Entry>) -> Outcome {
        if self.aggregates && self.state.load(Ordering::Acquire) == UNKNOWN {
            // A stream that does not tell is taken for one of the kind that all were until 2025.
            drop(self.describe().await);
        }
        if self.aggregates && self.state.load(Ordering::Acquire) == REFUSES {
            let message = HINT.to_owned();
            return Outcome::Unavailable { trouble: Trouble::Format, message };
        }
        self.stream.put_records(entries).await
    }

    async fn describe(&self) -> Result<Description, (Option<Trouble>, String)> {
        let answer = self.stream.describe().await;
        let state = match &answer {
            Ok(description) if description.spreads_by_itself() => Some(REFUSES),
            Ok(_) => Some(TAKES),
            // What was known before still holds.
            Err(_) if self.state.load(Ordering::Acquire) == UNKNOWN => Some(TAKES),
            Err(_) => None,
        };
        if let Some(state) = state {
            self.state.store(state, Ordering::Release);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::stream::EntryOutcome;

    /// A stream that says of itself what the script holds, the last first, and accepts everything.
    struct Told {
        script: Mutex<Vec<Result<&'static str, ()>>>,
    }

    impl Stream for Told {
        async fn put_records(&self, _: Vec<Entry>) -> Outcome {
            Outcome::Answered(vec![EntryOutcome::Accepted { shard: Arc::from("s") }])
        }

        async fn describe(&self) -> Result<Description, (Option<Trouble>, String)> {
            let next = self.script.lock().unwrap().pop().expect("one more description");
            match next {
                Ok(kind) => Ok(Description {
                    distribution: Some(kind.to_owned()),
                    ..Description::default()
                }),
                Err(()) => Err((None, "no answer".to_owned())),
            }
        }
    }

    fn told(script: &[Result<&'static str, ()>], aggregates: bool) -> Aggregating<Told> {
        let script = Mutex::new(script.iter().rev().copied().collect());
        Aggregating::new(Arc::new(Told { script }), aggregates)
    }

    async fn takes(stream: &Aggregating<Told>) -> bool {
        match stream.put_records(Vec::new()).await {
            Outcome::Answered(_) => true,
            Outcome::Unavailable { trouble: Trouble::Format, .. } => false,
            outcome => panic!("{outcome:?}"),
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_before_the_stream_was_asked_and_a_later_change_is_noticed() {
        let stream = told(
            &[Ok("AUTO"), Ok("USER_PARTITION_KEY"), Err(()), Ok("AUTO"), Err(()), Err(())],
            true,
        );
        for expected in [false, true, true, false, false] {
            assert_eq!(takes(&stream).await, expected);
            drop(stream.describe().await);
        }
    }

    #[tokio::test]
    async fn a_stream_that_does_not_tell_is_asked_once_and_used() {
        let stream = told(&[Err(())], true);
        assert!(takes(&stream).await);
        assert!(takes(&stream).await);
    }

    #[tokio::test]
    async fn other_flows_do_not_ask() {
        assert!(takes(&told(&[], false)).await);
    }
}
