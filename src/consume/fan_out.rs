//! Enhanced fan-out: the batches of a shard, as a subscription pushes them.
//!
//! Invariant: an event is taken from the connection only once it is asked for, so what a slow writer holds
//! up is the service; a consumer is registered once, by whichever shard comes first.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time;

use super::source::{News, Source};
use super::subscription::{SILENCE, Step, Subscriber};
use crate::position::ShardId;
use crate::stream::Trouble;
use crate::stream::read::{Events, Place, ReadError, Subscribable};

/// How often a consumer that is being registered is asked whether it is ready; and how often at most.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
const ASKS_MAX: u32 = 60;

/// An event that was waited for was sent no longer ago than this.
const TRANSIT: Duration = Duration::from_secs(1);

/// An event that came sooner than this may have stood in a queue on the way.
const WAITED: Duration = Duration::from_millis(20);

/// The consumer that a flow's subscriptions belong to.
#[derive(Debug)]
pub(super) struct Consumer {
    name: String,
    arn: Mutex<Option<String>>,
}

impl Consumer {
    pub(super) fn new(name: String) -> Self {
        Self { name, arn: Mutex::new(None) }
    }

    /// Returns its ARN, once it can be used; registers it where it is not there.
    async fn arn<R: Subscribable>(&self, stream: &R) -> Result<String, ReadError> {
        let mut known = self.arn.lock().await;
        if let Some(arn) = &*known {
            return Ok(arn.clone());
        }
        let mut status = "not registered".to_owned();
        for _ in 0..ASKS_MAX {
            let found = match stream.consumer(&self.name).await? {
                Some(found) => found,
                None => match stream.register(&self.name).await {
                    Ok(made) => {
                        tracing::info!(consumer = self.name, "a consumer was registered");
                        made
                    }
                    // Another agent was first.
                    Err(ReadError::Taken(_)) => {
                        time::sleep(ASK_INTERVAL).await;
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            if found.status == "ACTIVE" {
                *known = Some(found.arn.clone());
                return Ok(found.arn);
            }
            status = found.status;
            time::sleep(ASK_INTERVAL).await;
        }
        Err(ReadError::Failed(format!("the consumer {} is {status}", self.name)))
    }

    /// Forgets an ARN that is no consumer's any more.
    async fn forget(&self, arn: &str) {
        let mut known = self.arn.lock().await;
        if known.as_deref() == Some(arn) {
            *known = None;
        }
    }
}

/// A source that a subscription pushes.
#[derive(Debug)]
pub(super) struct Subscribed<R: Subscribable> {
    stream: Arc<R>,
    consumer: Arc<Consumer>,
    shard: ShardId,
    subscriber: Subscriber,
    events: Option<R::Events>,
}

impl<R: Subscribable> Subscribed<R> {
    /// Returns the source of `shard` that `subscriber` decides on.
    pub(super) fn new(
        stream: Arc<R>,
        consumer: Arc<Consumer>,
        shard: ShardId,
        subscriber: Subscriber,
    ) -> Self {
        Self { stream, consumer, shard, subscriber, events: None }
    }

    async fn subscribe(&mut self, place: &Place) -> Result<(), ReadError> {
        let arn = self.consumer.arn(&*self.stream).await?;
        let subscribed = self.stream.subscribe(&arn, &self.shard, place).await;
        if let Err(ReadError::Unavailable { trouble: Trouble::Missing, .. }) = subscribed {
            self.consumer.forget(&arn).await;
        }
        self.events = Some(subscribed?);
        self.subscriber.on_subscribed(Instant::now());
        Ok(())
    }

    /// Takes the next event. `None` where the subscription is over.
    async fn receive(&mut self) -> Result<Option<News>, ReadError> {
        let Some(events) = &mut self.events else { return Ok(None) };
        let begun = Instant::now();
        let mut waited = false;
        let event = {
            let mut next = pin!(time::timeout(SILENCE, events.next()));
            poll_fn(|context| {
                let polled = next.as_mut().poll(context);
                waited |= polled.is_pending();
                polled
            })
            .await
        };
        let silent = |_| ReadError::Failed(format!("nothing came for {} s", SILENCE.as_secs()));
        let Some(event) = event.map_err(silent)?? else { return Ok(None) };
        let batch = self.subscriber.on_event(event)?;
        let now = Instant::now();
        let is_fresh = waited && now.duration_since(begun) >= WAITED;
        let sent = now.checked_sub(TRANSIT).filter(|_| is_fresh);
        let tip = sent.filter(|_| batch.is_at_tip());
        Ok(Some(News::Batch(batch, tip)))
    }

    fn failed(&mut self, error: ReadError) -> News {
        self.events = None;
        let pause = self.subscriber.on_error(&error, Instant::now());
        News::Failed(error, pause)
    }
}

impl<R: Subscribable> Source for Subscribed<R> {
    const PUSHED: bool = true;

    async fn next(&mut self) -> Option<News> {
        loop {
            match self.subscriber.next()? {
                Step::Subscribe(due, place) => {
                    time::sleep_until(due.into()).await;
                    if let Err(error) = self.subscribe(&place).await {
                        return Some(self.failed(error));
                    }
                }
                Step::Receive => match self.receive().await {
                    Ok(Some(news)) => return Some(news),
                    Ok(None) => {
                        self.events = None;
                        self.subscriber.on_over(Instant::now());
                    }
                    Err(error) => return Some(self.failed(error)),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex as Lock;

    use bytes::Bytes;
    use fastrand::Rng;

    use super::*;
    use crate::position::SequenceNumber;
    use crate::stream::read::{Event, Fetched, Readable, Registered, Reply, Shard};

    /// A stream that answers as it is told, and remembers what it was asked.
    #[derive(Debug, Default)]
    struct Fake {
        consumers: Lock<VecDeque<Result<Option<&'static str>, ReadError>>>,
        registrations: Lock<VecDeque<Result<&'static str, ReadError>>>,
        subscriptions: Lock<VecDeque<Result<Vec<Event>, ReadError>>>,
        asked: Lock<Vec<String>>,
    }

    #[derive(Debug)]
    struct Told(VecDeque<Event>);

    impl Events for Told {
        async fn next(&mut self) -> Result<Option<Event>, ReadError> {
            Ok(self.0.pop_front())
        }
    }

    fn registered(status: &str) -> Registered {
        Registered { arn: "arn".to_owned(), status: status.to_owned() }
    }

    impl Fake {
        fn ask(&self, what: String) {
            self.asked.lock().unwrap().push(what);
        }
    }

    impl Readable for Fake {
        async fn list(&self) -> Result<Vec<Shard>, ReadError> {
            Ok(Vec::new())
        }

        async fn iterator(&self, _: &ShardId, _: &Place) -> Result<String, ReadError> {
            unreachable!("it is pushed")
        }

        async fn get(&self, _: &str, _: u32) -> Result<Reply, ReadError> {
            unreachable!("it is pushed")
        }
    }

    impl Subscribable for Fake {
        type Events = Told;

        async fn consumer(&self, name: &str) -> Result<Option<Registered>, ReadError> {
            self.ask(format!("consumer {name}"));
            let found = self.consumers.lock().unwrap().pop_front().unwrap()?;
            Ok(found.map(registered))
        }

        async fn register(&self, name: &str) -> Result<Registered, ReadError> {
            self.ask(format!("register {name}"));
            self.registrations.lock().unwrap().pop_front().unwrap().map(registered)
        }

        async fn subscribe(
            &self,
            consumer: &str,
            _: &ShardId,
            place: &Place,
        ) -> Result<Told, ReadError> {
            self.ask(format!("subscribe {consumer} {place:?}"));
            let events = self.subscriptions.lock().unwrap().pop_front().unwrap()?;
            Ok(Told(events.into()))
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn source(stream: Arc<Fake>) -> Subscribed<Fake> {
        let longest = Duration::from_millis(1);
        let now = Instant::now();
        let subscriber = Subscriber::new(Place::TrimHorizon, None, longest, now, Rng::with_seed(1));
        let consumer = Arc::new(Consumer::new("web".to_owned()));
        Subscribed::new(stream, consumer, ShardId::from("shardId-000000000000"), subscriber)
    }

    fn event(number: &str) -> Event {
        let sequence_number = SequenceNumber::from(number);
        let continuation = Some(sequence_number.clone());
        let data = Bytes::from_static(b"x");
        let record = Fetched { partition_key: String::new(), data, sequence_number };
        let behind = Some(Duration::ZERO);
        Event { records: vec![record], behind, continuation, children: Vec::new() }
    }

    #[test]
    fn a_consumer_that_is_not_there_is_registered_and_waited_for() {
        let stream = Arc::new(Fake::default());
        let taken = || ReadError::Taken("it exists".to_owned());
        stream.consumers.lock().unwrap().extend([
            Ok(None),
            Ok(Some("CREATING")),
            Ok(Some("ACTIVE")),
        ]);
        // Another agent is first.
        stream.registrations.lock().unwrap().extend([Err(taken())]);
        stream.subscriptions.lock().unwrap().extend([Ok(vec![event("7")])]);
        let news = block_on(source(Arc::clone(&stream)).next());
        let Some(News::Batch(batch, tip)) = news else { panic!("{news:?}") };
        assert_eq!(batch.records.len(), 1);
        assert_eq!(tip, None, "it may have stood in a queue");
        let asked = stream.asked.lock().unwrap();
        let subscribed = "subscribe arn TrimHorizon";
        let consumer = "consumer web";
        assert_eq!(*asked, [consumer, "register web", consumer, consumer, subscribed]);
    }

    #[test]
    fn a_consumer_that_was_removed_is_looked_up_anew() {
        let stream = Arc::new(Fake::default());
        let missing = ReadError::Unavailable { trouble: Trouble::Missing, message: String::new() };
        stream.consumers.lock().unwrap().extend([Ok(Some("ACTIVE")), Ok(None), Ok(Some("ACTIVE"))]);
        stream.registrations.lock().unwrap().extend([Ok("CREATING")]);
        stream.subscriptions.lock().unwrap().extend([Err(missing.clone()), Ok(vec![event("7")])]);
        block_on(async {
            let mut source = source(Arc::clone(&stream));
            let failed = source.next().await;
            assert!(matches!(failed, Some(News::Failed(error, _)) if error == missing));
            assert!(matches!(source.next().await, Some(News::Batch(..))));
        });
        let registered = "register web".to_owned();
        assert!(stream.asked.lock().unwrap().contains(&registered));
    }
}
