//! Files held open, and what is still to be written to them.
//!
//! Invariant: at most so many files are open as allowed; what was written to a file is synced before
//! it is closed, and by [`Files::sync`] otherwise. Bytes that follow each other go out in large writes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::consume::path::{Name, Root};

/// Bytes that are held back for a file before they are written.
const BUFFER_BYTES: usize = 256 << 10;

/// Bytes that are held back for all files together.
const BUFFERS_BYTES: usize = 8 << 20;

/// Open files beneath a root.
#[derive(Debug)]
pub(super) struct Files {
    root: Root,
    most: usize,
    clock: u64,
    open: HashMap<Name, Open>,
    held: HashMap<Name, Held>,
    held_bytes: usize,
}

#[derive(Debug)]
struct Open {
    file: File,
    dirty: bool,
    used: u64,
}

/// Bytes for one place of a file.
#[derive(Debug)]
struct Held {
    at: u64,
    bytes: Vec<u8>,
}

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {name}: {source}")]
pub struct FileError {
    /// What was tried.
    pub operation: &'static str,
    /// The file.
    pub name: Name,
    /// The system's words.
    pub source: io::Error,
}

fn failed(operation: &'static str, name: &Name) -> impl FnOnce(io::Error) -> FileError {
    let name = name.clone();
    move |source| FileError { operation, name, source }
}

/// Cuts off what a full disk took of a write: it ends anywhere, and a file should not end in a line that is
/// torn. Bytes beyond, or before, are others'. Where this fails, too, it is cut back or written over later.
fn cut_torn(file: &File, held: &Held) {
    let end = held.at.saturating_add(held.bytes.len() as u64);
    let is_torn = file.metadata().is_ok_and(|facts| held.at < facts.len() && facts.len() < end);
    if is_torn && let Err(error) = file.set_len(held.at) {
        tracing::warn!(%error, "what was written of a line cannot be cut off");
    }
}

impl Files {
    pub(super) fn new(root: Root, most: usize) -> Self {
        Self {
            root,
            most: most.max(1),
            clock: 0,
            open: HashMap::new(),
            held: HashMap::new(),
            held_bytes: 0,
        }
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    /// Makes a file, or opens one that is there; returns its size.
    pub(super) fn create(&mut self, name: &Name) -> Result<u64, FileError> {
        let file = self.opened(name, true)?;
        Ok(file.metadata().map_err(failed("look at", name))?.len())
    }

    /// Writes bytes at a place of a file, sooner or later.
    pub(super) fn write(&mut self, name: &Name, at: u64, bytes: &[u8]) -> Result<(), FileError> {
        let follows = |held: &Held| held.at.checked_add(held.bytes.len() as u64) == Some(at);
        match self.held.get_mut(name) {
            Some(held) if follows(held) && held.bytes.len() < BUFFER_BYTES => {
                held.bytes.extend_from_slice(bytes);
            }
            Some(_) => {
                self.flush_one(name)?;
                self.held.insert(name.clone(), Held { at, bytes: bytes.to_vec() });
            }
            None => {
                self.held.insert(name.clone(), Held { at, bytes: bytes.to_vec() });
            }
        }
        self.held_bytes = self.held_bytes.saturating_add(bytes.len());
        if self.held_bytes > BUFFERS_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what is held back.
    pub(super) fn flush(&mut self) -> Result<(), FileError> {
        let names: Vec<Name> = self.held.keys().cloned().collect();
        names.iter().try_for_each(|name| self.flush_one(name))
    }

    fn flush_one(&mut self, name: &Name) -> Result<(), FileError> {
        let Some(held) = self.held.remove(name) else { return Ok(()) };
        self.held_bytes = self.held_bytes.saturating_sub(held.bytes.len());
        let file = self.opened(name, true)?;
        if let Err(error) = file.write_all_at(&held.bytes, held.at) {
            cut_torn(file, &held);
            return Err(failed("write", name)(error));
        }
        if let Some(open) = self.open.get_mut(name) {
            open.dirty = true;
        }
        Ok(())
    }

    /// Writes and syncs everything.
    pub(super) fn sync(&mut self) -> Result<(), FileError> {
        self.flush()?;
        for (name, open) in self.open.iter_mut().filter(|(_, open)| open.dirty) {
            open.file.sync_data().map_err(failed("sync", name))?;
            open.dirty = false;
        }
        Ok(())
    }

    /// Forgets what is held back.
    pub(super) fn forget(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    /// Cuts a file back to `length`, if it is longer. Returns its length before; 0 where it is gone.
    pub(super) fn cut(&mut self, name: &Name, length: u64) -> Result<u64, FileError> {
        let file = match self.opened(name, false) {
            Ok(file) => file,
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let found = file.metadata().map_err(failed("look at", name))?.len();
        if found > length {
            file.set_len(length).map_err(failed("cut back", name))?;
            if let Some(open) = self.open.get_mut(name) {
                open.dirty = true;
            }
        }
        Ok(found)
    }

    /// Closes a file; what was written to it is synced.
    pub(super) fn close(&mut self, name: &Name) -> Result<(), FileError> {
        self.flush_one(name)?;
        if let Some(open) = self.open.get_mut(name)
            && open.dirty
        {
            open.file.sync_data().map_err(failed("sync", name))?;
        }
        self.open.remove(name);
        Ok(())
    }

    fn opened(&mut self, name: &Name, create: bool) -> Result<&File, FileError> {
        self.clock = self.clock.saturating_add(1);
        let used = self.clock;
        if !self.open.contains_key(name) {
            while self.open.len() >= self.most {
                self.close_oldest()?;
            }
            let opened = if create { self.root.create(name) } else { self.root.open_file(name) };
            let file = opened.map_err(failed("open", name))?;
            self.open.insert(name.clone(), Open { file, dirty: false, used });
        }
        match self.open.get_mut(name) {
            Some(open) => {
                open.used = used;
                Ok(&open.file)
            }
            None => Err(failed("open", name)(io::Error::from(io::ErrorKind::NotFound))),
        }
    }

    fn close_oldest(&mut self) -> Result<(), FileError> {
        let oldest = self.open.iter().min_by_key(|(_, open)| open.used);
        let Some(name) = oldest.map(|(name, _)| name.clone()) else { return Ok(()) };
        // What is held back for it opens it again; only what was written must be synced.
        if let Some(open) = self.open.remove(&name)
            && open.dirty
        {
            open.file.sync_data().map_err(failed("sync", &name))?;
        }
        Ok(())
    }
}
