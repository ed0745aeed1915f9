//! The session: region, credentials and a client made of them, and all that again once they are refused.
//!
//! Invariant: refused credentials are read afresh before the next call. The SDK's own chain reads
//! the environment's and the shared files once in its life, so an agent that outlives a key would
//! otherwise have to be restarted.

use std::net::IpAddr;
use std::time::Duration;

use aws_config::environment::{
    EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider,
};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{SharedHttpClient, StalledStreamProtectionConfig};
use aws_smithy_http_client::tls;
use tokio::sync::Mutex;

use crate::config;

/// How long a connection may take: a healthy one needs far less, and behind it the attempt's own
/// timeout is still to come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The region of an emulator that nobody gave another one.
const EMULATOR_REGION: Region = Region::from_static("us-east-1");

/// One session after another.
#[derive(Debug)]
pub(super) struct Sessions {
    aws: config::Aws,
    region: Option<String>,
    timeout: Duration,
    http: SharedHttpClient,
    current: Mutex<Session>,
}

#[derive(Debug)]
struct Session {
    /// `None` where no region is known.
    client: Option<Client>,
    refused: bool,
}

impl Sessions {
    /// Opens the first one; `region` is used where `aws` names none.
    pub(super) async fn open(aws: config::Aws, region: Option<String>, timeout: Duration) -> Self {
        let http = http_client();
        let region = aws.region.clone().or(region);
        let client = open(&aws, region.as_deref(), timeout, &http).await;
        let current = Mutex::new(Session { client, refused: false });
        Self { aws, region, timeout, http, current }
    }

    /// Returns the client of the session, of a new one where the credentials were refused.
    pub(super) async fn client(&self) -> Option<Client> {
        let mut session = self.current.lock().await;
        if session.refused {
            let client = open(&self.aws, self.region.as_deref(), self.timeout, &self.http);
            // A metadata service that does not answer must not hold the call up for ever: then
            // the old client is tried once more.
            if let Ok(client) = tokio::time::timeout(self.timeout, client).await {
                *session = Session { client, refused: false };
            }
        }
        session.client.clone()
    }

    /// The credentials of the session were refused.
    pub(super) async fn refused(&self) {
        self.current.lock().await.refused = true;
    }
}

/// Returns a client of its own connections.
pub(in crate::stream) fn http_client() -> SharedHttpClient {
    let ring = tls::rustls_provider::CryptoMode::Ring;
    aws_smithy_http_client::Builder::new().tls_provider(tls::Provider::Rustls(ring)).build_https()
}

/// Returns the behaviour of the SDK that all this was written for.
pub(in crate::stream) fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// Returns the bounds of a call whose only attempt may take `attempt`.
pub(in crate::stream) fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .build()
}

/// Returns the bounds of a call whose caller sees to its time.
pub(super) fn untimed() -> TimeoutConfig {
    TimeoutConfig::builder().disable_operation_attempt_timeout().build()
}

async fn open(
    aws: &config::Aws,
    region: Option<&str>,
    timeout: Duration,
    http: &SharedHttpClient,
) -> Option<Client> {
    let base = load(aws, region, http).await;
    base.region()?;
    let mut conf = aws_sdk_kinesis::config::Builder::from(&base)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(timeout))
        // The attempt's timeout bounds a call that stalls, too.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(url) = &aws.endpoint_url {
        conf = conf.endpoint_url(url);
    }
    if let Some(role) = &aws.assume_role {
        conf = conf.credentials_provider(assumed(role, &base).await);
    }
    Some(Client::from_conf(conf.build()))
}

/// Loads what the SDK's own chain finds. The other endpoint is not set here: it is for Kinesis, not
/// for STS.
pub(in crate::stream) async fn load(
    aws: &config::Aws,
    region: Option<&str>,
    http: &SharedHttpClient,
) -> SdkConfig {
    let mut loader = aws_config::defaults(behavior()).http_client(http.clone());
    if let Some(profile) = &aws.profile {
        loader = loader.profile_name(profile);
    }
    if aws.endpoint_url.as_deref().is_some_and(is_loopback) {
        loader = for_emulator(loader, aws, http);
    }
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    loader.load().await
}

/// Leaves the metadata service out, which costs seconds where there is none, and ends the chains
/// with placeholders: emulators ask for credentials and check none.
fn for_emulator(loader: ConfigLoader, aws: &config::Aws, http: &SharedHttpClient) -> ConfigLoader {
    let providers = ProviderConfig::without_region().with_http_client(http.clone());
    let mut region = ProfileFileRegionProvider::builder().configure(&providers);
    let mut profile = ProfileFileCredentialsProvider::builder().configure(&providers);
    if let Some(name) = &aws.profile {
        region = region.profile_name(name);
        profile = profile.profile_name(name);
    }
    let regions = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(region.build())
        .or_else(EMULATOR_REGION);
    let environment = EnvironmentVariableCredentialsProvider::new();
    let credentials = CredentialsProviderChain::first_try("Environment", environment)
        .or_else("Profile", profile.build())
        .or_else(
            "Placeholder",
            Credentials::new("kinetail", "kinetail", None, None, "Placeholder"),
        );
    loader.region(regions).credentials_provider(credentials)
}

/// Returns the credentials of a role, which those of `base` may take on.
pub(in crate::stream) async fn assumed(
    role: &config::AssumeRole,
    base: &SdkConfig,
) -> AssumeRoleProvider {
    let mut builder = AssumeRoleProvider::builder(&role.role_arn)
        .session_name(&role.session_name)
        .configure(base);
    if let Some(id) = &role.external_id {
        builder = builder.external_id(id);
    }
    builder.build().await
}

/// Returns true where the host of `url` is this machine.
fn is_loopback(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(literal) => literal.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_local = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_local || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn endpoints_on_this_machine_are_known() {
        for url in [
            "http://127.0.0.1:4567",
            "https://localhost/x",
            "http://LOCALHOST:1",
            "http://[::1]:8080/",
            "http://127.9.9.9",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "https://kinesis.eu-west-1.amazonaws.com",
            "http://10.0.0.1:4567",
            "http://127.0.0.1@example.com/",
            "http://localhost.example.com",
            "",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
