//! The sink with a disk and commits that fail on purpose: each byte once, whatever happens when.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;

mod hostile;

use super::*;
use crate::config::Config;
use crate::position::{FileKey, Identity, SequenceNumber};
use crate::record::kpl;
use crate::record::origin::FileTags;
use crate::stream::read::Fetched;

/// The committed rows of a flow, and when commits fail.
#[derive(Debug, Default)]
struct Table {
    rows: ConsumerRows,
    fails: bool,
}

#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Table>>);

impl Kept {
    fn rows(&self) -> ConsumerRows {
        self.0.lock().unwrap().rows.clone()
    }

    fn fail(&self, fails: bool) {
        self.0.lock().unwrap().fails = fails;
    }
}

impl Commits for Kept {
    fn commit(&self, commit: ConsumerCommit) -> Result<(), String> {
        let mut table = self.0.lock().unwrap();
        if table.fails {
            return Err("on purpose".to_owned());
        }
        let rows = &mut table.rows;
        for shard in commit.shards {
            rows.shards.retain(|row| row.shard != shard.shard);
            rows.shards.push(shard);
        }
        for output in commit.outputs {
            rows.outputs.retain(|row| row.name != output.name);
            rows.outputs.push(output);
        }
        for source in commit.sources {
            rows.sources.retain(|row| row.id != source.id);
            rows.sources.push(source);
        }
        rows.chores.extend(commit.chores);
        rows.chores.retain(|chore| !commit.chores_done.contains(&chore.id));
        Ok(())
    }
}

struct Scene {
    root: tempfile::TempDir,
    settings: String,
    kept: Kept,
    next: u64,
}

const SHARD: &str = "shardId-000000000000";

impl Scene {
    fn new(settings: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { root, settings: settings.to_owned(), kept: Kept::default(), next: 0 }
    }

    fn out(&self) -> PathBuf {
        self.root.path().join("out")
    }

    fn open(&self) -> Sink {
        let text = format!(
            "consume:\n  - {{ name: c, stream: web, directory: {}, {} }}",
            self.out().display(),
            self.settings
        );
        let config = Config::parse(&text, "agent.yaml").unwrap_or_else(|all| panic!("{all}"));
        let consume = config.consume.into_iter().next().unwrap();
        Sink::open(consume, &self.kept.rows(), Box::new(self.kept.clone())).unwrap()
    }

    fn batch(&mut self, data: Vec<Vec<u8>>) -> Batch {
        let records = data.into_iter().map(|data| {
            self.next += 1;
            Fetched {
                partition_key: "k".to_owned(),
                data: Bytes::from(data),
                sequence_number: SequenceNumber::from(&*self.next.to_string()),
            }
        });
        Batch { records: records.collect(), ..Batch::default() }
    }

    fn files(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        collect(&self.out(), &self.out(), &mut found);
        found
    }
}

fn collect(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned());
        }
    }
}

fn shard() -> ShardId {
    ShardId::from(SHARD)
}

/// A record with a run of lines of a generation of the host `h`.
fn run(path: &str, generation: u64, offset: u64, lines: &[&str]) -> Vec<u8> {
    run_of("h", Path::new(path), generation, offset, lines)
}

/// The same, of any host.
fn run_of(host: &str, path: &Path, generation: u64, offset: u64, lines: &[&str]) -> Vec<u8> {
    let identity = Identity { device: 1, inode: 2, birth: 3, ..Identity::default() };
    let tags = FileTags::new(host, path, &identity, FileKey(generation));
    let mut data = Vec::new();
    kpl::begin("k", &mut data);
    for (index, line) in lines.iter().enumerate() {
        let mut own = Vec::new();
        if index == 0 {
            tags.push(true, offset, &mut own);
        }
        kpl::push(line.as_bytes(), &own, &mut data);
    }
    kpl::end(&mut data);
    data
}

fn named(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn lines_that_come_again_are_written_once() {
    let mut scene = Scene::new("layout: append");
    let mut sink = scene.open();
    let batch = scene.batch(vec![
        run("/var/log/a.log", 1, 0, &["one\n", "two\n"]),
        run("/var/log/a.log", 1, 4, &["two\n", "three\n"]),
        b"plain\nlines".to_vec(),
        run("/var/log/a.log", 1, 0, &["one\n", "two\n", "three\n"]),
    ]);
    sink.write(&shard(), &batch, 100).unwrap();
    assert!(!sink.is_committed());
    sink.commit(100).unwrap();
    assert!(sink.is_committed());
    let other = format!("web/{SHARD}.log");
    let expected = [("web/h/a.log", "one\ntwo\nthree\n"), (&other, "plain\nlines\n")];
    assert_eq!(scene.files(), named(&expected));
    let tally = sink.tallies()[&shard()];
    assert_eq!((tally.records, tally.lines, tally.duplicate_bytes), (4, 5, 18));
    let rows = scene.kept.rows();
    assert_eq!(rows.shards[0].progress.as_ref().unwrap().sequence, "4".into());
}

#[test]
fn what_was_not_committed_is_cut_off_and_written_again() {
    let mut scene = Scene::new("layout: append");
    let mut sink = scene.open();
    let (first, second) = (
        scene.batch(vec![run("/a", 1, 0, &["one\n"])]),
        scene.batch(vec![run("/a", 1, 4, &["two\n"]), b"x".to_vec()]),
    );
    sink.write(&shard(), &first, 1).unwrap();
    sink.commit(1).unwrap();
    sink.write(&shard(), &second, 1).unwrap();
    // As a kill leaves it: written, not committed.
    sink.files.flush().unwrap();
    drop(sink);
    assert_eq!(scene.files()["web/h/a"], "one\ntwo\n");
    let mut sink = scene.open();
    assert_eq!(scene.files()["web/h/a"], "one\n");
    sink.write(&shard(), &second, 1).unwrap();
    sink.commit(1).unwrap();
    let other = format!("web/{SHARD}.log");
    assert_eq!(scene.files(), named(&[("web/h/a", "one\ntwo\n"), (&other, "x\n")]));
}

#[test]
fn a_failure_is_taken_back_whole_and_tried_again() {
    for settings in ["layout: append, path: '{path}'", "layout: mirror, path: '{path}'"] {
        let mut scene = Scene::new(settings);
        let mut sink = scene.open();
        let first = scene.batch(vec![run("/a", 1, 0, &["one\n"])]);
        let second = scene.batch(vec![run("/a", 1, 4, &["two\n"])]);
        sink.write(&shard(), &first, 1).unwrap();
        sink.commit(1).unwrap();
        scene.kept.fail(true);
        for _ in 0..3 {
            sink.write(&shard(), &second, 1).unwrap();
            sink.commit(1).unwrap_err();
            sink.roll_back().unwrap();
        }
        scene.kept.fail(false);
        sink.write(&shard(), &second, 1).unwrap();
        sink.commit(1).unwrap();
        assert_eq!(scene.files(), named(&[("a", "one\ntwo\n")]), "{settings}");
        assert_eq!(sink.tallies()[&shard()].lines, 2);
    }
}

#[test]
fn a_line_without_its_end_is_gone_on_with_by_its_own_file_alone() {
    let mut scene = Scene::new("layout: append, path: all.log, other_path: all.log");
    let mut sink = scene.open();
    let batch = scene.batch(vec![
        run("/a", 1, 0, &["be"]),
        run("/a", 1, 2, &["gun\n", "cut"]),
        b"foreign".to_vec(),
        run("/b", 2, 0, &["half"]),
    ]);
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    let mut sink = scene.open();
    let batch = scene.batch(vec![run("/b", 2, 4, &[" whole\n"])]);
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    assert_eq!(scene.files(), named(&[("all.log", "begun\ncut\nforeign\nhalf whole\n")]));
}

#[test]
fn generations_stand_beside_each_other_and_late_records_heal_them() {
    let mut scene = Scene::new("layout: mirror");
    let mut sink = scene.open();
    let batch = scene.batch(vec![
        run("/log/a", 1, 0, &["1a\n"]),
        run("/log/a", 2, 3, &["2b\n"]),
        run("/log/a", 1, 3, &["1b\n"]),
        run("/log/a", 3, 0, &["3a\n"]),
        run("/log/a", 2, 0, &["2a\n", "2b\n"]),
    ]);
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    let expected = [("h/log/a", "3a\n"), ("h/log/a.1", "2a\n2b\n"), ("h/log/a.2", "1a\n1b\n")];
    assert_eq!(scene.files(), named(&expected));
    // A new generation after a restart, and one that was there before the newest.
    drop(sink);
    let mut sink = scene.open();
    let batch = scene.batch(vec![run("/log/a", 5, 0, &["5a\n"]), run("/log/a", 4, 0, &["4a\n"])]);
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    let files = scene.files();
    assert_eq!((&*files["h/log/a"], &*files["h/log/a.1"]), ("5a\n", "4a\n"));
    assert_eq!((files.len(), &*files["h/log/a.4"]), (5, "1a\n1b\n"));
    assert_eq!(sink.generations().known, 5);
}

#[test]
fn a_generation_makes_room_where_a_kill_left_an_empty_file() {
    let mut scene = Scene::new("layout: mirror, path: '{path}'");
    let mut sink = scene.open();
    let batch = scene.batch(vec![run("/a", 1, 0, &["the first\n"])]);
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    drop(sink);
    // As a kill leaves it between making a file and committing that it is made.
    fs::write(scene.out().join("a.1"), "").unwrap();
    let mut sink = scene.open();
    let batch = scene.batch(vec![run("/a", 2, 0, &["new\n"])]);
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    let files = scene.files();
    assert_eq!((&*files["a"], &*files["a.1"]), ("new\n", "the first\n"));
}

#[test]
fn renames_that_were_cut_off_are_done_at_the_next_start() {
    let mut scene = Scene::new("layout: mirror, path: '{path}'");
    let mut sink = scene.open();
    let batch = scene.batch(vec![run("/a", 1, 0, &["1\n"]), run("/a", 2, 0, &["2\n"])]);
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    drop(sink);
    // As a kill leaves it between the commit and the renames.
    let mut table = scene.kept.0.lock().unwrap();
    let rows = &mut table.rows;
    for (id, (source, target)) in [("a.1", "a.2"), ("a", "a.1")].into_iter().enumerate() {
        let (source, target) = (source.as_bytes().to_vec(), target.as_bytes().to_vec());
        rows.chores.push(Chore { id: id as u64 + 7, kind: ChoreKind::Rename, source, target });
    }
    for row in &mut rows.sources {
        row.name = if row.name == b"a" { b"a.1".to_vec() } else { b"a.2".to_vec() };
    }
    let rows = table.rows.clone();
    drop(table);
    drop(scene.open());
    assert_eq!(scene.files(), named(&[("a.1", "2\n"), ("a.2", "1\n")]));
    // Once more, as a kill leaves it before it is noted that they are done.
    scene.kept.0.lock().unwrap().rows = rows;
    drop(scene.open());
    assert_eq!(scene.files(), named(&[("a.1", "2\n"), ("a.2", "1\n")]));
    assert!(scene.kept.rows().chores.is_empty());
}

#[test]
fn names_that_are_refused_and_files_beyond_the_bound_lose_nothing() {
    let mut scene = Scene::new("layout: mirror, write: { max_files: 3 }");
    let mut sink = scene.open();
    let batch = scene.batch(vec![
        run("/../../etc/passwd", 1, 0, &["evil\n"]),
        run("/a", 2, u64::MAX - 3, &["far\n"]),
        run("/ok", 3, 0, &["ok\n"]),
        // A file where a directory would have to be.
        run("/ok/deeper", 4, 0, &["deep\n"]),
        run("/more", 5, 0, &["more\n"]),
        run("/evenmore", 6, 0, &["beyond\n"]),
    ]);
    sink.write(&shard(), &batch, 1).unwrap();
    sink.commit(1).unwrap();
    let files = scene.files();
    assert_eq!(files[&format!("web/{SHARD}.log")], "evil\nfar\ndeep\nbeyond\n");
    assert_eq!((&*files["h/ok"], &*files["h/more"], files.len()), ("ok\n", "more\n", 3));
    let tally = sink.tallies()[&shard()];
    assert_eq!((tally.refused, tally.beyond_files), (3, 1));
    assert_eq!(fs::read_dir(scene.root.path()).unwrap().count(), 1);
}

#[test]
fn appended_files_are_rotated_and_compressed() {
    let mut scene =
        Scene::new("layout: append, path: a, rotate: { max_bytes: 1 MiB, compression: gzip }");
    let mut sink = scene.open();
    let line = format!("{}\n", "x".repeat(1 << 20));
    let batch = scene.batch(vec![run("/a", 1, 0, &[&line])]);
    sink.write(&shard(), &batch, 1_795_680_305).unwrap();
    sink.commit(1_795_680_305).unwrap();
    let batch = scene.batch(vec![run("/a", 1, line.len() as u64, &["next\n"])]);
    sink.write(&shard(), &batch, 1_795_680_306).unwrap();
    sink.commit(1_795_680_306).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !scene.out().join("a.20261126-080505.gz").exists()
        || scene.out().join("a.20261126-080505").exists()
    {
        assert!(std::time::Instant::now() < deadline, "{:?}", scene.files().keys());
        std::thread::yield_now();
    }
    let packed = fs::read(scene.out().join("a.20261126-080505.gz")).unwrap();
    let mut decompressor = crate::record::compression::Decompressor::default();
    let algorithm = crate::record::compression::Algorithm::Gzip;
    let unpacked = decompressor.decompress(algorithm, &packed, 4 << 20).unwrap();
    assert!(unpacked == line.as_bytes());
    assert_eq!(scene.files()["a"], "next\n");
}

#[test]
fn a_generation_that_is_over_is_verified_or_its_holes_are_told() {
    let mut scene = Scene::new("layout: mirror, path: '{path}'");
    let mut sink = scene.open();
    let batch = scene.batch(vec![
        run("/a", 1, 0, &["whole\n"]),
        run("/a", 2, 5, &["hole\n"]),
        run("/a", 3, 0, &["new\n"]),
    ]);
    sink.write(&shard(), &batch, 100).unwrap();
    sink.commit(100).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while sink.generations().verified == 0 {
        assert!(std::time::Instant::now() < deadline);
        sink.commit(200).unwrap();
        std::thread::yield_now();
    }
    let expected = Generations { known: 3, verified: 1, damaged: 0, hole_bytes: 5 };
    assert_eq!(sink.generations(), expected);
}

/// forall batches, with failures, kills and what comes again at any place: each line once.
#[test]
fn whatever_fails_each_byte_is_written_once() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let layout = if rng.bool() { "append" } else { "mirror" };
        let mut scene = Scene::new(&format!("layout: {layout}, path: '{{path}}'"));
        let lines: Vec<String> =
            (0..60).map(|n| format!("line {n} {}\n", "x".repeat(n % 7))).collect();
        let offset = |line: usize| lines[..line].iter().map(|line| line.len() as u64).sum::<u64>();
        let mut batches = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            let end = (at + rng.usize(1..9)).min(lines.len());
            // A producer that was killed sends some of it again.
            let from = at - rng.usize(0..=at.min(5));
            let refs: Vec<&str> = lines[from..end].iter().map(|line| &**line).collect();
            batches.push(scene.batch(vec![run("/a", 1, offset(from), &refs)]));
            at = end;
        }
        let (mut sink, mut committed, mut written) = (scene.open(), 0, 0);
        while committed < batches.len() {
            scene.kept.fail(rng.u8(..4) == 0);
            let outcome = match rng.u8(..4) {
                0 => sink.commit(1).map(|_| committed = written),
                1 => {
                    if rng.bool() {
                        let _ = sink.files.flush();
                    }
                    scene.kept.fail(false);
                    sink = scene.open();
                    written = committed;
                    Ok(())
                }
                _ if written < batches.len() => {
                    sink.write(&shard(), &batches[written], 1).map(|()| written += 1)
                }
                _ => Ok(()),
            };
            if outcome.is_err() {
                scene.kept.fail(false);
                sink.roll_back().unwrap();
                written = committed;
            }
        }
        assert_eq!(scene.files(), named(&[("a", &lines.concat())]), "seed {seed}, {layout}");
    }
}
