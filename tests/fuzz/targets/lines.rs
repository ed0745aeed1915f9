//! Lines by a delimiter: what was joined comes apart the same.

#![no_main]

use kinetail::record::lines::{Delimiter, ends, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let last = ends(data).last().unwrap_or_default();
    assert_eq!(last, data.len(), "the ends of lines cover the data");
    let Some((&length, rest)) = data.split_first() else { return };
    let Some((bytes, rest)) = rest.split_at_checked(usize::from(length % 5)) else { return };
    let parts: Vec<_> = split(rest, bytes).collect();
    if bytes != b"\n" {
        assert_eq!(parts.join(bytes), rest);
    }
    let delimiter = Delimiter::new(bytes);
    let mut lines: Vec<_> = rest.split(|&byte| byte == b'\n').collect();
    let last = lines.pop().unwrap_or_default();
    lines.retain(|line| delimiter.may_follow(line));
    if !bytes.is_empty() && bytes != b"\n" && delimiter.may_follow(last) {
        lines.push(last);
        assert_eq!(split(&lines.join(bytes), bytes).collect::<Vec<_>>(), lines);
    }
});
