//! One entry of `produce`: its own settings, and how its blocks bound each other.
//!
//! Invariant: bounds of two settings are compared only where both are sound, and told of at the one
//! that was written.

use std::sync::Arc;

use super::pattern::Placed;
use super::{aws, merge, pattern};
use crate::config::diagnostic::{At, Mistakes};
use crate::config::reader::{Block, Field, Slot, shown};
use crate::config::{OnOversize, Produce, Ship, StartAt, Tail, defaults, limits, schema};

/// A flow as far as it could be read: what the comparison with other flows needs, with its places.
#[derive(Debug, Default)]
pub(super) struct Flow {
    pub(super) name: Option<(Arc<str>, At)>,
    pub(super) stream: Option<(String, At)>,
    pub(super) files: Vec<Placed>,
    /// The flow itself, where nothing that it needs is missing.
    pub(super) produce: Option<Produce>,
}

/// The words of `start_at`.
const START_AT: [(&str, StartAt); 2] = [("beginning", StartAt::Beginning), ("end", StartAt::End)];

/// The words of `on_oversize`.
const ON_OVERSIZE: [(&str, OnOversize); 3] =
    [("split", OnOversize::Split), ("truncate", OnOversize::Truncate), ("skip", OnOversize::Skip)];

/// Reads one entry of `produce`.
pub(super) fn flow(slot: Slot<'_>, mistakes: &mut Mistakes) -> Flow {
    let Some(block) = Block::open(slot, &schema::FLOW, mistakes) else {
        return Flow::default();
    };
    let name = block.required("name", "", mistakes).and_then(|slot| name(slot, mistakes));
    let files =
        block.required("files", "", mistakes).and_then(|slot| pattern::files(slot, mistakes));
    let stream = block.required("stream", "", mistakes).and_then(|slot| {
        aws::stream(slot, mistakes).map(|stream| (stream.to_owned(), slot.node.at))
    });
    let included = files.as_deref().unwrap_or_default();
    let exclude =
        block.field("exclude", Vec::new(), |slot| pattern::exclude(slot, included, mistakes)).value;
    let settings = settings(&block, mistakes);
    let produce = name.as_ref().zip(files.as_ref()).zip(stream.as_ref());
    let produce = produce.map(|(((name, _), files), (stream, _))| Produce {
        name: Arc::clone(name),
        files: files.iter().map(|(pattern, _)| pattern.clone()).collect(),
        exclude,
        stream: stream.clone(),
        ..settings
    });
    Flow { name, stream, files: files.unwrap_or_default(), produce }
}

/// Reads all that has a default, into a flow without name, files and stream.
fn settings(block: &Block<'_>, mistakes: &mut Mistakes) -> Produce {
    let start_at =
        block.field("start_at", defaults::START_AT, |slot| slot.choice(&START_AT, mistakes)).value;
    let on_oversize = block
        .field("on_oversize", defaults::ON_OVERSIZE, |slot| slot.choice(&ON_OVERSIZE, mistakes))
        .value;
    let partition_key = block
        .field("partition_key", defaults::PARTITION_KEY, |slot| {
            merge::partition_key(slot, mistakes)
        })
        .value;
    let (merge, record_bytes) =
        bounded(block.field("merge", merge::default_merge(), |slot| merge::merge(slot, mistakes)));
    let multiline =
        block.field("multiline", None, |slot| merge::multiline(slot, mistakes).map(Some));
    let (multiline, group_bytes) = multiline.value.unzip();
    let (tail, buffer) =
        bounded(block.field("tail", default_tail(), |slot| read_tail(slot, mistakes)));
    let (ship, request_bytes) =
        bounded(block.field("ship", default_ship(), |slot| read_ship(slot, mistakes)));
    compare_bytes(record_bytes, request_bytes, mistakes);
    compare_buffer(buffer, "merge.max_bytes", record_bytes, mistakes);
    if let Some(group_bytes) = group_bytes {
        compare_buffer(buffer, "multiline.max_bytes", group_bytes, mistakes);
    }
    Produce {
        name: Arc::from(""),
        files: Vec::new(),
        exclude: Vec::new(),
        stream: String::new(),
        start_at,
        merge,
        partition_key,
        multiline,
        on_oversize,
        tail,
        ship,
    }
}

/// Parts a block from its bound, which is sound only where the block is.
fn bounded<T>(block: Field<(T, Field<usize>)>) -> (T, Field<usize>) {
    let (value, bound) = block.value;
    (value, Field { sound: bound.sound && block.sound, ..bound })
}

/// Reads the name of a flow.
pub(super) fn name(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<(Arc<str>, At)> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let text = aws::shaped(slot, &limits::NAME_CHARS, allowed, "._-", mistakes)?;
    if text == "." || text == ".." {
        slot.tell(&format!("cannot be `{text}`"), "it becomes part of paths", mistakes);
        return None;
    }
    Some((Arc::from(text), slot.node.at))
}

fn default_tail() -> (Tail, Field<usize>) {
    (Tail::default(), Field { value: defaults::BUFFER, at: None, sound: true })
}

fn read_tail(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<(Tail, Field<usize>)> {
    let block = Block::open(slot, &schema::TAIL, mistakes)?;
    let buffer =
        block.field("buffer", defaults::BUFFER, |slot| slot.size(&limits::BUFFER, mistakes));
    let open_files = block.field("open_files", defaults::OPEN_FILES, |slot| {
        slot.count(&limits::OPEN_FILES, mistakes)
    });
    let hold_deleted_bytes =
        block.field("hold_deleted_bytes", defaults::HOLD_DELETED_BYTES, |slot| {
            slot.size(&limits::HOLD_DELETED_BYTES, mistakes)
        });
    let mut period = |key, default, range| {
        block.field(key, default, |slot| slot.duration(&range, mistakes)).value
    };
    let tail = Tail {
        buffer: buffer.value,
        open_files: open_files.value,
        scan_interval: period("scan_interval", defaults::SCAN_INTERVAL, limits::SCAN_INTERVAL),
        poll_interval: period("poll_interval", defaults::POLL_INTERVAL, limits::POLL_INTERVAL),
        hold_rotated: period("hold_rotated", defaults::HOLD_ROTATED, limits::HOLD_ROTATED),
        hold_unread: period("hold_unread", defaults::HOLD_UNREAD, limits::HOLD_UNREAD),
        hold_deleted_bytes: hold_deleted_bytes.value,
    };
    Some((tail, buffer))
}

fn default_ship() -> (Ship, Field<usize>) {
    (Ship::default(), Field { value: defaults::REQUEST_BYTES, at: None, sound: true })
}

fn read_ship(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<(Ship, Field<usize>)> {
    let block = Block::open(slot, &schema::SHIP, mistakes)?;
    let request_bytes = block.field("request_bytes", defaults::REQUEST_BYTES, |slot| {
        slot.size(&limits::REQUEST_BYTES, mistakes)
    });
    let joined_bytes = block
        .field("joined_bytes", defaults::JOINED_BYTES, |slot| {
            slot.size(&limits::JOINED_BYTES, mistakes)
        })
        .value;
    let mut count =
        |key, default, range| block.field(key, default, |slot| slot.count(&range, mistakes)).value;
    let request_records =
        count("request_records", defaults::REQUEST_RECORDS, limits::REQUEST_RECORDS);
    let in_flight = count("in_flight", defaults::IN_FLIGHT, limits::IN_FLIGHT);
    let mut period = |key, default, range| {
        block.field(key, default, |slot| slot.duration(&range, mistakes)).value
    };
    let ship = Ship {
        request_records,
        request_bytes: request_bytes.value,
        joined_bytes,
        in_flight,
        timeout: period("timeout", defaults::TIMEOUT, limits::TIMEOUT),
        backoff_max: period("backoff_max", defaults::BACKOFF_MAX, limits::BACKOFF_MAX),
    };
    Some((ship, request_bytes))
}

/// A record must fit into a call.
fn compare_bytes(record: Field<usize>, request: Field<usize>, mistakes: &mut Mistakes) {
    if let Some(at) = record.at.or(request.at)
        && record.sound
        && request.sound
        && record.value > request.value
    {
        let (record, request) = (shown(record.value), shown(request.value));
        let message = format!(
            "a record of `merge.max_bytes`, {record}, is larger than a call of \
             `ship.request_bytes`, {request}"
        );
        mistakes.tell(at, message, "raise `request_bytes` or lower `max_bytes`");
    }
}

/// While one piece is on its way, the next must have room to grow.
fn compare_buffer(buffer: Field<usize>, key: &str, piece: Field<usize>, mistakes: &mut Mistakes) {
    let needed = piece.value.saturating_mul(2);
    if let Some(at) = buffer.at.or(piece.at)
        && buffer.sound
        && piece.sound
        && buffer.value < needed
    {
        let message = format!(
            "`tail.buffer` is {}, less than twice `{key}`, {}",
            shown(buffer.value),
            shown(piece.value)
        );
        mistakes.tell(at, message, format!("it must be {} or more", shown(needed)));
    }
}
