//! More happens than there is time for. Goal: whatever is looked at, lines are passed on meanwhile.

use super::*;

/// Files that are renamed faster than names are taken are read all the same: every agent of a storm of
/// rotations told names for all of its life, and passed on not one line.
#[test]
fn renames_without_end_do_not_keep_lines_from_being_passed_on() {
    const FILES: usize = 200;
    let mut bench = Bench::new(&["*.log*"]);
    let name = |number: usize, round: usize| format!("{number}.log.{round}");
    (0..FILES).for_each(|number| bench.append(&name(number, 0), b"first\n"));
    bench.start(false);
    let mut taken = 0;
    for round in 1..=10 {
        for number in 0..FILES {
            bench.append(&name(number, round - 1), b"more\n");
            bench.rename(&name(number, round - 1), &name(number, round));
        }
        bench.now += bench.flow.tail.scan_interval;
        let now = bench.now;
        bench.tailer.as_mut().unwrap().step(now).unwrap();
        taken += bench.output.len();
        bench.drain();
    }
    let passed = bench.texts().concat().matches("more").count();
    assert!(passed * 2 > taken, "{passed} of {taken} outputs are lines");
    bench.step();
    assert_eq!(bench.texts().concat().matches("more").count(), FILES * 10);
    assert!(bench.seen.values().all(|seen| seen.opened.path.exists()), "the last names are told");
}

/// An agent that has hardly time for its first scan before it is stopped again reads meanwhile, and what is
/// left when the scan is over oldest first: a rotation deletes that next.
#[test]
fn the_first_scan_of_many_files_reads_meanwhile_and_then_the_oldest_first() {
    const FILES: usize = 1000;
    let mut bench = Bench::new(&["*.log"]);
    bench.places = 4 * FILES;
    let name = |number: usize| format!("{number}.log");
    (0..FILES).for_each(|number| bench.append(&name(number), b"read\n"));
    bench.start(false);
    bench.stop();
    let begin = std::time::SystemTime::UNIX_EPOCH + Duration::from_hours(1);
    for number in 0..FILES {
        bench.append(&name(number), b"more\n");
        let file = File::options().append(true).open(bench.path(&name(number))).unwrap();
        file.set_modified(begin + Duration::from_secs(number as u64)).unwrap();
    }
    bench.make(false);
    let (now, mut tailer) = (bench.now, bench.tailer.take().unwrap());
    tailer.walk(now);
    bench.drain();
    let read = bench.texts().concat().matches("more").count();
    assert!(read >= FILES / 16, "{read}");
    tailer.finish_start(now);
    let written = |key: &FileKey| tailer.files.get(*key).unwrap().modified;
    assert!(tailer.ready.iter().is_sorted_by_key(written));
    bench.tailer = Some(tailer);
    bench.step();
    assert_eq!(bench.texts().concat().matches("more").count(), FILES);
}
