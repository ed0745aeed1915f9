//! One entry of `consume`: its own settings, and which of them go together.
//!
//! Invariant: what only one layout has is refused for the other, so that no setting stands there and
//! does nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{aws, flow, merge};
use crate::config::diagnostic::{At, Mistakes, quote};
use crate::config::document::Value;
use crate::config::reader::{Block, Slot};
use crate::config::template::{Template, Variable};
use crate::config::{
    Consume, ConsumeStart, Coordinate, Layout, LeaseTable, Reading, Rotate, Writing, defaults,
    hint, limits, schema,
};
use crate::record::compression::Algorithm;
use crate::record::split::By;

/// A consuming flow as far as it could be read, with the places that the comparison needs.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    pub(super) name: Option<(Arc<str>, At)>,
    pub(super) stream: Option<(String, At)>,
    pub(super) directory: Option<(PathBuf, At)>,
    /// The table that it shares with other agents.
    pub(super) table: Option<(String, At)>,
    /// The consumer of the stream that records are pushed to.
    pub(super) fan_out: Option<(String, At)>,
    /// The flow itself, where nothing that it needs is missing.
    pub(super) consume: Option<Consume>,
}

const LAYOUTS: [(&str, Layout); 2] = [("append", Layout::Append), ("mirror", Layout::Mirror)];

const COMPRESSIONS: [(&str, Option<Algorithm>); 3] =
    [("none", None), ("gzip", Some(Algorithm::Gzip)), ("zstd", Some(Algorithm::Zstd))];

/// What `path` may hold in either layout, and what `other_path` may.
const APPEND: [Variable; 5] = Variable::ALL;
const MIRROR: [Variable; 4] = [Variable::File, Variable::Host, Variable::Path, Variable::Stream];
const OTHER: [Variable; 2] = [Variable::Shard, Variable::Stream];

/// Reads one entry of `consume`.
pub(super) fn consumer(slot: Slot<'_>, mistakes: &mut Mistakes) -> Consumer {
    let Some(block) = Block::open(slot, &schema::CONSUME, mistakes) else {
        return Consumer::default();
    };
    let name = block.required("name", "", mistakes).and_then(|slot| flow::name(slot, mistakes));
    let stream = block.required("stream", "", mistakes).and_then(|slot| {
        aws::stream(slot, mistakes).map(|stream| (stream.to_owned(), slot.node.at))
    });
    let directory =
        block.required("directory", "", mistakes).and_then(|slot| directory(slot, mistakes));
    let settings = settings(&block, mistakes);
    let table = block.slot("coordinate").and_then(|slot| match &settings.coordinate {
        Coordinate::Local => None,
        Coordinate::DynamoDb(table) => Some((table.name.clone(), slot.node.at)),
    });
    let fan_out = block
        .slot("fan_out")
        .and_then(|slot| settings.fan_out.clone().map(|name| (name, slot.node.at)));
    let parts = name.as_ref().zip(stream.as_ref()).zip(directory.as_ref());
    let consume = parts.map(|(((name, _), (stream, _)), (directory, _))| Consume {
        name: Arc::clone(name),
        stream: stream.clone(),
        directory: directory.clone(),
        ..settings
    });
    Consumer { name, stream, directory, table, fan_out, consume }
}

fn settings(block: &Block<'_>, mistakes: &mut Mistakes) -> Consume {
    let layout =
        block.field("layout", defaults::LAYOUT, |slot| slot.choice(&LAYOUTS, mistakes)).value;
    let (known, path): (&[Variable], _) = match layout {
        Layout::Append => (&APPEND, defaults::append_path()),
        Layout::Mirror => (&MIRROR, defaults::mirror_path()),
    };
    let path = block.field("path", path, |slot| {
        let path = template(slot, known, mistakes)?;
        if layout == Layout::Mirror && !path.holds(Variable::Path) {
            let hint = "in a mirror every file of a host has a name of its own";
            slot.tell("must hold {path} with `layout: mirror`", hint, mistakes);
            return None;
        }
        Some(path)
    });
    let other_path = block
        .field("other_path", defaults::other_path(), |slot| template(slot, &OTHER, mistakes))
        .value;
    let fan_out = block.field("fan_out", None, |slot| consumer_name(slot, mistakes).map(Some));
    let rotate = block.field("rotate", Rotate::default(), |slot| rotate(slot, layout, mistakes));
    Consume {
        name: Arc::from(""),
        stream: String::new(),
        directory: PathBuf::new(),
        layout,
        path: path.value,
        other_path,
        split: block.field("split", By::Content, |slot| split(slot, mistakes)).value,
        start_at: block
            .field("start_at", defaults::CONSUME_START, |slot| start(slot, mistakes))
            .value,
        coordinate: block
            .field("coordinate", defaults::COORDINATE, |slot| coordinate(slot, layout, mistakes))
            .value,
        fan_out: fan_out.value,
        rotate: rotate.value,
        write: block.field("write", Writing::default(), |slot| write(slot, mistakes)).value,
        read: block.field("read", Reading::default(), |slot| read(slot, mistakes)).value,
    }
}

fn directory(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<(PathBuf, At)> {
    let path = Path::new(slot.text(mistakes)?);
    let plain =
        path.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
    if !path.is_absolute() || !plain {
        let hint = "`~` and variables are not expanded, and `..` cannot stand in it";
        slot.tell("must be an absolute path", hint, mistakes);
        return None;
    }
    if path.parent().is_none() {
        slot.tell("cannot be the root directory", "", mistakes);
        return None;
    }
    Some((path.components().collect(), slot.node.at))
}

fn template(slot: Slot<'_>, known: &[Variable], mistakes: &mut Mistakes) -> Option<Template> {
    let text = slot.text(mistakes)?;
    let read = Template::parse(text, known);
    let hint = || {
        let names: Vec<String> = known.iter().map(|one| format!("{{{}}}", one.name())).collect();
        format!("known here: {}", names.join(", "))
    };
    read.map_err(|error| slot.tell(&error.to_string(), hint(), mistakes)).ok()
}

/// The words of `split`.
const SPLIT: [&str; 5] = ["auto", "kpl", "lines", "json_array", "none"];

fn split(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<By> {
    let Value::Text(given) = &slot.node.value else {
        if !matches!(slot.node.value, Value::Map(_)) {
            slot.wrong_kind("must be a word or { delimiter: … }", "", mistakes);
            return None;
        }
        let block = Block::open(slot, &schema::SPLIT, mistakes)?;
        let slot = block.required("delimiter", "as in `{ delimiter: \"#-#\" }`", mistakes)?;
        return Some(By::Delimiter(merge::delimiter(slot, mistakes)?));
    };
    match given.as_str() {
        "auto" => Some(By::Content),
        "kpl" => Some(By::Kpl),
        "lines" => Some(By::Delimiter(defaults::DELIMITER.to_vec())),
        "json_array" => Some(By::JsonArray),
        "none" => Some(By::Nothing),
        _ => {
            let hint = format!("{}; or {{ delimiter: … }}", hint::unknown_choice(given, &SPLIT));
            slot.tell(&format!("cannot be {}", quote(given)), hint, mistakes);
            None
        }
    }
}

fn start(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<ConsumeStart> {
    let hint = "trim_horizon, latest, or a time as in \"2026-11-26T08:00:00Z\"";
    let Value::Text(text) = &slot.node.value else {
        slot.wrong_kind("must be a word or a time", hint, mistakes);
        return None;
    };
    match text.as_str() {
        "trim_horizon" => return Some(ConsumeStart::TrimHorizon),
        "latest" => return Some(ConsumeStart::Latest),
        _ => {}
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok();
    let millis = time.and_then(|time| u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok());
    if millis.is_none() {
        slot.tell(&format!("cannot be {}", quote(text)), hint, mistakes);
    }
    millis.map(ConsumeStart::Time)
}

fn coordinate(slot: Slot<'_>, layout: Layout, mistakes: &mut Mistakes) -> Option<Coordinate> {
    let hint = "local, or { dynamodb_table: … }";
    match &slot.node.value {
        Value::Text(text) if text == "local" => return Some(Coordinate::Local),
        Value::Text(text) => {
            slot.tell(&format!("cannot be {}", quote(text)), hint, mistakes);
            return None;
        }
        Value::Map(_) => {}
        _ => {
            slot.wrong_kind("must be a word or a map", hint, mistakes);
            return None;
        }
    }
    let block = Block::open(slot, &schema::COORDINATE, mistakes)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let name = block
        .required("dynamodb_table", "as in `{ dynamodb_table: kinetail-web }`", mistakes)
        .and_then(|slot| aws::shaped(slot, &limits::TABLE_CHARS, allowed, "_.-", mistakes));
    let create = block.field("create_table", false, |slot| slot.switch(mistakes));
    let failover = block
        .field("failover", defaults::FAILOVER, |slot| slot.duration(&limits::FAILOVER, mistakes));
    let endpoint_url =
        block.field("endpoint_url", None, |slot| Some(Some(aws::url(slot, mistakes)?.to_owned())));
    if layout == Layout::Mirror {
        let hint =
            "an agent that shares the shards has only parts of the files: use append, or local";
        slot.tell("cannot be a table with `layout: mirror`", hint, mistakes);
        return None;
    }
    Some(Coordinate::DynamoDb(LeaseTable {
        name: name?.to_owned(),
        create: create.value,
        failover: failover.value,
        endpoint_url: endpoint_url.value,
    }))
}

fn consumer_name(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    aws::shaped(slot, &limits::CONSUMER_CHARS, allowed, "_.-", mistakes).map(str::to_owned)
}

fn rotate(slot: Slot<'_>, layout: Layout, mistakes: &mut Mistakes) -> Option<Rotate> {
    let block = Block::open(slot, &schema::ROTATE, mistakes)?;
    if layout == Layout::Mirror {
        let hint = "a mirrored file is rotated as its source is";
        slot.tell("cannot be set with `layout: mirror`", hint, mistakes);
        return None;
    }
    let max_bytes = block.field("max_bytes", None, |slot| {
        slot.size(&limits::ROTATE_BYTES, mistakes).map(|bytes| Some(bytes as u64))
    });
    let max_age =
        block.field("max_age", None, |slot| slot.duration(&limits::ROTATE_AGE, mistakes).map(Some));
    let compression = block.field("compression", None, |slot| slot.choice(&COMPRESSIONS, mistakes));
    let never = max_bytes.value.is_none() && max_age.value.is_none();
    if never && compression.value.is_some() && max_bytes.sound && max_age.sound {
        slot.tell("compresses what is never rotated", "set max_bytes or max_age", mistakes);
        return None;
    }
    Some(Rotate {
        max_bytes: max_bytes.value,
        max_age: max_age.value,
        compression: compression.value,
    })
}

fn write(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<Writing> {
    let block = Block::open(slot, &schema::WRITE, mistakes)?;
    let mut count =
        |key, default, range| block.field(key, default, |slot| slot.count(&range, mistakes)).value;
    Some(Writing {
        open_files: count("open_files", defaults::WRITE_OPEN_FILES, limits::OPEN_FILES),
        max_files: count("max_files", defaults::MAX_FILES, limits::MAX_FILES),
    })
}

fn read(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<Reading> {
    let block = Block::open(slot, &schema::READ, mistakes)?;
    let buffer = block
        .field("buffer", defaults::READ_BUFFER, |slot| slot.size(&limits::READ_BUFFER, mistakes))
        .value;
    let mut period = |key, default, range| {
        block.field(key, default, |slot| slot.duration(&range, mistakes)).value
    };
    Some(Reading {
        poll_interval: period(
            "poll_interval",
            defaults::READ_POLL_INTERVAL,
            limits::READ_POLL_INTERVAL,
        ),
        buffer,
        timeout: period("timeout", defaults::TIMEOUT, limits::TIMEOUT),
        backoff_max: period("backoff_max", defaults::BACKOFF_MAX, limits::BACKOFF_MAX),
    })
}
