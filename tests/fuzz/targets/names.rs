//! Names out of records, by every template: whoever wrote the record, what is opened is the file of
//! that name beneath the root, where a link that leads outside is planted, or nothing is opened.

#![no_main]

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use kinetail::config::template::{Template, Variable};
use kinetail::consume::path::{Name, Root, Values, expand};
use libfuzzer_sys::fuzz_target;

/// The defaults of both layouts, and where a name stands alone or runs into its neighbours.
const TEMPLATES: [&str; 6] = [
    "{host}/{path}",
    "{stream}/{host}/{file}",
    "{path}",
    "{file}",
    "x{host}{path}y",
    "{file}.{host}",
];

/// A link beneath the root to the directory that the root stands in.
const LINK: &str = "l";

/// The most inputs whose files are left lying, so that names meet what others have made.
const LEFT: usize = 64;

struct Scene {
    root: Root,
    path: PathBuf,
    left: usize,
}

thread_local! {
    /// Made once: a directory costs more than most inputs.
    static SCENE: RefCell<Scene> = RefCell::new(Scene::new());
}

fuzz_target!(|data: &[u8]| {
    let Some((&length, rest)) = data.split_first() else { return };
    let (host, path) = rest.split_at(usize::from(length).min(rest.len()));
    // As the tags are read: a host that is not UTF-8 says nothing.
    let Ok(host) = str::from_utf8(host) else { return };
    let values =
        Values { stream: "web", shard: "shardId-000000000000", source: Some((host, path)) };
    let expanded = TEMPLATES.iter().filter_map(|text| {
        let template = Template::parse(text, &Variable::ALL).expect("a template");
        expand(&template, values).ok()
    });
    let names: Vec<Name> = expanded.chain(Name::new(rest)).collect();
    SCENE.with_borrow_mut(|scene| {
        for name in &names {
            scene.check(name);
            if let Ok(longer) = name.with_suffix(".1") {
                scene.check(&longer);
            }
        }
        scene.clear();
    });
});

impl Scene {
    fn new() -> Self {
        // In memory where that can be had, for whatever is made is synced.
        let shared = PathBuf::from("/dev/shm");
        let parent = if shared.is_dir() { shared } else { std::env::temp_dir() };
        let outside = parent.join(format!("kinetail-names-{}", std::process::id()));
        let path = outside.join("root");
        // What a run left that had the same number.
        let _ = fs::remove_dir_all(&outside);
        fs::create_dir_all(&path).expect("a directory");
        symlink(&outside, path.join(LINK)).expect("a link");
        let path = path.canonicalize().expect("a path without links");
        Self { root: Root::open(&path).expect("a root"), path, left: 0 }
    }

    fn check(&mut self, name: &Name) {
        let bytes = name.as_bytes();
        assert!(bytes.len() <= 2048, "the root has room before it");
        for part in bytes.split(|&byte| byte == b'/') {
            assert!(!matches!(part, b"" | b"." | b".."), "{name:?}");
            assert!(part.len() <= 255, "{name:?}");
        }
        assert!(bytes.iter().all(|byte| !byte.is_ascii_control()), "{name:?}");
        let relative = Path::new(OsStr::from_bytes(bytes));
        assert!(relative.components().all(|part| matches!(part, Component::Normal(_))), "{name:?}");
        // Others stand in the way of some names, and the system takes not every one.
        let Ok(file) = self.root.create(name) else { return };
        let opened = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        assert_eq!(opened.expect("an open file"), self.path.join(relative), "nowhere else");
        assert_eq!(self.root.size(name).expect("a file"), Some(0), "it is found again");
        self.left += 1;
    }

    /// Empties the root, after some inputs.
    fn clear(&mut self) {
        if self.left < LEFT {
            return;
        }
        self.left = 0;
        for entry in fs::read_dir(&self.path).expect("the root") {
            let path = entry.expect("an entry").path();
            if path.file_name() == Some(OsStr::new(LINK)) {
                continue;
            }
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.expect("it was made here");
        }
        let outside = self.path.parent().expect("the root stands in a directory");
        assert_eq!(
            fs::read_dir(outside).expect("a directory").count(),
            1,
            "nothing beside the root"
        );
    }
}
