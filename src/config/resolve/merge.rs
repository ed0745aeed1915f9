//! How lines become records: the `merge` block, `partition_key` and `multiline`.
//!
//! Invariant: a format carries exactly the settings it uses; a regular expression is compiled here
//! and nowhere else.

use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use super::aws;
use crate::config::diagnostic::{Mistakes, quote};
use crate::config::document::Value;
use crate::config::reader::{Block, Field, Slot};
use crate::config::{
    Compression, Format, Merge, Multiline, PartitionKey, defaults, hint, limits, schema,
};

/// Returns what holds where there is no `merge` block.
pub(super) fn default_merge() -> (Merge, Field<usize>) {
    let max_bytes = Field { value: defaults::MAX_BYTES, at: None, sound: true };
    (Merge::default(), max_bytes)
}

/// Reads the `merge` block; beside it, `max_bytes` for comparison with other blocks.
pub(super) fn merge(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<(Merge, Field<usize>)> {
    let block = Block::open(slot, &schema::MERGE, mistakes)?;
    let format = format(&block, mistakes);
    let max_lines = block.field("max_lines", None, |slot| {
        if slot.node.value == Value::Integer(0) {
            slot.tell("cannot be 0", "leave it out for no limit", mistakes);
            return None;
        }
        let lines = slot.count(&limits::MAX_LINES, mistakes)?;
        Some(u32::try_from(lines).ok())
    });
    let max_bytes = block
        .field("max_bytes", defaults::MAX_BYTES, |slot| slot.size(&limits::MAX_BYTES, mistakes));
    let max_age =
        block.field("max_age", defaults::MAX_AGE, |slot| slot.duration(&limits::MAX_AGE, mistakes));
    let compression = block.field("compression", None, |slot| compression(slot, mistakes));
    if let (Format::None, Some(_), Some(slot)) =
        (&format, compression.value, block.slot("compression"))
    {
        let hint = "leave it out, or write another `format`";
        slot.tell("has no meaning with `format: none`", hint, mistakes);
    }
    let merge = Merge {
        format,
        max_lines: max_lines.value,
        max_bytes: max_bytes.value,
        max_age: max_age.value,
        compression: compression.value,
    };
    Some((merge, max_bytes))
}

fn format(block: &Block<'_>, mistakes: &mut Mistakes) -> Format {
    let format = block.field("format", "lines", |slot| {
        let known = ["lines", "kpl", "json_array", "none"].map(|word| (word, word));
        slot.choice(&known, mistakes)
    });
    if format.value == "lines" {
        let default = defaults::DELIMITER.to_vec();
        let delimiter = block.field("delimiter", default, |slot| delimiter(slot, mistakes));
        return Format::Lines { delimiter: delimiter.value };
    }
    if let Some(slot) = block.slot("delimiter") {
        let what = format!("has no meaning with `format: {}`", format.value);
        slot.tell(&what, "remove it, or write `format: lines`", mistakes);
    }
    match format.value {
        "json_array" => Format::JsonArray,
        "kpl" => Format::Kpl,
        _ => Format::None,
    }
}

/// Reads a delimiter.
pub(super) fn delimiter(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<Vec<u8>> {
    let text = slot.text(mistakes)?;
    if text.len() > limits::DELIMITER_BYTES {
        let what = format!("must have 1 to {} bytes, not {}", limits::DELIMITER_BYTES, text.len());
        slot.tell(&what, "", mistakes);
        return None;
    }
    if text.contains(r"\n") || text.contains(r"\t") || text.contains(r"\r") {
        let hint = "YAML reads escapes in double quotes only, as in \"\\n\"";
        slot.tell("holds a backslash and a letter, not the character meant", hint, mistakes);
        return None;
    }
    Some(text.as_bytes().to_vec())
}

/// Reads `compression`: a word, or a map of an algorithm to its level.
#[allow(clippy::option_option, reason = "the outer one is of a mistake, the inner one of `none`")]
fn compression(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<Option<Compression>> {
    let Value::Map(entries) = &slot.node.value else {
        let known = [
            ("none", None),
            ("gzip", Some(Compression::Gzip(defaults::GZIP_LEVEL))),
            ("zstd", Some(Compression::Zstd(defaults::ZSTD_LEVEL))),
        ];
        return slot.choice(&known, mistakes);
    };
    let block = Block::open(slot, &schema::COMPRESSION, mistakes)?;
    let mut given = block.slots();
    let (Some(form), 0) = (given.next(), given.len()) else {
        // An unknown key in it has been told already.
        if given.len() > 0 || entries.is_empty() {
            let hint = "as in `compression: { zstd: 3 }`";
            slot.tell("must have one algorithm and its level", hint, mistakes);
        }
        return None;
    };
    let mut level = |known| u32::try_from(form.count(known, mistakes)?).ok();
    Some(Some(match form.key {
        "gzip" => Compression::Gzip(level(&limits::GZIP_LEVEL)?),
        _ => Compression::Zstd(level(&limits::ZSTD_LEVEL)?),
    }))
}

/// The forms of `partition_key` that are a word.
const KEY_WORDS: [&str; 3] = ["file", "random", "host"];

/// Reads `partition_key`: a word, or a map of one key.
pub(super) fn partition_key(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<PartitionKey> {
    match &slot.node.value {
        Value::Text(word) => match word.as_str() {
            "file" => Some(PartitionKey::File),
            "host" => Some(PartitionKey::Host),
            "random" => Some(PartitionKey::Random),
            other if schema::PARTITION_KEY.keys.contains(&other) => {
                let hint = format!("as in `partition_key: {{ {other}: … }}`");
                slot.tell(&format!("needs more than the word `{other}`"), hint, mistakes);
                None
            }
            other => {
                let hint = hint::unknown_choice(other, &KEY_WORDS);
                let hint =
                    format!("{hint}, or a map with {}", hint::list(schema::PARTITION_KEY.keys));
                slot.tell(&format!("cannot be {}", quote(other)), hint, mistakes);
                None
            }
        },
        _ => key_map(slot, mistakes),
    }
}

fn key_map(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<PartitionKey> {
    let block = Block::open(slot, &schema::PARTITION_KEY, mistakes)?;
    let mut given = block.slots();
    match (given.next(), given.len()) {
        (Some(form), 0) => match form.key {
            "constant" => constant(form, mistakes),
            "json_field" => json_field(form, mistakes),
            _ => grouped(form, mistakes),
        },
        (Some(_), _) => {
            let hint = format!("keep one of {}", hint::list(schema::PARTITION_KEY.keys));
            slot.tell("can be found in one way only", hint, mistakes);
            None
        }
        (None, _) => {
            // An unknown key in it has been told already.
            if matches!(&slot.node.value, Value::Map(entries) if entries.is_empty()) {
                let hint = format!("give one of {}", hint::list(schema::PARTITION_KEY.keys));
                slot.tell("is an empty map", hint, mistakes);
            }
            None
        }
    }
}

fn constant(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<PartitionKey> {
    let text = slot.text(mistakes)?;
    let text = aws::within(slot, text, &limits::PARTITION_KEY_CHARS, mistakes)?;
    Some(PartitionKey::Constant(Arc::from(text)))
}

fn json_field(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<PartitionKey> {
    let text = slot.text(mistakes)?;
    let path: Vec<String> = text.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        let hint = "as in `user.id`";
        slot.tell(&format!("has an empty part: {}", quote(text)), hint, mistakes);
        return None;
    }
    Some(PartitionKey::JsonField(path))
}

fn grouped(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<PartitionKey> {
    let regex = regex(slot, mistakes)?;
    if regex.captures_len() < 2 {
        let hint = "put parentheses around the part that is the key";
        slot.tell("has no group", hint, mistakes);
        return None;
    }
    Some(PartitionKey::Regex(regex))
}

/// Reads the `multiline` block; beside it, `max_bytes` for comparison with other blocks.
pub(super) fn multiline(
    slot: Slot<'_>,
    mistakes: &mut Mistakes,
) -> Option<(Multiline, Field<usize>)> {
    let block = Block::open(slot, &schema::MULTILINE, mistakes)?;
    let start = block.required("start", "", mistakes).and_then(|slot| regex(slot, mistakes));
    let max_age = block.field("max_age", defaults::MULTILINE_MAX_AGE, |slot| {
        slot.duration(&limits::MULTILINE_MAX_AGE, mistakes)
    });
    let max_bytes = block.field("max_bytes", defaults::MULTILINE_MAX_BYTES, |slot| {
        slot.size(&limits::MAX_BYTES, mistakes)
    });
    let multiline = Multiline { start: start?, max_age: max_age.value, max_bytes: max_bytes.value };
    Some((multiline, max_bytes))
}

/// Compiles a regular expression over bytes.
fn regex(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<Regex> {
    let text = slot.text(mistakes)?;
    let built = RegexBuilder::new(text).size_limit(limits::REGEX_BYTES).build();
    let error = match built {
        Ok(regex) => return Some(regex),
        Err(regex::Error::CompiledTooBig(_)) => "it is too large once compiled".to_owned(),
        // The last line says what; those above draw the expression.
        Err(error) => {
            let words = error.to_string();
            let last = words.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        }
    };
    let what = format!("is no regular expression: {error}");
    slot.tell(&what, "write backslashes in single quotes, as in '\\d+'", mistakes);
    None
}
