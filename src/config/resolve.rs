//! Resolving: what the document means, every setting within its limits and in accord with the
//! others.
//!
//! Invariant: a configuration comes out only where no mistake was told; so inside, a mistaken
//! setting is replaced by its default, and reading goes on to find the others.

mod aws;
mod consume;
mod flow;
mod merge;
mod pattern;
mod prices;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::diagnostic::{At, Mistakes, quote};
use super::document::{Node, Value};
use super::reader::{Block, Slot};
use super::schema;
use super::{Aws, Config, Consume, Produce, defaults, limits};
use crate::cost::Prices;
use consume::Consumer;
use flow::Flow;

/// Returns what the document means, or notes at least one mistake.
pub(super) fn resolve(root: &Node, mistakes: &mut Mistakes) -> Option<Config> {
    match root.value {
        Value::Map(_) => {}
        Value::Null => {
            mistakes.tell(root.at, "the file is empty", "agent.yaml.example shows what it can say");
            return None;
        }
        _ => {
            let message = format!("the file must be a map of keys, not {}", root.value.kind());
            mistakes.tell(root.at, message, "it begins as in `produce:`");
            return None;
        }
    }
    let top = Block::open(Slot { key: "", node: root, entry: false }, &schema::TOP, mistakes)?;
    let state_dir = top
        .field("state_dir", PathBuf::from(defaults::STATE_DIR), |slot| state_dir(slot, mistakes));
    let aws = top.field("aws", Aws::default(), |slot| aws::aws(slot, mistakes)).value;
    let metrics = top.slot("metrics").and_then(|slot| metrics(slot, mistakes));
    let prices = top.field("prices", Prices::default(), |slot| prices::prices(slot, mistakes));
    let checkpoint_interval =
        top.field("checkpoint_interval", defaults::CHECKPOINT_INTERVAL, |slot| {
            slot.duration(&limits::CHECKPOINT_INTERVAL, mistakes)
        });
    let drain_deadline = top.field("drain_deadline", defaults::DRAIN_DEADLINE, |slot| {
        slot.duration(&limits::DRAIN_DEADLINE, mistakes)
    });
    let flows = flows(&top, mistakes)?;
    let consumers = consumers(&top, mistakes)?;
    compare(&flows, &aws, mistakes);
    let state = state_dir.sound.then_some(&*state_dir.value);
    compare_consumers(&consumers, &flows, &aws, state, mistakes);
    let produce: Option<Vec<Produce>> = flows.into_iter().map(|flow| flow.produce).collect();
    let consume: Option<Vec<Consume>> = consumers.into_iter().map(|one| one.consume).collect();
    Some(Config {
        state_dir: state_dir.value,
        aws,
        produce: produce?,
        consume: consume?,
        metrics,
        prices: prices.value,
        checkpoint_interval: checkpoint_interval.value,
        drain_deadline: drain_deadline.value,
    })
}

fn state_dir(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<PathBuf> {
    let path = PathBuf::from(slot.text(mistakes)?);
    if !path.is_absolute() {
        slot.tell("must be an absolute path", "`~` and variables are not expanded", mistakes);
        return None;
    }
    if path.parent().is_none() {
        slot.tell("cannot be the root directory", "", mistakes);
        return None;
    }
    Some(path)
}

fn metrics(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<SocketAddr> {
    let hint = "write an IP address and a port, as in \"127.0.0.1:9598\"";
    let slot = Block::open(slot, &schema::METRICS, mistakes)?.slot("listen")?;
    let Value::Text(text) = &slot.node.value else {
        slot.wrong_kind("must be an address", hint, mistakes);
        return None;
    };
    let address = text.parse().ok();
    if address.is_none() {
        slot.tell(&format!("cannot be {}", quote(text)), hint, mistakes);
    }
    address
}

/// Reads the entries of `produce`, which may be missing where there is `consume`.
fn flows(top: &Block<'_>, mistakes: &mut Mistakes) -> Option<Vec<Flow>> {
    let hint = "begin each entry with `- name:`";
    if top.slot("produce").is_none() && top.slot("consume").is_some() {
        return Some(Vec::new());
    }
    let entries = top.required("produce", hint, mistakes)?.list(hint, mistakes)?;
    Some(entries.into_iter().map(|entry| flow::flow(entry, mistakes)).collect())
}

/// Reads the entries of `consume`.
fn consumers(top: &Block<'_>, mistakes: &mut Mistakes) -> Option<Vec<Consumer>> {
    let Some(slot) = top.slot("consume") else { return Some(Vec::new()) };
    let entries = slot.list("begin each entry with `- name:`", mistakes)?;
    Some(entries.into_iter().map(|entry| consume::consumer(entry, mistakes)).collect())
}

/// Tells of flows that get in each other's way, or that the `aws` block contradicts.
fn compare(flows: &[Flow], aws: &Aws, mistakes: &mut Mistakes) {
    let mut names: BTreeMap<&str, At> = BTreeMap::new();
    let mut followed: BTreeMap<(&str, &str), At> = BTreeMap::new();
    for flow in flows {
        if let Some((name, at)) = &flow.name {
            if let Some(first) = names.get(&**name) {
                let message = format!("the name {} is taken, first at {first}", quote(name));
                mistakes.tell(*at, message, "checkpoints and metrics go by it");
            } else {
                names.insert(name, *at);
            }
        }
        let Some((stream, stream_at)) = &flow.stream else { continue };
        for (pattern, at) in &flow.files {
            if let Some(first) = followed.get(&(stream.as_str(), pattern.as_str())) {
                let message =
                    format!("{} goes to this stream already, from {first}", quote(pattern));
                mistakes.tell(*at, message, "its lines would be sent twice");
            } else {
                followed.insert((stream, pattern), *at);
            }
        }
        compare_region(stream, *stream_at, aws, mistakes);
    }
}

fn compare_region(stream: &str, at: At, aws: &Aws, mistakes: &mut Mistakes) {
    if let (Some(theirs), Some(ours)) = (aws::region_of_arn(stream), &aws.region)
        && theirs != ours
    {
        let message = format!("the stream is in {theirs}, but `aws.region` is {ours}");
        mistakes.tell(at, message, "give both the same region");
    }
}

/// Tells of consumers that get in the way of each other, of a producer, or of the state directory.
fn compare_consumers(
    consumers: &[Consumer],
    flows: &[Flow],
    aws: &Aws,
    state_dir: Option<&Path>,
    mistakes: &mut Mistakes,
) {
    let mut names: BTreeMap<&str, At> = BTreeMap::new();
    let produced = flows.iter().filter_map(|flow| flow.name.as_ref());
    names.extend(produced.map(|(name, at)| (&**name, *at)));
    let mut directories: Vec<(&Path, At)> = Vec::new();
    let mut tables: BTreeMap<&str, At> = BTreeMap::new();
    let mut subscribers: BTreeMap<(&str, &str), At> = BTreeMap::new();
    for consumer in consumers {
        if let Some((name, at)) = &consumer.name
            && let Some(first) = names.insert(name, *at)
        {
            let message = format!("the name {} is taken, first at {first}", quote(name));
            mistakes.tell(*at, message, "checkpoints and metrics go by it");
        }
        if let Some((stream, at)) = &consumer.stream {
            compare_region(stream, *at, aws, mistakes);
        }
        if let Some((table, at)) = &consumer.table
            && let Some(first) = tables.insert(table, *at)
        {
            let message = format!("the table {} is taken, first at {first}", quote(table));
            mistakes.tell(
                *at,
                message,
                "leases go by the shard: each flow needs a table of its own",
            );
        }
        if let Some((name, at)) = &consumer.fan_out
            && let Some((stream, _)) = &consumer.stream
            && let Some(first) = subscribers.insert((stream, name), *at)
        {
            let message = format!("the consumer {} is taken, first at {first}", quote(name));
            let hint = "each would end the subscriptions of the other: give it another name";
            mistakes.tell(*at, message, hint);
        }
        let Some((directory, at)) = &consumer.directory else { continue };
        if let Some(state) = state_dir
            && (state.starts_with(directory) || directory.starts_with(state))
        {
            let message = "the directory and `state_dir` cannot stand in each other";
            mistakes.tell(*at, message, "names in it come from records");
        }
        for (other, first) in &directories {
            if directory.starts_with(other) || other.starts_with(directory) {
                let message = format!("the directory is another flow's too, first at {first}");
                mistakes.tell(*at, message, "give each a directory of its own");
            }
        }
        directories.push((directory, *at));
        compare_loop(consumer, directory, *at, flows, mistakes);
    }
}

/// Lines that are followed where they are written would go round for ever.
fn compare_loop(
    consumer: &Consumer,
    directory: &Path,
    at: At,
    flows: &[Flow],
    mistakes: &mut Mistakes,
) {
    let Some((stream, _)) = &consumer.stream else { return };
    let same = |flow: &&Flow| flow.stream.as_ref().is_some_and(|(other, _)| other == stream);
    for (pattern, place) in flows.iter().filter(same).flat_map(|flow| &flow.files) {
        if Path::new(pattern).starts_with(directory) {
            let message = format!(
                "what is written there is followed and sent to the same stream, by {} at {place}",
                quote(pattern)
            );
            mistakes.tell(at, message, "lines would go round for ever");
        }
    }
}
