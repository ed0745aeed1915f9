//! Where a run of lines comes from, as tags on the user records of the format `kpl`.
//!
//! Invariant: from the first user record of a run and those before it in the same aggregate, a
//! reader knows the file generation and the offset of every byte of the run: user records are whole
//! lines as they stand in the file, newline included, one after another.
//!
//! ```text
//!  tag       value                                           on
//!  kt.host   the host's name                                 ┐ the first run of a generation
//!  kt.path   where the generation was first found, as bytes  │ in the aggregate
//!  kt.id     DEVICE:INODE:BIRTH, hexadecimal; birth in       │
//!            nanoseconds since 1970, 0 where not kept        ┘
//!  kt.gen    the generation's number, decimal: never used    ┐ the first user record of
//!            again by the same agent (its state directory)   │ every run
//!  kt.off    the offset of the run's first byte, decimal     ┘
//!  kt.enc    gzip or zstd: the data is one member or frame   every compressed user record
//!            of the whole run
//! ```
//!
//! A run ends where the next user record with `kt.off` begins. Names in records are not to be
//! trusted: a path is where the bytes come from, never where to write them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compression::Algorithm;
use super::kpl::{Tags, push_tag};
use crate::position::{FileKey, Identity};

const HOST: &str = "kt.host";
const PATH: &str = "kt.path";
const ID: &str = "kt.id";
const GENERATION: &str = "kt.gen";
const OFFSET: &str = "kt.off";
const ENCODING: &str = "kt.enc";

/// A generation of a file as tags: made once, written on many records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTags {
    named: Vec<u8>,
    generation: Vec<u8>,
}

impl FileTags {
    /// Makes the tags of a generation that was first found at `path` of `host`.
    #[must_use]
    pub fn new(host: &str, path: &Path, identity: &Identity, key: FileKey) -> Self {
        let Identity { device, inode, birth, .. } = identity;
        let (mut named, mut generation) = (Vec::new(), Vec::new());
        push_tag(HOST, host.as_bytes(), &mut named);
        push_tag(PATH, path.as_os_str().as_bytes(), &mut named);
        push_tag(ID, format!("{device:x}:{inode:x}:{birth:x}").as_bytes(), &mut named);
        push_tag(GENERATION, key.0.to_string().as_bytes(), &mut generation);
        Self { named, generation }
    }

    /// Appends the tags of a run that begins at `offset`; `first` in its aggregate of its generation.
    pub fn push(&self, first: bool, offset: u64, into: &mut Vec<u8>) {
        if first {
            into.extend_from_slice(&self.named);
        }
        into.extend_from_slice(&self.generation);
        let mut digits = String::with_capacity(20);
        // Writing to a `String` cannot fail.
        let _ = write!(digits, "{offset}");
        push_tag(OFFSET, digits.as_bytes(), into);
    }

    /// Returns the most bytes that [`push`](Self::push) appends.
    #[must_use]
    pub fn most(&self) -> usize {
        let offset = 2 + 2 + OFFSET.len() + 2 + 20;
        self.named.len().saturating_add(self.generation.len()).saturating_add(offset)
    }
}

/// Appends the tag that says how the data is compressed.
pub fn push_encoding(algorithm: Algorithm, into: &mut Vec<u8>) {
    push_tag(ENCODING, algorithm.name().as_bytes(), into);
}

/// Returns how the data of a user record is compressed, where a tag says so.
#[must_use]
pub fn encoding(tags: Tags<'_>) -> Option<Algorithm> {
    tags.get(ENCODING).and_then(Algorithm::named)
}

/// A generation of a file, as a record says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The host.
    pub host: String,
    /// Where it was first found there. Not to be trusted.
    pub path: PathBuf,
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970, or 0.
    pub birth: u64,
    /// The number of the generation, at its agent.
    pub generation: u64,
}

/// Where a run begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub source: Arc<Source>,
    /// Offset of the run's first byte.
    pub offset: u64,
}

/// What was said of generations so far in one aggregate.
#[derive(Debug, Default)]
pub struct Origins {
    sources: BTreeMap<u64, Arc<Source>>,
}

impl Origins {
    /// Returns where the run begins that a user record with `tags` is the first of; `None` where
    /// the tags do not say so, or not all.
    pub fn read(&mut self, tags: Tags<'_>) -> Option<Origin> {
        let offset = number(tags.get(OFFSET)?, 10)?;
        let generation = number(tags.get(GENERATION)?, 10)?;
        if let Some(source) = source(tags, generation) {
            self.sources.insert(generation, Arc::new(source));
        }
        let source = Arc::clone(self.sources.get(&generation)?);
        Some(Origin { source, offset })
    }
}

fn source(tags: Tags<'_>, generation: u64) -> Option<Source> {
    let host = String::from_utf8(tags.get(HOST)?.to_vec()).ok()?;
    let path = PathBuf::from(std::ffi::OsString::from_vec(tags.get(PATH)?.to_vec()));
    let mut parts = tags.get(ID)?.split(|&byte| byte == b':').map(|part| number(part, 16));
    let (device, inode, birth) = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(Source { host, path, device, inode, birth, generation })
}

/// Reads digits and nothing else.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
    u64::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::super::kpl;
    use super::*;

    fn identity() -> Identity {
        Identity { device: 0xfd01, inode: 42, birth: u64::MAX, ..Identity::default() }
    }

    /// Reads the tags of user records that follow each other in one aggregate.
    fn read(tags: &[Vec<u8>]) -> Vec<Option<Origin>> {
        let mut data = Vec::new();
        kpl::begin("k", &mut data);
        for tags in tags {
            kpl::push(b"line\n", tags, &mut data);
        }
        kpl::end(&mut data);
        let mut origins = Origins::default();
        let aggregate = kpl::decode(&data).unwrap();
        aggregate.records().map(|record| origins.read(record.tags)).collect()
    }

    #[test]
    fn a_run_is_read_as_written_and_a_file_is_named_once() {
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/var/log/caf\xe9.log"));
        let file = FileTags::new("web-1", path, &identity(), FileKey(7));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        file.push(true, u64::MAX, &mut first);
        file.push(false, 12, &mut second);
        assert!(first.len() <= file.most() && second.len() < first.len() / 2);
        let read = read(&[first, vec![], second.clone()]);
        let source = Arc::new(Source {
            host: "web-1".to_owned(),
            path: path.to_owned(),
            device: 0xfd01,
            inode: 42,
            birth: u64::MAX,
            generation: 7,
        });
        let origin = |offset| Some(Origin { source: Arc::clone(&source), offset });
        assert_eq!(read, [origin(u64::MAX), None, origin(12)]);
        assert_eq!(super::tests::read(&[second]), [None], "a file that was never named");
    }

    #[test]
    fn foreign_and_broken_tags_say_nothing() {
        for (key, value) in [
            ("kt.off", "x"),
            ("kt.off", "-1"),
            ("kt.off", "+1"),
            ("kt.off", ""),
            ("kt.gen", "18446744073709551616"),
            ("kt.id", "1:2"),
            ("kt.id", "1:2:3:4"),
            ("kt.id", "1:2:g"),
        ] {
            let mut tags = Vec::new();
            for (name, sound) in [
                ("kt.host", "h"),
                ("kt.path", "/p"),
                ("kt.id", "1:2:3"),
                ("kt.gen", "1"),
                ("kt.off", "0"),
            ] {
                push_tag(name, if name == key { value } else { sound }.as_bytes(), &mut tags);
            }
            assert_eq!(read(&[tags]), [None], "{key}: {value}");
        }
    }

    #[test]
    fn the_tag_of_compression_is_read_as_written() {
        let mut tags = Vec::new();
        push_encoding(Algorithm::Zstd, &mut tags);
        let mut data = Vec::new();
        kpl::begin("k", &mut data);
        kpl::push(b"", &tags, &mut data);
        kpl::push(b"", &[], &mut data);
        kpl::end(&mut data);
        let aggregate = kpl::decode(&data).unwrap();
        let read: Vec<_> = aggregate.records().map(|record| encoding(record.tags)).collect();
        assert_eq!(read, [Some(Algorithm::Zstd), None]);
    }
}
