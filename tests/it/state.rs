//! Damage to the state directory, between two runs of the agent.
//!
//! Promise 1: "The checkpoint of a file never passes the longest acknowledged prefix, whatever fails."
//! What cannot be read any more costs duplicates, never lines, and the agent starts all the same.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::scene::{Scene, Settings, stop};
use crate::support::endpoint::Script;
use crate::support::oracle::Allowance;

/// Lets two runs have `damage` between them, done to the database; asserts that every line arrives.
fn damaged(seed: u64, damage: impl FnOnce(&Path)) {
    let scene = Scene::new(seed, &Settings::default(), Script::healthy());
    let mut minters: Vec<_> = (0..5).map(|file| scene.write(file, 100)).collect();
    let agent = scene.home.start();
    scene.arrived().assert_exactly_once();
    scene.at_rest();
    stop(agent);
    scene.endpoint.begin_run();
    let before = scene.oracle.bytes();
    let state = scene.home.state();
    for log in ["kinetail.db-wal", "kinetail.db-shm"] {
        // An agent that ends in order leaves none.
        fs::remove_file(state.join(log)).ok();
    }
    damage(&state.join("kinetail.db"));
    minters = (0..).zip(minters).map(|(file, minter)| scene.write_more(file, minter, 50)).collect();
    let agent = scene.home.start();
    scene.arrived().assert_within(Allowance::bytes(before));
    stop(agent);
    // What it has made of the damage is sound: the next run repeats nothing.
    let twice = scene.arrived().duplicate_bytes;
    drop(scene.write_more(0, minters.swap_remove(0), 1));
    let agent = scene.home.start();
    scene.arrived().assert_within(Allowance::bytes(twice));
    stop(agent);
}

fn open(database: &Path) -> File {
    OpenOptions::new().write(true).open(database).unwrap()
}

#[test]
fn a_database_that_was_cut_costs_no_line() {
    for (seed, share) in [(141, 0), (142, 3), (143, 9)] {
        damaged(seed, |database| {
            let file = open(database);
            let size = file.metadata().unwrap().len();
            file.set_len(size * share / 10).unwrap();
        });
    }
}

#[test]
fn a_database_that_was_zeroed_costs_no_line() {
    damaged(144, |database| {
        let size = usize::try_from(database.metadata().unwrap().len()).unwrap();
        open(database).write_all_at(&vec![0; size], 0).unwrap();
    });
    damaged(145, |database| open(database).write_all_at(&[0; 4096], 4096).unwrap());
}

#[test]
fn a_database_with_flipped_bits_costs_no_line() {
    for seed in 146..150 {
        damaged(seed, |database| {
            let mut bytes = fs::read(database).unwrap();
            let mut draws = fastrand::Rng::with_seed(seed);
            for _ in 0..40 {
                let at = draws.usize(..bytes.len());
                bytes[at] ^= 1 << draws.u8(..8);
            }
            fs::write(database, bytes).unwrap();
        });
    }
}

#[test]
fn a_database_that_was_removed_costs_no_line() {
    damaged(150, |database| fs::remove_file(database).unwrap());
}
