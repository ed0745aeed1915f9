//! Opening the database: what is checked before it is believed, and how it is set.
//!
//! Invariant: a database that is newer or damaged is not changed by being opened.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{Error, database_error, io_error, schema};

/// How long a statement waits for a reader of another process; none holds the database longer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The write-ahead log is cut back to this after a commit that made it longer (large dead letters).
const JOURNAL_MAX_BYTES: i64 = 16 << 20;

/// Pages of the database kept in memory, in KiB; the system keeps the rest. Rows are written in the
/// order of their keys, so that ever the same few pages are needed (SQLite's own bound is 2 MB).
const CACHE_KIB: i64 = 256;

/// Statements kept prepared: all there are.
const STATEMENTS: usize = 24;

/// Why a database was not opened.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is not what was written: in words.
    Damaged(String),
    /// Anything else.
    Failed(Error),
}

/// Opens the database at `path` for reading and writing, once it has been checked.
///
/// `synchronous = FULL` syncs the write-ahead log at every commit. With NORMAL a power cut may roll
/// back commits that were reported as done: more lines would arrive twice than were in flight, a
/// dead letter that was sent again and removed would come back, and reserved file keys would be
/// handed out a second time, to other files.
///
/// # Errors
/// [`Fault::Damaged`] where the header, a page or the schema is not sound.
pub(super) fn open(path: &Path) -> Result<Connection, Fault> {
    check_header(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(fault("open", path))?;
    // Until it is known to be sound and ours, nothing is moved into it, not even on closing.
    set_checkpoint_on_close(&connection, false).map_err(fault("open", path))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fault("open", path))?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(fault("open", path))?;
    check(&connection, path)?;
    configure(&mut connection).map_err(fault("prepare", path))?;
    set_checkpoint_on_close(&connection, true).map_err(fault("open", path))?;
    Ok(connection)
}

/// Returns whether SQLite's error tells of damage, rather than of a system that refuses just now.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    // The statements are our own and known to be right: what is wrong with them (no such table, a
    // value of another type) is wrong with the database.
    !matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::PermissionDenied
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::CannotOpen
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

/// Returns a function that sorts SQLite's error into damage and failure.
pub(super) fn fault(operation: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> Fault {
    let failed = database_error(operation, path);
    move |source| {
        if is_damage(&source) {
            Fault::Damaged(source.to_string())
        } else {
            Fault::Failed(failed(source))
        }
    }
}

/// Checks what SQLite would answer with words that mislead: an empty file is a new database to it, and
/// an unknown format number a read-only one.
fn check_header(path: &Path) -> Result<(), Fault> {
    let mut header = Vec::with_capacity(100);
    File::open(path)
        .and_then(|file| file.take(100).read_to_end(&mut header))
        .map_err(|error| Fault::Failed(io_error("read", path)(error)))?;
    let is_known_format = |index: usize| matches!(header.get(index), Some(1 | 2));
    if header.len() < 100 || !header.starts_with(b"SQLite format 3\0") {
        return Err(Fault::Damaged("the header of an SQLite database is missing".to_owned()));
    }
    if !is_known_format(18) || !is_known_format(19) {
        return Err(Fault::Damaged("the header names an unknown format".to_owned()));
    }
    Ok(())
}

fn check(connection: &Connection, path: &Path) -> Result<(), Fault> {
    let pragma = |name| -> Result<i32, Fault> {
        connection.pragma_query_one(None, name).map_err(fault("read", path))
    };
    if pragma("application_id")? != schema::APPLICATION_ID {
        return Err(Fault::Damaged("the header does not name kinetail".to_owned()));
    }
    let found = pragma("user_version")?;
    if found > schema::VERSION {
        let supported = schema::VERSION;
        return Err(Fault::Failed(Error::Newer { path: path.to_owned(), found, supported }));
    }
    connection.pragma_update(None, "cell_size_check", true).map_err(fault("read", path))?;
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(fault("check", path))?;
    if verdict == "ok" { Ok(()) } else { Err(Fault::Damaged(verdict)) }
}

fn configure(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Answers with the mode it got; a file system without shared memory keeps its own, equally safe.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(
        None,
        "journal_size_limit",
        JOURNAL_MAX_BYTES,
        |_| Ok(()),
    )?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    schema::migrate(&transaction)?;
    transaction.commit()
}

/// Sets whether the last one to close the database moves the write-ahead log into it.
pub(super) fn set_checkpoint_on_close(
    connection: &Connection,
    enabled: bool,
) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !enabled).map(drop)
}
