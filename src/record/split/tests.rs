//! What is found by content, what stays whole, and that all bytes come back.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::position::{FileKey, Identity};
use crate::record::compression::Compressor;
use crate::record::origin::FileTags;

fn texts(pieces: &[Piece]) -> Vec<String> {
    pieces.iter().map(|piece| String::from_utf8_lossy(&piece.data).into_owned()).collect()
}

fn split(by: &By, data: &[u8]) -> (Vec<String>, Found) {
    let mut splitter = Splitter::new(by.clone());
    let pieces = splitter.split(&Bytes::copy_from_slice(data));
    (texts(&pieces), splitter.found())
}

/// One payload unit, as by default.
const ROOM: usize = 25_000;

fn compressed(algorithm: Algorithm, data: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(algorithm, 3, ROOM);
    compressor.write(&[data]);
    compressor.end(b"").to_vec()
}

fn aggregate(records: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let mut data = Vec::new();
    kpl::begin("k", &mut data);
    for (record, tags) in records {
        kpl::push(record, tags, &mut data);
    }
    kpl::end(&mut data);
    data
}

fn by(delimiter: &str) -> By {
    By::Delimiter(delimiter.as_bytes().to_vec())
}

#[test]
fn the_format_is_found_by_content() {
    let cases: [(&[u8], &[&str]); 6] = [
        (b"a\n\nb\r\nc", &["a\n", "\n", "b\r\n", "c"]),
        (b"", &[]),
        (b"[{\"a\":1}, \"x\"]", &["{\"a\":1}", "\"x\""]),
        (b"[2026-01-01] GET /", &["[2026-01-01] GET /"]),
        (b"[1]\n[2]\n", &["[1]\n", "[2]\n"]),
        (b"[1,2]\n", &["[1,2]\n"]),
    ];
    for (data, pieces) in cases {
        assert_eq!(
            split(&By::Content, data),
            (pieces.iter().map(|&p| p.to_owned()).collect(), Found::default())
        );
        for algorithm in [Algorithm::Gzip, Algorithm::Zstd] {
            let (unfolded, found) = split(&By::Content, &compressed(algorithm, data));
            assert_eq!(
                (unfolded, found.compressed, found.unsplit),
                (texts(&Splitter::new(By::Content).split(&Bytes::from_static(data))), 1, 0)
            );
        }
    }
}

#[test]
fn the_seeds_delimiters_split_as_configured() {
    assert_eq!(split(&by("#-#"), b"a#-#b\n#-#c").0, ["a", "b\n", "c"]);
    assert_eq!(split(&by("#"), b"a##b").0, ["a", "", "b"]);
    assert_eq!(split(&by("\n"), b"a\n[1]").0, ["a\n", "[1]"]);
    let data = compressed(Algorithm::Gzip, b"a#b");
    assert_eq!(split(&by("#"), &data).0, ["a", "b"]);
}

#[test]
fn a_run_says_where_it_begins_also_when_it_is_compressed() {
    let file = FileTags::new("h", Path::new("/p"), &Identity::default(), FileKey(3));
    let (mut plain, mut packed) = (Vec::new(), Vec::new());
    file.push(true, 0, &mut plain);
    file.push(false, 100, &mut packed);
    origin::push_encoding(Algorithm::Zstd, &mut packed);
    let frame = compressed(Algorithm::Zstd, b"three\nfour\n");
    let data = aggregate(&[(b"one\n", plain), (b"two\n", Vec::new()), (&frame, packed)]);
    let mut splitter = Splitter::new(By::Kpl);
    let pieces = splitter.split(&Bytes::from(data));
    assert_eq!(texts(&pieces), ["one\n", "two\n", "three\n", "four\n"]);
    let offsets: Vec<_> = pieces.iter().map(|p| p.origin.as_ref().map(|o| o.offset)).collect();
    assert_eq!(offsets, [Some(0), None, Some(100), None]);
    assert_eq!(splitter.found(), Found { kpl: 1, ..Found::default() });
}

#[test]
fn what_is_damaged_is_handed_on_whole_and_counted() {
    let mut tags = Vec::new();
    origin::push_encoding(Algorithm::Gzip, &mut tags);
    let mut digest = aggregate(&[(b"one\n", Vec::new())]);
    digest.pop();
    let mut cut = compressed(Algorithm::Zstd, b"one\ntwo\n");
    cut.pop();
    let bomb = compressed(Algorithm::Zstd, &vec![b'\n'; UNFOLDED_BYTES + 1]);
    let half = compressed(Algorithm::Gzip, &vec![b'x'; UNFOLDED_BYTES / 2 + 1]);
    let halves = aggregate(&[(&half, tags.clone()), (&half, tags.clone())]);
    for data in [digest, cut, bomb, halves, aggregate(&[(b"no gzip", tags)])] {
        let mut splitter = Splitter::new(By::Content);
        let data = Bytes::from(data);
        assert!(splitter.split(&data) == [Piece::from(data)]);
        assert_eq!(splitter.found(), Found { unsplit: 1, ..Found::default() });
    }
    assert_eq!(split(&By::JsonArray, b"[1,").1.unsplit, 1);
}

#[test]
fn what_is_not_to_be_split_stays_whole() {
    assert_eq!(split(&By::Nothing, b"a\nb\n"), (vec!["a\nb\n".to_owned()], Found::default()));
    assert_eq!(split(&By::Kpl, b"a\nb\n"), (vec!["a\nb\n".to_owned()], Found::default()));
}

/// How the bytes of a test are merged into one record.
#[derive(Clone, Debug)]
struct Merged {
    by: By,
    compression: Option<Algorithm>,
}

fn merged() -> impl Strategy<Value = Merged> {
    let by = prop_oneof![
        Just(By::Content),
        Just(By::JsonArray),
        Just(By::Kpl),
        Just(by("\n")),
        "[#|-]{1,3}".prop_map(|delimiter| by(&delimiter)),
    ];
    let compression =
        prop_oneof![Just(None), Just(Some(Algorithm::Gzip)), Just(Some(Algorithm::Zstd))];
    (by, compression).prop_map(|(by, compression)| Merged { by, compression })
}

/// Merges lines as the formats have it; returns the record and the pieces that must come of it.
fn encode(merged: &Merged, lines: &[Vec<u8>]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let fold = |data: Vec<u8>| match merged.compression {
        Some(algorithm) => compressed(algorithm, &data),
        None => data,
    };
    match &merged.by {
        By::Kpl => {
            let lines: Vec<_> = lines.iter().map(|line| [line, &b"\n"[..]].concat()).collect();
            let mut tags = Vec::new();
            let records = match merged.compression {
                None => lines.iter().map(|line| (&**line, Vec::new())).collect(),
                Some(algorithm) => {
                    origin::push_encoding(algorithm, &mut tags);
                    let frame = compressed(algorithm, &lines.concat());
                    return (aggregate(&[(&frame, tags)]), lines);
                }
            };
            let records: Vec<_> = records;
            (aggregate(&records), lines)
        }
        By::JsonArray => {
            let mut elements = Vec::new();
            for line in lines {
                let mut element = Vec::new();
                if json_array::element(line, &mut element) {
                    elements.push(element);
                }
            }
            let data = [b"[", &*elements.join(&b","[..]), b"]"].concat();
            (fold(data), elements.iter().map(|element| element.trim_ascii().to_vec()).collect())
        }
        By::Delimiter(delimiter) if delimiter != b"\n" => {
            let rule = lines::Delimiter::new(delimiter);
            let mut lines: Vec<_> = lines.to_vec();
            lines.retain(|line| rule.may_follow(line));
            lines.push(b"last".to_vec());
            (fold(lines.join(&delimiter[..])), lines)
        }
        _ => {
            let lines: Vec<_> = lines.iter().map(|line| [line, &b"\n"[..]].concat()).collect();
            (fold(lines.concat()), lines)
        }
    }
}

/// Bytes of which many are what formats begin or part with.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        8 => any::<u8>(),
        2 => prop::sample::select(b"#-|[]{},\"\r \x00".to_vec()),
        4 => b'a'..=b'z',
    ];
    prop::collection::vec(byte, 0..60).prop_map(|mut line| {
        line.retain(|&byte| byte != b'\n');
        line
    })
}

proptest! {
    /// forall lines, formats, compressions, delimiters: the pieces are the lines.
    #[test]
    fn lines_come_back(merged in merged(), lines in prop::collection::vec(line(), 1..40)) {
        let (data, expected) = encode(&merged, &lines);
        // Bytes that begin as something else are taken for that, as they must be.
        prop_assume!(merged.by == By::Kpl || merged.compression.is_some()
            || (!kpl::is_marked(&data) && Algorithm::of(&data).is_none()));
        let mut splitter = Splitter::new(merged.by.clone());
        let pieces = splitter.split(&Bytes::from(data));
        let pieces: Vec<_> = pieces.into_iter().map(|piece| piece.data.to_vec()).collect();
        prop_assert_eq!(pieces, expected);
        prop_assert_eq!(splitter.found().unsplit, 0);
    }

    /// forall bytes: no panic, and nothing is lost where lines are cut at newlines.
    #[test]
    fn arbitrary_bytes_never_panic(
        data in prop::collection::vec(any::<u8>(), 0..200),
        magic in prop::sample::select(vec![&b""[..], &kpl::MAGIC, &[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd], b"["]),
    ) {
        let data = Bytes::from([magic, &data].concat());
        for by in [By::Content, By::Kpl, By::JsonArray, by("#")] {
            drop(Splitter::new(by).split(&data));
        }
        let pieces = Splitter::new(by("\n")).split(&data);
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.to_vec()).collect();
        prop_assert!(joined == data || Algorithm::of(&data).is_some() || kpl::is_marked(&data));
    }
}

/// forall formats × compressions × delimiters: a megabyte of arbitrary bytes comes back.
#[test]
fn a_megabyte_comes_back() {
    let mut rng = fastrand::Rng::with_seed(5);
    let bytes: Vec<u8> = (0..1_000_000).map(|_| rng.u8(..)).collect();
    let lines: Vec<Vec<u8>> = bytes.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    let ways = [By::Content, By::JsonArray, By::Kpl, by("\n"), by("#-#"), by("#"), by("\0")];
    for by in ways {
        for compression in [None, Some(Algorithm::Gzip), Some(Algorithm::Zstd)] {
            let merged = Merged { by: by.clone(), compression };
            let (data, expected) = encode(&merged, &lines);
            let mut splitter = Splitter::new(by.clone());
            let pieces = splitter.split(&Bytes::from(data));
            assert!(
                pieces.iter().map(|piece| &piece.data[..]).eq(expected.iter().map(|e| &e[..])),
                "{merged:?}"
            );
            assert_eq!(splitter.found().unsplit, 0);
        }
    }
}
