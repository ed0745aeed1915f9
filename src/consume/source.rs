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
    /// Records, or that there are none just now.
    Batch(Batch),
    /// A read failed; it is tried again after this pause.
    Failed(ReadError, Duration),
}

/// A source of the batches of one shard: [`Polling`], or a subscription (enhanced fan-out).
pub trait Source: Send + 'static {
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
                        Ok(reply) => News::Batch(self.reader.on_reply(reply, asked)),
                        Err(error) => self.failed(error),
                    });
                }
            }
        }
    }
}
