//! Leases as items of the table: the attributes and conditions of version 2 of the Kinesis Client Library.
//!
//! Invariant: a write names the attributes that it means and leaves all others as they stand, so that a
//! table can be shared with other consumers. A table that is used in another way than this is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::lease::{Checkpoint, Lease, Write};
use crate::position::ShardId;

/// The hash key of the table.
pub const KEY: &str = "leaseKey";

/// Who asks the owner for the shard: an attribute that only kinetail knows.
const WANTED_BY: &str = "wantedBy";

/// The time that a checkpoint `LATEST` means: another such attribute.
const SINCE: &str = "latestSince";

/// What else the table of a fleet may be named, where version 3 of the library keeps its state.
pub const STATE_SUFFIX: &str = "-CoordinatorState";

/// The item there that tells which version the fleet works by.
pub const MIGRATION_KEY: &str = "Migration3.0";

/// Why a table cannot be shared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Leases are given out by a leader, which would work against this.
    #[error(
        "the table is used by a fleet of KCL 3, whose leader gives out the leases: give kinetail a table of \
         its own, or set the fleet to CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X"
    )]
    VersionThree,
    /// An application that reads several streams.
    #[error("the table holds leases of several streams: give kinetail a table of its own")]
    MultiStream,
    /// An item that is no lease as it is known here.
    #[error("the table holds an item that is no lease: {0}")]
    Unreadable(String),
}

/// An operation and its request.
pub type Request = (&'static str, Value);

/// Returns the request that makes a write, for `worker`.
#[must_use]
pub fn request(table: &str, worker: &str, write: &Write) -> Request {
    match write {
        Write::Create(lease) => {
            let put = json!({
                "TableName": table,
                "Item": item(lease),
                "ConditionExpression": "attribute_not_exists(#key)",
                "ExpressionAttributeNames": { "#key": KEY },
            });
            ("PutItem", put)
        }
        Write::Remove { shard } => {
            let delete = json!({
                "TableName": table,
                "Key": { KEY: { "S": &*shard.0 } },
                "ConditionExpression": "#checkpoint = :end",
                "ExpressionAttributeNames": { "#checkpoint": "checkpoint" },
                "ExpressionAttributeValues": { ":end": { "S": "SHARD_END" } },
            });
            ("DeleteItem", delete)
        }
        _ => ("UpdateItem", update(table, worker, write)),
    }
}

/// Returns the lease that stands in an item; nothing where the item is another's, which has its place there.
///
/// # Errors
/// A table that cannot be shared.
pub fn lease(item: &Value) -> Result<Option<Lease>, Unusable> {
    let text = |name: &str| item.pointer(&format!("/{name}/S")).and_then(Value::as_str);
    match text("entityType") {
        None | Some("LEASE") => {}
        Some("CLIENT_VERSION_MIGRATION") if is_version_three(item) => {
            return Err(Unusable::VersionThree);
        }
        Some(_) => return Ok(None),
    }
    if text("checkpointOwner").is_some() {
        return Err(Unusable::VersionThree);
    }
    if text("streamName").is_some() {
        return Err(Unusable::MultiStream);
    }
    let unreadable = || Unusable::Unreadable(text(KEY).unwrap_or("without a leaseKey").to_owned());
    let number = |name: &str| {
        let digits = item.pointer(&format!("/{name}/N")).and_then(Value::as_str);
        digits.map_or(Some(0), |digits| digits.parse().ok())
    };
    let set = |name: &str| -> BTreeSet<ShardId> {
        let names = item.pointer(&format!("/{name}/SS")).and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str).map(ShardId::from).collect()
    };
    let checkpoint = text("checkpoint").zip(number("checkpointSubSequenceNumber"));
    let checkpoint = checkpoint.and_then(|(text, sub)| Checkpoint::parse(text, sub));
    let (first, last) = (text("startingHashKey"), text("endingHashKey"));
    Ok(Some(Lease {
        shard: ShardId::from(text(KEY).ok_or_else(unreadable)?),
        counter: number("leaseCounter").ok_or_else(unreadable)?,
        owner: text("leaseOwner").map(Arc::from),
        checkpoint: checkpoint.ok_or_else(unreadable)?,
        parents: set("parentShardId"),
        children: set("childShardIds"),
        hash_keys: first.zip(last).map(|(first, last)| (first.to_owned(), last.to_owned())),
        switches: number("ownerSwitchesSinceCheckpoint").ok_or_else(unreadable)?,
        since: item.get(SINCE).map(|_| number(SINCE).ok_or_else(unreadable)).transpose()?,
        wanted_by: text(WANTED_BY).map(Arc::from),
    }))
}

/// Returns true where an item of the fleet's state says that it works by version 3.
#[must_use]
pub fn is_version_three(item: &Value) -> bool {
    let version = item.pointer("/cv/S").and_then(Value::as_str).unwrap_or_default();
    version.starts_with("CLIENT_VERSION_3")
}

/// Returns the request that makes the table.
#[must_use]
pub fn create_table(table: &str) -> Value {
    json!({
        "TableName": table,
        "AttributeDefinitions": [{ "AttributeName": KEY, "AttributeType": "S" }],
        "KeySchema": [{ "AttributeName": KEY, "KeyType": "HASH" }],
        "BillingMode": "PAY_PER_REQUEST",
    })
}

fn item(lease: &Lease) -> Value {
    let (checkpoint, sub_sequence) = lease.checkpoint.written();
    let mut item = json!({
        KEY: { "S": &*lease.shard.0 },
        "leaseCounter": number(lease.counter),
        "checkpoint": { "S": checkpoint },
        "checkpointSubSequenceNumber": number(sub_sequence),
        "ownerSwitchesSinceCheckpoint": number(lease.switches),
    });
    let mut also = Vec::new();
    if let Some((first, last)) = &lease.hash_keys {
        also.push(("startingHashKey", json!({ "S": first })));
        also.push(("endingHashKey", json!({ "S": last })));
    }
    if let Some(since) = lease.since {
        also.push((SINCE, number(since)));
    }
    // An empty set is no value of the table.
    if !lease.parents.is_empty() {
        also.push(("parentShardId", names(&lease.parents)));
    }
    if let Some(members) = item.as_object_mut() {
        members.extend(also.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    item
}

/// An update as it is put together.
#[derive(Default)]
struct Update {
    set: Vec<String>,
    remove: Vec<&'static str>,
    add: Vec<String>,
    conditions: Vec<String>,
    names: Map<String, Value>,
    values: Map<String, Value>,
}

impl Update {
    fn value(&mut self, name: &'static str, role: &str, value: Value) -> String {
        self.names.insert(format!("#{name}"), json!(name));
        let placeholder = format!(":{role}{name}");
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    fn set(&mut self, name: &'static str, value: Value) {
        let placeholder = self.value(name, "new", value);
        self.set.push(format!("#{name} = {placeholder}"));
    }

    fn remove(&mut self, name: &'static str) {
        self.names.insert(format!("#{name}"), json!(name));
        self.remove.push(name);
    }

    fn add(&mut self, name: &'static str, value: Value) {
        let placeholder = self.value(name, "more", value);
        self.add.push(format!("#{name} {placeholder}"));
    }

    fn only_if(&mut self, name: &'static str, value: Value) {
        let placeholder = self.value(name, "seen", value);
        self.conditions.push(format!("#{name} = {placeholder}"));
    }

    fn only_without(&mut self, name: &'static str) {
        self.names.insert(format!("#{name}"), json!(name));
        self.conditions.push(format!("attribute_not_exists(#{name})"));
    }

    fn raise(&mut self, seen: u64) {
        self.only_if("leaseCounter", number(seen));
        self.set("leaseCounter", number(seen.saturating_add(1)));
    }

    fn expression(&self) -> String {
        let removed: Vec<String> = self.remove.iter().map(|name| format!("#{name}")).collect();
        let clauses = [("SET", &self.set), ("REMOVE", &removed), ("ADD", &self.add)];
        let clauses = clauses.iter().filter(|(_, parts)| !parts.is_empty());
        let clauses = clauses.map(|(word, parts)| format!("{word} {}", parts.join(", ")));
        clauses.collect::<Vec<_>>().join(" ")
    }
}

fn update(table: &str, worker: &str, write: &Write) -> Value {
    let mut update = Update::default();
    let me = || json!({ "S": worker });
    match write {
        Write::Take { seen } => {
            update.raise(seen.counter);
            update.set("leaseOwner", me());
            update.remove(WANTED_BY);
            if seen.owner.as_deref().is_some_and(|owner| owner != worker) {
                update.add("ownerSwitchesSinceCheckpoint", number(1));
            }
        }
        Write::Renew { counter, decline, .. } => {
            update.raise(*counter);
            update.only_if("leaseOwner", me());
            update.only_without("checkpointOwner");
            if *decline {
                update.remove(WANTED_BY);
            }
        }
        Write::Checkpoint { counter, checkpoint, children, .. } => {
            let (text, sub_sequence) = checkpoint.written();
            update.raise(*counter);
            update.only_if("leaseOwner", me());
            update.set("checkpoint", json!({ "S": text }));
            update.set("checkpointSubSequenceNumber", number(sub_sequence));
            update.set("ownerSwitchesSinceCheckpoint", number(0));
            if !children.is_empty() {
                update.set("childShardIds", names(children));
            }
            // What another consumer prepared before this one took over is passed by now.
            update.remove("pendingCheckpoint");
            update.remove("pendingCheckpointSubSequenceNumber");
            update.remove("pendingCheckpointState");
        }
        Write::Ask { seen } => {
            update.set(WANTED_BY, me());
            match &seen.owner {
                Some(owner) => update.only_if("leaseOwner", json!({ "S": &**owner })),
                None => update.only_without("leaseOwner"),
            }
            match &seen.wanted_by {
                Some(by) => update.only_if(WANTED_BY, json!({ "S": &**by })),
                None => update.only_without(WANTED_BY),
            }
        }
        Write::Give { counter, to, .. } => {
            update.raise(*counter);
            update.only_if("leaseOwner", me());
            match to {
                Some(to) => update.set("leaseOwner", json!({ "S": &**to })),
                None => update.remove("leaseOwner"),
            }
            update.remove(WANTED_BY);
        }
        Write::Create(_) | Write::Remove { .. } => {}
    }
    json!({
        "TableName": table,
        "Key": { KEY: { "S": &*write.shard().0 } },
        "UpdateExpression": update.expression(),
        "ConditionExpression": update.conditions.join(" AND "),
        "ExpressionAttributeNames": update.names,
        "ExpressionAttributeValues": update.values,
        "ReturnValues": "ALL_NEW",
    })
}

fn number(number: u64) -> Value {
    json!({ "N": number.to_string() })
}

fn names(shards: &BTreeSet<ShardId>) -> Value {
    json!({ "SS": shards.iter().map(|shard| &*shard.0).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Lease {
        Lease {
            counter: 7,
            owner: Some(Arc::from("other")),
            parents: BTreeSet::from([ShardId::from("shardId-000000000000")]),
            hash_keys: Some(("0".to_owned(), "170141183460469231731687303715884105727".to_owned())),
            ..Lease::new(ShardId::from("shardId-000000000001"), Checkpoint::TrimHorizon)
        }
    }

    #[test]
    fn a_lease_is_written_and_read_with_the_attributes_of_the_library() {
        let lease_here = seen();
        let (operation, put) = request("leases", "me", &Write::Create(lease_here.clone()));
        assert_eq!(operation, "PutItem");
        assert_eq!(
            put["Item"],
            json!({
                "leaseKey": { "S": "shardId-000000000001" },
                "leaseCounter": { "N": "7" },
                "checkpoint": { "S": "TRIM_HORIZON" },
                "checkpointSubSequenceNumber": { "N": "0" },
                "ownerSwitchesSinceCheckpoint": { "N": "0" },
                "parentShardId": { "SS": ["shardId-000000000000"] },
                "startingHashKey": { "S": "0" },
                "endingHashKey": { "S": "170141183460469231731687303715884105727" },
            })
        );
        assert_eq!(put["ConditionExpression"], "attribute_not_exists(#key)");
        let mut item = put["Item"].clone();
        item["leaseOwner"] = json!({ "S": "other" });
        item["throughputKBps"] = json!({ "N": "1.5" });
        assert_eq!(lease(&item), Ok(Some(lease_here)));
    }

    #[test]
    fn the_time_that_latest_means_is_written_and_read_and_may_be_missing() {
        let shard = ShardId::from("shardId-000000000001");
        let latest =
            Lease { since: Some(1_795_000_000_123), ..Lease::new(shard, Checkpoint::Latest) };
        let (_, put) = request("leases", "me", &Write::Create(latest.clone()));
        let mut item = put["Item"].clone();
        assert_eq!(item["latestSince"], json!({ "N": "1795000000123" }));
        assert_eq!(lease(&item), Ok(Some(latest.clone())));
        item["latestSince"] = json!({ "N": "soon" });
        assert!(matches!(lease(&item), Err(Unusable::Unreadable(_))));
        // As the library writes it.
        item.as_object_mut().unwrap().remove("latestSince");
        assert_eq!(lease(&item), Ok(Some(Lease { since: None, ..latest })));
    }

    #[test]
    fn a_take_is_conditional_on_the_counter_and_counts_the_switch() {
        let (operation, update) = request("leases", "me", &Write::Take { seen: seen() });
        assert_eq!(operation, "UpdateItem");
        assert_eq!(update["ConditionExpression"], "#leaseCounter = :seenleaseCounter");
        assert_eq!(
            update["UpdateExpression"],
            "SET #leaseCounter = :newleaseCounter, #leaseOwner = :newleaseOwner REMOVE #wantedBy \
             ADD #ownerSwitchesSinceCheckpoint :moreownerSwitchesSinceCheckpoint"
        );
        assert_eq!(
            update["ExpressionAttributeValues"],
            json!({
                ":seenleaseCounter": { "N": "7" },
                ":newleaseCounter": { "N": "8" },
                ":newleaseOwner": { "S": "me" },
                ":moreownerSwitchesSinceCheckpoint": { "N": "1" },
            })
        );
    }

    #[test]
    fn a_checkpoint_is_conditional_on_the_counter_and_the_owner() {
        let shard = seen().shard;
        let children = BTreeSet::from([ShardId::from("shardId-000000000002")]);
        let checkpoint = Checkpoint::ShardEnd;
        let write = Write::Checkpoint { shard, counter: 7, checkpoint, children };
        let (_, update) = request("leases", "me", &write);
        assert_eq!(
            update["ConditionExpression"],
            "#leaseCounter = :seenleaseCounter AND #leaseOwner = :seenleaseOwner"
        );
        let values = &update["ExpressionAttributeValues"];
        assert_eq!(values[":newcheckpoint"], json!({ "S": "SHARD_END" }));
        assert_eq!(values[":newchildShardIds"], json!({ "SS": ["shardId-000000000002"] }));
        assert_eq!(values[":seenleaseOwner"], json!({ "S": "me" }));
    }

    #[test]
    fn what_is_given_to_nobody_has_no_owner() {
        let write = Write::Give { shard: seen().shard, counter: 7, to: None };
        let (_, update) = request("leases", "me", &write);
        assert_eq!(
            update["UpdateExpression"],
            "SET #leaseCounter = :newleaseCounter REMOVE #leaseOwner, #wantedBy"
        );
    }

    #[test]
    fn a_fleet_that_works_by_version_three_is_known_and_what_it_leaves_elsewhere_is_passed_over() {
        let migration = |version: &str| {
            json!({
                "leaseKey": { "S": "Migration3.0" },
                "entityType": { "S": "CLIENT_VERSION_MIGRATION" },
                "cv": { "S": version },
            })
        };
        for version in ["CLIENT_VERSION_3X", "CLIENT_VERSION_3X_WITH_ROLLBACK"] {
            assert_eq!(lease(&migration(version)), Err(Unusable::VersionThree), "{version}");
        }
        for version in ["CLIENT_VERSION_2X", "CLIENT_VERSION_UPGRADE_FROM_2X"] {
            assert_eq!(lease(&migration(version)), Ok(None), "{version}");
        }
        let handoff = json!({
            "leaseKey": { "S": "shardId-000000000001" },
            "leaseCounter": { "N": "1" },
            "checkpoint": { "S": "LATEST" },
            "checkpointOwner": { "S": "old" },
        });
        assert_eq!(lease(&handoff), Err(Unusable::VersionThree));
        let other =
            json!({ "leaseKey": { "S": "w1" }, "entityType": { "S": "WORKER_METRIC_STATS" } });
        assert_eq!(lease(&other), Ok(None));
        let several = json!({
            "leaseKey": { "S": "1:s:2:shardId-000000000001" },
            "streamName": { "S": "1:s:2" },
        });
        assert_eq!(lease(&several), Err(Unusable::MultiStream));
        assert!(matches!(lease(&json!({ "id": { "S": "x" } })), Err(Unusable::Unreadable(_))));
    }
}
