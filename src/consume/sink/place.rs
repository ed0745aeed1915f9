//! Placing: which file the lines of a source go to, and what becomes of generations that are over.
//!
//! Invariant: a file is known before it is written to: its row is committed first. So what an
//! earlier run wrote and did not commit is told from what somebody else had put there.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::io::Errno;

use super::mirror::{Occupant, Placing};
use super::{
    Chore, ChoreKind, ConsumerCommit, FileError, Found, Generations, Layout, Name, OVER_AFTER,
    OutputRow, Place, SOURCES_MAX, Sink, SinkError, State, chores, mirror, rotate,
};
use crate::checkpoint::SourceRow;
use crate::consume::path::{self, Refused, Values};
use crate::position::ShardId;
use crate::record::origin;

/// Names beside `other_path` that are tried beyond those that sources can have taken: where the system
/// refuses so many, it refuses them all.
const OTHERS_MAX: usize = 100;

/// Why a run goes to `other_path`.
#[derive(Debug)]
enum Elsewhere {
    /// Its name is refused, by us or by the system.
    Refused,
    /// There are too many files.
    Full,
    /// It could not be found out.
    Failed(SinkError),
}

impl From<Refused> for Elsewhere {
    fn from(_: Refused) -> Self {
        Self::Refused
    }
}

impl From<SinkError> for Elsewhere {
    fn from(error: SinkError) -> Self {
        Self::Failed(error)
    }
}

impl From<FileError> for Elsewhere {
    fn from(error: FileError) -> Self {
        if is_about_the_name(&error.source) { Self::Refused } else { Self::Failed(error.into()) }
    }
}

/// Returns true where another name would help: something else stands in the way.
fn is_about_the_name(error: &io::Error) -> bool {
    let of_name = [
        Errno::NOTDIR,
        Errno::ISDIR,
        Errno::LOOP,
        Errno::MLINK,
        Errno::NAMETOOLONG,
        // Some file systems take UTF-8 only.
        Errno::ILSEQ,
        Errno::XDEV,
        Errno::NXIO,
        Errno::INVAL,
    ];
    error.kind() == io::ErrorKind::InvalidInput
        || Errno::from_io_error(error).is_some_and(|errno| of_name.contains(&errno))
}

/// Returns true where a directory, as sources can make it, or a link has the name.
fn is_other_thing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ISDIR | Errno::LOOP))
}

impl Sink {
    /// Returns the number of a source, a new one where it is not known.
    pub(super) fn source(
        &mut self,
        shard: &ShardId,
        origin: &Arc<origin::Source>,
        now: u64,
    ) -> Result<u64, SinkError> {
        if let Some(id) = self.book.find(origin) {
            return Ok(id);
        }
        let name = match self.consume.layout {
            Layout::Append => None,
            Layout::Mirror => match self.make_mirrored(origin) {
                Ok(name) => Some(name),
                Err(elsewhere) => {
                    self.elsewhere(shard, elsewhere)?;
                    None
                }
            },
        };
        let (row, source) = self.book.announce(Arc::clone(origin), name, now);
        let id = row.id;
        self.commits
            .commit(ConsumerCommit {
                flow: Arc::clone(&self.book.flow),
                sources: vec![row],
                ..ConsumerCommit::default()
            })
            .map_err(SinkError::Commit)?;
        self.book.insert(id, source);
        Ok(id)
    }

    fn elsewhere(&mut self, shard: &ShardId, why: Elsewhere) -> Result<(), SinkError> {
        let tally = self.pending.entry(shard.clone()).or_default();
        match why {
            Elsewhere::Refused => tally.refused += 1,
            Elsewhere::Full => tally.beyond_files += 1,
            Elsewhere::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns where the lines of a source go.
    pub(super) fn place(&mut self, shard: &ShardId, id: u64) -> Result<Place, SinkError> {
        let Some(source) = self.book.source(id) else {
            return Ok(Place::Append(self.other(shard)?));
        };
        if let Some(name) = &source.name {
            return Ok(Place::Mirror(name.clone()));
        }
        if self.consume.layout == Layout::Mirror {
            return Ok(Place::Append(self.other(shard)?));
        }
        let origin = Arc::clone(&source.origin);
        match self.make_appended(shard, &origin) {
            Ok(name) => Ok(Place::Append(name)),
            Err(elsewhere) => {
                self.elsewhere(shard, elsewhere)?;
                Ok(Place::Append(self.other(shard)?))
            }
        }
    }

    fn make_appended(
        &mut self,
        shard: &ShardId,
        origin: &origin::Source,
    ) -> Result<Name, Elsewhere> {
        let name = self.expanded(Some(shard), origin)?;
        if self.book.output(&name).is_none() {
            if self.chores.uses(&name) {
                return Err(Elsewhere::Refused);
            }
            if self.book.files() >= self.consume.write.max_files {
                return Err(Elsewhere::Full);
            }
            self.make_output(&name)?;
        }
        Ok(name)
    }

    fn expanded(&self, shard: Option<&ShardId>, origin: &origin::Source) -> Result<Name, Refused> {
        let values = Values {
            stream: &self.stream,
            shard: shard.map_or("", |shard| &shard.0),
            source: Some((&origin.host, origin.path.as_os_str().as_bytes())),
        };
        path::expand(&self.consume.path, values)
    }

    /// Returns the file of a shard for lines that have no other. Where a source has its name or stands in
    /// its way, it is one beside: a name that somebody makes up must not stop a shard.
    pub(super) fn other(&mut self, shard: &ShardId) -> Result<Name, SinkError> {
        if let Some(name) = self.others.get(shard) {
            return Ok(name.clone());
        }
        let values = Values { stream: &self.stream, shard: &shard.0, source: None };
        let refused = |refused: Refused| SinkError::Commit(format!("other_path: {refused}"));
        let first = path::expand(&self.consume.other_path, values).map_err(refused)?;
        // Each that is taken is so by another file.
        let most = self.book.files().saturating_add(OTHERS_MAX);
        let mut name = first.clone();
        for number in 1..=most {
            match self.make_other(&name) {
                Ok(()) => {
                    self.others.insert(shard.clone(), name.clone());
                    return Ok(name);
                }
                Err(Elsewhere::Failed(error)) => return Err(error),
                Err(Elsewhere::Refused | Elsewhere::Full) => {
                    name = first.beside(&format!(".other-{number}")).map_err(refused)?;
                }
            }
        }
        Err(SinkError::Commit(format!("{first} of other_path is no file, nor is any beside it")))
    }

    fn make_other(&mut self, name: &Name) -> Result<(), Elsewhere> {
        if self.book.named(name).is_some() {
            return Err(Elsewhere::Refused);
        }
        if self.book.output(name).is_none() {
            self.make_output(name)?;
        }
        Ok(())
    }

    /// Makes an appended file. What somebody else has put there is kept, and gone on after.
    fn make_output(&mut self, name: &Name) -> Result<(), Elsewhere> {
        let length = self.files.create(name)?;
        let row = OutputRow { name: name.as_bytes().to_vec(), length, ..OutputRow::default() };
        self.commits
            .commit(ConsumerCommit {
                flow: Arc::clone(&self.book.flow),
                outputs: vec![row.clone()],
                ..ConsumerCommit::default()
            })
            .map_err(SinkError::Commit)?;
        self.book.committed_output(row);
        Ok(())
    }

    /// Makes room for a mirrored generation, and its file. Returns its name.
    fn make_mirrored(&mut self, origin: &origin::Source) -> Result<Name, Elsewhere> {
        if self.book.files() >= self.consume.write.max_files {
            return Err(Elsewhere::Full);
        }
        let name = self.expanded(None, origin)?;
        let Placing { name, moves } = mirror::place(name, |name| self.occupant(name, origin))?;
        self.make_room(&moves)?;
        self.files.create(&name)?;
        Ok(name)
    }

    /// Returns true where something has the name of a rotated file, or one that it is compressed by.
    pub(super) fn is_taken(&self, name: &Name) -> Result<bool, SinkError> {
        let refused = |refused: Refused| SinkError::Commit(refused.to_string());
        let mut names = vec![name.clone()];
        if let Some(algorithm) = self.consume.rotate.compression {
            let packed = name.with_suffix(rotate::compressed(algorithm)).map_err(refused)?;
            names.push(chores::partial(&packed).map_err(refused)?);
            names.push(packed);
        }
        for name in names {
            let known = self.book.output(&name).is_some() || self.chores.uses(&name);
            let taken = match self.files.root().size(&name) {
                Ok(size) => size.is_some(),
                // A directory or a link: sources can make the former.
                Err(error) if is_other_thing(&error) => true,
                Err(source) => return Err(FileError { operation: "look at", name, source }.into()),
            };
            if known || taken {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn occupant(&self, name: &Name, origin: &origin::Source) -> Result<Occupant, Elsewhere> {
        if self.book.output(name).is_some() {
            return Err(Elsewhere::Refused);
        }
        if let Some(source) = self.book.named(name).and_then(|id| self.book.source(id)) {
            let newer = source.is_newer_than(origin);
            return Ok(if newer { Occupant::Newer } else { Occupant::Older });
        }
        let failed = |source| FileError { operation: "look at", name: name.clone(), source };
        let size = self.files.root().size(name).map_err(failed)?;
        Ok(match size {
            None => Occupant::Free,
            Some(0) => Occupant::Empty,
            Some(_) => Occupant::Older,
        })
    }

    /// Renames generations: noted, done, and noted to be done.
    fn make_room(&mut self, moves: &[(Name, Name)]) -> Result<(), SinkError> {
        if moves.is_empty() {
            return Ok(());
        }
        let (mut sources, mut chores) = (Vec::new(), Vec::new());
        for (from, to) in moves {
            self.files.close(from)?;
            if let Some(row) = self.book.named(from).and_then(|id| self.book.committed_source(id)) {
                sources.push(SourceRow { name: to.as_bytes().to_vec(), ..row });
            }
            chores.push(Chore {
                id: self.book.chore(),
                kind: ChoreKind::Rename,
                source: from.as_bytes().to_vec(),
                target: to.as_bytes().to_vec(),
            });
        }
        let done = chores.iter().map(|chore| chore.id).collect();
        let flow = Arc::clone(&self.book.flow);
        let commit = ConsumerCommit { flow, sources, chores, ..ConsumerCommit::default() };
        self.commits.commit(commit).map_err(SinkError::Commit)?;
        for (from, to) in moves {
            if let Some(id) = self.book.named(from) {
                self.book.rename(id, to.clone());
            }
            self.rename(from, to)?;
        }
        self.chores_done(done)
    }

    /// Checks generations that are over, and forgets sources of which nothing came for long.
    pub(super) fn look_after(&mut self, now: u64) -> Result<(), SinkError> {
        let mut done = Vec::new();
        for found in self.chores.found() {
            match found {
                Found::Compressed(id) => done.push(id),
                Found::Checked { name, crc, length, actual } => {
                    self.checked(&name, crc, length, actual);
                }
            }
        }
        self.chores_done(done)?;
        match self.consume.layout {
            Layout::Mirror => self.find_over(now),
            Layout::Append => {
                if self.book.sources().count() > SOURCES_MAX {
                    let sources_removed = self.book.forget(SOURCES_MAX - SOURCES_MAX / 10);
                    let flow = Arc::clone(&self.book.flow);
                    let commit = ConsumerCommit { flow, sources_removed, ..Default::default() };
                    self.commits.commit(commit).map_err(SinkError::Commit)?;
                }
            }
        }
        Ok(())
    }

    /// Finds generations that have a successor and of which nothing comes any more.
    fn find_over(&mut self, now: u64) {
        let mut holed = Vec::new();
        for (id, source) in self.book.sources() {
            let quiet = now.saturating_sub(source.touched) >= OVER_AFTER;
            let Some(name) = source.name.as_ref().filter(|_| quiet) else { continue };
            if source.state != State::Open
                || Ok(name) == self.expanded(None, &source.origin).as_ref()
            {
                continue;
            }
            match source.received.whole() {
                Some(crc) => self.chores.check(name.clone(), source.received.end(), crc),
                None => holed.push(id),
            }
        }
        for id in holed {
            if let Some(source) = self.book.change_source(id) {
                source.state = State::Holed;
                tracing::warn!(
                    host = source.origin.host, path = %source.origin.path.display(),
                    missing_bytes = source.received.holes(),
                    "bytes of a file that is over have not come"
                );
            }
        }
    }

    /// Takes note of what a file was found to be.
    fn checked(&mut self, name: &Name, crc: u32, length: u64, actual: Option<u32>) {
        let Some(source) = self.book.named(name).and_then(|id| self.book.change_source(id)) else {
            return;
        };
        // More may have come meanwhile.
        if source.received.whole() != Some(crc) || source.received.end() != length {
            return;
        }
        if actual == Some(crc) {
            source.state = State::Verified;
        } else {
            source.state = State::Damaged;
            tracing::error!(file = %name, "a mirrored file is not what was received");
        }
    }

    /// Returns what is known of mirrored generations.
    #[must_use]
    pub fn generations(&self) -> Generations {
        let mut all = Generations::default();
        for (_, source) in self.book.sources().filter(|(_, source)| source.name.is_some()) {
            all.known += 1;
            all.verified += u64::from(source.state == State::Verified);
            all.damaged += u64::from(source.state == State::Damaged);
            if source.state == State::Holed {
                all.hole_bytes = all.hole_bytes.saturating_add(source.received.holes());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_of_a_name_is_told_from_what_may_pass() {
        for errno in [Errno::ILSEQ, Errno::INVAL, Errno::ISDIR, Errno::LOOP, Errno::MLINK] {
            assert!(is_about_the_name(&errno.into()), "{errno}");
        }
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::ACCESS, Errno::MFILE] {
            assert!(!is_about_the_name(&errno.into()), "{errno}");
        }
    }
}
