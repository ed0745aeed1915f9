//! A PutRecords call with a body of our own, through the SDK: its credentials, signature, endpoint
//! rules, connection and errors stay the SDK's.
//!
//! Invariant: what is sent is exactly the [`Body`], and the signature covers its hash.
//!
//! An interceptor of this one call exchanges the serializer before it is used, and tells the signer the
//! hash that is known already. Both are public seams of the SDK's runtime.
//!
//! Bodies are written one after another, the next one when the one before is with its connection, and
//! given back once they are sent. (Were the bodies of all calls written first and held until they are
//! answered, the peak of memory would be 8 MiB higher by default, and each would be out of the CPU's
//! cache when it is sent.)

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_kinesis::config::interceptors::BeforeSerializationInterceptorContextMut;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::Input;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::ser_de::{SerializeRequest, SharedRequestSerializer};
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::Body;

/// The protocol of Kinesis: AWS JSON 1.1, every operation a POST to `/`.
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// The operation, with the version of the service's model.
const TARGET: &str = "Kinesis_20131202.PutRecords";

/// How long a body waits for its turn: a connection that takes its time must not hold other calls up.
const PATIENCE: Duration = Duration::from_millis(10);

/// Whose turn it is to write a body.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Turns {
    /// Waits for a turn, but not for long.
    pub(super) async fn next(&self) -> Turn {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.0).acquire_owned()).await;
        turn.ok().and_then(Result::ok)
    }
}

/// A turn, until it is dropped; `None` where it was not waited for any longer.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

/// Sends this body in place of the one the SDK would write.
#[derive(Debug)]
pub(super) struct OwnBody {
    sending: Once,
    sha256: String,
}

impl OwnBody {
    /// Sends `body`, written in its `turn`.
    pub(super) fn new(body: Body, turn: Turn) -> Self {
        let sending = Sending { text: body.text, turn };
        Self { sending: Once::new(sending), sha256: body.sha256 }
    }
}

#[dyn_dispatch_hint]
impl Intercept for OwnBody {
    fn name(&self) -> &'static str {
        "OwnBody"
    }

    fn modify_before_serialization(
        &self,
        _: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let state = config.interceptor_state();
        state.store_put(SharedRequestSerializer::new(Ready(Once::new(self.sending.take()?))));
        state.store_put(PayloadSigningOverride::Precomputed(self.sha256.clone()));
        Ok(())
    }
}

/// A request that is written already.
#[derive(Debug)]
struct Ready(Once);

impl SerializeRequest for Ready {
    fn serialize_input(&self, _: Input, _: &mut ConfigBag) -> Result<HttpRequest, BoxError> {
        let sending = self.0.take()?;
        let length = sending.text.len();
        let mut request = HttpRequest::new(SdkBody::from_body_1_x(sending));
        request.set_method("POST")?;
        request.set_uri("/")?;
        let headers = request.headers_mut();
        headers.insert("content-type", CONTENT_TYPE);
        headers.insert("x-amz-target", TARGET);
        headers.insert("content-length", length.to_string());
        Ok(request)
    }
}

/// A body to be sent once, by whoever takes it: none of its memory is held while the answer is waited for.
#[derive(Debug)]
struct Once(Mutex<Option<Sending>>);

impl Once {
    fn new(sending: Sending) -> Self {
        Self(Mutex::new(Some(sending)))
    }

    fn take(&self) -> Result<Sending, BoxError> {
        let sending = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        sending.ok_or_else(|| "a body is sent once".into())
    }
}

/// A body on its way into a connection, which asks for it when it is about to write.
#[derive(Debug)]
struct Sending {
    text: Bytes,
    turn: Turn,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Self { text, turn } = self.get_mut();
        // Whoever waits for the turn is woken, and runs when this connection has written.
        *turn = None;
        let text = std::mem::take(text);
        Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.text.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.text.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    async fn sending(turns: &Turns) -> Sending {
        Sending { text: Bytes::from_static(b"{}"), turn: turns.next().await }
    }

    #[tokio::test]
    async fn a_turn_ends_when_its_body_is_asked_for() {
        let turns = Turns::default();
        let mut sending = sending(&turns).await;
        assert_eq!((turns.0.available_permits(), sending.size_hint().exact()), (0, Some(2)));
        let mut context = Context::from_waker(Waker::noop());
        let frame = Pin::new(&mut sending).poll_frame(&mut context);
        assert!(matches!(frame, Poll::Ready(Some(Ok(frame))) if frame.data_ref().unwrap() == "{}"));
        assert_eq!((turns.0.available_permits(), sending.is_end_stream()), (1, true));
        assert!(Pin::new(&mut sending).poll_frame(&mut context).is_ready());
    }

    #[tokio::test]
    async fn a_turn_is_not_waited_for_for_long() {
        let turns = Turns::default();
        let (first, second) = (turns.next().await, turns.next().await);
        assert!(first.is_some() && second.is_none());
        drop(first);
        assert!(turns.next().await.is_some());
    }

    #[tokio::test]
    async fn a_body_is_sent_once_and_a_call_that_ends_before_gives_its_turn_back() {
        let turns = Turns::default();
        let once = Once::new(sending(&turns).await);
        assert!(once.take().is_ok() && once.take().is_err());
        assert_eq!(turns.0.available_permits(), 1);
    }
}
