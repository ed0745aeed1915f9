//! A unit: what is never torn, one line or one multiline group, and how it stands in a record.
//!
//! Invariant: a unit's run covers exactly its bytes, and [`Layout`] alone knows the wire formats.
//!
//! ```text
//!  format          joined                 sent alone
//!  lines "\n"      a\n b\n                a\n
//!  lines "#-#"     a #-# b                a        contains the delimiter
//!  json_array      [ a , "b" ]            a        not UTF-8, or too long once it is quoted
//!  none                                   a
//!  kpl             magic user records md5 the same, of one user record
//! ```

use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;

use super::aggregate::Aggregation;
use super::open::Open;
use crate::config::{Format, Merge};
use crate::position::{Mark, Run, Span};
use crate::produce::tail::newlines::{is_unfinished, newlines};
use crate::record::json_array;
use crate::record::kpl;
use crate::record::lines::Delimiter;

/// One line or one group, as it stands in its file, newlines included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit<'a> {
    /// The bytes.
    pub(super) bytes: &'a [u8],
    /// What `bytes` is a part of, where a slice of that will do instead of a copy.
    pub(super) backing: Option<&'a Bytes>,
    /// Where they stand.
    pub(super) run: Run,
    /// When the first of them was read.
    pub(super) read_at: Instant,
}

impl Unit<'_> {
    /// Returns `part`, which is a part of the unit's bytes, to be kept.
    pub(super) fn keep(&self, part: &[u8]) -> Bytes {
        self.backing.map_or_else(|| Bytes::copy_from_slice(part), |backing| backing.slice_ref(part))
    }
}

/// Returns how many lines `bytes` are, where they end at the end of a line.
pub(super) fn lines(bytes: &[u8]) -> usize {
    newlines(bytes).saturating_add(usize::from(is_unfinished(bytes)))
}

/// Returns a count of lines as a run holds it.
pub(super) fn count(lines: usize) -> u32 {
    u32::try_from(lines).unwrap_or(u32::MAX)
}

/// Cuts a run in two after the first `at` of its bytes, which are `bytes`. The first part's mark
/// covers no more than `bytes`, which is enough to be known again.
pub(super) fn cut(run: Run, bytes: &[u8], at: usize) -> (Run, Run) {
    let first = bytes.get(..at).unwrap_or(bytes);
    cut_after(run, first, count(newlines(first)))
}

/// As [`cut`], after `first`, in which so many lines have ended.
pub(super) fn cut_after(run: Run, first: &[u8], ended: u32) -> (Run, Run) {
    let Range { start, end } = run.span.start..run.span.end;
    let middle = start.saturating_add(first.len() as u64).min(end);
    let ended = ended.min(run.lines);
    let span = |start, end| Span { file: run.span.file, start, end };
    (
        Run { span: span(start, middle), mark: Mark::of(first), lines: ended },
        Run { span: span(middle, end), lines: run.lines.saturating_sub(ended), ..run },
    )
}

/// What stands in a record before something is added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<'a> {
    /// Its key, or one as long.
    pub(super) key: &'a str,
    /// Its data.
    pub(super) body: &'a [u8],
    /// Where that comes from; empty where nothing is in it yet.
    pub(super) runs: &'a [Run],
}

/// The wire format of a flow, made ready once.
#[derive(Debug)]
pub(super) enum Layout {
    /// User records of an aggregate.
    Aggregated(Aggregation),
    /// Lines joined by a delimiter.
    Delimited(Box<Delimiter>),
    /// Elements of a JSON array.
    JsonArray,
    /// A line a record.
    Single,
    /// Slices of the file.
    Verbatim,
}

impl Layout {
    pub(super) fn new(merge: &Merge) -> Self {
        match &merge.format {
            // A frame of an aggregate holds lines as they stand in the file.
            Format::Kpl if merge.compression.is_some() => Self::Verbatim,
            Format::JsonArray => Self::JsonArray,
            Format::Kpl => Self::Aggregated(Aggregation::default()),
            Format::Lines { delimiter } if delimiter == b"\n" => Self::Verbatim,
            Format::Lines { delimiter } => Self::Delimited(Box::new(Delimiter::new(delimiter))),
            Format::None => Self::Single,
        }
    }

    /// Returns what of a line is sent: all of it, or all but its newline.
    pub(super) fn content<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Aggregated(_) | Self::Verbatim => bytes,
            _ => bytes.strip_suffix(b"\n").unwrap_or(bytes),
        }
    }

    /// Returns `content` as it may stand beside others, or `None` where it must stand alone.
    pub(super) fn element<'a>(
        &self,
        content: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Option<&'a [u8]> {
        match self {
            Self::Aggregated(_) | Self::Verbatim => Some(content),
            Self::Delimited(delimiter) => delimiter.may_follow(content).then_some(content),
            Self::Single => None,
            Self::JsonArray => {
                scratch.clear();
                json_array::element(content, scratch).then_some(scratch.as_slice())
            }
        }
    }

    /// Returns the length of a record's data with `element` added to it; `None` where it cannot be
    /// added: after the last line of a file that lacks its newline, another line would become part
    /// of it, and a newline that no file holds is not invented.
    pub(super) fn length(&self, open: Beside<'_>, element: &[u8], run: Run) -> Option<usize> {
        let Beside { key, body, runs } = open;
        let first = runs.is_empty();
        let around = match self {
            Self::Aggregated(aggregation) => aggregation.around(key, runs, element.len(), run),
            Self::Delimited(_) if first => 0,
            Self::Delimited(delimiter) => delimiter.as_bytes().len(),
            Self::JsonArray => 2,
            Self::Verbatim if body.last().is_some_and(|&last| last != b'\n') => return None,
            Self::Single | Self::Verbatim => 0,
        };
        Some(body.len().saturating_add(element.len()).saturating_add(around))
    }

    /// Adds `element`, the bytes of `run`, to a record.
    pub(super) fn join(&self, open: &mut Open, element: &[u8], run: Run) {
        let first = open.runs.is_empty();
        let body = &mut open.body;
        match self {
            Self::Aggregated(aggregation) => {
                return aggregation.push(&open.key, body, &open.runs, element, run);
            }
            Self::Delimited(_) if first => {}
            Self::Delimited(delimiter) => body.extend_from_slice(delimiter.as_bytes()),
            Self::JsonArray => body.push(if first { b'[' } else { b',' }),
            Self::Single | Self::Verbatim => {}
        }
        body.extend_from_slice(element);
    }

    /// Ends a record's data.
    pub(super) fn end(&self, body: &mut Vec<u8>) {
        match self {
            Self::Aggregated(_) => kpl::end(body),
            Self::JsonArray => body.push(b']'),
            _ => {}
        }
    }

    /// Returns the data of a record in which `data`, the bytes of `run`, is alone.
    pub(super) fn alone(&self, key: &str, data: Bytes, run: Run) -> Bytes {
        let Self::Aggregated(aggregation) = self else { return data };
        let mut body = Vec::new();
        aggregation.push(key, &mut body, &[], &data, run);
        self.end(&mut body);
        body.into()
    }

    /// Returns the bytes, at most, that a record under a key of `key` bytes has beside a lone line.
    pub(super) fn envelope(&self, key: usize) -> usize {
        match self {
            Self::Aggregated(_) => Aggregation::envelope(key),
            _ => 0,
        }
    }
}
