//! Names of mirrored generations: the newest has the name of its source, and older ones stand beside it
//! as `NAME.1`, `NAME.2` and so on, as logrotate leaves them.
//!
//! Invariant: no file is ever renamed over another, and the moves are in an order in which each finds
//! its place free.
//!
//! ```text
//!  access.log ─▶ access.log.1 ─▶ access.log.2 ─▶ (free)
//!      ▲
//!   the new generation
//! ```

use crate::consume::path::{Name, Refused};

/// Who has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupant {
    /// An empty file that nobody knows, as a run leaves it that is killed while it makes one. It can be
    /// gone on with; but a rename would find the name taken.
    Empty,
    /// Nobody.
    Free,
    /// A generation that was there later than the one to be placed.
    Newer,
    /// A generation that was there before it, or a file that nobody knows.
    Older,
}

/// Where a generation goes, and which files make room for it, to be moved in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placing {
    pub(super) name: Name,
    pub(super) moves: Vec<(Name, Name)>,
}

/// Returns the place of a generation whose source has `name`.
///
/// # Errors
/// [`Refused`], where a name gets too long by its number.
pub(super) fn place<E: From<Refused>>(
    name: Name,
    mut occupant: impl FnMut(&Name) -> Result<Occupant, E>,
) -> Result<Placing, E> {
    let mut at = name;
    loop {
        match occupant(&at)? {
            Occupant::Newer => at = next(&at)?,
            Occupant::Empty | Occupant::Free => return Ok(Placing { name: at, moves: Vec::new() }),
            Occupant::Older => break,
        }
    }
    let mut moves = Vec::new();
    let mut from = at.clone();
    loop {
        let to = next(&from)?;
        moves.push((from, to.clone()));
        if occupant(&to)? == Occupant::Free {
            break;
        }
        from = to;
    }
    moves.reverse();
    Ok(Placing { name: at, moves })
}

/// Returns the name of the generation before.
fn next(name: &Name) -> Result<Name, Refused> {
    let bytes = name.as_bytes();
    let digits = bytes.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (stem, number) = bytes.split_at(bytes.len().saturating_sub(digits));
    let number = std::str::from_utf8(number).ok().and_then(|text| text.parse::<u32>().ok());
    // A number of eight digits is a date.
    match (stem.split_last(), number) {
        (Some((b'.', stem)), Some(number)) if digits < 8 && !ends_part(stem) => {
            let number = number.saturating_add(1);
            Name::new(&[stem, format!(".{number}").as_bytes()].concat())
        }
        _ => name.with_suffix(".1"),
    }
}

fn ends_part(stem: &[u8]) -> bool {
    stem.is_empty() || stem.ends_with(b"/")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn moves(placing: &Placing) -> Vec<(String, String)> {
        placing.moves.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect()
    }

    /// A directory of generations by their numbers.
    #[derive(Default)]
    struct Tree(BTreeMap<Name, u32>);

    impl Tree {
        fn arrive(&mut self, path: &str, generation: u32) {
            let placing = place(name(path), |name| {
                Ok::<_, Refused>(match self.0.get(name) {
                    None => Occupant::Free,
                    Some(&other) if other > generation => Occupant::Newer,
                    Some(_) => Occupant::Older,
                })
            });
            let placing = placing.unwrap();
            for (from, to) in placing.moves {
                let moved = self.0.remove(&from).unwrap();
                assert_eq!(self.0.insert(to, moved), None, "nothing is moved over");
            }
            assert_eq!(self.0.insert(placing.name, generation), None);
        }

        fn names(&self) -> Vec<(String, u32)> {
            self.0.iter().map(|(name, generation)| (name.to_string(), *generation)).collect()
        }
    }

    #[test]
    fn generations_stand_as_logrotate_leaves_them() {
        let mut tree = Tree::default();
        for generation in 1..=3 {
            tree.arrive("h/a.log", generation);
        }
        let expected = [("h/a.log", 3), ("h/a.log.1", 2), ("h/a.log.2", 1)];
        assert_eq!(tree.names(), expected.map(|(name, number)| (name.to_owned(), number)));
    }

    #[test]
    fn a_late_generation_goes_where_it_would_have_been() {
        let mut tree = Tree::default();
        for generation in [1, 3, 4, 2] {
            tree.arrive("a", generation);
        }
        let expected = [("a", 4), ("a.1", 3), ("a.2", 2), ("a.3", 1)];
        assert_eq!(tree.names(), expected.map(|(name, number)| (name.to_owned(), number)));
    }

    #[test]
    fn rotated_files_that_were_there_at_the_first_start_are_in_the_same_row() {
        let mut tree = Tree::default();
        tree.arrive("a", 1);
        tree.arrive("a.1", 2);
        tree.arrive("a", 3);
        let expected = [("a", 3), ("a.1", 1), ("a.2", 2)];
        assert_eq!(tree.names(), expected.map(|(name, number)| (name.to_owned(), number)));
    }

    #[test]
    fn numbers_count_up_and_dates_do_not() {
        for (from, to) in [
            ("a.log", "a.log.1"),
            ("a.log.9", "a.log.10"),
            ("a-20261126", "a-20261126.1"),
            ("a.20261126", "a.20261126.1"),
            ("d.1/5", "d.1/5.1"),
            ("d/.5", "d/.5.1"),
            ("7", "7.1"),
        ] {
            assert_eq!(next(&name(from)).unwrap(), name(to));
        }
        let placing = place(name("a"), |at| {
            Ok::<_, Refused>(if at == &name("a") { Occupant::Older } else { Occupant::Free })
        });
        assert_eq!(moves(&placing.unwrap()), [("a".to_owned(), "a.1".to_owned())]);
    }
}
