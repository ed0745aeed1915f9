//! Compressing lines that waited together into records that are just full.
//!
//! Invariant: a record holds the text from its first line up to a place between two lines, each byte
//! once, and is within the room given; the room is filled by pieces whose compressed length is known
//! when they are written, so nothing is compressed twice but a last piece that was too long.
//!
//! ```text
//!  room     ├───────────────────────────────────┬─────────┬──┬┤
//!  pieces    15/16 of the room, as lines so      15/16 of  ...  too long: taken back, and the
//!            far have compressed                 the rest       first of the next record
//! ```
//!
//! In `kpl` a piece never goes beyond a run: each contiguous run is a frame of its own.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use memchr::{memchr, memrchr};
use smallvec::SmallVec;

use super::aggregate::Aggregation;
use super::forecast::Forecast;
use crate::config::{Compression, Format, Merge};
use crate::position::{FileKey, Run};
use crate::record::compression::{Algorithm, Compressor};
use crate::record::kpl;
use crate::record::origin::{FileTags, push_encoding};

/// The part of the room, in sixteenths, that a piece is meant to take: lines differ, and a piece that is
/// too long was compressed in vain. Of realistic logs one in two hundred first pieces is; a smaller part
/// would take more pieces, each with tables of its own: of seven eighths, a twelfth more time.
const SHARE: u64 = 15;

/// A stretch of a file's text from which on it is compressed by itself: half of a block of zstd.
const STRETCH: usize = 64 << 10;

/// From this length on, a piece that is not the first of its record tells how its file compresses.
const TELLING: usize = 16 << 10;

/// A record is full when this part of its room is left: another piece would cost what it gains.
const SLACK: usize = 128;

/// The most text in a record, however well it compresses: a reader has to hold it, and so has the
/// agent while it waits.
pub(super) const TEXT_MOST: usize = 16 << 20;

/// A stretch of text that waits to be compressed.
#[derive(Clone, Debug)]
pub(super) struct Atom {
    /// Where it ends in the text.
    pub(super) end: usize,
    /// Where it stands in its file.
    pub(super) run: Run,
    /// Lines (or groups) in it.
    pub(super) units: usize,
    /// When the oldest of it was read.
    pub(super) read_at: Instant,
    /// What a record says of its file, in `kpl`.
    pub(super) tags: Option<Arc<FileTags>>,
}

/// Text that waits, in atoms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) atoms: &'a [Atom],
    /// Whether an atom can be cut at every newline in it, or not at all.
    pub(super) divisible: bool,
}

impl Text<'_> {
    /// Returns the place between two lines to cut the text at: the last within `want` bytes after
    /// `from`, or the first after `from`; at most `end`.
    fn cut(&self, from: usize, want: usize, end: usize) -> usize {
        let limit = from.saturating_add(want).min(end);
        if limit == end {
            return end;
        }
        let index = self.atoms.partition_point(|atom| atom.end <= limit);
        let before = index.checked_sub(1).and_then(|index| self.atoms.get(index));
        let start = before.map_or(0, |atom| atom.end).max(from);
        let after = self.atoms.get(index).map_or(end, |atom| atom.end).min(end);
        if self.divisible {
            let within = self.bytes.get(start..limit).unwrap_or_default();
            if let Some(newline) = memrchr(b'\n', within) {
                return start.saturating_add(newline).saturating_add(1);
            }
        }
        if start > from {
            return start;
        }
        let rest = self.bytes.get(limit..after).unwrap_or_default();
        let newline = if self.divisible { memchr(b'\n', rest) } else { None };
        newline.map_or(after, |newline| limit.saturating_add(newline).saturating_add(1))
    }

    /// Returns the end of the contiguous run of one file that begins at `from`.
    fn run_end(&self, from: usize) -> usize {
        let first = self.atoms.partition_point(|atom| atom.end <= from);
        let atoms = self.atoms.get(first..).unwrap_or_default();
        let breaks = |pair: &[Atom]| match pair {
            [one, next] => !one.run.span.is_followed_by(&next.run.span),
            _ => false,
        };
        let last = atoms.windows(2).position(breaks).map_or(atoms.last(), |at| atoms.get(at));
        last.map_or(from, |atom| atom.end)
    }

    /// Returns the files of the text from `from` to `to`, and how many bytes there are of each in turn.
    fn parts(&self, from: usize, to: usize) -> Parts {
        let first = self.atoms.partition_point(|atom| atom.end <= from);
        let (mut parts, mut at) = (Parts::new(), from);
        for atom in self.atoms.get(first..).unwrap_or_default() {
            if at >= to {
                break;
            }
            let end = atom.end.min(to);
            let length = end.saturating_sub(at);
            match parts.last_mut() {
                Some((file, bytes)) if *file == atom.run.span.file => {
                    *bytes = bytes.saturating_add(length);
                }
                _ => parts.push((atom.run.span.file, length)),
            }
            at = end;
        }
        parts
    }

    fn atom_at(&self, from: usize) -> Option<&Atom> {
        self.atoms.get(self.atoms.partition_point(|atom| atom.end <= from))
    }
}

/// Files, and how many bytes there are of each in turn.
type Parts = SmallVec<[(FileKey, usize); 4]>;

/// What became of an attempt to make a record.
#[derive(Debug)]
pub(super) enum Packed {
    /// A record, of the text up to `end`.
    Record {
        /// Its data.
        data: Bytes,
        /// Where the text in it ends.
        end: usize,
    },
    /// All of the text has room, and more would.
    Short,
    /// Not even the first line has room; it ends at `end`.
    Over {
        /// Where it ends in the text.
        end: usize,
    },
}

/// Compresses the records of a flow.
#[derive(Debug)]
pub(super) struct Packer {
    compressor: Compressor,
    /// What is known of the files, in `kpl`.
    aggregation: Option<Aggregation>,
    /// What stands before the first line and after the last, within the frame.
    ends: [&'static [u8]; 2],
    /// What stands between two lines. In a text it follows each, so that none is empty.
    pub(super) separator: Vec<u8>,
    /// How well the lines of each file compress.
    pub(super) forecast: Forecast,
    /// Bytes that were compressed in all, to be measured.
    pub(super) work: u64,
}

impl Packer {
    /// Makes the packer of a flow, where it compresses.
    pub(super) fn new(merge: &Merge) -> Option<Self> {
        let (algorithm, level) = match merge.compression {
            None => return None,
            Some(Compression::Gzip(level)) => (Algorithm::Gzip, level),
            Some(Compression::Zstd(level)) => (Algorithm::Zstd, level),
        };
        let (ends, separator) = match &merge.format {
            Format::JsonArray => ([&b"["[..], b"]"], b",".to_vec()),
            Format::Lines { delimiter } if delimiter != b"\n" => ([&b""[..]; 2], delimiter.clone()),
            _ => ([&b""[..]; 2], Vec::new()),
        };
        Some(Self {
            compressor: Compressor::new(algorithm, level, merge.max_bytes),
            aggregation: (merge.format == Format::Kpl).then(Aggregation::default),
            ends,
            separator,
            forecast: Forecast::new(),
            work: 0,
        })
    }

    /// Returns what is known of the files, in `kpl`.
    pub(super) fn aggregation(&mut self) -> Option<&mut Aggregation> {
        self.aggregation.as_mut()
    }

    /// Returns true where records are aggregates.
    pub(super) fn aggregates(&self) -> bool {
        self.aggregation.is_some()
    }

    /// Returns what a record says of the file of `run`.
    pub(super) fn tags(&self, run: &Run) -> Option<Arc<FileTags>> {
        self.aggregation.as_ref().and_then(|aggregation| aggregation.tags(run.span.file))
    }

    /// Returns the bytes, at most, that a record of up to `limit` bytes under a key of `key` bytes has
    /// beside a lone line that does not compress.
    pub(super) fn envelope(&self, key: usize, limit: usize) -> usize {
        let frame = Compressor::bound(self.compressor.algorithm(), limit, 1).saturating_sub(limit);
        let aggregate = self.aggregation.as_ref().map_or(0, |_| Aggregation::envelope(key));
        frame.saturating_add(aggregate).saturating_add(self.around())
    }

    /// Returns the bytes before the first and after the last line, within the frame.
    pub(super) fn around(&self) -> usize {
        self.ends.iter().map(|end| end.len()).sum()
    }

    /// Returns what is to be expected of the text that is waited for before `room` is filled.
    pub(super) fn target(room: usize) -> u64 {
        Forecast::length(room.saturating_add(room / 8).max(1))
    }

    /// Returns what is expected of a text.
    pub(super) fn expected(&self, text: Text<'_>) -> u64 {
        self.forecast.expect_all(&text.parts(0, text.bytes.len()))
    }

    /// Makes a record of `room` bytes under `key` from the beginning of a text. With `last` also of a
    /// text that has room.
    pub(super) fn pack(&mut self, key: &str, text: Text<'_>, room: usize, last: bool) -> Packed {
        let all = text.bytes.len();
        let (data, end, full) = if self.aggregation.is_some() {
            self.aggregate(key, text, room)
        } else {
            let [opening, closing] = self.ends;
            let room = room.saturating_sub(self.end_len(closing));
            let (end, full) = self.fill(text, 0..all, room, opening);
            (Bytes::copy_from_slice(self.compressor.end(closing)), end, full)
        };
        if end == 0 {
            return Packed::Over { end: text.cut(0, 1, all) };
        }
        if let [whole] = *text.parts(0, end) {
            self.forecast.learn(&[whole], data.len());
        }
        if end == all && !full && !last { Packed::Short } else { Packed::Record { data, end } }
    }

    /// Returns the data of a record that holds nothing but `bytes`, of `run`, whatever its length.
    pub(super) fn alone(&mut self, key: &str, bytes: &[u8], run: Run) -> Bytes {
        let tags = self.tags(&run);
        self.seal(key, &[bytes], run, tags.as_ref())
    }

    /// The same of the first line of a text, encoded as it would be among others.
    pub(super) fn first_alone(
        &mut self,
        key: &str,
        bytes: &[u8],
        run: Run,
        tags: Option<&Arc<FileTags>>,
    ) -> Bytes {
        let [opening, closing] = self.ends;
        let line = bytes.strip_suffix(self.separator.as_slice()).unwrap_or(bytes);
        self.seal(key, &[opening, line, closing], run, tags)
    }

    fn seal(
        &mut self,
        key: &str,
        parts: &[&[u8]],
        run: Run,
        tags: Option<&Arc<FileTags>>,
    ) -> Bytes {
        self.compressor.begin();
        self.compressor.write(parts);
        self.work = self.work.saturating_add(parts.iter().map(|part| part.len() as u64).sum());
        let tags = tagged(tags, true, run.span.start, self.compressor.algorithm());
        let frame = self.compressor.end(b"");
        if self.aggregation.is_none() {
            return Bytes::copy_from_slice(frame);
        }
        let mut data = Vec::new();
        kpl::begin(key, &mut data);
        kpl::push(frame, &tags, &mut data);
        kpl::end(&mut data);
        data.into()
    }

    /// Fills an aggregate with a frame for each run.
    fn aggregate(&mut self, key: &str, text: Text<'_>, room: usize) -> (Bytes, usize, bool) {
        let algorithm = self.compressor.algorithm();
        let (mut data, mut at, mut full) = (Vec::new(), 0, false);
        let mut named: Vec<_> = Vec::new();
        kpl::begin(key, &mut data);
        while at < text.bytes.len() && !full {
            let Some(atom) = text.atom_at(at) else { break };
            let start = atom.end.saturating_sub(at) as u64;
            let offset = atom.run.span.end.saturating_sub(start);
            let first = !named.contains(&atom.run.span.file);
            let tags = tagged(atom.tags.as_ref(), first, offset, algorithm);
            let beside = kpl::pushed_len(room, tags.len()).saturating_sub(room);
            let ends = kpl::DIGEST.saturating_add(self.end_len(b""));
            let taken = data.len().saturating_add(beside).saturating_add(ends);
            let left = room.saturating_sub(taken);
            let (end, filled) = self.fill(text, at..text.run_end(at), left, b"");
            full = filled || end == at;
            if end > at {
                kpl::push(self.compressor.end(b""), &tags, &mut data);
                named.push(atom.run.span.file);
            }
            at = end;
        }
        kpl::end(&mut data);
        (data.into(), at, full)
    }

    /// Compresses as much of `range` as has room in a frame without its end, at places between lines.
    /// Returns where it stopped, and whether the room is full.
    fn fill(
        &mut self,
        text: Text<'_>,
        range: Range<usize>,
        room: usize,
        opening: &[u8],
    ) -> (usize, bool) {
        let Range { start, end } = range;
        let separator = self.separator.len();
        let before = |at: usize| at.saturating_sub(separator);
        let (mut to, mut most, mut again) = (start, usize::MAX, true);
        self.compressor.begin();
        loop {
            let taken = self.compressor.len();
            let left = room.saturating_sub(taken);
            if to == end || left <= room / SLACK {
                return (to, left <= room / SLACK);
            }
            let expected = Forecast::length(left) / 16 * SHARE;
            // Lines do not become twice as long, whatever some odd ones did.
            let parts = text.parts(to, end);
            let want = self.forecast.reach_in(&parts, expected).max(left / 2).min(most);
            // A stretch of one file is a piece, which tells of this file alone.
            let stretch = parts.first().map_or(0, |(_, bytes)| *bytes);
            let want = if stretch >= STRETCH { want.min(stretch) } else { want };
            let next = text.cut(to, want, end);
            let (opening, from) = if to == start { (opening, to) } else { (&b""[..], before(to)) };
            self.compressor
                .write(&[opening, text.bytes.get(from..before(next)).unwrap_or_default()]);
            self.work = self.work.saturating_add(next.saturating_sub(to) as u64);
            let (written, length) = (next.saturating_sub(to), self.compressor.len());
            if to == start || written >= TELLING {
                self.forecast.learn(&text.parts(to, next), length.saturating_sub(taken));
            }
            match (length <= room, to == start) {
                (true, _) => to = next,
                (false, false) if again && left > room / 4 => {
                    // Much room would stay empty: once more, now that it is known better.
                    (again, to) = (false, start);
                    self.compressor.begin();
                }
                (false, false) => {
                    self.compressor.undo();
                    return (to, true);
                }
                (false, true) if next == text.cut(start, 1, end) => return (start, true),
                // Far off: lines such as these have not come for long. Once more, with less.
                (false, true) => {
                    most = written / 4 * 3;
                    self.compressor.begin();
                }
            }
        }
    }

    fn end_len(&self, closing: &[u8]) -> usize {
        self.compressor.algorithm().end_len(closing.len())
    }
}

/// Returns the tags of a frame of a run that begins at `offset`.
fn tagged(tags: Option<&Arc<FileTags>>, first: bool, offset: u64, algorithm: Algorithm) -> Vec<u8> {
    let mut written = Vec::new();
    if let Some(tags) = tags {
        tags.push(first, offset, &mut written);
    }
    push_encoding(algorithm, &mut written);
    written
}
