//! Asking a running agent.
//!
//! Invariant: a call returns within a few seconds, whatever is at the other end.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Error, Refusal, Request, io_error, path_in};
use crate::status::Status;

/// How long the agent may take for each step of an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer that is read: some 100,000 files.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;

/// Asks the agent that holds `state_dir` how it is; `None` where none runs.
///
/// # Errors
/// Where an agent may run and cannot be asked: the caller's user may not, or it does not answer.
pub fn status(state_dir: &Path) -> Result<Option<Status>, Error> {
    let path = path_in(state_dir)?;
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if is_nobody(error.kind()) => return Ok(None),
        Err(error) => return Err(io_error("connect to", &path)(error)),
    };
    let line = exchange(stream, Request::Status).map_err(io_error("ask the agent at", &path))?;
    parse(&line, &path).map(Some)
}

/// No socket was ever made, or the one that is there belongs to an agent that has died.
fn is_nobody(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

fn exchange(mut stream: UnixStream, request: Request) -> std::io::Result<String> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut text = serde_json::to_string(&request)?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(line)
}

fn parse(line: &str, path: &Path) -> Result<Status, Error> {
    serde_json::from_str(line).map_err(|source| match serde_json::from_str::<Refusal>(line) {
        Ok(Refusal { error: message }) => Error::Refused { path: path.to_path_buf(), message },
        Err(_) => Error::Answer { path: path.to_path_buf(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_agent_runs_there_is_no_status() {
        let state_dir = tempfile::tempdir().unwrap();
        assert!(status(state_dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_socket_that_a_dead_agent_left_is_no_agent() {
        let state_dir = tempfile::tempdir().unwrap();
        let path = path_in(state_dir.path()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.symlink_metadata().is_ok());
        assert!(status(state_dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_refusal_is_told_in_the_agents_words() {
        let error = parse(r#"{"error":"no such request"}"#, Path::new("/s")).unwrap_err();
        assert_eq!(error.to_string(), "the agent at /s refused: no such request");
    }
}
