//! Compression: one gzip member or one zstd frame of a record's data, and back.
//!
//! Invariant: what was written between [`Compressor::begin`] and [`Compressor::finish`] comes back
//! from [`Decompressor::decompress`]; and that never gives more bytes than it is allowed to, however
//! much the data claims or would unfold to.
//!
//! ```text
//!  begin ─▶ write ─ size known ─▶ write ─ size known ─▶ … ─▶ finish
//! ```
//!
//! [`Compressor::write`] flushes, so that after every piece it is known how long the compressed
//! data is; a flush costs some tens of bytes, and nothing is compressed a second time to learn it.

use std::fmt;
use std::io::{self, Read};

use flate2::{Compress, FlushCompress, Status};
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

    /// Returns the bytes that [`Compressor::finish`] adds at most to what was flushed, where
    /// anything was.
    #[must_use]
    pub fn end_len(self) -> usize {
        match self {
            // An empty last block, CRC and length.
            Self::Gzip => 2 + 8 + 5,
            // An empty last block and the checksum.
            Self::Zstd => 3 + 4,
        }
    }
}

/// The window that zstd looks back in: as long as what is worth putting in one record, and a bound
/// on the memory of either side.
const WINDOW_LOG: u32 = 20;

/// The largest window a reader has memory for: 32 MiB, four times the most that `zstd -19` uses.
const WINDOW_LOG_MAX: u32 = 25;

/// The room that is made for output at a time.
const STEP: usize = 16 << 10;

/// Compresses one record after another with one context.
pub struct Compressor {
    algorithm: Algorithm,
    level: u32,
    context: Context,
}

enum Context {
    Gzip(Box<Compress>),
    Zstd(Encoder<'static>),
}

impl fmt::Debug for Compressor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Compressor({})", self.algorithm.name())
    }
}

impl Compressor {
    /// Makes a compressor of a level: 1 to 9 for gzip, 1 to 19 for zstd.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn new(algorithm: Algorithm, level: u32) -> io::Result<Self> {
        let context = match algorithm {
            Algorithm::Gzip => {
                let level = flate2::Compression::new(level.min(9));
                Context::Gzip(Box::new(Compress::new_gzip(level, 15)))
            }
            Algorithm::Zstd => {
                let mut encoder = Encoder::new(i32::try_from(level).unwrap_or(i32::MAX))?;
                encoder.set_parameter(CParameter::ChecksumFlag(true))?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
                Context::Zstd(encoder)
            }
        };
        Ok(Self { algorithm, level, context })
    }

    /// Returns how it compresses.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the most bytes that `length` bytes, written in `pieces` pieces, can become.
    ///
    /// gzip stores what it cannot compress in blocks with 5 bytes of header, of 16 KiB or more
    /// (zlib's buffer), and adds 18 bytes and 6 a flush; level 1 knows fixed codes only, of up to 9
    /// bits a byte. A zstd block has 3 bytes of header and up to 128 KiB; the frame up to 14 bytes,
    /// 4 of checksum, and a flush a block.
    #[must_use]
    pub fn bound(&self, length: usize, pieces: usize) -> usize {
        let (block, header, flush, frame) = match self.algorithm {
            Algorithm::Gzip if self.level <= 1 => (8, 1, 16, 64),
            Algorithm::Gzip => (8 << 10, 5, 16, 64),
            Algorithm::Zstd => (64 << 10, 3, 8, 32),
        };
        let blocks = (length / block).saturating_add(1).saturating_mul(header);
        let flushes = pieces.saturating_mul(flush);
        length.saturating_add(blocks).saturating_add(flushes).saturating_add(frame)
    }

    /// Begins anew; what was not finished is forgotten.
    ///
    /// # Errors
    /// Where the library refuses.
    pub fn begin(&mut self) -> io::Result<()> {
        match &mut self.context {
            Context::Gzip(compress) => {
                compress.reset();
                Ok(())
            }
            Context::Zstd(encoder) => encoder.reinit(),
        }
    }

    /// Appends `bytes`, compressed, to `into`: all of them, so that `into.len()` tells what they
    /// cost.
    ///
    /// # Errors
    /// Where the library has no memory.
    pub fn write(&mut self, bytes: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.context {
            Context::Gzip(compress) => deflate(compress, bytes, FlushCompress::Sync, into),
            Context::Zstd(encoder) => {
                let mut input = InBuffer::around(bytes);
                while input.pos() < bytes.len() {
                    step(into, |output| encoder.run(&mut input, output))?;
                }
                while step(into, |output| encoder.flush(output))? > 0 {}
                Ok(())
            }
        }
    }

    /// Ends the compressed data.
    ///
    /// # Errors
    /// Where the library has no memory.
    pub fn finish(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.context {
            Context::Gzip(compress) => deflate(compress, &[], FlushCompress::Finish, into),
            Context::Zstd(encoder) => {
                while step(into, |output| encoder.finish(output, true))? > 0 {}
                Ok(())
            }
        }
    }
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
        let status = compress.compress_vec(rest, into, flush)?;
        let all = compress.total_in().saturating_sub(start) == bytes.len() as u64;
        // A flush is complete where it left room.
        let done = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            _ => all && into.len() < into.capacity(),
        };
        if done {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Algorithm; 2] = [Algorithm::Gzip, Algorithm::Zstd];

    fn compressed(compressor: &mut Compressor, pieces: &[&[u8]]) -> Vec<u8> {
        let (algorithm, mut into) = (compressor.algorithm(), Vec::new());
        compressor.begin().unwrap();
        for piece in pieces {
            compressor.write(piece, &mut into).unwrap();
        }
        let flushed = into.len();
        compressor.finish(&mut into).unwrap();
        let length = pieces.iter().map(|piece| piece.len()).sum();
        assert!(length == 0 || into.len() - flushed <= algorithm.end_len(), "{algorithm:?}");
        assert!(into.len() <= compressor.bound(length, pieces.len()), "{algorithm:?} {length}");
        into
    }

    #[test]
    fn one_context_serves_many_records_also_after_one_was_left() {
        for algorithm in BOTH {
            let mut compressor = Compressor::new(algorithm, 3).unwrap();
            let mut decompressor = Decompressor::default();
            for text in [&b"first"[..], b"", b"third"] {
                compressor.begin().unwrap();
                compressor.write(b"given up", &mut Vec::new()).unwrap();
                let data = compressed(&mut compressor, &[text]);
                assert_eq!(Algorithm::of(&data), Some(algorithm));
                assert_eq!(decompressor.decompress(algorithm, &data, 5).unwrap(), text);
            }
        }
    }

    #[test]
    fn frames_one_after_another_are_one_text() {
        for algorithm in BOTH {
            let mut compressor = Compressor::new(algorithm, 1).unwrap();
            let twice =
                [compressed(&mut compressor, &[b"a\n"]), compressed(&mut compressor, &[b"b\n"])];
            let read = Decompressor::default().decompress(algorithm, &twice.concat(), 4);
            assert_eq!(read.unwrap(), b"a\nb\n");
        }
    }

    #[test]
    fn a_bomb_ends_at_the_bound() {
        let zeros = vec![0; 32 << 20];
        for algorithm in BOTH {
            let bomb = compressed(&mut Compressor::new(algorithm, 1).unwrap(), &[&zeros]);
            assert!(bomb.len() < zeros.len() / 100);
            let mut decompressor = Decompressor::default();
            let read = decompressor.decompress(algorithm, &bomb, 1 << 20);
            assert_eq!(read, Err(Damaged::TooLong), "{algorithm:?}");
            assert!(decompressor.decompress(algorithm, &bomb, zeros.len()).unwrap() == zeros);
        }
    }

    #[test]
    fn damage_is_told() {
        for algorithm in BOTH {
            let mut compressor = Compressor::new(algorithm, 3).unwrap();
            let sound = compressed(&mut compressor, &[b"GET /index.html\n"]);
            let mut decompressor = Decompressor::default();
            for length in 0..sound.len() {
                let read = decompressor.decompress(algorithm, &sound[..length], 100);
                assert!(length == 0 || read == Err(Damaged::Corrupt), "{algorithm:?} {length}");
            }
            let mut flipped = sound.clone();
            flipped[sound.len() / 2] ^= 1;
            assert!(decompressor.decompress(algorithm, &flipped, 100).is_err(), "{algorithm:?}");
            assert!(decompressor.decompress(algorithm, &sound, 100).is_ok(), "usable after damage");
        }
    }

    #[test]
    fn names_are_read_as_written() {
        assert!(BOTH.iter().all(|&a| Algorithm::named(a.name().as_bytes()) == Some(a)));
        assert_eq!((Algorithm::named(b"lz4"), Algorithm::of(b"GET")), (None, None));
    }

    proptest! {
        /// forall bytes, however they are cut in pieces: they come back, within the bound.
        #[test]
        fn bytes_come_back(
            seed in any::<u64>(),
            length in 0_usize..100_000,
            random in any::<bool>(),
            pieces in 1_usize..6,
            level in 1_u32..10,
        ) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let most = if random { 255 } else { 3 };
            let bytes: Vec<u8> = (0..length).map(|_| rng.u8(0..=most)).collect();
            let cut: Vec<_> = bytes.chunks((length / pieces).max(1)).collect();
            for algorithm in BOTH {
                let mut compressor = Compressor::new(algorithm, level).unwrap();
                let data = compressed(&mut compressor, &cut);
                let read = Decompressor::default().decompress(algorithm, &data, length);
                prop_assert_eq!(read.as_ref(), Ok(&bytes));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(tail in prop::collection::vec(any::<u8>(), 0..80)) {
            for (algorithm, magic) in [(Algorithm::Gzip, &[0x1f, 0x8b, 8][..]), (Algorithm::Zstd, &[0x28, 0xb5, 0x2f, 0xfd])] {
                let data = [magic, &tail].concat();
                let _ = Decompressor::default().decompress(algorithm, &data, 1000);
            }
        }
    }
}
