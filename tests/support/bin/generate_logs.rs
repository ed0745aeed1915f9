//! Generates a directory of logs by hand: `generate-logs DIR SEED FILES BYTES [realistic]`.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a tool of the tests, run by hand"
)]

#[path = ".."]
mod support {
    pub mod generator;
}

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};
use support::generator::{self, realistic};

fn main() -> anyhow::Result<()> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let (dir, seed, files, bytes, realistic) = match &arguments[..] {
        [dir, seed, files, bytes] => (dir, seed, files, bytes, false),
        [dir, seed, files, bytes, kind] if kind == "realistic" => (dir, seed, files, bytes, true),
        _ => bail!("usage: generate-logs DIR SEED FILES BYTES [realistic]"),
    };
    let (seed, files, bytes) = (seed.parse()?, files.parse()?, bytes.parse()?);
    let generate = if realistic { realistic::generate } else { generator::generate };
    let begun = Instant::now();
    let generated = generate(Path::new(dir), seed, files, bytes).context("generate")?;
    let seconds = begun.elapsed().as_secs_f64();
    for file in &generated {
        println!("{} {} bytes {} lines", file.path.display(), file.bytes, file.lines);
    }
    println!("{bytes} bytes in {seconds:.2} s");
    Ok(())
}
