//! The patterns of `files` and `exclude`.
//!
//! Invariant: a pattern that passes compiles as a glob in which `*` stays within a directory and
//! `**` stands alone between slashes, and it can match some absolute path.

use globset::{ErrorKind, GlobBuilder};

use crate::config::diagnostic::{At, Mistakes, quote};
use crate::config::limits;
use crate::config::reader::Slot;

/// A pattern and where it stands.
pub(super) type Placed = (String, At);

/// Reads `files`: absolute patterns, at least one, none twice.
pub(super) fn files(slot: Slot<'_>, mistakes: &mut Mistakes) -> Option<Vec<Placed>> {
    let entries = slot.list("as in `files: [\"/var/log/app/*.log\"]`", mistakes)?;
    patterns(entries, absolute, mistakes)
}

/// Reads `exclude`: patterns of paths or of bare names, none of them one of `files`.
pub(super) fn exclude(
    slot: Slot<'_>,
    files: &[Placed],
    mistakes: &mut Mistakes,
) -> Option<Vec<String>> {
    let entries = slot.list("as in `exclude: [\"*.gz\"]`, or leave it out", mistakes)?;
    let patterns = patterns(entries, excluding, mistakes)?;
    let mut kept = Vec::new();
    for (pattern, at) in patterns {
        if files.iter().any(|(included, _)| *included == pattern) {
            let message = format!("`exclude` takes back {} of `files`", quote(&pattern));
            mistakes.tell(at, message, "remove it in one of the two");
        } else {
            kept.push(pattern);
        }
    }
    Some(kept)
}

/// Returns the sound patterns of a list, or `None` where one is not.
fn patterns(
    entries: Vec<Slot<'_>>,
    fault: impl Fn(&str) -> Option<Fault>,
    mistakes: &mut Mistakes,
) -> Option<Vec<Placed>> {
    let mut sound = true;
    let mut kept: Vec<Placed> = Vec::new();
    for slot in entries {
        let Some(pattern) = slot.text(mistakes) else {
            sound = false;
            continue;
        };
        let fault = fault(pattern).or_else(|| glob(pattern));
        let (key, at) = (slot.key, slot.node.at);
        if let Some((what, hint)) = fault {
            mistakes.tell(at, format!("`{key}` holds {}: {what}", quote(pattern)), hint);
            sound = false;
        } else if let Some((_, first)) = kept.iter().find(|(other, _)| other == pattern) {
            let message = format!("`{key}` lists {} twice, first at {first}", quote(pattern));
            mistakes.tell(at, message, "remove one of the two");
        } else {
            kept.push((pattern.to_owned(), at));
        }
    }
    sound.then_some(kept)
}

/// What is wrong with a pattern, and what to do about it.
type Fault = (String, &'static str);

fn absolute(pattern: &str) -> Option<Fault> {
    if !pattern.starts_with('/') {
        let hint = "begin it with `/`; `~` and variables are not expanded";
        return Some(("it is not absolute".to_owned(), hint));
    }
    path(pattern)
}

fn excluding(pattern: &str) -> Option<Fault> {
    if !pattern.contains('/') {
        return None;
    }
    if !pattern.starts_with('/') && !pattern.starts_with("**/") {
        let hint = "begin it with `/` or `**/`, or name a file without any `/`";
        return Some(("it is not absolute".to_owned(), hint));
    }
    path(pattern)
}

/// Finds what makes a path pattern match nothing, or not what it seems to.
fn path(pattern: &str) -> Option<Fault> {
    let fault = |what: &str, hint| Some((what.to_owned(), hint));
    if pattern.ends_with('/') {
        return fault("it names a directory", "add `*` for all files in it");
    }
    if pattern.contains("//") || pattern.split('/').any(|part| part == "." || part == "..") {
        return fault("no file's path holds `//`, `/./` or `/../`", "write the path as it is");
    }
    if pattern.split('/').any(|part| part.contains("**") && part != "**") {
        let hint = "as in `/var/log/**/*.log`";
        return fault("`**` must stand alone between slashes", hint);
    }
    None
}

fn glob(pattern: &str) -> Option<Fault> {
    if pattern.len() > limits::PATTERN_BYTES {
        return Some(("it is longer than any path".to_owned(), ""));
    }
    let error = GlobBuilder::new(pattern).literal_separator(true).build().err()?;
    let what = match error.kind() {
        ErrorKind::UnclosedClass => "its `[` has no `]`".to_owned(),
        ErrorKind::UnclosedAlternates => "its `{` has no `}`".to_owned(),
        ErrorKind::UnopenedAlternates => "its `}` has no `{`".to_owned(),
        ErrorKind::DanglingEscape => "it ends with a backslash".to_owned(),
        ErrorKind::InvalidRange(from, to) => format!("the range `{from}-{to}` runs backwards"),
        other => other.to_string(),
    };
    Some((what, "a backslash before a character takes its meaning away"))
}
