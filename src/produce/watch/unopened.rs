//! Files that came and that nobody has opened yet, followed by what events tell of their names. Pure.
//!
//! Invariant: of every file whose coming was told, it is known where it stands now, or that it was
//! opened, or that it is gone: then it is counted as missed, should anything have been written to it.
//!
//! ```text
//!             written               moved within the directories that are watched
//!  came ──▶ [unopened, by its path] ──────────────────────────────────────────────▶ by its new path
//!                    │ opened ─▶ forgotten        │ gone, or moved where nobody looks ─▶ missed
//! ```

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The number that inotify gives both halves of a rename.
pub type Rename = usize;

/// What an event told of a name, in the order of the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file was made under the path.
    Came(PathBuf),
    /// Something was written to the file under the path.
    Written(PathBuf),
    /// The file under the path was renamed; where to, the step with the same number tells, should that
    /// be watched.
    Left(PathBuf, Rename),
    /// A file was renamed to the path; from where, the step with the same number told.
    Arrived(PathBuf, Rename),
    /// The file under the path was deleted.
    Gone(PathBuf),
}

/// The most files remembered; more of them come at once only where something makes files for fun.
const FILES_MAX: usize = 16 * 1024;

/// The most renames whose second half is awaited: it comes within a few events, or not at all.
const LEAVING_MAX: usize = 64;

/// The files that nobody has opened yet.
#[derive(Debug, Default)]
pub struct Unopened {
    files: HashMap<PathBuf, File>,
    /// What was renamed and has not arrived, oldest first.
    leaving: VecDeque<Leaving>,
    missed: Vec<PathBuf>,
}

/// One of them.
#[derive(Clone, Debug)]
struct File {
    /// The covered path under which it came.
    origin: Arc<Path>,
    /// Whether something was written to it, as far as is known.
    written: bool,
    /// Whether something happened to it since it was looked at.
    fresh: bool,
}

/// A file between the two halves of its rename.
#[derive(Debug)]
struct Leaving {
    rename: Rename,
    path: PathBuf,
    /// Nothing where it was opened, or is none to open.
    file: Option<File>,
    /// Whether a whole scan has passed since.
    late: bool,
}

impl Unopened {
    /// Takes in what happened to a name; `is_covered` says whether a path is one to follow.
    pub fn take(&mut self, step: Step, is_covered: impl Fn(&Path) -> bool) {
        match step {
            Step::Came(path) => self.put(path, false, is_covered),
            Step::Written(path) => {
                if let Some(file) = self.files.get_mut(&path) {
                    file.written = true;
                    file.fresh = true;
                }
            }
            Step::Left(path, rename) => {
                let file = self.files.remove(&path);
                self.leaving.push_back(Leaving { rename, path, file, late: false });
                if self.leaving.len() > LEAVING_MAX {
                    self.lose_one();
                }
            }
            Step::Arrived(path, rename) => {
                let at = self.leaving.iter().position(|leaving| leaving.rename == rename);
                match at.and_then(|at| self.leaving.remove(at)) {
                    Some(Leaving { file: Some(file), .. }) => {
                        self.miss(&path);
                        self.files.insert(path, File { fresh: true, ..file });
                    }
                    // What was opened is known by its inode, whatever it is called.
                    Some(left) if is_covered(&left.path) => self.miss(&path),
                    _ => self.put(path, true, is_covered),
                }
            }
            Step::Gone(path) => self.miss(&path),
        }
    }

    /// A scan is over: what had left before the last one, and not arrived since, is gone.
    pub fn scanned(&mut self) {
        while self.leaving.front().is_some_and(|leaving| leaving.late) {
            self.lose_one();
        }
        for leaving in &mut self.leaving {
            leaving.late = true;
        }
    }

    fn lose_one(&mut self) {
        if let Some(Leaving { path, file: Some(file), .. }) = self.leaving.pop_front()
            && file.written
        {
            self.missed.push(path);
        }
    }

    /// The file under `path` was opened, or need not be.
    pub fn opened(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// Nothing is known of any file any more: events were lost.
    pub fn forget(&mut self) {
        self.files.clear();
        self.leaving.clear();
    }

    /// The file under `path` could not be opened: it is to be looked at again.
    pub fn look_again(&mut self, path: &Path) {
        if let Some(file) = self.files.get_mut(path) {
            file.fresh = true;
        }
    }

    /// Returns where the files stand to which something happened since the last call, each with the
    /// covered path under which it came.
    pub fn take_fresh(&mut self) -> Vec<(PathBuf, Arc<Path>)> {
        let take = |(path, file): (&PathBuf, &mut File)| {
            let fresh = std::mem::take(&mut file.fresh);
            fresh.then(|| (path.clone(), Arc::clone(&file.origin)))
        };
        self.files.iter_mut().filter_map(take).collect()
    }

    /// Takes out the paths of files that were written and are gone.
    pub fn take_missed(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.missed)
    }

    fn put(&mut self, path: PathBuf, written: bool, is_covered: impl Fn(&Path) -> bool) {
        self.miss(&path);
        if is_covered(&path) && self.files.len() < FILES_MAX {
            let origin = Arc::from(path.as_path());
            self.files.insert(path, File { origin, written, fresh: true });
        }
    }

    /// No file stands under the path any more.
    fn miss(&mut self, path: &Path) {
        if let Some(file) = self.files.remove(path)
            && file.written
        {
            self.missed.push(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_covered(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "log")
    }

    fn after(steps: &[Step]) -> (Vec<(PathBuf, Arc<Path>)>, Vec<PathBuf>) {
        let mut unopened = Unopened::default();
        for step in steps {
            unopened.take(step.clone(), is_covered);
        }
        let mut paths = unopened.take_fresh();
        assert_eq!(unopened.take_fresh(), []);
        paths.sort();
        (paths, unopened.take_missed())
    }

    fn came(path: &str) -> Step {
        Step::Came(path.into())
    }

    fn written(path: &str) -> Step {
        Step::Written(path.into())
    }

    fn gone(path: &str) -> Step {
        Step::Gone(path.into())
    }

    /// A rename, with something else told between its halves.
    fn moved(from: &str, to: &str) -> [Step; 3] {
        [Step::Left(from.into(), 7), came(from), Step::Arrived(to.into(), 7)]
    }

    fn standing(paths: &[(&str, &str)]) -> Vec<(PathBuf, Arc<Path>)> {
        let pair = |(path, origin): &(&str, &str)| (path.into(), Arc::from(Path::new(origin)));
        paths.iter().map(pair).collect()
    }

    #[test]
    fn a_file_is_known_under_the_name_it_has_now() {
        let steps = [
            &[came("a.log"), written("a.log")][..],
            &moved("a.log", "a.log.1"),
            &[written("a.log")],
            &moved("a.log.1", "a.log.2"),
            &moved("a.log", "a.log.1"),
        ];
        let expected = [("a.log", "a.log"), ("a.log.1", "a.log"), ("a.log.2", "a.log")];
        assert_eq!(after(&steps.concat()), (standing(&expected), vec![]));
    }

    #[test]
    fn what_was_written_and_is_gone_was_missed() {
        let steps = [came("a.log"), written("a.log"), gone("a.log"), came("a.log"), gone("a.log")];
        assert_eq!(after(&steps), (vec![], vec![PathBuf::from("a.log")]));
    }

    #[test]
    fn what_was_moved_where_nobody_looks_was_missed_once_a_scan_has_passed() {
        let mut unopened = Unopened::default();
        for step in [came("a.log"), written("a.log"), Step::Left("a.log".into(), 1)] {
            unopened.take(step, is_covered);
        }
        unopened.scanned();
        assert_eq!(unopened.take_missed(), Vec::<PathBuf>::new());
        unopened.scanned();
        assert_eq!(unopened.take_missed(), [PathBuf::from("a.log")]);
        unopened.scanned();
        assert_eq!(unopened.take_missed(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_is_replaced_unopened_was_missed() {
        let steps = [
            &[came("a.log"), written("a.log"), came("b.log"), written("b.log")][..],
            &moved("b.log", "a.log"),
        ];
        let standing = standing(&[("a.log", "b.log"), ("b.log", "b.log")]);
        let expected = (standing, vec![PathBuf::from("a.log")]);
        assert_eq!(after(&steps.concat()), expected);
    }

    #[test]
    fn files_outside_the_patterns_are_nobody_s() {
        let steps =
            [&[came("a.txt"), written("a.txt"), gone("a.txt")][..], &moved("a.tmp", "b.tmp")];
        assert_eq!(after(&steps.concat()), (vec![], vec![]));
    }

    #[test]
    fn what_is_moved_into_the_pattern_has_come() {
        let into = Step::Arrived("a.log".into(), 1);
        let steps = [&[into][..], &moved("b.tmp", "b.log")];
        let expected = standing(&[("a.log", "a.log"), ("b.log", "b.log")]);
        assert_eq!(after(&steps.concat()), (expected, vec![]));
    }

    #[test]
    fn what_was_opened_is_followed_by_its_inode() {
        let new = standing(&[("opened.log", "opened.log")]);
        assert_eq!(after(&moved("opened.log", "opened.log.1")), (new, vec![]));
        let mut unopened = Unopened::default();
        unopened.take(came("a.log"), is_covered);
        unopened.take(written("a.log"), is_covered);
        unopened.opened(Path::new("a.log"));
        unopened.take(gone("a.log"), is_covered);
        assert_eq!(unopened.take_missed(), Vec::<PathBuf>::new());
    }
}
