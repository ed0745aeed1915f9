//! The memory that lines are read into: a bounded budget of recycled blocks for one flow.
//!
//! Invariant: neither the bytes lent out nor those read and not settled exceed the budget, but for one
//! loan at a time that is larger than half of it (a very long line), which is lent only while nothing
//! else is. A loan ends when the last [`Bytes`] slice of it is dropped, whichever thread does that.
//!
//! Both are counted, because merging copies: a loan may be back long before its bytes are settled
//! (they wait in an open record, or in one that was put together from many files), and a slice of a
//! few bytes may hold a whole block. Of a compressed record, only its own length is counted: its text is
//! gone. What records take beside their bytes comes on top (`weight`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::wake::Wake;

/// How much is read at a time. Reading costs the same per byte from 64 KiB on; from 1 MiB on the
/// block leaves the L2 cache before it is cut, encoded and hashed.
pub const BLOCK: usize = 256 * 1024;

/// How much reading may be ahead of merging: enough that neither waits for the other, and so little that
/// it is merged while a cache still holds it. All of the memory takes a twentieth more processor time.
const AHEAD: usize = 8 * BLOCK;

/// What a file reads in a turn while memory is short. So little is kept in memory of its own size:
/// a few lines must not hold a block.
pub const PIECE: usize = BLOCK / 8;

/// The least share of the memory that a file has: some lines.
const SHARE_MIN: usize = 4096;

/// Returns how much of a budget of `limit` bytes may wait for company while reading is short of memory:
/// with that, and what is on its way settled, memory is [ample](Budget::is_ample) again.
#[must_use]
pub fn may_wait(limit: usize) -> usize {
    // Beside the text there are chunks on their way and what records weigh.
    (limit / 2).saturating_sub(2 * BLOCK).saturating_sub(limit / 16)
}

/// What a small loan is charged beyond its bytes: allocation, [`Bytes`] handle and queue entry.
const OVERHEAD: usize = 128;

/// The budget of one flow.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    lent: AtomicUsize,
    /// Bytes that were read and are not settled.
    unsettled: AtomicUsize,
    /// Those that merging has not taken yet.
    ahead: AtomicUsize,
    /// What their records take beside their bytes.
    records: AtomicUsize,
    /// Blocks that came back, to be lent again: a fresh block costs page faults.
    free: Mutex<Vec<Vec<u8>>>,
    /// Told when something comes back.
    wake: Arc<Wake>,
}

/// A loan that is being filled.
#[derive(Debug)]
pub struct Loan {
    bytes: Vec<u8>,
    charge: usize,
    budget: Arc<Budget>,
}

impl Budget {
    /// Returns a budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize, wake: Arc<Wake>) -> Arc<Self> {
        let [lent, unsettled, ahead, records] = [const { AtomicUsize::new(0) }; 4];
        Arc::new(Self { limit, lent, unsettled, ahead, records, free: Mutex::default(), wake })
    }

    /// Returns true where a loan of a whole block would be given.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.fits(BLOCK)
    }

    /// Returns true while less than half of the memory is used: nobody's share is touched yet.
    #[must_use]
    pub fn is_ample(&self) -> bool {
        self.limit.saturating_sub(self.used()) >= (self.limit / 2).saturating_add(BLOCK)
    }

    /// Returns how much one of `files` files may read in its next turn: it has `unsettled` bytes on
    /// their way, and the line it is at is longer than `searched`. `None` where it must wait.
    ///
    /// Half of the memory is for whoever comes first. The other half is divided among all files,
    /// each of which may always hold its share of it: so the files of a throttled shard, however
    /// much they have to send, cannot take what the others need. (A share is 4 KiB or more; with
    /// the default of 8 MiB, nine hundred files have one.)
    #[must_use]
    pub fn portion(&self, unsettled: u64, searched: u64, files: usize) -> Option<usize> {
        if self.is_ample() {
            return Some(BLOCK);
        }
        let free = self.limit.saturating_sub(self.used());
        let common = self.limit / 2;
        // One block is what everybody reads into before the lines are copied.
        let share = common.saturating_sub(BLOCK) / files.max(1);
        let share = share.saturating_sub(OVERHEAD).max(SHARE_MIN);
        let left = share.saturating_sub(usize::try_from(unsettled).unwrap_or(usize::MAX));
        let portion = if left < BLOCK { left.min(PIECE) } else { BLOCK };
        let fits = portion >= SHARE_MIN && free >= BLOCK.saturating_add(portion);
        if fits && portion as u64 > searched {
            return Some(portion);
        }
        // A line that is longer than the share goes by itself, or it would wait for ever behind the
        // files of a shard that takes nothing.
        let is_long = unsettled == 0 && searched >= portion as u64;
        (is_long && free >= BLOCK.saturating_mul(2)).then_some(BLOCK)
    }

    /// Returns the bytes that are lent out.
    #[must_use]
    pub fn lent(&self) -> usize {
        self.lent.load(Ordering::Acquire)
    }

    /// Counts bytes that are passed on: they use the budget until they are [settled](Self::settled).
    pub fn passed_on(&self, bytes: usize) {
        self.unsettled.fetch_add(bytes, Ordering::AcqRel);
        self.ahead.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Returns true where enough waits for merging.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.ahead.load(Ordering::Acquire) >= AHEAD
    }

    /// Tells that a chunk of so many bytes, or news of a file, was taken out of the channel.
    pub fn taken(&self, bytes: usize) {
        self.ahead.fetch_sub(bytes, Ordering::AcqRel);
        self.wake.room();
    }

    /// Counts bytes that are settled (accepted, dead-lettered or skipped), or whose memory compression
    /// has made free.
    pub fn settled(&self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.unsettled.fetch_sub(bytes, Ordering::AcqRel);
        // A file may wait for its own bytes to be settled, whosever memory they were in.
        self.wake.room();
    }

    /// Counts what records will take beside their bytes, until it is [given back](Self::give_back).
    pub fn take(&self, weight: usize) {
        self.records.fetch_add(weight, Ordering::AcqRel);
    }

    /// Counts what settled records took beside their bytes.
    pub fn give_back(&self, weight: usize) {
        self.records.fetch_sub(weight, Ordering::AcqRel);
    }

    /// Lends `size` writable bytes, or nothing where that would exceed the budget. Sizes up to a
    /// block are served with a whole, recycled one.
    #[must_use]
    pub fn lend(self: &Arc<Self>, size: usize) -> Option<Loan> {
        let charge = size.max(BLOCK);
        if !self.fits(charge) {
            return None;
        }
        self.lent.fetch_add(charge, Ordering::AcqRel);
        let recycled = if charge == BLOCK { self.free().pop() } else { None };
        let bytes = recycled.unwrap_or_else(|| vec![0; charge]);
        Some(Loan { bytes, charge, budget: Arc::clone(self) })
    }

    /// Copies a few bytes into memory of their own, so that a short line does not hold a block.
    #[must_use]
    pub fn copy(self: &Arc<Self>, bytes: &[u8]) -> Bytes {
        let charge = bytes.len().saturating_add(OVERHEAD);
        self.lent.fetch_add(charge, Ordering::AcqRel);
        let loan = Loan { bytes: bytes.to_vec(), charge, budget: Arc::clone(self) };
        loan.freeze(0, bytes.len())
    }

    /// Only one thread borrows, so a check before the addition cannot be overtaken by another loan.
    fn fits(&self, charge: usize) -> bool {
        if charge > self.limit / 2 {
            return self.lent() == 0;
        }
        self.used().saturating_add(charge) <= self.limit
    }

    fn used(&self) -> usize {
        let bytes = self.lent().max(self.unsettled.load(Ordering::Acquire));
        bytes.saturating_add(self.records.load(Ordering::Acquire))
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        // A panic ends the process in production (`panic = "abort"`), and the list has no state
        // that a panic could leave half done.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loan {
    /// Returns the bytes to fill; at least as many as were asked for.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Returns what has been filled so far.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bytes `start..end` as shared memory; the loan ends when the last slice of it is gone.
    #[must_use]
    pub fn freeze(self, start: usize, end: usize) -> Bytes {
        Bytes::from_owner(self).slice(start..end)
    }
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if self.charge == BLOCK {
            // Blocks are kept up to the budget, never beyond: they came out of it.
            self.budget.free().push(std::mem::take(&mut self.bytes));
        }
        self.budget.lent.fetch_sub(self.charge, Ordering::AcqRel);
        self.budget.wake.room();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: usize) -> Arc<Budget> {
        Budget::new(limit, Arc::new(Wake::new()))
    }

    /// Lets a file take all it gets, and settle none of it.
    fn take_all(budget: &Arc<Budget>, files: usize) -> Vec<Bytes> {
        let (mut held, mut unsettled) = (Vec::new(), 0);
        while let Some(portion) = budget.portion(unsettled, 0, files) {
            let block = budget.lend(BLOCK).unwrap().freeze(0, portion);
            unsettled += portion as u64;
            held.push(if portion > PIECE { block } else { budget.copy(&block) });
        }
        held
    }

    #[test]
    fn files_that_stand_still_leave_each_other_file_its_share() {
        for (blocks, files) in [(4, 3), (4, 60), (8, 1), (32, 900), (1024, 10_000)] {
            let budget = budget(blocks * BLOCK);
            let held: Vec<_> = (0..files).map(|_| take_all(&budget, files)).collect();
            assert!(held.iter().all(|held| !held.is_empty()), "{blocks} blocks, {files} files");
            assert!(budget.has_room(), "{blocks} blocks, {files} files");
        }
    }

    #[test]
    fn while_half_is_free_nobody_waits() {
        let budget = budget(4 * BLOCK);
        let first = budget.lend(BLOCK).unwrap();
        assert_eq!(budget.portion(u64::MAX, u64::MAX, 100), Some(BLOCK));
        let second = budget.lend(BLOCK).unwrap();
        assert_eq!(budget.portion(BLOCK as u64, 0, 1), None, "its share is taken");
        assert_eq!(budget.portion(0, 0, 1), Some(PIECE));
        assert_eq!(budget.portion(1, PIECE as u64, 1), None, "a piece would not hold its line");
        assert_eq!(budget.portion(0, PIECE as u64, 1), Some(BLOCK), "a long line goes by itself");
        drop((first, second));
    }

    #[test]
    fn nothing_is_lent_beyond_the_budget() {
        let budget = budget(2 * BLOCK);
        let first = budget.lend(10).unwrap();
        let _second = budget.lend(BLOCK).unwrap();
        assert!(budget.lend(1).is_none());
        drop(first);
        assert!(budget.lend(1).is_some());
    }

    #[test]
    fn a_loan_ends_with_its_last_slice() {
        let budget = budget(BLOCK);
        let bytes = budget.lend(100).unwrap().freeze(0, 100);
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(budget.lent(), BLOCK);
        drop(slice);
        assert_eq!(budget.lent(), 0);
        assert!(budget.has_room());
    }

    #[test]
    fn a_loan_larger_than_the_budget_is_given_alone() {
        let budget = budget(BLOCK);
        let large = budget.lend(10 * BLOCK).unwrap();
        assert!(budget.lend(1).is_none());
        drop(large);
        let small = budget.lend(1).unwrap();
        assert!(budget.lend(10 * BLOCK).is_none());
        drop(small);
    }

    #[test]
    fn what_was_read_uses_the_budget_until_it_is_settled_whoever_holds_it() {
        let budget = budget(4 * BLOCK);
        for _ in 0..3 {
            drop(budget.lend(BLOCK).unwrap());
            budget.passed_on(BLOCK);
        }
        assert!(budget.has_room(), "a quarter is left");
        budget.passed_on(1);
        assert!(!budget.has_room());
        assert!(budget.lend(1).is_none() && budget.portion(0, 0, 1).is_none());
        budget.settled(BLOCK as u64);
        assert!(budget.lend(1).is_some());
    }

    #[test]
    fn a_copy_is_charged_by_its_own_size() {
        let budget = budget(BLOCK);
        let copy = budget.copy(b"short line\n");
        assert_eq!(&copy[..], b"short line\n");
        assert_eq!(budget.lent(), 11 + OVERHEAD);
        drop(copy);
        assert_eq!(budget.lent(), 0);
    }
}
