//! Answering on the control socket.
//!
//! Invariant: connections, the length of a request and the time a client may take are bounded; a
//! client that misbehaves costs its own connection and nothing else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Error, Refusal, Request, StatusSource, io_error, path_in};

/// Clients served at a time; the next one waits in the listener's queue.
const CONNECTIONS_MAX: usize = 16;

/// The longest request, its newline included. The only one there is has 21 bytes.
const REQUEST_MAX: u64 = 4096;

/// How long a client may take to ask, and to take the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The name under which the socket is made before it gets its own: not longer than that one.
const NEW_NAME: &str = "control.new";

/// The bound socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Makes the socket, for the user of the agent alone. A socket that a dead agent left behind is
    /// replaced; that no other agent is alive, the lock of the state directory has shown before.
    ///
    /// # Errors
    /// Where the path is too long, or the socket cannot be made.
    pub fn bind(state_dir: &Path) -> Result<Self, Error> {
        let path = path_in(state_dir)?;
        let new = state_dir.join(NEW_NAME);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("replace", &new)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(io_error("bind", &new))?;
        // Under its own name the socket never has other permissions than these.
        fs::set_permissions(&new, Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&new, &path))
            .map_err(io_error("make", &path))?;
        Ok(Self { listener, path })
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
                    clients.spawn(answer(stream, Arc::clone(&source)));
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "cannot remove the socket");
        }
    }
}

/// Answers one client, request by request, until it hangs up or is too slow.
async fn answer<S: StatusSource>(stream: UnixStream, source: Arc<S>) {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reading).take(REQUEST_MAX);
        match timeout(CLIENT_TIMEOUT, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(read)) if read > 0 => {}
            _ => return,
        }
        let whole = line.ends_with(b"\n");
        let mut reply = if whole { reply(&line, &*source).await } else { refuse("too long") };
        reply.push(b'\n');
        match timeout(CLIENT_TIMEOUT, writing.write_all(&reply)).await {
            Ok(Ok(())) if whole => {}
            _ => return,
        }
    }
}

async fn reply<S: StatusSource>(line: &[u8], source: &S) -> Vec<u8> {
    match serde_json::from_slice(line) {
        Ok(Request::Status) => serde_json::to_vec(&source.status().await)
            .unwrap_or_else(|error| refuse(&error.to_string())),
        Err(error) => refuse(&error.to_string()),
    }
}

fn refuse(why: &str) -> Vec<u8> {
    let refusal = Refusal { error: format!("not a request: {why}") };
    serde_json::to_vec(&refusal).unwrap_or_else(|_| b"{\"error\":\"\"}".to_vec())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Write};
    use std::os::unix::net;

    use super::*;
    use crate::control::client;
    use crate::status::Status;

    struct Fixed;

    impl StatusSource for Fixed {
        async fn status(&self) -> Status {
            Status { running: true, version: "1.2.3".to_owned(), ..Status::default() }
        }
    }

    /// Serves while `client` runs on a thread of its own, and returns what that returns.
    fn serving<T: Send + 'static>(
        state_dir: &Path,
        client: impl FnOnce(PathBuf) -> T + Send + 'static,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let state_dir = state_dir.to_path_buf();
        runtime.block_on(async move {
            let server = Server::bind(&state_dir).unwrap();
            let (done, ended) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || done.send(client(state_dir)));
            tokio::select! {
                () = server.serve(Fixed) => panic!("the server ended"),
                result = ended => result.unwrap(),
            }
        })
    }

    fn ask(state_dir: &Path, request: &[u8]) -> String {
        let stream = net::UnixStream::connect(path_in(state_dir).unwrap()).unwrap();
        (&stream).write_all(request).unwrap();
        let mut line = String::new();
        std::io::BufReader::new(&stream).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn the_client_gets_the_status() {
        let state_dir = tempfile::tempdir().unwrap();
        let status = serving(state_dir.path(), |dir| client::status(&dir).unwrap().unwrap());
        assert_eq!((status.running, status.version.as_str()), (true, "1.2.3"));
    }

    #[test]
    fn the_socket_is_for_its_user_alone_and_goes_with_the_server() {
        let state_dir = tempfile::tempdir().unwrap();
        let mode = serving(state_dir.path(), |dir| {
            fs::symlink_metadata(path_in(&dir).unwrap()).unwrap().permissions().mode()
        });
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(state_dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let state_dir = tempfile::tempdir().unwrap();
        drop(net::UnixListener::bind(path_in(state_dir.path()).unwrap()).unwrap());
        drop(net::UnixListener::bind(state_dir.path().join(NEW_NAME)).unwrap());
        let status = serving(state_dir.path(), |dir| client::status(&dir).unwrap());
        assert!(status.is_some());
    }

    #[test]
    fn what_is_no_request_is_refused_and_the_next_client_is_served() {
        let state_dir = tempfile::tempdir().unwrap();
        let (nonsense, unknown, status) = serving(state_dir.path(), |dir| {
            let unknown = ask(&dir, b"{\"request\":\"reboot\"}\n");
            (ask(&dir, b"hello\n"), unknown, client::status(&dir).unwrap())
        });
        assert!(nonsense.starts_with("{\"error\":\"not a request: "), "{nonsense}");
        assert!(unknown.contains("unknown variant `reboot`"), "{unknown}");
        assert!(status.is_some());
    }

    #[test]
    fn an_endless_request_is_cut_off() {
        let state_dir = tempfile::tempdir().unwrap();
        let length = usize::try_from(REQUEST_MAX).unwrap();
        let reply = serving(state_dir.path(), move |dir| ask(&dir, &vec![b'x'; length]));
        assert_eq!(reply, "{\"error\":\"not a request: too long\"}\n");
    }

    #[test]
    fn silent_clients_beyond_the_bound_do_not_starve_the_others_for_ever() {
        let state_dir = tempfile::tempdir().unwrap();
        let status = serving(state_dir.path(), |dir| {
            let path = path_in(&dir).unwrap();
            let silent: Vec<_> =
                (0..CONNECTIONS_MAX).map(|_| net::UnixStream::connect(&path).unwrap()).collect();
            drop(silent);
            client::status(&dir).unwrap()
        });
        assert!(status.is_some());
    }
}
