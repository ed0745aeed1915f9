//! What compression must keep, and what it must not unfold.

use proptest::prelude::*;

use super::*;

const BOTH: [Algorithm; 2] = [Algorithm::Gzip, Algorithm::Zstd];

/// One payload unit, as by default.
const ROOM: usize = 25_000;

fn compressed(compressor: &mut Compressor, pieces: &[&[u8]]) -> Vec<u8> {
    let algorithm = compressor.algorithm();
    compressor.begin();
    for piece in pieces {
        compressor.write(&[piece]);
    }
    ended(compressor, pieces, algorithm)
}

fn ended(compressor: &mut Compressor, pieces: &[&[u8]], algorithm: Algorithm) -> Vec<u8> {
    let empty = compressor.is_empty();
    let flushed = compressor.len();
    let data = compressor.end(b"").to_vec();
    assert!(empty || data.len() - flushed == algorithm.end_len(0), "{algorithm:?}");
    let length = pieces.iter().map(|piece| piece.len()).sum();
    let bound = Compressor::bound(algorithm, length, pieces.len());
    assert!(data.len() <= bound, "{algorithm:?}: {length} became {}, not {bound}", data.len());
    data
}

#[test]
fn one_context_serves_many_records_also_after_one_was_left() {
    for algorithm in BOTH {
        let mut compressor = Compressor::new(algorithm, 3, ROOM);
        let mut decompressor = Decompressor::default();
        for text in [&b"first"[..], b"", b"third"] {
            compressor.begin();
            compressor.write(&[b"given up"]);
            let data = compressed(&mut compressor, &[text]);
            assert_eq!(Algorithm::of(&data), Some(algorithm));
            assert_eq!(decompressor.decompress(algorithm, &data, 5).unwrap(), text);
        }
    }
}

/// What is taken back leaves no trace, and what ends the data may be more than nothing.
#[test]
fn the_last_piece_can_be_taken_back() {
    let mut rng = fastrand::Rng::with_seed(5);
    let noise: Vec<u8> = (0..300_000).map(|_| rng.u8(..)).collect();
    for algorithm in BOTH {
        let mut compressor = Compressor::new(algorithm, 3, ROOM);
        for (kept, tail) in [(&b"kept"[..], &b""[..]), (b"kept", b"]"), (b"", b""), (b"", b"]")] {
            compressor.begin();
            if !kept.is_empty() {
                compressor.write(&[b"[", kept]);
            }
            let length = compressor.len();
            compressor.write(&[&noise]);
            assert!(compressor.len() > length + noise.len() - 100);
            compressor.undo();
            let data = compressor.end(tail).to_vec();
            assert!(data.len() <= length + algorithm.end_len(tail.len()) + 6);
            let read = Decompressor::default().decompress(algorithm, &data, 100).unwrap();
            let opening: &[u8] = if kept.is_empty() { b"" } else { b"[" };
            assert_eq!(read, [opening, kept, tail].concat(), "{algorithm:?}");
        }
    }
}

/// Should a library fail, the data is longer, and sound.
#[test]
fn what_the_library_does_not_take_is_stored() {
    let long = vec![b'x'; 300_000];
    for algorithm in BOTH {
        let mut compressor = Compressor::new(algorithm, 3, ROOM);
        for before in [&b""[..], b"taken\n"] {
            compressor.begin();
            if !before.is_empty() {
                compressor.write(&[before]);
            }
            compressor.failed = true;
            compressor.write(&[&long]);
            compressor.write(&[b"more"]);
            let data = compressor.end(b"").to_vec();
            let most = long.len() + 100;
            let read = Decompressor::default().decompress(algorithm, &data, most).unwrap();
            assert!(read == [before, &long, b"more"].concat(), "{algorithm:?}");
        }
        let next = compressed(&mut compressor, &[&long]);
        assert!(next.len() < 1000, "the next record is compressed again");
    }
}

#[test]
fn windows_are_as_long_as_the_text_of_a_record_and_bounded() {
    assert_eq!([0, ROOM, 100_000, 1 << 20, usize::MAX].map(window_log), [17, 18, 20, 20, 20]);
}

/// What lies before the window is not missed.
#[test]
fn text_longer_than_the_window_comes_back() {
    let lines = (0..100_000).map(|line| format!("{line} GET /{}\n", line % 1_000));
    let text = lines.collect::<Vec<_>>().concat();
    let pieces: Vec<_> = text.as_bytes().chunks(300_000).collect();
    for algorithm in BOTH {
        let data = compressed(&mut Compressor::new(algorithm, 1, 1), &pieces);
        let read = Decompressor::default().decompress(algorithm, &data, text.len()).unwrap();
        assert!(read == text.as_bytes(), "{algorithm:?}");
    }
}

#[test]
fn frames_one_after_another_are_one_text() {
    for algorithm in BOTH {
        let mut compressor = Compressor::new(algorithm, 1, ROOM);
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
        let bomb = compressed(&mut Compressor::new(algorithm, 1, ROOM), &[&zeros]);
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
        let mut compressor = Compressor::new(algorithm, 3, ROOM);
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
            let mut compressor = Compressor::new(algorithm, level, ROOM);
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
