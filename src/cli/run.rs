//! `kinetail run`: the life of the agent in order.
//!
//! Invariant: once the agent runs it is always shut down in order, whatever asked for the end; the
//! exit code says whether what was asked for is done.
//!
//! ```text
//! configuration ─▶ signals ─▶ agent (state directory) ─▶ control socket, metrics ─▶ READY
//!        ─▶ until a signal, or --once and all is done ─▶ STOPPING ─▶ drain ─▶ exit code
//! ```

mod progress;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::{self, Interval, MissedTickBehavior};

use self::progress::{Bar, Closing, Lines, Progress};
use super::exit::{Exit, ExitWith, Failure};
use super::{ConfigFile, load, print};
use crate::agent::{self, Agent, Handle, Mode, Summary};
use crate::config::Config;
use crate::control::{self, StatusSource};
use crate::metrics;
use crate::shutdown::{Shutdown, Signal, systemd};

pub(super) const ABOUT: &str = "\
Follow the files of every flow, merge their lines into records, and ship the records to their
streams; read the streams that are consumed, and write their lines to files. How far every file has
been accepted, and every shard been written, is kept in the state directory, so that a run goes on
where the last one ended, however that ended.

With --once, ship what is there now and exit: every byte that the files hold at the start is waited
for, and a progress bar is shown where standard error is a terminal. Streams that are consumed are
then written up to their tips.

SIGTERM and SIGINT stop reading, wait for what is in flight (at most drain_deadline), commit, and
exit. A second signal ends at once; what was in flight is then sent again by the next run.";

pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  ended as asked; with --once: every byte present at the start is acknowledged
  64  the command line is wrong
  70  a bug
  74  the state directory, the control socket or the metrics address cannot be used;
      with --once: something had to be put into the dead-letter store
  75  another agent holds the state directory;
      with --once: interrupted before the end, run it again to go on
  78  the configuration is wrong
 130  a second SIGINT ended it at once
 143  a second SIGTERM ended it at once";

/// How often progress is looked at on a terminal.
const BAR_INTERVAL: Duration = Duration::from_millis(200);

/// How often progress is logged elsewhere.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) file: ConfigFile,

    /// Ship what is there now, then exit
    #[arg(long)]
    once: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let config = load(&arguments.file.config)?;
    control::path_in(&config.state_dir).exit_with(Exit::Config)?;
    let shutdown = Shutdown::listen().context("cannot take over signals").exit_with(Exit::Io)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .exit_with(Exit::Io)?;
    let mode = if arguments.once { Mode::Once } else { Mode::Follow };
    runtime.block_on(Box::pin(live(config, mode, shutdown)))
}

async fn live(config: Config, mode: Mode, mut shutdown: Shutdown) -> Result<Exit, Failure> {
    let started = Instant::now();
    let (state_dir, deadline) = (config.state_dir.clone(), config.drain_deadline);
    let metrics = config.metrics;
    let mut agent = Agent::start(config, mode).await.map_err(refusal)?;
    let handle = agent.handle();
    let services = match serve(&state_dir, metrics, &handle).await {
        Ok(services) => services,
        Err(failure) => {
            agent.shutdown(Duration::ZERO).await;
            return Err(failure);
        }
    };
    systemd::ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "running");
    let end = until_the_end(&mut agent, &handle, &mut shutdown, mode).await;
    systemd::stopping();
    if let End::Asked(signal) = end {
        tracing::info!(signal = signal.name(), deadline = ?deadline, "draining");
    }
    let summary = agent.shutdown(deadline).await;
    // Whoever asks while the agent drains is still answered.
    drop(services);
    conclude(mode, end, &summary, started.elapsed())
}

/// Starts what answers for the agent. The state directory is held by now: where another agent has
/// it, that is what is told, and not that its sockets are in use.
async fn serve(
    state_dir: &Path,
    metrics: Option<SocketAddr>,
    handle: &Handle,
) -> Result<JoinSet<()>, Failure> {
    let mut services = JoinSet::new();
    services
        .spawn(control::server::Server::bind(state_dir).exit_with(Exit::Io)?.serve(handle.clone()));
    if let Some(address) = metrics {
        let server = metrics::server::Server::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} (metrics.listen)"))
            .exit_with(Exit::Io)?;
        // Where port 0 was asked for, the port is only known now.
        let address = server.address().unwrap_or(address);
        services.spawn(server.serve(handle.clone()));
        tracing::info!(%address, "metrics are served");
    }
    Ok(services)
}

fn refusal(error: agent::Error) -> Failure {
    let exit = if error.is_in_use() { Exit::Retry } else { Exit::Io };
    Failure::new(exit, error)
}

/// Why a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A signal came.
    Asked(Signal),
    /// Every flow is through.
    Itself,
}

async fn until_the_end(
    agent: &mut Agent,
    handle: &Handle,
    shutdown: &mut Shutdown,
    mode: Mode,
) -> End {
    let bar = matches!(mode, Mode::Once) && io::stderr().is_terminal();
    let mut progress: Option<Box<dyn Progress>> = match mode {
        Mode::Follow => None,
        Mode::Once if bar => Some(Box::new(Bar::new())),
        Mode::Once => Some(Box::new(Lines::new(Instant::now()))),
    };
    let mut look = every(if bar { BAR_INTERVAL } else { LOG_INTERVAL });
    let mut watchdog = systemd::watchdog_interval().map(every);
    let mut ended = pin!(agent.ended());
    let end = loop {
        tokio::select! {
            signal = shutdown.asked() => break End::Asked(signal),
            () = &mut ended => break End::Itself,
            _ = look.tick(), if progress.is_some() => {
                let status = handle.status().await;
                if let Some(progress) = &mut progress {
                    progress.show(&status, Instant::now());
                }
            }
            () = tick(&mut watchdog) => {
                // Only an agent that still answers is alive.
                handle.status().await;
                systemd::alive();
            }
        }
    };
    if let Some(progress) = &mut progress {
        progress.clear();
    }
    end
}

fn every(period: Duration) -> Interval {
    let mut interval = time::interval_at(time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn conclude(mode: Mode, end: End, summary: &Summary, took: Duration) -> Result<Exit, Failure> {
    let closing = Closing::of(&summary.status, took);
    match mode {
        Mode::Once => {
            print(format!("{closing}\n").as_bytes())?;
        }
        Mode::Follow => tracing::info!(settled = summary.settled, "{closing}"),
    }
    let letters = summary.dead_lettered;
    match verdict(mode, end, summary.settled, letters) {
        Exit::Io => Err(anyhow!("{letters} records could not be sent: see the dead-letter store"))
            .exit_with(Exit::Io),
        Exit::Retry => {
            Err(anyhow!("interrupted before everything was sent: run it again to go on"))
                .exit_with(Exit::Retry)
        }
        Exit::Bug => Err(anyhow!("every flow ended by itself")).exit_with(Exit::Bug),
        exit => Ok(exit),
    }
}

/// Returns how a run ends. A follower that could not drain in time has done what it was asked: its
/// positions are committed, and the next run sends the rest.
fn verdict(mode: Mode, end: End, settled: bool, dead_lettered: u64) -> Exit {
    match (mode, end) {
        (Mode::Follow, End::Itself) => Exit::Bug,
        (Mode::Once, End::Asked(_)) => Exit::Retry,
        (Mode::Once, End::Itself) if !settled => Exit::Retry,
        (Mode::Once, End::Itself) if dead_lettered > 0 => Exit::Io,
        (Mode::Follow, End::Asked(_)) | (Mode::Once, End::Itself) => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_is_done_only_when_everything_is_acknowledged() {
        let asked = End::Asked(Signal::Terminate);
        assert_eq!(verdict(Mode::Once, End::Itself, true, 0), Exit::Done);
        assert_eq!(verdict(Mode::Once, End::Itself, true, 1), Exit::Io);
        assert_eq!(verdict(Mode::Once, End::Itself, false, 0), Exit::Retry);
        assert_eq!(verdict(Mode::Once, asked, true, 0), Exit::Retry);
    }

    #[test]
    fn a_follower_that_was_asked_to_end_has_done_its_work() {
        let asked = End::Asked(Signal::Interrupt);
        assert_eq!(verdict(Mode::Follow, asked, false, 3), Exit::Done);
        assert_eq!(verdict(Mode::Follow, End::Itself, true, 0), Exit::Bug);
    }
}
