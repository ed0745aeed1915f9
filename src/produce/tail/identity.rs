//! Is this the file we knew? Decided from the inode, the first bytes and the bytes before the offset. Pure.
//!
//! Invariant: a position is taken over only by a file whose content up to that position is, by
//! fingerprint and mark, the content that was settled. Inode numbers alone decide nothing: ext4 uses
//! them again at once, and devices change their numbers across reboots.

use crate::position::{Fingerprint, Identity, Mark, Position, Preceding};
use crate::produce::watch::facts::Facts;

/// What is known of a generation that a file is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// By what it is known.
    pub identity: Identity,
    /// How far it was read or settled, and the mark of the bytes before.
    pub position: Position,
}

/// What a file shows of itself, for the comparison with one [`Known`].
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Its facts.
    pub facts: Facts,
    /// Its first bytes, at most [`Fingerprint::WIDTH`].
    pub head: &'a [u8],
    /// The bytes just before the known position, as many as it has.
    pub before: Preceding,
}

/// How a file and a known generation belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same generation in the same place: go on at its position.
    Same,
    /// The same content in another place: a copy (`copytruncate`), or the same file after the device
    /// number changed. It takes the position over if the generation's own place holds it no more.
    Copy,
    /// The same place, but other content: the generation has ended, and a new one begins.
    Replaced,
    /// They have nothing to do with each other.
    Other,
}

/// Compares a file with a known generation.
#[must_use]
pub fn compare(known: &Known, file: &Evidence<'_>) -> Verdict {
    let own = &known.identity;
    let same_place = own.device == file.facts.device && own.inode == file.facts.inode;
    // Where either has no birth time, it says nothing. Born at different times in one place, the one
    // was deleted before the other was made, and that cannot be a copy of it, however equal they are.
    let same_birth = own.birth == file.facts.birth || own.birth == 0 || file.facts.birth == 0;
    let same_content = file.facts.size >= known.position.offset
        && own.fingerprint.matches(file.head)
        && known.position.mark.matches(file.before.as_slice());
    // An empty file has nothing to be known by elsewhere. One of which nothing was read yet may be
    // taken for another that begins like it, which costs nothing: either is read from its start.
    let telling = own.fingerprint.len > 0;
    match (same_place, same_content) {
        (true, true) if same_birth => Verdict::Same,
        (false, true) if telling => Verdict::Copy,
        (true, _) => Verdict::Replaced,
        (false, _) => Verdict::Other,
    }
}

/// Marks of offsets passed on the way to a position, close together just before it and ever farther
/// apart towards the start: evidence for a copy that ends before the position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Ascending.
    marks: Vec<Position>,
}

impl Trail {
    /// The most marks kept: at 16 bytes each, less than a page of lines.
    const MARKS_MAX: usize = 48;

    /// Into how many parts the marks divide what is passed on at once.
    const STEPS: usize = 16;

    /// The latest marks, of which none is left out.
    const LATEST: usize = 16;

    /// The marks of a file that has long been idle.
    const FEW: usize = 4;

    /// Notes `data`, which was passed on and begins at `start`: its end, and some places within, for
    /// a whole file may be read at once.
    pub fn pass(&mut self, start: u64, data: &[u8], end: Position) {
        let step = (data.len() / Self::STEPS).max(Mark::WIDTH);
        for at in (step..data.len()).step_by(step) {
            let mark = Mark::of(data.get(..at).unwrap_or_default());
            self.note(Position { offset: start.saturating_add(at as u64), mark });
        }
        self.note(end);
    }

    /// Keeps a few marks only, in no more memory than they need: one of ten thousand idle files may
    /// still be copied and truncated, if not while it grows.
    pub fn thin(&mut self) {
        while self.marks.len() > Self::FEW {
            self.leave_one_out(Self::FEW / 2);
        }
        self.marks.shrink_to_fit();
    }

    /// Notes the next position.
    fn note(&mut self, position: Position) {
        self.marks.push(position);
        if self.marks.len() > Self::MARKS_MAX {
            self.leave_one_out(Self::LATEST);
        }
    }

    /// Removes the mark that leaves the smallest gap for its distance from the end; the `latest` stay.
    fn leave_one_out(&mut self, latest: usize) {
        let end = self.marks.last().map_or(0, |last| last.offset);
        let older = self.marks.len().saturating_sub(latest);
        let gap = |at: usize| {
            let [before, own, after] = self.marks.get(at..at.saturating_add(3))? else {
                return None;
            };
            let distance = end.saturating_sub(own.offset).max(1);
            let width = after.offset.saturating_sub(before.offset);
            Some(width.saturating_mul(1 << 20) / distance)
        };
        let least = (0..older.saturating_sub(1)).min_by_key(|at| gap(*at).unwrap_or(u64::MAX));
        if let Some(at) = least {
            self.marks.remove(at.saturating_add(1));
        }
    }

    /// Returns the marks within the first `size` bytes, the last one first.
    pub fn within(&self, size: u64) -> impl Iterator<Item = &Position> {
        self.marks.iter().rev().filter(move |mark| mark.offset <= size)
    }
}

/// Returns true where a file beginning with `head` may be an unfinished or finished copy of one
/// beginning with `original`: one is the start of the other. An empty file may be a copy of anything,
/// and says so by being the start of it.
#[must_use]
pub fn may_be_copy(head: &[u8], original: &[u8]) -> bool {
    let width = head.len().min(original.len()).min(Fingerprint::WIDTH);
    head.len() <= original.len().max(width) && head.get(..width) == original.get(..width)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"first line\nsecond line\nthird line\n";

    fn known(offset: usize) -> Known {
        Known {
            identity: facts(7).identity(Fingerprint::of(TEXT)),
            position: Position { offset: offset as u64, mark: Mark::of(&TEXT[..offset]) },
        }
    }

    fn facts(inode: u64) -> Facts {
        Facts { device: 1, inode, birth: inode * 1000, size: TEXT.len() as u64, ..Facts::default() }
    }

    fn evidence(facts: Facts, content: &[u8], offset: usize) -> Evidence<'_> {
        let mut before = Preceding::default();
        before.push(content.get(..offset).unwrap_or_default());
        Evidence { facts: Facts { size: content.len() as u64, ..facts }, head: content, before }
    }

    #[test]
    fn a_grown_file_is_the_same() {
        let grown = [TEXT, b"fourth line\n"].concat();
        assert_eq!(compare(&known(23), &evidence(facts(7), &grown, 23)), Verdict::Same);
    }

    #[test]
    fn a_shorter_file_in_its_place_has_replaced_it() {
        let file = evidence(facts(7), &TEXT[..11], 23);
        assert_eq!(compare(&known(23), &file), Verdict::Replaced);
    }

    #[test]
    fn a_longer_file_with_other_bytes_before_the_offset_has_replaced_it() {
        let mut other = [TEXT, TEXT].concat();
        other[20] = b'X';
        assert_eq!(compare(&known(23), &evidence(facts(7), &other, 23)), Verdict::Replaced);
    }

    #[test]
    fn equal_content_in_another_place_is_a_copy() {
        assert_eq!(compare(&known(23), &evidence(facts(8), TEXT, 23)), Verdict::Copy);
    }

    #[test]
    fn an_inode_used_again_is_told_by_its_birth() {
        let reborn = Facts { birth: 1, ..facts(7) };
        let empty = Known {
            identity: Identity { fingerprint: Fingerprint::default(), ..known(0).identity },
            position: Position::default(),
        };
        assert_eq!(compare(&empty, &evidence(reborn, TEXT, 0)), Verdict::Replaced);
        let read = known(TEXT.len());
        assert_eq!(compare(&read, &evidence(reborn, TEXT, TEXT.len())), Verdict::Replaced);
        let unknown = Facts { birth: 0, ..facts(7) };
        assert_eq!(compare(&empty, &evidence(unknown, TEXT, 0)), Verdict::Same);
    }

    #[test]
    fn empty_files_have_nothing_to_do_with_each_other() {
        let empty = Known {
            identity: facts(7).identity(Fingerprint::default()),
            position: Position::default(),
        };
        assert_eq!(compare(&empty, &evidence(facts(8), b"", 0)), Verdict::Other);
    }

    #[test]
    fn a_trail_is_bounded_and_dense_at_its_end() {
        let mut trail = Trail::default();
        assert_eq!(trail.within(u64::MAX).next(), None);
        for offset in 1..=10_000 {
            trail.note(Position { offset, mark: Mark::default() });
            assert!(trail.marks.len() <= Trail::MARKS_MAX);
        }
        for distance in 0..9_999 {
            let found = trail.within(10_000 - distance).next().unwrap().offset;
            assert!(found <= 10_000 - distance);
            let gap = 10_000 - distance - found;
            assert!(gap <= distance, "{gap} bytes at {distance} before the end");
        }
    }

    #[test]
    fn a_trail_that_is_thinned_keeps_its_ends_and_goes_on() {
        let mut trail = Trail::default();
        trail.thin();
        for offset in 1..=10_000 {
            trail.note(Position { offset, mark: Mark::default() });
        }
        let first = trail.marks[0].offset;
        trail.thin();
        assert_eq!(trail.marks.len(), Trail::FEW);
        assert_eq!(trail.marks.capacity(), Trail::FEW);
        assert_eq!(trail.within(u64::MAX).next().unwrap().offset, 10_000);
        assert_eq!(trail.within(9_999).next().unwrap().offset, 9_999);
        assert_eq!(trail.marks[0].offset, first);
        trail.note(Position { offset: 10_001, mark: Mark::default() });
        assert_eq!(trail.within(u64::MAX).next().unwrap().offset, 10_001);
    }

    #[test]
    fn the_start_of_a_file_may_be_a_copy_of_it_and_a_longer_one_may_not() {
        assert!(may_be_copy(b"", TEXT));
        assert!(may_be_copy(&TEXT[..9], TEXT));
        assert!(may_be_copy(TEXT, TEXT));
        assert!(!may_be_copy(b"other", TEXT));
        assert!(!may_be_copy(&[TEXT, b"more"].concat(), TEXT));
    }
}
