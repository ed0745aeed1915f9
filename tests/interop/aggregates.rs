//! Aggregated records between kinetail and the libraries that others read and write them with.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use kinetail::record::compression::{Algorithm, Decompressor};
use kinetail::record::kpl;
use kinetail::record::split::{By, Splitter};

/// Runs a script beside this file with `input` on its standard input; returns the lines it prints,
/// out of base64.
fn run(program: &str, script: &str, action: &str, input: &[Bytes]) -> Vec<Vec<u8>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
    let mut child = Command::new(program)
        .args([script.as_os_str(), action.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let lines: Vec<_> = input.iter().map(|data| encoded(data) + "\n").collect();
    // From a thread of its own: the script may print before it has read all.
    let writer = std::thread::spawn(move || stdin.write_all(lines.concat().as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} {action}: {}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(decoded).collect()
}

fn encoded(data: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(data)
}

pub fn decoded(text: &str) -> Vec<u8> {
    base64_simd::STANDARD.decode_to_vec(text).unwrap()
}

/// Splits records by their content; every one must have been whole.
pub fn split(records: &[Bytes]) -> Vec<Vec<u8>> {
    let mut splitter = Splitter::new(By::Content);
    let pieces: Vec<_> = records
        .iter()
        .flat_map(|data| splitter.split(data))
        .map(|piece| piece.data.to_vec())
        .collect();
    assert_eq!(splitter.found().unsplit, 0);
    pieces
}

/// Programs that split aggregates.
const OTHERS: [(&str, &str, &str); 3] =
    [("node", "agg.js", "split"), ("node", "agg.js", "schema"), ("python3", "agg.py", "split")];

/// Others split `records`, which hold `lines` in this order, into the same.
pub fn are_split_by_others(records: &[Bytes], lines: &[Vec<u8>]) {
    are_aggregates(records);
    assert!(split(records) == lines, "by ourselves");
    for (program, script, action) in OTHERS {
        assert!(run(program, script, action, records) == lines, "by {script} {action}");
    }
}

/// Others split `records`, which hold `lines` in this order, into members or frames of them.
pub fn frames_are_split_by_others(records: &[Bytes], lines: &[Vec<u8>], algorithm: Algorithm) {
    are_aggregates(records);
    assert!(split(records).concat() == lines.concat(), "by ourselves");
    let mut decompressor = Decompressor::default();
    for (program, script, action) in OTHERS {
        let frames = run(program, script, action, records);
        assert!(frames.iter().all(|frame| Algorithm::of(frame) == Some(algorithm)), "{frames:?}");
        let unfolded: Vec<_> = frames
            .iter()
            .map(|frame| decompressor.decompress(algorithm, frame, 16 << 20).unwrap())
            .collect();
        assert!(unfolded.concat() == lines.concat(), "by {script} {action}");
    }
}

fn are_aggregates(records: &[Bytes]) {
    let aggregated = records.iter().filter(|data| kpl::is_marked(data)).count();
    assert_eq!(aggregated, records.len(), "all are aggregates");
}

/// What others wrote is split into what they were given.
pub fn of_others_are_split() {
    let of_npm: Vec<Bytes> =
        run("node", "agg.js", "write", &[]).into_iter().map(Bytes::from).collect();
    let expected = (0..300).map(|number| format!("npm {number} \0é").into_bytes());
    assert_eq!(split(&of_npm), expected.collect::<Vec<_>>());

    let of_pypi = run("python3", "agg.py", "write", &[]);
    let of_pypi: Vec<Bytes> = of_pypi.into_iter().map(Bytes::from).collect();
    assert_eq!(of_pypi.len(), 2);
    let expected = ["aws-kinesis-agg", "aiokpl"].into_iter().flat_map(|writer| {
        (0..300).map(move |number| {
            let once = [format!("{writer} {number} \0").as_bytes(), b"\xff"].concat();
            once.repeat(number % 40)
        })
    });
    assert_eq!(split(&of_pypi), expected.collect::<Vec<_>>());
}
