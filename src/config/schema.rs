//! The keys that `agent.yaml` knows, block by block.
//!
//! Invariant: a key is read only through the [`Schema`] of its block, so what is not listed here is
//! a mistake in the file, and what is listed stands in `agent.yaml.example` (a test holds both).

/// The keys of one block.
#[derive(Debug)]
pub(super) struct Schema {
    /// What the block is called in messages.
    pub(super) name: &'static str,
    /// The keys it knows.
    pub(super) keys: &'static [&'static str],
}

const fn schema(name: &'static str, keys: &'static [&'static str]) -> Schema {
    Schema { name, keys }
}

pub(super) static TOP: Schema = Schema {
    name: "the top level",
    keys: &[
        "state_dir",
        "aws",
        "produce",
        "consume",
        "metrics",
        "prices",
        "checkpoint_interval",
        "drain_deadline",
    ],
};

pub(super) static AWS: Schema =
    schema("`aws`", &["region", "endpoint_url", "profile", "assume_role"]);

pub(super) static ASSUME_ROLE: Schema =
    schema("`assume_role`", &["role_arn", "external_id", "session_name"]);

pub(super) static METRICS: Schema = schema("`metrics`", &["listen"]);

pub(super) static PRICES: Schema = schema(
    "`prices`",
    &[
        "as_of",
        "payload_units",
        "shard_hour",
        "stream_hour",
        "on_demand_ingest",
        "on_demand_retrieval",
        "advantage_ingest",
        "advantage_retrieval",
    ],
);

pub(super) static FLOW: Schema = schema(
    "an entry of `produce`",
    &[
        "name",
        "files",
        "exclude",
        "stream",
        "start_at",
        "merge",
        "partition_key",
        "multiline",
        "on_oversize",
        "tail",
        "ship",
    ],
);

pub(super) static MERGE: Schema =
    schema("`merge`", &["format", "delimiter", "max_lines", "max_bytes", "max_age", "compression"]);

pub(super) static COMPRESSION: Schema = schema("`compression`", &["gzip", "zstd"]);

pub(super) static PARTITION_KEY: Schema =
    schema("`partition_key`", &["constant", "regex", "json_field"]);

pub(super) static MULTILINE: Schema = schema("`multiline`", &["start", "max_age", "max_bytes"]);

pub(super) static TAIL: Schema = schema(
    "`tail`",
    &[
        "buffer",
        "open_files",
        "scan_interval",
        "poll_interval",
        "hold_rotated",
        "hold_unread",
        "hold_deleted_bytes",
    ],
);

pub(super) static SHIP: Schema = schema(
    "`ship`",
    &["request_records", "request_bytes", "joined_bytes", "in_flight", "timeout", "backoff_max"],
);

pub(super) static CONSUME: Schema = Schema {
    name: "an entry of `consume`",
    keys: &[
        "name",
        "stream",
        "directory",
        "layout",
        "path",
        "other_path",
        "split",
        "start_at",
        "coordinate",
        "fan_out",
        "rotate",
        "write",
        "read",
    ],
};

pub(super) static COORDINATE: Schema =
    schema("`coordinate`", &["dynamodb_table", "create_table", "failover", "endpoint_url"]);

pub(super) static SPLIT: Schema = schema("`split`", &["delimiter"]);

pub(super) static ROTATE: Schema = schema("`rotate`", &["max_bytes", "max_age", "compression"]);

pub(super) static WRITE: Schema = schema("`write`", &["open_files", "max_files"]);

pub(super) static READ: Schema =
    schema("`read`", &["poll_interval", "buffer", "timeout", "backoff_max"]);

/// All blocks.
pub(super) static ALL: [&Schema; 18] = [
    &TOP,
    &AWS,
    &ASSUME_ROLE,
    &METRICS,
    &PRICES,
    &FLOW,
    &MERGE,
    &COMPRESSION,
    &PARTITION_KEY,
    &MULTILINE,
    &TAIL,
    &SHIP,
    &CONSUME,
    &COORDINATE,
    &SPLIT,
    &ROTATE,
    &WRITE,
    &READ,
];
