//! Replaying: lines arrive at a steady rate, and the real merge makes records of them.
//!
//! Invariant: time is simulated, so nothing waits, and the same sample, way and time give the same
//! figures.
//!
//! The files fill side by side: each reaches its end when the time is over. A line arrives when its
//! last byte does; what arrives within a millisecond arrives at once, as one read would find it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memchr::memchr;

use super::Way;
use super::sample::Sample;
use crate::config::{Produce, Ship};
use crate::cost::{Load, Usage, approximate};
use crate::position::{FileKey, Identity, Preceding, Run, Span};
use crate::produce::merge::{Merger, Output, RecordLimit};
use crate::produce::tail::{self, Chunk, FileEvent, Newlines, Opened};

/// What arrives within this time arrives at once.
const READ: Duration = Duration::from_millis(1);

/// The most bytes that arrive at once.
const CHUNK: usize = 256 << 10;

/// The same keys on every run.
const SEED: u64 = 0x6b69_6e65;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// What the records amount to.
    pub usage: Usage,
    /// The fewest calls that the flow's settings allow.
    pub calls: u64,
    /// Bytes of lines that `on_oversize` left out.
    pub skipped: u64,
    /// The time that the lines took to arrive.
    pub time: Duration,
    /// For how long a line waited for company, on average over their bytes.
    pub waited: Duration,
    /// For how long the line waited that waited longest.
    pub waited_most: Duration,
}

impl Measured {
    /// Returns the load that the records are.
    #[must_use]
    pub fn load(&self) -> Load<'_> {
        Load { usage: &self.usage, time: self.time }
    }
}

/// Merges the lines of `sample`, which arrive in `time`, as `flow` would on `host` if it merged in
/// this `way`.
#[must_use]
pub fn replay(flow: &Produce, way: &Way, sample: &Sample, time: Duration, host: &str) -> Measured {
    let flow = Produce { merge: way.merge.clone(), ..flow.clone() };
    let limit = Arc::new(RecordLimit::default());
    let rng = fastrand::Rng::with_seed(SEED);
    let mut merger = Merger::new(&flow, host, limit, rng);
    let begin = Instant::now();
    let mut books = Books::new(&flow, time, sample);
    let mut files: Vec<Feed> = sample
        .files
        .iter()
        .zip(0..)
        .map(|(file, key)| {
            let path = Arc::from(&*file.path);
            merger.on_input(opened(FileKey(key), Arc::clone(&path)), &mut books.out);
            Feed::new(FileKey(key), path, file.data.clone(), time)
        })
        .collect();
    let arrivals = files.iter().enumerate().filter_map(|(index, feed)| Some((feed.next()?, index)));
    let mut arrivals: BinaryHeap<_> = arrivals.map(Reverse).collect();
    while let Some(Reverse((at, index))) = arrivals.pop() {
        let Some(feed) = files.get_mut(index) else { continue };
        books.wait(&mut merger, begin, Some(at));
        if let Some(chunk) = feed.take(at, begin) {
            merger.on_input(tail::Output::Chunk(chunk), &mut books.out);
        }
        if feed.is_empty() {
            let (key, end) = (feed.key, feed.from as u64);
            let closed = FileEvent::Closed { key, end, gone: false };
            merger.on_input(tail::Output::File(closed), &mut books.out);
        }
        books.settle(at);
        arrivals.extend(feed.next().map(|next| Reverse((next, index))));
    }
    books.wait(&mut merger, begin, None);
    merger.flush(&mut books.out);
    books.settle(time);
    books.measured()
}

fn opened(key: FileKey, path: Arc<Path>) -> tail::Output {
    let identity =
        Identity { device: 0xfd00, inode: u64::MAX, birth: u64::MAX, ..Identity::default() };
    tail::Output::File(FileEvent::Opened(Opened { identity, ..Opened::begun(key, path) }))
}

/// Returns when the byte before `offset` of `length` arrives, where all arrive in `time`.
fn arrival(offset: usize, length: usize, time: Duration) -> Duration {
    time.mul_f64((approximate(offset as u64) / approximate(length.max(1) as u64)).min(1.0))
}

/// A file that fills.
struct Feed {
    key: FileKey,
    path: Arc<Path>,
    data: Bytes,
    from: usize,
    time: Duration,
    preceding: Preceding,
}

impl Feed {
    fn new(key: FileKey, path: Arc<Path>, data: Bytes, time: Duration) -> Self {
        Self { key, path, data, from: 0, time, preceding: Preceding::default() }
    }

    fn is_empty(&self) -> bool {
        self.from >= self.data.len()
    }

    /// Returns when the next line has arrived.
    fn next(&self) -> Option<Duration> {
        let line = line_end(&self.data, self.from)?;
        Some(arrival(line, self.data.len(), self.time))
    }

    /// Takes the lines that have arrived shortly after `at`, the next one at least.
    fn take(&mut self, at: Duration, begin: Instant) -> Option<Chunk> {
        let mut end = line_end(&self.data, self.from)?;
        while let Some(next) = line_end(&self.data, end)
            && arrival(next, self.data.len(), self.time) <= at.saturating_add(READ)
            && next.saturating_sub(self.from) <= CHUNK
        {
            end = next;
        }
        let data = self.data.slice(self.from..end);
        let (start, end) = (self.from as u64, end as u64);
        let chunk = Chunk {
            span: Span { file: self.key, start, end },
            origin: Arc::clone(&self.path),
            newlines: Newlines::of(&data),
            data: data.clone(),
            preceding: self.preceding,
            starts_line: true,
            ends_line: true,
            read_at: begin.checked_add(at).unwrap_or(begin),
        };
        self.preceding.push(&data);
        self.from = self.from.saturating_add(data.len());
        Some(chunk)
    }
}

/// Returns the offset after the line that begins at `from`.
fn line_end(data: &[u8], from: usize) -> Option<usize> {
    let rest = data.get(from..).filter(|rest| !rest.is_empty())?;
    let length = memchr(b'\n', rest).map_or(rest.len(), |at| at.saturating_add(1));
    Some(from.saturating_add(length))
}

/// What comes out, counted.
struct Books {
    out: Vec<Output>,
    time: Duration,
    lengths: Vec<usize>,
    measured: Measured,
    calls: Calls,
    /// Seconds waited, a byte.
    waited: f64,
    bytes: u64,
}

impl Books {
    fn new(flow: &Produce, time: Duration, sample: &Sample) -> Self {
        Self {
            out: Vec::new(),
            time,
            lengths: sample.files.iter().map(|file| file.data.len()).collect(),
            measured: Measured { time, ..Measured::default() },
            calls: Calls::of(&flow.ship),
            waited: 0.0,
            bytes: 0,
        }
    }

    /// Lets pass the time before `until`, or all that is waited for.
    fn wait(&mut self, merger: &mut Merger, begin: Instant, until: Option<Duration>) {
        while let Some(deadline) = merger.next_deadline() {
            let at = deadline.saturating_duration_since(begin);
            if until.is_some_and(|until| at > until) {
                return;
            }
            merger.on_tick(deadline, &mut self.out);
            self.settle(at);
        }
    }

    /// Counts what has come out at `now`.
    fn settle(&mut self, now: Duration) {
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::File(_) => {}
                Output::Record(record) => {
                    let size = record.size() as u64;
                    self.measured.usage.add(1, size);
                    self.calls.add(size);
                    for run in &record.runs {
                        self.run(run, now);
                    }
                }
                Output::Skipped(run) => {
                    self.measured.skipped = self.measured.skipped.saturating_add(run.span.len());
                }
            }
        }
    }

    /// Counts for how long the lines of a run have waited: the first from its own end on.
    fn run(&mut self, run: &Run, now: Duration) {
        let length = run.span.file.0;
        let length = usize::try_from(length).ok().and_then(|index| self.lengths.get(index));
        let length = length.copied().unwrap_or_default();
        let line = run.span.len() / u64::from(run.lines.max(1));
        let at =
            |offset: u64| arrival(usize::try_from(offset).unwrap_or(usize::MAX), length, self.time);
        let first = now.saturating_sub(at(run.span.start.saturating_add(line)));
        let last = now.saturating_sub(at(run.span.end));
        let bytes = run.span.len();
        self.waited += first.saturating_add(last).as_secs_f64() / 2.0 * approximate(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        self.measured.waited_most = self.measured.waited_most.max(first);
    }

    fn measured(self) -> Measured {
        let waited = self.waited / approximate(self.bytes.max(1));
        Measured {
            calls: self.calls.made,
            waited: Duration::try_from_secs_f64(waited).unwrap_or_default(),
            ..self.measured
        }
    }
}

/// Records put into calls, each as full as it may be.
struct Calls {
    most_records: u64,
    most_bytes: u64,
    /// In the last call.
    records: u64,
    bytes: u64,
    made: u64,
}

impl Calls {
    fn of(ship: &Ship) -> Self {
        let (most_records, most_bytes) = (ship.request_records as u64, ship.request_bytes as u64);
        Self { most_records, most_bytes, records: 0, bytes: 0, made: 0 }
    }

    fn add(&mut self, size: u64) {
        self.records = self.records.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size);
        let over = self.records > self.most_records || self.bytes > self.most_bytes;
        if over || self.made == 0 {
            self.made = self.made.saturating_add(1);
            (self.records, self.bytes) = (1, size);
        }
    }
}
