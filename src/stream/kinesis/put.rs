//! A PutRecords call with a body of our own, through the SDK: its credentials, signature, endpoint
//! rules, connection and errors stay the SDK's.
//!
//! Invariant: what is sent is exactly the [`Body`], and the signature covers its hash.
//!
//! An interceptor of this one call exchanges the serializer before it is used, and tells the signer the
//! hash that is known already. Both are public seams of the SDK's runtime.

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_kinesis::config::interceptors::BeforeSerializationInterceptorContextMut;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::Input;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::ser_de::{SerializeRequest, SharedRequestSerializer};
use aws_smithy_types::body::SdkBody;

use super::body::Body;

/// The protocol of Kinesis: AWS JSON 1.1, every operation a POST to `/`.
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// The operation, with the version of the service's model.
const TARGET: &str = "Kinesis_20131202.PutRecords";

/// Sends this body in place of the one the SDK would write.
#[derive(Debug)]
pub(super) struct OwnBody(pub(super) Body);

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
        state.store_put(SharedRequestSerializer::new(Ready(self.0.clone())));
        state.store_put(PayloadSigningOverride::Precomputed(self.0.sha256.clone()));
        Ok(())
    }
}

/// A request that is written already.
#[derive(Debug)]
struct Ready(Body);

impl SerializeRequest for Ready {
    fn serialize_input(&self, _: Input, _: &mut ConfigBag) -> Result<HttpRequest, BoxError> {
        let mut request = HttpRequest::new(SdkBody::from(self.0.text.clone()));
        request.set_method("POST")?;
        request.set_uri("/")?;
        let headers = request.headers_mut();
        headers.insert("content-type", CONTENT_TYPE);
        headers.insert("x-amz-target", TARGET);
        headers.insert("content-length", self.0.text.len().to_string());
        Ok(request)
    }
}
