//! The tables, and the small facts beside the rows: which flows have started, the next key.
//!
//! Invariant: `user_version` is the number of [`MIGRATIONS`] that have been applied. A migration is
//! never changed once it was released; what is to be different comes as the next one.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::consumer;
use super::rows::Seal;

/// Marks the file as kinetail's in SQLite's header: "kntl".
pub(super) const APPLICATION_ID: i32 = 0x6b6e_746c;

/// The newest schema that is understood.
pub(super) const VERSION: i32 = 2;

/// The first schema that keeps what consuming flows have written.
pub(super) const CONSUMERS: i32 = 2;

const MIGRATIONS: [&str; VERSION as usize] = [FIRST, consumer::TABLES];

const FIRST: &str = "
    CREATE TABLE files (
        key INTEGER PRIMARY KEY,
        flow TEXT NOT NULL,
        path BLOB NOT NULL,             -- bytes: a name need not be UTF-8
        origin BLOB NOT NULL,
        device INTEGER NOT NULL,        -- all 64 bits are used, as for every count below
        inode INTEGER NOT NULL,
        birth INTEGER NOT NULL,
        fingerprint_len INTEGER NOT NULL,
        fingerprint_hash INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        mark_len INTEGER NOT NULL,
        mark_hash INTEGER NOT NULL,
        size INTEGER NOT NULL,
        acknowledged INTEGER NOT NULL,
        dead_lettered INTEGER NOT NULL,
        skipped INTEGER NOT NULL,
        lost INTEGER NOT NULL,
        lines INTEGER NOT NULL,
        ended INTEGER,                  -- seconds since 1970; NULL while it has not ended
        seal INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE flows (name TEXT PRIMARY KEY, seal INTEGER NOT NULL) STRICT;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL, seal INTEGER NOT NULL) STRICT;
    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        size INTEGER NOT NULL,
        flow TEXT NOT NULL,
        stream TEXT NOT NULL,
        partition_key TEXT NOT NULL,
        reason TEXT NOT NULL,
        source TEXT NOT NULL,
        seal INTEGER NOT NULL,
        data BLOB NOT NULL              -- last: a list is read without it
    ) STRICT;
";

/// The first key that is not reserved.
pub(super) const NEXT_KEY: &str = "next_key";

/// Set once something of the database was lost: no flow may then think that it starts for the first
/// time, or `start_at: end` would skip what was still to be sent.
pub(super) const DAMAGED_ONCE: &str = "damaged_once";

/// Applies the migrations that are missing.
///
/// # Errors
/// SQLite's; nothing is applied then.
pub(super) fn migrate(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let version: i32 = transaction.pragma_query_one(None, "user_version")?;
    let applied = usize::try_from(version).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(applied) {
        transaction.execute_batch(migration)?;
    }
    if version < VERSION {
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(())
}

/// Returns a fact; `None` where it is missing or its seal is broken.
///
/// # Errors
/// SQLite's.
pub(super) fn fact(connection: &Connection, name: &str) -> rusqlite::Result<Option<u64>> {
    let found = connection
        .prepare_cached("SELECT value, seal FROM facts WHERE name = ?1")?
        .query_row([name], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?)))
        .optional()?;
    let value = found.map(|(value, seal)| (value.cast_unsigned(), seal));
    Ok(value.filter(|(value, seal)| *seal == fact_seal(name, *value)).map(|(value, _)| value))
}

/// Sets a fact.
///
/// # Errors
/// SQLite's.
pub(super) fn set_fact(connection: &Connection, name: &str, value: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO facts (name, value, seal) VALUES (?1, ?2, ?3)")?
        .execute(params![name, value.cast_signed(), fact_seal(name, value)])?;
    Ok(())
}

/// Notes that a flow has started.
///
/// # Errors
/// SQLite's.
pub(super) fn start_flow(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO flows (name, seal) VALUES (?1, ?2)")?
        .execute(params![name, flow_seal(name)])?;
    Ok(())
}

/// Returns the flows that have started, and whether all their seals are whole.
///
/// # Errors
/// SQLite's.
pub(super) fn started_flows(connection: &Connection) -> rusqlite::Result<(Vec<String>, bool)> {
    let mut statement = connection.prepare_cached("SELECT name, seal FROM flows")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, u32)> = rows.collect::<rusqlite::Result<_>>()?;
    let are_whole = rows.iter().all(|(name, seal)| *seal == flow_seal(name));
    Ok((rows.into_iter().map(|(name, _)| name).collect(), are_whole))
}

fn fact_seal(name: &str, value: u64) -> u32 {
    let mut seal = Seal::default();
    seal.bytes(name.as_bytes());
    seal.number(value);
    seal.finish()
}

fn flow_seal(name: &str) -> u32 {
    let mut seal = Seal::default();
    seal.bytes(name.as_bytes());
    seal.finish()
}
