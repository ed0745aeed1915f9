//! Chores: what takes long and hurries nobody, on a thread of its own: rotated files are compressed,
//! and mirrored generations that are over are read again.
//!
//! Invariant: a rotated file is removed only once its compressed copy is complete, synced and has its
//! name; a chore that was cut off is done again from the beginning. The names that a chore uses are its
//! own until it is done: a source that is called so gets no file of that name.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::consume::path::{Name, Refused, Root};
use crate::record::compression::Algorithm;

/// Chores that wait at most; what finds no room is offered again later.
const WAITING: usize = 1024;

/// Bytes read of a file at a time.
const BLOCK: usize = 256 << 10;

/// The level of compression: the usual one of both tools.
const LEVEL: u32 = 6;

#[derive(Debug)]
enum Job {
    Compress { id: u64, source: Name, target: Name },
    Check { name: Name, length: u64, crc: u32 },
}

/// What became of a chore.
#[derive(Debug)]
pub(super) enum Found {
    /// The file is compressed.
    Compressed(u64),
    /// The file has been read.
    Checked {
        /// The file.
        name: Name,
        /// What it was expected to be.
        crc: u32,
        /// How long.
        length: u64,
        /// What it is; `None` where it is not there or has another length.
        actual: Option<u32>,
    },
}

/// The handle of the thread, which ends once this is dropped and what waits is done.
#[derive(Debug)]
pub(super) struct Chores {
    jobs: Sender<Job>,
    found: Receiver<Found>,
    checking: HashSet<Name>,
    compressing: HashMap<u64, [Name; 2]>,
}

impl Chores {
    /// Starts the thread, for files beneath `directory`.
    pub(super) fn start(directory: &Path) -> io::Result<Self> {
        let root = Root::open(directory)?;
        let (jobs, waiting) = bounded(WAITING);
        let (results, found) = bounded(WAITING * 2);
        thread::Builder::new()
            .name("chores".to_owned())
            .spawn(move || run(&root, &waiting, &results))?;
        let (checking, compressing) = (HashSet::new(), HashMap::new());
        Ok(Self { jobs, found, checking, compressing })
    }

    /// Compresses a file. What finds no room is done at the next start, for it is noted.
    pub(super) fn compress(&mut self, id: u64, source: Name, target: Name) {
        self.compressing.insert(id, [source.clone(), target.clone()]);
        let _ = self.jobs.try_send(Job::Compress { id, source, target });
    }

    /// Returns true where compressing uses a name, or will.
    pub(super) fn uses(&self, name: &Name) -> bool {
        self.compressing.values().any(|[source, target]| {
            [source, target].contains(&name) || partial(target).is_ok_and(|it| it == *name)
        })
    }

    /// Reads a file again, unless that is under way.
    pub(super) fn check(&mut self, name: Name, length: u64, crc: u32) {
        if self.checking.contains(&name) {
            return;
        }
        if self.jobs.try_send(Job::Check { name: name.clone(), length, crc }).is_ok() {
            self.checking.insert(name);
        }
    }

    /// Returns what has been done.
    pub(super) fn found(&mut self) -> Vec<Found> {
        let found: Vec<Found> = self.found.try_iter().collect();
        for one in &found {
            match one {
                Found::Checked { name, .. } => drop(self.checking.remove(name)),
                Found::Compressed(id) => drop(self.compressing.remove(id)),
            }
        }
        found
    }
}

fn run(root: &Root, waiting: &Receiver<Job>, results: &Sender<Found>) {
    for job in waiting {
        let found = match job {
            Job::Compress { id, source, target } => {
                if let Err(error) = compress(root, &source, &target) {
                    tracing::warn!(file = %source, %error, "a rotated file could not be compressed");
                    continue;
                }
                Found::Compressed(id)
            }
            Job::Check { name, length, crc } => {
                let actual = checksum(root, &name, length).unwrap_or_default();
                Found::Checked { name, crc, length, actual }
            }
        };
        // Nobody listens any more where the flow has ended.
        if results.try_send(found).is_err() {
            return;
        }
    }
}

/// Writes the compressed copy beside the file, gives it its name, and removes the file.
fn compress(root: &Root, source: &Name, target: &Name) -> io::Result<()> {
    let mut input = match root.open_file(source) {
        // It was done before, or somebody removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        input => input?,
    };
    // As the name says: the setting may have been changed since.
    let algorithm =
        if target.as_bytes().ends_with(b".gz") { Algorithm::Gzip } else { Algorithm::Zstd };
    let partial = partial(target).map_err(io::Error::other)?;
    let mut output = root.create(&partial)?;
    output.set_len(0)?;
    pack(algorithm, &mut input, &mut output)?;
    output.sync_all()?;
    match root.rename(&partial, target) {
        // A copy that was complete, where only the removal was cut off; or somebody else's file.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_copy = same(&mut root.open_file(&partial)?, &mut root.open_file(target)?)?;
            root.remove(&partial)?;
            if !is_copy {
                return Err(error);
            }
        }
        renamed => renamed?,
    }
    root.remove(source)
}

/// Returns what a compressed copy is called until it is complete.
pub(super) fn partial(target: &Name) -> Result<Name, Refused> {
    target.with_suffix(".partial")
}

/// Returns true where two files hold the same.
fn same(one: &mut File, other: &mut File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut mine, mut theirs) = (vec![0; BLOCK], vec![0; BLOCK]);
    loop {
        let read = one.read(&mut mine)?;
        let theirs = theirs.get_mut(..read).unwrap_or_default();
        other.read_exact(theirs)?;
        if mine.get(..read).unwrap_or_default() != theirs {
            return Ok(false);
        }
        if read == 0 {
            return Ok(true);
        }
    }
}

fn pack(algorithm: Algorithm, input: &mut File, output: &mut File) -> io::Result<()> {
    match algorithm {
        Algorithm::Gzip => {
            let mut encoder = GzEncoder::new(output, Compression::new(LEVEL));
            io::copy(input, &mut encoder)?;
            encoder.finish().map(drop)
        }
        Algorithm::Zstd => {
            zstd::stream::copy_encode(input, output, i32::try_from(LEVEL).unwrap_or_default())
        }
    }
}

/// Returns the checksum of a file of that length.
fn checksum(root: &Root, name: &Name, length: u64) -> io::Result<Option<u32>> {
    let mut file = root.open_file(name)?;
    if file.metadata()?.len() != length {
        return Ok(None);
    }
    let mut block = vec![0; BLOCK];
    let mut hasher = crc32fast::Hasher::new();
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(Some(hasher.finalize()));
        }
        hasher.update(block.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_removed_only_where_its_compressed_name_holds_its_copy() {
        for suffix in [".gz", ".zst"] {
            let directory = tempfile::tempdir().unwrap();
            let root = Root::open(directory.path()).unwrap();
            let (source, target) = (directory.path().join("a"), format!("a{suffix}"));
            let [from, to] = ["a", &target].map(|name| Name::new(name.as_bytes()).unwrap());
            let target = directory.path().join(target);
            fs::write(&source, "line\n".repeat(100_000)).unwrap();
            fs::write(&target, "somebody else's").unwrap();
            compress(&root, &from, &to).unwrap_err();
            assert_eq!(fs::read(&source).unwrap().len(), 500_000);
            assert_eq!(fs::read(&target).unwrap(), b"somebody else's");
            fs::remove_file(&target).unwrap();
            compress(&root, &from, &to).unwrap();
            assert!(!source.exists() && target.exists());
            // As a kill leaves it before the removal.
            fs::write(&source, "line\n".repeat(100_000)).unwrap();
            compress(&root, &from, &to).unwrap();
            assert!(!source.exists());
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }
}
