//! The scan of a call's body: from quote to quote, which SIMD finds, in pieces as they arrive.
//!
//! It takes JSON as Kinesis clients write it: keys and values of records are strings, and none that
//! matters holds an escape.
//!
//! Invariant: a record is counted when its partition key has been read, whichever of key and data
//! comes first.

use kinetail::cost;

/// Text kept of a string: as much as tells names apart.
const NAME: usize = 16;

/// What the next string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Name,
    Data,
    Key,
}

/// What a body holds.
#[derive(Debug)]
pub(super) struct Scan {
    inside: bool,
    next: Next,
    /// The first bytes of the string that is being read, its length, and its last two bytes.
    name: Vec<u8>,
    length: usize,
    tail: [u8; 2],
    /// Of the record that is being read: bytes of data and of its key, once known.
    data: Option<u64>,
    key: Option<u64>,
    records: u64,
    bytes: u64,
    units: u64,
    /// The whole data where lines are looked at, in base64, one record after the other.
    lines: Option<Vec<Vec<u8>>>,
    text: Vec<u8>,
}

impl Scan {
    /// Makes a scan that keeps the data of records, or does not.
    pub(super) fn new(keep: bool) -> Self {
        Self {
            inside: false,
            next: Next::Name,
            name: Vec::with_capacity(NAME),
            length: 0,
            tail: [0; 2],
            data: None,
            key: None,
            records: 0,
            bytes: 0,
            units: 0,
            lines: keep.then(Vec::new),
            text: Vec::new(),
        }
    }

    /// Returns how many records there were.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Returns bytes of data, without keys.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the PUT payload units of the records.
    pub(super) fn units(&self) -> u64 {
        self.units
    }

    /// Returns the data of the records, in base64, where it was kept.
    pub(super) fn data(&self) -> &[Vec<u8>] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// Takes the next piece of the body.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(quote) = memchr::memchr(b'"', bytes) {
            let (text, rest) = bytes.split_at(quote);
            if self.inside {
                self.text(text);
                self.end();
            }
            self.inside = !self.inside;
            bytes = rest.get(1..).unwrap_or_default();
        }
        if self.inside {
            self.text(bytes);
        }
    }

    fn text(&mut self, text: &[u8]) {
        let missing = NAME.saturating_sub(self.name.len());
        self.name.extend(text.iter().take(missing));
        self.length += text.len();
        for &byte in text.get(text.len().saturating_sub(2)..).unwrap_or_default() {
            self.tail = [self.tail[1], byte];
        }
        if self.lines.is_some() && self.next == Next::Data {
            self.text.extend_from_slice(text);
        }
    }

    fn end(&mut self) {
        let length = u64::try_from(self.length).unwrap_or(u64::MAX);
        match self.next {
            Next::Name => {
                self.next = match self.name.as_slice() {
                    b"Data" => Next::Data,
                    b"PartitionKey" => Next::Key,
                    _ => Next::Name,
                };
            }
            Next::Data => {
                let padding = memchr::memchr_iter(b'=', &self.tail).count();
                let padding = u64::try_from(padding).unwrap_or_default();
                self.data = Some((length / 4 * 3).saturating_sub(padding));
                self.next = Next::Name;
                if let Some(lines) = &mut self.lines {
                    lines.push(std::mem::take(&mut self.text));
                }
            }
            Next::Key => {
                self.key = Some(length);
                self.next = Next::Name;
            }
        }
        if let (Some(data), Some(key)) = (self.data, self.key) {
            self.records += 1;
            self.bytes += data;
            self.units += cost::payload_units(data + key);
            (self.data, self.key) = (None, None);
        }
        self.name.clear();
        (self.length, self.tail) = (0, [0; 2]);
    }
}
