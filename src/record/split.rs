//! Splitting: a record's data into the lines that were merged, found out by its content.
//!
//! Invariant: the pieces hold all that was in the data, in order; what is damaged or foreign is one
//! piece, as it came, and counted. No input makes it panic, or unfold to more than
//! [`UNFOLDED_BYTES`].
//!
//! ```text
//!  data ─┬─ F3 89 9A C2 ───▶ kpl ── kt.enc ─▶ frame of a run ─▶ lines
//!        │                    └──── a user record is a line
//!        ├─ gzip, zstd ────▶ unfolded ─┐
//!        └─────────────────────────────┴─▶ JSON array, or lines by the delimiter
//! ```

use bytes::Bytes;

use super::compression::{Algorithm, Decompressor};
use super::kpl::{self, NotAggregated};
use super::origin::{self, Origin, Origins};
use super::{json_array, lines};

/// The most bytes one record may unfold to: more than any writer puts into 10 MiB of compressed log
/// lines, and a bound on the memory that a stranger's record can take.
pub const UNFOLDED_BYTES: usize = 64 << 20;

/// How the lines of a record are told apart, once it is unfolded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// By what the data looks like: an aggregated record; a JSON array, if it does not end with a
    /// newline; else lines.
    Content,
    /// By this delimiter: after each line if it is `"\n"`, else between two. An aggregated record
    /// is split as one all the same.
    Delimiter(Vec<u8>),
    /// As the elements of a JSON array.
    JsonArray,
    /// As an aggregated record only; other records stay whole.
    Kpl,
    /// Not at all.
    Nothing,
}

/// A line, or what could not be split into lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes; a line that a newline ended has it.
    pub data: Bytes,
    /// Where it comes from, on the first piece of every run that says so.
    pub origin: Option<Origin>,
}

impl From<Bytes> for Piece {
    fn from(data: Bytes) -> Self {
        Self { data, origin: None }
    }
}

/// What was found, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Aggregated records.
    pub kpl: u64,
    /// Records that were compressed as a whole.
    pub compressed: u64,
    /// Records that could not be split as they should have been: damaged, foreign, or unfolding to
    /// too much. Each was handed on as one piece.
    pub unsplit: u64,
}

/// Splits records.
#[derive(Debug)]
pub struct Splitter {
    by: By,
    decompressor: Decompressor,
    found: Found,
}

impl Splitter {
    /// Makes a splitter.
    #[must_use]
    pub fn new(by: By) -> Self {
        Self { by, decompressor: Decompressor::default(), found: Found::default() }
    }

    /// Returns what was found so far.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found
    }

    /// Splits a record's data. Pieces are slices of it, or of what it unfolds to.
    pub fn split(&mut self, data: &Bytes) -> Vec<Piece> {
        if self.by == By::Nothing {
            return vec![Piece::from(data.clone())];
        }
        if let Some(pieces) = self.pieces(data) {
            return pieces;
        }
        self.found.unsplit = self.found.unsplit.saturating_add(1);
        vec![Piece::from(data.clone())]
    }

    fn pieces(&mut self, data: &Bytes) -> Option<Vec<Piece>> {
        match kpl::decode(data) {
            Ok(aggregate) => {
                let pieces = self.user_records(data, &aggregate)?;
                self.found.kpl = self.found.kpl.saturating_add(1);
                return Some(pieces);
            }
            Err(NotAggregated::Unmarked) => {}
            Err(NotAggregated::Digest | NotAggregated::Malformed) => return None,
        }
        if self.by == By::Kpl {
            return Some(vec![Piece::from(data.clone())]);
        }
        let Some(algorithm) = Algorithm::of(data) else { return self.plain(data) };
        let unfolded = self.decompressor.decompress(algorithm, data, UNFOLDED_BYTES).ok()?;
        let pieces = self.plain(&Bytes::from(unfolded))?;
        self.found.compressed = self.found.compressed.saturating_add(1);
        Some(pieces)
    }

    fn user_records(&mut self, data: &Bytes, aggregate: &kpl::Aggregate<'_>) -> Option<Vec<Piece>> {
        let mut origins = Origins::default();
        let (mut pieces, mut left) = (Vec::new(), UNFOLDED_BYTES);
        for record in aggregate.records() {
            let origin = origins.read(record.tags);
            let Some(algorithm) = origin::encoding(record.tags) else {
                pieces.push(Piece { data: data.slice_ref(record.data), origin });
                continue;
            };
            let run = self.decompressor.decompress(algorithm, record.data, left).ok()?;
            left = left.saturating_sub(run.len());
            let first = pieces.len();
            pieces.extend(ended_lines(&Bytes::from(run)).map(Piece::from));
            if let Some(piece) = pieces.get_mut(first) {
                piece.origin = origin;
            }
        }
        Some(pieces)
    }

    /// Splits what is neither an aggregate nor compressed.
    fn plain(&self, data: &Bytes) -> Option<Vec<Piece>> {
        let elements = |data: &Bytes| {
            let elements = json_array::split(data).ok()?;
            Some(elements.into_iter().map(|part| Piece::from(data.slice_ref(part))).collect())
        };
        match &self.by {
            By::JsonArray => elements(data),
            By::Content if data.starts_with(b"[") && !data.ends_with(b"\n") => {
                elements(data).or_else(|| Some(ended_lines(data).map(Piece::from).collect()))
            }
            By::Delimiter(delimiter) if delimiter != b"\n" => {
                let parts = lines::split(data, delimiter);
                Some(parts.map(|part| Piece::from(data.slice_ref(part))).collect())
            }
            By::Content | By::Delimiter(_) => Some(ended_lines(data).map(Piece::from).collect()),
            By::Kpl | By::Nothing => Some(vec![Piece::from(data.clone())]),
        }
    }
}

/// Returns the lines of `data`, each with its newline.
fn ended_lines(data: &Bytes) -> impl Iterator<Item = Bytes> {
    lines::ends(data).scan(0, |from, end| Some(data.slice(std::mem::replace(from, end)..end)))
}

#[cfg(test)]
mod tests;
