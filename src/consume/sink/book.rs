//! The book: what is known of shards, files and sources, as committed and as it will be.
//!
//! Invariant: until it is committed every change can be taken back ([`Book::roll_back`]); so a disk
//! that fails in the middle of a batch leaves the book at the last commit.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::{ConsumerCommit, ConsumerRows, OutputRow, ShardRow, SourceRow};
use crate::consume::path::Name;
use crate::consume::received::Received;
use crate::position::ShardId;
use crate::record::origin;

/// What was found out about a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// It grows, or nothing is known.
    #[default]
    Open,
    /// It is over, and its file is what was received.
    Verified,
    /// It is over, and its file is something else than what was received.
    Damaged,
    /// It is over, and bytes of it are missing.
    Holed,
}

impl State {
    const ALL: [Self; 4] = [Self::Open, Self::Verified, Self::Damaged, Self::Holed];

    fn number(self) -> u8 {
        self as u8
    }

    fn of(number: u8) -> Self {
        Self::ALL.into_iter().find(|state| state.number() == number).unwrap_or_default()
    }
}

/// A generation of a source file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) origin: Arc<origin::Source>,
    /// Where it is mirrored.
    pub(super) name: Option<Name>,
    pub(super) received: Received,
    pub(super) state: State,
    /// When something of it came last, in seconds since 1970.
    pub(super) touched: u64,
}

impl Source {
    /// Returns true where this generation was there later than `other`.
    pub(super) fn is_newer_than(&self, other: &origin::Source) -> bool {
        // A truncated file keeps its birth; without one the agent's own count tells.
        let order = |source: &origin::Source| (source.birth, source.generation);
        order(&self.origin) > order(other)
    }

    fn row(&self, id: u64) -> SourceRow {
        let origin = &self.origin;
        SourceRow {
            id,
            host: origin.host.clone(),
            path: origin.path.as_os_str().as_bytes().to_vec(),
            device: origin.device,
            inode: origin.inode,
            birth: origin.birth,
            generation: origin.generation,
            name: self.name.as_ref().map_or_else(Vec::new, |name| name.as_bytes().to_vec()),
            received: self.received.encode(),
            state: self.state.number(),
            touched: self.touched,
        }
    }
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) flow: Arc<str>,
    outputs: HashMap<Name, OutputRow>,
    sources: BTreeMap<u64, Source>,
    keys: HashMap<Arc<origin::Source>, u64>,
    names: HashMap<Name, u64>,
    next_source: u64,
    next_chore: u64,
    shards: BTreeMap<ShardId, ShardRow>,
    // As committed, of what has changed since.
    outputs_before: HashMap<Name, OutputRow>,
    sources_before: BTreeMap<u64, Source>,
}

impl Book {
    /// Takes over what was committed by an earlier run.
    pub(super) fn new(flow: Arc<str>, rows: &ConsumerRows) -> Self {
        let mut book = Self { flow, ..Self::default() };
        for row in &rows.outputs {
            if let Ok(name) = Name::new(&row.name) {
                book.outputs.insert(name, row.clone());
            }
        }
        for row in &rows.sources {
            let origin = origin::Source {
                host: row.host.clone(),
                path: PathBuf::from(OsString::from_vec(row.path.clone())),
                device: row.device,
                inode: row.inode,
                birth: row.birth,
                generation: row.generation,
            };
            let source = Source {
                origin: Arc::new(origin),
                name: Name::new(&row.name).ok(),
                received: Received::decode(&row.received).unwrap_or_default(),
                state: State::of(row.state),
                touched: row.touched,
            };
            book.insert(row.id, source);
        }
        book.next_chore = rows.chores.iter().map(|chore| chore.id).max().unwrap_or(0);
        book
    }

    /// Takes in a source whose row is committed.
    pub(super) fn insert(&mut self, id: u64, source: Source) {
        self.keys.insert(Arc::clone(&source.origin), id);
        if let Some(name) = &source.name {
            self.names.insert(name.clone(), id);
        }
        self.next_source = self.next_source.max(id);
        self.sources.insert(id, source);
    }

    /// Returns the number of a chore that is never used again in this run.
    pub(super) fn chore(&mut self) -> u64 {
        self.next_chore = self.next_chore.saturating_add(1);
        self.next_chore
    }

    pub(super) fn outputs(&self) -> impl Iterator<Item = (&Name, &OutputRow)> {
        self.outputs.iter()
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = (u64, &Source)> {
        self.sources.iter().map(|(id, source)| (*id, source))
    }

    /// Returns how many files there are.
    pub(super) fn files(&self) -> usize {
        self.outputs.len().saturating_add(self.names.len())
    }

    pub(super) fn output(&self, name: &Name) -> Option<&OutputRow> {
        self.outputs.get(name)
    }

    /// Returns the row of a file to be changed.
    pub(super) fn change_output(&mut self, name: &Name) -> &mut OutputRow {
        let row = self.outputs.entry(name.clone()).or_insert_with(|| OutputRow {
            name: name.as_bytes().to_vec(),
            ..OutputRow::default()
        });
        if !self.outputs_before.contains_key(name) {
            self.outputs_before.insert(name.clone(), row.clone());
        }
        row
    }

    /// Takes note of a file whose row is committed already.
    pub(super) fn committed_output(&mut self, row: OutputRow) {
        if let Ok(name) = Name::new(&row.name) {
            self.outputs_before.remove(&name);
            self.outputs.insert(name, row);
        }
    }

    pub(super) fn find(&self, origin: &origin::Source) -> Option<u64> {
        self.keys.get(origin).copied()
    }

    pub(super) fn source(&self, id: u64) -> Option<&Source> {
        self.sources.get(&id)
    }

    /// Returns a source to be changed.
    pub(super) fn change_source(&mut self, id: u64) -> Option<&mut Source> {
        let source = self.sources.get_mut(&id)?;
        self.sources_before.entry(id).or_insert_with(|| source.clone());
        Some(source)
    }

    /// Returns who has a name.
    pub(super) fn named(&self, name: &Name) -> Option<u64> {
        self.names.get(name).copied()
    }

    /// Returns the row of a source that is to be taken in, once it is committed.
    pub(super) fn announce(
        &self,
        origin: Arc<origin::Source>,
        name: Option<Name>,
        now: u64,
    ) -> (SourceRow, Source) {
        let id = self.next_source.saturating_add(1);
        let received = Received::default();
        let source = Source { origin, name, received, state: State::Open, touched: now };
        (source.row(id), source)
    }

    /// Gives a source another name, at once: a rename is committed by itself.
    pub(super) fn rename(&mut self, id: u64, name: Name) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        if let Some(before) = self.sources_before.get_mut(&id) {
            before.name = Some(name.clone());
        }
        let old = source.name.replace(name.clone());
        if let Some(old) = old
            && self.named(&old) == Some(id)
        {
            self.names.remove(&old);
        }
        self.names.insert(name, id);
    }

    /// Returns the row of a source without what has not been committed.
    pub(super) fn committed_source(&self, id: u64) -> Option<SourceRow> {
        let source = self.sources_before.get(&id).or_else(|| self.sources.get(&id))?;
        Some(source.row(id))
    }

    /// The shard is written up to here, once this is committed.
    pub(super) fn advance(&mut self, row: ShardRow) {
        self.shards.insert(row.shard.clone(), row);
    }

    /// Returns true where nothing has changed since the last commit.
    pub(super) fn is_committed(&self) -> bool {
        self.shards.is_empty() && self.outputs_before.is_empty() && self.sources_before.is_empty()
    }

    /// Returns what has changed since the last commit.
    pub(super) fn changes(&self) -> ConsumerCommit {
        ConsumerCommit {
            flow: Arc::clone(&self.flow),
            shards: self.shards.values().cloned().collect(),
            outputs: self
                .outputs_before
                .keys()
                .filter_map(|name| self.outputs.get(name).cloned())
                .collect(),
            sources: self
                .sources_before
                .keys()
                .filter_map(|id| Some(self.sources.get(id)?.row(*id)))
                .collect(),
            ..ConsumerCommit::default()
        }
    }

    /// What has changed is committed. Returns how far which shards are now.
    pub(super) fn committed(&mut self) -> Vec<ShardRow> {
        self.outputs_before.clear();
        self.sources_before.clear();
        std::mem::take(&mut self.shards).into_values().collect()
    }

    /// Takes back what has changed since the last commit. Returns the appended files and the lengths to
    /// cut them back to.
    pub(super) fn roll_back(&mut self) -> Vec<(Name, u64)> {
        self.shards.clear();
        for (id, before) in std::mem::take(&mut self.sources_before) {
            self.sources.insert(id, before);
        }
        let outputs = std::mem::take(&mut self.outputs_before);
        let cut = outputs.iter().map(|(name, row)| (name.clone(), row.length)).collect();
        self.outputs.extend(outputs);
        cut
    }

    /// Forgets the sources that nothing came of for longest, down to `most`. Returns their numbers.
    pub(super) fn forget(&mut self, most: usize) -> Vec<u64> {
        let excess = self.sources.len().saturating_sub(most);
        let mut oldest: Vec<(u64, u64)> =
            self.sources.iter().map(|(id, source)| (source.touched, *id)).collect();
        oldest.sort_unstable();
        let gone: Vec<u64> = oldest.into_iter().take(excess).map(|(_, id)| id).collect();
        for id in &gone {
            if let Some(source) = self.sources.remove(id) {
                self.keys.remove(&source.origin);
            }
            self.sources_before.remove(id);
        }
        gone
    }
}
