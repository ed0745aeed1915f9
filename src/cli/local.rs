//! `kinetail local`: the embedded endpoint alone, for development.
//!
//! Invariant: the streams asked for are there before the address is printed.

use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::runtime;

use super::exit::{Exit, ExitWith, Failure};
use super::print;
use crate::local::{Endpoint, Error};
use crate::shutdown::Shutdown;

pub(super) const ABOUT: &str = "\
Run an embedded Kinesis-compatible endpoint with the given streams, for development and tests. It
keeps everything in memory and forgets it when it ends. Any credentials are accepted. Ctrl-C ends
it.";

pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  ended by SIGINT or SIGTERM
  64  the command line is wrong
  74  the address cannot be used, or a stream cannot be created";

/// Shards of a stream: the most that one account has in most regions.
const SHARDS_MAX: u32 = 1000;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4567")]
    listen: SocketAddr,

    /// A stream to create, with its shards (1 where they are left out); may be given many times
    #[arg(long, value_name = "NAME[:SHARDS]")]
    stream: Vec<NewStream>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NewStream {
    name: String,
    shards: u32,
}

impl FromStr for NewStream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, shards) = text.split_once(':').unwrap_or((text, "1"));
        let shards = shards
            .parse()
            .ok()
            .filter(|shards| (1..=SHARDS_MAX).contains(shards))
            .ok_or_else(|| format!("{shards:?} is no number of shards (1 to {SHARDS_MAX})"))?;
        // CreateStream: 1 to 128 of these characters.
        let letter = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !(1..=128).contains(&name.len()) || !name.chars().all(letter) {
            return Err(format!("{name:?} is no stream name (1 to 128 of a-z A-Z 0-9 _ . -)"));
        }
        Ok(Self { name: name.to_owned(), shards })
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut shutdown =
        Shutdown::listen().context("cannot take over signals").exit_with(Exit::Io)?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .exit_with(Exit::Io)?;
    runtime.block_on(Box::pin(async {
        let endpoint = open(arguments).await.exit_with(Exit::Io)?;
        print(welcome(&endpoint.url(), &arguments.stream).as_bytes())?;
        tokio::select! {
            _ = shutdown.asked() => Ok(Exit::Done),
            ended = endpoint.serve() => {
                let error = ended.err().map_or_else(|| anyhow!("the endpoint ended"), Into::into);
                Err(error).exit_with(Exit::Io)
            }
        }
    }))
}

async fn open(arguments: &Arguments) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::bind(arguments.listen).await?;
    for stream in &arguments.stream {
        endpoint.create_stream(&stream.name, stream.shards).await?;
    }
    Ok(endpoint)
}

fn welcome(url: &str, streams: &[NewStream]) -> String {
    let streams = match streams {
        [] => "Streams: none yet; --stream NAME:SHARDS or the AWS CLI creates them.".to_owned(),
        streams => {
            let each: Vec<String> = streams
                .iter()
                .map(|NewStream { name, shards }| match shards {
                    1 => format!("{name} (1 shard)"),
                    shards => format!("{name} ({shards} shards)"),
                })
                .collect();
            format!("Streams: {}", each.join(", "))
        }
    };
    format!(
        "\
Kinesis-compatible endpoint at {url}, in memory. Ctrl-C ends it.
{streams}

agent.yaml:
  aws:
    region: us-east-1
    endpoint_url: {url}

shell (any credentials will do):
  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_DEFAULT_REGION=us-east-1
  aws kinesis list-streams --endpoint-url {url}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NewStream, String> {
        text.parse()
    }

    #[test]
    fn a_stream_is_a_name_and_its_shards() {
        assert_eq!(parse("web:4"), Ok(NewStream { name: "web".to_owned(), shards: 4 }));
        assert_eq!(parse("web"), Ok(NewStream { name: "web".to_owned(), shards: 1 }));
    }

    #[test]
    fn what_is_no_stream_is_told() {
        assert_eq!(parse("web:0").unwrap_err(), "\"0\" is no number of shards (1 to 1000)");
        assert_eq!(parse("web:x").unwrap_err(), "\"x\" is no number of shards (1 to 1000)");
        assert!(parse(":1").unwrap_err().starts_with("\"\" is no stream name"));
        assert!(parse("a b").unwrap_err().starts_with("\"a b\" is no stream name"));
    }

    #[test]
    fn the_welcome_can_be_pasted() {
        let streams = [parse("web:4").unwrap(), parse("audit").unwrap()];
        let text = welcome("http://127.0.0.1:4567", &streams);
        assert!(text.contains("\nStreams: web (4 shards), audit (1 shard)\n"), "{text}");
        assert!(text.contains("\n    endpoint_url: http://127.0.0.1:4567\n"), "{text}");
    }
}
