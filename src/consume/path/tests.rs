//! What names are taken, and that none leads outside.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn template(text: &str) -> Template {
    Template::parse(text, &Variable::ALL).unwrap()
}

fn values<'a>(host: &'a str, path: &'a [u8]) -> Values<'a> {
    Values { stream: "web", shard: "shardId-000000000001", source: Some((host, path)) }
}

fn expanded(text: &str, host: &str, path: &[u8]) -> Result<String, Refused> {
    expand(&template(text), values(host, path)).map(|name| name.to_string())
}

#[test]
fn templates_give_names_beneath_the_root() {
    let path = b"/var/log/nginx/access.log";
    let cases = [
        ("{stream}/{host}/{file}", "web/web-1/access.log"),
        ("{host}/{path}", "web-1/var/log/nginx/access.log"),
        ("{shard}-{file}.txt", "shardId-000000000001-access.log.txt"),
    ];
    for (text, name) in cases {
        assert_eq!(expanded(text, "web-1", path).unwrap(), name);
    }
    let other = Values { source: None, ..values("", b"") };
    assert_eq!(expand(&template("{host}/x"), other), Err(Refused::Unknown));
    assert!(expand(&template("{stream}/{shard}"), other).is_ok());
    let bytes = expand(&template("{host}/{path}"), values("h", b"/caf\xe9.log")).unwrap();
    assert_eq!(bytes.as_bytes(), b"h/caf\xe9.log");
}

#[test]
fn names_that_could_lead_elsewhere_or_mislead_are_refused() {
    for (host, path, why) in [
        ("h", &b"/../../etc/passwd"[..], Refused::Dots),
        ("h", b"/var/log/../../x", Refused::Dots),
        ("..", b"/x", Refused::Dots),
        ("", b"/x", Refused::Dots),
        ("h", b"", Refused::Dots),
        ("h", b"/", Refused::Dots),
        ("h", b"//x", Refused::Dots),
        ("h", b"/x/", Refused::Dots),
        ("h", b"/./x", Refused::Dots),
        ("a/b", b"/x", Refused::Host),
        ("/etc", b"/x", Refused::Host),
        ("h", b"/a\0b", Refused::Control),
        ("h", b"/a\nb", Refused::Control),
        ("h", b"/a\x1b[2Jb", Refused::Control),
        ("h", "/a\u{202e}gol.b".as_bytes(), Refused::Control),
        ("h\u{85}", b"/x", Refused::Control),
        ("h", &[b'x'; 300], Refused::Long),
        ("h", &b"/x".repeat(2000), Refused::Long),
        ("h", &b"/x".repeat(70), Refused::Deep),
    ] {
        assert_eq!(expanded("{host}/{path}", host, path), Err(why), "{host} {path:?}");
    }
    // `x..` beside text is a name; `..` made of two parts is not.
    assert!(expanded("{file}.{host}", "h", b"/x.").is_ok());
    assert_eq!(expanded("{host}.{file}", "", b"/x"), Err(Refused::Dots));
}

/// A root in a directory with something beside it that must stay as it is.
fn root() -> (tempfile::TempDir, Root, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let path = outer.path().join("root");
    let root = Root::open(&path).unwrap();
    std::fs::write(outer.path().join("secret"), "untouched").unwrap();
    (outer, root, path)
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[test]
fn a_name_beside_another_shares_no_directory_with_it() {
    for (text, beside) in [("a", "a.x"), ("a/b/c.log", "a.x/b/c.log")] {
        assert_eq!(name(text).beside(".x"), Ok(name(beside)));
    }
    assert_eq!(name(&"a".repeat(255)).beside(".x"), Err(Refused::Long));
}

#[test]
fn files_are_made_with_their_directories_and_modes() {
    let (_outer, root, path) = root();
    drop(root.create(&name("a/b/c.log")).unwrap());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path.join("a/b/c.log")), 0o640);
    assert_eq!(mode(&path.join("a")) & 0o027, 0, "nobody else, and the group does not write");
    assert_eq!(root.size(&name("a/b/c.log")).unwrap(), Some(0));
    assert_eq!(root.size(&name("a/x")).unwrap(), None);
    root.rename(&name("a/b/c.log"), &name("a/d.log")).unwrap();
    drop(root.create(&name("a/e.log")).unwrap());
    let taken = root.rename(&name("a/d.log"), &name("a/e.log")).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    root.remove(&name("a/d.log")).unwrap();
    let gone = root.open_file(&name("a/d.log")).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[test]
fn planted_links_and_other_things_are_not_followed() {
    let (outer, root, path) = root();
    symlink(outer.path(), path.join("out")).unwrap();
    symlink(outer.path().join("secret"), path.join("file")).unwrap();
    std::fs::create_dir(path.join("directory")).unwrap();
    assert!(
        std::process::Command::new("mkfifo").arg(path.join("pipe")).status().unwrap().success()
    );
    for text in ["out/secret", "file", "file/x", "directory", "pipe"] {
        assert!(root.create(&name(text)).is_err(), "{text}");
        assert!(root.open_file(&name(text)).is_err(), "{text}");
    }
    assert!(root.create(&name("out/new")).is_err());
    assert!(root.rename(&name("out/secret"), &name("x")).is_err());
    assert!(root.remove(&name("out/secret")).is_err());
    let secret = std::fs::read(outer.path().join("secret")).unwrap();
    assert_eq!(secret, b"untouched");
    assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 2);
}

#[test]
fn part_by_part_the_same_is_refused() {
    let (outer, root, path) = root();
    drop(root.create(&name("a/b.log")).unwrap());
    symlink(outer.path(), path.join("out")).unwrap();
    symlink(outer.path().join("secret"), path.join("a/link")).unwrap();
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let walk = |text: &str| {
        super::walk(root.directory.as_fd(), OsStr::new(text), flags, Mode::empty()).map(drop)
    };
    assert_eq!(walk("a/b.log"), Ok(()));
    for text in ["out/secret", "a/link", "a/link/x"] {
        assert!(walk(text).is_err(), "{text}");
    }
}

proptest! {
    /// forall hosts and paths: what is expanded stays beneath the root, by its text.
    #[test]
    fn no_name_leaves_the_root(
        host in "[a-c./\\x00-\\x1f]{0,6}|.{0,8}",
        path in prop::collection::vec(prop::sample::select(b"ab./\0\n\xff".to_vec()), 0..12),
    ) {
        for text in ["{host}/{path}", "{stream}/{host}/{file}", "x{host}{path}", "{file}.{host}"] {
            if let Ok(name) = expand(&template(text), values(&host, &path)) {
                let path = name.as_path();
                prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
                prop_assert!(!name.as_bytes().contains(&0));
            }
        }
    }
}
