//! The embedded Kinesis-compatible endpoint behind `kinetail demo` and `kinetail local`.
//!
//! Invariant: it listens where it was told to and nowhere else, and keeps everything in memory.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use ferrokinesis::actions::{Operation, dispatch};
use ferrokinesis::create_app;
use ferrokinesis::store::{Store, StoreOptions};
use serde_json::json;
use tokio::net::TcpListener;

/// The largest request: 10 MiB of records are 14 MiB of base64, and then there is room.
const BODY_MAX: usize = 64 * 1024 * 1024;

/// Open shards over all streams: more than anybody needs on one machine.
const SHARDS_MAX: u32 = 10_000;

/// Why the endpoint cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error("cannot listen on {address}{}", hint(source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A stream was refused.
    #[error("cannot create the stream {name}: {message}")]
    Stream {
        /// Its name.
        name: String,
        /// The endpoint's words.
        message: String,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another process listens there; --listen takes another port)",
        _ => "",
    }
}

/// The endpoint, bound and not yet serving.
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
    app: Router,
    store: Store,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Endpoint").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (app, store) = create_app(StoreOptions {
            // Streams are there as soon as they are asked for: nobody waits on a development
            // machine.
            create_stream_ms: 0,
            delete_stream_ms: 0,
            update_stream_ms: 0,
            shard_limit: SHARDS_MAX,
            ..StoreOptions::default()
        });
        let app = app.layer(DefaultBodyLimit::max(BODY_MAX));
        Ok(Self { listener, address, app, store })
    }

    /// Returns where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates a stream.
    ///
    /// # Errors
    /// [`Error::Stream`] where the endpoint refuses it, for instance because it exists.
    pub async fn create_stream(&self, name: &str, shards: u32) -> Result<(), Error> {
        let request = json!({ "StreamName": name, "ShardCount": shards });
        match dispatch(&self.store, Operation::CreateStream, request).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Stream { name: name.to_owned(), message: error.to_string() }),
        }
    }

    /// Answers until it is dropped.
    ///
    /// # Errors
    /// Where the listener fails for good.
    pub async fn serve(self) -> io::Result<()> {
        axum::serve(self.listener, self.app).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    const FREE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_port_in_use_is_told_with_the_way_out() {
        block_on(async {
            let first = Endpoint::bind(FREE).await.unwrap();
            let error = Endpoint::bind(first.address).await.unwrap_err().to_string();
            let expected = format!(
                "cannot listen on {} (another process listens there; --listen takes another port)",
                first.address
            );
            assert_eq!(error, expected);
        });
    }

    #[test]
    fn a_stream_can_be_created_once() {
        block_on(async {
            let endpoint = Endpoint::bind(FREE).await.unwrap();
            endpoint.create_stream("web", 4).await.unwrap();
            let error = endpoint.create_stream("web", 4).await.unwrap_err().to_string();
            assert!(error.starts_with("cannot create the stream web: "), "{error}");
        });
    }
}
