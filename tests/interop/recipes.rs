//! The README's Lambda recipes, run as they stand there, on records that went through an endpoint.

use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use serde_json::{Value, json};

/// The formats of the README's recipes, in the order they stand there, one in each language.
#[derive(Clone, Copy, Debug)]
pub enum Recipe {
    Lines,
    Delimiter,
    JsonArray,
    Kpl,
    Compressed,
}

/// Returns the README's code block of a format in `language`.
fn recipe(language: &str, recipe: Recipe) -> String {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let fence = format!("```{language}\n");
    let blocks: Vec<&str> = readme.split(&fence).skip(1).collect();
    assert_eq!(blocks.len(), Recipe::Compressed as usize + 1, "recipes in {language}");
    blocks[recipe as usize].split_once("```").unwrap().0.to_owned()
}

/// Returns what Lambda hands to a function: base64, as the service does it.
fn event(records: &[Bytes]) -> Value {
    let entry = |data: &Bytes| {
        json!({
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": "key",
                "sequenceNumber": "49545115243490985018280067714973144582180062593244200961",
                "data": base64_simd::STANDARD.encode_to_string(data),
                "approximateArrivalTimestamp": 1_545_084_650.987,
            },
            "eventSource": "aws:kinesis",
        })
    };
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

/// The recipes for a format print every one of `lines`, each with its newline, and nothing else; `read`
/// makes alike what may be printed in more than one way.
pub fn give_the_lines(format: Recipe, records: &[Bytes], lines: &[u8], read: fn(&str) -> String) {
    let read = |text: &str| text.lines().map(read).collect::<Vec<_>>();
    let lines = read(std::str::from_utf8(lines).unwrap());
    assert!(lines.len() > 1_000 && records.len() < lines.len() / 5, "the records hold lines");

    let call = "import json\nhandler(json.load(open('event.json')), None)\n";
    let python = format!("{}\n{call}", recipe("python", format));
    let printed_by_python = printed("python3", "recipe.py", &python, records);
    assert!(read(&printed_by_python) == lines, "the Python recipe for {format:?}");

    let call = "exports.handler(JSON.parse(require('fs').readFileSync('event.json')));\n";
    let node = format!("{}\n{call}", recipe("js", format));
    let printed_by_node = printed("node", "recipe.js", &node, records);
    assert!(read(&printed_by_node) == lines, "the Node.js recipe for {format:?}");
}
