//! The reassembler: puts records together by key and compares them with the source files as they
//! come, holding nothing but offsets.
//!
//! For flows whose records are exact slices of one file each (`format: lines`, `partition_key:
//! file`). Which file a key stands for is told by its first record.
//!
//! Invariant: a file counts as complete only where every byte of it came, in order, at the place
//! where it stands; bytes that come again are counted, never compared away.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use memchr::memmem;

use super::endpoint::Sink;

/// How far back a repetition is looked for: more than an agent has in flight.
const REPEAT_MAX: u64 = 32 * 1024 * 1024;
/// How much of a file's beginning is kept to find it by.
const PREFIX: usize = 256;
/// How many mistakes are told.
const MISTAKES_MAX: usize = 10;

/// Compares records with files.
#[derive(Debug)]
pub struct Reassembler {
    sources: Vec<Source>,
    keys: HashMap<String, Place>,
    assembled: Assembled,
    mistakes: Vec<String>,
    mistakes_count: u64,
    buffer: Vec<u8>,
}

/// What came, where all of it was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assembled {
    /// Records.
    pub records: u64,
    /// Bytes, each byte of a file counted once.
    pub bytes: u64,
    /// Bytes that came once more.
    pub duplicate_bytes: u64,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    length: u64,
    prefix: Vec<u8>,
    claimed: bool,
}

#[derive(Debug)]
struct Place {
    source: usize,
    file: File,
    offset: u64,
}

impl Reassembler {
    /// Returns a reassembler of these files, which no longer grow.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> io::Result<Self> {
        let source = |path: PathBuf| {
            let mut prefix = Vec::new();
            let file = File::open(&path)?;
            let length = file.metadata()?.len();
            file.take(PREFIX as u64).read_to_end(&mut prefix)?;
            Ok(Source { path, length, prefix, claimed: false })
        };
        Ok(Self {
            sources: paths.into_iter().map(source).collect::<io::Result<_>>()?,
            keys: HashMap::new(),
            assembled: Assembled::default(),
            mistakes: Vec::new(),
            mistakes_count: 0,
            buffer: Vec::new(),
        })
    }

    /// Returns a sink for an endpoint's records.
    #[must_use]
    pub fn sink(shared: &Arc<Mutex<Self>>) -> Sink {
        let shared = Arc::clone(shared);
        Box::new(move |record| shared.lock().unwrap().record(&record.key, &record.data))
    }

    /// Takes the next record. What is wrong with it is told at the [end](Self::finish).
    pub fn record(&mut self, key: &str, data: &[u8]) {
        self.assembled.records += 1;
        if data.is_empty() {
            return self.mistake(|| format!("key {key}: an empty record"));
        }
        match self.keys.remove(key).or_else(|| self.claim(data)) {
            None => self.mistake(|| {
                let start = data[..data.len().min(60)].escape_ascii();
                format!("key {key}: no file begins with its first record: \"{start}\"")
            }),
            Some(mut place) => {
                if let Err(error) = self.advance(&mut place, data) {
                    let path = self.sources[place.source].path.display().to_string();
                    let offset = place.offset;
                    self.mistake(|| format!("{path} at {offset}: {error} (key {key})"));
                }
                self.keys.insert(key.to_owned(), place);
            }
        }
    }

    /// Returns what came, where every file came whole; files without a byte need not come.
    ///
    /// # Errors
    /// What is wrong, one line a mistake.
    pub fn finish(&self) -> Result<Assembled, String> {
        let mut mistakes = self.mistakes.clone();
        let hidden = self.mistakes_count - mistakes.len() as u64;
        if hidden > 0 {
            mistakes.push(format!("and {hidden} more"));
        }
        for place in self.keys.values() {
            let source = &self.sources[place.source];
            if place.offset != source.length {
                let (path, offset, length) = (source.path.display(), place.offset, source.length);
                mistakes.push(format!("{path}: {offset} of {length} bytes came"));
            }
        }
        let unclaimed = self.sources.iter().filter(|source| !source.claimed && source.length > 0);
        mistakes.extend(unclaimed.map(|source| format!("{}: never came", source.path.display())));
        if mistakes.is_empty() { Ok(self.assembled) } else { Err(mistakes.join("\n")) }
    }

    /// Returns the only file that begins with `data` and belongs to no key yet.
    fn claim(&mut self, data: &[u8]) -> Option<Place> {
        let mut found = None;
        for (index, source) in self.sources.iter().enumerate().filter(|(_, s)| !s.claimed) {
            let known = source.prefix.len().min(data.len());
            if source.prefix[..known] != data[..known] || source.length < data.len() as u64 {
                continue;
            }
            let file = File::open(&source.path).ok()?;
            self.buffer.resize(data.len(), 0);
            file.read_exact_at(&mut self.buffer, 0).ok()?;
            if self.buffer == data && found.replace((index, file)).is_some() {
                return None;
            }
        }
        let (source, file) = found?;
        self.sources[source].claimed = true;
        Some(Place { source, file, offset: 0 })
    }

    /// Moves a place on by `data`, or counts it as come again.
    fn advance(&mut self, place: &mut Place, data: &[u8]) -> io::Result<()> {
        let length = self.sources[place.source].length;
        let ends = place.offset + data.len() as u64;
        if ends <= length {
            self.buffer.resize(data.len(), 0);
            place.file.read_exact_at(&mut self.buffer, place.offset)?;
            if self.buffer == data {
                place.offset = ends;
                self.assembled.bytes += data.len() as u64;
                return Ok(());
            }
        }
        let Some(again) = self.find_again(place, data)? else {
            return Err(io::Error::other("other bytes stand there, and they never came before"));
        };
        let ends = (again + data.len() as u64).max(place.offset);
        let new = ends - place.offset;
        self.assembled.bytes += new;
        self.assembled.duplicate_bytes += data.len() as u64 - new;
        place.offset = ends;
        Ok(())
    }

    /// Returns where, at or before the bytes that came, `data` stands in the file: the last such
    /// place, which counts the fewest bytes as come again.
    fn find_again(&mut self, place: &Place, data: &[u8]) -> io::Result<Option<u64>> {
        let length = self.sources[place.source].length;
        let from = place.offset.saturating_sub(REPEAT_MAX);
        let to = length.min(place.offset + data.len() as u64);
        let window = usize::try_from(to - from).map_err(io::Error::other)?;
        self.buffer.resize(window, 0);
        place.file.read_exact_at(&mut self.buffer, from)?;
        let found = memmem::rfind(&self.buffer, data).map(|at| from + at as u64);
        // A match that begins after the bytes that came would skip some.
        Ok(found.filter(|at| *at <= place.offset))
    }

    fn mistake(&mut self, tell: impl FnOnce() -> String) {
        self.mistakes_count += 1;
        if self.mistakes.len() < MISTAKES_MAX {
            self.mistakes.push(tell());
        }
    }
}
