//! Damage of every kind, at many places: nothing panics, no position is ahead of what was committed, no
//! key comes again, and the store works afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::tests::{copy_as_after_a_crash, files, letter, row};
use super::*;
use crate::effort;

const ROWS: u64 = 150;
const LAST_OFFSET: u64 = 3;

/// A state directory with committed rows and letters, and what is in its files.
struct Sound {
    database: Vec<u8>,
    log: Option<Vec<u8>>,
    last_key: FileKey,
}

impl Sound {
    /// Returns the files after a clean stop, or those a crash leaves.
    fn new(is_crashed: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let mut store = Store::open(root.path()).unwrap();
        let keys = store.keys();
        for offset in 1..=LAST_OFFSET {
            let commit = Commit {
                started: if offset == 1 { vec!["flow".into()] } else { Vec::new() },
                dead_letters: vec![letter(6_000)],
                ..files((1..=ROWS).map(|key| row(key, offset)).collect())
            };
            store.commit(&commit).unwrap();
        }
        let last_key = (0..ROWS).filter_map(|_| keys.allot()).max().unwrap();
        if is_crashed {
            copy_as_after_a_crash(root.path(), copy.path());
            drop(store);
        } else {
            drop(store);
            copy_as_after_a_crash(root.path(), copy.path());
        }
        let path = path_in(copy.path());
        let log = fs::read(salvage::with_suffix(&path, "-wal")).ok();
        assert_eq!(log.is_some(), is_crashed);
        Self { database: fs::read(&path).unwrap(), log, last_key }
    }

    fn write(&self, state_dir: &Path) {
        let path = path_in(state_dir);
        fs::write(&path, &self.database).unwrap();
        if let Some(log) = &self.log {
            fs::write(salvage::with_suffix(&path, "-wal"), log).unwrap();
        }
    }
}

/// Opens what is there and checks the promises. Returns how many rows and letters were kept.
fn check(state_dir: &Path, last_key: FileKey, case: &str) -> Option<(usize, usize)> {
    let mut store = match Store::open(state_dir) {
        Ok(store) => store,
        // A bit of the header's version number: words to act on, and nothing touched.
        Err(Error::Newer { .. }) => return None,
        Err(error) => panic!("{case}: {error}"),
    };
    let rows = store.load("flow").unwrap();
    for found in &rows {
        assert!((1..=ROWS).contains(&found.key.0), "{case}");
        assert!(found.position.offset <= LAST_OFFSET, "{case}: a position moved forward");
        assert_eq!(*found, row(found.key.0, found.position.offset), "{case}");
    }
    if rows.len() < usize::try_from(ROWS).unwrap() {
        assert!(!store.is_first_start("flow").unwrap(), "{case}: start_at would skip");
        assert!(!store.is_first_start("other").unwrap(), "{case}: start_at would skip");
    }
    assert!(store.keys().allot().unwrap() > last_key, "{case}: a key comes again");
    let letters = store.dead_letters().unwrap();
    for summary in &letters {
        match store.dead_letter(summary.id) {
            Ok(found) => assert_eq!(found, Some(letter(6_000)), "{case}"),
            Err(error) => assert!(matches!(error, Error::LetterDamaged { .. }), "{case}: {error}"),
        }
    }
    store.commit(&files(vec![row(9_999, 5)])).unwrap();
    assert!(store.load("flow").unwrap().contains(&row(9_999, 5)), "{case}");
    Some((rows.len(), letters.len()))
}

/// Runs `count` cases, each with the damage that `damage` does to the files; returns how many kept all.
fn run(sound: &Sound, count: u64, damage: impl Fn(&mut fastrand::Rng, &mut Sound)) -> u64 {
    let mut whole = 0;
    for seed in 0..count {
        let case = format!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut damaged =
            Sound { database: sound.database.clone(), log: sound.log.clone(), ..*sound };
        damage(&mut random, &mut damaged);
        // Hundreds of databases are made: in memory where that can be had, so that no sync is waited for.
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        damaged.write(root.path());
        let kept = check(root.path(), sound.last_key, &case);
        whole += u64::from(kept == Some((usize::try_from(ROWS).unwrap(), 3)));
    }
    whole
}

fn flip(random: &mut fastrand::Rng, bytes: &mut [u8]) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
    }
}

/// All kinds of damage, several at once, to the database and its log, after a clean stop or a crash.
#[test]
fn damage_of_any_kind_never_moves_a_position_forward() {
    let sounds = [Sound::new(false), Sound::new(true)];
    let first = effort::seed(1);
    let mut tried = 0;
    for try_ in effort::tries(400) {
        let seed = first.wrapping_add(try_);
        let mut random = fastrand::Rng::with_seed(seed);
        let sound = &sounds[random.usize(..2)];
        let mut damaged =
            Sound { database: sound.database.clone(), log: sound.log.clone(), ..*sound };
        for _ in 0..random.usize(1..4) {
            damage(&mut random, &mut damaged);
        }
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        damaged.write(root.path());
        check(root.path(), sound.last_key, &format!("seed {seed}"));
        tried += 1;
    }
    println!("\ntried: {tried} damaged databases from seed {first}, no position forward, no panic");
}

/// Damages the database, or its log where there is one.
fn damage(random: &mut fastrand::Rng, damaged: &mut Sound) {
    let log = damaged.log.as_mut().filter(|_| random.bool());
    let bytes = log.unwrap_or(&mut damaged.database);
    if bytes.is_empty() {
        return;
    }
    let (from, other) = (random.usize(..bytes.len()), random.usize(..bytes.len()));
    let end = bytes.len().min(from + random.usize(1..8_192));
    match random.u8(..5) {
        0 => flip(random, bytes),
        1 => bytes.truncate(from),
        2 => bytes[from..end].fill(0),
        3 => random.fill(&mut bytes[from..end]),
        _ => bytes.copy_within(from..end, other.min(from)),
    }
}

#[test]
fn flipped_bits_never_move_a_position_forward() {
    let sound = Sound::new(false);
    let whole = run(&sound, 150, |random, damaged| flip(random, &mut damaged.database));
    println!("{whole} of 150 kept all");
}

#[test]
fn a_damaged_header_is_noticed() {
    let sound = Sound::new(false);
    run(&sound, 60, |random, damaged| flip(random, &mut damaged.database[..100]));
}

#[test]
fn zeroed_garbled_and_swapped_pages_never_move_a_position_forward() {
    let sound = Sound::new(false);
    let pages = sound.database.len() / 4096;
    run(&sound, 100, |random, damaged| {
        let page = |index: usize| index * 4096..(index + 1) * 4096;
        let (one, other) = (page(random.usize(..pages)), page(random.usize(..pages)));
        match random.u8(..3) {
            0 => damaged.database[one].fill(0),
            1 => random.fill(&mut damaged.database[one]),
            _ => damaged.database.copy_within(one, other.start),
        }
    });
}

#[test]
fn a_truncated_database_never_moves_a_position_forward() {
    let sound = Sound::new(false);
    run(&sound, 60, |random, damaged| {
        damaged.database.truncate(random.usize(..damaged.database.len()));
    });
}

#[test]
fn a_damaged_write_ahead_log_never_moves_a_position_forward() {
    let sound = Sound::new(true);
    run(&sound, 100, |random, damaged| {
        let log = damaged.log.as_mut().unwrap();
        if random.bool() {
            flip(random, log);
        } else {
            log.truncate(random.usize(..log.len()));
        }
    });
}

#[test]
fn one_damaged_page_costs_only_its_own_rows_and_the_damaged_database_is_kept() {
    let sound = Sound::new(false);
    let root = tempfile::tempdir().unwrap();
    sound.write(root.path());
    let path = path_in(root.path());
    let leaf = {
        let connection = rusqlite::Connection::open(&path).unwrap();
        let query = "SELECT pageno FROM dbstat WHERE name = 'files' AND pagetype = 'leaf'";
        let mut statement = connection.prepare(query).unwrap();
        let pages = statement.query_map([], |row| row.get::<_, u32>(0)).unwrap();
        let pages: Vec<_> = pages.map(Result::unwrap).collect();
        assert!(pages.len() > 3, "{pages:?}");
        usize::try_from(pages[pages.len() / 2]).unwrap()
    };
    let mut bytes = fs::read(&path).unwrap();
    bytes[(leaf - 1) * 4096..leaf * 4096].fill(0);
    fs::write(&path, &bytes).unwrap();
    let (rows, letters) = check(root.path(), sound.last_key, "one page").unwrap();
    assert!(rows > 100 && rows < 150, "{rows}");
    assert_eq!(letters, 3);
    let kept: Vec<_> = fs::read_dir(root.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("damaged-"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(fs::read(&kept[0]).unwrap(), bytes);
}

#[test]
fn a_row_with_a_flipped_bit_is_dropped_and_the_rest_kept() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(root.path()).unwrap();
    store.commit(&files(vec![row(1, 10), row(2, 10), row(3, 10)])).unwrap();
    store.connection().execute("UPDATE files SET offset = 11 WHERE key = 2", []).unwrap();
    drop(store);
    let store = Store::open(root.path()).unwrap();
    assert_eq!(store.load("flow").unwrap(), [row(1, 10), row(3, 10)]);
    assert!(!store.is_first_start("flow").unwrap());
    assert!(!store.is_first_start("another").unwrap());
}

#[test]
fn a_damaged_dead_letter_is_not_shown_as_sound() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(root.path()).unwrap();
    store.commit(&Commit { dead_letters: vec![letter(3)], ..Commit::default() }).unwrap();
    store.connection().execute("UPDATE dead_letters SET data = x'a5a5a4'", []).unwrap();
    let error = store.dead_letter(1).unwrap_err();
    assert!(matches!(error, Error::LetterDamaged { id: 1 }), "{error}");
}

#[test]
fn what_a_crash_left_half_made_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let path: PathBuf = path_in(root.path());
    fs::write(salvage::with_suffix(&path, ".new"), b"half").unwrap();
    fs::write(salvage::with_suffix(&path, "-wal"), b"of another database").unwrap();
    let mut store = Store::open(root.path()).unwrap();
    store.commit(&files(vec![row(1, 1)])).unwrap();
    let by_key: BTreeMap<_, _> =
        store.load("flow").unwrap().into_iter().map(|row| (row.key, row)).collect();
    assert_eq!(by_key[&FileKey(1)], row(1, 1));
    drop(store);
    // An empty database is one that was damaged, not one that was never there.
    fs::write(&path, b"").unwrap();
    let store = Store::open(root.path()).unwrap();
    assert!(!store.is_first_start("flow").unwrap());
}
