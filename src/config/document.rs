//! The document: the YAML as written, every value with its place. The only file that names
//! `serde_yaml`.
//!
//! Invariant: the values are those `serde_yaml` reads, in the order written, duplicate keys
//! included; the places are those of the [`Outline`], laid over the values node by node. Where the
//! two should ever disagree, a value gets the place of what holds it.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::diagnostic::{At, Diagnostic};
use super::outline::{NodeId, Outline};

/// The longest text that is read: 256 KiB, some thousand flows.
pub(super) const TEXT_BYTES: usize = 256 << 10;

/// The most values that aliases may stand for, beyond those written: a block of ten settings shared
/// by hundreds of flows. It bounds what `*a` of `*b` of `*c` can grow to.
const ALIASED: usize = 5_000;

/// A value and where it stands.
#[derive(Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

/// What YAML can say.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    /// A number with a fraction.
    Fraction(f64),
    Integer(i128),
    List(Vec<Node>),
    /// The entries in the order written.
    Map(Vec<(Node, Node)>),
    Null,
    Text(String),
}

impl Value {
    /// Returns the kind of value, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Fraction(_) => "a number with a fraction",
            Self::Integer(_) => "a number",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Null => "nothing",
            Self::Text(_) => "text",
        }
    }
}

/// Reads a text into its values.
///
/// # Errors
/// The one mistake that keeps the text from being read at all.
pub(super) fn parse(text: &str) -> Result<Node, Diagnostic> {
    check_length(text.len())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let outline = Outline::read(text)?;
    let Some(root) = outline.root() else {
        return Ok(Node { at: At::START, value: Value::Null });
    };
    let left = Cell::new(outline.len().saturating_add(ALIASED));
    let raw = Seed { left: &left }.deserialize(serde_yaml::Deserializer::from_str(text));
    let raw = raw.map_err(|error| {
        let at = error.location().map(|found| At { line: found.line(), column: found.column() });
        // Its words are about structure alone: the visitor below takes every kind of value.
        let message = format!("not valid YAML: {}", words(&error));
        Diagnostic { at: at.or(Some(At::START)), message, hint: String::new() }
    })?;
    Ok(place(raw, &outline, Some(root), At::START))
}

/// Refuses a text that is longer than a configuration can be.
///
/// # Errors
/// Where `bytes` are more than [`TEXT_BYTES`].
pub(super) fn check_length(bytes: usize) -> Result<(), Diagnostic> {
    if bytes <= TEXT_BYTES {
        return Ok(());
    }
    Err(Diagnostic {
        at: Some(At::START),
        message: format!("the file is longer than {} KiB", TEXT_BYTES >> 10),
        hint: "is this the right file?".to_owned(),
    })
}

/// Returns the error's words without the position that `serde_yaml` appends.
fn words(error: &serde_yaml::Error) -> String {
    let full = error.to_string();
    full.split(" at line ").next().unwrap_or_default().to_owned()
}

/// Lays the places of the outline over the values.
fn place(raw: Raw, outline: &Outline, id: Option<NodeId>, around: At) -> Node {
    let at = id.and_then(|id| outline.at(id)).unwrap_or(around);
    let children = id.map_or(&[][..], |id| outline.children(id));
    let mut children = children.iter().copied();
    let value = match raw {
        Raw::Leaf(value) => value,
        Raw::List(items) => {
            let items = items.into_iter();
            Value::List(items.map(|item| place(item, outline, children.next(), at)).collect())
        }
        Raw::Map(entries) => {
            let entries = entries.into_iter().map(|(key, value)| {
                let key = place(key, outline, children.next(), at);
                let value = place(value, outline, children.next(), key.at);
                (key, value)
            });
            Value::Map(entries.collect())
        }
    };
    Node { at, value }
}

/// A value as `serde_yaml` gives it, without its place.
enum Raw {
    Leaf(Value),
    List(Vec<Raw>),
    Map(Vec<(Raw, Raw)>),
}

/// Reads any value, counting down: aliases of aliases may stand for more than memory holds.
#[derive(Clone, Copy)]
struct Seed<'a> {
    left: &'a Cell<usize>,
}

impl Seed<'_> {
    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| E::custom("aliases stand for too many values"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Raw;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Integer(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Integer(value.into())))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Integer(value)))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX))))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Fraction(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Text(value.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Leaf(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry_seed(self, self)? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn duplicate_keys_keep_both_places() {
        let Value::Map(entries) = parse("a: 1\nb: x\na: 2\n").unwrap().value else { panic!() };
        let places: Vec<usize> = entries.iter().map(|(key, _)| key.at.line).collect();
        assert_eq!(places, [1, 2, 3]);
    }

    #[test]
    fn an_aliased_value_stands_at_the_alias_and_its_parts_at_the_anchor() {
        let Value::Map(entries) = parse("a: &x [1]\nb: *x\n").unwrap().value else { panic!() };
        let (_, aliased) = &entries[1];
        assert_eq!(aliased.at, At { line: 2, column: 4 });
        let one = Node { at: At { line: 1, column: 8 }, value: Value::Integer(1) };
        assert_eq!(aliased.value, Value::List(vec![one]));
    }

    #[test]
    fn an_alias_bomb_is_refused_at_once() {
        let mut bomb = vec!["a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned()];
        bomb.extend((1..12).map(|level| {
            let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
            format!("a{level}: &a{level} [{aliases}]\n")
        }));
        let bomb = bomb.concat();
        let time = || {
            let started = Instant::now();
            assert!(parse(&bomb).is_err());
            started.elapsed()
        };
        // The best of a few: the machine may be busy.
        let best = (0..5).map(|_| time()).min().unwrap();
        assert!(best < Duration::from_millis(100), "{best:?}");
        let refused = parse(&bomb).unwrap_err();
        assert!(refused.message.contains("aliases stand for too many values"), "{refused}");
        let itself = parse("a: &x [*x]").unwrap_err();
        assert!(itself.message.starts_with("not valid YAML: "), "{itself}");
    }
}
