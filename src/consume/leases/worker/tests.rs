//! Many workers on a simulated table: crashes, pauses, lost answers, reshards.

mod world;

use std::sync::Arc;

use self::world::{FAILOVER, Table, World, shard_id};
use super::*;
use crate::position::SequenceNumber;

/// Returns true where the worker holds a lease that may have run out.
fn holds(worker: &Worker, shard: &ShardId) -> bool {
    let holding = worker.entries.get(shard).and_then(|entry| entry.holding.as_ref());
    holding.is_some_and(|holding| !holding.stopped)
}

fn checkpoint(worker: &mut Worker, shard: &ShardId, next: u64, now: Instant) {
    if let Some(last) = next.checked_sub(1) {
        let sequence = SequenceNumber::from(&*last.to_string());
        worker.checkpoint(shard, Progress::after(sequence), now);
    }
}

/// Lets a worker do all that it wants to; what `lost` says is done, and the answer lost. Returns the writes.
fn work(
    worker: &mut Worker,
    table: &mut Table,
    now: Instant,
    lost: impl Fn(&Write) -> bool,
) -> Vec<Write> {
    let me = Arc::clone(&worker.settings.id);
    let mut writes = Vec::new();
    while let Some(call) = worker.next(now) {
        let Call::Write(write) = call else {
            worker.on_scanned(table.0.values().cloned().collect(), now, now);
            continue;
        };
        let outcome = table.apply(&write, &me);
        let outcome = if lost(&write) { Outcome::Unknown(String::new()) } else { outcome };
        worker.on_written(&write, outcome, now, now);
        writes.push(*write);
    }
    writes
}

#[test]
fn what_was_noted_and_given_back_without_an_answer_is_written_again() {
    let start = Checkpoint::TrimHorizon;
    let settings = Settings { id: Arc::from("me"), failover: FAILOVER, start };
    let (mut now, mut table) = (Instant::now(), Table::default());
    let mut worker = Worker::new(settings, Rng::with_seed(0), now);
    let world = World::new(0, 1);
    worker.on_listed(&world.shards);
    work(&mut worker, &mut table, now, |_| false);
    now += FAILOVER / SIGNS_OF_LIFE;
    work(&mut worker, &mut table, now, |_| false);
    let shard = shard_id(0);
    assert!(worker.may_write(&shard, now), "{table:?}");
    checkpoint(&mut worker, &shard, 8, now);
    worker.retire();
    worker.release(&shard, now);
    for lost in 0..3 {
        let writes = work(&mut worker, &mut table, now, |_| true);
        assert_eq!(writes.len(), 1, "{lost}: {writes:?}");
        assert!(!worker.may_write(&shard, now));
        now += FAILOVER / LOOKS_WHILE_WAITING;
    }
    work(&mut worker, &mut table, now, |_| false);
    let lease = &table.0[&shard];
    assert_eq!(lease.owner, None);
    assert_eq!(lease.checkpoint, Checkpoint::At(Progress::after(SequenceNumber::from("7"))));
    assert!(!worker.holds_any(now));
}

#[test]
fn shards_are_shared_within_thirty_seconds_and_no_record_is_written_twice() {
    for seed in 0..6 {
        let mut world = World::new(seed, 12);
        for _ in 0..3 {
            world.start();
            let pause = world.rng.u64(0..8_000);
            world.run(pause);
            world.produce();
        }
        world.run(30_000);
        world.assert_balanced();
        world.assert_all_written(1);
        assert!(world.stolen.is_empty(), "{:?}", world.stolen);
    }
}

#[test]
fn agents_that_come_and_go_in_order_repeat_no_record() {
    for seed in 100..104 {
        let mut world = World::new(seed, 9);
        world.start();
        for _ in 0..12 {
            let pause = world.rng.u64(500..15_000);
            world.run(pause);
            world.produce();
            let living = world.living();
            if living.len() > 1 && world.rng.bool() {
                let one = living[world.rng.usize(..living.len())];
                world.agents[one].stopping = true;
            } else {
                world.start();
            }
            if world.rng.u8(..4) == 0 {
                world.split();
            }
        }
        if world.living().is_empty() {
            world.start();
        }
        world.run(90_000);
        world.assert_balanced();
        world.assert_all_written(1);
        assert!(world.stolen.is_empty(), "{:?}", world.stolen);
    }
}

#[test]
fn whatever_fails_no_lease_is_held_twice_and_no_record_is_lost() {
    for seed in 1_000..1_016 {
        let mut world = World::new(seed, 8);
        world.loss = [0.0, 0.02, 0.2][usize::try_from(seed % 3).unwrap()];
        for _ in 0..3 {
            world.start();
        }
        for _ in 0..20 {
            let pause = world.rng.u64(100..12_000);
            world.run(pause);
            world.produce();
            let living = world.living();
            match world.rng.u8(..7) {
                0 if living.len() > 1 => world.kill(living[0]),
                1 | 2 if living.len() < 6 => {
                    world.start();
                }
                3 if !living.is_empty() => {
                    let one = living[world.rng.usize(..living.len())];
                    let until = world.now + world.rng.u64(100..40_000);
                    world.agents[one].paused_until = until;
                }
                4 => world.split(),
                5 => world.merge(),
                _ => {}
            }
        }
        world.loss = 0.0;
        if world.living().is_empty() {
            world.start();
        }
        world.run(150_000);
        world.assert_balanced();
        world.assert_all_written(u32::MAX);
    }
}

/// A worker that begins at `latest`, and the table that it finds empty.
fn latest(shards: &[Shard], now: Instant) -> (Worker, Table) {
    let start = Checkpoint::Latest;
    let settings = Settings { id: Arc::from("agent"), failover: FAILOVER, start };
    let mut worker = Worker::new(settings, Rng::with_seed(1), now);
    worker.on_started(1_000);
    worker.on_listed(shards);
    (worker, Table::default())
}

fn listed(number: usize, parents: &[usize], closed: bool) -> Shard {
    Shard {
        id: shard_id(number),
        parents: parents.iter().map(|parent| shard_id(*parent)).collect(),
        closed,
        first_hash: "0".to_owned(),
        last_hash: "1".to_owned(),
    }
}

fn begins(table: &Table) -> Vec<(Checkpoint, Option<u64>)> {
    table.0.values().map(|lease| (lease.checkpoint.clone(), lease.since)).collect()
}

/// Between the first start and the leases a shard may have been closed, with what came in it by then.
#[test]
fn what_came_since_the_first_start_is_sought_in_closed_shards_too() {
    let now = Instant::now();
    let shards = [listed(0, &[], true), listed(1, &[0], false), listed(2, &[0], false)];
    let (mut worker, mut table) = latest(&shards, now);
    work(&mut worker, &mut table, now, |_| false);
    let since = (Checkpoint::Latest, Some(1_000));
    assert_eq!(begins(&table), [since.clone(), since.clone(), since]);
}

/// Of a parent in which nothing came since then it is not known whether it ended before: what its child holds
/// may be older.
#[test]
fn a_child_of_a_shard_that_brought_nothing_begins_at_the_first_start_too() {
    let now = Instant::now();
    let (mut worker, mut table) = latest(&[listed(0, &[], true)], now);
    let children = |shards: &[usize]| -> Vec<Child> {
        shards
            .iter()
            .map(|&number| {
                let Shard { id, parents, first_hash, last_hash, .. } = listed(number, &[0], false);
                Child { id, parents, first_hash, last_hash }
            })
            .collect()
    };
    work(&mut worker, &mut table, now, |_| false);
    let later = now + FAILOVER;
    work(&mut worker, &mut table, later, |_| false);
    assert!(holds(&worker, &shard_id(0)));
    worker.finish(&shard_id(0), children(&[1, 2]), later);
    work(&mut worker, &mut table, later, |_| false);
    let since = (Checkpoint::Latest, Some(1_000));
    assert_eq!(begins(&table)[1..], [since.clone(), since]);
    assert!(table.0[&shard_id(0)].is_finished());

    // One that was open at the first start, or brought something since, has no older children.
    let (mut worker, mut table) = latest(&[listed(0, &[], false)], now);
    work(&mut worker, &mut table, now, |_| false);
    work(&mut worker, &mut table, later, |_| false);
    worker.finish(&shard_id(0), children(&[1, 2]), later);
    work(&mut worker, &mut table, later, |_| false);
    let oldest = (Checkpoint::TrimHorizon, None);
    assert_eq!(begins(&table)[1..], [oldest.clone(), oldest]);
}
