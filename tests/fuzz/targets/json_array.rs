//! JSON arrays: splitting ends without a panic, its elements are parts of the data in order, and an
//! array of them splits into the same.

#![no_main]

use kinetail::record::json_array::{element, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(elements) = split(data) {
        let again = [&b"["[..], &elements.join(&b","[..]), b"]"].concat();
        assert_eq!(split(&again).as_ref(), Ok(&elements));
    }
    let lines: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
    let mut array = vec![b'['];
    let mut written = 0;
    for line in lines {
        let before = array.len();
        if written > 0 {
            array.push(b',');
        }
        if element(line, &mut array) {
            written += 1;
        } else {
            array.truncate(before);
        }
    }
    array.push(b']');
    assert_eq!(split(&array).map(|elements| elements.len()), Ok(written));
});
