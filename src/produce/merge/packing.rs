//! Lines on their way into compressed records: they wait as text until there is enough of it.
//!
//! Invariant: the atoms of an open record cover its text, in order, each with a separator at its end; and
//! the runs of a packed record are those of exactly the text in it.
//!
//! ```text
//!  push_block, push ─▶ text ─ as much as should fill a record ─▶ Packer ─┬─▶ record
//!                       ▲    ─ max_age, max_lines, memory ─────▶         │
//!                       └───────────────── what had no room ◀────────────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memchr::memchr;
use smallvec::SmallVec;

use super::Output;
use super::fill::{Records, whole_lines};
use super::key::Key;
use super::open::{Open, note};
use super::packer::{Atom, Packed, Packer, TEXT_MOST, Text};
use super::unit::{Layout, Unit, count, cut_after, lines};
use crate::config::Produce;
use crate::position::{FileKey, Run};
use crate::produce::tail::Chunk;
use crate::produce::tail::newlines::newlines;
use crate::record::Record;

/// Reads within this part of `max_age` count as one, so that a record's text is of few atoms.
const AGES: u32 = 16;

/// So many texts may hold memory of records that have left them.
const FEW: usize = 16;

/// What packing needs beside the open records.
#[derive(Debug)]
pub(super) struct Packing {
    pub(super) packer: Packer,
    /// Whether text can be cut at every newline.
    divisible: bool,
    /// How much younger than an atom what is added to it may be.
    age: Duration,
    /// The most text of one record that waits.
    most: usize,
}

impl Packing {
    /// Makes ready what a flow needs to compress, where it does.
    pub(super) fn new(flow: &Produce) -> Option<Self> {
        let packer = Packer::new(&flow.merge)?;
        let verbatim = matches!(Layout::new(&flow.merge), Layout::Verbatim);
        Some(Self {
            packer,
            divisible: verbatim && flow.multiline.is_none(),
            age: flow.merge.max_age / AGES,
            most: (flow.tail.buffer / 4).clamp(1, TEXT_MOST),
        })
    }

    /// Returns how much more text of a file to wait for before a record of `room` bytes is made: none
    /// where there is enough.
    fn missing(&self, open: &Open, room: usize, file: FileKey) -> usize {
        let most = self.most.saturating_sub(open.body.len());
        let missing = Packer::target(room).saturating_sub(open.expected);
        self.packer.forecast.reach(file, missing).min(most)
    }

    /// Appends `bytes` and a separator to the text of an open record.
    fn append(&self, open: &mut Open, bytes: &[u8], added: Added) {
        open.body.extend_from_slice(bytes);
        open.body.extend_from_slice(&self.packer.separator);
        let text = bytes.len().saturating_add(self.packer.separator.len());
        let expected = self.packer.forecast.expect(added.run.span.file, text);
        open.expected = open.expected.saturating_add(expected);
        open.units = open.units.saturating_add(added.units);
        open.oldest = open.oldest.min(added.read_at);
        let end = open.body.len();
        let joined = open.atoms.last_mut().filter(|last| {
            let age = added.read_at.saturating_duration_since(last.read_at);
            let follows = last.run.span.is_followed_by(&added.run.span);
            self.divisible && follows && age <= self.age && added.read_at >= last.read_at
        });
        if let Some(last) = joined {
            let mut runs = SmallVec::from_buf([last.run]);
            note(&mut runs, added.run);
            last.run = runs.first().copied().unwrap_or(last.run);
            last.end = end;
            last.units = last.units.saturating_add(added.units);
            return;
        }
        let Added { run, units, read_at } = added;
        let tags = self.packer.tags(&run);
        open.atoms.push(Atom { end, run, units, read_at, tags });
    }
}

/// Where text that is added comes from.
#[derive(Clone, Copy)]
struct Added {
    run: Run,
    units: usize,
    read_at: Instant,
}

impl Records {
    /// Pushes whole lines of one key as slices of the file, into text that waits.
    pub(super) fn pack_block(
        &mut self,
        key: &Key<'_>,
        chunk: &Chunk,
        (from, to): (usize, usize),
        out: &mut Vec<Output>,
    ) {
        let mut at = from;
        while at < to {
            let mut open = self.text_of(key, chunk.read_at, out);
            let Some(packing) = &self.packing else { return };
            let rest = chunk.data.get(at..to).unwrap_or_default();
            let room = self.room_beside(open.key.len());
            let want = packing.missing(&open, room, chunk.span.file).max(1);
            let tail = rest.get(want.saturating_sub(1)..).unwrap_or_default();
            let enough =
                memchr(b'\n', tail).map_or(rest.len(), |newline| want.saturating_add(newline));
            let lines = self.max_units.saturating_sub(open.units);
            let bounds = (enough.min(self.most(key)), lines);
            let Some((length, units)) = whole_lines(chunk, (at, to), bounds) else {
                // The first line is over the limit.
                self.pack(open, false, out);
                at = self.push_first(key, chunk, at, to, out);
                continue;
            };
            let end = at.saturating_add(length);
            let run = chunk.run(at, end, count(units));
            let bytes = chunk.data.get(at..end).unwrap_or_default();
            packing.append(&mut open, bytes, Added { run, units, read_at: chunk.read_at });
            let all = open.units >= self.max_units;
            self.pack(open, all, out);
            at = end;
        }
        self.bound(out);
    }

    /// Pushes a line or group, encoded as `element`, into text that waits.
    pub(super) fn pack_unit(
        &mut self,
        key: &Key<'_>,
        element: &[u8],
        unit: &Unit<'_>,
        out: &mut Vec<Output>,
    ) {
        if element.len() > self.most(key) {
            // Quoted, it is too long.
            return self.emit_alone(key, unit, unit.keep(self.layout.content(unit.bytes)), out);
        }
        let mut open = self.text_of(key, unit.read_at, out);
        let Some(packing) = &self.packing else { return };
        let Unit { run, read_at, .. } = *unit;
        packing.append(&mut open, element, Added { run, units: 1, read_at });
        let all = open.units >= self.max_units;
        self.pack(open, all, out);
        self.bound(out);
    }

    /// Takes out the text that waits under a key, if more can follow it; else begins a new one.
    fn text_of(&mut self, key: &Key<'_>, read_at: Instant, out: &mut Vec<Output>) -> Open {
        match self.open.take(key.slot()) {
            // A line that lacks its newline, and needs one, ends its record.
            Some(open)
                if matches!(self.layout, Layout::Verbatim) && !open.body.ends_with(b"\n") =>
            {
                self.pack(open, true, out);
            }
            Some(open) => return open,
            None => {}
        }
        self.begin(key, read_at)
    }

    /// Makes records of the text of `open` while there is enough of it for a full one, or of `all` of
    /// it; the rest waits on.
    pub(super) fn pack(&mut self, mut open: Open, all: bool, out: &mut Vec<Output>) {
        while !open.atoms.is_empty() {
            let room = self.room_beside(open.key.len());
            let Some(packing) = &mut self.packing else { return };
            let long = open.body.len() >= packing.most;
            if !all && !long && open.expected < Packer::target(room) {
                break;
            }
            let Open { key, body, atoms, .. } = &open;
            let text = Text { bytes: body, atoms, divisible: packing.divisible };
            let packed = packing.packer.pack(key, text, room, all || long);
            let (data, end) = match packed {
                Packed::Record { data, end } => (Some(data), end),
                Packed::Over { end } => (None, end),
                Packed::Short => {
                    open.expected = packing.packer.expected(text);
                    break;
                }
            };
            self.emit_packed(&mut open, data, end, out);
        }
        if !open.atoms.is_empty() {
            // What is left of each of many files must not hold the memory of a whole record. Of a few it
            // may: it is filled again at once.
            if self.open.len() > FEW && open.body.capacity() / 2 > open.body.len() {
                open.body.shrink_to_fit();
            }
            self.open.put(open);
        }
    }

    /// Emits the text of `open` up to `end` as `data`, or as a record of its own where there is none
    /// yet.
    fn emit_packed(
        &mut self,
        open: &mut Open,
        data: Option<Bytes>,
        end: usize,
        out: &mut Vec<Output>,
    ) {
        let ordered = self.is_ordered(&open.slot);
        let Some(packing) = &mut self.packing else { return };
        let tags = open.atoms.first().and_then(|atom| atom.tags.clone());
        let bytes = open.body.get(..end).unwrap_or(&open.body);
        let (runs, rest, units) = part(&open.atoms, &open.body, bytes.len());
        let data = match (data, runs.first()) {
            (Some(data), _) => data,
            (None, Some(run)) => packing.packer.first_alone(&open.key, bytes, *run, tags.as_ref()),
            (None, None) => return,
        };
        let partition_key = Arc::clone(&open.key);
        out.push(Output::Record(Record { partition_key, ordered, data, runs }));
        open.body.drain(..bytes.len());
        open.atoms = rest;
        for atom in &mut open.atoms {
            atom.end = atom.end.saturating_sub(end);
        }
        let rest = Text { bytes: &open.body, atoms: &open.atoms, divisible: packing.divisible };
        open.expected = packing.packer.expected(rest);
        open.units = open.units.saturating_sub(units);
        open.oldest = open.atoms.iter().map(|atom| atom.read_at).min().unwrap_or(open.oldest);
        if open.slot.is_empty() {
            open.key = Key::Random.draw(&mut self.rng);
        }
    }
}

/// Parts the atoms of `text` after its first `end` bytes, which are taken. Returns the runs of those, the
/// atoms that are left, and how many lines (or groups) are gone.
fn part(atoms: &[Atom], text: &[u8], end: usize) -> (SmallVec<[Run; 1]>, Vec<Atom>, usize) {
    let whole = atoms.partition_point(|atom| atom.end <= end);
    let (taken, rest) = atoms.split_at_checked(whole).unwrap_or((atoms, &[]));
    let (mut runs, mut rest) = (SmallVec::new(), rest.to_vec());
    let mut units: usize = 0;
    for atom in taken {
        note(&mut runs, atom.run);
        units = units.saturating_add(atom.units);
    }
    let start = taken.last().map_or(0, |atom| atom.end);
    // Only slices of files are cut within an atom.
    if let Some(torn) = rest.first_mut().filter(|_| start < end) {
        let first = text.get(start..end).unwrap_or_default();
        let left = text.get(end..torn.end).unwrap_or_default();
        // How many lines both have is known: the shorter part is counted, most often what is left.
        let ended = if left.len() < first.len() {
            torn.run.lines.saturating_sub(count(lines(left)))
        } else {
            count(newlines(first))
        };
        let (before, after) = cut_after(torn.run, first, ended);
        note(&mut runs, before);
        units = units.saturating_add(before.lines as usize);
        torn.units = torn.units.saturating_sub(before.lines as usize);
        torn.run = after;
    }
    (runs, rest, units)
}
