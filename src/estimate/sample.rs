//! A sample: whole lines of the files, all of them or pieces spread evenly over what is too large.
//!
//! Invariant: at most the bytes asked for are held; a piece begins and ends with a line, but where
//! a line is longer than a piece.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memrchr};

use crate::produce::tail::generations::is_compressed;

/// The bytes that a file's first bytes are told apart by.
const HEAD: usize = 6;

/// The bytes of a piece: some ten thousand lines of a usual log.
const PIECE: u64 = 1 << 20;

/// Lines of some files.
#[derive(Debug, Default)]
pub struct Sample {
    /// The files, in the order given.
    pub files: Vec<Sampled>,
    /// Those that cannot be read, or that the agent does not follow, and why.
    pub skipped: Vec<(PathBuf, String)>,
}

/// Lines of a file.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// The lines.
    pub data: Bytes,
    /// When it was made and when it was last written, where the file system says so.
    pub written: Option<(SystemTime, SystemTime)>,
}

impl Sample {
    /// Takes at most `most` bytes of `files`, from each as much as its size is of all.
    #[must_use]
    pub fn take(files: &[PathBuf], most: u64) -> Self {
        let mut sample = Self::default();
        let mut opened = Vec::new();
        for path in files {
            match open(path) {
                Ok(Ok((file, facts))) => opened.push((path, file, facts)),
                Ok(Err(reason)) => sample.skipped.push((path.clone(), reason.to_owned())),
                Err(error) => sample.skipped.push((path.clone(), error.to_string())),
            }
        }
        let all: u64 = opened.iter().map(|(_, _, facts)| facts.len()).sum();
        for (path, file, facts) in opened {
            let size = facts.len();
            let share = share(size, most, all);
            match read(&file, size, share) {
                Ok(data) => sample.files.push(Sampled {
                    path: path.clone(),
                    size,
                    data: data.into(),
                    written: facts.created().ok().zip(facts.modified().ok()),
                }),
                Err(error) => sample.skipped.push((path.clone(), error.to_string())),
            }
        }
        sample
    }

    /// Returns the bytes of the files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Returns the bytes taken.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.data.len() as u64).sum()
    }

    /// Returns the lines taken.
    #[must_use]
    pub fn lines(&self) -> u64 {
        let lines = |data: &[u8]| {
            let ended = memchr_iter(b'\n', data).count() as u64;
            ended.saturating_add(u64::from(!data.is_empty() && !data.ends_with(b"\n")))
        };
        self.files.iter().map(|file| lines(&file.data)).sum()
    }

    /// Returns from the making of the oldest to the last writing of any: the time in which the files
    /// were written, where the file system says so. `None` also where that is under a second, as it is
    /// for copies.
    #[must_use]
    pub fn written_in(&self) -> Option<Duration> {
        let written: Option<Vec<_>> = self.files.iter().map(|file| file.written).collect();
        let written = written?;
        let first = written.iter().map(|(made, _)| *made).min()?;
        let last = written.iter().map(|(_, changed)| *changed).max()?;
        last.duration_since(first).ok().filter(|time| *time >= Duration::from_secs(1))
    }
}

type Opened = Result<(File, std::fs::Metadata), &'static str>;

/// Opens a file as the agent would; an inner error says why it would not.
fn open(path: &Path) -> io::Result<Opened> {
    let facts = path.metadata()?;
    if !facts.is_file() {
        return Ok(Err("not a regular file"));
    }
    let file = File::open(path)?;
    let mut head = [0; HEAD];
    let read = file.read_at(&mut head, 0)?;
    let head = head.get(..read).unwrap_or_default();
    if is_compressed(head) {
        return Ok(Err("compressed: the agent does not follow it"));
    }
    Ok(Ok((file, facts)))
}

/// Returns how much of a file of `size` bytes is taken, where `most` are of files of `all` bytes.
fn share(size: u64, most: u64, all: u64) -> u64 {
    if all <= most {
        return size;
    }
    let share = u128::from(size).saturating_mul(u128::from(most)) / u128::from(all.max(1));
    u64::try_from(share).unwrap_or(size)
}

/// Reads `share` bytes of a file of `size` bytes: all, or pieces at even distances.
fn read(file: &File, size: u64, share: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    if share >= size {
        append(file, 0, size, &mut data)?;
        return Ok(data);
    }
    let pieces = share.div_ceil(PIECE).max(1);
    let (length, distance) = (share / pieces, size / pieces);
    for piece in 0..pieces {
        let offset = piece.saturating_mul(distance);
        let from = data.len();
        append(file, offset, length, &mut data)?;
        let bytes = data.get(from..).unwrap_or_default();
        let lines = whole_lines(bytes, offset == 0);
        let (start, end) = (from.saturating_add(lines.start), from.saturating_add(lines.end));
        data.truncate(end);
        data.drain(from..start);
    }
    Ok(data)
}

/// Returns where the whole lines of a piece stand; all of it where it holds none.
fn whole_lines(bytes: &[u8], at_start: bool) -> std::ops::Range<usize> {
    let start =
        if at_start { Some(0) } else { memchr(b'\n', bytes).map(|at| at.saturating_add(1)) };
    let end = memrchr(b'\n', bytes).map(|at| at.saturating_add(1));
    match (start, end) {
        (Some(start), Some(end)) if start < end => start..end,
        _ => 0..bytes.len(),
    }
}

/// Appends up to `length` bytes from `offset` on; fewer where the file has become shorter.
fn append(file: &File, offset: u64, length: u64, data: &mut Vec<u8>) -> io::Result<()> {
    let from = data.len();
    let length = usize::try_from(length).map_err(io::Error::other)?;
    data.resize(from.saturating_add(length), 0);
    let mut filled: usize = 0;
    while let Some(room) =
        data.get_mut(from.saturating_add(filled)..).filter(|room| !room.is_empty())
    {
        match file.read_at(room, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    data.truncate(from.saturating_add(filled));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lines(numbers: std::ops::Range<u64>) -> String {
        let lines: Vec<_> = numbers.map(|number| format!("{number:09}\n")).collect();
        lines.concat()
    }

    #[test]
    fn small_files_are_taken_whole_and_others_are_told() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        fs::write(path("a.log"), "one\ntwo").unwrap();
        fs::write(path("b.log.gz"), b"\x1f\x8b\x08\0\0\0\0").unwrap();
        let files = ["a.log", "b.log.gz", ".", "missing"].map(path);
        let sample = Sample::take(&files, 1 << 20);
        assert_eq!((sample.size(), sample.bytes(), sample.lines()), (7, 7, 2));
        assert_eq!(sample.files[0].data, "one\ntwo");
        let skipped: Vec<_> = sample.skipped.iter().map(|(_, reason)| &**reason).collect();
        assert_eq!(
            skipped,
            [
                "compressed: the agent does not follow it",
                "not a regular file",
                "No such file or directory (os error 2)"
            ]
        );
    }

    #[test]
    fn large_files_are_sampled_evenly_in_whole_lines() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.log");
        fs::write(&path, lines(0..1_000_000)).unwrap();
        let sample = Sample::take(&[path], 4 << 20);
        let data = std::str::from_utf8(&sample.files[0].data).unwrap();
        assert!(sample.bytes() <= 4 << 20 && sample.bytes() > 4_000_000, "{}", sample.bytes());
        assert!(data.lines().all(|line| line.len() == 9) && data.ends_with('\n'));
        let numbers: Vec<u64> = data.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.is_sorted() && numbers[0] == 0);
        let quarters = (0..4)
            .map(|quarter| numbers.iter().filter(|&&number| number / 250_000 == quarter).count());
        assert!(quarters.min().unwrap() > 100_000);
    }

    #[test]
    fn a_piece_within_one_line_is_taken_as_it_is() {
        assert_eq!(whole_lines(b"aaaa", false), 0..4);
        assert_eq!(whole_lines(b"aa\nbb", false), 0..5);
        assert_eq!(whole_lines(b"aa\nb\nc", false), 3..5);
        assert_eq!(whole_lines(b"aa\nb\nc", true), 0..5);
    }
}
