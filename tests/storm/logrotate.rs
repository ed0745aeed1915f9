//! The real logrotate, run again and again over all logs of a directory.
//!
//! Its `postrotate` script tells the writers to open their logs anew and waits until they have, as a
//! daemon's reload does:
//!
//! ```text
//!  logrotate ── sh: echo > asked ─▶ Reload (a thread) ─▶ writers ── reopened ─▶ sh: read < done ─▶ goes on
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::writers::Writers;

/// logrotate with a configuration of its own.
#[derive(Debug)]
pub struct Logrotate {
    config: PathBuf,
    state: PathBuf,
}

impl Logrotate {
    /// Writes a configuration with `directives` for all `*.log` in `logs`; `{dir}` in them stands for
    /// `dir`, where its files are.
    #[must_use]
    pub fn new(dir: &Path, logs: &Path, directives: &str) -> Self {
        let (config, state) = (dir.join("logrotate.conf"), dir.join("logrotate.state"));
        let directives = directives.replace("{dir}", &dir.display().to_string());
        fs::write(&config, format!("{}/*.log {{\n{directives}\n}}\n", logs.display())).unwrap();
        Self { config, state }
    }

    /// Rotates every log once.
    pub fn run(&self) {
        let mut command = Command::new("logrotate");
        command.arg("-f").arg("-s").arg(&self.state).arg(&self.config);
        let output = command.output().expect("logrotate is installed by tests/rotation-storm");
        let errors = String::from_utf8_lossy(&output.stderr);
        // With dateext a second rotation within a second finds its name taken and leaves the log be.
        let serious = |line: &&str| line.contains("error:") && !line.contains("already exists");
        let errors: Vec<_> = errors.lines().filter(serious).collect();
        assert!(errors.is_empty(), "logrotate: {errors:?}");
    }
}

/// Answers the `postrotate` script. Dropping it ends it.
#[derive(Debug)]
pub struct Reload {
    asked: PathBuf,
    thread: Option<JoinHandle<()>>,
}

/// What a `postrotate` script does.
pub const POSTROTATE: &str =
    "postrotate\n echo reload > {dir}/asked; read answer < {dir}/done\nendscript";

impl Reload {
    /// Starts to answer scripts of a configuration in `dir`.
    #[must_use]
    pub fn start(dir: &Path, writers: &Arc<Writers>) -> Self {
        let (asked, done) = (dir.join("asked"), dir.join("done"));
        let made = Command::new("mkfifo").args([&asked, &done]).status().unwrap();
        assert!(made.success());
        let (writers, inbox) = (Arc::clone(writers), asked.clone());
        let thread = thread::spawn(move || {
            // Reading a pipe waits until somebody has written to it and closed it.
            while fs::read_to_string(&inbox).unwrap() == "reload\n" {
                writers.reopen();
                fs::write(&done, "reloaded\n").unwrap();
            }
        });
        Self { asked, thread: Some(thread) }
    }
}

impl Drop for Reload {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if !thread::panicking() {
            fs::write(&self.asked, "end\n").unwrap();
            thread.join().unwrap();
        }
    }
}
