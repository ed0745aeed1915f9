//! Rows: how a [`FileRow`] is written in the table `files`, and read again.
//!
//! Invariant: a row is read only where its seal, a CRC-32 of all its values, is that of what was
//! written. SQLite checks the shape of its pages and not their content, so a flipped bit in an
//! offset would be believed, and bytes skipped.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crc32fast::Hasher;
use rusqlite::{Connection, Row, params};

use super::{Books, FileRow};
use crate::position::{FileKey, Fingerprint, Identity, Mark, Position};

const INSERT: &str = "INSERT OR REPLACE INTO files (
    key, flow, path, origin, device, inode, birth, fingerprint_len, fingerprint_hash, offset,
    mark_len, mark_hash, size, acknowledged, dead_lettered, skipped, lost, lines, ended, seal
) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20)";

/// The columns in the order in which [`decode`] takes them.
const SELECT: &str = "SELECT
    key, flow, path, origin, device, inode, birth, fingerprint_len, fingerprint_hash, offset,
    mark_len, mark_hash, size, acknowledged, dead_lettered, skipped, lost, lines, ended, seal
    FROM files";

/// The way to walk the table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Walk {
    /// By ascending key.
    Up,
    /// By descending key: from the other side of a damaged page.
    Down,
}

/// Rows as they were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Those whose seal is whole.
    pub(super) rows: Vec<FileRow>,
    /// The keys of those whose seal is broken.
    pub(super) broken: Vec<FileKey>,
}

/// Inserts or replaces a row; `now` is when it ended, should it have ended.
///
/// # Errors
/// SQLite's.
pub(super) fn insert(connection: &Connection, row: &FileRow, now: u64) -> rusqlite::Result<()> {
    // SQLite's integers are signed: counts keep all 64 bits by being taken as such, both ways.
    let books = &row.books;
    let identity = &row.identity;
    connection.prepare_cached(INSERT)?.execute(params![
        row.key.0.cast_signed(),
        row.flow,
        row.path.as_os_str().as_bytes(),
        row.origin.as_os_str().as_bytes(),
        identity.device.cast_signed(),
        identity.inode.cast_signed(),
        identity.birth.cast_signed(),
        identity.fingerprint.len,
        identity.fingerprint.hash,
        row.position.offset.cast_signed(),
        row.position.mark.len,
        row.position.mark.hash,
        row.size.cast_signed(),
        books.acknowledged.cast_signed(),
        books.dead_lettered.cast_signed(),
        books.skipped.cast_signed(),
        books.lost.cast_signed(),
        books.lines.cast_signed(),
        row.ended.then_some(now.cast_signed()),
        seal(row),
    ])?;
    Ok(())
}

/// Reads all rows. An error is returned beside what was read before it.
pub(super) fn walk(connection: &Connection, walk: Walk) -> (Found, rusqlite::Result<()>) {
    let mut found = Found::default();
    let Found { rows, broken } = &mut found;
    let result = each(connection, walk, &mut |row| rows.push(row), broken);
    (found, result)
}

/// Hands each row whose seal is whole to `whole`, and notes the keys of the `broken` ones.
///
/// # Errors
/// SQLite's, after what was read before it.
pub(super) fn each(
    connection: &Connection,
    walk: Walk,
    whole: &mut dyn FnMut(FileRow),
    broken: &mut Vec<FileKey>,
) -> rusqlite::Result<()> {
    let order = match walk {
        Walk::Up => "ASC",
        Walk::Down => "DESC",
    };
    let mut statement = connection.prepare(&format!("{SELECT} ORDER BY key {order}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        // A value of another type than was written is damage like any other.
        match decode(row) {
            Ok((row, seal)) if seal == self::seal(&row) => whole(row),
            _ => broken.push(FileKey(key.cast_unsigned())),
        }
    }
    Ok(())
}

fn decode(row: &Row<'_>) -> rusqlite::Result<(FileRow, u32)> {
    let number = |column: usize| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let path = |column: usize| -> rusqlite::Result<Arc<Path>> {
        Ok(Arc::from(Path::new(OsStr::from_bytes(row.get_ref(column)?.as_blob()?))))
    };
    let own = path(2)?;
    // Most files are where they were first found: one path serves for both.
    let is_moved = row.get_ref(3)?.as_blob()? != own.as_os_str().as_bytes();
    let origin = if is_moved { path(3)? } else { Arc::clone(&own) };
    let file = FileRow {
        key: FileKey(number(0)?),
        flow: row.get(1)?,
        path: own,
        origin,
        identity: Identity {
            device: number(4)?,
            inode: number(5)?,
            birth: number(6)?,
            fingerprint: Fingerprint { len: row.get(7)?, hash: row.get(8)? },
        },
        position: Position {
            offset: number(9)?,
            mark: Mark { len: row.get(10)?, hash: row.get(11)? },
        },
        size: number(12)?,
        ended: row.get::<_, Option<i64>>(18)?.is_some(),
        books: Books {
            acknowledged: number(13)?,
            dead_lettered: number(14)?,
            skipped: number(15)?,
            lost: number(16)?,
            lines: number(17)?,
        },
    };
    Ok((file, row.get(19)?))
}

fn seal(row: &FileRow) -> u32 {
    let mut seal = Seal::default();
    let (identity, position, books) = (&row.identity, &row.position, &row.books);
    seal.number(row.key.0);
    seal.bytes(row.flow.as_bytes());
    seal.bytes(row.path.as_os_str().as_bytes());
    seal.bytes(row.origin.as_os_str().as_bytes());
    for number in [
        identity.device,
        identity.inode,
        identity.birth,
        u64::from(identity.fingerprint.len),
        u64::from(identity.fingerprint.hash),
        position.offset,
        u64::from(position.mark.len),
        u64::from(position.mark.hash),
        row.size,
        books.acknowledged,
        books.dead_lettered,
        books.skipped,
        books.lost,
        books.lines,
        u64::from(row.ended),
    ] {
        seal.number(number);
    }
    seal.finish()
}

/// A CRC-32 over values, each of which says where it ends.
#[derive(Debug, Default)]
pub(super) struct Seal(Hasher);

impl Seal {
    pub(super) fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> u32 {
        self.0.finalize()
    }
}
