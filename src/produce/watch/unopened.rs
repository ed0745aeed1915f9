//! Files that came, followed by what events tell of their names until it is certain that they were
//! opened. Pure.
//!
//! Events come late: by the time a path is looked at, a later file may stand there, never an earlier one.
//! So a look only *claims* a file for the one that came, and every move asks for another look. Of the
//! files that were claimed for one the oldest is right, and of those that one was claimed for the youngest.
//!
//! Invariant: of every file whose coming was told, it is known where it stands now, or that it was
//! opened, or that it is gone: then it is counted as missed, should anything have been written to it
//! and nobody have opened it.
//!
//! ```text
//!             written               moved within the directories that are watched
//!  came ──▶ [by its path] ──────────────────────────────────────────────▶ by its new path
//!                    │ opened, and quiet           │ gone, or moved where nobody looks
//!                    ▼                             ▼
//!                forgotten                   opened ? forgotten : missed
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::facts::Place;

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

/// An opened file: where it stands and when it was born, for its inode may be used again before its
/// deletion is told.
pub type Claim = (Place, u64);

/// A file that was written and is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Where it stood last.
    pub path: PathBuf,
    /// The opened file that was claimed for it: it was missed only if that is still there, and so
    /// another one. Nothing where none was.
    pub claimed: Option<Claim>,
    /// The covered path under which it came.
    pub origin: Arc<Path>,
    /// Whether it was written to, and its coming, or its moving, was told: only then can it have been missed.
    pub came: bool,
    /// Whether it was deleted, or replaced. Else it was moved where nobody looks, and no more is told of it.
    pub deleted: bool,
}

/// The files that came.
#[derive(Debug, Default)]
pub struct Unopened {
    files: HashMap<Id, File>,
    paths: HashMap<PathBuf, Id>,
    /// Which file an opened one is taken for.
    claims: HashMap<Claim, Id>,
    /// The files to which something happened since they were looked at.
    fresh: BTreeSet<Id>,
    next: Id,
    /// What was renamed and has not arrived, oldest first.
    leaving: VecDeque<Leaving>,
    gone: Vec<Gone>,
}

/// Numbers files in the order of their coming.
type Id = u64;

/// One of them.
#[derive(Clone, Debug)]
struct File {
    path: PathBuf,
    /// The covered path under which it came.
    origin: Arc<Path>,
    /// Whether something was written to it, as far as is known.
    written: bool,
    /// The opened file that a look found under its path.
    claimed: Option<Claim>,
    /// Whether a whole scan has passed since that look.
    late: bool,
}

/// A file between the two halves of its rename.
#[derive(Debug)]
struct Leaving {
    rename: Rename,
    path: PathBuf,
    /// Nothing where it was opened long ago, or is none to open.
    file: Option<Id>,
    /// Whether a whole scan has passed since.
    late: bool,
}

impl Unopened {
    /// Takes in what happened to a name; `is_covered` says whether a path is one to follow.
    pub fn take(&mut self, step: Step, is_covered: impl Fn(&Path) -> bool) {
        match step {
            Step::Came(path) => self.put(&path, &path, false, is_covered),
            Step::Written(path) => {
                let id = self.paths.get(&path).copied();
                if let Some((id, file)) = id.and_then(|id| Some((id, self.files.get_mut(&id)?))) {
                    file.written = true;
                    self.fresh.insert(id);
                }
            }
            Step::Left(path, rename) => {
                let file = self.paths.remove(&path);
                self.leaving.push_back(Leaving { rename, path, file, late: false });
                if self.leaving.len() > LEAVING_MAX {
                    self.lose_one();
                }
            }
            Step::Arrived(path, rename) => {
                self.lose(&path);
                let at = self.leaving.iter().position(|leaving| leaving.rename == rename);
                match at.and_then(|at| self.leaving.remove(at)) {
                    Some(Leaving { file: Some(id), .. }) => self.move_to(path, id),
                    // Known by its inode, most likely; a look will tell.
                    Some(left) if is_covered(&left.path) => {
                        self.put(&path, &left.path, true, is_covered);
                    }
                    _ => self.put(&path, &path, true, is_covered),
                }
            }
            Step::Gone(path) if self.paths.contains_key(&path) => self.lose(&path),
            // Opened long ago, or known from the start: whoever is told need not be told twice.
            Step::Gone(path) => {
                let origin = Arc::from(path.as_path());
                self.gone.push(Gone { path, claimed: None, origin, came: false, deleted: true });
            }
        }
    }

    /// A scan is over: what had left before the last one, and not arrived since, is gone; and what was
    /// opened before it, and did not move since, is what it was taken for.
    pub fn scanned(&mut self) {
        while self.leaving.front().is_some_and(|leaving| leaving.late) {
            self.lose_one();
        }
        for leaving in &mut self.leaving {
            leaving.late = true;
        }
        let is_certain = |file: &File| file.late && file.claimed.is_some();
        self.files.retain(|id, file| {
            let forgotten = is_certain(file) && self.paths.get(&file.path) == Some(id);
            if forgotten {
                self.paths.remove(&file.path);
                self.fresh.remove(id);
                file.claimed.and_then(|claim| self.claims.remove(&claim));
            }
            file.late = true;
            !forgotten
        });
    }

    /// The file under `path` stands in `place`, was born at `birth`, and is open or need not be.
    pub fn opened(&mut self, path: &Path, place: Place, birth: u64) {
        let Some((id, file)) = self.paths.get(path).and_then(|id| Some((*id, self.files.get(id)?)))
        else {
            return;
        };
        let claim = (place, birth);
        let other = self.claims.get(&claim).copied().filter(|other| *other != id);
        let has_older = file.claimed.is_some_and(|known| known != claim && known.1 <= birth);
        if has_older || other.is_some_and(|other| other > id) {
            // The look came late: the file had moved on, and a later one stands there.
            return;
        }
        if let Some(other) = other
            && let Some(other_file) = self.files.get_mut(&other)
        {
            other_file.claimed = None;
            self.fresh.insert(other);
        }
        self.claims.insert(claim, id);
        let Some(file) = self.files.get_mut(&id) else { return };
        file.late = false;
        if let Some(before) = file.claimed.replace(claim).filter(|before| *before != claim) {
            self.claims.remove(&before);
        }
    }

    /// An opened file was let go before anything was written to it: as if nobody had opened it.
    pub fn let_go(&mut self, opened: Claim) {
        let id = self.claims.remove(&opened);
        if let Some(file) = id.and_then(|id| self.files.get_mut(&id)) {
            file.claimed = None;
        }
    }

    /// Nothing is known of any file any more: events were lost. What is not known to be open counts as gone.
    pub fn forget(&mut self) {
        let files = std::mem::take(self);
        self.next = files.next;
        self.gone = files.gone;
        let unclaimed = files.files.into_values().filter(|file| file.claimed.is_none());
        self.gone.extend(unclaimed.filter(|file| file.written).map(Gone::from));
    }

    /// Returns true where an opened file is taken for one that came.
    #[must_use]
    pub fn is_claimed(&self, opened: Claim) -> bool {
        self.claims.contains_key(&opened)
    }

    /// Every file is to be looked at again.
    pub fn look_at_all(&mut self) {
        self.fresh.extend(self.files.keys());
    }

    /// The file under `path` could not be opened: it is to be looked at again.
    pub fn look_again(&mut self, path: &Path) {
        self.fresh.extend(self.paths.get(path));
    }

    /// Returns where the files stand to which something happened since the last call, each with the
    /// covered path under which it came; the oldest first.
    pub fn take_fresh(&mut self) -> Vec<(PathBuf, Arc<Path>)> {
        let ids = std::mem::take(&mut self.fresh);
        // One between the halves of its rename stands nowhere.
        let files = ids.into_iter().filter_map(|id| self.files.get(&id).map(|file| (id, file)));
        let standing = files.filter(|(id, file)| self.paths.get(&file.path) == Some(id));
        standing.map(|(_, file)| (file.path.clone(), Arc::clone(&file.origin))).collect()
    }

    /// Takes out the files that were written and are gone.
    pub fn take_gone(&mut self) -> Vec<Gone> {
        std::mem::take(&mut self.gone)
    }

    fn put(
        &mut self,
        path: &Path,
        origin: &Path,
        written: bool,
        is_covered: impl Fn(&Path) -> bool,
    ) {
        self.lose(path);
        if is_covered(origin) && self.files.len() < FILES_MAX {
            let (id, origin) = (self.next, Arc::from(origin));
            self.next = self.next.saturating_add(1);
            let path = path.to_owned();
            self.paths.insert(path.clone(), id);
            self.files.insert(id, File { path, origin, written, claimed: None, late: false });
            self.fresh.insert(id);
        }
    }

    fn move_to(&mut self, path: PathBuf, id: Id) {
        let Some(file) = self.files.get_mut(&id) else { return };
        file.path.clone_from(&path);
        file.late = false;
        self.paths.insert(path, id);
        self.fresh.insert(id);
    }

    /// No file stands under the path any more.
    fn lose(&mut self, path: &Path) {
        if let Some(file) = self.paths.remove(path).and_then(|id| self.remove(id))
            && file.written
        {
            self.gone.push(file.into());
        }
    }

    /// The file that left longest ago has not arrived. What was claimed for it since has not been
    /// claimed for another one, so it was that.
    fn lose_one(&mut self) {
        let id = self.leaving.pop_front().and_then(|leaving| leaving.file);
        if let Some(file) = id.and_then(|id| self.remove(id))
            && file.written
        {
            let came = file.claimed.is_none();
            self.gone.push(Gone { came, deleted: false, ..file.into() });
        }
    }

    fn remove(&mut self, id: Id) -> Option<File> {
        let file = self.files.remove(&id)?;
        self.fresh.remove(&id);
        file.claimed.and_then(|claim| self.claims.remove(&claim));
        Some(file)
    }
}

impl From<File> for Gone {
    fn from(file: File) -> Self {
        let claimed = file.claimed;
        Self { path: file.path, claimed, origin: file.origin, came: true, deleted: true }
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
        (paths, gone_from(&mut unopened))
    }

    fn gone_from(unopened: &mut Unopened) -> Vec<PathBuf> {
        unopened.take_gone().into_iter().filter(|gone| gone.came).map(|gone| gone.path).collect()
    }

    fn place(inode: u64) -> Place {
        Place { device: 1, inode }
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
        assert_eq!(gone_from(&mut unopened), Vec::<PathBuf>::new());
        unopened.scanned();
        assert_eq!(gone_from(&mut unopened), [PathBuf::from("a.log")]);
        unopened.scanned();
        assert_eq!(gone_from(&mut unopened), Vec::<PathBuf>::new());
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

    /// Whether it was opened, a look will tell: events may have been lost since it came.
    #[test]
    fn what_is_moved_out_of_the_pattern_is_looked_at() {
        let new = standing(&[("old.log", "old.log"), ("old.log.1", "old.log")]);
        assert_eq!(after(&moved("old.log", "old.log.1")), (new, vec![]));
    }

    #[test]
    fn of_what_was_opened_and_is_gone_it_is_told_for_what_it_was_taken() {
        let mut unopened = Unopened::default();
        for step in [came("a.log"), written("a.log")] {
            unopened.take(step, is_covered);
        }
        unopened.opened(Path::new("a.log"), place(1), 1);
        unopened.take(gone("a.log"), is_covered);
        let path = PathBuf::from("a.log");
        let origin = Arc::from(path.as_path());
        let claimed = Some((place(1), 1));
        let expected = Gone { path, claimed, origin, came: true, deleted: true };
        assert_eq!(unopened.take_gone(), [expected]);
    }

    /// The first file had been renamed, and a second one made, when the path was looked at.
    #[test]
    fn a_look_that_came_too_late_does_not_hide_the_older_file() {
        let mut unopened = Unopened::default();
        for step in [came("a.log"), written("a.log")] {
            unopened.take(step, is_covered);
        }
        unopened.opened(Path::new("a.log"), place(2), 2);
        unopened.take_fresh();
        for step in &moved("a.log", "a.log.1")[..] {
            unopened.take(step.clone(), is_covered);
        }
        unopened.opened(Path::new("a.log"), place(2), 2);
        let mut fresh = unopened.take_fresh();
        fresh.sort();
        assert_eq!(fresh, standing(&[("a.log", "a.log"), ("a.log.1", "a.log")]));
        unopened.take(gone("a.log.1"), is_covered);
        let gone = unopened.take_gone();
        assert_eq!(gone.iter().map(|gone| gone.claimed).collect::<Vec<_>>(), [None]);
    }

    /// The path was looked at when it stood for a later file already.
    #[test]
    fn a_look_that_came_too_late_does_not_take_a_claim_back() {
        let mut unopened = Unopened::default();
        for step in [came("a.log"), written("a.log")] {
            unopened.take(step, is_covered);
        }
        unopened.opened(Path::new("a.log"), place(1), 1);
        for step in &moved("a.log", "a.log.1")[..] {
            unopened.take(step.clone(), is_covered);
        }
        unopened.take(written("a.log"), is_covered);
        for younger_first in [true, false] {
            let looks = [("a.log", 2), ("a.log.1", 2)];
            let looks = if younger_first { looks } else { [looks[1], looks[0]] };
            for (path, inode) in looks {
                unopened.opened(Path::new(path), place(inode), inode);
            }
        }
        unopened.take(gone("a.log.1"), is_covered);
        unopened.take(gone("a.log"), is_covered);
        let gone = unopened.take_gone();
        let claims = gone.iter().map(|gone| gone.claimed).collect::<Vec<_>>();
        assert_eq!(claims, [Some((place(1), 1)), Some((place(2), 2))]);
    }

    /// A file system uses an inode again at once, and a look sees that before its event is told.
    #[test]
    fn an_inode_that_is_used_again_does_not_hide_the_file_that_had_it() {
        let mut unopened = Unopened::default();
        for (name, birth) in [("a.log", 1), ("b.log", 2)] {
            unopened.take(came(name), is_covered);
            unopened.take(written(name), is_covered);
            unopened.opened(Path::new(name), place(1), birth);
        }
        unopened.take(gone("a.log"), is_covered);
        unopened.take(gone("b.log"), is_covered);
        let gone = unopened.take_gone();
        let claims = gone.iter().map(|gone| gone.claimed).collect::<Vec<_>>();
        assert_eq!(claims, [Some((place(1), 1)), Some((place(1), 2))]);
    }

    #[test]
    fn what_was_opened_and_stands_where_it_stood_is_forgotten_after_two_scans() {
        let mut unopened = Unopened::default();
        unopened.take(came("a.log"), is_covered);
        unopened.opened(Path::new("a.log"), place(1), 1);
        unopened.scanned();
        assert_eq!(unopened.files.len(), 1);
        unopened.scanned();
        assert!(unopened.files.is_empty() && unopened.paths.is_empty());
        assert!(unopened.claims.is_empty());
    }

    #[test]
    fn what_was_written_and_is_not_known_to_be_open_is_gone_with_the_events() {
        let mut unopened = Unopened::default();
        for name in ["a.log", "b.log"] {
            unopened.take(came(name), is_covered);
            unopened.take(written(name), is_covered);
        }
        unopened.take(came("empty.log"), is_covered);
        unopened.opened(Path::new("a.log"), place(1), 1);
        unopened.forget();
        assert_eq!(gone_from(&mut unopened), [PathBuf::from("b.log")]);
        assert_eq!(unopened.take_fresh(), []);
    }
}
