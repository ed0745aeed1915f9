//! What the SDK's errors mean.
//!
//! Invariant: what may have been stored is never called refused, and what is not known for certain
//! to be poison is never called so: an error nobody here knows is "no answer", and is tried again.
//! Messages are the first line only and short: a refused signature comes back with the canonical
//! request in the lines below, session token included.

use std::error::Error;
use std::fmt::{Debug, Write as _};
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};

use crate::stream::{EntryOutcome, Outcome, Trouble};

/// The longest message passed on, in characters.
const MESSAGE_MAX: usize = 300;

/// What an error code, or a status without one, means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Refused,
    Throttled,
    Unavailable(Trouble),
    Unknown,
}

/// Returns what a failed call means.
pub(in crate::stream) fn of<E>(error: &SdkError<E, HttpResponse>) -> Outcome
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => {
            let status = error.raw_response().map(|response| response.status().as_u16());
            answered(error.code(), error.message(), status)
        }
        SdkError::TimeoutError(_) => Outcome::Unknown { message: "timed out".to_owned() },
        error => {
            let message = chain(error);
            if is_about_credentials(error, &message) {
                return Outcome::Unavailable { trouble: Trouble::Credentials, message };
            }
            Outcome::Unknown { message }
        }
    }
}

/// Returns what ended a stream of events: what the service said in it under `code`, or what broke it off.
pub(super) fn of_event<E, R>(error: &SdkError<E, R>, code: Option<&str>) -> Outcome
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug + 'static,
{
    match error {
        SdkError::ServiceError(_) => answered(code, error.message(), None),
        error => Outcome::Unknown { message: chain(error) },
    }
}

/// Returns what an entry's error code means.
pub(super) fn of_entry(
    code: &str,
    message: &str,
    intern: &mut impl FnMut(&str) -> Arc<str>,
) -> EntryOutcome {
    match of_code(code) {
        Some(Meaning::Throttled) => {
            EntryOutcome::Throttled { shard: shard_in(message).map(intern) }
        }
        Some(Meaning::Refused) => EntryOutcome::Poison { message: told(code, message, None) },
        _ => EntryOutcome::Failed { message: told(code, message, None) },
    }
}

/// Returns the outcome of a call that cannot be made for want of a region.
pub(in crate::stream) fn no_region() -> Outcome {
    Outcome::Unavailable {
        trouble: Trouble::Missing,
        message: "no region is set (aws.region, AWS_REGION or the profile)".to_owned(),
    }
}

/// Returns what is wrong, and in which words.
pub(in crate::stream) fn trouble(outcome: Outcome) -> (Option<Trouble>, String) {
    match outcome {
        Outcome::Unavailable { trouble, message } => (Some(trouble), message),
        Outcome::Refused { message }
        | Outcome::Throttled { message }
        | Outcome::Unknown { message } => (None, message),
        Outcome::Answered(_) => (None, String::new()),
    }
}

fn answered(code: Option<&str>, message: Option<&str>, status: Option<u16>) -> Outcome {
    if status.is_some_and(|status| (200..300).contains(&status)) {
        return Outcome::Unknown { message: "the answer could not be read".to_owned() };
    }
    let meaning = code.and_then(of_code).unwrap_or_else(|| of_status(status, code.is_some()));
    let message = told(code.unwrap_or_default(), message.unwrap_or_default(), status);
    match meaning {
        Meaning::Refused => Outcome::Refused { message },
        Meaning::Throttled => Outcome::Throttled { message },
        Meaning::Unavailable(trouble) => Outcome::Unavailable { trouble, message },
        Meaning::Unknown => Outcome::Unknown { message },
    }
}

fn of_code(code: &str) -> Option<Meaning> {
    Some(match code {
        "InvalidArgumentException" | "SerializationException" | "ValidationException" => {
            Meaning::Refused
        }
        "KMSThrottlingException"
        | "LimitExceededException"
        | "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException" => Meaning::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "NotAuthorized"
        | "OptInRequired"
        | "UnauthorizedOperation" => Meaning::Unavailable(Trouble::Access),
        "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Meaning::Unavailable(Trouble::Credentials),
        "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "KMSOptInRequired" => Meaning::Unavailable(Trouble::Key),
        "ResourceInUseException" | "ResourceNotFoundException" => {
            Meaning::Unavailable(Trouble::Missing)
        }
        "InternalFailure"
        | "InternalFailureException"
        | "InternalServerError"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => Meaning::Unknown,
        _ => return None,
    })
}

/// Statuses of proxies, balancers and emulators, which know no codes. A 400 with a code nobody here
/// knows is not taken for poison; one without a code is about the request, for the rest of it (the
/// path, the headers, the signature) is the same in every call.
fn of_status(status: Option<u16>, has_code: bool) -> Meaning {
    match status {
        Some(400) if !has_code => Meaning::Refused,
        Some(401) => Meaning::Unavailable(Trouble::Credentials),
        Some(403) => Meaning::Unavailable(Trouble::Access),
        Some(413) => Meaning::Refused,
        Some(429) => Meaning::Throttled,
        _ => Meaning::Unknown,
    }
}

/// Returns the shard that a message such as `Rate exceeded for shard shardId-000000000000 in
/// stream x under account 123456789012.` names.
fn shard_in(message: &str) -> Option<&str> {
    let rest = message.get(message.find("shardId-")?..)?;
    let end = rest.find(|at: char| !(at.is_ascii_alphanumeric() || at == '-'));
    rest.get(..end.unwrap_or(rest.len()))
}

fn is_about_credentials(error: &(dyn Error + 'static), message: &str) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<CredentialsError>() {
            return true;
        }
        next = error.source();
    }
    // The SDK's cache has an error of its own for a provider that is too slow, and keeps its type
    // to itself.
    message.contains("identity resolver timed out")
}

fn told(code: &str, message: &str, status: Option<u16>) -> String {
    let mut text = String::from(if code.is_empty() { "an error without a code" } else { code });
    let message = short(message);
    if !message.is_empty() {
        let _ = write!(text, ": {message}");
    }
    if let Some(status) = status {
        let _ = write!(text, " (HTTP {status})");
    }
    text
}

/// Returns the messages of an error and its causes, each once.
fn chain(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = short(&error.to_string());
        if !text.ends_with(&message) {
            let colon = if text.is_empty() { "" } else { ": " };
            let _ = write!(text, "{colon}{message}");
        }
        next = error.source();
    }
    short(&text)
}

fn short(message: &str) -> String {
    let line = message.trim().lines().next().unwrap_or_default();
    line.chars().filter(|char| !char.is_control()).take(MESSAGE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::result::ConnectorError;

    use super::*;

    fn intern(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn codes_mean_what_the_service_documents() {
        let cases = [
            ("InvalidArgumentException", Meaning::Refused),
            ("ValidationException", Meaning::Refused),
            ("KMSThrottlingException", Meaning::Throttled),
            ("ProvisionedThroughputExceededException", Meaning::Throttled),
            ("AccessDeniedException", Meaning::Unavailable(Trouble::Access)),
            ("ExpiredTokenException", Meaning::Unavailable(Trouble::Credentials)),
            ("InvalidSignatureException", Meaning::Unavailable(Trouble::Credentials)),
            ("UnrecognizedClientException", Meaning::Unavailable(Trouble::Credentials)),
            ("KMSDisabledException", Meaning::Unavailable(Trouble::Key)),
            ("KMSOptInRequired", Meaning::Unavailable(Trouble::Key)),
            ("ResourceNotFoundException", Meaning::Unavailable(Trouble::Missing)),
            ("InternalFailureException", Meaning::Unknown),
        ];
        for (code, meaning) in cases {
            assert_eq!(of_code(code), Some(meaning), "{code}");
        }
    }

    #[test]
    fn statuses_without_a_code_have_a_meaning_and_an_unknown_code_is_no_poison() {
        assert_eq!(of_status(Some(413), false), Meaning::Refused);
        assert_eq!(of_status(Some(400), false), Meaning::Refused);
        assert_eq!(of_status(Some(400), true), Meaning::Unknown);
        assert_eq!(of_status(Some(429), false), Meaning::Throttled);
        assert_eq!(of_status(Some(403), true), Meaning::Unavailable(Trouble::Access));
        for status in [200, 404, 500, 502, 503, 504] {
            assert_eq!(of_status(Some(status), false), Meaning::Unknown, "{status}");
        }
    }

    #[test]
    fn a_broken_answer_is_no_answer() {
        let message = "the answer could not be read".to_owned();
        assert_eq!(answered(None, None, Some(200)), Outcome::Unknown { message });
    }

    #[test]
    fn trouble_with_credentials_is_known_by_its_type() {
        type Failed =
            SdkError<aws_sdk_kinesis::operation::put_records::PutRecordsError, HttpResponse>;
        let cause = CredentialsError::not_loaded("no providers in chain provided credentials");
        let error: Failed = SdkError::dispatch_failure(ConnectorError::other(cause.into(), None));
        let Outcome::Unavailable { trouble: Trouble::Credentials, message } = of(&error) else {
            panic!("{error:?}");
        };
        assert!(message.ends_with("no providers in chain provided credentials"), "{message}");
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error: Failed = SdkError::dispatch_failure(ConnectorError::io(cause.into()));
        assert!(matches!(of(&error), Outcome::Unknown { .. }));
    }

    #[test]
    fn an_entry_is_throttled_failed_or_poison() {
        let message = "Rate exceeded for shard shardId-000000000007 in stream x under account 1.";
        let outcome = of_entry("ProvisionedThroughputExceededException", message, &mut intern);
        let shard = Some(Arc::from("shardId-000000000007"));
        assert_eq!(outcome, EntryOutcome::Throttled { shard });
        let outcome = of_entry("ProvisionedThroughputExceededException", "slow", &mut intern);
        assert_eq!(outcome, EntryOutcome::Throttled { shard: None });
        let outcome = of_entry("InternalFailure", "Internal Service Failure", &mut intern);
        let message = "InternalFailure: Internal Service Failure".to_owned();
        assert_eq!(outcome, EntryOutcome::Failed { message });
        let outcome = of_entry("InvalidArgumentException", "too large", &mut intern);
        let message = "InvalidArgumentException: too large".to_owned();
        assert_eq!(outcome, EntryOutcome::Poison { message });
    }

    #[test]
    fn messages_are_one_short_line() {
        let long =
            format!("The signature does not match.\nx-amz-security-token:{}", "s".repeat(900));
        assert_eq!(short(&long), "The signature does not match.");
        assert_eq!(short(&"é".repeat(900)).chars().count(), MESSAGE_MAX);
        assert_eq!(told("", "", Some(502)), "an error without a code (HTTP 502)");
    }
}
