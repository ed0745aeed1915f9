//! What is known of shards: which key lives where, and which shard takes no more just now.
//!
//! Invariant: memory is bounded whatever keys and shards come. The table of keys has two
//! generations: when the younger is full, it becomes the older one and what was the older is
//! forgotten; a key that is used moves into the younger. A forgotten key costs one refused record.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use fastrand::Rng;

use super::backoff::Backoff;

/// Keys in a generation: both together are those of two windows of full calls with the default limits
/// (2 × 500 × 4 records); at most 256 bytes of key each, 1 MB in all. More keys in use cost refused records.
const GENERATION_KEYS: usize = 2048;

/// Shards under backoff that are remembered; past it those whose pause is over are forgotten.
const SHARDS_MAX: usize = 1024;

#[derive(Debug)]
struct Closed {
    failures: u32,
    since: Instant,
    until: Instant,
}

/// The shards of a stream, as far as the answers tell.
#[derive(Debug)]
pub(super) struct Shards {
    backoff: Backoff,
    closed: HashMap<Arc<str>, Closed>,
    young: HashMap<Arc<str>, Arc<str>>,
    old: HashMap<Arc<str>, Arc<str>>,
}

impl Shards {
    /// Returns a table that knows nothing yet.
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, closed: HashMap::new(), young: HashMap::new(), old: HashMap::new() }
    }

    /// Returns until when the shard of `key` takes no more, where that is known.
    pub(super) fn closed_until(&self, key: &str, now: Instant) -> Option<Instant> {
        if self.closed.is_empty() {
            return None;
        }
        let until = self.closed.get(self.home(key)?)?.until;
        (until > now).then_some(until)
    }

    /// Learns that `key` lives on `shard`.
    pub(super) fn learn(&mut self, key: &Arc<str>, shard: &Arc<str>) {
        if let Some(home) = self.young.get_mut(key) {
            if home != shard {
                *home = Arc::clone(shard);
            }
            return;
        }
        if self.young.len() >= GENERATION_KEYS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Arc::clone(key), Arc::clone(shard));
    }

    /// Returns the shard of `key` where it is known.
    pub(super) fn home(&self, key: &str) -> Option<&Arc<str>> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The shard accepted a record of a call that was sent at `sent`. Sent after the pause began,
    /// it shows that the shard is open; sent before, only that the next pause may start small again.
    pub(super) fn on_accepted(&mut self, shard: &str, sent: Instant) {
        let Some(closed) = self.closed.get_mut(shard) else { return };
        if closed.since < sent {
            self.closed.remove(shard);
        } else {
            closed.failures = 1;
        }
    }

    /// The shard refused a record of a call that was sent at `sent`; returns until when all its
    /// keys wait. Refusals of one answer, and of calls sent before the pause began, are one.
    pub(super) fn on_throttled(
        &mut self,
        now: Instant,
        shard: &Arc<str>,
        sent: Instant,
        rng: &mut Rng,
    ) -> Instant {
        if self.closed.len() >= SHARDS_MAX {
            self.closed.retain(|_, closed| closed.until > now);
        }
        let failures = match self.closed.get(shard) {
            Some(closed) if closed.since >= sent => return closed.until,
            Some(closed) => closed.failures.saturating_add(1),
            None => 1,
        };
        let until = now.checked_add(self.backoff.jittered(failures, rng)).unwrap_or(now);
        self.closed.insert(Arc::clone(shard), Closed { failures, since: now, until });
        until
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shards() -> (Shards, Rng, Instant) {
        let backoff = Backoff::new(Duration::from_secs(10));
        (Shards::new(backoff), Rng::with_seed(7), Instant::now())
    }

    fn name(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn keys_of_a_throttled_shard_wait_together_and_others_do_not() {
        let (mut shards, mut rng, now) = shards();
        let (hot, cool) = (name("shardId-000000000000"), name("shardId-000000000001"));
        shards.learn(&name("a"), &hot);
        shards.learn(&name("b"), &hot);
        shards.learn(&name("c"), &cool);
        let until = shards.on_throttled(now, &hot, now, &mut rng);
        assert!(until > now, "seed 7 draws a pause");
        assert_eq!(shards.closed_until("a", now), Some(until));
        assert_eq!(shards.closed_until("b", now), Some(until));
        assert_eq!(shards.closed_until("c", now), None);
        assert_eq!(shards.closed_until("unknown", now), None);
        assert_eq!(shards.closed_until("a", until), None);
        shards.on_accepted(&hot, now);
        assert_eq!(shards.closed_until("a", now), Some(until), "sent before the pause");
        shards.on_accepted(&hot, now + Duration::from_micros(1));
        assert_eq!(shards.closed_until("a", now), None);
    }

    #[test]
    fn refusals_of_calls_sent_before_the_pause_do_not_lengthen_it() {
        let (mut shards, mut rng, now) = shards();
        let hot = name("hot");
        let later = now + Duration::from_millis(1);
        let until = shards.on_throttled(later, &hot, now, &mut rng);
        assert_eq!(shards.on_throttled(later, &hot, now, &mut rng), until);
        assert_eq!(shards.closed["hot"].failures, 1);
        let after = until + Duration::from_millis(1);
        shards.on_throttled(after, &hot, until, &mut rng);
        assert_eq!(shards.closed["hot"].failures, 2);
    }

    #[test]
    fn the_table_of_keys_is_bounded_and_keeps_the_used_ones() {
        let (mut shards, _, _) = shards();
        let home = name("shard");
        for index in 0..GENERATION_KEYS * 5 {
            shards.learn(&name(&format!("key-{index}")), &home);
            shards.learn(&name("used"), &home);
        }
        assert!(shards.young.len() + shards.old.len() <= 2 * GENERATION_KEYS);
        assert!(shards.home("used").is_some());
        assert!(shards.home("key-0").is_none());
    }

    #[test]
    fn shards_that_are_never_heard_of_again_are_forgotten() {
        let (mut shards, mut rng, now) = shards();
        for index in 0..SHARDS_MAX * 3 {
            let at = now + Duration::from_secs(index as u64);
            shards.on_throttled(at, &name(&format!("shard-{index}")), at, &mut rng);
        }
        assert!(shards.closed.len() <= SHARDS_MAX);
    }
}
