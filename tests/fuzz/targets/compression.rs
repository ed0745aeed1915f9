//! gzip members and zstd frames: damaged ones end without a panic and within their bound, and what
//! was compressed, in whatever pieces, comes back.

#![no_main]

use std::cell::RefCell;

use kinetail::record::compression::{Algorithm, Compressor, Decompressor};
use libfuzzer_sys::fuzz_target;

/// What a record is to take.
const ROOM: usize = 25_000;

/// What one input may unfold to.
const MOST: usize = 1 << 20;

thread_local! {
    /// Made once: their memory costs more than most inputs.
    static CODECS: RefCell<(Decompressor, [Compressor; 2])> = RefCell::new((
        Decompressor::default(),
        [Compressor::new(Algorithm::Gzip, 6, ROOM), Compressor::new(Algorithm::Zstd, 1, ROOM)],
    ));
}

fuzz_target!(|data: &[u8]| {
    CODECS.with_borrow_mut(|(decompressor, compressors)| {
        for compressor in compressors {
            let algorithm = compressor.algorithm();
            for magic in [&[][..], &[0x1f, 0x8b, 0x08, 0], &[0x28, 0xb5, 0x2f, 0xfd]] {
                let claimed = [magic, data].concat();
                if let Ok(bytes) = decompressor.decompress(algorithm, &claimed, MOST) {
                    assert!(bytes.len() <= MOST, "within the bound");
                }
            }
            round_trip(compressor, decompressor, data);
        }
    });
});

/// Compresses `data` in two pieces of which the second may be taken back, and reads it again.
fn round_trip(compressor: &mut Compressor, decompressor: &mut Decompressor, data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let (kept, last) = rest.split_at(usize::from(first) * rest.len() / 256);
    for undone in [false, true] {
        compressor.begin();
        compressor.write(&[kept]);
        compressor.write(&[last]);
        if undone {
            compressor.undo();
        }
        let expected = [kept, if undone { &[] } else { last }, b"]"].concat();
        let algorithm = compressor.algorithm();
        let compressed = compressor.end(b"]").to_vec();
        let read = decompressor.decompress(algorithm, &compressed, expected.len());
        assert!(read == Ok(expected), "{algorithm:?}");
    }
}
