//! The store: the one writer of a state directory.
//!
//! Invariant: a commit is written whole and synced, or not at all.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior, params};

use super::connection::{self, Fault, fault};
use super::directory::{self, Lock};
use super::keys::BLOCK;
use super::rows::Walk;
use super::{
    Commit, ConsumerRows, DEAD_LETTERS_MAX_BYTES, DeadLetter, Error, FileRow, KeyAllocator,
    LetterSummary, consumer, database_error, io_error, letters, path_in, rows, salvage, schema,
    unix_now,
};

/// How long the row of an ended file is kept. A copy that `copytruncate` makes shows up at once, but a
/// stopped agent sees it only when it starts again: a day covers a night without one.
pub const ENDED_RETENTION: Duration = Duration::from_hours(24);

/// The most rows of ended files that are kept; beyond, the longest ended go first. 4,096 are the
/// rotations of a day at 170 an hour, and about 1 MiB.
pub const ENDED_ROWS_MAX: usize = 4_096;

/// How often rows beyond the retention are looked for.
const PRUNE_INTERVAL: Duration = Duration::from_hours(1);

/// The checkpoints of a state directory, which it holds as long as it lives.
#[derive(Debug)]
pub struct Store {
    // Before the lock, so that it is closed when the next process may come.
    connection: Connection,
    path: PathBuf,
    keys: KeyAllocator,
    letters_bytes: u64,
    letters_max_bytes: u64,
    pruned_at: Instant,
    _lock: Lock,
}

impl Store {
    /// Opens the state directory, and makes it where there is none.
    ///
    /// A damaged database is moved aside, and what is whole in it carried over.
    ///
    /// # Errors
    /// [`Error::InUse`] where another process holds it, [`Error::Newer`] where a newer version wrote
    /// it; [`Error::Io`] and [`Error::Database`] where the system refuses.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        directory::prepare(state_dir)?;
        let lock = Lock::take(state_dir)?;
        let path = path_in(state_dir);
        if !path.try_exists().map_err(io_error("look at", &path))? {
            salvage::create(state_dir)?;
        }
        let (connection, keys) = match open_checked(&path) {
            Err(Fault::Damaged(reason)) => {
                salvage::replace(state_dir, &reason)?;
                open_checked(&path)
            }
            opened => opened,
        }
        .map_err(|fault| match fault {
            Fault::Damaged(reason) => io_error("rebuild", &path)(std::io::Error::other(reason)),
            Fault::Failed(error) => error,
        })?;
        let letters_bytes =
            letters::total_size(&connection).map_err(database_error("read", &path))?;
        Ok(Self {
            connection,
            path,
            keys,
            letters_bytes,
            letters_max_bytes: DEAD_LETTERS_MAX_BYTES,
            pruned_at: Instant::now(),
            _lock: lock,
        })
    }

    /// Returns where the database stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what hands out file keys.
    #[must_use]
    pub fn keys(&self) -> KeyAllocator {
        self.keys.clone()
    }

    /// Returns the rows of a flow, by key.
    ///
    /// # Errors
    /// [`Error::Database`] where they cannot be read.
    pub fn load(&self, flow: &str) -> Result<Vec<FileRow>, Error> {
        let mut found = Vec::new();
        let mut own = |row: FileRow| {
            if &*row.flow == flow {
                found.push(row);
            }
        };
        rows::each(&self.connection, Walk::Up, &mut own, &mut Vec::new())
            .map_err(database_error("read", &self.path))?;
        Ok(found)
    }

    /// Returns true where a flow of this name has never started in this state directory: only then
    /// does `start_at: end` hold. Never true again once anything of the database was damaged, since
    /// skipping what was still to be sent would lose it.
    ///
    /// # Errors
    /// [`Error::Database`] where it cannot be read.
    pub fn is_first_start(&self, flow: &str) -> Result<bool, Error> {
        let read = || -> rusqlite::Result<bool> {
            let damaged = schema::fact(&self.connection, schema::DAMAGED_ONCE)?;
            let (flows, are_whole) = schema::started_flows(&self.connection)?;
            Ok(damaged == Some(0) && are_whole && !flows.iter().any(|name| name == flow))
        };
        let is_unknown = read().map_err(database_error("read", &self.path))?;
        Ok(is_unknown && self.load(flow)?.is_empty())
    }

    /// Returns what is kept of a consuming flow, and whether anything of it may have been lost: then
    /// `start_at: latest` must not skip anything.
    ///
    /// # Errors
    /// [`Error::Database`] where it cannot be read.
    pub fn load_consumer(&self, flow: &str) -> Result<(ConsumerRows, bool), Error> {
        let read = || -> rusqlite::Result<(ConsumerRows, bool)> {
            let rows = consumer::load(&self.connection, flow)?;
            let damaged = schema::fact(&self.connection, schema::DAMAGED_ONCE)?;
            let is_damaged = damaged != Some(0) || rows.broken > 0;
            Ok((rows, is_damaged))
        };
        read().map_err(database_error("read", &self.path))
    }

    /// Writes `commit` whole, and returns once it would outlive a power cut.
    ///
    /// # Errors
    /// [`Error::DeadLettersFull`] where its dead letters find no room, [`Error::Database`] where it
    /// cannot be written. Nothing of it is written then, and a later commit may succeed. Where the
    /// last sync fails the system may have kept it all the same: positions are then as right as
    /// before, and a dead letter may come to stand twice.
    pub fn commit(&mut self, commit: &Commit) -> Result<(), Error> {
        let added = commit.dead_letters.iter().map(letters::size).sum::<u64>();
        let held = self.letters_bytes;
        if added > 0 && held.saturating_add(added) > self.letters_max_bytes {
            return Err(Error::DeadLettersFull { held, added, limit: self.letters_max_bytes });
        }
        let extension = self.keys.extension();
        let prunes = self.pruned_at.elapsed() >= PRUNE_INTERVAL;
        write(&mut self.connection, commit, extension, prunes)
            .map_err(database_error("commit to", &self.path))?;
        self.letters_bytes = held.saturating_add(added);
        if let Some(limit) = extension {
            self.keys.extend(limit);
        }
        if extension.is_some() || !commit.started.is_empty() {
            settle_log(&self.connection, &self.path);
        }
        if prunes {
            self.pruned_at = Instant::now();
        }
        Ok(())
    }

    /// Returns the dead letters without their data, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`] where they cannot be read.
    pub fn dead_letters(&self) -> Result<Vec<LetterSummary>, Error> {
        letters::list(&self.connection).map_err(database_error("read", &self.path))
    }

    /// Returns a dead letter, `None` where there is none of that number.
    ///
    /// # Errors
    /// [`Error::LetterDamaged`] where it is not what was stored, [`Error::Database`] where it cannot
    /// be read.
    pub fn dead_letter(&self, id: i64) -> Result<Option<DeadLetter>, Error> {
        find_letter(&self.connection, &self.path, id)
    }

    /// Removes a dead letter for good, and gives its room back to the file system. Returns false
    /// where there is none of that number.
    ///
    /// # Errors
    /// [`Error::Database`] where it cannot be removed.
    pub fn remove_dead_letter(&mut self, id: i64) -> Result<bool, Error> {
        let remove = || -> rusqlite::Result<(bool, u64)> {
            let removed = letters::remove(&self.connection, id)?;
            let mut vacuum = self.connection.prepare_cached("PRAGMA incremental_vacuum")?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
            Ok((removed, letters::total_size(&self.connection)?))
        };
        let (removed, left) = remove().map_err(database_error("remove from", &self.path))?;
        self.letters_bytes = left;
        Ok(removed)
    }

    #[cfg(test)]
    pub(super) fn limit_dead_letters(&mut self, bytes: u64) {
        self.letters_max_bytes = bytes;
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// Returns a dead letter of a database at `path`.
pub(super) fn find_letter(
    connection: &Connection,
    path: &Path,
    id: i64,
) -> Result<Option<DeadLetter>, Error> {
    match letters::find(connection, id).map_err(database_error("read", path))? {
        Some(found) if !found.is_whole => Err(Error::LetterDamaged { id }),
        found => Ok(found.map(|found| found.letter)),
    }
}

/// Opens the database, removes rows whose seal is broken, and reserves keys.
fn open_checked(path: &Path) -> Result<(Connection, KeyAllocator), Fault> {
    let mut connection = connection::open(path)?;
    let (mut highest, mut broken) = (None, Vec::new());
    rows::each(&connection, Walk::Up, &mut |row| highest = Some(row.key), &mut broken)
        .map_err(fault("read", path))?;
    let reserved = schema::fact(&connection, schema::NEXT_KEY).map_err(fault("read", path))?;
    if let Some(key) = broken.first() {
        tracing::error!(
            database = %path.display(), rows = broken.len(), first = %key,
            "positions in the checkpoint database are damaged; their files are read again from \
             their beginning"
        );
    }
    let is_damaged = reserved.is_none() || !broken.is_empty();
    let next = reserved.unwrap_or_else(|| unix_now().saturating_mul(BLOCK));
    let next = highest.map_or(next, |key| next.max(key.0.saturating_add(1)));
    let limit = next.saturating_add(BLOCK);
    let write = |connection: &mut Connection| -> rusqlite::Result<()> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for key in &broken {
            transaction.execute("DELETE FROM files WHERE key = ?1", [key.0.cast_signed()])?;
        }
        if is_damaged {
            schema::set_fact(&transaction, schema::DAMAGED_ONCE, 1)?;
        }
        schema::set_fact(&transaction, schema::NEXT_KEY, limit)?;
        prune(&transaction, unix_now())?;
        transaction.commit()
    };
    write(&mut connection).map_err(fault("prepare", path))?;
    settle_log(&connection, path);
    Ok((connection, KeyAllocator::new(next, limit)))
}

/// Moves the write-ahead log into the database. SQLite takes a log that is damaged for one that ends
/// there, without a word: positions are then older, which costs duplicates only, but a reserved key
/// or a flow's start that were in it would be forgotten. So these never stay in it for long.
fn settle_log(connection: &Connection, path: &Path) {
    let settled = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = settled {
        tracing::debug!(database = %path.display(), %error, "the write-ahead log stays for now");
    }
}

fn write(
    connection: &mut Connection,
    commit: &Commit,
    reserve: Option<u64>,
    prunes: bool,
) -> rusqlite::Result<()> {
    let now = unix_now();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for flow in &commit.started {
        schema::start_flow(&transaction, flow)?;
    }
    for row in &commit.files {
        rows::insert(&transaction, row, now)?;
    }
    for key in &commit.removed {
        transaction
            .prepare_cached("DELETE FROM files WHERE key = ?1")?
            .execute([key.0.cast_signed()])?;
    }
    for letter in &commit.dead_letters {
        letters::insert(&transaction, None, letter)?;
    }
    for flow in &commit.consumers {
        consumer::write(&transaction, flow)?;
    }
    if let Some(limit) = reserve {
        schema::set_fact(&transaction, schema::NEXT_KEY, limit)?;
    }
    if prunes {
        prune(&transaction, now)?;
    }
    transaction.commit()
}

/// Removes rows of files that ended before the retention, and the longest ended beyond the bound.
fn prune(connection: &Connection, now: u64) -> rusqlite::Result<()> {
    let oldest = now.saturating_sub(ENDED_RETENTION.as_secs()).cast_signed();
    connection
        .prepare_cached("DELETE FROM files WHERE ended IS NOT NULL AND ended < ?1")?
        .execute([oldest])?;
    let rows_max = i64::try_from(ENDED_ROWS_MAX).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "DELETE FROM files WHERE key IN (SELECT key FROM files WHERE ended IS NOT NULL
             ORDER BY ended DESC, key DESC LIMIT -1 OFFSET ?1)",
        )?
        .execute(params![rows_max])?;
    Ok(())
}
