//! The oracle: it alone says which lines may be written, and judges whether exactly those arrived.
//!
//! A line is a function of the oracle's seed, its writer's number and its place among the writer's
//! lines, so nothing but counts is kept, and a line that comes back can be compared byte for byte.
//!
//! ```text
//!  plain, wild   3:17:text…\n        writer 3, its 18th line
//!  json          {"id":"3:17:","text":"…"}\n
//! ```
//!
//! Invariant: a [`Report`] without a mark means that the lines that arrived are the lines that were
//! written, each once, whole, and in the order of their file.

pub mod report;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use memchr::memmem;
pub use report::{Allowance, Report};
use serde::de::IgnoredAny;

use super::endpoint::{Accepted, FaultEndpoint};

/// The longest text of a wild line.
const WILD_MAX: usize = 20_000;

/// What lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Printable ASCII, 20 to 300 bytes.
    Plain,
    /// Any bytes but a newline: NUL, carriage returns (also at the end), invalid UTF-8, the seed's
    /// delimiter `#-#`; a few bytes to 20 KB.
    Wild,
    /// A JSON object a line.
    Json,
}

/// How the records of a flow hold lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `format: lines` with `"\n"`: a record is whole lines, newlines included.
    Slices,
    /// `format: lines` with another delimiter, which stands between lines without their newline. A
    /// line that holds the delimiter is a record of its own, and is taken as one.
    Delimited(Vec<u8>),
    /// `format: json_array`.
    JsonArray,
    /// `format: none`: a line a record, without its newline.
    Single,
}

/// The order in which lines must first arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ascending within a file: a rotated file and its successor may overtake each other.
    WithinFile,
    /// Ascending over all files of a writer.
    WithinWriter,
    /// Any: random partition keys.
    Any,
}

/// Mints lines and judges their arrival. Clones share what was minted.
#[derive(Clone, Debug)]
pub struct Oracle {
    seed: u64,
    shape: Shape,
    writers: Arc<Mutex<Vec<Written>>>,
}

/// What one writer has written.
#[derive(Clone, Debug, Default)]
struct Written {
    lines: u64,
    bytes: u64,
    /// The first line of each file but the first.
    files: Vec<u64>,
}

/// Where one writer gets its lines.
#[derive(Debug)]
pub struct Minter {
    oracle: Oracle,
    writer: u32,
}

impl Oracle {
    /// Returns an oracle whose every line follows from `seed`.
    #[must_use]
    pub fn new(seed: u64, shape: Shape) -> Self {
        Self { seed, shape, writers: Arc::default() }
    }

    /// Returns the seed, to be printed where a test fails.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns a new writer's source of lines.
    #[must_use]
    pub fn minter(&self) -> Minter {
        let mut writers = self.lock();
        writers.push(Written::default());
        let writer = u32::try_from(writers.len() - 1).unwrap();
        drop(writers);
        Minter { oracle: self.clone(), writer }
    }

    /// Returns how many lines all writers have minted.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lock().iter().map(|written| written.lines).sum()
    }

    /// Returns how many bytes all writers have minted, newlines included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.lock().iter().map(|written| written.bytes).sum()
    }

    /// Judges the records that a stream holds against what was minted.
    #[must_use]
    pub fn verify(&self, records: &[Accepted], layout: &Layout, order: Order) -> Report {
        let mut judge = self.judge(layout.clone(), order);
        for record in records {
            judge.record(&record.data);
        }
        judge.finish()
    }

    /// Waits until every line minted by now has arrived at the endpoint, and judges all that did.
    /// Where the deadline passes first, the report says what is missing.
    #[must_use]
    pub fn wait_for_all(
        &self,
        endpoint: &FaultEndpoint,
        layout: &Layout,
        order: Order,
        deadline: Duration,
    ) -> Report {
        let lines = self.lines();
        let mut judge = self.judge(layout.clone(), order);
        let mut judged = 0;
        let waited = endpoint.wait_until("every line arrived", deadline, |log| {
            for record in &log.records[judged..] {
                judge.record(&record.data);
            }
            judged = log.records.len();
            judge.report.arrived >= lines
        });
        let report = judge.finish();
        if let Err(timed_out) = waited {
            eprintln!("{timed_out:?}");
        }
        report
    }

    /// Begins to judge records that come one by one. Lines minted until
    /// [`finish`](Judge::finish) count as written.
    #[must_use]
    pub fn judge(&self, layout: Layout, order: Order) -> Judge {
        Judge {
            oracle: self.clone(),
            layout,
            order,
            arrived: HashMap::new(),
            report: Report::new(self.seed),
        }
    }

    /// Judges the whole lines in the files beneath a directory; while one is appended to, its end may be
    /// torn.
    #[must_use]
    pub fn judge_files(&self, directory: &Path) -> Report {
        let mut judge = self.judge(Layout::Slices, Order::WithinFile);
        let mut directories = vec![directory.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                let bytes = fs::read(path).unwrap();
                let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
                judge.record(&bytes[..whole]);
            }
        }
        judge.finish()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Written>> {
        self.writers.lock().unwrap()
    }

    /// Returns the line at a writer's place, newline included.
    fn line(&self, writer: u32, place: u64) -> Vec<u8> {
        let spread = (u64::from(writer) << 40 | place).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut draws = fastrand::Rng::with_seed(self.seed ^ spread);
        let mut line = match self.shape {
            Shape::Json => format!("{{\"id\":\"{writer}:{place}:\",\"text\":\""),
            Shape::Plain | Shape::Wild => format!("{writer}:{place}:"),
        }
        .into_bytes();
        match self.shape {
            Shape::Wild => wild(&mut draws, &mut line),
            Shape::Plain | Shape::Json => {
                let length = draws.usize(10..280);
                line.extend((0..length).map(|_| *draws.choice(PRINTABLE).unwrap()));
            }
        }
        if self.shape == Shape::Json {
            line.extend_from_slice(b"\"}");
        }
        line.push(b'\n');
        line
    }
}

/// The characters of plain texts: none that JSON escapes, none of the seed's delimiter.
const PRINTABLE: &[u8] =
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,/=-_[]()";

/// Writes the text of a wild line.
fn wild(draws: &mut fastrand::Rng, line: &mut Vec<u8>) {
    let length = match draws.u8(..) {
        0..2 => draws.usize(0..WILD_MAX),
        2..20 => draws.usize(0..4),
        _ => draws.usize(10..400),
    };
    let any = |byte: u8| if byte == b'\n' { b'\r' } else { byte };
    match draws.u8(0..4) {
        0 => line.extend((0..length).map(|_| any(draws.u8(..)))),
        1 => line.extend((0..length).map(|place| if place % 7 == 0 { 0 } else { b'z' })),
        2 => line.extend(b"#-#\xff\xc3\x28\xe2\x82".iter().cycle().take(length)),
        _ => line.extend((0..length).map(|_| *draws.choice(PRINTABLE).unwrap())),
    }
    if draws.u8(0..4) == 0 {
        line.push(b'\r');
    }
}

impl Minter {
    /// Returns the writer's next line, newline included. It counts as written: write all of it.
    pub fn next_line(&mut self) -> Vec<u8> {
        let mut writers = self.oracle.lock();
        let written = &mut writers[self.writer as usize];
        let line = self.oracle.line(self.writer, written.lines);
        written.lines += 1;
        written.bytes += line.len() as u64;
        line
    }

    /// Notes that the lines to come stand in another file.
    pub fn next_file(&mut self) {
        let mut writers = self.oracle.lock();
        let written = &mut writers[self.writer as usize];
        written.files.push(written.lines);
    }

    /// Returns the oracle.
    #[must_use]
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }
}

/// A judgement in progress.
#[derive(Debug)]
pub struct Judge {
    oracle: Oracle,
    layout: Layout,
    order: Order,
    arrived: HashMap<u32, Arrived>,
    report: Report,
}

/// What is missing, by file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingFiles {
    /// Files of which no line arrived, and some were written.
    pub whole: u64,
    /// Missing lines of files of which others arrived.
    pub lines_of_others: u64,
}

/// What has arrived of one writer.
#[derive(Debug, Default)]
struct Arrived {
    seen: Vec<bool>,
    /// The highest place that arrived, by file.
    highest: HashMap<usize, u64>,
}

impl Judge {
    /// Takes the next record's data.
    pub fn record(&mut self, data: &[u8]) {
        self.report.records += 1;
        match self.layout.clone() {
            Layout::Slices => {
                data.split_inclusive(|byte| *byte == b'\n').for_each(|line| self.line(line));
            }
            Layout::Delimited(delimiter) => self.delimited(data, &delimiter),
            Layout::JsonArray => match elements(data) {
                Some(elements) => elements.iter().for_each(|element| self.bare(element)),
                None => self.report.unknown(data, "it is no JSON array"),
            },
            Layout::Single => self.bare(data),
        }
    }

    /// Returns how many lines have arrived so far, each counted once.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.report.arrived
    }

    /// Returns the first line that `other` has seen and this has not, and how many such lines there are.
    #[must_use]
    pub fn lacking(&self, other: &Self) -> (Option<String>, u64) {
        let (mut first, mut count) = (None, 0);
        for (writer, theirs) in &other.arrived {
            let own = self.arrived.get(writer).map_or(&[][..], |own| &own.seen);
            for (place, _) in theirs.seen.iter().enumerate().filter(|(_, seen)| **seen) {
                if !own.get(place).is_some_and(|seen| *seen) {
                    first.get_or_insert_with(|| format!("line {writer}:{place}"));
                    count += 1;
                }
            }
        }
        (first, count)
    }

    /// Returns what has not arrived of all that was minted until now, file by file.
    #[must_use]
    pub fn missing_files(&self) -> MissingFiles {
        let mut missing = MissingFiles::default();
        for (writer, written) in (0..).zip(self.oracle.lock().iter()) {
            let seen = self.arrived.get(&writer).map_or(&[][..], |arrived| &arrived.seen);
            let has =
                |place: &u64| seen.get(usize::try_from(*place).unwrap()).is_some_and(|seen| *seen);
            let ends = written.files.iter().copied().chain([written.lines]);
            let mut start = 0;
            for end in ends {
                let lines = end - start;
                match lines - (start..end).filter(has).count() as u64 {
                    0 => {}
                    lost if lost == lines => missing.whole += 1,
                    lost => missing.lines_of_others += lost,
                }
                start = end;
            }
        }
        missing
    }

    /// Returns the judgement over all that was minted until now.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let writers = self.oracle.lock();
        for (writer, written) in (0..).zip(writers.iter()) {
            self.report.written += written.lines;
            let arrived = self.arrived.get(&writer);
            let has = |place: u64| {
                let place = usize::try_from(place).unwrap();
                arrived.is_some_and(|arrived| arrived.seen.get(place).is_some_and(|seen| *seen))
            };
            for place in (0..written.lines).filter(|place| !has(*place)) {
                self.report.missing(writer, place);
            }
        }
        drop(writers);
        self.report
    }

    /// Takes a record of lines between delimiters.
    fn delimited(&mut self, data: &[u8], delimiter: &[u8]) {
        let alone = memmem::find(data, delimiter).is_some() && self.is_line(data);
        if alone {
            return self.bare(data);
        }
        let mut rest = data;
        while let Some(at) = memmem::find(rest, delimiter) {
            self.bare(&rest[..at]);
            rest = &rest[at + delimiter.len()..];
        }
        self.bare(rest);
    }

    /// Returns whether the bytes are a minted line without its newline.
    fn is_line(&self, bare: &[u8]) -> bool {
        let Some((writer, place)) = identity(bare) else { return false };
        let minted = self.oracle.lock().get(writer as usize).is_some_and(|w| place < w.lines);
        minted && self.oracle.line(writer, place).strip_suffix(b"\n") == Some(bare)
    }

    /// Takes a line that came without its newline.
    fn bare(&mut self, bare: &[u8]) {
        let mut line = bare.to_vec();
        line.push(b'\n');
        self.line(&line);
    }

    /// Takes a line, newline included.
    fn line(&mut self, line: &[u8]) {
        let Some((writer, place)) = identity(line) else {
            return self.report.unknown(line, "it has no identity");
        };
        let Some(file) = self.oracle.lock().get(writer as usize).and_then(|written| {
            let before = written.files.iter().filter(|first| **first <= place).count();
            (place < written.lines).then_some(before)
        }) else {
            return self.report.unknown(line, "nobody wrote it");
        };
        let minted = self.oracle.line(writer, place);
        if minted != line {
            return self.report.damaged(writer, place, &minted, line);
        }
        let arrived = self.arrived.entry(writer).or_default();
        let index = usize::try_from(place).unwrap();
        if arrived.seen.len() <= index {
            arrived.seen.resize(index + 1, false);
        }
        if arrived.seen[index] {
            return self.report.duplicate(line.len());
        }
        arrived.seen[index] = true;
        self.report.arrived += 1;
        let scope = match self.order {
            Order::WithinFile => file,
            Order::WithinWriter => 0,
            Order::Any => return,
        };
        let highest = arrived.highest.entry(scope).or_insert(place);
        if *highest > place {
            self.report.reordered(writer, place, *highest);
        }
        *highest = place.max(*highest);
    }
}

/// Returns the writer and the place that a line says it is.
fn identity(line: &[u8]) -> Option<(u32, u64)> {
    let line = line.strip_prefix(b"{\"id\":\"").unwrap_or(line);
    let mut fields = line.splitn(3, |byte| *byte == b':');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
    let (writer, place) = (number()?, number()?);
    fields.next()?;
    Some((u32::try_from(writer).ok()?, place))
}

/// Returns the elements of a JSON array as they are written there.
fn elements(array: &[u8]) -> Option<Vec<&[u8]>> {
    serde_json::from_slice::<Vec<IgnoredAny>>(array).ok()?;
    let mut rest = array.trim_ascii().strip_prefix(b"[")?.strip_suffix(b"]")?.trim_ascii();
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        let (element, after) = rest.split_at(values.byte_offset());
        elements.push(element.trim_ascii());
        let after = after.trim_ascii_start();
        rest = after.strip_prefix(b",").unwrap_or(after).trim_ascii_start();
    }
    Some(elements)
}
