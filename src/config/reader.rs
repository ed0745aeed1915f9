//! The typed reader: blocks of known keys, and values of wanted kinds, with every mistake noted on
//! the way instead of stopping at the first.
//!
//! Invariant: whatever yields `None` or an unsound [`Field`] has told why exactly once; so nobody
//! who looks at such a value later may tell of it again.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::{At, Mistakes, quote};
use super::document::{Node, Value};
use super::hint;
use super::schema::Schema;
use super::units::{Period, Size, UnitError, parse_duration, parse_size};

/// A map of the document whose keys are those of a [`Schema`].
pub(super) struct Block<'a> {
    at: At,
    name: &'static str,
    slots: BTreeMap<&'a str, Slot<'a>>,
}

/// The value of a key, or an item of its list.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    /// The key, for messages.
    pub(super) key: &'a str,
    /// The value.
    pub(super) node: &'a Node,
    /// Whether it is an entry of the key's list.
    pub(super) entry: bool,
}

/// A setting as it stands after reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<T> {
    /// What was written, or the default.
    pub(super) value: T,
    /// Where it was written; `None` where it was not.
    pub(super) at: Option<At>,
    /// False where a mistake has been told about it; `value` is then the default.
    pub(super) sound: bool,
}

impl<'a> Block<'a> {
    /// Opens a map, and tells of keys that are unknown or given twice.
    pub(super) fn open(
        slot: Slot<'a>,
        schema: &'static Schema,
        mistakes: &mut Mistakes,
    ) -> Option<Self> {
        let Value::Map(entries) = &slot.node.value else {
            let hint = format!("with the keys {}", hint::list(schema.keys));
            slot.wrong_kind("must be a map", &hint, mistakes);
            return None;
        };
        let mut first_at: BTreeMap<&str, At> = BTreeMap::new();
        let mut slots = BTreeMap::new();
        for (key, node) in entries {
            let Value::Text(name) = &key.value else {
                mistakes.tell(key.at, format!("a key must be text, not {}", key.value.kind()), "");
                continue;
            };
            if let Some(first) = first_at.get(name.as_str()) {
                let message = format!("{} is given twice, first at {first}", quote(name));
                mistakes.tell(key.at, message, "remove one of the two");
                continue;
            }
            first_at.insert(name, key.at);
            if schema.keys.contains(&name.as_str()) {
                slots.insert(name.as_str(), Slot { key: name, node, entry: false });
            } else {
                tell_unknown(name, key.at, schema, mistakes);
            }
        }
        Some(Self { at: slot.node.at, name: schema.name, slots })
    }

    /// Returns what is given for a key; nothing and `null` are the same.
    pub(super) fn slot(&self, key: &str) -> Option<Slot<'a>> {
        self.slots.get(key).copied().filter(|slot| slot.node.value != Value::Null)
    }

    /// Reads a key that may be left out.
    pub(super) fn field<T>(
        &self,
        key: &str,
        default: T,
        read: impl FnOnce(Slot<'a>) -> Option<T>,
    ) -> Field<T> {
        let Some(slot) = self.slot(key) else {
            return Field { value: default, at: None, sound: true };
        };
        let at = Some(slot.node.at);
        match read(slot) {
            Some(value) => Field { value, at, sound: true },
            None => Field { value: default, at, sound: false },
        }
    }

    /// Returns what is given for a key that must be there, or tells that it is missing.
    pub(super) fn required(
        &self,
        key: &str,
        hint: &str,
        mistakes: &mut Mistakes,
    ) -> Option<Slot<'a>> {
        match self.slots.get(key) {
            Some(empty) if empty.node.value == Value::Null => {
                empty.tell("has no value", hint, mistakes);
                None
            }
            Some(slot) => Some(*slot),
            None => {
                mistakes.tell(self.at, format!("`{key}` is missing in {}", self.name), hint);
                None
            }
        }
    }

    /// Returns the slots of all keys given, by name.
    pub(super) fn slots(&self) -> impl ExactSizeIterator<Item = Slot<'a>> {
        self.slots.values().copied()
    }
}

fn tell_unknown(name: &str, at: At, schema: &Schema, mistakes: &mut Mistakes) {
    if hint::is_credential(name) {
        let message = format!("credentials do not belong in this file: {}", quote(name));
        mistakes.tell(at, message, hint::CREDENTIALS_HINT);
    } else {
        let message = format!("unknown key {} in {}", quote(name), schema.name);
        mistakes.tell(at, message, hint::unknown_key(name, schema));
    }
}

impl<'a> Slot<'a> {
    /// Tells that the value is wrong.
    pub(super) fn tell(self, what: &str, hint: impl Into<String>, mistakes: &mut Mistakes) {
        let subject = if self.entry { "an entry of " } else { "" };
        mistakes.tell(self.node.at, format!("{subject}`{}` {what}", self.key), hint);
    }

    /// Tells that the key's value is of the wrong kind.
    pub(super) fn wrong_kind(self, wanted: &str, hint: &str, mistakes: &mut Mistakes) {
        self.tell(&format!("{wanted}, not {}", self.node.value.kind()), hint, mistakes);
    }

    /// Reads text that is not empty.
    pub(super) fn text(self, mistakes: &mut Mistakes) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) if text.is_empty() => {
                self.tell("is empty", "", mistakes);
                None
            }
            Value::Text(text) if text.contains('\0') => {
                self.tell("holds a NUL character", "", mistakes);
                None
            }
            Value::Text(text) => Some(text),
            Value::Bool(_) | Value::Integer(_) | Value::Fraction(_) => {
                self.wrong_kind("must be text", "put it in quotes", mistakes);
                None
            }
            Value::List(_) | Value::Map(_) | Value::Null => {
                self.wrong_kind("must be text", "", mistakes);
                None
            }
        }
    }

    /// Reads one word out of a table.
    pub(super) fn choice<T: Copy>(
        self,
        table: &[(&'static str, T)],
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        let words: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
        let Value::Text(given) = &self.node.value else {
            self.wrong_kind("must be a word", &format!("one of: {}", hint::list(&words)), mistakes);
            return None;
        };
        let found = table.iter().find(|(word, _)| word == given).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let hint = hint::unknown_choice(given, &words);
            self.tell(&format!("cannot be {}", quote(given)), hint, mistakes);
        }
        found
    }

    /// Reads a list that is not empty.
    pub(super) fn list(self, hint: &str, mistakes: &mut Mistakes) -> Option<Vec<Slot<'a>>> {
        match &self.node.value {
            Value::List(items) if items.is_empty() => {
                self.tell("is an empty list", hint, mistakes);
                None
            }
            Value::List(items) => {
                Some(items.iter().map(|node| Slot { key: self.key, node, entry: true }).collect())
            }
            _ => {
                self.wrong_kind("must be a list", hint, mistakes);
                None
            }
        }
    }

    /// Reads yes or no.
    pub(super) fn switch(self, mistakes: &mut Mistakes) -> Option<bool> {
        if let Value::Bool(on) = self.node.value {
            return Some(on);
        }
        self.wrong_kind("must be true or false", "", mistakes);
        None
    }

    /// Reads a whole number.
    pub(super) fn count(
        self,
        range: &RangeInclusive<usize>,
        mistakes: &mut Mistakes,
    ) -> Option<usize> {
        let Value::Integer(number) = self.node.value else {
            self.wrong_kind("must be a whole number", "", mistakes);
            return None;
        };
        let fits = usize::try_from(number).ok().filter(|number| range.contains(number));
        if fits.is_none() {
            let bounds = format!("from {} to {}", range.start(), range.end());
            self.tell(&format!("is {number}, but must be {bounds}"), "", mistakes);
        }
        fits
    }

    /// Reads a price in dollars.
    pub(super) fn dollars(self, mistakes: &mut Mistakes) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a price has a few digits")]
        let dollars = match self.node.value {
            Value::Fraction(number) => number,
            Value::Integer(number) => number as f64,
            _ => {
                self.wrong_kind("must be a number of dollars", "as in `0.014`", mistakes);
                return None;
            }
        };
        if dollars.is_finite() && dollars >= 0.0 {
            return Some(dollars);
        }
        self.tell("must be a number of dollars, 0 or more", "as in `0.014`", mistakes);
        None
    }

    /// Reads a size in bytes.
    pub(super) fn size(
        self,
        range: &RangeInclusive<usize>,
        mistakes: &mut Mistakes,
    ) -> Option<usize> {
        let bytes = match &self.node.value {
            Value::Integer(bytes) => u64::try_from(*bytes).map_err(|_| UnitError::NotANumber),
            Value::Text(text) => parse_size(text),
            _ => return self.wrong_kind_of_quantity("a size", SIZE_HINT, mistakes),
        };
        let bytes = self.unit(bytes, SIZE_HINT, mistakes)?;
        let fits = usize::try_from(bytes).ok().filter(|bytes| range.contains(bytes));
        if fits.is_none() {
            let bounds = format!("from {} to {}", shown(*range.start()), shown(*range.end()));
            self.tell(&format!("is {}, but must be {bounds}", Size(bytes)), "", mistakes);
        }
        fits
    }

    /// Reads a duration.
    pub(super) fn duration(
        self,
        range: &RangeInclusive<Duration>,
        mistakes: &mut Mistakes,
    ) -> Option<Duration> {
        let duration = match &self.node.value {
            Value::Integer(0) => Ok(Duration::ZERO),
            Value::Integer(number) if *number > 0 => Err(UnitError::NoUnit),
            Value::Integer(_) => Err(UnitError::NotANumber),
            Value::Text(text) => parse_duration(text),
            _ => return self.wrong_kind_of_quantity("a duration", DURATION_HINT, mistakes),
        };
        let duration = self.unit(duration, DURATION_HINT, mistakes)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let bounds = format!("from {} to {}", Period(*range.start()), Period(*range.end()));
        self.tell(&format!("is {}, but must be {bounds}", Period(duration)), "", mistakes);
        None
    }

    fn unit<T>(self, read: Result<T, UnitError>, hint: &str, mistakes: &mut Mistakes) -> Option<T> {
        read.map_err(|error| self.tell(&error.to_string(), hint, mistakes)).ok()
    }

    fn wrong_kind_of_quantity<T>(
        self,
        wanted: &str,
        hint: &str,
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        if matches!(self.node.value, Value::Fraction(_)) {
            self.tell(&UnitError::NotANumber.to_string(), hint, mistakes);
        } else {
            self.wrong_kind(&format!("must be {wanted}"), hint, mistakes);
        }
        None
    }
}

/// Says how sizes are written.
const SIZE_HINT: &str =
    "write it as in `25 KB`; units: B, KB, MB, GB of 1000, KiB, MiB, GiB of 1024";

/// Says how durations are written.
const DURATION_HINT: &str = "write it as in `5 s`; units: ms, s, min, h, d";

/// Returns a number of bytes as people write it.
pub(super) fn shown(bytes: usize) -> Size {
    Size(u64::try_from(bytes).unwrap_or(u64::MAX))
}
