//! Looking into a state directory without holding it: for `status` of a stopped agent, and beside a
//! running one.
//!
//! Invariant: it takes no lock that an agent waits for, and changes nothing that an agent reads.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::rows::Walk;
use super::salvage::with_suffix;
use super::store::find_letter;
use super::{
    ConsumerRows, DeadLetter, Error, FileRow, LetterSummary, consumer, database_error, io_error,
    letters, path_in, rows, schema,
};

/// A look at a state directory, as of the last commit at each call.
#[derive(Debug)]
pub struct View {
    connection: Connection,
    path: PathBuf,
    version: i32,
}

impl View {
    /// Opens the database of `state_dir` for reading.
    ///
    /// # Errors
    /// [`Error::NoState`] where there is none, [`Error::Newer`] where a newer version wrote it,
    /// [`Error::Io`] and [`Error::Database`] where it cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let path = path_in(state_dir);
        if !path.try_exists().map_err(io_error("look at", &path))? {
            return Err(Error::NoState { path: state_dir.to_owned() });
        }
        let connection = connect(&path)?;
        let pragma = |name| -> Result<i32, Error> {
            connection.pragma_query_one(None, name).map_err(database_error("read", &path))
        };
        if pragma("application_id")? != schema::APPLICATION_ID {
            let error = std::io::Error::other("it is not a database of kinetail");
            return Err(io_error("read", &path)(error));
        }
        let found = pragma("user_version")?;
        if found > schema::VERSION {
            return Err(Error::Newer { path, found, supported: schema::VERSION });
        }
        Ok(Self { connection, path, version: found })
    }

    /// Returns the rows of all flows, by key. Rows that are damaged are left out.
    ///
    /// # Errors
    /// [`Error::Database`] where they cannot be read.
    pub fn files(&self) -> Result<Vec<FileRow>, Error> {
        let (found, result) = rows::walk(&self.connection, Walk::Up);
        result.map_err(database_error("read", &self.path))?;
        Ok(found.rows)
    }

    /// Returns what is kept of a consuming flow: nothing, where the database is of a version that knew
    /// none. Rows that are damaged are left out.
    ///
    /// # Errors
    /// [`Error::Database`] where it cannot be read.
    pub fn consumer(&self, flow: &str) -> Result<ConsumerRows, Error> {
        let has_tables = self.version >= schema::CONSUMERS;
        let read = || {
            if has_tables {
                consumer::load(&self.connection, flow)
            } else {
                Ok(ConsumerRows::default())
            }
        };
        read().map_err(database_error("read", &self.path))
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
}

/// Connects without making a file. An agent that stopped cleanly leaves no write-ahead log; a reader of
/// such a database would make one, unless told that nobody writes (`immutable`).
fn connect(path: &Path) -> Result<Connection, Error> {
    let wal = with_suffix(path, "-wal");
    let is_stopped = !wal.try_exists().map_err(io_error("look at", &wal))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{}{}", encode(path), if is_stopped { "?immutable=1" } else { "" });
    let connection =
        Connection::open_with_flags(uri, flags).map_err(database_error("open", path))?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(database_error("open", path))?;
    Ok(connection)
}

/// Writes a path as the path of a URI, any byte allowed.
fn encode(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;

    let mut encoded = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                encoded.push(char::from(*byte));
            }
            byte => {
                // Writing to a string cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}
