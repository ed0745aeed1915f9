//! A configuration in words, as `kinetail check` prints it.
//!
//! Invariant: everything that decides what is followed and where it goes is said, and nothing that
//! could be a secret: of the endpoint only what the configuration allows in it.

use std::fmt::{self, Write};
use std::time::Duration;

use super::reader::shown;
use super::units::{Period, Size};
use super::{
    Aws, Compression, Config, Consume, ConsumeStart, Coordinate, Format, Layout, Multiline,
    OnOversize, PartitionKey, Produce, Rotate, StartAt,
};
use crate::record::split::By;

impl Config {
    /// Returns what the configuration does, in words, one setting a line; ends with a newline.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = write_config(&mut text, self);
        text
    }
}

fn write_config(out: &mut String, config: &Config) -> fmt::Result {
    writeln!(out, "state     {}", config.state_dir.display())?;
    for (index, part) in aws(&config.aws).iter().enumerate() {
        writeln!(out, "{:<9} {part}", if index == 0 { "aws" } else { "" })?;
    }
    match config.metrics {
        Some(address) => writeln!(out, "metrics   at {address}")?,
        None => writeln!(out, "metrics   off")?,
    }
    writeln!(out, "prices    {}", config.prices.as_of)?;
    let (interval, deadline) = (Period(config.checkpoint_interval), Period(config.drain_deadline));
    writeln!(out, "commit    every {interval}; drained within {deadline} when told to stop")?;
    config.produce.iter().try_for_each(|flow| write_flow(out, flow))?;
    config.consume.iter().try_for_each(|flow| write_consumer(out, flow))
}

fn write_consumer(out: &mut String, flow: &Consume) -> fmt::Result {
    writeln!(out, "\nflow {}", flow.name)?;
    writeln!(out, "  reads     {}", flow.stream)?;
    writeln!(out, "  into      {}", flow.directory.display())?;
    match flow.layout {
        Layout::Append => writeln!(out, "  layout    appended, each line once, to {}", flow.path)?,
        Layout::Mirror => {
            writeln!(out, "  layout    mirrored, byte for byte, as {}", flow.path)?;
        }
    }
    writeln!(out, "  others    lines of no known file are appended to {}", flow.other_path)?;
    writeln!(out, "  split     {}", split(&flow.split))?;
    let start = match flow.start_at {
        ConsumeStart::TrimHorizon => "at the oldest record".to_owned(),
        ConsumeStart::Latest => "at what arrives from the very first start on".to_owned(),
        ConsumeStart::Time(millis) => format!("at what arrived {millis} ms after 1970 or later"),
    };
    writeln!(out, "  start     {start}")?;
    if let Coordinate::DynamoDb(table) = &flow.coordinate {
        let (name, failover) = (&table.name, Period(table.failover));
        let made = if table.create { ", created if it is not there" } else { "" };
        writeln!(out, "  shared    by leases in the DynamoDB table {name}{made}")?;
        writeln!(
            out,
            "            those of an agent without a sign of life go over after {failover}"
        )?;
        if let Some(url) = &table.endpoint_url {
            writeln!(out, "            endpoint {url}")?;
        }
    }
    if let Some(consumer) = &flow.fan_out {
        writeln!(out, "  fan-out   by the consumer {consumer}, registered if it is not there")?;
    }
    if flow.layout == Layout::Append {
        writeln!(out, "  rotation  {}", rotation(&flow.rotate))?;
    }
    writeln!(
        out,
        "  writing   up to {} open, {} in all",
        counted(flow.write.open_files, "file"),
        thousands(flow.write.max_files),
    )?;
    let read = &flow.read;
    let asks = match flow.fan_out {
        Some(_) => String::new(),
        None => format!("asks every {}; ", Period(read.poll_interval)),
    };
    let (buffer, timeout) = (shown(read.buffer), Period(read.timeout));
    writeln!(out, "  reading   up to {buffer} in memory; {asks}{timeout} to answer")
}

fn split(by: &By) -> String {
    match by {
        By::Content => "by content".to_owned(),
        By::Delimiter(delimiter) => format!("by \"{}\"", delimiter.escape_ascii()),
        By::JsonArray => "as JSON arrays".to_owned(),
        By::Kpl => "KPL aggregates only".to_owned(),
        By::Nothing => "not at all".to_owned(),
    }
}

fn rotation(rotate: &Rotate) -> String {
    let size = rotate.max_bytes.map(|bytes| Size(bytes).to_string());
    let age = rotate.max_age.map(|age| Period(age).to_string());
    let bounds: Vec<String> = [size, age].into_iter().flatten().collect();
    if bounds.is_empty() {
        return "never".to_owned();
    }
    let compressed = match rotate.compression {
        Some(algorithm) => format!(", compressed by {}", algorithm.name()),
        None => String::new(),
    };
    format!("at {}{compressed}", either(&bounds))
}

fn write_flow(out: &mut String, flow: &Produce) -> fmt::Result {
    writeln!(out, "\nflow {}", flow.name)?;
    write_patterns(out, "files", &flow.files)?;
    write_patterns(out, "except", &flow.exclude)?;
    writeln!(out, "  stream    {}", flow.stream)?;
    writeln!(out, "  records   {}", records(flow))?;
    if let Some(multiline) = &flow.multiline {
        writeln!(out, "  groups    {}", groups(multiline))?;
    }
    writeln!(out, "  key       {}", key(&flow.partition_key))?;
    let start = match flow.start_at {
        StartAt::Beginning => "at the beginning of every file",
        StartAt::End => "at the end of files there at the very first start",
    };
    writeln!(out, "  start     {start}")?;
    let oversize = match flow.on_oversize {
        OnOversize::Skip => "left out, and counted",
        OnOversize::Split => "sent in several records",
        OnOversize::Truncate => "cut, and the rest counted",
    };
    writeln!(out, "  oversize  a line over the record limit is {oversize}")?;
    let tail = &flow.tail;
    writeln!(
        out,
        "  reading   up to {} in memory and {} files open; looks around every {}",
        shown(tail.buffer),
        thousands(tail.open_files),
        Period(tail.scan_interval),
    )?;
    let ship = &flow.ship;
    writeln!(
        out,
        "  sending   up to {} records or {} bytes a call, {} in flight; {} to answer",
        thousands(ship.request_records),
        thousands(ship.request_bytes),
        counted(ship.in_flight, "call"),
        Period(ship.timeout),
    )?;
    let joined = ship.joined_bytes.min(ship.request_bytes);
    if flow.merge.joins() && joined > flow.merge.max_bytes {
        let joined = thousands(joined);
        writeln!(out, "            what waits for its key goes joined, up to {joined} bytes")?;
    }
    Ok(())
}

fn write_patterns(out: &mut String, label: &str, patterns: &[String]) -> fmt::Result {
    for (index, pattern) in patterns.iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        writeln!(out, "  {label:<9} {pattern}")?;
    }
    Ok(())
}

fn aws(aws: &Aws) -> Vec<String> {
    let region = aws.region.as_deref().unwrap_or("from the environment or profile");
    let mut parts = vec![format!("region {region}")];
    parts.extend(aws.endpoint_url.as_ref().map(|url| format!("endpoint {url}")));
    parts.extend(aws.profile.as_ref().map(|profile| format!("profile {profile}")));
    parts.extend(aws.assume_role.as_ref().map(|role| format!("role {}", role.role_arn)));
    parts
}

fn records(flow: &Produce) -> String {
    let merge = &flow.merge;
    let unit = if flow.multiline.is_some() { "group" } else { "line" };
    let joined = match &merge.format {
        Format::JsonArray => format!("whole {unit}s as a JSON array"),
        Format::Kpl => format!("whole {unit}s as user records of KPL aggregates"),
        Format::Lines { delimiter } => {
            format!("whole {unit}s joined by \"{}\"", delimiter.escape_ascii())
        }
        Format::None => return format!("one {unit} a record"),
    };
    let lines =
        merge.max_lines.map(|lines| counted(usize::try_from(lines).unwrap_or(usize::MAX), "line"));
    let bytes = Some(format!("{} bytes", thousands(merge.max_bytes)));
    let waits = merge.max_age > Duration::ZERO;
    let age = waits.then(|| Period(merge.max_age).to_string());
    let bounds: Vec<String> = [lines, bytes, age].into_iter().flatten().collect();
    let patience = if waits { "" } else { ", never waiting" };
    let text = format!("{joined}, up to {}{patience}", either(&bounds));
    match merge.compression {
        Some(Compression::Gzip(level)) => format!("{text}; compressed by gzip, level {level}"),
        Some(Compression::Zstd(level)) => format!("{text}; compressed by zstd, level {level}"),
        None => text,
    }
}

/// Returns the bounds as a sentence says them: `a, b or c`.
fn either(bounds: &[String]) -> String {
    match bounds.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn groups(multiline: &Multiline) -> String {
    format!(
        "a line that matches {} begins a group; up to {} bytes or {}",
        multiline.start,
        thousands(multiline.max_bytes),
        Period(multiline.max_age),
    )
}

fn key(key: &PartitionKey) -> String {
    match key {
        PartitionKey::Constant(key) => format!("\"{}\" for every line", key.escape_debug()),
        PartitionKey::File => "one for each file, kept when it is renamed".to_owned(),
        PartitionKey::Host => "the host's name".to_owned(),
        PartitionKey::JsonField(path) => format!("the JSON field {}", path.join(".")),
        PartitionKey::Random => "a fresh one for each record".to_owned(),
        PartitionKey::Regex(regex) => format!("the first group of {regex}"),
    }
}

fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number))
}

/// Returns a number with a comma before every third digit from the right.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (25_000, "25,000")] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn a_small_configuration_is_described_with_its_defaults() {
        let text = "produce: [{ name: app, files: [/var/log/app.log], stream: logs }]";
        let config = Config::parse(text, "agent.yaml").unwrap();
        insta::assert_snapshot!(config.describe(), @r#"
        state     /var/lib/kinetail
        aws       region from the environment or profile
        metrics   off
        prices    us-east-1, November 2026
        commit    every 1 s; drained within 10 s when told to stop

        flow app
          files     /var/log/app.log
          stream    logs
          records   whole lines joined by "\n", up to 25,000 bytes or 1 s
          key       one for each file, kept when it is renamed
          start     at the beginning of every file
          oversize  a line over the record limit is sent in several records
          reading   up to 8 MiB in memory and 512 files open; looks around every 10 s
          sending   up to 500 records or 1,000,000 bytes a call, 4 calls in flight; 30 s to answer
                    what waits for its key goes joined, up to 500,000 bytes
        "#);
    }

    #[test]
    fn consuming_flows_are_described() {
        let text = "
consume:
  - name: a
    stream: s
    directory: /srv/a
    coordinate: { dynamodb_table: web, create_table: true }
    rotate: { max_bytes: 1 GiB, max_age: 1 d, compression: zstd }
  - { name: b, stream: s, directory: /srv/b, layout: mirror, split: { delimiter: \"#\" }, start_at: latest }
";
        let config = Config::parse(text, "agent.yaml").unwrap();
        insta::assert_snapshot!(config.describe(), @r##"
        state     /var/lib/kinetail
        aws       region from the environment or profile
        metrics   off
        prices    us-east-1, November 2026
        commit    every 1 s; drained within 10 s when told to stop

        flow a
          reads     s
          into      /srv/a
          layout    appended, each line once, to {stream}/{host}/{file}
          others    lines of no known file are appended to {stream}/{shard}.log
          split     by content
          start     at the oldest record
          shared    by leases in the DynamoDB table web, created if it is not there
                    those of an agent without a sign of life go over after 10 s
          rotation  at 1 GiB or 1 d, compressed by zstd
          writing   up to 256 files open, 100,000 in all
          reading   up to 32 MiB in memory; asks every 1 s; 30 s to answer

        flow b
          reads     s
          into      /srv/b
          layout    mirrored, byte for byte, as {host}/{path}
          others    lines of no known file are appended to {stream}/{shard}.log
          split     by "#"
          start     at what arrives from the very first start on
          writing   up to 256 files open, 100,000 in all
          reading   up to 32 MiB in memory; asks every 1 s; 30 s to answer
        "##);
    }

    const FULL: &str = r##"
state_dir: /srv/state
aws:
  region: eu-west-1
  endpoint_url: http://127.0.0.1:4567
  profile: logs
  assume_role: { role_arn: "arn:aws:iam::123456789012:role/logs" }
metrics: { listen: "127.0.0.1:9598" }
produce:
  - name: access
    files: ["/var/log/nginx/access*.log", "/srv/*/log/**/*.log"]
    exclude: ["*.gz"]
    stream: web
    start_at: end
    merge: { delimiter: "#-#", max_lines: 10, max_age: 0 }
    partition_key: { regex: '^(\S+)' }
    on_oversize: truncate
  - name: trace
    files: [/var/log/trace.log]
    stream: arn:aws:kinesis:eu-west-1:123456789012:stream/trace
    merge: { format: json_array, max_age: 250 ms, compression: { zstd: 7 } }
    multiline: { start: '^\d{4}-' }
    partition_key: { json_field: user.id }
    on_oversize: skip
    ship: { in_flight: 1 }
  - name: single
    files: [/var/log/single.log]
    stream: web
    merge: { format: none }
    partition_key: { constant: k }
"##;

    #[test]
    fn a_full_configuration_is_described() {
        let config = Config::parse(FULL, "agent.yaml").unwrap();
        insta::assert_snapshot!(config.describe(), @r##"
        state     /srv/state
        aws       region eu-west-1
                  endpoint http://127.0.0.1:4567
                  profile logs
                  role arn:aws:iam::123456789012:role/logs
        metrics   at 127.0.0.1:9598
        prices    us-east-1, November 2026
        commit    every 1 s; drained within 10 s when told to stop

        flow access
          files     /var/log/nginx/access*.log
                    /srv/*/log/**/*.log
          except    *.gz
          stream    web
          records   whole lines joined by "#-#", up to 10 lines or 25,000 bytes, never waiting
          key       the first group of ^(\S+)
          start     at the end of files there at the very first start
          oversize  a line over the record limit is cut, and the rest counted
          reading   up to 8 MiB in memory and 512 files open; looks around every 10 s
          sending   up to 500 records or 1,000,000 bytes a call, 4 calls in flight; 30 s to answer

        flow trace
          files     /var/log/trace.log
          stream    arn:aws:kinesis:eu-west-1:123456789012:stream/trace
          records   whole groups as a JSON array, up to 25,000 bytes or 250 ms; compressed by zstd, level 7
          groups    a line that matches ^\d{4}- begins a group; up to 1,048,576 bytes or 1 s
          key       the JSON field user.id
          start     at the beginning of every file
          oversize  a line over the record limit is left out, and counted
          reading   up to 8 MiB in memory and 512 files open; looks around every 10 s
          sending   up to 500 records or 1,000,000 bytes a call, 1 call in flight; 30 s to answer

        flow single
          files     /var/log/single.log
          stream    web
          records   one line a record
          key       "k" for every line
          start     at the beginning of every file
          oversize  a line over the record limit is sent in several records
          reading   up to 8 MiB in memory and 512 files open; looks around every 10 s
          sending   up to 500 records or 1,000,000 bytes a call, 4 calls in flight; 30 s to answer
        "##);
    }
}
