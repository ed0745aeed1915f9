//! `kinetail check`: what a configuration means here and now.
//!
//! Invariant: it changes nothing: no file, no checkpoint, no stream.

use std::fmt::Write;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::runtime;

use super::exit::{Exit, ExitWith, Failure};
use super::figures::{bytes, count, many};
use super::{ConfigFile, load, print};
use crate::config::{Config, Consume, Coordinate, Produce};
use crate::consume::leases::table::Table;
use crate::produce::watch::patterns::{Patterns, Scan};
use crate::stream::aggregating::HINT;
use crate::stream::kinesis::Kinesis;
use crate::stream::read::{Place, ReadError, Readable, Subscribable};
use crate::stream::{Description, Stream, Trouble};

pub(super) const ABOUT: &str = "\
Validate the configuration and show what it means: every setting with its default filled in, the
files that each flow would follow now, and the stream they would be sent to. All mistakes are told
at once, each as FILE:LINE:COLUMN with a hint. Nothing is read from the files and nothing is sent.

With --connect, also ask every stream (DescribeStreamSummary) whether it is there, what it takes,
and whether the credentials found may ask; and of every stream that is consumed the shards and one
record (ListShards, GetShardIterator, GetRecords) or, with fan_out, the consumer
(DescribeStreamSummary, DescribeStreamConsumer), which is not registered yet; and of the table of
leases, where they share one, whether it can be shared (GetItem, DescribeTable).";

pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  the configuration is right; with --connect: and every stream answers
  64  the command line is wrong
  74  with --connect: a stream cannot be reached or used
  78  the configuration is wrong";

/// Files listed for each flow; the rest is counted.
const FILES_SHOWN: usize = 20;

/// `MaxRecordSizeInKiB` of a stream that does not tell: it was never raised.
const DEFAULT_RECORD_KIB: u32 = 1024;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,

    /// Ask every stream, too
    #[arg(long)]
    connect: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let config = load(&arguments.file.config)?;
    let mut answer = config.describe();
    if !answer.ends_with('\n') {
        answer.push('\n');
    }
    for flow in &config.produce {
        let patterns =
            Patterns::new(&flow.files, &flow.exclude).context("files").exit_with(Exit::Config)?;
        answer.push_str(&files(&flow.name, &patterns.scan()));
    }
    print(answer.as_bytes())?;
    if arguments.connect { connect(&config) } else { Ok(Exit::Done) }
}

/// Lists what `flow` would follow now.
fn files(flow: &str, scan: &Scan) -> String {
    let mut out = String::new();
    let size: u64 = scan.files.iter().map(|file| file.facts.size).sum();
    let number = many(scan.files.len() as u64, "file");
    let _infallible = writeln!(out, "\n{flow}: {number} now, {}", bytes(size));
    for file in scan.files.iter().take(FILES_SHOWN) {
        let _infallible =
            writeln!(out, "  {:>11}  {}", bytes(file.facts.size), file.path.display());
    }
    let more = scan.files.len().saturating_sub(FILES_SHOWN);
    if more > 0 {
        let _infallible = writeln!(out, "  and {} more", count(more as u64));
    }
    for (path, error) in &scan.problems {
        let _infallible = writeln!(out, "  cannot read {}: {error}", path.display());
    }
    out
}

fn connect(config: &Config) -> Result<Exit, Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .exit_with(Exit::Io)?;
    let mut refused: u32 = 0;
    for flow in &config.produce {
        let said = runtime.block_on(Box::pin(ask(config, flow)));
        refused = refused.saturating_add(u32::from(said.is_err()));
        let words = said.unwrap_or_else(|words| words);
        print(format!("\n{}: {words}\n", flow.name).as_bytes())?;
    }
    for flow in &config.consume {
        let said = runtime.block_on(Box::pin(consumed(config, flow)));
        refused = refused.saturating_add(u32::from(said.is_err()));
        let words = said.unwrap_or_else(|words| words);
        print(format!("\n{}: {words}\n", flow.name).as_bytes())?;
    }
    let all = config.produce.len().saturating_add(config.consume.len());
    match refused {
        0 => Ok(Exit::Done),
        number => Err(anyhow!("{number} of {all} streams cannot be used")).exit_with(Exit::Io),
    }
}

/// Asks for what a consumer needs: the shards, and an iterator of the first.
async fn consumed(config: &Config, flow: &Consume) -> Result<String, String> {
    let stream = Kinesis::connect(&config.aws, &flow.stream, flow.read.timeout).await;
    let may = |operation: &str| format!("allow kinesis:{operation} on {}", arn(&flow.stream));
    let refused = |error: ReadError, operation: &str| {
        let trouble = match error {
            ReadError::Unavailable { trouble, .. } => Some(trouble),
            _ => None,
        };
        let hint = match trouble {
            Some(Trouble::Access) => format!("may not be read: {}", may(operation)),
            Some(Trouble::Key) => "is encrypted with a key that cannot be used: allow \
                                   kms:Decrypt on it"
                .to_owned(),
            trouble => hint(trouble, &flow.stream),
        };
        format!("{} {hint}\n  {error}", flow.stream)
    };
    let shards = stream.list().await.map_err(|error| refused(error, "ListShards"))?;
    let mut pushed = String::new();
    if let Some(name) = &flow.fan_out {
        let found = stream.consumer(name).await;
        let found = found.map_err(|error| {
            refused(error, "DescribeStreamSummary and kinesis:DescribeStreamConsumer")
        })?;
        let is = found.map_or_else(
            || "not registered yet: the first run does that".to_owned(),
            |found| found.status,
        );
        pushed = format!("\n  pushed to the consumer {name}, which is {is}");
    } else if let Some(shard) = shards.first() {
        let iterator = stream.iterator(&shard.id, &Place::TrimHorizon).await;
        let iterator = iterator.map_err(|error| refused(error, "GetShardIterator"))?;
        // One record at most: whether it may be read is what counts.
        stream.get(&iterator, 1).await.map_err(|error| refused(error, "GetRecords"))?;
    }
    if let Coordinate::DynamoDb(table) = &flow.coordinate {
        let said = Table::of(&config.aws, flow, table).look(table.create).await;
        said.map_err(|problem| format!("{} cannot be shared\n  {problem}", flow.stream))?;
    }
    let open = shards.iter().filter(|shard| !shard.closed).count();
    let closed = shards.len().saturating_sub(open);
    Ok(format!(
        "{} can be read\n  {} open, {} closed{pushed}",
        flow.stream,
        many(open as u64, "shard"),
        count(closed as u64)
    ))
}

async fn ask(config: &Config, flow: &Produce) -> Result<String, String> {
    let stream = Kinesis::connect(&config.aws, &flow.stream, flow.ship.timeout).await;
    match stream.describe().await {
        Ok(description) => usable(&flow.stream, &description, flow.merge.aggregates()),
        Err((trouble, words)) => {
            Err(format!("{} {}\n  {words}", flow.stream, hint(trouble, &flow.stream)))
        }
    }
}

fn usable(name: &str, stream: &Description, aggregates: bool) -> Result<String, String> {
    let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "not told".to_owned());
    let number = |value: Option<u32>| {
        value.map_or_else(|| "not told".to_owned(), |number| count(u64::from(number)))
    };
    let words = format!(
        "{name} answers\n  status {}, mode {}, shards {}, records up to {} KiB\n  \
         distribution {}, encryption {}, ARN {}",
        stream.status,
        or(&stream.mode),
        number(stream.open_shards),
        count(u64::from(stream.max_record_kib.unwrap_or(DEFAULT_RECORD_KIB))),
        or(&stream.distribution),
        or(&stream.encryption),
        or(&stream.arn),
    );
    if aggregates && stream.spreads_by_itself() {
        return Err(format!("{words}\n  {HINT}"));
    }
    // A stream that is UPDATING takes records all the same.
    let takes = matches!(stream.status.as_str(), "ACTIVE" | "UPDATING");
    if takes { Ok(words) } else { Err(format!("{words}\n  it takes no records in this status")) }
}

/// Returns what to look at.
fn hint(trouble: Option<Trouble>, stream: &str) -> String {
    match trouble {
        None => "did not answer: look at aws.region, aws.endpoint_url and the network".to_owned(),
        Some(Trouble::Access) => format!(
            "may not be used: allow kinesis:DescribeStreamSummary and kinesis:PutRecords on {}",
            arn(stream)
        ),
        Some(Trouble::Credentials) => {
            "was asked without usable credentials: look at the role, the profile and the clock"
                .to_owned()
        }
        Some(Trouble::Format) => "does not take records in this format".to_owned(),
        Some(Trouble::Key) => {
            "is encrypted with a key that cannot be used: allow kms:GenerateDataKey on it"
                .to_owned()
        }
        Some(Trouble::Missing) => {
            "does not exist: look at the name, at aws.region and at the account".to_owned()
        }
    }
}

fn arn(stream: &str) -> String {
    if stream.starts_with("arn:") {
        stream.to_owned()
    } else {
        format!("arn:aws:kinesis:*:*:stream/{stream}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_followed_is_listed_up_to_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        for file in 0..FILES_SHOWN + 3 {
            std::fs::write(directory.path().join(format!("{file:02}.log")), "12345\n").unwrap();
        }
        let glob = directory.path().join("*.log").display().to_string();
        let scan = Patterns::new(&[glob], &[]).unwrap().scan();
        let text = files("access", &scan);
        assert!(text.starts_with("\naccess: 23 files now, 138 B\n"), "{text}");
        assert!(text.contains("/00.log\n") && text.ends_with("  and 3 more\n"), "{text}");
    }

    #[test]
    fn a_stream_that_takes_no_records_is_not_usable() {
        let stream =
            |status: &str| Description { status: status.to_owned(), ..Description::default() };
        assert!(usable("web", &stream("ACTIVE"), true).is_ok());
        assert!(usable("web", &stream("UPDATING"), true).is_ok());
        let words = usable("web", &stream("CREATING"), true).unwrap_err();
        insta::assert_snapshot!(words, @r#"
        web answers
          status CREATING, mode not told, shards not told, records up to 1,024 KiB
          distribution not told, encryption not told, ARN not told
          it takes no records in this status
        "#);
    }

    #[test]
    fn aggregated_records_are_refused_where_the_stream_spreads_them() {
        let stream = Description {
            status: "ACTIVE".to_owned(),
            distribution: Some("AUTO".to_owned()),
            ..Description::default()
        };
        assert!(usable("web", &stream, true).unwrap_err().ends_with(HINT));
        assert!(usable("web", &stream, false).is_ok());
    }

    #[test]
    fn the_permission_that_is_missing_is_named() {
        let words = hint(Some(Trouble::Access), "web");
        assert!(words.contains("kinesis:PutRecords on arn:aws:kinesis:*:*:stream/web"), "{words}");
        let words = hint(Some(Trouble::Access), "arn:aws:kinesis:eu-west-1:1:stream/web");
        assert!(words.ends_with(" arn:aws:kinesis:eu-west-1:1:stream/web"), "{words}");
    }
}
