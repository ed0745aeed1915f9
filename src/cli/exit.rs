//! Exit codes, and errors that know theirs.
//!
//! Invariant: a command cannot fail without saying which code it fails with.

use std::io::Write;
use std::process::ExitCode;

/// How a command ends: the codes of sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// `EX_OK`.
    Done = 0,
    /// `EX_USAGE`: the command line is wrong.
    Usage = 64,
    /// `EX_SOFTWARE`: a bug.
    Bug = 70,
    /// `EX_IOERR`: a file, a socket or the stream cannot be used.
    Io = 74,
    /// `EX_TEMPFAIL`: not now, try again.
    Retry = 75,
    /// `EX_CONFIG`: the configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An end that did not go well, with what to tell.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    words: Words,
}

#[derive(Debug)]
enum Words {
    /// An error with its causes, told after the program's name.
    Error(anyhow::Error),
    /// A text that stands by itself.
    Text(String),
}

impl Failure {
    /// Returns the failure that `error` is.
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, words: Words::Error(error.into()) }
    }

    /// Returns a failure whose text stands by itself, such as a list of mistakes.
    pub(crate) fn told(exit: Exit, text: String) -> Self {
        Self { exit, words: Words::Text(text) }
    }

    /// Writes what went wrong, the causes behind it after a colon each.
    pub(crate) fn tell(&self, out: &mut impl Write) {
        let text = match &self.words {
            Words::Error(error) => format!("kinetail: {error:#}"),
            Words::Text(text) => text.trim_end().to_owned(),
        };
        if writeln!(out, "{text}").is_err() {
            tracing::debug!("standard error cannot be written to");
        }
    }
}

/// Gives an error its exit code.
pub(crate) trait ExitWith<T> {
    /// Returns the value, or the error as a failure that exits with `exit`.
    fn exit_with(self, exit: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> ExitWith<T> for Result<T, E> {
    fn exit_with(self, exit: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(exit, error))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    fn told(failure: &Failure) -> String {
        let mut out = Vec::new();
        failure.tell(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_error_is_told_with_its_causes_in_one_line() {
        let error = Err::<(), _>(anyhow!("in use")).context("cannot listen");
        let failure = error.exit_with(Exit::Io).unwrap_err();
        assert_eq!(told(&failure), "kinetail: cannot listen: in use\n");
    }

    #[test]
    fn a_list_of_mistakes_stands_by_itself() {
        let failure = Failure::told(Exit::Config, "agent.yaml:1:1: no\n".to_owned());
        assert_eq!(told(&failure), "agent.yaml:1:1: no\n");
    }
}
