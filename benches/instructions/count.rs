//! How many instructions the hot functions take, against the figures recorded in `instructions.txt`.
//!
//! Invariant: the same source, compiler and inputs give the same counts, whatever else the machine does;
//! what is left (the random seed of hash maps, the addresses of memory) is far below [`MARGIN`].
//!
//! ```text
//!  instructions              count every case, print its ratio; 1 where one is above the margin
//!  instructions --record     count every case and write the figures anew
//!  instructions CASE ROUNDS  do the work of a case: what is run under valgrind
//! ```
//!
//! Each case is run twice under callgrind, once with few rounds and once with many, with inputs for
//! the many made both times: the difference is what the rounds alone cost. So start, preparation and
//! end cancel out, and no symbols are needed: what is counted is the binary as it is released.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a tool of development: what cannot be had ends it with the reason"
)]

mod cases;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use self::cases::{CASES, Case};

/// How far a count may be above the recorded one. Two runs of one binary differ by less than 1 %, and
/// buffers that come to lie elsewhere moved a count by 1.7 % at most.
const MARGIN: f64 = 0.05;

/// Rounds that let maps and buffers grow to their size, and are not counted.
const WARM: u32 = 2;

/// Rounds with the counted ones.
const ROUNDS: u32 = 10;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

const HEADER: &str = "\
# Instructions a unit of work, counted by callgrind in a release build on x86-64.
# Written by `benches/instructions.sh --record`; checked by `benches/instructions.sh`.
";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => check(),
        ["--record"] => record(),
        [name, rounds] => {
            let case = CASES.iter().find(|case| case.name == name).context("no such case")?;
            (case.run)(rounds.parse()?, ROUNDS);
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("usage: instructions [--record]"),
    }
}

fn record() -> anyhow::Result<ExitCode> {
    let mut text = HEADER.to_owned();
    for case in CASES {
        let count = per_unit(case)?;
        println!("{:<28} {count:>9.1} a {}", case.name, case.unit);
        writeln!(text, "{:<28} {count:>9.1}  # a {}", case.name, case.unit)?;
    }
    std::fs::write(RECORDED, text)?;
    Ok(ExitCode::SUCCESS)
}

fn check() -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(RECORDED).context(RECORDED)?;
    let mut recorded = figures(&text)?;
    println!("margin {:.2}", 1.0 + MARGIN);
    let mut worse = 0;
    for case in CASES {
        let before = recorded.remove(case.name).with_context(|| {
            format!("no figure for {}: record them anew with --record", case.name)
        })?;
        let count = per_unit(case)?;
        let ratio = count / before;
        let verdict = if ratio > 1.0 + MARGIN {
            worse += 1;
            "WORSE"
        } else if ratio < 1.0 - MARGIN {
            "better: record it"
        } else {
            ""
        };
        println!("{:<28} {count:>9.1} a {:<12} {ratio:.3} {verdict}", case.name, case.unit);
    }
    if let Some(name) = recorded.keys().next() {
        bail!("a figure for {name}, which is no case");
    }
    if worse > 0 {
        println!("{worse} above the recorded figure by more than {:.0} %", MARGIN * 100.0);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads `name figure # remark` lines.
fn figures(text: &str) -> anyhow::Result<BTreeMap<&str, f64>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, figure) = line.split_once(' ').with_context(|| line.to_owned())?;
            Ok((name, figure.trim().parse().with_context(|| line.to_owned())?))
        })
        .collect()
}

fn per_unit(case: &Case) -> anyhow::Result<f64> {
    let counted = count(case, ROUNDS)?.checked_sub(count(case, WARM)?);
    let counted = u32::try_from(counted.context("more rounds took fewer instructions")?)?;
    Ok(f64::from(counted) / f64::from(ROUNDS - WARM) / f64::from(case.units))
}

/// Runs this program under callgrind, and returns the instructions it took.
fn count(case: &Case, rounds: u32) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args([case.name, &rounds.to_string()])
        // The environment lies on the stack and would move it.
        .env_clear()
        // Copies by vectors, not by the string instruction, which counts once a byte: whether a buffer
        // grows where it stands depends on its neighbours, and moved the counts of merging by 10 %.
        .env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1000000000")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(Path::new("/"))
        .output()
        .context("valgrind cannot be started")?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{} under valgrind: {}\n{told}", case.name, output.status);
    }
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    collected.and_then(|(_, count)| count.trim().parse().ok()).context("callgrind told no count")
}
