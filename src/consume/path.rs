//! Paths: an untrusted name becomes a file beneath the root, or a refusal.
//!
//! Invariant: no file outside the root is opened, made, renamed or removed, whatever stands in a name
//! and whatever somebody plants beneath the root while it is used. A [`Name`] is checked by its text;
//! on top of that the kernel resolves it beneath the root and follows no link
//! (`openat2`, `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`). Where it has no
//! `openat2`, each part is opened by itself and must be a directory and no link.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use crate::config::template::{Part, Template, Variable};

/// The most bytes of a part of a name: what Linux's file systems take.
const PART_BYTES: usize = 255;

/// The most bytes of a name: Linux takes 4,096 for a path, and the root needs some of them.
const NAME_BYTES: usize = 2048;

/// The most parts of a name.
const PARTS: usize = 64;

/// The mode of files: the group may read them.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);

/// The mode of directories.
const DIRECTORY_MODE: Mode = Mode::RWXU.union(Mode::RGRP).union(Mode::XGRP);

/// A name beneath the root that is safe to look at and to open.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A control character, or one that turns the direction of text.
    #[error("it holds a control character")]
    Control,
    /// Too many parts.
    #[error("it has too many parts")]
    Deep,
    /// A part that is empty, `.` or `..`.
    #[error("a part of it is empty, `.` or `..`")]
    Dots,
    /// A host with a slash in it.
    #[error("its host holds a slash")]
    Host,
    /// Longer than the system takes.
    #[error("it is too long")]
    Long,
    /// A variable stands for nothing.
    #[error("the record does not say where it comes from")]
    Unknown,
}

impl Name {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn new(name: &[u8]) -> Result<Self, Refused> {
        if name.len() > NAME_BYTES {
            return Err(Refused::Long);
        }
        for part in name.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." | b".." => return Err(Refused::Dots),
                part if part.len() > PART_BYTES => return Err(Refused::Long),
                _ => {}
            }
        }
        if name.split(|&byte| byte == b'/').count() > PARTS {
            return Err(Refused::Deep);
        }
        if name.iter().any(u8::is_ascii_control) || misleads(name) {
            return Err(Refused::Control);
        }
        Ok(Self(Arc::from(name)))
    }

    /// Returns the name with a suffix to its last part.
    ///
    /// # Errors
    /// [`Refused`], for instance because it is too long then.
    pub fn with_suffix(&self, suffix: &str) -> Result<Self, Refused> {
        Self::new(&[&self.0, suffix.as_bytes()].concat())
    }

    /// Returns the name with a suffix to its first part, so that it shares no directory with this one.
    ///
    /// # Errors
    /// [`Refused`], for instance because it is too long then.
    pub fn beside(&self, suffix: &str) -> Result<Self, Refused> {
        let first = self.0.split(|&byte| byte == b'/').next().unwrap_or_default();
        let (first, rest) = self.0.split_at(first.len());
        Self::new(&[first, suffix.as_bytes(), rest].concat())
    }

    /// Returns its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the directory it stands in, empty for the root, and its last part.
    fn split(&self) -> (&Path, &OsStr) {
        let path = self.as_path();
        (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default())
    }

    fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.as_path().display())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Name({})", self.0.escape_ascii())
    }
}

/// Returns true where a character would show the name as another than it is: C1 controls, and those
/// that turn or isolate the direction of text.
fn misleads(name: &[u8]) -> bool {
    let of_direction = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    name.utf8_chunks()
        .flat_map(|chunk| chunk.valid().chars())
        .any(|c| c.is_control() || of_direction(c) || matches!(c, '\u{2028}' | '\u{2029}'))
}

/// What the variables of a template stand for.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The stream's name.
    pub stream: &'a str,
    /// The shard.
    pub shard: &'a str,
    /// The host and the path of the source, where the record says so.
    pub source: Option<(&'a str, &'a [u8])>,
}

/// Returns the name that a template gives with these values.
///
/// # Errors
/// [`Refused`].
pub fn expand(template: &Template, values: Values<'_>) -> Result<Name, Refused> {
    let mut name = Vec::new();
    for part in template.parts() {
        match part {
            Part::Text(text) => name.extend_from_slice(text.as_bytes()),
            Part::Variable(Variable::Stream) => name.extend_from_slice(values.stream.as_bytes()),
            Part::Variable(Variable::Shard) => name.extend_from_slice(values.shard.as_bytes()),
            Part::Variable(variable) => {
                let (host, path) = values.source.ok_or(Refused::Unknown)?;
                name.extend_from_slice(of_source(*variable, host, path)?);
            }
        }
    }
    Name::new(&name)
}

fn of_source<'a>(variable: Variable, host: &'a str, path: &'a [u8]) -> Result<&'a [u8], Refused> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let value = match variable {
        Variable::Host if host.contains('/') => return Err(Refused::Host),
        Variable::Host => host.as_bytes(),
        Variable::File => path.rsplit(|&byte| byte == b'/').next().unwrap_or_default(),
        _ => path,
    };
    // Beside other text in the template, a part that names a directory would pass for a name.
    let mut parts = value.split(|&byte| byte == b'/');
    let is_dots = |part: &[u8]| matches!(part, b"" | b"." | b"..");
    if parts.any(is_dots) { Err(Refused::Dots) } else { Ok(value) }
}

/// The directory that all files stand in.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
}

impl Root {
    /// Opens the directory, and makes it where its parent is there.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        match fs::mkdirat(CWD, path, DIRECTORY_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        Ok(Self { directory: fs::openat(CWD, path, flags, Mode::empty())? })
    }

    /// Opens a file for reading and writing, and makes it, with the directories it stands in, where it
    /// is not there. What was made is synced into its directory.
    ///
    /// # Errors
    /// The system's; `InvalidInput` where something else than a regular file has the name.
    pub fn create(&self, name: &Name) -> io::Result<File> {
        let (directory, last) = name.split();
        let parent = self.directory(directory, true)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK;
        let file = match open(parent.as_fd(), last, flags) {
            Err(Errno::NOENT) => {
                let made = open(parent.as_fd(), last, flags | OFlags::CREATE)?;
                // What the umask has taken away is wanted, and nothing else.
                fs::fchmod(&made, FILE_MODE)?;
                fs::fsync(&parent)?;
                made
            }
            opened => opened?,
        };
        regular(file)
    }

    /// Opens a file that is there, for reading and writing.
    ///
    /// # Errors
    /// As [`create`](Self::create); `NotFound` where it is not there.
    pub fn open_file(&self, name: &Name) -> io::Result<File> {
        let (directory, last) = name.split();
        let parent = self.directory(directory, false)?;
        regular(open(parent.as_fd(), last, OFlags::RDWR | OFlags::NONBLOCK)?)
    }

    /// Renames a file, never over another; the change is synced.
    ///
    /// # Errors
    /// `NotFound` where it is not there, `AlreadyExists` where the other name is taken.
    pub fn rename(&self, from: &Name, to: &Name) -> io::Result<()> {
        let (from_directory, from_last) = from.split();
        let (to_directory, to_last) = to.split();
        let source = self.directory(from_directory, false)?;
        let target = self.directory(to_directory, true)?;
        fs::renameat_with(&source, from_last, &target, to_last, RenameFlags::NOREPLACE)?;
        fs::fsync(&target)?;
        if from_directory != to_directory {
            fs::fsync(&source)?;
        }
        Ok(())
    }

    /// Removes a file; the change is synced.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, name: &Name) -> io::Result<()> {
        let (directory, last) = name.split();
        let parent = self.directory(directory, false)?;
        fs::unlinkat(&parent, last, AtFlags::empty())?;
        fs::fsync(&parent)?;
        Ok(())
    }

    /// Returns the size of a file; `None` where it is not there.
    ///
    /// # Errors
    /// The system's.
    pub fn size(&self, name: &Name) -> io::Result<Option<u64>> {
        match self.open_file(name) {
            Ok(file) => Ok(Some(file.metadata()?.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a directory beneath the root, and makes it where it is wanted.
    fn directory(&self, path: &Path, make: bool) -> io::Result<OwnedFd> {
        if path.as_os_str().is_empty() {
            return self.directory.try_clone();
        }
        match open(self.directory.as_fd(), path.as_os_str(), OFlags::DIRECTORY | OFlags::RDONLY) {
            Err(Errno::NOENT) if make => {}
            Err(error) => return Err(error.into()),
            Ok(opened) => return Ok(opened),
        }
        let mut at = self.directory.try_clone()?;
        for part in path {
            match fs::mkdirat(&at, part, DIRECTORY_MODE) {
                Ok(()) => fs::fsync(&at)?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            at = open(at.as_fd(), part, OFlags::DIRECTORY | OFlags::RDONLY)?;
        }
        Ok(at)
    }
}

/// Opens beneath a directory, following no link.
fn open(directory: BorrowedFd<'_>, path: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let mode = if flags.contains(OFlags::CREATE) { FILE_MODE } else { Mode::empty() };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(directory, path, flags, mode, resolve) {
        // Before Linux 5.6, or where a filter of system calls does not know it.
        Err(Errno::NOSYS | Errno::PERM) => walk(directory, path, flags, mode),
        // Somebody renamed something above at that moment.
        Err(Errno::AGAIN) => fs::openat2(directory, path, flags, mode, resolve),
        opened => opened,
    }
}

/// The same, part by part.
fn walk(
    directory: BorrowedFd<'_>,
    path: &OsStr,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let path = Path::new(path);
    let last = path.file_name().ok_or(Errno::INVAL)?;
    let mut at: Option<OwnedFd> = None;
    for part in path.parent().into_iter().flatten() {
        let from = at.as_ref().map_or(directory, AsFd::as_fd);
        let through = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        at = Some(fs::openat(from, part, through, Mode::empty())?);
    }
    fs::openat(at.as_ref().map_or(directory, AsFd::as_fd), last, flags, mode)
}

/// A device or a pipe in the place of a file is not written to.
fn regular(file: OwnedFd) -> io::Result<File> {
    let stat = fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(File::from(file))
}

#[cfg(test)]
mod tests;
