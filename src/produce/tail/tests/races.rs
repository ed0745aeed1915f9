//! What others do between two looks of the tailer.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::mpsc::sync_channel;

use super::super::generations::Candidate;
use super::*;
use crate::produce::watch::patterns;

fn truncate(bench: &Bench, name: &str) {
    File::options().write(true).open(bench.path(name)).unwrap().set_len(0).unwrap();
}

#[test]
fn a_copy_that_lacks_what_was_read_before_the_truncation_is_not_read_again() {
    for found_before in [false, true] {
        let mut bench = Bench::new(&["app.log*"]);
        bench.start(false);
        bench.append("app.log", lines(0, 200).as_bytes());
        fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
        if found_before {
            look_at(&mut bench, "app.log");
            look_at(&mut bench, "app.log.1");
        }
        bench.append("app.log", lines(200, 5).as_bytes());
        look_at(&mut bench, "app.log");
        truncate(&bench, "app.log");
        bench.append("app.log", b"after the truncation\n");
        look_at(&mut bench, "app.log");
        bench.step();
        let expected = [lines(0, 205), "after the truncation\n".to_owned()];
        assert_eq!(told(&bench), told_of(&expected), "{found_before}");
        assert_eq!(bench.lost(), 0);

        bench.start(false);
        bench.append("app.log", b"after a restart\n");
        bench.step();
        let expected = [lines(0, 205), "after the truncation\nafter a restart\n".to_owned()];
        assert_eq!(told(&bench), told_of(&expected), "{found_before}");
    }
}

/// The copy is shorter than a fingerprint, and than what was read of the original, at once.
#[test]
fn a_short_copy_that_lacks_what_was_read_before_the_truncation_is_not_read_again() {
    for (copied, more) in [(1, 1), (1, 5), (3, 1), (10, 20), (40, 2)] {
        for copy_seen_first in [false, true] {
            let mut bench = Bench::new(&["app.log*"]);
            bench.start(false);
            bench.append("app.log", lines(0, copied).as_bytes());
            fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
            bench.append("app.log", lines(copied, more).as_bytes());
            look_at(&mut bench, "app.log");
            truncate(&bench, "app.log");
            bench.append("app.log", b"after the truncation\n");
            if copy_seen_first {
                look_at_only(&mut bench, "app.log.1");
            }
            look_at(&mut bench, "app.log");
            bench.step();
            bench.step();
            let expected = [lines(0, copied + more), "after the truncation\n".to_owned()];
            let case = (copied, more, copy_seen_first);
            assert_eq!(told(&bench), told_of(&expected), "{case:?}");
            assert_eq!(bench.lost(), 0, "{case:?}");
        }
    }
}

/// A new log that begins as the truncated one did, with no more than a line that both have, is no copy
/// of it.
#[test]
fn a_short_file_of_another_name_that_begins_like_a_truncated_one_is_read() {
    let mut bench = Bench::new(&["*.log"]);
    bench.start(false);
    bench.append("app.log", lines(0, 4).as_bytes());
    bench.step();
    bench.append("other.log", lines(0, 3).as_bytes());
    truncate(&bench, "app.log");
    look_at(&mut bench, "app.log");
    look_at(&mut bench, "other.log");
    bench.step();
    assert_eq!(bench.texts(), [lines(0, 4), lines(0, 3)]);
}

#[test]
fn a_file_that_only_begins_like_a_truncated_one_is_read() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("app.log", lines(0, 100).as_bytes());
    bench.start(false);
    bench.append("app.log", lines(100, 100).as_bytes());
    bench.step();
    truncate(&bench, "app.log");
    let other = [lines(0, 90), lines(1_000, 30)].concat();
    bench.append("other.log", other.as_bytes());
    bench.step();
    bench.step();
    assert_eq!(bench.texts(), [lines(0, 200), other]);
}

#[test]
fn what_a_copy_lacks_of_what_was_there_is_counted() {
    let mut bench = Bench::new(&["app.log*"]);
    bench.append("app.log", b"read\n");
    bench.start(false);
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.append("app.log", b"seen, and never ended");
    look_at(&mut bench, "app.log");
    truncate(&bench, "app.log");
    bench.append("app.log", b"new\n");
    bench.step();
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.texts(), ["read\n", "new\n"]);
    assert_eq!(bench.lost(), b"seen, and never ended".len() as u64);
}

/// Between the look at a path and its opening, a file that is followed already took the path.
#[test]
fn a_followed_file_found_under_a_path_that_was_another_s_is_not_begun_again() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", b"a\n");
    bench.start(false);
    bench.append("b.log", b"b\n");
    let stale = patterns::find(&bench.path("b.log")).unwrap().unwrap();
    fs::remove_file(bench.path("b.log")).unwrap();
    bench.rename("a.log", "b.log");
    bench.append("b.log", b"more\n");
    let now = bench.now;
    bench.tailer.as_mut().unwrap().follow(stale, now);
    bench.step();
    bench.step();
    assert_eq!(bench.texts(), ["a\nmore\n"]);
}

/// The directory is watched under one of its two paths, and that need not be the file's.
#[test]
fn a_change_told_under_a_second_path_is_read_without_a_scan() {
    let mut bench = Bench::new(&["*/app.log"]);
    fs::create_dir(bench.path("b-real")).unwrap();
    bench.append("b-real/app.log", b"one\n");
    bench.start(false);
    symlink(bench.path("b-real"), bench.path("a-link")).unwrap();
    bench.step();
    bench.append("a-link/app.log", b"two\n");
    look_at(&mut bench, "a-link/app.log");
    assert_eq!(bench.texts(), ["one\ntwo\n"]);
}

/// Opening a pipe waits for its writer; a path that stands for one by now must not be waited for.
#[test]
fn a_pipe_is_no_file_and_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (answer, answered) = sync_channel(1);
    std::thread::spawn(move || {
        let opened = Candidate::open(&path, false);
        answer.send(opened.map(|_| ()).map_err(|error| error.kind())).unwrap();
    });
    let opened = answered.recv_timeout(Duration::from_secs(30));
    assert_eq!(opened, Ok(Err(std::io::ErrorKind::NotFound)));
}

/// An event that comes late, or again, for a name outside the patterns does not make the file
/// covered: it ends once it has been quiet, with its last line.
#[test]
fn a_second_look_at_a_file_renamed_out_of_the_pattern_changes_nothing() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", b"whole\nno newline");
    bench.start(false);
    bench.rename("app.log", "app.log.1");
    for _ in 0..2 {
        look_at(&mut bench, "app.log");
        look_at(&mut bench, "app.log.1");
    }
    for _ in 0..3 {
        bench.pass(bench.flow.tail.hold_rotated);
    }
    // The event of the rename itself may come now, and the file, known and read, has its hold once more.
    until(&mut bench, |bench| bench.seen.values().all(|seen| seen.closed));
    assert_eq!(bench.texts(), ["whole\nno newline"]);
}

/// Between the creation of a log and the first look at it, it was rotated out of the pattern: twice.
#[test]
fn a_file_renamed_out_of_the_pattern_before_it_was_opened_is_read() {
    let mut bench = Bench::new(&["app.log"]);
    bench.flow.tail.scan_interval = Duration::from_hours(1);
    bench.start(false);
    for round in ["one", "two", "three"] {
        bench.rename_if_there("app.log.1", "app.log.2");
        bench.rename_if_there("app.log", "app.log.1");
        bench.append("app.log", format!("{round}\n").as_bytes());
    }
    until(&mut bench, |bench| bench.texts().len() == 3);
    let mut texts = bench.texts();
    texts.sort();
    assert_eq!(texts, ["one\n", "three\n", "two\n"]);
    bench.append("app.log.1", b"late\n");
    until(&mut bench, |bench| bench.texts().concat().contains("late"));
    assert_eq!(bench.missed(), 0);
}

#[test]
fn a_file_that_came_and_went_unopened_is_counted() {
    let mut bench = Bench::new(&["*.log"]);
    bench.flow.tail.scan_interval = Duration::from_hours(1);
    bench.start(false);
    for name in ["written.log", "empty.log"] {
        let text = if name == "empty.log" { "" } else { "gone\n" };
        bench.append(name, text.as_bytes());
        fs::remove_file(bench.path(name)).unwrap();
    }
    bench.append("last.log", b"last\n");
    until(&mut bench, |bench| bench.texts() == ["last\n"] && bench.missed() > 0);
    assert_eq!(bench.missed(), 1);
}

/// The copy that a foreign `copytruncate` made is shorter than what was read, and the agent is stopped
/// before it has found it.
#[test]
fn a_stop_right_after_a_truncation_does_not_repeat_the_copy() {
    let mut bench = Bench::new(&["app.log*"]);
    bench.flow.tail.scan_interval = Duration::from_hours(1);
    bench.append("app.log", lines(0, 200).as_bytes());
    bench.start(false);
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.append("app.log", lines(200, 5).as_bytes());
    look_at_only(&mut bench, "app.log");
    truncate(&bench, "app.log");
    look_at_only(&mut bench, "app.log");
    bench.stop();
    bench.start(false);
    bench.append("app.log", b"after a restart\n");
    bench.step();
    assert_eq!(told(&bench), told_of(&[lines(0, 205), "after a restart\n".to_owned()]));
}

/// Looks at a path, and lets nothing else be looked at.
fn look_at_only(bench: &mut Bench, name: &str) {
    let (now, path) = (bench.now, bench.path(name));
    let tailer = bench.tailer.as_mut().unwrap();
    tailer.observe(&path, now);
    tailer.read(now);
    bench.drain();
}

/// A file that begins as the truncated one did, and has the same bytes where most evidence is looked
/// for, is no copy where it was made later, or differs anywhere that is remembered.
#[test]
fn a_file_made_after_a_truncation_is_no_copy_however_it_begins() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("app.log", lines(0, 200).as_bytes());
    bench.start(false);
    truncate(&bench, "app.log");
    bench.step();
    // Times of files advance by the kernel's tick, some milliseconds.
    std::thread::sleep(Duration::from_millis(50));
    bench.append("other.log", lines(0, 150).as_bytes());
    bench.pass(Duration::ZERO);
    bench.step();
    assert_eq!(bench.texts(), [lines(0, 200), lines(0, 150)]);
}

/// The same of one that holds all that the truncated one held, and more: nothing of it was read.
#[test]
fn a_file_made_after_a_truncation_is_no_copy_though_it_holds_all_of_it() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("app.log", b"the first line of every log\n");
    bench.start(false);
    truncate(&bench, "app.log");
    bench.step();
    std::thread::sleep(Duration::from_millis(50));
    bench.append("other.log", b"the first line of every log\nthe second\n");
    bench.pass(Duration::ZERO);
    bench.step();
    let first = "the first line of every log\n".to_owned();
    assert_eq!(bench.texts(), [first.clone(), first + "the second\n"]);
}

/// Renames go on while the agent looks for a file that it has no descriptor of.
#[test]
fn a_rotated_file_that_is_not_found_at_once_is_looked_for_again() {
    let mut bench = Bench::new(&["app.log", "busy.log"]);
    bench.flow.tail.open_files = 1;
    bench.append("app.log", b"one\n");
    bench.start(false);
    bench.append("busy.log", b"busy\n");
    bench.step();
    let elsewhere = bench.path(".state").join("app.log");
    bench.append("app.log", b"two\n");
    fs::rename(bench.path("app.log"), &elsewhere).unwrap();
    look_at(&mut bench, "app.log");
    fs::rename(&elsewhere, bench.path("app.log.1")).unwrap();
    bench.pass(Duration::ZERO);
    bench.step();
    assert_eq!(bench.texts(), ["one\ntwo\n", "busy\n"]);
    assert_eq!(bench.lost(), 0);
}

/// After a reboot a device may have another number: a file is known by its content then.
#[test]
fn a_restart_after_the_device_number_changed_goes_on() {
    let mut bench = Bench::new(&["*.log"]);
    bench.append("a.log", b"the same first line\na\n");
    bench.append("b.log", b"the same first line\nb\n");
    bench.start(false);
    bench.stop();
    for seen in bench.seen.values_mut() {
        seen.opened.identity.device += 1;
    }
    bench.append("a.log", b"more of a\n");
    bench.start(false);
    bench.append("b.log", b"more of b\n");
    bench.step();
    let first = "the same first line\n";
    let expected = [format!("{first}a\nmore of a\n"), format!("{first}b\nmore of b\n")];
    assert_eq!(bench.texts(), expected);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.lost(), 0);
}

/// A deleted file that nobody reads keeps its bytes on the disk: not more of them than may be, and not
/// for longer; what is given up is counted.
#[test]
fn what_is_held_unread_is_bounded_in_bytes_and_in_time() {
    for (bytes, hours, given_up) in [(1 << 20, 1, 0), (2_500, 1, 1), (1_500, 1, 2), (1 << 20, 0, 3)]
    {
        let mut bench = Bench::new(&["*.log"]);
        bench.flow.tail.hold_deleted_bytes = bytes;
        bench.flow.tail.hold_unread = Duration::from_hours(hours);
        let unread = "x".repeat(1_000);
        for name in ["a", "b", "c"] {
            bench.append(&format!("{name}.log"), unread.as_bytes());
        }
        bench.start(false);
        for name in ["a", "b", "c"] {
            fs::remove_file(bench.path(&format!("{name}.log"))).unwrap();
            look_at(&mut bench, &format!("{name}.log"));
        }
        bench.pass(Duration::from_secs(3));
        bench.pass(Duration::from_secs(3));
        assert_eq!(bench.lost(), given_up * 1_000, "{bytes} bytes, {hours} hours");
        bench.pass(Duration::from_secs(10));
        let read = (3 - given_up) * 1_000;
        assert_eq!(bench.texts().concat().len() as u64, read, "{bytes} bytes, {hours} hours");
    }
}

/// A log is rotated while it is still empty, out of all directories that are watched or for good, and
/// its server has it open and writes on.
#[test]
fn a_log_that_was_empty_when_it_lost_its_name_is_read() {
    for deleted in [false, true] {
        let mut bench = Bench::new(&["app.log"]);
        bench.flow.tail.scan_interval = Duration::from_hours(1);
        bench.start(false);
        let mut server = File::create(bench.path("app.log")).unwrap();
        look_at(&mut bench, "app.log");
        if deleted {
            fs::remove_file(bench.path("app.log")).unwrap();
        } else {
            fs::rename(bench.path("app.log"), bench.path(".state").join("app.log")).unwrap();
        }
        bench.append("app.log", b"the next\n");
        look_at(&mut bench, "app.log");
        server.write_all(b"late\n").unwrap();
        bench.pass(Duration::from_secs(1));
        server.write_all(b"later\n").unwrap();
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.texts(), ["the next\n", "late\nlater\n"], "{deleted}");
        bench.append("app.log", b"and more\n");
        look_at(&mut bench, "app.log");
        assert_eq!(bench.texts()[0], "the next\nand more\n", "{deleted}");
        assert_eq!((bench.missed(), bench.lost()), (0, 0));
    }
}

/// The server was never told of the rotation, or only after the file had been let go.
#[test]
fn a_rotated_file_that_was_let_go_is_read_on_when_it_grows() {
    let mut bench = Bench::new(&["app.log"]);
    bench.append("app.log", b"one\n");
    bench.start(false);
    bench.rename("app.log", "app.log.1");
    bench.append("app.log", b"two\n");
    for _ in 0..3 {
        bench.pass(bench.flow.tail.hold_rotated);
    }
    assert!(bench.seen.values().next().unwrap().closed);
    bench.append("app.log.1", b"late\n");
    look_at(&mut bench, "app.log.1");
    assert_eq!(bench.texts(), ["one\nlate\n", "two\n"]);
    assert_eq!(bench.seen.len(), 2);
}

/// Two rotations, the first while the new log is still empty: the oldest file is deleted before anybody
/// has seen it under its last name, and its server writes on.
#[test]
fn a_file_whose_path_an_empty_one_took_is_read_on() {
    let mut bench = Bench::new(&["app.log*"]);
    bench.flow.tail.scan_interval = Duration::from_hours(1);
    bench.start(false);
    bench.append("app.log", b"one\n");
    look_at(&mut bench, "app.log");
    let mut server = OpenOptions::new().append(true).open(bench.path("app.log")).unwrap();
    bench.rename("app.log", "app.log.1");
    let mut next = File::create(bench.path("app.log")).unwrap();
    for name in ["app.log.1", "app.log"] {
        look_at(&mut bench, name);
    }
    bench.rename("app.log.1", "app.log.2");
    bench.rename("app.log", "app.log.1");
    fs::remove_file(bench.path("app.log.2")).unwrap();
    for name in ["app.log.1", "app.log.2", "app.log"] {
        look_at_only(&mut bench, name);
    }
    next.write_all(b"two\n").unwrap();
    look_at_only(&mut bench, "app.log.1");
    server.write_all(b"late\n").unwrap();
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.texts(), ["one\nlate\n", "two\n"]);
}

/// Renames are told as fast as they are taken: with a pause before each, files that many renames
/// bring and delete would be gone before anybody looked.
#[test]
fn many_names_that_change_at_once_do_not_wait_for_room_to_gather() {
    let mut bench = Bench::new(&["*.log"]);
    let names = |suffix: &'static str| (0..200).map(move |number| format!("{number}.log{suffix}"));
    names("").for_each(|name| bench.append(&name, b"a line\n"));
    bench.start(false);
    assert!(bench.tailer.as_ref().unwrap().gathers_room());
    for (old, new) in names("").zip(names(".1")) {
        fs::rename(bench.path(&old), bench.path(&new)).unwrap();
    }
    let (now, mut tailer) = (bench.now + Duration::from_secs(10), bench.tailer.take().unwrap());
    let end = Instant::now() + Duration::from_secs(30);
    while tailer.gathers_room() {
        assert!(Instant::now() < end, "the names are never told");
        tailer.step(now).unwrap();
    }
    assert!(tailer.step(now).is_some_and(|wait| !wait.is_zero()), "the channel is full");
    bench.tailer = Some(tailer);
    bench.drain();
    bench.step();
    assert!(bench.tailer.as_ref().unwrap().gathers_room());
    assert_eq!(bench.texts(), vec!["a line\n"; 200]);
}

/// A log that is made again, equal to the last byte, after the one before it had been deleted or rotated
/// and let go: no copy can be made of what is gone, and of what stands whole elsewhere none is followed
/// in its place.
#[test]
fn a_file_made_after_an_equal_one_had_ended_is_read() {
    const TEXT: &[u8] = b"the only line of every day\n";
    for deleted in [true, false] {
        let mut bench = Bench::new(&["app.log"]);
        bench.flow.tail.hold_rotated = Duration::from_secs(4);
        bench.append("app.log", TEXT);
        bench.start(false);
        if deleted {
            fs::remove_file(bench.path("app.log")).unwrap();
        } else {
            bench.rename("app.log", "app.log.1");
        }
        for _ in 0..3 {
            bench.pass(Duration::from_secs(5));
        }
        assert!(bench.seen.values().all(|seen| seen.closed), "deleted: {deleted}");
        // Its inode is not to be used again, and times of files advance by the kernel's tick.
        bench.append("another", b"");
        std::thread::sleep(Duration::from_millis(50));
        bench.append("app.log", TEXT);
        bench.step();
        bench.step();
        let texts = bench.texts();
        assert_eq!(texts.concat().as_bytes(), [TEXT, TEXT].concat(), "deleted: {deleted}");
    }
}

/// A file that was read long ago is renamed once more and deleted before anybody looks. It was opened,
/// and was not missed, whatever it was called when it came; one that nobody opened was.
#[test]
fn a_file_that_is_renamed_and_deleted_at_once_was_not_missed() {
    let mut bench = Bench::new(&["app.log*"]);
    bench.append("app.log.1", b"one\n");
    bench.flow.tail.scan_interval = Duration::from_hours(1);
    bench.start(false);
    bench.rename("app.log.1", "app.log.2");
    // Events come in order: once this is read, the renaming was told.
    bench.append("app.log", b"two\n");
    until(&mut bench, |bench| bench.texts().len() == 2);
    for _ in 0..3 {
        bench.step();
    }
    bench.rename("app.log.2", "app.log.3");
    fs::remove_file(bench.path("app.log.3")).unwrap();
    bench.append("app.log.new", b"missed\n");
    fs::remove_file(bench.path("app.log.new")).unwrap();
    bench.append("app.log.last", b"three\n");
    until(&mut bench, |bench| bench.texts().len() == 3);
    assert_eq!(bench.missed(), 1);
}

/// The inode of a file that was read and deleted is used again, and that is seen before the deletion is told.
#[test]
fn a_file_whose_inode_is_used_again_was_not_missed() {
    let mut bench = Bench::new(&["*.log"]);
    bench.flow.tail.scan_interval = Duration::from_hours(1);
    bench.append("other.log", b"other\n");
    bench.start(false);
    bench.append("app.log", b"one\n");
    until(&mut bench, |bench| bench.texts().len() == 2);
    let place = |name: &str| patterns::find(&bench.path(name)).unwrap().unwrap().facts.place();
    let (own, other, now) = (place("app.log"), place("other.log"), bench.now);
    let path = bench.path("app.log");
    let tailer = bench.tailer.as_mut().unwrap();
    // As if the one had stood where the other stands now.
    tailer.unopened.opened(&path, other, 1);
    let key = tailer.files.at(own).unwrap();
    tailer.end(key, 0, "deleted", now);
    fs::remove_file(&path).unwrap();
    bench.append("last.log", b"last\n");
    until(&mut bench, |bench| bench.texts().len() == 3);
    assert_eq!(bench.missed(), 0);
}

/// Renames go on during the first scan. What it finds new is opened at once: a file is read, once,
/// whatever stands under its path at the end of the scan.
#[test]
fn new_files_that_are_renamed_during_the_first_scan_are_each_read_once() {
    for open_files in [512, 1] {
        let mut bench = Bench::new(&["app.log*"]);
        bench.flow.tail.open_files = open_files;
        bench.append("app.log.9", b"known\n");
        bench.start(false);
        bench.stop();
        bench.append("app.log.1", b"young\n");
        bench.append("app.log.2", b"old\n");
        bench.make(false);
        let (now, mut tailer) = (bench.now, bench.tailer.take().unwrap());
        tailer.walk(now);
        bench.rename("app.log.2", "app.log.3");
        // Under both names, as the end of the scan finds it while it is renamed.
        fs::hard_link(bench.path("app.log.1"), bench.path("app.log.2")).unwrap();
        if open_files > 1 {
            fs::remove_file(bench.path("app.log.3")).unwrap();
        }
        tailer.finish_start(now);
        bench.tailer = Some(tailer);
        for _ in 0..3 {
            bench.step();
        }
        assert_eq!(bench.texts().concat().len(), "known\nyoung\nold\n".len(), "{open_files}");
        assert_eq!(bench.seen.len(), 3, "{open_files}: {:?}", bench.texts());
        assert_eq!((bench.missed(), bench.lost()), (0, 0));
    }
}

/// Nobody takes what is told of many files that have been read already: that is waited for, not asked
/// for again and again.
#[test]
fn what_nobody_takes_is_waited_for() {
    let mut bench = Bench::new(&["*.log"]);
    for number in 0..200 {
        bench.append(&format!("{number}.log"), b"a line\n");
    }
    bench.start(false);
    bench.stop();
    bench.make(false);
    let (now, mut tailer) = (bench.now, bench.tailer.take().unwrap());
    for _ in 0..3 {
        assert!(tailer.step(now).is_some_and(|wait| !wait.is_zero()));
    }
    bench.tailer = Some(tailer);
    bench.drain();
    bench.append("0.log", b"and more\n");
    bench.step();
    assert_eq!(bench.texts().concat().lines().count(), 201);
}
