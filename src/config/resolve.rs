//! Resolving: what the document means, every setting within its limits and in accord with the
//! others.
//!
//! Invariant: a configuration comes out only where no mistake was told; so inside, a mistaken
//! setting is replaced by its default, and reading goes on to find the others.

mod aws;
mod flow;
mod merge;
mod pattern;
mod prices;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::diagnostic::{At, Mistakes, quote};
use super::document::{Node, Value};
use super::reader::{Block, Slot};
use super::schema;
use super::{Aws, Config, Produce, defaults, limits};
use crate::cost::Prices;
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
    let flows = flows(&top, root, mistakes)?;
    compare(&flows, &aws, mistakes);
    let produce: Option<Vec<Produce>> = flows.into_iter().map(|flow| flow.produce).collect();
    Some(Config {
        state_dir: state_dir.value,
        aws,
        produce: produce?,
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

/// Reads the entries of `produce`.
fn flows(top: &Block<'_>, root: &Node, mistakes: &mut Mistakes) -> Option<Vec<Flow>> {
    let hint = "begin each entry with `- name:`";
    // Somebody who only consumes is told of `consume` already.
    if top.slot("produce").is_none() && holds_key(root, "consume") {
        return None;
    }
    let entries = top.required("produce", hint, mistakes)?.list(hint, mistakes)?;
    Some(entries.into_iter().map(|entry| flow::flow(entry, mistakes)).collect())
}

fn holds_key(node: &Node, wanted: &str) -> bool {
    let Value::Map(entries) = &node.value else { return false };
    entries.iter().any(|(key, _)| matches!(&key.value, Value::Text(name) if name == wanted))
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
        if let (Some(theirs), Some(ours)) = (aws::region_of_arn(stream), &aws.region)
            && theirs != ours
        {
            let message = format!("the stream is in {theirs}, but `aws.region` is {ours}");
            mistakes.tell(*stream_at, message, "give both the same region");
        }
    }
}
