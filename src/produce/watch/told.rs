//! What the watcher tells, event by event, folded into [`Changes`]. Pure.
//!
//! Invariant: what is told of a path is among the next changes, or they ask for a scan.

use std::collections::HashSet;
use std::path::PathBuf;

use notify::Event;
use notify::event::{CreateKind, EventKind, Flag, ModifyKind, RemoveKind, RenameMode};

use super::unopened::Step;
use super::{Change, Changes};

/// The most changed paths and steps remembered between two looks; beyond it everything is scanned.
const PATHS_MAX: usize = 16 * 1024;

/// What was told and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The changes to be taken.
    pub(super) changes: Changes,
    /// The files whose writing is among the steps since they came.
    written: HashSet<PathBuf>,
}

impl Told {
    /// Returns the changes since the last call.
    pub(super) fn take(&mut self) -> Changes {
        self.written.clear();
        std::mem::take(&mut self.changes)
    }

    /// Takes in one event.
    pub(super) fn add(&mut self, event: &Event) {
        if event.attrs.flag() == Some(Flag::Rescan) {
            self.changes.rescan = true;
        }
        let change = match event.kind {
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) => Change::Data,
            _ => Change::Name,
        };
        self.add_step(event);
        let changes = &mut self.changes;
        for path in &event.paths {
            if let Some(known) = changes.paths.get_mut(path) {
                *known = change.max(*known);
            } else if changes.paths.len() < PATHS_MAX {
                changes.paths.insert(path.clone(), change);
            } else {
                changes.rescan = true;
            }
        }
    }

    /// Takes in what an event says of names.
    fn add_step(&mut self, event: &Event) {
        let Some(path) = event.paths.first() else { return };
        if matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)))
            && self.written.contains(path)
        {
            return;
        }
        let (path, rename) = (path.clone(), event.tracker());
        let step = match (event.kind, rename) {
            (EventKind::Create(CreateKind::File), _) => Step::Came(path),
            (EventKind::Modify(ModifyKind::Data(_)), _) => Step::Written(path),
            (EventKind::Remove(RemoveKind::File), _) => Step::Gone(path),
            (EventKind::Modify(ModifyKind::Name(RenameMode::From)), Some(rename)) => {
                Step::Left(path, rename)
            }
            (EventKind::Modify(ModifyKind::Name(RenameMode::To)), Some(rename)) => {
                Step::Arrived(path, rename)
            }
            _ => return,
        };
        if self.changes.steps.len() >= PATHS_MAX {
            self.changes.rescan = true;
            return;
        }
        match &step {
            Step::Written(path) => self.written.insert(path.clone()),
            Step::Came(path) | Step::Left(path, _) | Step::Arrived(path, _) | Step::Gone(path) => {
                self.written.remove(path)
            }
        };
        self.changes.steps.push(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(path: &str) -> Event {
        Event::new(EventKind::Create(CreateKind::File)).add_path(path.into())
    }

    #[test]
    fn more_changes_than_are_remembered_ask_for_a_scan() {
        let mut told = Told::default();
        for number in 0..=PATHS_MAX {
            told.add(&Event::new(EventKind::Any).add_path(PathBuf::from(number.to_string())));
        }
        let changes = told.take();
        assert!(changes.rescan);
        assert_eq!(changes.paths.len(), PATHS_MAX);
        assert!(told.take().is_empty());
    }

    #[test]
    fn writing_is_told_once_for_each_file() {
        let mut told = Told::default();
        let written =
            Event::new(EventKind::Modify(ModifyKind::Data(notify::event::DataChange::Any)))
                .add_path("a.log".into());
        for event in [&written, &written, &created("a.log"), &written, &written] {
            told.add(event);
        }
        let path = || PathBuf::from("a.log");
        let expected = [Step::Written(path()), Step::Came(path()), Step::Written(path())];
        assert_eq!(told.take().steps, expected);
    }
}
