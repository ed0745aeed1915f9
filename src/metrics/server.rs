//! The HTTP endpoint that Prometheus scrapes: `GET /metrics`, and `GET /health` for probes.
//!
//! Invariant: connections and the time a client may take are bounded; every scrape is made of a
//! fresh status, so nothing is kept for clients that do not come.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::render;
use crate::control::StatusSource;
use crate::status::Status;

/// The media type of what [`render`] returns.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// Clients served at a time; the next one waits in the listener's queue.
const CONNECTIONS_MAX: usize = 32;

/// How long a request's head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last. Prometheus scrapes every 15 s to 60 s and connects again.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(2);

/// The pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound endpoint.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// Where it is in use, not of this machine, or not allowed.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// Returns the address that was bound: the port is the chosen one where 0 was asked for.
    ///
    /// # Errors
    /// Where the socket cannot tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped.
    pub async fn serve<S: StatusSource>(self, source: S) {
        let source = Arc::new(source);
        let mut clients = JoinSet::new();
        loop {
            while clients.len() >= CONNECTIONS_MAX {
                clients.join_next().await;
            }
            while clients.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    clients
                        .spawn(timeout(CONNECTION_TIMEOUT, converse(stream, Arc::clone(&source))));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a scrape");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn converse<S: StatusSource>(stream: TcpStream, source: Arc<S>) {
    let service = service_fn(|request: Request<Incoming>| {
        let source = Arc::clone(&source);
        async move { Ok::<_, Infallible>(respond(&request, &*source).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a scrape was cut off");
    }
}

async fn respond<S: StatusSource>(
    request: &Request<Incoming>,
    source: &S,
) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            reply(StatusCode::OK, OPEN_METRICS, render(&source.status().await))
        }
        (&Method::GET | &Method::HEAD, "/health") => {
            let (code, words) = health(&source.status().await);
            reply(code, PLAIN_TEXT, words)
        }
        (_, "/metrics" | "/health") => {
            let mut response =
                reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN_TEXT, "GET only\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        _ => reply(StatusCode::NOT_FOUND, PLAIN_TEXT, "see /metrics and /health\n".to_owned()),
    }
}

/// Returns 200 where nothing is wrong, else 503 with what is, one thing a line.
fn health(status: &Status) -> (StatusCode, String) {
    let mut problems = status.problems();
    if problems.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    problems.push(String::new());
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n"))
}

fn reply(code: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net;

    use super::*;
    use crate::status::FlowStatus;

    struct Fixed(Vec<String>);

    impl StatusSource for Fixed {
        async fn status(&self) -> Status {
            let flow = FlowStatus {
                name: "access".to_owned(),
                problems: self.0.clone(),
                ..FlowStatus::default()
            };
            Status { flows: vec![flow], ..Status::default() }
        }
    }

    /// Serves `problems` while `client` runs on a thread of its own.
    fn serving<T: Send + 'static>(
        problems: &[&str],
        client: impl FnOnce(SocketAddr) -> T + Send + 'static,
    ) -> T {
        let source = Fixed(problems.iter().map(ToString::to_string).collect());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
            let address = server.address().unwrap();
            let (done, ended) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || done.send(client(address)));
            tokio::select! {
                () = server.serve(source) => panic!("the server ended"),
                result = ended => result.unwrap(),
            }
        })
    }

    fn ask(address: SocketAddr, request_line: &str) -> String {
        let mut stream = net::TcpStream::connect(address).unwrap();
        write!(stream, "{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_scrape_gets_the_metrics() {
        let answer = serving(&[], |address| ask(address, "GET /metrics"));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/openmetrics-text;"), "{answer}");
        assert!(answer.contains("\nkinetail_calls_total{flow=\"access\",stream=\"\"} 0\n"));
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }

    #[test]
    fn health_is_good_until_a_flow_has_a_problem() {
        let answer = serving(&[], |address| ask(address, "GET /health"));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok\n"));
        let answer = serving(&["access denied"], |address| ask(address, "GET /health"));
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\naccess: access denied\n"), "{answer}");
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        let (path, method) =
            serving(&[], |at| (ask(at, "GET /metric"), ask(at, "DELETE /metrics")));
        assert!(path.starts_with("HTTP/1.1 404 "), "{path}");
        assert!(method.starts_with("HTTP/1.1 405 "), "{method}");
    }

    #[test]
    fn what_is_not_http_does_not_stop_the_next_scrape() {
        let answer = serving(&[], |address| {
            let mut stream = net::TcpStream::connect(address).unwrap();
            stream.write_all(b"\x16\x03\x01 not http\r\n\r\n").unwrap();
            ask(address, "GET /health")
        });
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}
