//! `kinetail demo`: the whole road on this machine, and the proof that nothing was lost on it.
//!
//! Invariant: nothing real is touched. The command starts itself again without any `AWS_` variable
//! and with made-up credentials, so that neither it nor the agent under it can find real ones.
//!
//! ```text
//! writer thread ─▶ six logs ─▶ kinetail run (own process) ─▶ endpoint (a thread, 4 shards)
//!      └── what was written ─────────▶ compare ◀──────────── read back, shard by shard
//! ```

mod page;
mod proof;
mod stage;
mod traffic;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;

use self::page::{Live, Outcome};
use self::proof::Proof;
use self::stage::Stage;
use self::traffic::Written;
use super::exit::{Exit, ExitWith, Failure};
use super::prices::PriceArguments;
use super::screen::Style;
use super::{load, print};
use crate::config;
use crate::cost::Prices;
use crate::shutdown::Shutdown;
use crate::status::Status;
use crate::stream::kinesis::Kinesis;

pub(super) const ABOUT: &str = "\
Show on this machine, in under 20 seconds, what kinetail does: an embedded Kinesis-compatible
endpoint, six access logs that are written live and rotated in the middle, and `kinetail run`
following them. Then the stream is read back, split into lines and compared byte for byte with what
was written; and it is shown what the records cost, merged and not, at the prices of us-east-1 or those
that --config or --price give.

Needs no AWS account and no network, reads no credentials, and leaves nothing behind.";

pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  every byte arrived, in order, each once
  70  something differs
  74  the demo could not be run
  75  interrupted";

/// For how long the logs are written.
const WRITING: Duration = Duration::from_secs(6);

/// How long the agent may take for what should take a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often the agent is asked how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// The same logs on every run.
const SEED: u64 = 0x6b69_6e65;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A configuration to take the prices of; nothing else of it is looked at
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    prices: PriceArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if !stage::is_apart() {
        return Err(stage::start_apart())
            .context("cannot start without the environment's credentials")
            .exit_with(Exit::Io);
    }
    let prices = match &arguments.config {
        Some(path) => load(path)?.prices,
        None => Prices::default(),
    };
    let prices = arguments.prices.of(prices);
    let shutdown = Shutdown::listen().context("cannot take over signals").exit_with(Exit::Io)?;
    let style = Style::detect();
    print(page::opening(style).as_bytes())?;
    let outcome = play(&shutdown, style);
    if shutdown.is_asked() {
        return Err(anyhow!("interrupted")).exit_with(Exit::Retry);
    }
    let outcome = outcome.exit_with(Exit::Io)?;
    print(outcome.closing(&prices, style).as_bytes())?;
    Ok(if outcome.verdict.holds() { Exit::Done } else { Exit::Bug })
}

/// Plays all acts; what they need is gone when this returns.
fn play(shutdown: &Shutdown, style: Style) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let live = Live::new(style);
    let mut stage = Stage::open()?;
    live.step("endpoint", &format!("{}, {} shards", stage.url(), stage::SHARDS));
    stage.start_agent()?;
    await_agent(&mut stage)?;
    live.step("agent", "kinetail run, as a process of its own, follows six access logs");

    let writing = Instant::now();
    let written = follow(&mut stage, &live, shutdown)?;
    let wrote = writing.elapsed();
    let bytes: u64 = written.iter().map(|log| log.data.len() as u64).sum();
    let status = drain(&mut stage, &live, bytes)?;
    live.step("shipped", &page::shipped(&status));
    stage.stop_agent()?;

    let mut proof = Proof::new(&written);
    let shards = read_back(stage.url(), &mut proof)?;
    live.step("read back", &page::read_back(shards, &proof.merged));
    let calls = status.flows.iter().map(|flow| flow.sent.calls).sum();
    Ok(Outcome {
        verdict: proof.verdict(),
        merged: proof.merged,
        unmerged: proof.unmerged,
        calls,
        wrote,
        took: started.elapsed(),
    })
}

fn await_agent(stage: &mut Stage) -> anyhow::Result<()> {
    let patience = Instant::now();
    while stage.status()?.is_none() {
        if patience.elapsed() > PATIENCE {
            bail!("the agent did not start in time\n{}", stage.log());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Has a second thread write the logs, and shows how the agent keeps up.
fn follow(stage: &mut Stage, live: &Live, shutdown: &Shutdown) -> anyhow::Result<Vec<Written>> {
    let written = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let logs = stage.logs();
    thread::scope(|scope| {
        let writer = scope.spawn(|| write(&logs, &written, &stop));
        let shown = loop {
            if writer.is_finished() {
                break Ok(());
            }
            if shutdown.is_asked() {
                break Err(anyhow!("interrupted"));
            }
            match stage.status() {
                Ok(status) => {
                    live.follow(status.as_ref(), written.load(Ordering::Relaxed));
                }
                Err(error) => break Err(error),
            }
            thread::sleep(LOOK);
        };
        stop.store(true, Ordering::Relaxed);
        let logs = writer.join().map_err(|_| anyhow!("the writer panicked"))?;
        shown.and(logs)
    })
}

fn write(logs: &Path, written: &AtomicU64, stop: &AtomicBool) -> anyhow::Result<Vec<Written>> {
    traffic::write(logs, WRITING, SEED, |bytes| {
        written.store(bytes, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .context("cannot write the logs")
}

/// Waits until the agent says that the stream has accepted `bytes`.
fn drain(stage: &mut Stage, live: &Live, bytes: u64) -> anyhow::Result<Status> {
    let patience = Instant::now();
    loop {
        let status = stage.status()?.context("the agent does not answer any more")?;
        let accepted: u64 = status.flows.iter().map(|flow| flow.totals.acknowledged_bytes).sum();
        live.follow(Some(&status), bytes);
        if accepted >= bytes {
            // Calls and records are counted a moment after the bytes they settle.
            thread::sleep(LOOK);
            return stage.status()?.context("the agent does not answer any more");
        }
        if patience.elapsed() > PATIENCE {
            let log = stage.log();
            bail!("only {accepted} of {bytes} bytes were shipped in time\n{log}");
        }
        thread::sleep(LOOK);
    }
}

/// Reads the stream from its beginning, shard by shard; returns the number of shards.
fn read_back(url: &str, proof: &mut Proof<'_>) -> anyhow::Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let aws = config::Aws {
        region: Some(stage::REGION.to_owned()),
        endpoint_url: Some(url.to_owned()),
        ..config::Aws::default()
    };
    runtime.block_on(Box::pin(async {
        let stream = Kinesis::connect(&aws, stage::STREAM, PATIENCE).await;
        let shards = stream.shards().await.context("cannot list the shards")?;
        for shard in &shards {
            let mut last = None;
            loop {
                let page = stream
                    .records(shard, last.as_deref())
                    .await
                    .with_context(|| format!("cannot read {shard}"))?;
                for record in &page.records {
                    proof.record(&record.partition_key, &record.data);
                }
                last = page.last.or(last);
                if page.caught_up {
                    break;
                }
            }
        }
        Ok(shards.len())
    }))
}
