//! Whole records, by every way to split them: as they come, as an aggregate with a digest that
//! matches, and as the user record of an aggregate that claims to be compressed. Nothing panics, no
//! piece is out of thin air, and what is handed on unsplit is the data.

#![no_main]

use bytes::Bytes;
use kinetail::record::compression::Algorithm;
use kinetail::record::kpl::{self, MAGIC};
use kinetail::record::origin::push_encoding;
use kinetail::record::split::{By, Splitter, UNFOLDED_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut sealed = [&MAGIC, data].concat();
    kpl::end(&mut sealed);
    let mut claimed = Vec::new();
    kpl::begin("k", &mut claimed);
    for algorithm in [Algorithm::Gzip, Algorithm::Zstd] {
        let mut tags = Vec::new();
        push_encoding(algorithm, &mut tags);
        if Algorithm::of(data).is_none_or(|found| found == algorithm) {
            kpl::push(data, &tags, &mut claimed);
        }
    }
    kpl::end(&mut claimed);
    for record in [data.to_vec(), sealed, claimed] {
        let record = Bytes::from(record);
        let delimiters = [&b"\n"[..], b"#-#", b"#"].map(|bytes| By::Delimiter(bytes.to_vec()));
        for by in [By::Content, By::JsonArray, By::Kpl, By::Nothing].into_iter().chain(delimiters) {
            check(by, &record);
        }
    }
});

fn check(by: By, record: &Bytes) {
    let mut splitter = Splitter::new(by.clone());
    let pieces = splitter.split(record);
    let bytes: usize = pieces.iter().map(|piece| piece.data.len()).sum();
    let found = splitter.found();
    assert!(bytes <= UNFOLDED_BYTES + record.len(), "{by:?}");
    if found.unsplit > 0 || by == By::Nothing {
        assert!(pieces.len() == 1 && pieces[0].data == record, "handed on as it came: {by:?}");
    }
    let plain = found.kpl + found.compressed == 0;
    if plain && by == By::Delimiter(b"\n".to_vec()) {
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.to_vec()).collect();
        assert!(record == &joined, "lines are all of the data");
    }
}
