//! DynamoDB, by the few calls that leases take, on the runtime of the AWS SDK: its credentials, signature,
//! connection and timeouts. The requests are JSON that the caller writes.
//!
//! Invariant: a call is made once and ends within its timeout; no message holds a secret.
//!
//! The SDK's own client knows sixty operations and their endpoint rules; of a documented JSON protocol seven
//! are needed here, which the SDK's orchestrator makes by itself ("one-off unmodeled requests").

use std::time::Duration;

use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{
    AuthSchemeOptionResolverParams, SharedAuthScheme, SharedAuthSchemeOptionResolver,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::error::ErrorMetadata;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use serde_json::Value;
use tokio::sync::Mutex;

use super::kinesis::{self, outcome, session};
use super::{Outcome, Trouble};
use crate::config;

/// The protocol: AWS JSON 1.0, every operation a POST to `/`.
const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

/// The API version that stands before the name of an operation.
const TARGET: &str = "DynamoDB_20120810";

type Call = Operation<(&'static str, Value), Value, Refusal>;

/// Why a call did not come off.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TableError {
    /// The condition of a write does not hold; with the item as it is, where the endpoint tells.
    #[error("the condition does not hold")]
    Condition(Option<Value>),
    /// There is no such table.
    #[error("there is no such table")]
    Missing,
    /// Everything else, in the service's words.
    #[error("{0}")]
    Failed(String),
}

/// An answer that is an error.
#[derive(Debug, thiserror::Error)]
#[error("{meta}")]
struct Refusal {
    meta: ErrorMetadata,
    item: Option<Value>,
}

impl ProvideErrorMetadata for Refusal {
    fn meta(&self) -> &ErrorMetadata {
        &self.meta
    }
}

/// The tables of an account in a region.
#[derive(Debug)]
pub struct DynamoDb {
    aws: config::Aws,
    region: Option<String>,
    timeout: Duration,
    current: Mutex<Option<Call>>,
}

impl DynamoDb {
    /// Returns the tables at `endpoint_url`, or at the region's endpoint; a call may take `timeout`. Region and
    /// credentials are those of `aws`, whose own endpoint is Kinesis's; where it names no region, it is that
    /// of the stream, if `stream` is an ARN. Nothing is sent yet.
    #[must_use]
    pub fn new(
        aws: &config::Aws,
        stream: &str,
        endpoint_url: Option<String>,
        timeout: Duration,
    ) -> Self {
        let aws = config::Aws { endpoint_url, ..aws.clone() };
        let region = kinesis::region(stream).map(str::to_owned);
        Self { aws, region, timeout, current: Mutex::new(None) }
    }

    /// Makes a call and returns its answer.
    ///
    /// # Errors
    /// [`TableError`].
    pub async fn call(&self, operation: &'static str, request: Value) -> Result<Value, TableError> {
        let Some(call) = self.open().await else {
            return Err(TableError::Failed(outcome::trouble(outcome::no_region()).1));
        };
        let error = match call.invoke((operation, request)).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if let Some(refusal) = error.as_service_error() {
            match refusal.meta.code() {
                Some("ConditionalCheckFailedException") => {
                    return Err(TableError::Condition(refusal.item.clone()));
                }
                Some("ResourceNotFoundException") => return Err(TableError::Missing),
                _ => {}
            }
        }
        let outcome = outcome::of(&error);
        if let Outcome::Unavailable { trouble: Trouble::Credentials, .. } = outcome {
            // Refused credentials are read afresh before the next call.
            *self.current.lock().await = None;
        }
        Err(TableError::Failed(format!("{operation}: {}", outcome::trouble(outcome).1)))
    }

    async fn open(&self) -> Option<Call> {
        let mut current = self.current.lock().await;
        if current.is_none() {
            let opened = open(&self.aws, self.region.as_deref(), self.timeout);
            *current = tokio::time::timeout(self.timeout, opened).await.ok().flatten();
        }
        current.clone()
    }
}

async fn open(aws: &config::Aws, region: Option<&str>, timeout: Duration) -> Option<Call> {
    let http = session::http_client();
    let region = aws.region.as_deref().or(region);
    let base = session::load(aws, region, &http).await;
    let region = base.region()?.clone();
    let endpoint = aws.endpoint_url.clone().unwrap_or_else(|| endpoint(region.as_ref()));
    let credentials = match &aws.assume_role {
        Some(role) => Some(aws_credential_types::provider::SharedCredentialsProvider::new(
            session::assumed(role, &base).await,
        )),
        None => base.credentials_provider(),
    };
    let mut layer = Layer::new("DynamoDB");
    layer.store_put(AuthSchemeOptionResolverParams::new(()));
    layer.store_put(SigningName::from_static("dynamodb"));
    layer.store_put(SigningRegion::from(region));
    layer.store_put(SigV4OperationSigningConfig::default());
    let schemes = StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]);
    let mut components = RuntimeComponentsBuilder::new("DynamoDB")
        .with_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()))
        .with_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(schemes)));
    components.set_identity_resolver(SCHEME_ID, credentials?);
    let plugin =
        StaticRuntimePlugin::new().with_config(layer.freeze()).with_runtime_components(components);
    let operation = Operation::builder()
        .service_name("DynamoDB")
        .operation_name("Call")
        .behavior_version(session::behavior())
        .http_client(http)
        .endpoint_url(&endpoint)
        .no_retry()
        .timeout_config(session::timeouts(timeout))
        .runtime_plugin(plugin)
        .serializer(|(operation, request): (&'static str, Value)| {
            let body = request.to_string();
            let length = body.len();
            let mut request = HttpRequest::new(SdkBody::from(body));
            request.set_method("POST")?;
            request.set_uri("/")?;
            let headers = request.headers_mut();
            headers.insert("content-type", CONTENT_TYPE);
            headers.insert("x-amz-target", format!("{TARGET}.{operation}"));
            headers.insert("content-length", length.to_string());
            Ok(request)
        })
        .deserializer(read);
    Some(operation.build())
}

#[expect(clippy::result_large_err, reason = "it is the orchestrator's own")]
fn read(response: &HttpResponse) -> Result<Value, OrchestratorError<Refusal>> {
    let body = response.body().bytes().unwrap_or_default();
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    if response.status().is_success() {
        return answer.ok_or_else(|| OrchestratorError::other("the answer could not be read"));
    }
    let text = |name: &str| answer.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let code = text("__type").map(|code| code.rsplit('#').next().unwrap_or_default().to_owned());
    let message = text("message").or_else(|| text("Message"));
    let mut meta = ErrorMetadata::builder();
    meta = match code {
        Some(code) => meta.code(code),
        None => meta,
    };
    meta = match message {
        Some(message) => meta.message(message),
        None => meta,
    };
    let item = answer.as_ref().and_then(|answer| answer.get("Item")).cloned();
    Err(OrchestratorError::operation(Refusal { meta: meta.build(), item }))
}

/// Returns the endpoint of a region; in partitions other than these two it is configured.
fn endpoint(region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://dynamodb.{region}.{domain}")
}
