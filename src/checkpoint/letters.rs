//! The dead-letter store: records that no retry can save, kept until somebody has looked at them.
//!
//! Invariant: a letter leaves only by [`remove`]; where there is no room, nothing is dropped.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::DeadLetter;
use super::rows::Seal;

/// The most bytes of dead letters that are kept: 1 GiB, a thousand records of the largest size
/// that most streams take. Beyond, the flow waits, and its files keep what is still to come.
pub const DEAD_LETTERS_MAX_BYTES: u64 = 1 << 30;

/// What a letter costs beside its bytes: so that a flood of tiny ones is bounded too.
const OVERHEAD: u64 = 256;

/// A dead letter without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterSummary {
    /// Its number, by which it is shown, sent again and removed; never used again.
    pub id: i64,
    /// The flow.
    pub flow: Arc<str>,
    /// The stream it was meant for.
    pub stream: Arc<str>,
    /// The size of its data in bytes.
    pub data_bytes: u64,
    /// The service's words.
    pub reason: String,
    /// Where its first byte stands, for people.
    pub source: String,
    /// Seconds since 1970.
    pub at: u64,
}

/// Returns what a letter counts against [`DEAD_LETTERS_MAX_BYTES`].
pub(super) fn size(letter: &DeadLetter) -> u64 {
    let texts = [&letter.reason, &letter.source].map(String::len);
    let names = [&letter.flow, &letter.stream, &letter.partition_key].map(|name| name.len());
    let bytes = letter.data.len() + texts.iter().chain(&names).sum::<usize>();
    OVERHEAD.saturating_add(bytes as u64)
}

/// Returns what all letters count.
///
/// # Errors
/// SQLite's.
pub(super) fn total_size(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT coalesce(sum(size), 0) FROM dead_letters", [], |row| {
        row.get::<_, i64>(0).map(i64::cast_unsigned)
    })
}

/// Adds a letter, under the number `id` or a new one.
///
/// # Errors
/// SQLite's.
pub(super) fn insert(
    connection: &Connection,
    id: Option<i64>,
    letter: &DeadLetter,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO dead_letters
             (id, at, size, flow, stream, partition_key, reason, source, seal, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            id,
            letter.at.cast_signed(),
            size(letter).cast_signed(),
            letter.flow,
            letter.stream,
            letter.partition_key,
            letter.reason,
            letter.source,
            seal(letter),
            letter.data.as_ref(),
        ])?;
    Ok(())
}

/// Returns the letters without their data, oldest first.
///
/// # Errors
/// SQLite's.
pub(super) fn list(connection: &Connection) -> rusqlite::Result<Vec<LetterSummary>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, flow, stream, length(data), reason, source, at FROM dead_letters ORDER BY id",
    )?;
    let letters = statement.query_map([], |row| {
        Ok(LetterSummary {
            id: row.get(0)?,
            flow: row.get(1)?,
            stream: row.get(2)?,
            data_bytes: row.get::<_, i64>(3)?.cast_unsigned(),
            reason: row.get(4)?,
            source: row.get(5)?,
            at: row.get::<_, i64>(6)?.cast_unsigned(),
        })
    })?;
    letters.collect()
}

/// Returns the numbers of all letters that can be reached from either end: between two damaged
/// pages none can.
pub(super) fn reachable(connection: &Connection) -> BTreeSet<i64> {
    let mut ids = BTreeSet::new();
    for order in ["ASC", "DESC"] {
        let query = format!("SELECT id FROM dead_letters ORDER BY id {order}");
        let Ok(mut statement) = connection.prepare(&query) else { continue };
        let Ok(rows) = statement.query_map([], |row| row.get::<_, i64>(0)) else { continue };
        ids.extend(rows.map_while(Result::ok));
    }
    ids
}

/// A letter as it was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) letter: DeadLetter,
    /// Whether it is what was stored.
    pub(super) is_whole: bool,
}

/// Returns a letter, `None` where there is none of that number.
///
/// # Errors
/// SQLite's.
pub(super) fn find(connection: &Connection, id: i64) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached(
            "SELECT flow, stream, partition_key, reason, source, at, seal, data
             FROM dead_letters WHERE id = ?1",
        )?
        .query_row([id], decode)
        .optional()
}

/// Removes a letter. Returns false where there is none of that number.
///
/// # Errors
/// SQLite's.
pub(super) fn remove(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    let removed =
        connection.prepare_cached("DELETE FROM dead_letters WHERE id = ?1")?.execute([id])?;
    Ok(removed > 0)
}

fn decode(row: &Row<'_>) -> rusqlite::Result<Found> {
    let letter = DeadLetter {
        flow: row.get(0)?,
        stream: row.get(1)?,
        partition_key: row.get(2)?,
        reason: row.get(3)?,
        source: row.get(4)?,
        at: row.get::<_, i64>(5)?.cast_unsigned(),
        data: row.get::<_, Vec<u8>>(7)?.into(),
    };
    let is_whole = row.get::<_, u32>(6)? == seal(&letter);
    Ok(Found { letter, is_whole })
}

fn seal(letter: &DeadLetter) -> u32 {
    let mut seal = Seal::default();
    for text in [&*letter.flow, &*letter.stream, &*letter.partition_key] {
        seal.bytes(text.as_bytes());
    }
    seal.bytes(letter.reason.as_bytes());
    seal.bytes(letter.source.as_bytes());
    seal.bytes(&letter.data);
    seal.number(letter.at);
    seal.finish()
}
