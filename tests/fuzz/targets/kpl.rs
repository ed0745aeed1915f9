//! Aggregated records, as they come and with a digest that matches: reading ends without a panic,
//! and what it accepts is consistent in itself.

#![no_main]

use kinetail::record::kpl::{self, MAGIC};
use kinetail::record::origin::{Origins, encoding};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut sealed = [&MAGIC, data].concat();
    kpl::end(&mut sealed);
    read(&sealed);
});

fn read(data: &[u8]) {
    let Ok(aggregate) = kpl::decode(data) else { return };
    let mut origins = Origins::default();
    let mut bytes = 0;
    for record in aggregate.records() {
        bytes += record.data.len() + record.tags.iter().map(|tag| tag.value.len()).sum::<usize>();
        let _ = (origins.read(record.tags), encoding(record.tags));
    }
    assert!(bytes <= data.len(), "user records are parts of the aggregate");
    assert_eq!(aggregate.len(), aggregate.records().count(), "verified whole before it is given");
}
