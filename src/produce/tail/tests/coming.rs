//! What is counted as missed. Goal: a file counts that nobody opened, once, and none that was read,
//! however late its coming and its deletion are told. Method: what the events say is said here, in an
//! order that they have on a busy machine only.

use super::*;
use crate::produce::watch::patterns;
use crate::produce::watch::unopened::{Claim, Step, Unopened};

/// Tells a tailer of a file that came, was written, and was deleted; what a look found at its path.
fn tell(bench: &mut Bench, name: &str, looked: Option<Claim>) {
    let path = bench.path(name);
    let tailer = bench.tailer.as_mut().unwrap();
    for step in [Step::Came(path.clone()), Step::Written(path.clone())] {
        tailer.unopened.take(step, |_| true);
    }
    if let Some((place, birth)) = looked {
        tailer.unopened.opened(&path, place, birth);
    }
    tailer.unopened.take(Step::Gone(path), |_| true);
    tailer.tell_missed();
}

fn claim(bench: &Bench, name: &str) -> Claim {
    let facts = patterns::find(&bench.path(name)).unwrap().unwrap().facts;
    (facts.place(), facts.birth)
}

/// Its inode was used again, or it was looked for in vain, before its coming was told: no look has
/// found it under a path of its own.
#[test]
fn a_file_that_ended_before_its_coming_was_told_was_not_missed() {
    for (looks, seconds, missed) in [(false, 0, 0), (true, 0, 0), (false, 5, 0), (false, 15, 1)] {
        let mut bench = Bench::new(&["*.log"]);
        bench.append("app.log", b"one\n");
        bench.start(false);
        let claim = claim(&bench, "app.log");
        let now = bench.now;
        fs::remove_file(bench.path("app.log")).unwrap();
        let tailer = bench.tailer.as_mut().unwrap();
        tailer.unopened = Unopened::default();
        let key = tailer.files.at(claim.0).unwrap();
        tailer.end(key, 4, "deleted", now);
        tailer.untold.forget_old(now + Duration::from_secs(seconds));
        tell(&mut bench, "app.log", looks.then_some(claim));
        assert_eq!(bench.missed(), missed, "{looks} {seconds}");
        // It hides no other one.
        tell(&mut bench, "other.log", None);
        assert_eq!(bench.missed(), missed + 1, "{looks} {seconds}");
    }
}

/// The file that was read had the inode of one that is empty so far, and whose descriptor is held.
#[test]
fn a_file_whose_inode_an_undecided_one_has_was_not_missed() {
    let mut bench = Bench::new(&["*.log"]);
    bench.start(false);
    bench.append("empty.log", b"");
    bench.step();
    let (place, birth) = claim(&bench, "empty.log");
    assert!(bench.tailer.as_ref().unwrap().empties.contains(place));
    tell(&mut bench, "app.log", Some((place, birth - 1)));
    assert_eq!(bench.missed(), 0);
    // What a look had taken for the empty one is another one, for that stands there.
    tell(&mut bench, "other.log", Some((place, birth)));
    assert_eq!(bench.missed(), 1);
}

/// A file that came has the inode of one that is followed, closed and deleted: it is not that one.
#[test]
fn a_file_with_the_inode_of_a_closed_one_is_opened_for_itself() {
    let mut bench = Bench::new(&["*.log"]);
    bench.flow.tail.scan_interval = Duration::from_hours(1);
    bench.append("old.log", b"old\n");
    bench.start(false);
    let now = bench.now;
    bench.append("new.log", b"new\n");
    let (new, path) = (claim(&bench, "new.log"), bench.path("new.log"));
    let old = claim(&bench, "old.log");
    let tailer = bench.tailer.as_mut().unwrap();
    let key = tailer.files.at(old.0).unwrap();
    let mut file = tailer.files.remove(key).unwrap();
    // As if the one had been closed, and had stood where the other stands now.
    file.handle = None;
    tailer.open -= 1;
    (file.identity.inode, file.identity.birth) = (new.0.inode, new.1 - 1);
    tailer.files.insert(file);
    tailer.unopened = Unopened::default();
    tailer.unopened.take(Step::Came(path.clone()), |_| true);
    tailer.open_unopened(now);
    let key = tailer.files.at(new.0).unwrap();
    assert_eq!(tailer.files.get(key).unwrap().identity.birth, new.1);
    assert!(tailer.unopened.is_claimed(new));
}
