//! Partition keys: which one a file, a line or a record gets.
//!
//! Invariant: a key is 1 to 256 characters long and depends on nothing but the host, the file's
//! origin and the line, save for `random` ones; so it outlives renames and restarts.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use md5::{Digest as _, Md5};
use regex::bytes::{CaptureLocations, Regex};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::config::PartitionKey;

/// The most characters of a partition key (Kinesis's limit).
const CHARACTERS: usize = 256;

/// Hex digits of a file's key and of a random one: 64 bits, so that keys of different files meet
/// about never, and few enough to cost nothing in a record.
pub(super) const DIGITS: usize = 16;

/// The partition key of a line.
#[derive(Clone, Debug)]
pub(super) enum Key<'a> {
    /// One that many records share.
    Shared(&'a Arc<str>),
    /// One found in the line.
    Found(Cow<'a, str>),
    /// A fresh one for each record.
    Random,
}

impl Key<'_> {
    /// Returns the name of the open record that lines of this key share. Random keys have one, the
    /// empty name, which no key is.
    pub(super) fn slot(&self) -> &str {
        match self {
            Self::Shared(key) => key,
            Self::Found(key) => key,
            Self::Random => "",
        }
    }

    /// Returns its length in bytes, which counts towards a record's size.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Random => DIGITS,
            _ => self.slot().len(),
        }
    }

    /// Returns the key to write on a record; draws it if it is random.
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> Arc<str> {
        match self {
            Self::Shared(key) => Arc::clone(key),
            Self::Found(key) => Arc::from(key.as_ref()),
            Self::Random => Arc::from(format!("{:016x}", rng.u64(..))),
        }
    }
}

/// How keys are found, made ready once for a flow.
#[derive(Debug)]
pub(super) enum Keying {
    /// The same for every line of the flow.
    Fixed(Arc<str>),
    /// The file's.
    File,
    /// A string, number or truth value in the line, by path.
    Json(Vec<String>),
    /// A fresh one for each record.
    Random,
    /// The first group of a match; the locations are kept so that no line allocates.
    Regex(Regex, CaptureLocations),
}

impl Keying {
    pub(super) fn new(partition_key: &PartitionKey, host: &str) -> Self {
        match partition_key {
            PartitionKey::Constant(key) => Self::Fixed(Arc::clone(key)),
            PartitionKey::File => Self::File,
            PartitionKey::Host if host.is_empty() => Self::Fixed(Arc::from("localhost")),
            PartitionKey::Host => Self::Fixed(Arc::from(cut(host))),
            PartitionKey::JsonField(path) => Self::Json(path.clone()),
            PartitionKey::Random => Self::Random,
            PartitionKey::Regex(regex) => Self::Regex(regex.clone(), regex.capture_locations()),
        }
    }

    /// Returns true where lines of one file can have different keys.
    pub(super) fn is_by_line(&self) -> bool {
        matches!(self, Self::Json(_) | Self::Regex(..))
    }

    /// Returns the key of lines in which none can be found: the flow's or the file's.
    pub(super) fn fallback<'a>(&'a self, file: &'a Arc<str>) -> Key<'a> {
        match self {
            Self::Fixed(key) => Key::Shared(key),
            Self::Random => Key::Random,
            Self::File | Self::Json(_) | Self::Regex(..) => Key::Shared(file),
        }
    }

    /// Returns the key of `line`, whose newline (LF or CR LF) is not looked at.
    pub(super) fn of<'a>(&'a mut self, line: &'a [u8], file: &'a Arc<str>) -> Key<'a> {
        let found = match self {
            Self::Json(path) => json_field(bare(line), path).map(Cow::Owned),
            Self::Regex(regex, locations) => {
                let line = bare(line);
                let matched = regex.captures_read(locations, line).is_some();
                let group = if matched { locations.get(1) } else { None };
                group.and_then(|(start, end)| line.get(start..end)).map(String::from_utf8_lossy)
            }
            _ => None,
        };
        match found.filter(|key| !key.is_empty()) {
            Some(Cow::Borrowed(key)) => Key::Found(Cow::Borrowed(cut(key))),
            Some(Cow::Owned(mut key)) => {
                key.truncate(cut(&key).len());
                Key::Found(Cow::Owned(key))
            }
            None => self.fallback(file),
        }
    }
}

/// Returns the key of a file: the first 16 hex digits of MD5 over the host's name, a NUL and the
/// path where this generation was first found.
pub(super) fn file_key(host: &str, origin: &Path) -> Arc<str> {
    let mut hasher = Md5::new();
    hasher.update(host.as_bytes());
    hasher.update([0]);
    hasher.update(origin.as_os_str().as_bytes());
    let mut key = String::with_capacity(DIGITS);
    for byte in hasher.finalize().iter().take(DIGITS / 2) {
        let _ = write!(key, "{byte:02x}");
    }
    Arc::from(key)
}

/// Returns a line without its LF or CR LF, which patterns such as `(\S+)$` do not expect.
pub(super) fn bare(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn cut(key: &str) -> &str {
    let end = key.char_indices().nth(CHARACTERS).map_or(key.len(), |(at, _)| at);
    key.get(..end).unwrap_or(key)
}

/// Returns the string, number or truth value at `path` of a line that is JSON.
fn json_field(line: &[u8], path: &[String]) -> Option<String> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let found = AtPath(path).deserialize(&mut json).ok()?;
    json.end().ok().and(found)
}

/// Walks down to the value at a path; all else is passed over without being built.
struct AtPath<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for AtPath<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
        value.deserialize_any(self)
    }
}

impl AtPath<'_> {
    /// A plain value is the one looked for only at the end of the path.
    fn leaf(&self, value: &(impl ToString + ?Sized)) -> Option<String> {
        self.0.is_empty().then(|| value.to_string())
    }
}

impl<'de> Visitor<'de> for AtPath<'_> {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(self.leaf(&value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.leaf(&value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.leaf(&value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(self.leaf(&value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.leaf(value))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let Some((name, rest)) = self.0.split_first() else {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(None);
        };
        while let Some(here) = map.next_key_seed(Is(name))? {
            if here && found.is_none() {
                found = map.next_value_seed(AtPath(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares an object's key without copying it.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(partition_key: &PartitionKey, line: &[u8]) -> String {
        let file = Arc::from("file");
        Keying::new(partition_key, "web-1").of(line, &file).slot().to_owned()
    }

    fn json(path: &str, line: &str) -> String {
        let path = path.split('.').map(str::to_owned).collect();
        found(&PartitionKey::JsonField(path), line.as_bytes())
    }

    #[test]
    fn a_files_key_is_of_host_and_origin_alone() {
        let key = file_key("web-1", Path::new("/var/log/a.log"));
        // printf 'web-1\0/var/log/a.log' | md5sum
        assert_eq!(&*key, "5cfc4a8efdc8c827");
        assert_ne!(key, file_key("web-2", Path::new("/var/log/a.log")));
        assert_ne!(key, file_key("web-1", Path::new("/var/log/b.log")));
    }

    #[test]
    fn a_json_field_is_a_string_number_or_truth_value_at_its_path() {
        assert_eq!(json("user.id", r#"{"x":[1,{}],"user":{"n":null,"id":"ann"}}"#), "ann");
        assert_eq!(json("id", "{\"id\":-7}\r\n"), "-7");
        assert_eq!(json("id", r#"{"id":1.5}"#), "1.5");
        assert_eq!(json("id", r#"{"id":true}"#), "true");
        assert_eq!(json("id", r#"{"id":"a\u0062"}"#), "ab");
        assert_eq!(json("id", r#"{"id":"first","id":"second"}"#), "first");
    }

    #[test]
    fn a_line_without_the_field_gets_the_files_key() {
        for line in [r#"{"id":null}"#, r#"{"id":{}}"#, r#"{"id":[1]}"#, r#"{"id":""}"#, "[1]", "x"]
        {
            assert_eq!(json("id", line), "file", "{line}");
        }
        assert_eq!(json("id", r#"{"id":1"#), "file");
        assert_eq!(json("id", r#"{"id":1} x"#), "file");
        assert_eq!(json("a.b", r#"{"a":"b"}"#), "file");
        assert_eq!(json("a", r#"{"a":{"b":1}}"#), "file");
    }

    #[test]
    fn a_regex_gives_its_first_group_or_the_files_key() {
        let key = PartitionKey::Regex(Regex::new(r"user=(\w*)(;|$)").unwrap());
        assert_eq!(found(&key, b"GET user=ann;\n"), "ann");
        assert_eq!(found(&key, b"GET user=ann\r\n"), "ann");
        assert_eq!(found(&key, b"GET user=;\n"), "file");
        assert_eq!(found(&key, b"GET\n"), "file");
        let any = PartitionKey::Regex(Regex::new("(?-u)(.*)").unwrap());
        assert_eq!(found(&any, b"caf\xe9\n"), "caf\u{fffd}");
    }

    #[test]
    fn keys_are_cut_to_256_characters() {
        let long = "é".repeat(300);
        assert_eq!(json("id", &format!(r#"{{"id":"{long}"}}"#)).chars().count(), 256);
        let key = PartitionKey::Regex(Regex::new("(.*)").unwrap());
        assert_eq!(found(&key, long.as_bytes()).chars().count(), 256);
        let file = Arc::from("file");
        let host = Keying::new(&PartitionKey::Host, &long);
        assert_eq!(host.fallback(&file).slot().chars().count(), 256);
        assert_eq!(Keying::new(&PartitionKey::Host, "").fallback(&file).slot(), "localhost");
    }

    #[test]
    fn a_random_key_is_sixteen_fresh_hex_digits() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (one, two) = (Key::Random.draw(&mut rng), Key::Random.draw(&mut rng));
        assert_ne!(one, two);
        assert_eq!((one.len(), Key::Random.len()), (DIGITS, DIGITS));
    }
}
