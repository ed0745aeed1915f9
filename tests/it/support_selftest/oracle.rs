//! The oracle against liars: every way to lose, double, tear, change, invent or swap a line is
//! caught.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::support::endpoint::Accepted;
use crate::support::oracle::{Allowance, Layout, MissingFiles, Oracle, Order, Report, Shape};

/// Returns 200 lines of each of two writers, and the oracle that minted them.
fn minted(shape: Shape) -> (Oracle, Vec<Vec<u8>>) {
    let oracle = Oracle::new(42, shape);
    let mut minters = [oracle.minter(), oracle.minter()];
    let lines = (0..400).map(|n| minters[n % 2].next_line()).collect();
    (oracle, lines)
}

/// Puts lines into records as a layout says, about ten a record.
fn records(lines: &[Vec<u8>], layout: &Layout) -> Vec<Accepted> {
    let bare = |line: &Vec<u8>| line.strip_suffix(b"\n").unwrap_or(line).to_vec();
    let datas: Vec<Vec<u8>> = match layout {
        Layout::Slices => lines.chunks(10).map(<[_]>::concat).collect(),
        Layout::Delimited(delimiter) => {
            let bare = lines.iter().map(bare).collect::<Vec<_>>();
            bare.chunks(10).map(|some| some.join(&delimiter[..])).collect()
        }
        Layout::JsonArray => {
            let join = |some: &[Vec<u8>]| {
                let bare = some.iter().map(bare).collect::<Vec<_>>();
                [&b"["[..], &bare.join(&b","[..]), b"]"].concat()
            };
            lines.chunks(10).map(join).collect()
        }
        Layout::Single => lines.iter().map(bare).collect(),
    };
    let record = |(n, data): (usize, Vec<u8>)| Accepted {
        sequence: n as u64,
        at: Instant::now(),
        request: 0,
        index: n,
        stream: Arc::from("web"),
        key: Arc::from("k"),
        data: Bytes::from(data),
        shard: 0,
    };
    datas.into_iter().enumerate().map(record).collect()
}

/// Judges lines that arrive as whole slices.
fn judge(oracle: &Oracle, lines: &[Vec<u8>]) -> Report {
    oracle.verify(&records(lines, &Layout::Slices), &Layout::Slices, Order::WithinWriter)
}

/// Whole truths pass, in every shape that a layout can carry.
#[test]
fn what_arrives_as_written_passes() {
    let cases = [
        (Shape::Plain, Layout::Slices),
        (Shape::Wild, Layout::Slices),
        (Shape::Wild, Layout::Single),
        (Shape::Plain, Layout::Delimited(b"#-#".to_vec())),
        (Shape::Json, Layout::JsonArray),
        (Shape::Json, Layout::Slices),
    ];
    for (shape, layout) in cases {
        let (oracle, lines) = minted(shape);
        let report = oracle.verify(&records(&lines, &layout), &layout, Order::WithinWriter);
        assert_eq!((report.written, report.arrived), (400, 400), "{shape:?} {layout:?}: {report}");
        report.assert_exactly_once();
        assert_eq!(oracle.bytes(), lines.iter().map(Vec::len).sum::<usize>() as u64);
    }
}

/// A line that holds the delimiter counts where it comes alone, and not where it comes among
/// others.
#[test]
fn a_line_that_holds_the_delimiter_must_come_alone() {
    let layout = Layout::Delimited(b"#-#".to_vec());
    let (oracle, lines) = minted(Shape::Wild);
    let holds = |line: &&Vec<u8>| line.windows(3).any(|three| three == b"#-#");
    assert!(lines.iter().filter(holds).count() > 20);
    let alone = records(&lines, &Layout::Single);
    oracle.verify(&alone, &layout, Order::WithinWriter).assert_exactly_once();
    let together = records(&lines, &layout);
    let report = oracle.verify(&together, &layout, Order::WithinWriter);
    assert!(report.missing.count > 0 && report.damaged.count + report.unknown.count > 0);
}

/// Each single lie, at each of many places, is caught and named for what it is.
#[test]
fn every_lie_about_one_line_is_caught() {
    for shape in [Shape::Plain, Shape::Wild, Shape::Json] {
        let (oracle, truth) = minted(shape);
        for place in (0..truth.len() - 2).step_by(31) {
            let mut lines = truth.clone();
            lines.remove(place);
            let report = judge(&oracle, &lines);
            assert_eq!((report.missing.count, report.unknown.count), (1, 0));
            report.check(Allowance::bytes(u64::MAX)).unwrap_err();

            let mut lines = truth.clone();
            lines.insert(place, truth[place].clone());
            let report = judge(&oracle, &lines);
            let size = truth[place].len() as u64;
            assert_eq!((report.duplicates, report.duplicate_bytes), (1, size));
            report.clone().check(Allowance { lines: 1, bytes: size }).unwrap();
            report.clone().check(Allowance { lines: 1, bytes: size - 1 }).unwrap_err();
            report.check(Allowance::default()).unwrap_err();

            // Lines of one writer stand two apart.
            let mut lines = truth.clone();
            lines.swap(place, place + 2);
            let report = judge(&oracle, &lines);
            assert_eq!((report.reordered.count, report.missing.count), (1, 0), "{report}");
            report.check(Allowance::bytes(u64::MAX)).unwrap_err();

            let mut lines = truth.clone();
            let middle = lines[place].len() - 2;
            lines[place][middle] ^= 0x01;
            let report = judge(&oracle, &lines);
            assert_eq!((report.damaged.count, report.missing.count), (1, 1), "{report}");
            report.check(Allowance::bytes(u64::MAX)).unwrap_err();
        }
    }
}

/// A line torn in two by a newline, one cut short, one invented and one of nobody are no lines.
#[test]
fn torn_and_invented_lines_are_unknown_or_damaged() {
    let (oracle, truth) = minted(Shape::Plain);
    let with = |place: usize, line: &[u8]| {
        let mut lines = truth.clone();
        lines[place] = line.to_vec();
        judge(&oracle, &lines)
    };
    let mut torn = truth[7].clone();
    torn.insert(8, b'\n');
    let report = with(7, &torn);
    assert_eq!((report.damaged.count, report.unknown.count, report.missing.count), (1, 1, 1));
    let last = truth.len() - 1;
    let report = with(last, &truth[last][..truth[last].len() - 1]);
    assert_eq!((report.damaged.count, report.missing.count), (1, 1), "the newline is missing");
    for invented in ["1:200:never minted\n", "9:0:no such writer\n", "hello\n", "\n"] {
        let report = with(7, invented.as_bytes());
        assert_eq!((report.unknown.count, report.missing.count), (1, 1), "{invented:?}: {report}");
    }
}

/// Between files of one writer any order is right where it is asked so; within one it is not.
#[test]
fn order_is_judged_within_its_scope() {
    let oracle = Oracle::new(1, Shape::Plain);
    let mut minter = oracle.minter();
    let first = (0..5).map(|_| minter.next_line()).collect::<Vec<_>>();
    minter.next_file();
    let second = (0..5).map(|_| minter.next_line()).collect::<Vec<_>>();
    let judge = |lines: &[Vec<u8>], order| {
        oracle.verify(&records(lines, &Layout::Slices), &Layout::Slices, order).reordered.count
    };
    let overtaken = [second.clone(), first.clone()].concat();
    assert_eq!(judge(&overtaken, Order::WithinFile), 0);
    assert_eq!(judge(&overtaken, Order::WithinWriter), 5);
    let swapped = [first[1].clone(), first[0].clone()];
    assert_eq!(judge(&swapped, Order::WithinFile), 1);
    assert_eq!(judge(&swapped, Order::Any), 0);
}

/// A file of which nothing came is told from one of which something is missing.
#[test]
fn what_is_missing_is_told_by_file() {
    let oracle = Oracle::new(1, Shape::Plain);
    let mut minters = [oracle.minter(), oracle.minter()];
    let mut files = Vec::new();
    for lines in [5, 3, 0, 4] {
        for minter in &mut minters {
            files.push((0..lines).map(|_| minter.next_line()).collect::<Vec<_>>());
            minter.next_file();
        }
    }
    // The second file of the one writer is lost, and a line of each of two files of the other.
    files[2].clear();
    files[1].pop();
    files[7].remove(0);
    let mut judge = oracle.judge(Layout::Slices, Order::WithinFile);
    for lines in &files {
        judge.record(&lines.concat());
    }
    assert_eq!(judge.missing_files(), MissingFiles { whole: 1, lines_of_others: 2 });
}

/// A run sent again from an earlier place doubles lines, and is no disorder.
#[test]
fn a_run_that_comes_again_is_duplicates_and_no_disorder() {
    let (oracle, truth) = minted(Shape::Plain);
    let again = [&truth[..100], &truth[60..]].concat();
    let report = judge(&oracle, &again);
    assert_eq!((report.duplicates, report.reordered.count, report.missing.count), (40, 0, 0));
}

/// The report names the first cases, the counts and the seed.
#[test]
fn the_report_can_be_read() {
    let (oracle, mut lines) = minted(Shape::Plain);
    lines.remove(4);
    let text = judge(&oracle, &lines).to_string();
    assert!(text.contains("seed 42") && text.contains("missing: 1"), "{text}");
    assert!(text.contains("line 0:2"), "{text}");
}
