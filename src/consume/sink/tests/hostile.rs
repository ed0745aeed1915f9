//! Names that somebody made up. Goal: whatever a record calls its source, nothing beside the root is made
//! or changed, and no line is lost, neither its own nor anybody's. Method: a table of names, from parts
//! that have led astray somewhere and places where they stand, is written through the sink; then
//! everything beneath the root and beside it is looked at.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;

use super::*;

/// Parts that no name may have.
const REFUSED: [&[u8]; 30] = [
    b"",
    b".",
    b"..",
    b"../..",
    b"a/../b",
    b"a//b",
    b"./b",
    b"a/.",
    // Cut off at the NUL, where a name becomes a C string.
    b"\0",
    b"..\0",
    b"../\0x",
    b"x\0/../..",
    b"\0.log",
    // A line of its own in whatever lists names, and commands to a terminal.
    b"\n",
    b"a\nb",
    b"..\n",
    b"a\r",
    b"a\tb",
    b"\x08\x08",
    b"\x1b[2J",
    b"\x1b]0;x\x07",
    b"\x7f",
    "a\u{85}b".as_bytes(),
    "a\u{9b}2Jb".as_bytes(),
    // Shown as another name than it is.
    "a\u{202e}gol.b".as_bytes(),
    "\u{200f}a".as_bytes(),
    "\u{2066}a".as_bytes(),
    "a\u{2028}b".as_bytes(),
    "a\u{2029}".as_bytes(),
    &[b'x'; 256],
];

/// Parts that mean something elsewhere, and here are a name like any other.
const TAKEN: [&[u8]; 64] = [
    // Almost a directory.
    b"...",
    b"....",
    b".. ",
    b" ..",
    b". .",
    b"..;",
    b"..x",
    b".hidden",
    b" ",
    b"a ",
    // A slash, or dots, to those who decode once too often, or too little.
    b"%2e%2e",
    b"%2E%2E",
    b"..%2f",
    b"%2e%2e%2fsecret",
    b"..%252fsecret",
    b"%00",
    b"..%00",
    b"%c0%ae%c0%ae",
    b"..%c0%af",
    b"\xc0\xae\xc0\xae",
    b"..\xc0\xaf",
    b"..\xe0\x80\xaf..",
    b"\xf0\x80\x80\xae",
    b"\xed\xa0\x80",
    b"\xff\xfe",
    b"caf\xe9",
    b"\x80",
    "\u{ff0e}\u{ff0e}".as_bytes(),
    "..\u{2215}secret".as_bytes(),
    "..\u{ff0f}secret".as_bytes(),
    "\u{2024}\u{2024}".as_bytes(),
    "\u{fe52}\u{fe52}".as_bytes(),
    "cafe\u{301}.log".as_bytes(),
    "caf\u{e9}.log".as_bytes(),
    "\u{1f4a9}".as_bytes(),
    "a\u{200b}b".as_bytes(),
    b"&#46;&#46;&#47;",
    b"\\u002e\\u002e",
    // Another system's.
    b"..\\",
    b"..\\..\\secret",
    b"\\\\host\\share",
    b"C:",
    b"CON",
    b"NUL",
    b"aux.log",
    b"a:stream",
    // A shell's, a formatter's, ours.
    b"~",
    b"~root",
    b"$HOME",
    b"$(id)",
    b"`id`",
    b";id",
    b"|id",
    b"-rf",
    b"--",
    b"*",
    b"a'\"b",
    b"%s%n",
    b"{host}",
    b"{path",
    b"lock",
    b"kinetail.sqlite",
    b"a.gz.partial",
    &[b'x'; 255],
];

/// Where a part stands in a path, before and after, and whether the rest of it can be taken.
const PLACES: [(&str, &str, bool); 7] = [
    ("", "", true),
    ("/last/", "", true),
    ("/middle/", "/x", true),
    ("/../", "", false),
    ("/climb/../", "", false),
    ("//", "", false),
    ("/end/", "/", false),
];

/// A name, and whether it can be taken.
struct Made {
    host: String,
    path: Vec<u8>,
    taken: bool,
}

/// Returns every part in every place, as a host, and whole paths.
fn table(root: &Path) -> Vec<Made> {
    let parts = REFUSED.map(|part| (part, false)).into_iter();
    let parts: Vec<_> = parts.chain(TAKEN.map(|part| (part, true))).collect();
    let mut table = Vec::new();
    let mut push = |host: &str, path: Vec<u8>, taken: bool| {
        table.push(Made { host: host.to_owned(), path, taken });
    };
    for (part, taken) in &parts {
        for (before, after, fits) in PLACES {
            // The slash that a path begins with is left out.
            let path = [before.as_bytes(), part, after.as_bytes()].concat();
            push("h", path, *taken && fits);
        }
        if let Ok(host) = str::from_utf8(part) {
            push(host, b"/x".to_vec(), *taken);
        }
    }
    for up in 1..12 {
        push("h", format!("/{}secret", "../".repeat(up)).into_bytes(), false);
        push("h", format!("/d{}/secret", "/..".repeat(up)).into_bytes(), false);
    }
    for host in ["/etc", "a/b", "h/", "/"] {
        push(host, b"/x".to_vec(), false);
    }
    for path in ["/etc/passwd", "/proc/self/root/etc/passwd", "/dev/null", "/dev/shm/x"] {
        push("h", path.as_bytes().to_vec(), true);
    }
    push("h", root.join("secret").into_os_string().into_vec(), true);
    push("h", root.join("out/h/new").into_os_string().into_vec(), true);
    push("h", b"/deep".repeat(63), true);
    push("h", b"/deep".repeat(64), false);
    push("h", [[b'y'; 250]; 2].join(&b'/'), true);
    push("h", [[b'y'; 250]; 9].join(&b'/'), false);
    // Links that somebody has planted.
    for path in ["/link", "/link/secret", "/link/new", "/file", "/file/x", "/link/out/h/file"] {
        push("h", path.as_bytes().to_vec(), false);
    }
    table
}

/// Returns all that stands in a directory, links as what they say; not beneath `but`.
fn tree(directory: &Path, but: Option<&Path>) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_symlink() {
            found.insert(path.clone(), fs::read_link(&path).unwrap().into_os_string().into_vec());
        } else if kind.is_dir() {
            found.insert(path.clone(), b"a directory".to_vec());
            if Some(&*path) != but {
                found.extend(tree(&path, but));
            }
        } else {
            assert!(kind.is_file(), "{path:?}");
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// Returns the records of a table, one of a line each, which are numbered; and each line.
fn records(table: &[Made]) -> (Vec<Vec<u8>>, Vec<String>) {
    let lines: Vec<String> = (0..table.len()).map(|number| format!("line {number}\n")).collect();
    let of = |(number, made): (usize, &Made)| {
        let path = Path::new(OsStr::from_bytes(&made.path));
        run_of(&made.host, path, number as u64 + 1, 0, &[&lines[number]])
    };
    (table.iter().enumerate().map(of).collect(), lines)
}

/// A root that somebody has planted links in, with something beside it.
fn planted(settings: &str) -> Scene {
    let scene = Scene::new(settings);
    let outside = scene.root.path();
    fs::write(outside.join("secret"), "untouched").unwrap();
    fs::create_dir_all(outside.join("etc")).unwrap();
    fs::write(outside.join("etc/passwd"), "untouched").unwrap();
    for directory in ["h", "web/h"].map(|name| scene.out().join(name)) {
        fs::create_dir_all(&directory).unwrap();
        symlink(outside, directory.join("link")).unwrap();
        symlink(outside.join("secret"), directory.join("file")).unwrap();
    }
    scene
}

#[test]
fn no_name_leads_outside_and_no_line_is_lost() {
    for settings in [
        "layout: mirror",
        "layout: mirror, path: '{path}'",
        "layout: append",
        "layout: append, path: '{host}{path}'",
        "layout: append, path: '{path}.{host}', rotate: { max_age: 1m }",
    ] {
        let mut scene = planted(settings);
        let table = table(scene.root.path());
        assert!(table.len() >= 300, "{}", table.len());
        let before = tree(scene.root.path(), Some(&scene.out()));
        let (data, lines) = records(&table);
        let batch = scene.batch(data);
        let mut sink = scene.open();
        sink.write(&shard(), &batch, 1).unwrap();
        sink.commit(1).unwrap();
        assert_eq!(tree(scene.root.path(), Some(&scene.out())), before, "{settings}");
        let files = tree(&scene.out(), None);
        for name in files.keys() {
            let text = name.as_os_str().as_bytes();
            assert!(!text.iter().any(u8::is_ascii_control), "{name:?}");
        }
        let mut written: Vec<&[u8]> =
            files.values().flat_map(|bytes| bytes.split_inclusive(|&byte| byte == b'\n')).collect();
        written.retain(|line| line.starts_with(b"line "));
        written.sort_unstable();
        let mut expected: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        expected.sort_unstable();
        assert!(written == expected, "each line once: {settings}");
    }
}

#[test]
fn a_name_that_is_only_odd_is_kept_to_the_byte() {
    let mut scene = planted("layout: mirror");
    let table = table(scene.root.path());
    let (data, lines) = records(&table);
    let batch = scene.batch(data);
    let mut sink = scene.open();
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    let mut other = String::new();
    for (made, line) in table.iter().zip(&lines) {
        let path = made.path.strip_prefix(b"/").unwrap_or(&made.path);
        if made.taken {
            let name = scene.out().join(&made.host).join(OsStr::from_bytes(path));
            assert_eq!(fs::read(&name).unwrap(), line.as_bytes(), "{name:?}");
        } else {
            other.push_str(line);
        }
    }
    let found = fs::read_to_string(scene.out().join(format!("web/{SHARD}.log"))).unwrap();
    assert_eq!(found, other, "what is refused goes to other_path");
    let refused = table.iter().filter(|made| !made.taken).count() as u64;
    assert_eq!(sink.tallies()[&shard()].refused, refused);
}

#[test]
fn what_has_the_place_of_other_path_stops_no_shard() {
    let other = format!("{SHARD}.log");
    let of_its_name: Vec<(String, String)> = (0..60)
        .map(|number| if number == 0 { "web".to_owned() } else { format!("web.other-{number}") })
        .map(|host| (host, format!("/{other}")))
        .collect();
    let of_its_name = of_its_name.iter().map(|(host, path)| (&**host, &**path)).collect();
    for (settings, sources) in [
        // A directory, by the name of a host or of a source.
        ("layout: append", vec![(&*other, "/x")]),
        ("layout: append, path: '{path}'", vec![("h", "/web/shardId-000000000000.log/x")]),
        // A file in the place of the directory that it would stand in.
        ("layout: append, path: '{path}'", vec![("h", "/web")]),
        ("layout: mirror, path: '{path}'", vec![("h", "/web"), ("h", "/web.other-1")]),
        // Files of its name, and of those beside it.
        ("layout: mirror", of_its_name),
    ] {
        let mut scene = Scene::new(settings);
        let mut data: Vec<_> = sources
            .iter()
            .zip(1..)
            .map(|((host, path), number)| run_of(host, Path::new(path), number, 0, &["theirs\n"]))
            .collect();
        data.push(b"plain".to_vec());
        let batch = scene.batch(data);
        for _ in 0..2 {
            // The second time with a sink that only knows what is committed.
            let mut sink = scene.open();
            sink.write(&shard(), &batch, 1).unwrap_or_else(|error| panic!("{settings}: {error}"));
            sink.commit(1).unwrap();
        }
        let files = scene.files();
        let count = |line| {
            files.values().flat_map(|text| text.lines()).filter(|found| *found == line).count()
        };
        assert_eq!((count("theirs"), count("plain")), (sources.len(), 2), "{settings}: {files:?}");
    }
}

#[test]
fn what_has_the_name_of_a_compressed_file_costs_no_line() {
    for suffix in ["", "/x", ".gz", ".gz/x", ".gz.partial", ".gz.partial/x"] {
        let name = &format!("a.20261126-080505{suffix}");
        let settings = "path: '{path}', rotate: { max_bytes: 1 MiB, compression: gzip }";
        let mut scene = Scene::new(settings);
        let mut sink = scene.open();
        let line = format!("{}\n", "x".repeat(1 << 20));
        let theirs = run(&format!("/{name}"), 1, 0, &["theirs\n"]);
        let batch = scene.batch(vec![theirs, run("/a", 2, 0, &[&line])]);
        sink.write(&shard(), &batch, 1_795_680_305).unwrap();
        sink.commit(1_795_680_305).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while !scene.kept.rows().chores.is_empty() {
            assert!(std::time::Instant::now() < deadline);
            sink.commit(1_795_680_306).unwrap();
            std::thread::yield_now();
        }
        let mut files = tree(&scene.out(), None);
        assert_eq!(files.remove(&scene.out().join(name)).unwrap(), b"theirs\n", "{name}");
        let mut decompressor = crate::record::compression::Decompressor::default();
        let algorithm = crate::record::compression::Algorithm::Gzip;
        let mut unpacked = files
            .values()
            .filter_map(|bytes| decompressor.decompress(algorithm, bytes, 2 << 20).ok());
        assert!(unpacked.any(|bytes| bytes == line.as_bytes()), "{name}: {:?}", files.keys());
    }
}

#[test]
fn no_source_is_given_a_file_that_is_being_compressed() {
    let mut scene = Scene::new("path: '{file}'");
    let mut sink = scene.open();
    let batch = scene.batch(vec![run("/b", 1, 0, &["b\n"])]);
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    let name = |text: &str| Name::new(text.as_bytes()).unwrap();
    sink.chores.compress(7, name("a"), name("a.gz"));
    // Whether it is done or not: it is not known to be.
    let data = ["/a", "/a.gz", "/a.gz.partial"].into_iter().zip(2..);
    let batch = scene.batch(data.map(|(path, number)| run(path, number, 0, &["c\n"])).collect());
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    let other = format!("web/{SHARD}.log");
    assert_eq!(scene.files(), named(&[("b", "b\n"), (&other, "c\nc\nc\n")]));
}
