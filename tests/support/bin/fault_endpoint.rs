//! A fault endpoint by hand, for measurements with the release binary:
//! `fault-endpoint [--shards N] [--verify DIR] [--faults SEED]`.
//!
//! Prints its URL first. Reads orders from stdin: `heal`, `faults SEED`, `black-hole`, `summary`;
//! at the end of stdin it prints the summary as JSON and ends, 1 where the files did not come
//! whole.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a tool of the tests, run by hand"
)]

#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
#[path = ".."]
mod support {
    pub mod endpoint;
    pub mod reassembler;
}

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use support::endpoint::{
    CallFault, EntryFault, EntryOutcome, FaultEndpoint, Log, Options, Script, Throttle,
};
use support::reassembler::Reassembler;

fn main() -> anyhow::Result<ExitCode> {
    // Without `--verify` the data is thrown away: a measurement must not fill the memory.
    let mut options = Options { sink: Some(Box::new(|_| {})), ..Options::default() };
    let mut script = Script::healthy();
    let mut verified = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        match &*name {
            "--shards" => options.shards = value.parse()?,
            "--faults" => script = faults(value.parse()?),
            "--verify" => {
                let reassembler =
                    Arc::new(Mutex::new(Reassembler::new(files(Path::new(&value))?)?));
                options.sink = Some(Reassembler::sink(&reassembler));
                verified = Some(reassembler);
            }
            _ => bail!("usage: fault-endpoint [--shards N] [--verify DIR] [--faults SEED]"),
        }
    }
    let endpoint = FaultEndpoint::start_with(options, script);
    println!("{}", endpoint.url());
    for order in std::io::stdin().lines() {
        match order?.split_whitespace().collect::<Vec<_>>()[..] {
            ["heal"] => endpoint.set_script(Script::healthy()),
            ["faults", seed] => endpoint.set_script(faults(seed.parse()?)),
            ["black-hole"] => endpoint.set_script(Script::black_hole()),
            ["summary"] => println!("{}", endpoint.with_log(summary)),
            _ => eprintln!("orders: heal, faults SEED, black-hole, summary"),
        }
    }
    let mut summary = endpoint.with_log(summary);
    let verdict = verified.map(|reassembler| reassembler.lock().unwrap().finish());
    let whole = !matches!(verdict, Some(Err(_)));
    summary["verified"] = match verdict {
        None => Value::Null,
        Some(Ok(came)) => json!({ "bytes": came.bytes, "duplicate_bytes": came.duplicate_bytes }),
        Some(Err(mistakes)) => mistakes.into(),
    };
    println!("{summary}");
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The faults of every day, more of them: 5 % of the entries refused, 2 % of the calls 500, 1 % cut
/// after storing, the first 200 entries of a shard throttled.
fn faults(seed: u64) -> Script {
    Script::seeded(seed)
        .entry(EntryFault::InternalFailure, 0.05)
        .call(CallFault::InternalFailure, 0.02)
        .call(CallFault::CutAfterStoring, 0.01)
        .throttle(0, Throttle::Entries(200))
}

/// Returns the files beneath a directory.
fn files(dir: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// Returns the log in figures.
fn summary(log: &Log) -> Value {
    let refused =
        log.puts().flat_map(|put| &put.outcomes).filter(|o| **o != EntryOutcome::Accepted);
    let ends = log.puts().map(|put| put.at).min().zip(log.puts().map(|put| put.at).max());
    let span = ends.map(|(first, last)| last - first);
    json!({
        "requests": log.requests.len(),
        "put_requests": log.puts().count(),
        "entries": log.puts().map(|put| put.entries).sum::<usize>(),
        "refused_entries": refused.count(),
        "largest_call": {
            "records": log.puts().map(|put| put.entries).max(),
            "bytes": log.puts().map(|put| put.bytes).max(),
        },
        "stored_records": log.stored,
        "stored_bytes": log.stored_bytes,
        "resent_accepted": log.resent_accepted.len(),
        "seconds": span.map_or(0.0, |span| span.as_secs_f64()),
    })
}
