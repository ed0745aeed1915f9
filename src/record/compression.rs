//! Compression: one gzip member or one zstd frame of a record's data, and back.
//!
//! Invariant: what was written between [`Compressor::begin`] and [`Compressor::end`], and not undone,
//! comes back from [`Decompressor::decompress`]; and that never gives more bytes than it is allowed
//! to, however much the data claims or would unfold to.
//!
//! ```text
//!  begin ─▶ write ─ length known ─▶ write ─ length known ─▶ … ──────────▶ end
//!                                                  └─ too long ─▶ undo ──┘
//! ```
//!
//! [`Compressor::write`] flushes, so that after every piece it is known how long the compressed data
//! is, and the last piece can be taken back; a flush costs some tens of bytes, and nothing is
//! compressed a second time to learn it. What ends the data (an empty block and the checksum of what is
//! in it) is written here and not by the libraries, which know of no undoing.

use std::fmt;
use std::hash::Hasher as _;
use std::io::{self, Read};

use flate2::{Compress, FlushCompress};
use twox_hash::XxHash64;
use zstd::stream::raw::{Encoder, InBuffer, Operation as _, OutBuffer};
use zstd::zstd_safe::{CParameter, DCtx, DParameter};

/// How data is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Algorithm {
    /// Returns its name, as it stands in configurations and tags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Returns the algorithm of a name.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        [Self::Gzip, Self::Zstd].into_iter().find(|algorithm| algorithm.name().as_bytes() == name)
    }

    /// Returns the algorithm that `data` begins as compressed by, if any.
    #[must_use]
    pub fn of(data: &[u8]) -> Option<Self> {
        if data.starts_with(&[0x1f, 0x8b, 0x08]) {
            Some(Self::Gzip)
        } else if data.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    /// Returns the most bytes of a block that is stored as it is, by RFC 1951 and RFC 8878.
    fn stored_len(self) -> usize {
        match self {
            Self::Gzip => 0xffff,
            Self::Zstd => 128 << 10,
        }
    }

    /// Returns the bytes that stand before the first piece is written.
    fn begin_len(self) -> usize {
        match self {
            Self::Gzip => 10,
            Self::Zstd => 0,
        }
    }

    /// Returns the bytes that [`Compressor::end`] adds with a tail of `tail` bytes, some or none.
    #[must_use]
    pub fn end_len(self, tail: usize) -> usize {
        match self {
            // A last block, CRC and length.
            Self::Gzip if tail == 0 => 2 + 8,
            Self::Gzip => tail.saturating_add(5 + 8),
            // A last block and the checksum.
            Self::Zstd => tail.saturating_add(3 + 4),
        }
    }
}

/// The longest window that zstd looks back in: a bound on the memory of either side.
const WINDOW_LOG: u32 = 20;

/// The shortest: a block.
const WINDOW_LOG_LEAST: u32 = 17;

/// A window is at least so many times as long as the compressed data is to be, which is how well lines
/// compress: longer would find no more, and takes a sixth longer.
const WINDOW_TIMES: usize = 8;

/// The level at which a hash of each place is looked up in one table, and nothing else is searched.
const FASTEST: u32 = 1;

/// By so many powers of two that table has fewer entries, of 4 bytes, than the window has bytes: of
/// lines that fill 25 KB, 16 KB, which stay in the cache nearest to the core. With the library's 64 KB
/// it takes a twentieth longer and finds a hundredth less: short matches that cost more than they save.
const HASH_SHORTER: u32 = 6;

/// The largest window a reader has memory for: 32 MiB, four times the most that `zstd -19` uses.
const WINDOW_LOG_MAX: u32 = 25;

/// The room that is made for output at a time: with that much, zstd writes a block where it belongs
/// instead of copying it there (`ZSTD_CStreamOutSize`).
const STEP: usize = 132 << 10;

/// Compresses one record after another with one context.
pub struct Compressor {
    algorithm: Algorithm,
    context: Context,
    window_log: u32,
    /// The data so far.
    data: Vec<u8>,
    digest: Digest,
    /// The length and the digest before the last piece.
    before: (usize, Digest),
    /// Whether the library failed in this data: what follows is stored.
    failed: bool,
}

enum Context {
    Gzip(Box<Compress>),
    Stored,
    Zstd(Encoder<'static>),
}

/// Returns the window for data that is to take `room` bytes compressed.
fn window_log(room: usize) -> u32 {
    let text = room.saturating_mul(WINDOW_TIMES).checked_next_power_of_two();
    text.map_or(WINDOW_LOG, usize::ilog2).clamp(WINDOW_LOG_LEAST, WINDOW_LOG)
}

/// What is checked when the data is read.
#[derive(Clone)]
enum Digest {
    /// CRC-32, and the length: of one record, so far below 4 GiB.
    Gzip(crc32fast::Hasher, u32),
    Zstd(XxHash64),
}

impl fmt::Debug for Compressor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Compressor({})", self.algorithm.name())
    }
}

impl Compressor {
    /// Makes a compressor of a level: 1 to 9 for gzip, 1 to 19 for zstd, for data that is to take `room`
    /// bytes, or any other number, compressed. Should the library refuse, everything is stored as it
    /// is.
    #[must_use]
    pub fn new(algorithm: Algorithm, level: u32, room: usize) -> Self {
        let window_log = window_log(room);
        let context = match algorithm {
            Algorithm::Gzip => {
                let level = flate2::Compression::new(level.min(9));
                Context::Gzip(Box::new(Compress::new(level, false)))
            }
            Algorithm::Zstd => encoder(level, window_log).map_or(Context::Stored, Context::Zstd),
        };
        let digest = Digest::new(algorithm);
        let before = (0, digest.clone());
        let data = Vec::new();
        let mut made = Self { algorithm, context, window_log, data, digest, before, failed: false };
        made.begin();
        made
    }

    /// Returns how it compresses.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the most bytes that `length` bytes, written in `pieces` pieces, can become.
    ///
    /// What cannot be compressed is stored, in blocks with 5 bytes of header and up to 64 KiB (gzip),
    /// or with 3 bytes and up to 128 KiB (zstd). A piece begins a block of its own; what begins and
    /// ends the data takes 32 bytes at most.
    #[must_use]
    pub fn bound(algorithm: Algorithm, length: usize, pieces: usize) -> usize {
        let (block, header) = match algorithm {
            Algorithm::Gzip => (0xffff, 5),
            // A little less than a block goes into one where the library splits it.
            Algorithm::Zstd => (64 << 10, 3),
        };
        let blocks = (length / block).saturating_add(pieces.saturating_mul(2));
        length.saturating_add(blocks.saturating_mul(header)).saturating_add(32)
    }

    /// Begins anew; what was not ended is forgotten.
    pub fn begin(&mut self) {
        self.data.clear();
        self.digest = Digest::new(self.algorithm);
        self.failed = match &mut self.context {
            Context::Gzip(compress) => {
                compress.reset();
                false
            }
            Context::Stored => true,
            Context::Zstd(encoder) => encoder.reinit().is_err(),
        };
        if self.algorithm == Algorithm::Gzip {
            // Deflate, no flags, no time, no system.
            self.data.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff]);
        }
        self.before = (self.data.len(), self.digest.clone());
    }

    /// Compresses `parts`, one after another as one piece. It cannot fail: should the library, what
    /// it does not take is stored as it is.
    pub fn write(&mut self, parts: &[&[u8]]) {
        let from = self.data.len();
        self.before = (from, self.digest.clone());
        if !self.failed {
            self.failed = self.compress(parts).is_err();
        }
        // The blocks of gzip know nothing of each other but the bytes before; those of zstd do.
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let blocks = (length / self.algorithm.stored_len()).saturating_add(parts.len());
        let stored = length.saturating_add(blocks.saturating_mul(5));
        let swollen =
            self.algorithm == Algorithm::Gzip && self.data.len().saturating_sub(from) > stored;
        if self.failed || swollen {
            self.data.truncate(from);
            for part in parts {
                self.store(part, false);
            }
        }
        for part in parts {
            self.digest.update(part);
        }
    }

    /// Returns how long the data is, without its end.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Returns true where nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.len() <= self.algorithm.begin_len()
    }

    /// Takes the last piece back. Nothing can be written after that: the library has gone on.
    pub fn undo(&mut self) {
        let (length, digest) = &self.before;
        self.data.truncate(*length);
        self.digest = digest.clone();
        self.failed = true;
    }

    /// Ends the data, after `tail` as it is, and returns it.
    pub fn end(&mut self, tail: &[u8]) -> &[u8] {
        self.digest.update(tail);
        self.store(tail, true);
        self.digest.end(&mut self.data);
        &self.data
    }

    /// Lets the library compress a piece.
    fn compress(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let data = &mut self.data;
        match &mut self.context {
            Context::Gzip(compress) => {
                parts
                    .iter()
                    .try_for_each(|part| deflate(compress, part, FlushCompress::None, data))?;
                deflate(compress, &[], FlushCompress::Sync, data)
            }
            Context::Stored => Err(io::ErrorKind::Unsupported.into()),
            Context::Zstd(encoder) => {
                let begins = data.is_empty();
                for part in parts {
                    let mut input = InBuffer::around(part);
                    while input.pos() < part.len() {
                        step(data, |output| encoder.run(&mut input, output))?;
                    }
                }
                while step(data, |output| encoder.flush(output))? > 0 {}
                // The descriptor after the magic: the checksum, which is written here, follows.
                match data.get_mut(4) {
                    Some(descriptor) if begins => *descriptor |= CHECKSUM,
                    _ => {}
                }
                Ok(())
            }
        }
    }

    /// Appends blocks of `bytes` as they are.
    fn store(&mut self, bytes: &[u8], last: bool) {
        let data = &mut self.data;
        if self.algorithm == Algorithm::Zstd && data.is_empty() {
            let window = u8::try_from(self.window_log.saturating_sub(10) << 3).unwrap_or(0);
            data.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, CHECKSUM, window]);
        }
        if bytes.is_empty() && last {
            match self.algorithm {
                // A block of fixed codes that is only its end.
                Algorithm::Gzip => data.extend_from_slice(&[0x03, 0x00]),
                Algorithm::Zstd => data.extend_from_slice(&[1, 0, 0]),
            }
        }
        let mut blocks = bytes.chunks(self.algorithm.stored_len()).peekable();
        while let Some(block) = blocks.next() {
            let last = u32::from(last && blocks.peek().is_none());
            let length = u32::try_from(block.len()).unwrap_or(0);
            match self.algorithm {
                Algorithm::Gzip => {
                    let [first, second, ..] = length.to_le_bytes();
                    let last = u8::from(last > 0);
                    data.extend_from_slice(&[last, first, second, !first, !second]);
                }
                Algorithm::Zstd => {
                    let header = (length << 3 | last).to_le_bytes();
                    data.extend(header.into_iter().take(3));
                }
            }
            data.extend_from_slice(block);
        }
    }
}

/// `Content_Checksum_flag` of a frame's descriptor.
const CHECKSUM: u8 = 1 << 2;

impl Digest {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Gzip => Self::Gzip(crc32fast::Hasher::new(), 0),
            Algorithm::Zstd => Self::Zstd(XxHash64::with_seed(0)),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Gzip(hasher, length) => {
                hasher.update(bytes);
                *length = length.wrapping_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            }
            Self::Zstd(hasher) => hasher.write(bytes),
        }
    }

    /// Appends what stands at the end: CRC and length, or the low half of the hash.
    fn end(&self, into: &mut Vec<u8>) {
        match self {
            Self::Gzip(hasher, length) => {
                into.extend_from_slice(&hasher.clone().finalize().to_le_bytes());
                into.extend_from_slice(&length.to_le_bytes());
            }
            Self::Zstd(hasher) => into.extend(hasher.finish().to_le_bytes().into_iter().take(4)),
        }
    }
}

fn encoder(level: u32, window_log: u32) -> io::Result<Encoder<'static>> {
    let mut encoder = Encoder::new(i32::try_from(level).unwrap_or(i32::MAX))?;
    encoder.set_parameter(CParameter::WindowLog(window_log))?;
    if level == FASTEST {
        encoder.set_parameter(CParameter::HashLog(window_log.saturating_sub(HASH_SHORTER)))?;
    }
    Ok(encoder)
}

/// Lets zstd append to `into`; returns what it returns.
fn step(
    into: &mut Vec<u8>,
    act: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>,
) -> io::Result<usize> {
    into.reserve(STEP);
    let at = into.len();
    act(&mut OutBuffer::around_pos(into, at))
}

fn deflate(
    compress: &mut Compress,
    bytes: &[u8],
    flush: FlushCompress,
    into: &mut Vec<u8>,
) -> io::Result<()> {
    let start = compress.total_in();
    loop {
        into.reserve(STEP);
        let read = usize::try_from(compress.total_in().saturating_sub(start)).unwrap_or(usize::MAX);
        let rest = bytes.get(read..).unwrap_or_default();
        compress.compress_vec(rest, into, flush)?;
        // All is out where there is room left.
        let all = compress.total_in().saturating_sub(start) == bytes.len() as u64;
        if all && into.len() < into.capacity() {
            return Ok(());
        }
    }
}

/// Why data could not be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// It is cut off or not what it begins as.
    #[error("the compressed data is damaged")]
    Corrupt,
    /// It is longer, decompressed, than is allowed.
    #[error("the compressed data unfolds to more than is allowed")]
    TooLong,
}

/// Decompresses one record after another with one context.
#[derive(Default)]
pub struct Decompressor {
    zstd: Option<DCtx<'static>>,
}

impl fmt::Debug for Decompressor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Decompressor")
    }
}

impl Decompressor {
    /// Returns what `data` was, of at most `most` bytes: several members or frames one after another.
    ///
    /// # Errors
    /// [`Damaged`]; what came before the damage is not given.
    pub fn decompress(
        &mut self,
        algorithm: Algorithm,
        data: &[u8],
        most: usize,
    ) -> Result<Vec<u8>, Damaged> {
        match algorithm {
            Algorithm::Gzip => read(flate2::bufread::MultiGzDecoder::new(data), most),
            Algorithm::Zstd => {
                let context = self.zstd.get_or_insert_with(|| {
                    let mut context = DCtx::create();
                    // Refused only where the number is none that zstd knows.
                    let _ = context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX));
                    context
                });
                read(zstd::stream::read::Decoder::with_context(data, context), most)
            }
        }
    }
}

fn read(reader: impl Read, most: usize) -> Result<Vec<u8>, Damaged> {
    let mut bytes = Vec::new();
    // One more than is allowed tells that there is more.
    let mut reader = reader.take((most as u64).saturating_add(1));
    reader.read_to_end(&mut bytes).map_err(|_| Damaged::Corrupt)?;
    if bytes.len() > most {
        return Err(Damaged::TooLong);
    }
    bytes.shrink_to_fit();
    Ok(bytes)
}

#[cfg(test)]
mod tests;
