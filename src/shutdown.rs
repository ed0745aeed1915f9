//! Shutdown: the first SIGTERM or SIGINT asks for an orderly end, the second one ends at once.
//!
//! Invariant: ending at once loses nothing. What was settled is committed or will be sent again, as
//! after a power cut; the checkpoint never was ahead.
//!
//! ```text
//! Running ──signal──▶ Draining (until drained, or drain_deadline) ──▶ exit 0 (or 75 for --once)
//!                        └──signal──▶ exit 128 + signal (130, 143), within milliseconds
//! ```

pub mod systemd;

use std::io;
use std::process;
use std::thread;

use tokio::runtime;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::watch;

/// A signal that asks for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: the service manager.
    Terminate,
}

impl Signal {
    /// Returns the signal's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// Returns the exit code of a process that the signal ended, as shells tell it: 128 + number.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Tells when the end is asked for.
#[derive(Clone, Debug)]
pub struct Shutdown {
    asked: watch::Receiver<Option<Signal>>,
}

impl Shutdown {
    /// Takes over SIGTERM and SIGINT for the rest of the process's life.
    ///
    /// They are waited for by a thread of their own: the second one must end the process even where
    /// everything else is stuck.
    ///
    /// # Errors
    /// Where the thread or the signal handlers cannot be had.
    pub fn listen() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let (tell, asked) = watch::channel(None);
        let mut signals = {
            let _inside = runtime.enter();
            Signals::take()?
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tell.send_replace(Some(signals.next().await));
                end_at_once(signals.next().await);
            });
        })?;
        Ok(Self { asked })
    }

    /// Returns whether a signal has come.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.borrow().is_some()
    }

    /// Returns the first signal, once it has come.
    pub async fn asked(&mut self) -> Signal {
        match self.asked.wait_for(Option::is_some).await {
            Ok(signal) => signal.unwrap_or(Signal::Terminate),
            // The thread only ever ends together with the process.
            Err(_) => Signal::Terminate,
        }
    }
}

/// Both signals.
#[derive(Debug)]
struct Signals {
    interrupt: Stream,
    terminate: Stream,
}

impl Signals {
    fn take() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[expect(clippy::exit, reason = "somebody asked twice: nothing may be waited for any more")]
fn end_at_once(signal: Signal) {
    tracing::warn!(signal = signal.name(), "asked twice, ending at once");
    process::exit(signal.exit_code());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal as Raw, getpid, kill_process};

    use super::*;

    #[test]
    fn the_first_signal_is_told_and_the_process_goes_on() {
        let mut shutdown = Shutdown::listen().unwrap();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        kill_process(getpid(), Raw::TERM).unwrap();
        let asked = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(10), shutdown.asked()).await
        });
        assert_eq!(asked.unwrap(), Signal::Terminate);
    }

    #[test]
    fn exit_codes_are_those_of_the_shell() {
        assert_eq!([Signal::Interrupt, Signal::Terminate].map(Signal::exit_code), [130, 143]);
    }
}
