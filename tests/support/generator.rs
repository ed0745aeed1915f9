//! The seeded generator of log directories: the same seed gives the same bytes.
//!
//! Files are access logs, JSON lines, syslog, stack traces and a mixture; all of them hold what
//! real logs hold now and then: lines of one byte and of 100 KB, empty lines, CRLF, NUL, invalid
//! UTF-8; every third file ends without a newline. [`realistic`] makes plain logs, as compressible as
//! real ones.
//!
//! Invariant: no two files begin alike (the first line names the file), so that a
//! [`Reassembler`](super::reassembler::Reassembler) can tell them apart.

pub mod realistic;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How much is written at a time.
const BLOCK: usize = 1024 * 1024;
/// The longest line.
const LINE_MAX: usize = 100 * 1000;
/// How much random text is drawn once; lines take slices of it.
const POOL: usize = 256 * 1024;
/// The longest such slice.
const SLICE_MAX: usize = 2_000;

/// A file that was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Newlines in it, and one for an unfinished last line.
    pub lines: u64,
}

/// What the ordinary lines of a file look like.
#[derive(Clone, Copy, Debug)]
enum Style {
    Access,
    Json,
    Syslog,
    StackTrace,
    Mixed,
}

/// Writes `files` files of `total_bytes` bytes together into `dir`, which it makes.
///
/// # Errors
/// The directory or a file cannot be written.
pub fn generate(
    dir: &Path,
    seed: u64,
    files: usize,
    total_bytes: u64,
) -> io::Result<Vec<Generated>> {
    std::fs::create_dir_all(dir)?;
    let mut draws = fastrand::Rng::with_seed(seed);
    let pool = Pool::new(&mut draws);
    let mut generated = Vec::with_capacity(files);
    for (index, bytes) in shares(&mut draws, files, total_bytes).into_iter().enumerate() {
        let path = dir.join(format!("app-{index:04}.log"));
        let mut lines = Lines { draws: draws.fork(), pool: &pool, index, seed, count: 0 };
        let count = lines.write(&mut File::create(&path)?, bytes)?;
        generated.push(Generated { path, bytes, lines: count });
    }
    Ok(generated)
}

/// Divides bytes among files, of which none has more than three times what another has.
fn shares(draws: &mut fastrand::Rng, files: usize, total_bytes: u64) -> Vec<u64> {
    let weights = (0..files).map(|_| draws.u64(50..150)).collect::<Vec<_>>();
    let (mut bytes_left, mut weight_left) = (total_bytes, weights.iter().sum::<u64>());
    let mut shares = Vec::with_capacity(files);
    for weight in weights {
        // The last file gets what is left: its weight is all that is left of the weights.
        let share = u128::from(bytes_left) * u128::from(weight) / u128::from(weight_left);
        let bytes = u64::try_from(share).unwrap_or(bytes_left);
        (bytes_left, weight_left) = (bytes_left - bytes, weight_left - weight);
        shares.push(bytes);
    }
    shares
}

/// Random words to cut texts from.
struct Pool(Vec<u8>);

impl Pool {
    fn new(draws: &mut fastrand::Rng) -> Self {
        let letters = b"etaoinshrdlucmfwypvbgkjqxz0123456789 ";
        let draw =
            |_| if draws.u8(0..6) == 0 { b' ' } else { letters[draws.usize(..letters.len())] };
        Self((0..POOL).map(draw).collect())
    }

    fn slice(&self, draws: &mut fastrand::Rng, length: usize) -> &[u8] {
        let start = draws.usize(..=self.0.len() - length);
        &self.0[start..start + length]
    }
}

/// The lines of one file.
struct Lines<'a> {
    draws: fastrand::Rng,
    pool: &'a Pool,
    index: usize,
    seed: u64,
    count: u64,
}

impl Lines<'_> {
    /// Writes exactly `bytes` bytes and returns how many lines they are.
    fn write(&mut self, file: &mut File, bytes: u64) -> io::Result<u64> {
        let mut left = usize::try_from(bytes).map_err(io::Error::other)?;
        let mut block = Vec::with_capacity(BLOCK + 2 * LINE_MAX);
        writeln!(block, "# log {} of seed {}", self.index, self.seed)?;
        self.count = 1;
        while block.len() < left {
            if block.len() >= BLOCK {
                file.write_all(&block)?;
                left -= block.len();
                block.clear();
            }
            self.line(&mut block)?;
        }
        let dropped = memchr::memchr_iter(b'\n', &block[left..]).count() as u64;
        block.truncate(left);
        let end = if self.index % 3 == 2 { b'x' } else { b'\n' };
        let mut lines = self.count - dropped;
        if let Some(last) = block.last_mut() {
            // A last line that was cut, or loses its newline, counts as one all the same.
            lines += u64::from(*last != b'\n');
            *last = end;
        }
        file.write_all(&block)?;
        Ok(lines)
    }

    /// Adds one line, its newline included, or a group of them.
    fn line(&mut self, block: &mut Vec<u8>) -> io::Result<()> {
        self.count += 1;
        match self.draws.u16(0..1000) {
            0..10 => {}
            10..20 => block.push(b'.'),
            20..30 => block.extend_from_slice(b"\x00\x00binary\x00"),
            30..40 => block.extend_from_slice(b"latin-1 \xe9\xe8 cut \xe2\x82 \xff\xfe"),
            40..45 => self.text(block, 1, 4_000),
            45 => self.text(block, 4_000, LINE_MAX),
            46..60 => {
                self.text(block, 1, 200);
                block.push(b'\r');
            }
            _ => self.ordinary(block)?,
        }
        block.push(b'\n');
        Ok(())
    }

    /// Adds a line in the file's style.
    fn ordinary(&mut self, block: &mut Vec<u8>) -> io::Result<()> {
        let styles = [Style::Access, Style::Json, Style::Syslog, Style::StackTrace, Style::Mixed];
        let (number, random) = (self.count, self.draws.u32(..));
        let second = number / 50 % 60;
        let style = match styles[self.index % styles.len()] {
            Style::Mixed => styles[(random % 4) as usize],
            style => style,
        };
        match style {
            Style::Access | Style::Mixed => {
                let status = [200, 200, 200, 304, 404, 500][(random % 6) as usize];
                write!(
                    block,
                    "10.0.{}.{} - - [23/Nov/2026:12:00:{second:02} +0000] \"GET /item/{number} \
                     HTTP/1.1\" {status} {} \"-\" \"",
                    random >> 8 & 255,
                    random & 255,
                    random >> 16,
                )?;
                self.text(block, 20, 120);
                block.push(b'"');
            }
            Style::Json => {
                write!(
                    block,
                    "{{\"time\":\"2026-11-23T12:00:{second:02}Z\",\"level\":\"info\",\
                     \"request\":{number},\"user\":{{\"id\":\"u{}\"}},\"message\":\"",
                    random % 1000,
                )?;
                self.text(block, 20, 400);
                block.extend_from_slice(b"\"}");
            }
            Style::Syslog => {
                let process = random % 30_000;
                write!(block, "Nov 23 12:00:{second:02} host app[{process}]: <{number}> ")?;
                self.text(block, 10, 160);
            }
            Style::StackTrace => {
                write!(block, "2026-11-23 12:00:{second:02} ERROR java.lang.Exception: {number} ")?;
                self.text(block, 10, 100);
                for depth in 0..random % 20 {
                    self.count += 1;
                    write!(block, "\n\tat com.example.Service.call{depth}(Service.java:{number})")?;
                }
            }
        }
        Ok(())
    }

    /// Adds a random text of at least `from` and less than `to` bytes.
    fn text(&mut self, block: &mut Vec<u8>, from: usize, to: usize) {
        let mut length = self.draws.usize(from..to);
        while length > 0 {
            // Long texts are put together from short slices: one long slice could come twice.
            let piece = length.min(SLICE_MAX);
            block.extend_from_slice(self.pool.slice(&mut self.draws, piece));
            length -= piece;
        }
    }
}
