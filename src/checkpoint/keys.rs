//! File keys: never the same twice in a state directory.
//!
//! Invariant: a key is handed out only below a limit that is durable, and a start begins at the limit
//! it finds. What is reserved and not used is lost; 2^63 keys are enough for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::position::FileKey;

/// Keys reserved at once: about a million files a start, so that a reservation is hardly ever waited
/// for, and 2^43 starts.
pub(super) const BLOCK: u64 = 1 << 20;

/// Hands out file keys; a clone hands out of the same block. Threads share it without a lock.
#[derive(Clone, Debug)]
pub struct KeyAllocator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    next: AtomicU64,
    limit: AtomicU64,
}

impl KeyAllocator {
    pub(super) fn new(next: u64, limit: u64) -> Self {
        let shared = Shared { next: AtomicU64::new(next), limit: AtomicU64::new(limit) };
        Self { shared: Arc::new(shared) }
    }

    /// Returns a key that was never used before. `None` where the reserved block is used up: more
    /// are reserved by the next commit, so try again later.
    #[must_use]
    pub fn allot(&self) -> Option<FileKey> {
        let limit = self.shared.limit.load(Ordering::Acquire);
        self.shared
            .next
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |next| {
                (next < limit).then_some(next.saturating_add(1))
            })
            .ok()
            .map(FileKey)
    }

    /// Returns the limit to reserve up to, once half the block is used.
    pub(super) fn extension(&self) -> Option<u64> {
        let limit = self.shared.limit.load(Ordering::Acquire);
        let left = limit.saturating_sub(self.shared.next.load(Ordering::Acquire));
        (left < BLOCK / 2).then(|| limit.saturating_add(BLOCK))
    }

    /// Notes that keys up to `limit` are reserved durably.
    pub(super) fn extend(&self, limit: u64) {
        self.shared.limit.fetch_max(limit, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_limit_and_go_on_once_it_is_raised() {
        let keys = KeyAllocator::new(5, 7);
        let clone = keys.clone();
        assert_eq!(keys.allot(), Some(FileKey(5)));
        assert_eq!(clone.allot(), Some(FileKey(6)));
        assert_eq!(keys.allot(), None);
        assert_eq!(clone.allot(), None);
        assert_eq!(keys.extension(), Some(7 + BLOCK));
        keys.extend(7 + BLOCK);
        assert_eq!(keys.allot(), Some(FileKey(7)));
        assert_eq!(keys.extension(), None);
    }
}
