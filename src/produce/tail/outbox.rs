//! What is to be passed on and was not yet: what is news of files and lines, in order, and names.
//!
//! Invariant: of a file nothing is passed on before its `Opened`, and nothing but where it stood last
//! after it ended. Of its renames only the last is told, and late: where thousands of files are renamed
//! many times a second, telling each would leave no room for a single line.
//!
//! ```text
//!  Opened, Chunk, Seen, Lost, Closed ──▶ queue ─────────────────────┐
//!                                                 now and then one  ├──▶ bounded channel
//!  renamed ──▶ names, a file once ──────────────────────────────────┘
//! ```

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crossbeam_channel::TrySendError;

use super::tailer::Tailer;
use super::{Chunk, FileEvent, Output};
use crate::position::FileKey;

/// Outputs that there is always room for: more of them come at once only where many files are found.
const OUTBOX: usize = 64;

/// For so many chunks one name is told, where there is more to read than room.
const CHUNKS_A_NAME: usize = 8;

/// What waits to be passed on.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: VecDeque<Output>,
    /// Files whose path was not told since it changed.
    untold: HashSet<FileKey>,
    /// The same in their turn, each once, and some that ended since.
    names: VecDeque<FileKey>,
    /// Chunks since the last name.
    chunks: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, event: FileEvent) {
        self.queue.push_back(Output::File(event));
    }

    pub(super) fn push_starved(&mut self) {
        self.queue.push_back(Output::Starved);
    }

    /// Returns true where nothing waits, names included.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.untold.is_empty()
    }

    /// Returns true where lines and news of files have all been passed on.
    pub(super) fn has_room(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns how much waits, names included.
    fn len(&self) -> usize {
        self.queue.len().saturating_add(self.untold.len())
    }

    /// Gives memory back that many files took at once.
    fn shrink(&mut self) {
        self.queue.shrink_to(OUTBOX);
        self.names.shrink_to(OUTBOX);
        self.untold.shrink_to(OUTBOX);
    }
}

impl Tailer {
    /// The path of a file has changed. A second time before it was told, nothing more is to be told.
    pub(super) fn moved(&mut self, key: FileKey) {
        if self.outbox.untold.insert(key) {
            self.outbox.names.push_back(key);
        }
    }

    /// Takes a chunk that was read, and now and then a name, which lines that never cease must not keep
    /// from being told for ever.
    pub(super) fn pass_on(&mut self, chunk: Chunk) {
        self.shortage.told = false;
        self.outbox.queue.push_back(Output::Chunk(chunk));
        self.outbox.chunks = self.outbox.chunks.saturating_add(1);
        if self.outbox.chunks >= CHUNKS_A_NAME {
            self.post_name();
        }
    }

    /// Lets the next name that was not told be passed on; false where there is none.
    fn post_name(&mut self) -> bool {
        self.outbox.chunks = 0;
        while let Some(key) = self.outbox.names.pop_front() {
            if self.post_name_of(key) {
                return true;
            }
        }
        false
    }

    /// Lets the path of a file be passed on where it was not told; false where it was, or the file ended.
    pub(super) fn post_name_of(&mut self, key: FileKey) -> bool {
        if !self.outbox.untold.remove(&key) {
            return false;
        }
        let Some(file) = self.files.get(key) else { return false };
        let path = Arc::clone(&file.path);
        self.outbox.push(FileEvent::Moved { key, path });
        true
    }

    /// Passes on what waits but names as far as there is room; false where nobody takes it any more.
    pub(super) fn deliver(&mut self) -> bool {
        let mut is_awaited = false;
        while let Some(output) = self.outbox.queue.pop_front() {
            match self.around.output.try_send(output) {
                Ok(()) => is_awaited = false,
                Err(TrySendError::Full(output)) => {
                    self.outbox.queue.push_front(output);
                    if is_awaited {
                        return true;
                    }
                    // Room that was made before anybody could know that it is waited for is found by
                    // looking once more.
                    self.around.wake.set_starved(true);
                    is_awaited = true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        self.outbox.shrink();
        true
    }

    /// Passes on names in the room that reading has left; false where nobody takes them any more.
    pub(super) fn deliver_names(&mut self) -> bool {
        while self.outbox.has_room() && self.post_name() {
            if !self.deliver() {
                return false;
            }
        }
        true
    }

    /// Passes on all that waits, as long as somebody takes it.
    pub(super) fn deliver_all(mut self) {
        while self.post_name() {}
        for output in self.outbox.queue {
            if self.around.output.send(output).is_err() {
                return;
            }
        }
    }

    /// Whether it pays to wait for more room than the first. Not while many outputs wait: they tell
    /// mostly of names, each needs but one place in the channel, and while they wait files come and
    /// are deleted unseen.
    pub(super) fn gathers_room(&self) -> bool {
        self.outbox.len() <= 1
    }
}
