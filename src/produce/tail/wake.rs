//! The bell of the reading thread: everything it may wait for rings the same one.
//!
//! Invariant: a ring between a look and the wait that follows it ends that wait at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

/// How long room is gathered once some is there, where it was waited for: memory comes back block by
/// block, and to wake a sleeping processor for each of them costs more than to read the block.
const GATHER: Duration = Duration::from_millis(2);

/// A bell that is rung from any thread and waited for by one.
#[derive(Debug)]
pub struct Wake {
    bell: Sender<()>,
    rung: Receiver<()>,
    /// True while the reading thread has something to read and no room for it: only then is room news.
    starved: AtomicBool,
}

impl Default for Wake {
    fn default() -> Self {
        Self::new()
    }
}

impl Wake {
    /// Returns a silent bell.
    #[must_use]
    pub fn new() -> Self {
        let (bell, rung) = bounded(1);
        Self { bell, rung, starved: AtomicBool::new(false) }
    }

    /// Rings: the wait under way, or else the next one, ends.
    pub fn ring(&self) {
        // A full channel means that it has been rung already.
        let _ = self.bell.try_send(());
    }

    /// Tells that there is room again for what is read; rings only where that was waited for.
    pub fn room(&self) {
        if self.starved.load(Ordering::Acquire) {
            self.ring();
        }
    }

    /// Says whether room is waited for. Set before the last look at it, so that none is missed.
    pub fn set_starved(&self, starved: bool) {
        self.starved.store(starved, Ordering::Release);
    }

    /// Waits for a ring, or until `timeout` has passed; false where nobody rang.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.rung.recv_timeout(timeout).is_ok()
    }

    /// Waits like [`Self::wait`]; where it was for room, some of it is gathered first.
    pub fn wait_and_gather(&self, timeout: Duration) {
        if self.wait(timeout) && self.starved.load(Ordering::Acquire) {
            thread::sleep(GATHER.min(timeout));
            let _ = self.rung.try_recv();
        }
    }
}
