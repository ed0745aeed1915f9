//! Sources: where the batches of a shard come from.
//!
//! Invariant: batches follow each other without a gap, and none comes twice in the life of a source.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time;

use super::records::{Batch, Call, LIMIT, Reader};
use crate::position::ShardId;
use crate::stream::read::{ReadError, Readable};

/// What a source has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Records, or that there are none just now; and when it was that nothing more was in the shard.
    Batch(Batch, Option<Instant>),
    /// A read failed; it is tried again after this pause.
    Failed(ReadError, Duration),
}

/// A source of the batches of one shard: [`Polling`], or a subscription (enhanced fan-out).
pub trait Source: Send + 'static {
    /// Whether a batch comes at any time, rather than soon after it is asked for.
    const PUSHED: bool;

    /// Returns the next news; waits as long as the service asks for. `None` once the shard has ended.
    /// Dropped before it resolves, it loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<News>> + Send;
}

/// A source that asks with GetRecords.
#[derive(Debug)]
pub struct Polling<R> {
    stream: Arc<R>,
    shard: ShardId,
    reader: Reader,
}

impl<R: Readable> Polling<R> {
    /// Returns the source of `shard` that `reader` decides on.
    #[must_use]
    pub fn new(stream: Arc<R>, shard: ShardId, reader: Reader) -> Self {
        Self { stream, shard, reader }
    }

    fn failed(&mut self, error: ReadError) -> News {
        let pause = self.reader.on_error(&error, Instant::now());
        News::Failed(error, pause)
    }
}

impl<R: Readable> Source for Polling<R> {
    const PUSHED: bool = false;

    async fn next(&mut self) -> Option<News> {
        loop {
            let (due, call) = self.reader.next()?;
            time::sleep_until(due.into()).await;
            let asked = Instant::now();
            match call {
                Call::Iterator(place) => match self.stream.iterator(&self.shard, &place).await {
                    Ok(iterator) => self.reader.on_iterator(iterator, asked),
                    Err(error) => return Some(self.failed(error)),
                },
                Call::Records(iterator) => {
                    return Some(match self.stream.get(&iterator, LIMIT).await {
                        Ok(reply) => {
                            let batch = self.reader.on_reply(reply, asked);
                            let tip = batch.is_at_tip().then_some(asked);
                            News::Batch(batch, tip)
                        }
                        Err(error) => self.failed(error),
                    });
                }
            }
        }
    }
}
