//! Which paths a flow covers: globs, expanded a component at a time so that only directories that
//! can hold a match are read.
//!
//! Invariant: a walk finds exactly the regular files for which `matches` is true, whatever
//! directories cannot be read (those are reported, and stop nothing else).
//!
//! `*`, `?`, `[…]` and `{…}` never cross a `/` nor match a leading dot; `**` as a component crosses any
//! number of directories, and does not follow symbolic links to directories.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{DirEntry, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobMatcher};

use super::facts::Facts;

/// The files of a flow.
#[derive(Debug)]
pub struct Patterns {
    include: Vec<Vec<Step>>,
    exclude: Vec<Exclude>,
}

/// One component of a pattern.
#[derive(Debug)]
enum Step {
    /// Any number of directories.
    Any,
    /// A name that is matched.
    Glob { glob: GlobMatcher, dotted: bool },
    /// A name as it stands.
    Name(PathBuf),
}

/// A pattern of what to leave out.
#[derive(Debug)]
enum Exclude {
    /// Matched against the file's name.
    Name(GlobMatcher),
    /// Matched against the whole path.
    Path(GlobMatcher),
}

/// A file that a scan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path.
    pub path: PathBuf,
    /// Its facts (of the target, where the path is a symbolic link).
    pub facts: Facts,
    /// Whether the path is a symbolic link: its target's changes are not seen in its directory.
    pub linked: bool,
}

/// What a walk saw beside the files.
#[derive(Debug, Default)]
pub struct Walk {
    /// The directories that hold or can hold matches: the ones to watch.
    pub directories: BTreeSet<PathBuf>,
    /// What could not be read, and why.
    pub problems: Vec<(PathBuf, io::Error)>,
}

/// The files there are, for people.
#[derive(Debug, Default)]
pub struct Scan {
    /// The files, by path.
    pub files: Vec<Found>,
    /// What could not be read, and why.
    pub problems: Vec<(PathBuf, io::Error)>,
}

impl Patterns {
    /// Compiles the globs.
    ///
    /// # Errors
    /// The first glob that does not compile.
    pub fn new(files: &[String], exclude: &[String]) -> Result<Self, globset::Error> {
        let include = files
            .iter()
            .flat_map(|glob| alternatives(glob))
            .map(|glob| steps(&glob))
            .collect::<Result<_, _>>()?;
        let exclude = exclude.iter().map(|glob| Exclude::new(glob)).collect::<Result<_, _>>()?;
        Ok(Self { include, exclude })
    }

    /// Returns true where the flow covers `path`, an absolute one.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        let names: Vec<&OsStr> = path
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name),
                _ => None,
            })
            .collect();
        !self.excludes(path) && self.include.iter().any(|steps| steps_match(steps, &names))
    }

    /// Looks through all patterns.
    #[must_use]
    pub fn scan(&self) -> Scan {
        let mut files = Vec::new();
        let Walk { problems, .. } = self.walk(&mut |found| files.push(found));
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files.dedup_by(|one, other| one.path == other.path);
        Scan { files, problems }
    }

    /// Hands each file that is there to `found`, in no order, and again for every pattern that covers
    /// it: nothing is kept of them here, however many they are.
    pub fn walk(&self, found: &mut dyn FnMut(Found)) -> Walk {
        let mut walker = Walker { patterns: self, found, walk: Walk::default() };
        for steps in &self.include {
            walker.expand(Path::new("/"), steps);
        }
        walker.walk
    }

    fn excludes(&self, path: &Path) -> bool {
        self.exclude.iter().any(|exclude| match exclude {
            Exclude::Name(glob) => path.file_name().is_some_and(|name| glob.is_match(name)),
            Exclude::Path(glob) => glob.is_match(path),
        })
    }
}

/// A walk under way. It recurses a component of the pattern at a time, not a directory at a time:
/// however deep a tree is, the stack is not.
struct Walker<'a> {
    patterns: &'a Patterns,
    found: &'a mut dyn FnMut(Found),
    walk: Walk,
}

impl Walker<'_> {
    fn expand(&mut self, directory: &Path, steps: &[Step]) {
        match steps {
            [] => {}
            [Step::Name(name), rest @ ..] => {
                let path = directory.join(name);
                if rest.is_empty() {
                    self.walk.directories.insert(directory.to_path_buf());
                    self.look(&path, || path.symlink_metadata());
                } else {
                    self.expand(&path, rest);
                }
            }
            [Step::Glob { .. }, ..] => {
                if self.list(directory, &mut |own, entry| own.enter(entry, steps)) {
                    self.walk.directories.insert(directory.to_path_buf());
                }
            }
            [Step::Any, rest @ ..] => self.expand_any(directory, rest),
        }
    }

    fn expand_any(&mut self, directory: &Path, rest: &[Step]) {
        let in_place = matches!(rest, [Step::Glob { .. }, ..]);
        let mut left = vec![directory.to_path_buf()];
        while let Some(directory) = left.pop() {
            let listed = self.list(&directory, &mut |own, entry| {
                let is_below = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_below && !is_dotted(&entry.file_name()) {
                    left.push(entry.path());
                }
                if in_place {
                    own.enter(entry, rest);
                }
            });
            if !in_place {
                self.expand(&directory, rest);
            } else if listed {
                self.walk.directories.insert(directory);
            }
        }
    }

    /// Reads a directory; returns true where that is possible.
    fn list(&mut self, directory: &Path, each: &mut dyn FnMut(&mut Self, &DirEntry)) -> bool {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.problem(directory, error);
                return false;
            }
        };
        for entry in entries {
            match entry {
                Ok(entry) => each(self, &entry),
                Err(error) => {
                    self.problem(directory, error);
                    break;
                }
            }
        }
        true
    }

    /// Goes on with an entry whose name the first of `steps` may match.
    fn enter(&mut self, entry: &DirEntry, steps: &[Step]) {
        let [Step::Glob { glob, dotted }, rest @ ..] = steps else { return };
        if !name_matches(glob, *dotted, &entry.file_name()) {
            return;
        }
        let path = entry.path();
        if rest.is_empty() {
            // Looked up in its directory, which is open: the way there need not be walked again.
            self.look(&path, || entry.metadata());
        } else if is_directory(&path) {
            self.expand(&path, rest);
        }
    }

    fn look(&mut self, path: &Path, own: impl FnOnce() -> io::Result<Metadata>) {
        if self.patterns.excludes(path) {
            return;
        }
        match own().and_then(|own| resolve(path, own)) {
            Ok(Some(found)) => (self.found)(found),
            Ok(None) => {}
            Err(error) => self.problem(path, error),
        }
    }

    /// What does not exist is no problem: it may come.
    fn problem(&mut self, path: &Path, error: io::Error) {
        if !is_absence(&error) {
            self.walk.problems.push((path.to_path_buf(), error));
        }
    }
}

impl Exclude {
    fn new(glob: &str) -> Result<Self, globset::Error> {
        let compiled = GlobBuilder::new(glob).literal_separator(true).build()?.compile_matcher();
        Ok(if glob.contains('/') { Self::Path(compiled) } else { Self::Name(compiled) })
    }
}

/// Returns the regular file at `path`, nothing where there is none (a directory, a pipe, a dangling link).
///
/// # Errors
/// What keeps it from being looked at, such as a directory that may not be searched.
pub fn find(path: &Path) -> io::Result<Option<Found>> {
    match std::fs::symlink_metadata(path).and_then(|own| resolve(path, own)) {
        Err(error) if is_absence(&error) => Ok(None),
        looked => looked,
    }
}

/// Returns the file that a path stands for, through a symbolic link too; `own` is said of the path itself.
fn resolve(path: &Path, own: Metadata) -> io::Result<Option<Found>> {
    let linked = own.is_symlink();
    let metadata = if linked { std::fs::metadata(path)? } else { own };
    let facts = Facts::of(&metadata);
    Ok(metadata.is_file().then(|| Found { path: path.to_path_buf(), facts, linked }))
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_directory(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn is_dotted(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

fn name_matches(glob: &GlobMatcher, dotted: bool, name: &OsStr) -> bool {
    (dotted || !is_dotted(name)) && glob.is_match(name)
}

fn steps(pattern: &str) -> Result<Vec<Step>, globset::Error> {
    // Validated whole first, so that an error shows the pattern as it was written.
    Glob::new(pattern)?;
    pattern.split('/').filter(|component| !component.is_empty()).map(step).collect()
}

fn step(component: &str) -> Result<Step, globset::Error> {
    if component == "**" {
        return Ok(Step::Any);
    }
    if !component.contains(['*', '?', '[', '{', '\\']) {
        return Ok(Step::Name(PathBuf::from(component)));
    }
    let glob = GlobBuilder::new(component).literal_separator(true).build()?.compile_matcher();
    Ok(Step::Glob { glob, dotted: component.starts_with('.') })
}

/// Writes braces that hold a `/` out, `/{a,b/c}/d` as `/a/d` and `/b/c/d`: a component cannot match them.
fn alternatives(pattern: &str) -> Vec<String> {
    let Some((before, inner, after)) = slashed_brace(pattern) else {
        return vec![pattern.to_owned()];
    };
    let mut depth = 0_usize;
    let choices = inner.split(move |letter| {
        match letter {
            '{' => depth = depth.saturating_add(1),
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ',' && depth == 0
    });
    choices.flat_map(|choice| alternatives(&format!("{before}{choice}{after}"))).collect()
}

/// Finds the first outermost `{…}` with a `/` in it: what stands before, in and after it.
fn slashed_brace(pattern: &str) -> Option<(&str, &str, &str)> {
    let mut depth = 0_usize;
    let mut open = 0;
    for (at, letter) in pattern.char_indices() {
        match letter {
            '{' => {
                if depth == 0 {
                    open = at;
                }
                depth = depth.saturating_add(1);
            }
            '}' => {
                depth = depth.saturating_sub(1);
                let inner = pattern.get(open.saturating_add(1)..at).unwrap_or_default();
                if depth == 0 && inner.contains('/') {
                    let after = pattern.get(at.saturating_add(1)..)?;
                    return Some((pattern.get(..open)?, inner, after));
                }
            }
            _ => {}
        }
    }
    None
}

fn steps_match(steps: &[Step], names: &[&OsStr]) -> bool {
    match (steps, names) {
        ([], []) => true,
        ([Step::Any, rest @ ..], _) => {
            steps_match(rest, names)
                || names.split_first().is_some_and(|(first, others)| {
                    !others.is_empty() && !is_dotted(first) && steps_match(steps, others)
                })
        }
        ([Step::Name(own), rest @ ..], [name, names @ ..]) => {
            own.as_os_str() == *name && steps_match(rest, names)
        }
        ([Step::Glob { glob, dotted }, rest @ ..], [name, names @ ..]) => {
            name_matches(glob, *dotted, name) && steps_match(rest, names)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn patterns(files: &[&str], exclude: &[&str]) -> Patterns {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        Patterns::new(&own(files), &own(exclude)).unwrap()
    }

    fn tree(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"line\n").unwrap();
        }
    }

    fn names(root: &Path, scan: &Scan) -> Vec<String> {
        let relative = |found: &Found| found.path.strip_prefix(root).unwrap().to_owned();
        scan.files.iter().map(|found| relative(found).display().to_string()).collect()
    }

    #[test]
    fn a_scan_finds_what_the_patterns_cover_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let all = ["a/x.log", "a/y.log.gz", "a/.hidden.log", "b/c/z.log", "b/.git/w.log", "v.txt"];
        tree(root, &all);
        let at = |glob: &str| format!("{}/{glob}", root.display());
        for (files, exclude, expected) in [
            (vec!["a/*.log"], vec![], vec!["a/x.log"]),
            (vec!["a/*"], vec!["*.gz"], vec!["a/x.log"]),
            (vec!["**/*.log"], vec![], vec!["a/x.log", "b/c/z.log"]),
            (vec!["**/*.log", "a/x.log"], vec![], vec!["a/x.log", "b/c/z.log"]),
            (vec!["*/c/z.log"], vec![], vec!["b/c/z.log"]),
            (vec!["{a,b/c}/*.log"], vec![], vec!["a/x.log", "b/c/z.log"]),
            (vec!["a/.*.log"], vec![], vec!["a/.hidden.log"]),
            (vec!["missing/*.log", "v.txt"], vec![], vec!["v.txt"]),
            (vec!["a"], vec![], vec![]),
        ] {
            let globs: Vec<String> = files.iter().map(|glob| at(glob)).collect();
            let globs: Vec<&str> = globs.iter().map(String::as_str).collect();
            let patterns = patterns(&globs, &exclude);
            let scan = patterns.scan();
            assert_eq!(names(root, &scan), expected, "{files:?}");
            assert!(scan.problems.is_empty(), "{:?}", scan.problems);
            for file in all {
                let covered = expected.contains(&file);
                assert_eq!(patterns.matches(&root.join(file)), covered, "{files:?} {file}");
            }
        }
    }

    #[test]
    fn a_link_to_a_file_is_found_and_a_loop_ends() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        tree(root, &["real/app.log"]);
        std::os::unix::fs::symlink(root.join("real/app.log"), root.join("now.log")).unwrap();
        std::os::unix::fs::symlink(root, root.join("real/loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("dangling.log")).unwrap();
        let scan = patterns(&[&format!("{}/**/*.log", root.display())], &[]).scan();
        assert_eq!(names(root, &scan), ["now.log", "real/app.log"]);
        assert!(scan.files[0].linked && !scan.files[1].linked);
        assert_eq!(scan.files[0].facts, scan.files[1].facts);
    }

    #[test]
    fn directories_to_watch_include_those_that_may_get_a_match() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        tree(root, &["srv/one/log/a.log"]);
        fs::create_dir_all(root.join("srv/two/log")).unwrap();
        let patterns = patterns(&[&format!("{}/srv/*/log/*.log", root.display())], &[]);
        let walk = patterns.walk(&mut |_| {});
        for watched in ["srv", "srv/one/log", "srv/two/log"] {
            assert!(walk.directories.contains(&root.join(watched)), "{watched}");
        }
    }
}
