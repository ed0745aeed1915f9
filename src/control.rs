//! The control socket: what `kinetail status` and its like ask a running agent.
//!
//! Invariant: it only ever reads, and it never makes the pipelines wait.
//!
//! ```text
//! client ──▶ {"request":"status"}\n        requests and answers are one line of JSON each
//! agent  ──▶ {"running":true,…}\n          a Status, or {"error":"…"}
//! ```

pub mod client;
pub mod server;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::status::Status;

/// The name of the socket within the state directory.
pub const FILE_NAME: &str = "control.sock";

/// The longest path a Unix socket can be bound to: `sun_path` has 108 bytes with its closing NUL
/// (unix(7)).
pub const PATH_MAX: usize = 107;

/// Who can say how the agent is.
pub trait StatusSource: Send + Sync + 'static {
    /// Returns the present state.
    fn status(&self) -> impl Future<Output = Status> + Send;
}

/// What can be asked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// The agent's [`Status`].
    Status,
}

/// The answer to a request that cannot be met.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub error: String,
}

/// Why the control socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent answered something else than it should.
    #[error("the agent at {} answered what is no status", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was to be done.
        operation: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The path does not fit into a socket's address.
    #[error(
        "the control socket {} has a path of {} bytes, and {PATH_MAX} is the most a Unix socket \
         can have: choose a shorter state_dir",
        path.display(),
        path.as_os_str().len()
    )]
    PathTooLong {
        /// The socket.
        path: PathBuf,
    },
    /// The agent refused the request.
    #[error("the agent at {} refused: {message}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Its words.
        message: String,
    },
}

/// Returns where the control socket of `state_dir` stands.
///
/// # Errors
/// [`Error::PathTooLong`].
pub fn path_in(state_dir: &Path) -> Result<PathBuf, Error> {
    let path = state_dir.join(FILE_NAME);
    if path.as_os_str().len() > PATH_MAX {
        return Err(Error::PathTooLong { path });
    }
    Ok(path)
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_small_object() {
        let text = serde_json::to_string(&Request::Status).unwrap();
        assert_eq!(text, r#"{"request":"status"}"#);
    }

    #[test]
    fn a_path_that_fits_no_socket_address_is_told_with_its_length() {
        let just = format!("/{}", "a".repeat(PATH_MAX - FILE_NAME.len() - 2));
        assert_eq!(path_in(Path::new(&just)).unwrap().as_os_str().len(), PATH_MAX);
        let error = path_in(Path::new(&format!("{just}a"))).unwrap_err().to_string();
        assert!(error.contains("has a path of 108 bytes"), "{error}");
        assert!(error.contains("shorter state_dir"), "{error}");
    }
}
