//! The README's Lambda recipes, run as they stand there, on records that went through an endpoint.

use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use serde_json::{Value, json};

/// Returns the first code block of the README in `language`.
fn recipe(language: &str) -> String {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let fence = format!("```{language}\n");
    let (_, from) = readme.split_once(&fence).unwrap_or_else(|| panic!("no {language} recipe"));
    from.split_once("```").unwrap().0.to_owned()
}

/// Returns what Lambda hands to a function: base64, as the service does it.
fn event(records: &[Bytes]) -> Value {
    let entry = |data: &Bytes| json!({ "kinesis": { "data": base64_simd::STANDARD.encode_to_string(data) } });
    json!({ "Records": records.iter().map(entry).collect::<Vec<_>>() })
}

/// Runs `program` with a recipe that handles `records`; returns what it printed.
fn printed(program: &str, file: &str, code: &str, records: &[Bytes]) -> String {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(file), code).unwrap();
    fs::write(directory.path().join("event.json"), event(records).to_string()).unwrap();
    let output = Command::new(program).arg(file).current_dir(&directory).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Each recipe prints every line of `records`, which end with a newline, and nothing else.
pub fn give_the_lines(records: &[Bytes]) {
    let lines: String = records.iter().map(|data| String::from_utf8_lossy(data)).collect();
    assert!(lines.lines().count() > 1_000, "the records hold lines");

    let call = "import json\nhandler(json.load(open('event.json')), None)\n";
    let python = format!("{}\n{call}", recipe("python"));
    assert!(printed("python3", "recipe.py", &python, records) == lines, "the Python recipe");

    let call = "exports.handler(JSON.parse(require('fs').readFileSync('event.json')));\n";
    let node = format!("{}\n{call}", recipe("js"));
    assert!(printed("node", "recipe.js", &node, records) == lines, "the Node.js recipe");
}
