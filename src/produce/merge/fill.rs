//! Filling records: when one is full, what stands alone in its own, and what is over the limit.
//!
//! Invariant: every byte that is pushed ends in exactly one record or one skipped run; within a
//! slot, records come out in the order their bytes were pushed.
//!
//! ```text
//!  push_block   whole lines of a chunk   ─┬─ full within the chunk ──────────▶ a slice of it
//!                                         └─ the rest ──▶ open record ─ full ▶ copied once
//!  push         a line or group ─┬─ fits ──────────────▶ open record ─ full ─▶ copied once
//!                                ├─ cannot be joined, or is longer than max_bytes ▶ alone
//!                                └─ over the record limit ▶ LongLine ▶ pieces, skipped runs
//! ```

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memrchr};
use smallvec::smallvec;

use super::key::{DIGITS, Key};
use super::long_line::{LongLine, Part};
use super::open::{Open, OpenRecords, note};
use super::packer::Packer;
use super::packing::Packing;
use super::unit::{Beside, Layout, Unit, count};
use super::{Output, RecordLimit};
use crate::config::{OnOversize, Produce};
use crate::position::Run;
use crate::produce::tail::{Chunk, FileEvent};
use crate::record::{Record, json_array};

/// The most records open at a time: keys taken from lines may be as many as users, and each open
/// record costs memory. The oldest is sent first.
pub(super) const OPEN_RECORDS: usize = 1024;

/// A key as long as random ones are.
const RANDOM: &str = "0000000000000000";
const _: () = assert!(RANDOM.len() == DIGITS, "as long as those drawn");

/// A flow's records in the making.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) open: OpenRecords,
    pub(super) layout: Layout,
    max_bytes: usize,
    pub(super) max_units: usize,
    on_oversize: OnOversize,
    limit: Arc<RecordLimit>,
    pub(super) rng: fastrand::Rng,
    /// Where an element is encoded; kept for its memory.
    scratch: Vec<u8>,
    /// What compresses the records, where the flow asks for it.
    pub(super) packing: Option<Box<Packing>>,
}

impl Records {
    pub(super) fn new(flow: &Produce, limit: Arc<RecordLimit>, rng: fastrand::Rng) -> Self {
        Self {
            open: OpenRecords::default(),
            layout: Layout::new(&flow.merge),
            max_bytes: flow.merge.max_bytes.min(limit.floor()),
            max_units: flow.merge.max_lines.map_or(usize::MAX, |lines| lines.max(1) as usize),
            on_oversize: flow.on_oversize,
            limit,
            rng,
            scratch: Vec::new(),
            packing: Packing::new(flow).map(Box::new),
        }
    }

    /// Takes note of what happens to a file, as far as records tell of it.
    pub(super) fn on_file(&mut self, host: &str, event: &FileEvent) {
        if let (Some(packing), FileEvent::Closed { key, .. }) = (&mut self.packing, event) {
            packing.packer.forecast.forget(*key);
        }
        let aggregation = match (&mut self.layout, &mut self.packing) {
            (Layout::Aggregated(aggregation), _) => Some(aggregation),
            (_, Some(packing)) => packing.packer.aggregation(),
            _ => None,
        };
        match (aggregation, event) {
            (Some(aggregation), FileEvent::Opened(opened)) => aggregation.opened(host, opened),
            (Some(aggregation), FileEvent::Closed { key, .. }) => aggregation.closed(*key),
            _ => {}
        }
    }

    /// Returns how long the data of a record under `key` may be, by the stream's limit.
    pub(super) fn most(&self, key: &Key<'_>) -> usize {
        self.most_beside(key.len())
    }

    /// Returns how long a lone line under a key of `key` bytes may be.
    fn most_beside(&self, key: usize) -> usize {
        let limit = self.limit.get();
        let envelope = match &self.packing {
            Some(packing) => packing.packer.envelope(key, limit),
            None => self.layout.envelope(key),
        };
        limit.saturating_sub(key.saturating_add(envelope)).max(1)
    }

    /// Returns how long the merged data of a record under `key` may be.
    fn room(&self, key: &Key<'_>) -> usize {
        self.room_beside(key.len())
    }

    /// Returns how long the merged data of a record under a key of `key` bytes may be.
    pub(super) fn room_beside(&self, key: usize) -> usize {
        self.max_bytes.saturating_sub(key)
    }

    /// Pushes the bytes `from..to` of a chunk, which are whole lines of one key, as slices of the
    /// file. No line is looked at by itself unless `max_lines` asks for it.
    pub(super) fn push_block(
        &mut self,
        key: &Key<'_>,
        chunk: &Chunk,
        (from, to): (usize, usize),
        out: &mut Vec<Output>,
    ) {
        if self.packing.is_some() {
            return self.pack_block(key, chunk, (from, to), out);
        }
        let mut at = from;
        while at < to {
            let open = self.open.take(key.slot());
            let (bytes, units) = open.as_ref().map_or((0, 0), |open| (open.body.len(), open.units));
            let closed = open.as_ref().is_some_and(|open| !open.body.ends_with(b"\n"));
            let room = if closed { 0 } else { self.room(key).saturating_sub(bytes) };
            match (whole_lines(chunk, (at, to), (room, self.max_units.saturating_sub(units))), open)
            {
                (Some((len, units)), open) => {
                    let end = at.saturating_add(len);
                    let run = chunk.run(at, end, count(units));
                    let more = end < to;
                    self.add(key, open, chunk, (at, end), (units, run, more), out);
                    at = end;
                }
                (None, Some(open)) => self.emit(open, out),
                (None, None) => at = self.push_first(key, chunk, at, to, out),
            }
        }
    }

    /// Adds whole lines to the open record, and emits it if it is full.
    fn add(
        &mut self,
        key: &Key<'_>,
        open: Option<Open>,
        chunk: &Chunk,
        (from, to): (usize, usize),
        (units, run, more): (usize, Run, bool),
        out: &mut Vec<Output>,
    ) {
        let before = open.as_ref().map_or(0, |open| open.units);
        let full = more || before.saturating_add(units) >= self.max_units;
        let mut open = match open {
            None if full => {
                let (key, ordered) = self.draw(key);
                let (data, runs) = (chunk.data.slice(from..to), smallvec![run]);
                return out.push(Output::Record(Record {
                    partition_key: key,
                    ordered,
                    data,
                    runs,
                }));
            }
            None => self.begin(key, chunk.read_at),
            Some(open) => open,
        };
        // Nothing is asked for ahead: with many files open, room nobody fills would be most of the
        // memory. The last piece of a record makes it exactly as large as it is.
        if full {
            open.body.reserve_exact(to.saturating_sub(from));
        }
        open.body.extend_from_slice(chunk.data.get(from..to).unwrap_or_default());
        open.units = open.units.saturating_add(units);
        open.note(run, chunk.read_at);
        if full {
            return self.emit(open, out);
        }
        self.open.put(open);
        self.bound(out);
    }

    /// Pushes the first line of `at..to`, which is longer than a record's room, as a unit; returns the
    /// offset after it.
    pub(super) fn push_first(
        &mut self,
        key: &Key<'_>,
        chunk: &Chunk,
        at: usize,
        to: usize,
        out: &mut Vec<Output>,
    ) -> usize {
        let rest = chunk.data.get(at..to).unwrap_or_default();
        let bytes = memchr(b'\n', rest).and_then(|newline| rest.get(..=newline)).unwrap_or(rest);
        let end = at.saturating_add(bytes.len().max(1));
        let run = chunk.run(at, end, 1);
        let unit = Unit { bytes, backing: Some(&chunk.data), run, read_at: chunk.read_at };
        self.push(key, key, &unit, out);
        end
    }

    /// Pushes a unit under `key`, or under `fallback` where it fits only under that.
    pub(super) fn push(
        &mut self,
        key: &Key<'_>,
        fallback: &Key<'_>,
        unit: &Unit<'_>,
        out: &mut Vec<Output>,
    ) {
        let content = self.layout.content(unit.bytes);
        // What is over the limit is told by the fallback alone, which is known before the whole
        // line is: so the same line fares the same however its file was cut into chunks.
        if content.len() > self.most(fallback) {
            let mut line = LongLine::of(unit);
            self.shed(&mut line, fallback, out);
            return self.end_shed(line, out);
        }
        if content.len() > self.most(key) {
            return self.emit_alone(fallback, unit, unit.keep(content), out);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        match self.layout.element(content, &mut scratch) {
            Some(element) if self.packing.is_some() => self.pack_unit(key, element, unit, out),
            Some(element) => self.join(key, element, unit, out),
            None => self.emit_alone(key, unit, unit.keep(content), out),
        }
        self.scratch = scratch;
    }

    fn join(&mut self, key: &Key<'_>, element: &[u8], unit: &Unit<'_>, out: &mut Vec<Output>) {
        let room = self.room(key);
        let mut added = self.add_element(key.slot(), element, unit, room);
        if added.is_none() {
            self.close(key.slot(), out);
            let length = self.length_alone(key, element, unit);
            if length.is_none_or(|length| length > room) {
                return self.emit_long(key, element, unit, out);
            }
            let open = self.begin(key, unit.read_at);
            self.open.put(open);
            added = self.add_element(key.slot(), element, unit, room);
        }
        if added.is_some_and(|units| units >= self.max_units) {
            self.close(key.slot(), out);
        }
        self.bound(out);
    }

    /// Emits the oldest record where there is one too many.
    pub(super) fn bound(&mut self, out: &mut Vec<Output>) {
        if self.open.len() > OPEN_RECORDS {
            self.emit_oldest(out);
        }
    }

    /// Adds an element to the open record of a slot, if there is one and it fits; returns how many
    /// are in it then.
    fn add_element(
        &mut self,
        slot: &str,
        element: &[u8],
        unit: &Unit<'_>,
        room: usize,
    ) -> Option<usize> {
        let layout = &self.layout;
        let added = self.open.change(slot, |open| {
            let beside = Beside { key: &open.key, body: &open.body, runs: &open.runs };
            layout.length(beside, element, unit.run).filter(|&length| length <= room)?;
            layout.join(open, element, unit.run);
            open.units = open.units.saturating_add(1);
            open.note(unit.run, unit.read_at);
            Some(open.units)
        });
        added.flatten()
    }

    /// Returns the length of a record of an element alone.
    fn length_alone(&self, key: &Key<'_>, element: &[u8], unit: &Unit<'_>) -> Option<usize> {
        // A random key is not drawn yet, and as long as any.
        let key = if matches!(key, Key::Random) { RANDOM } else { key.slot() };
        self.layout.length(Beside { key, body: &[], runs: &[] }, element, unit.run)
    }

    /// Emits a unit that is longer than `max_bytes` and within the record limit: encoded if that
    /// is within the limit too, else as it stands in the file.
    fn emit_long(&mut self, key: &Key<'_>, element: &[u8], unit: &Unit<'_>, out: &mut Vec<Output>) {
        let content = self.layout.content(unit.bytes);
        let length = self.length_alone(key, element, unit);
        let data = if matches!(self.layout, Layout::JsonArray)
            && length.is_some_and(|length| length <= self.most(key))
        {
            let mut body = Vec::with_capacity(length.unwrap_or_default());
            json_array::alone(element, &mut body);
            Bytes::from(body)
        } else {
            unit.keep(content)
        };
        self.emit_alone(key, unit, data, out);
    }

    /// Emits a unit in a record of its own, after all that was pushed under its key before.
    pub(super) fn emit_alone(
        &mut self,
        key: &Key<'_>,
        unit: &Unit<'_>,
        data: Bytes,
        out: &mut Vec<Output>,
    ) {
        self.close(key.slot(), out);
        let (partition_key, ordered) = self.draw(key);
        let data = alone(&self.layout, &mut self.packing, &partition_key, data, unit.run);
        let runs = smallvec![unit.run];
        out.push(Output::Record(Record { partition_key, ordered, data, runs }));
    }

    /// Takes from a long line what can be no part of a whole one any more: nothing while it is
    /// within the record limit, else what `on_oversize` says.
    pub(super) fn shed(&mut self, line: &mut LongLine, key: &Key<'_>, out: &mut Vec<Output>) {
        if !self.is_over(line, key) {
            return;
        }
        // The pieces share one key even where keys are random: a reader can put them together
        // again only if they arrive in order.
        let drawn = line.key().map_or_else(|| key.draw(&mut self.rng), Arc::clone);
        self.close(key.slot(), out);
        let most = self.most_beside(drawn.len());
        let (layout, packing) = (&self.layout, &mut self.packing);
        line.shed(self.on_oversize, &drawn, (layout, most), &mut |part| {
            out.push(sent(layout, packing, part));
        });
    }

    /// Returns true where a long line is, or has been, longer than a record under `key` may be.
    pub(super) fn is_over(&self, line: &LongLine, key: &Key<'_>) -> bool {
        line.is_shed() || self.layout.content(line.bytes()).len() > self.most(key)
    }

    /// Ends a long line: emits what is left of one that was over the limit, or gives it back whole.
    pub(super) fn finish(
        &mut self,
        mut line: LongLine,
        key: &Key<'_>,
        out: &mut Vec<Output>,
    ) -> Option<LongLine> {
        self.shed(&mut line, key, out);
        if !line.is_shed() {
            return Some(line);
        }
        self.end_shed(line, out);
        None
    }

    /// Emits what is left of a line that was shed.
    fn end_shed(&mut self, line: LongLine, out: &mut Vec<Output>) {
        let (layout, packing) = (&self.layout, &mut self.packing);
        line.rest(layout, &mut |part| out.push(sent(layout, packing, part)));
    }

    /// Emits what is held of a long line as pieces of it, to make room in memory.
    pub(super) fn release(&mut self, line: &mut LongLine, key: &Key<'_>, out: &mut Vec<Output>) {
        let drawn = line.key().map_or_else(|| key.draw(&mut self.rng), Arc::clone);
        self.close(key.slot(), out);
        let (layout, packing) = (&self.layout, &mut self.packing);
        line.release(&drawn, &mut |part| out.push(sent(layout, packing, part)));
    }

    /// Emits the open record of a slot.
    fn close(&mut self, slot: &str, out: &mut Vec<Output>) {
        if let Some(open) = self.open.take(slot) {
            self.emit(open, out);
        }
    }

    /// Emits the record with the oldest line; returns false where there is none.
    pub(super) fn emit_oldest(&mut self, out: &mut Vec<Output>) -> bool {
        let Some(open) = self.open.take_oldest() else { return false };
        self.emit(open, out);
        true
    }

    /// Emits the fullest records until at most `most` bytes are held: of those, the fewest go, and the
    /// nearest to being full.
    pub(super) fn relieve(&mut self, most: usize, out: &mut Vec<Output>) {
        if self.open.held() <= most {
            return;
        }
        for slot in self.open.by_fullness() {
            if self.open.held() <= most {
                return;
            }
            self.close(&slot, out);
        }
    }

    fn emit(&mut self, open: Open, out: &mut Vec<Output>) {
        if self.packing.is_some() {
            return self.pack(open, true, out);
        }
        let Open { key, slot, mut body, runs, .. } = open;
        self.layout.end(&mut body);
        // What is emitted may wait long for a slow stream: memory asked for in vain goes back.
        if body.capacity() / 2 > body.len() {
            body.shrink_to_fit();
        }
        let ordered = self.is_ordered(&slot);
        out.push(Output::Record(Record { partition_key: key, ordered, data: body.into(), runs }));
    }

    pub(super) fn begin(&mut self, key: &Key<'_>, read_at: Instant) -> Open {
        let drawn = key.draw(&mut self.rng);
        self.open.begin(key.slot(), drawn, read_at)
    }

    /// Returns true where a record cannot be sent again under another key, as one out of order may:
    /// an aggregate names its key inside too.
    fn keeps_key(&self) -> bool {
        let packer = self.packing.as_ref().map(|packing| &packing.packer);
        matches!(self.layout, Layout::Aggregated(_)) || packer.is_some_and(Packer::aggregates)
    }

    /// Returns true where records of a slot must arrive in order.
    pub(super) fn is_ordered(&self, slot: &str) -> bool {
        self.keeps_key() || !slot.is_empty()
    }

    fn draw(&mut self, key: &Key<'_>) -> (Arc<str>, bool) {
        (key.draw(&mut self.rng), self.is_ordered(key.slot()))
    }
}

/// Makes the output of a part of a line over the limit.
fn sent(layout: &Layout, packing: &mut Option<Box<Packing>>, part: Part) -> Output {
    match part {
        Part::Skipped(run) => Output::Skipped(run),
        Part::Sent { key, data, run } => {
            let data = alone(layout, packing, &key, data, run);
            let mut runs = smallvec![];
            note(&mut runs, run);
            Output::Record(Record { partition_key: key, ordered: true, data, runs })
        }
    }
}

/// Returns the data of a record in which `data`, the bytes of `run`, is alone.
fn alone(
    layout: &Layout,
    packing: &mut Option<Box<Packing>>,
    key: &str,
    data: Bytes,
    run: Run,
) -> Bytes {
    match packing {
        Some(packing) => packing.packer.alone(key, &data, run),
        None => layout.alone(key, data, run),
    }
}

/// Returns the length and number of the first whole lines of `from..to` in a chunk, as many as fit into
/// `room` bytes and are at most `max`; `None` where not one fits. All of `from..to` is whole lines.
pub(super) fn whole_lines(
    chunk: &Chunk,
    (from, to): (usize, usize),
    (room, max): (usize, usize),
) -> Option<(usize, usize)> {
    let rest = chunk.data.get(from..to).unwrap_or_default();
    let window = rest.get(..room).unwrap_or(rest);
    let whole = if window.len() == rest.len() {
        window
    } else {
        memrchr(b'\n', window).and_then(|newline| window.get(..=newline))?
    };
    // There cannot be more lines than bytes, so that without `max_lines` nothing is counted off.
    let cut =
        (max < whole.len()).then(|| memchr_iter(b'\n', whole).nth(max.saturating_sub(1))).flatten();
    match cut {
        Some(newline) => Some((newline.saturating_add(1), max)),
        None => Some((whole.len(), chunk.lines(from, from.saturating_add(whole.len())))),
    }
}
