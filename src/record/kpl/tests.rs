//! The vectors of the format, and what foreign and damaged records do.

use proptest::prelude::*;

use super::*;

/// The tags of a user record.
type Pairs<'a> = &'a [(&'a str, &'a [u8])];

/// An aggregate of user records and their tags.
fn encoded(key: &str, records: &[(&[u8], Pairs<'_>)]) -> Vec<u8> {
    let mut into = Vec::new();
    begin(key, &mut into);
    let mut length = empty_len(key.len());
    for (data, tags) in records {
        let mut written = Vec::new();
        for (key, value) in *tags {
            push_tag(key, value, &mut written);
        }
        length += pushed_len(data.len(), written.len());
        push(data, &written, &mut into);
    }
    end(&mut into);
    assert_eq!(into.len(), length, "the length is known before");
    into
}

/// Puts magic and digest around a message.
fn sealed(message: &[u8]) -> Vec<u8> {
    let mut into = [&MAGIC[..], message].concat();
    end(&mut into);
    into
}

/// What is read of a message: key, explicit hash key, data.
fn read(message: &[u8]) -> Result<Vec<String>, NotAggregated> {
    let data = sealed(message);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let records = decode(&data)?;
    let records: Vec<_> = records.records().collect();
    Ok(records
        .iter()
        .map(|record| {
            let explicit = record.explicit_hash_key.map_or_else(|| "-".to_owned(), text);
            format!("{} {explicit} {}", text(record.partition_key), text(record.data))
        })
        .collect())
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

#[test]
fn two_lines_are_the_vector_byte_for_byte() {
    let vector = hex("f3 89 9a c2  0a 01 61  1a 06 08 00 1a 02 6c 31  1a 06 08 00 1a 02 6c 32 \
         61 ec 04 a8 cf d8 f7 12 25 08 35 3e 41 36 e1 08");
    assert_eq!(encoded("a", &[(b"l1", &[]), (b"l2", &[])]), vector);
}

#[test]
fn tags_are_the_vector_byte_for_byte_and_are_read() {
    let vector =
        hex("f3 89 9a c2  0a 01 61  1a 26 08 00 1a 02 6c 31 22 0a 0a 03 6f 66 66 12 03 31 32 33 \
         22 12 0a 04 70 61 74 68 12 0a 2f 76 61 72 2f 6c 6f 67 2f 78  1a 06 08 00 1a 02 6c 32 \
         41 37 9a 90 c5 dd 7c 6a 40 28 04 55 6a 53 c8 32");
    let tags: [(&str, &[u8]); 2] = [("off", b"123"), ("path", b"/var/log/x")];
    assert_eq!(encoded("a", &[(b"l1", &tags), (b"l2", &[])]), vector);
    let read = decode(&vector).unwrap();
    let records: Vec<_> = read.records().collect();
    assert_eq!((read.len(), records[0].data, records[1].data), (2, &b"l1"[..], &b"l2"[..]));
    assert_eq!(records[0].tags.get("path"), Some(&b"/var/log/x"[..]));
    assert_eq!((records[0].tags.iter().count(), records[1].tags.iter().count()), (2, 0));
}

#[test]
fn explicit_hash_keys_and_fields_of_later_schemas_are_read_over() {
    // Tables after the records; an unknown number, text, and fixed fields at both levels.
    let message =
        hex("1a 08 08 01 10 00 1a 02 6c 31  1a 0f 08 00 1a 02 6c 32 a2 06 01 78 2d 00 00 00 00 \
         0a 01 61 0a 01 62 12 02 31 37  7a 01 78 80 01 05 79 00 00 00 00 00 00 00 00");
    assert_eq!(read(&message).unwrap(), ["b 17 l1", "a - l2"]);
    assert_eq!(read(&hex("0a 01 61 1a 04 08 00 1a 00")).unwrap(), ["a - "], "empty data");
    assert!(read(&hex("0a 01 61")).unwrap().is_empty(), "no records");
    let no_value = hex("0a 01 61 1a 0b 08 00 1a 02 6c 31 22 03 0a 01 6b");
    assert_eq!(read(&no_value).unwrap(), ["a - l1"]);
}

#[test]
fn what_is_not_by_the_schema_is_malformed() {
    for bad in [
        "0a 01 61 1a 04 08 01 1a 00",       // a key that is not in the table
        "0a 01 61 1a 06 08 00 10 00 1a 00", // a hash key that is not in the table
        "0a 01 61 1a 02 1a 00",             // no index
        "0a 01 61 1a 02 08 00",             // no data
        "0a 01 61 1a 09 08 00 1a 00 22 03 12 01 6b", // a tag without a name
        "0a 01 61 1a 04 08 00 1a 01",       // cut off
        "08 01",                            // a table that is a number
        "0b 0c",                            // a group
    ] {
        assert_eq!(read(&hex(bad)), Err(NotAggregated::Malformed), "{bad}");
    }
}

#[test]
fn damage_is_told_from_plain_records() {
    let sound = encoded("a", &[(b"l1", &[])]);
    for at in MAGIC.len()..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        assert_eq!(decode(&damaged).unwrap_err(), NotAggregated::Digest, "at {at}");
    }
    for length in 0..21 {
        assert_eq!(decode(&sound[..length]).unwrap_err(), NotAggregated::Unmarked);
    }
    assert_eq!(decode(b"GET / HTTP/1.1\n").unwrap_err(), NotAggregated::Unmarked);
    assert!(is_marked(&sound) && !is_marked(b"GET") && is_marked(&MAGIC));
}

proptest! {
    /// forall records and tags: what was encoded is decoded.
    #[test]
    fn records_come_back(
        key in "\\PC{1,20}",
        records in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..300),
             prop::collection::vec(("[a-z.]{0,6}", prop::collection::vec(any::<u8>(), 0..200)), 0..3)),
            0..20,
        ),
    ) {
        let tags: Vec<Vec<(&str, &[u8])>> = records
            .iter()
            .map(|(_, tags)| tags.iter().map(|(key, value)| (&**key, &**value)).collect())
            .collect();
        let given: Vec<_> = records.iter().zip(&tags).map(|((data, _), tags)| (&**data, &**tags)).collect();
        let data = encoded(&key, &given);
        let read = decode(&data).unwrap();
        prop_assert_eq!(read.len(), given.len());
        for (record, (data, tags)) in read.records().zip(given) {
            prop_assert_eq!((record.partition_key, record.explicit_hash_key), (key.as_bytes(), None));
            prop_assert_eq!(record.data, data);
            let read: Vec<_> = record.tags.iter().map(|tag| (tag.key, tag.value)).collect();
            let given: Vec<_> = tags.iter().map(|&(key, value)| (key.as_bytes(), value)).collect();
            prop_assert_eq!(read, given);
        }
    }

    /// forall messages under a digest that matches: no panic, and as many records as are told.
    #[test]
    fn arbitrary_messages_never_panic(message in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(read) = decode(&sealed(&message)) {
            prop_assert_eq!(read.records().count(), read.len());
            prop_assert!(read.records().all(|record| record.tags.iter().count() <= 60));
        }
    }

    /// forall cuts and flips of a sound message: no panic.
    #[test]
    fn torn_messages_never_panic(cut in 0_usize..60, at in 0_usize..60, flip in any::<u8>()) {
        let tags: [(&str, &[u8]); 1] = [("off", b"123")];
        let sound = encoded("a", &[(b"line one", &tags), (b"line two", &[])]);
        let mut message = sound[MAGIC.len()..sound.len() - DIGEST].to_vec();
        let length = message.len();
        message[at % length] ^= flip;
        message.truncate(length.saturating_sub(cut % length));
        if let Ok(read) = decode(&sealed(&message)) {
            prop_assert_eq!(read.records().count(), read.len());
        }
    }
}
