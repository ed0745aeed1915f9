//! The format `json_array`: the lines of a record as the elements of one JSON array.
//!
//! Invariant: what [`element`] wrote, put between `[`, `,` and `]`, is a JSON array in UTF-8, and
//! [`split`] gives the same elements back, byte for byte but for white space around them.
//!
//! ```text
//!  {"a":1}            {"a":1}        a line that is JSON stands as it is
//!  started        ->  "started"      any other text as a JSON string (an empty line: "")
//!  caf\xe9            (not UTF-8)    no element: the line can only be sent alone, as it is
//! ```
//!
//! So a reader parses every record that is UTF-8 as one array and finds one element a line; where
//! the log is not all JSON, what is a string was text.

use serde::de::IgnoredAny;
use serde_json::Deserializer;

/// Appends `line` (without its newline) to `into` as one element of an array. Returns false, and
/// appends nothing, where the line is not UTF-8 and so cannot stand in JSON at all.
pub fn element(line: &[u8], into: &mut Vec<u8>) -> bool {
    let Ok(text) = std::str::from_utf8(line) else { return false };
    if serde_json::from_str::<IgnoredAny>(text).is_ok() {
        into.extend_from_slice(line);
        return true;
    }
    let start = into.len();
    let written = serde_json::to_writer(&mut *into, text).is_ok();
    if !written {
        into.truncate(start);
    }
    written
}

/// Appends the array of one element.
pub fn alone(element: &[u8], into: &mut Vec<u8>) {
    into.push(b'[');
    into.extend_from_slice(element);
    into.push(b']');
}

/// Data that is not a JSON array in UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON array: unexpected byte or end at {at}")]
pub struct NotAnArray {
    /// Where reading stopped, in bytes from the start of the data.
    pub at: usize,
}

/// Splits a record's data into the elements of its array, without the white space around them.
///
/// # Errors
/// [`NotAnArray`] where the data is not one whole JSON array.
pub fn split(data: &[u8]) -> Result<Vec<&[u8]>, NotAnArray> {
    std::str::from_utf8(data).map_err(|error| NotAnArray { at: error.valid_up_to() })?;
    let mut at = expect(data, 0, b"[")?.1;
    let mut elements = Vec::new();
    if let Ok((_, end)) = expect(data, at, b"]") {
        at = end;
    } else {
        loop {
            let rest = data.get(at..).unwrap_or_default();
            let mut values = Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
            let read = values.next();
            let end = at.saturating_add(values.byte_offset());
            if !matches!(read, Some(Ok(_))) {
                return Err(NotAnArray { at: end });
            }
            elements.push(data.get(at..end).unwrap_or_default().trim_ascii());
            let (found, next) = expect(data, end, b",]")?;
            at = next;
            if found == b']' {
                break;
            }
        }
    }
    let rest = data.get(at..).unwrap_or_default();
    if rest.iter().all(u8::is_ascii_whitespace) { Ok(elements) } else { Err(NotAnArray { at }) }
}

/// Skips white space from `at` and takes one byte, which must be of `wanted`; returns it and the
/// offset after it.
fn expect(data: &[u8], at: usize, wanted: &[u8]) -> Result<(u8, usize), NotAnArray> {
    let rest = data.get(at..).unwrap_or_default();
    let skipped = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let at = at.saturating_add(skipped);
    match data.get(at) {
        Some(&byte) if wanted.contains(&byte) => Ok((byte, at.saturating_add(1))),
        _ => Err(NotAnArray { at }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(line: &[u8]) -> Option<Vec<u8>> {
        let mut into = Vec::new();
        element(line, &mut into).then_some(into)
    }

    #[test]
    fn json_stands_as_it_is_and_text_becomes_a_string() {
        assert_eq!(encoded(b"{\"a\": 1}\r").unwrap(), b"{\"a\": 1}\r");
        assert_eq!(encoded(b"say \"hi\"").unwrap(), br#""say \"hi\"""#);
        assert_eq!(encoded(b"").unwrap(), b"\"\"");
        assert_eq!(encoded(b"1 2").unwrap(), b"\"1 2\"");
    }

    #[test]
    fn a_line_that_is_not_utf8_is_no_element_even_within_a_string() {
        assert_eq!(encoded(b"caf\xe9"), None);
        assert_eq!(encoded(b"{\"a\":\"\xff\"}"), None);
    }

    #[test]
    fn an_array_splits_into_its_elements() {
        let data = br#" [ {"a":[1,2]} , "x],[" ,3,null ] "#;
        assert_eq!(split(data).unwrap(), [&br#"{"a":[1,2]}"#[..], br#""x],[""#, b"3", b"null"]);
        assert!(split(b"[]").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_array_is_refused_with_its_place() {
        assert_eq!(split(b""), Err(NotAnArray { at: 0 }));
        assert_eq!(split(b"{}"), Err(NotAnArray { at: 0 }));
        assert_eq!(split(b"[1 2]"), Err(NotAnArray { at: 3 }));
        assert_eq!(split(b"[1]x"), Err(NotAnArray { at: 3 }));
        assert!(split(b"[1,]").is_err());
        assert!(split(b"[1").is_err());
        assert_eq!(split(b"[\"\xff\"]"), Err(NotAnArray { at: 2 }));
    }

    proptest! {
        #[test]
        fn every_element_comes_back(
            lines in prop::collection::vec(
                prop_oneof!["\\PC{0,12}", Just(r#"{"k":[1,{"x":"]"}]}"#.to_owned()), "[0-9]{1,3}"],
                1..8,
            ),
        ) {
            let elements: Vec<_> =
                lines.iter().map(|line| encoded(line.as_bytes()).unwrap()).collect();
            let data = [b"[".to_vec(), elements.join(&b","[..]), b"]".to_vec()].concat();
            let trimmed: Vec<_> = elements.iter().map(|element| element.trim_ascii()).collect();
            prop_assert_eq!(split(&data).unwrap(), trimmed);
        }

        #[test]
        fn arbitrary_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = split(&data);
        }
    }
}
