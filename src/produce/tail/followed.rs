//! The files that are followed: by number, by place on the disk, and by path.
//!
//! Invariant: a file is found by a place or a path only where it says the same of itself. The indexes
//! hold numbers and no copies of what they index: of ten thousand files, those take half a megabyte.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use hashbrown::HashTable;

use super::file::TailedFile;
use crate::position::FileKey;
use crate::produce::watch::facts::Place;

/// Boxed: a table has up to twice the room that is used, and three times while it grows.
type Files = HashMap<FileKey, Box<TailedFile>>;

/// Followed files.
#[derive(Debug, Default)]
pub(super) struct Followed {
    files: Files,
    places: HashTable<FileKey>,
    paths: HashTable<FileKey>,
    hasher: RandomState,
}

impl Followed {
    /// Adds a file, which is found by its place, instead of any other there.
    pub(super) fn insert(&mut self, file: TailedFile) {
        let (key, place) = (file.key, file.place());
        self.files.insert(key, Box::new(file));
        let (files, places, hasher) = (&self.files, &mut self.places, &self.hasher);
        let entry = places.entry(
            hasher.hash_one(place),
            |other| is(files, *other, |file| file.place() == place),
            |other| hash(files, *other, |file| hasher.hash_one(file.place())),
        );
        entry.insert(key);
    }

    /// Takes a file out; it is found no more.
    pub(super) fn remove(&mut self, key: FileKey) -> Option<TailedFile> {
        self.unname(key);
        let file = self.files.remove(&key)?;
        let hash = self.hasher.hash_one(file.place());
        take_out(&mut self.places, hash, key);
        Some(*file)
    }

    pub(super) fn get(&self, key: FileKey) -> Option<&TailedFile> {
        self.files.get(&key).map(|file| &**file)
    }

    /// Returns a file to be changed, but neither its place, nor its path while it is [named](Self::name).
    pub(super) fn get_mut(&mut self, key: FileKey) -> Option<&mut TailedFile> {
        self.files.get_mut(&key).map(|file| &mut **file)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &TailedFile> {
        self.files.values().map(|file| &**file)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut TailedFile> {
        self.files.values_mut().map(|file| &mut **file)
    }

    /// Returns the file in a place.
    pub(super) fn at(&self, place: Place) -> Option<FileKey> {
        let is_there = |key: &FileKey| is(&self.files, *key, |file| file.place() == place);
        self.places.find(self.hasher.hash_one(place), is_there).copied()
    }

    /// Returns the file that a path stands for.
    pub(super) fn named(&self, path: &Path) -> Option<FileKey> {
        let is_it = |key: &FileKey| is(&self.files, *key, |file| *file.path == *path);
        self.paths.find(self.hasher.hash_one(path), is_it).copied()
    }

    /// Returns the files that their paths stand for.
    pub(super) fn all_named(&self) -> impl Iterator<Item = &TailedFile> {
        self.paths.iter().filter_map(|key| self.get(*key))
    }

    /// Returns how many files their paths stand for.
    pub(super) fn named_len(&self) -> usize {
        self.paths.len()
    }

    /// Lets its path stand for a file, instead of any other.
    pub(super) fn name(&mut self, key: FileKey) {
        let (files, paths, hasher) = (&self.files, &mut self.paths, &self.hasher);
        let Some(file) = files.get(&key) else { return };
        let entry = paths.entry(
            hasher.hash_one(&*file.path),
            |other| is(files, *other, |other| other.path == file.path),
            |other| hash(files, *other, |other| hasher.hash_one(&*other.path)),
        );
        entry.insert(key);
    }

    /// Lets its path stand for a file no more, where it did.
    pub(super) fn unname(&mut self, key: FileKey) {
        let Some(file) = self.files.get(&key) else { return };
        let hash = self.hasher.hash_one(&*file.path);
        take_out(&mut self.paths, hash, key);
    }
}

/// Returns true where a file is followed and what is asked of it is true.
fn is(files: &Files, key: FileKey, of: impl FnOnce(&TailedFile) -> bool) -> bool {
    files.get(&key).is_some_and(|file| of(file))
}

/// Returns the hash of a file that is in an index.
fn hash(files: &Files, key: FileKey, of: impl FnOnce(&TailedFile) -> u64) -> u64 {
    files.get(&key).map_or(0, |file| of(file))
}

fn take_out(index: &mut HashTable<FileKey>, hash: u64, key: FileKey) {
    if let Ok(entry) = index.find_entry(hash, |other| *other == key) {
        entry.remove();
    }
}
