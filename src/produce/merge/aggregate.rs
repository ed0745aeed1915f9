//! The format `kpl` in the making: user records, and tags that say where each run comes from.
//!
//! Invariant: the first user record of every run has the tags of [`origin`](crate::record::origin),
//! and all user records have the outer record's key, so that no reader's range filter can part them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::position::{FileKey, Run};
use crate::produce::tail::Opened;
use crate::record::kpl;
use crate::record::origin::FileTags;

/// The most bytes that the tags of a run take: Linux's longest host name and path, and the rest.
const TAGS: usize = 64 + 4096 + 192;

/// The most bytes of the headers of one user record below 10 MiB.
const HEADERS: usize = 5 + 2 + 5;

/// What is known of the files that are followed.
#[derive(Debug, Default)]
pub(super) struct Aggregation {
    files: BTreeMap<FileKey, Arc<FileTags>>,
}

impl Aggregation {
    /// Takes note of a file, before any of its lines.
    pub(super) fn opened(&mut self, host: &str, file: &Opened) {
        let tags = FileTags::new(host, &file.origin, &file.identity, file.key);
        self.files.insert(file.key, Arc::new(tags));
    }

    /// Forgets a file, after its last line.
    pub(super) fn closed(&mut self, key: FileKey) {
        self.files.remove(&key);
    }

    /// Returns what a record says of a file.
    pub(super) fn tags(&self, key: FileKey) -> Option<Arc<FileTags>> {
        self.files.get(&key).map(Arc::clone)
    }

    /// Returns the bytes around a lone line under a key of `key` bytes, at most.
    pub(super) fn envelope(key: usize) -> usize {
        kpl::empty_len(key).saturating_add(TAGS).saturating_add(HEADERS)
    }

    /// Returns the bytes that an element of `length` bytes adds beside itself to a record that holds
    /// `runs`, its end included.
    pub(super) fn around(&self, key: &str, runs: &[Run], length: usize, run: Run) -> usize {
        let tags = if continues(runs, run) {
            0
        } else {
            self.files.get(&run.span.file).map_or(0, |tags| tags.most())
        };
        let ends = if runs.is_empty() { kpl::empty_len(key.len()) } else { kpl::DIGEST };
        kpl::pushed_len(length, tags).saturating_sub(length).saturating_add(ends)
    }

    /// Adds an element, the bytes of `run`, to a record that holds `runs`.
    pub(super) fn push(
        &self,
        key: &str,
        body: &mut Vec<u8>,
        runs: &[Run],
        element: &[u8],
        run: Run,
    ) {
        if runs.is_empty() {
            kpl::begin(key, body);
        }
        let mut tags = Vec::new();
        if let Some(file) = self.files.get(&run.span.file).filter(|_| !continues(runs, run)) {
            let first = runs.iter().all(|other| other.span.file != run.span.file);
            file.push(first, run.span.start, &mut tags);
        }
        kpl::push(element, &tags, body);
    }
}

/// Returns true where `run` goes on where the last of `runs` ends.
fn continues(runs: &[Run], run: Run) -> bool {
    runs.last().is_some_and(|last| last.span.is_followed_by(&run.span))
}
