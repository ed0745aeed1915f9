//! A database that is made whole before it gets its name, and what is done about a damaged one.
//!
//! Invariant: at every moment `kinetail.db` is missing, whole, or the damaged one: never half-made, and
//! never empty, which would pass for an agent's very first start. A damaged one is kept. A row is
//! carried over only where its seal is whole, so no position ever moves forward by damage; a file whose
//! row is lost is read again from its beginning.
//!
//! ```text
//!  kinetail.db (damaged) ── what is whole ──▶ kinetail.db.new
//!        │ link                                     │ rename
//!        ▼                                          ▼
//!  kinetail.db.damaged-1764000000             kinetail.db
//! ```

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Transaction};

use super::keys::BLOCK;
use super::rows::Walk;
use super::{
    Error, FileRow, connection, consumer, database_error, directory, io_error, letters, path_in,
    rows, schema, unix_now,
};

/// Makes the first database of a state directory.
///
/// # Errors
/// [`Error`] where it cannot be written.
pub(super) fn create(state_dir: &Path) -> Result<(), Error> {
    let made = make(state_dir, |transaction| {
        schema::set_fact(transaction, schema::NEXT_KEY, 1)?;
        schema::set_fact(transaction, schema::DAMAGED_ONCE, 0)
    })?;
    // Left by a database that was removed: SQLite would play it into the new one.
    for suffix in ["-wal", "-shm", "-journal"] {
        remove(&with_suffix(&path_in(state_dir), suffix))?;
    }
    install(state_dir, &made)
}

/// Puts a database of all that is whole in the damaged one into its place, and keeps the damaged one
/// under another name. Says so.
///
/// # Errors
/// [`Error`] where that cannot be written; the damaged database is then still in its place.
pub(super) fn replace(state_dir: &Path, reason: &str) -> Result<(), Error> {
    let path = path_in(state_dir);
    let mut carried = Carried::default();
    let made = {
        let damaged = open_damaged(&path);
        make(state_dir, |transaction| carry_over(damaged.as_ref(), transaction, &mut carried))?
    };
    let kept = move_aside(&path)?;
    install(state_dir, &made)?;
    tracing::error!(
        database = %path.display(),
        damage = reason,
        kept_as = %kept.display(),
        positions_kept = carried.files,
        dead_letters_kept = carried.letters,
        dead_letters_damaged = carried.letters_damaged,
        "the checkpoint database is damaged; what is whole was carried over, and a file without a \
         position is read again from its beginning"
    );
    Ok(())
}

#[derive(Debug, Default)]
struct Carried {
    files: usize,
    letters: usize,
    letters_damaged: usize,
}

fn open_damaged(path: &Path) -> Option<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).ok()?;
    connection::set_checkpoint_on_close(&connection, false).ok()?;
    Some(connection)
}

/// Copies what is whole. Only what cannot be written is an error.
fn carry_over(
    damaged: Option<&Connection>,
    transaction: &Transaction<'_>,
    carried: &mut Carried,
) -> rusqlite::Result<()> {
    let now = unix_now();
    // Below are all keys that were ever handed out: keys are counted up from 1, and after a damage
    // from the time of that damage.
    let mut next_key = now.saturating_mul(BLOCK);
    if let Some(damaged) = damaged {
        for (key, row) in whole_rows(damaged) {
            next_key = next_key.max(key.saturating_add(1));
            rows::insert(transaction, &row, now)?;
            carried.files += 1;
        }
        for id in letters::reachable(damaged) {
            match letters::find(damaged, id) {
                Ok(Some(found)) if found.is_whole => {
                    letters::insert(transaction, Some(id), &found.letter)?;
                    carried.letters += 1;
                }
                _ => carried.letters_damaged += 1,
            }
        }
        consumer::carry_over(damaged, transaction)?;
        if let Ok(Some(reserved)) = schema::fact(damaged, schema::NEXT_KEY) {
            next_key = next_key.max(reserved);
        }
    }
    schema::set_fact(transaction, schema::NEXT_KEY, next_key)?;
    schema::set_fact(transaction, schema::DAMAGED_ONCE, 1)
}

/// Reads from both ends, so that one damaged page costs only its own rows.
fn whole_rows(damaged: &Connection) -> BTreeMap<u64, FileRow> {
    [Walk::Up, Walk::Down]
        .into_iter()
        .flat_map(|direction| rows::walk(damaged, direction).0.rows)
        .map(|row| (row.key.0, row))
        .collect()
}

/// Makes a database beside the place it is to have, synced and closed. It is synced once, at the end:
/// should that not be reached, it is made anew at the next start.
fn make(
    state_dir: &Path,
    fill: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
) -> Result<PathBuf, Error> {
    let path = with_suffix(&path_in(state_dir), ".new");
    remove(&path)?;
    remove(&with_suffix(&path, "-journal"))?;
    // SQLite gives its own files the mode of this one.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("create", &path))?;
    let written = Connection::open(&path).and_then(|mut connection| {
        connection.pragma_update_and_check(None, "journal_mode", "MEMORY", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        // Pages of removed dead letters are given back to the file system.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
        let transaction = connection.transaction()?;
        schema::migrate(&transaction)?;
        fill(&transaction)?;
        transaction.commit()?;
        connection.close().map_err(|(_, error)| error)
    });
    written.map_err(database_error("create", &path))?;
    let synced = File::open(&path).and_then(|file| file.sync_all());
    synced.map_err(io_error("sync", &path))?;
    Ok(path)
}

fn install(state_dir: &Path, made: &Path) -> Result<(), Error> {
    let path = path_in(state_dir);
    fs::rename(made, &path).map_err(io_error("rename", made))?;
    directory::sync(state_dir)
}

/// Gives the damaged database a second name, and its write-ahead log another one: what is put into its
/// place must not find that log.
fn move_aside(path: &Path) -> Result<PathBuf, Error> {
    let kept = free_name(path)?;
    fs::hard_link(path, &kept)
        .or_else(|_| fs::copy(path, &kept).map(drop))
        .map_err(io_error("keep a copy of", path))?;
    for suffix in ["-wal", "-journal"] {
        let from = with_suffix(path, suffix);
        if fs::metadata(&from).is_ok_and(|metadata| metadata.len() == 0) {
            remove(&from)?;
        }
        match fs::rename(&from, with_suffix(&kept, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("rename", &from)(error));
            }
            _ => {}
        }
    }
    remove(&with_suffix(path, "-shm"))?;
    Ok(kept)
}

fn free_name(path: &Path) -> Result<PathBuf, Error> {
    let mut at = unix_now();
    loop {
        let name = with_suffix(path, &format!(".damaged-{at}"));
        if !name.try_exists().map_err(io_error("look at", &name))? {
            return Ok(name);
        }
        at += 1;
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Returns `path` with `suffix` at its end.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
