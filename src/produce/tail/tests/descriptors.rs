//! Fewer descriptors than files: who has one, who gives it up, and that nobody is forgotten for want of one.

use super::*;

#[test]
fn descriptors_are_bounded_and_every_file_is_read() {
    let mut bench = Bench::new(&["*.log"]);
    bench.flow.tail = config::Tail { open_files: 8, ..bench.flow.tail };
    for number in 0..100 {
        bench.append(&format!("{number:03}.log"), b"one\n");
    }
    bench.start(false);
    for number in (0..100).step_by(7) {
        bench.append(&format!("{number:03}.log"), b"two\n");
    }
    bench.step();
    assert!(bench.tailer.as_ref().unwrap().open <= 8);
    assert_eq!(bench.texts().iter().filter(|text| *text == "one\ntwo\n").count(), 15);
    bench.rename("050.log", "050.gone");
    bench.append("050.gone", b"late\n");
    bench.step();
    bench.step();
    assert_eq!(bench.texts()[50], "one\nlate\n");
}

/// Every descriptor is in use: a file that stands where it can be found is not given up.
#[test]
fn a_rotated_file_waits_for_a_descriptor() {
    let mut bench = Bench::new(&["*.log"]);
    bench.flow.tail.open_files = 2;
    bench.descriptors = 2;
    bench.start(false);
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        bench.append(&format!("{name}.log"), format!("{name}\n").as_bytes());
    }
    bench.step();
    for name in names {
        bench.append(&format!("{name}.log"), format!("{name} again\n").as_bytes());
        bench.rename(&format!("{name}.log"), &format!("{name}.old"));
    }
    for _ in 0..30 {
        bench.pass(Duration::from_secs(5));
    }
    assert_eq!(bench.texts(), names.map(|name| format!("{name}\n{name} again\n")));
    assert_eq!(bench.lost(), 0);
}

/// An empty file is known by nothing: it holds no descriptor that another one needs, nor for ever.
#[test]
fn empty_files_take_no_descriptor_from_others() {
    let mut bench = Bench::new(&["*.log"]);
    bench.flow.tail.open_files = 4;
    for number in 0..8 {
        File::create(bench.path(&format!("{number}.log"))).unwrap();
    }
    bench.start(false);
    let empties = |bench: &Bench| bench.tailer.as_ref().unwrap().empties.len();
    assert_eq!(empties(&bench), 4);
    for number in 0..3 {
        bench.append(&format!("{number}.log"), format!("{number}\n").as_bytes());
    }
    bench.step();
    assert_eq!(bench.texts().len(), 3);
    assert_eq!(empties(&bench), 1);
    for number in 0..8 {
        fs::remove_file(bench.path(&format!("{number}.log"))).unwrap();
    }
    bench.step();
    bench.pass(Duration::from_secs(5));
    assert_eq!(empties(&bench), 0);
}

/// A file that lost its name and found another one rests with its descriptor like any other: it gives that
/// up for one that is to be read, which may be deleted before its turn comes.
#[test]
fn a_file_that_has_a_name_again_gives_its_descriptor_up() {
    let mut bench = Bench::new(&["*.log"]);
    bench.flow.tail.open_files = 2;
    bench.start(false);
    let follow = |bench: &mut Bench, name: &str| {
        bench.append(name, format!("{name}\n").as_bytes());
        look_at(bench, name);
    };
    for name in ["a", "b"] {
        follow(&mut bench, &format!("{name}.log"));
        bench.rename(&format!("{name}.log"), name);
        look_at(&mut bench, &format!("{name}.log"));
        for other in 0..4 {
            follow(&mut bench, &format!("{name}-{other}.log"));
        }
        bench.rename(name, &format!("{name}.log"));
        look_at(&mut bench, &format!("{name}.log"));
    }
    bench.append("last.log", b"last\n");
    let (now, path) = (bench.now, bench.path("last.log"));
    bench.tailer.as_mut().unwrap().observe(&path, now);
    fs::remove_file(path).unwrap();
    bench.step();
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.texts().len(), 11, "{:?}", bench.texts());
    assert_eq!(bench.lost(), 0);
}

/// Every file is renamed within the pattern, and looked at under its new name before its old one: those that
/// were read to their end do not wait for a turn, before one that is new.
#[test]
fn what_was_read_takes_no_turn_when_it_is_renamed() {
    for open_files in [4, 512] {
        let mut bench = Bench::new(&["app.log*"]);
        bench.flow.tail.open_files = open_files;
        bench.flow.tail.scan_interval = Duration::from_hours(1);
        for number in 1..=20 {
            bench.append(&format!("app.log.{number}"), b"a line\n");
        }
        bench.start(false);
        if open_files > 20 {
            // Read by their descriptors, with no look at their paths.
            for number in 1..=20 {
                bench.append(&format!("app.log.{number}"), b"another\n");
            }
            until(&mut bench, |bench| bench.texts().concat().lines().count() == 40);
        }
        for number in (1..=20).rev() {
            bench.rename(&format!("app.log.{number}"), &format!("app.log.{}", number + 1));
        }
        bench.append("app.log.1", b"new\n");
        let now = bench.now;
        for number in 1..=21 {
            let path = bench.path(&format!("app.log.{number}"));
            bench.tailer.as_mut().unwrap().observe(&path, now);
        }
        assert_eq!(bench.tailer.as_ref().unwrap().ready.len(), 1, "{open_files}");
        bench.step();
        assert_eq!(bench.texts().len(), 21, "{open_files}");
    }
}

/// A file that was empty when it came is let go for one that is to be read. What is written to it then, and
/// deleted before anybody looks, was missed.
#[test]
fn what_is_written_to_an_empty_file_that_was_let_go_is_counted_if_it_is_gone() {
    let mut bench = Bench::new(&["*.log"]);
    bench.flow.tail.open_files = 1;
    bench.flow.tail.scan_interval = Duration::from_hours(1);
    bench.start(false);
    let mut empty = File::create(bench.path("empty.log")).unwrap();
    until(&mut bench, |bench| bench.tailer.as_ref().unwrap().empties.len() == 1);
    bench.append("other.log", b"other\n");
    until(&mut bench, |bench| bench.texts() == ["other\n"]);
    assert_eq!(bench.tailer.as_ref().unwrap().empties.len(), 0);
    empty.write_all(b"missed\n").unwrap();
    fs::remove_file(bench.path("empty.log")).unwrap();
    bench.append("last.log", b"last\n");
    until(&mut bench, |bench| bench.texts().contains(&"last\n".to_owned()) && bench.missed() > 0);
    assert_eq!(bench.missed(), 1);
}

/// Each file has more to read than a turn takes, and waits for the next one: without a descriptor, where
/// these are short.
#[test]
fn files_that_wait_for_their_next_turn_keep_to_the_bound_of_descriptors() {
    let mut bench = Bench::new(&["*.log"]);
    bench.flow.tail.open_files = 2;
    let text = lines(0, 3 * BLOCK / 29);
    for number in 0..6 {
        bench.append(&format!("{number}.log"), text.as_bytes());
    }
    bench.make(false);
    let end = Instant::now() + Duration::from_secs(30);
    while bench.texts().concat().len() < 6 * text.len() {
        assert!(Instant::now() < end, "{:?}", told(&bench));
        bench.now += Duration::from_millis(200);
        let (now, tailer) = (bench.now, bench.tailer.as_mut().unwrap());
        tailer.step(now).unwrap();
        assert!(tailer.named_open() <= 2, "{}", tailer.named_open());
        bench.drain();
    }
    assert_eq!(bench.texts(), vec![text; 6]);
}
