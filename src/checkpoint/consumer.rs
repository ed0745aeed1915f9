//! The rows of consuming flows: how far each shard is, and how far each file, sealed like all others.
//!
//! Invariant: how far a shard is and how long the files are that its lines went to is written in one
//! transaction; a row whose seal is broken is not read, and its flow is told to begin again.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::rows::Seal;
use crate::position::{Progress, SequenceNumber, ShardId};

/// The tables, the second migration.
pub(super) const TABLES: &str = "
    CREATE TABLE consumer_flows (
        flow TEXT PRIMARY KEY,
        started INTEGER NOT NULL,       -- milliseconds since 1970
        seal INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE consumer_shards (
        flow TEXT NOT NULL,
        shard TEXT NOT NULL,
        sequence TEXT,                  -- NULL: nothing of it is done
        pieces INTEGER,                 -- NULL: all of that record
        finished INTEGER NOT NULL,
        seal INTEGER NOT NULL,
        PRIMARY KEY (flow, shard)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE consumer_outputs (
        flow TEXT NOT NULL,
        name BLOB NOT NULL,             -- beneath the flow's directory
        length INTEGER NOT NULL,
        begun INTEGER NOT NULL,         -- seconds since 1970, of its first line; 0 while it is empty
        open_source INTEGER,            -- whose line it ends with, where that has no newline
        open_offset INTEGER,
        seal INTEGER NOT NULL,
        PRIMARY KEY (flow, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE consumer_sources (
        flow TEXT NOT NULL,
        id INTEGER NOT NULL,
        host TEXT NOT NULL,
        path BLOB NOT NULL,
        device INTEGER NOT NULL,
        inode INTEGER NOT NULL,
        birth INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        name BLOB NOT NULL,             -- where it is mirrored; empty where it is not
        received BLOB NOT NULL,
        state INTEGER NOT NULL,
        touched INTEGER NOT NULL,       -- seconds since 1970
        seal INTEGER NOT NULL,
        PRIMARY KEY (flow, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE consumer_chores (
        flow TEXT NOT NULL,
        id INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        source BLOB NOT NULL,
        target BLOB NOT NULL,
        seal INTEGER NOT NULL,
        PRIMARY KEY (flow, id)
    ) STRICT, WITHOUT ROWID;
";

/// The names of the tables.
const NAMES: [&str; 5] = [
    "consumer_flows",
    "consumer_shards",
    "consumer_outputs",
    "consumer_sources",
    "consumer_chores",
];

/// How far a shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// The shard.
    pub shard: ShardId,
    /// What of it is written; `None` where nothing is.
    pub progress: Option<Progress>,
    /// Whether all of it is, and no more will come.
    pub finished: bool,
}

/// How far an appended file is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputRow {
    /// Its name beneath the flow's directory.
    pub name: Vec<u8>,
    /// What is committed of it; more is cut off.
    pub length: u64,
    /// When its first line was written, in seconds since 1970; 0 while it is empty.
    pub begun: u64,
    /// The source whose line it ends with and the offset there, where that line has no newline yet.
    pub open_end: Option<(u64, u64)>,
}

/// What is known of a generation of a source file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRow {
    /// Its number in the flow.
    pub id: u64,
    /// The host.
    pub host: String,
    /// Where it was first found there.
    pub path: Vec<u8>,
    /// `st_dev` there.
    pub device: u64,
    /// `st_ino` there.
    pub inode: u64,
    /// Its birth time there.
    pub birth: u64,
    /// The number of the generation there.
    pub generation: u64,
    /// The name of the mirrored file; empty where it is not mirrored.
    pub name: Vec<u8>,
    /// Which bytes of it were written, encoded.
    pub received: Vec<u8>,
    /// What was found out about it.
    pub state: u8,
    /// When something of it came last, in seconds since 1970.
    pub touched: u64,
}

/// Something to be done with files, noted before it is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chore {
    /// Its number in the flow; chores are done in this order.
    pub id: u64,
    /// What is to be done.
    pub kind: ChoreKind,
    /// The file.
    pub source: Vec<u8>,
    /// What it becomes.
    pub target: Vec<u8>,
}

/// What is to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChoreKind {
    /// It gets another name.
    Rename,
    /// It becomes a compressed one.
    Compress,
}

/// What is kept of a consuming flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerRows {
    /// When it started first, in milliseconds since 1970.
    pub started: Option<u64>,
    /// Its shards.
    pub shards: Vec<ShardRow>,
    /// Its appended files.
    pub outputs: Vec<OutputRow>,
    /// Its sources.
    pub sources: Vec<SourceRow>,
    /// What was begun and perhaps not finished.
    pub chores: Vec<Chore>,
    /// Rows whose seal is broken.
    pub broken: u64,
}

/// What one transaction writes of a consuming flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerCommit {
    /// The flow.
    pub flow: Arc<str>,
    /// When it started first.
    pub started: Option<u64>,
    /// Rows to insert or replace.
    pub shards: Vec<ShardRow>,
    /// Shards to forget.
    pub shards_removed: Vec<ShardId>,
    /// Rows to insert or replace.
    pub outputs: Vec<OutputRow>,
    /// Rows to insert or replace.
    pub sources: Vec<SourceRow>,
    /// Sources to forget.
    pub sources_removed: Vec<u64>,
    /// Chores to note.
    pub chores: Vec<Chore>,
    /// Chores that are done.
    pub chores_done: Vec<u64>,
}

/// Writes `commit`.
///
/// # Errors
/// SQLite's.
pub(super) fn write(connection: &Connection, commit: &ConsumerCommit) -> rusqlite::Result<()> {
    let flow = &*commit.flow;
    if let Some(started) = commit.started {
        connection
            .prepare_cached("INSERT OR REPLACE INTO consumer_flows VALUES (?1, ?2, ?3)")?
            .execute(params![flow, started.cast_signed(), flow_seal(flow, &Started(started))])?;
    }
    for row in &commit.shards {
        insert_shard(connection, flow, row)?;
    }
    for shard in &commit.shards_removed {
        connection
            .prepare_cached("DELETE FROM consumer_shards WHERE flow = ?1 AND shard = ?2")?
            .execute(params![flow, &*shard.0])?;
    }
    for row in &commit.outputs {
        insert_output(connection, flow, row)?;
    }
    for row in &commit.sources {
        insert_source(connection, flow, row)?;
    }
    for id in &commit.sources_removed {
        connection
            .prepare_cached("DELETE FROM consumer_sources WHERE flow = ?1 AND id = ?2")?
            .execute(params![flow, id.cast_signed()])?;
    }
    for chore in &commit.chores {
        insert_chore(connection, flow, chore)?;
    }
    for id in &commit.chores_done {
        connection
            .prepare_cached("DELETE FROM consumer_chores WHERE flow = ?1 AND id = ?2")?
            .execute(params![flow, id.cast_signed()])?;
    }
    Ok(())
}

fn insert_shard(connection: &Connection, flow: &str, row: &ShardRow) -> rusqlite::Result<()> {
    let sequence = row.progress.as_ref().map(|progress| &*progress.sequence.0);
    let pieces = row.progress.as_ref().and_then(|progress| progress.pieces);
    connection
        .prepare_cached("INSERT OR REPLACE INTO consumer_shards VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            flow,
            &*row.shard.0,
            sequence,
            pieces.map(u64::cast_signed),
            row.finished,
            shard_seal(flow, row),
        ])?;
    Ok(())
}

fn insert_output(connection: &Connection, flow: &str, row: &OutputRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO consumer_outputs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            flow,
            row.name,
            row.length.cast_signed(),
            row.begun.cast_signed(),
            row.open_end.map(|(source, _)| source.cast_signed()),
            row.open_end.map(|(_, offset)| offset.cast_signed()),
            output_seal(flow, row),
        ])?;
    Ok(())
}

fn insert_source(connection: &Connection, flow: &str, row: &SourceRow) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO consumer_sources
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            flow,
            row.id.cast_signed(),
            row.host,
            row.path,
            row.device.cast_signed(),
            row.inode.cast_signed(),
            row.birth.cast_signed(),
            row.generation.cast_signed(),
            row.name,
            row.received,
            row.state,
            row.touched.cast_signed(),
            source_seal(flow, row),
        ])?;
    Ok(())
}

fn insert_chore(connection: &Connection, flow: &str, row: &Chore) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO consumer_chores VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            flow,
            row.id.cast_signed(),
            row.kind as u8,
            row.source,
            row.target,
            chore_seal(flow, row),
        ])?;
    Ok(())
}

/// Reads what is kept of a flow.
///
/// # Errors
/// SQLite's.
pub(super) fn load(connection: &Connection, flow: &str) -> rusqlite::Result<ConsumerRows> {
    let mut rows = ConsumerRows::default();
    let mut started = Vec::new();
    let mut broken = 0;
    each(connection, NAMES[0], flow, decode_flow, flow_seal, &mut started, &mut broken)?;
    rows.started = started.first().map(|Started(millis)| *millis);
    each(connection, NAMES[1], flow, decode_shard, shard_seal, &mut rows.shards, &mut broken)?;
    each(connection, NAMES[2], flow, decode_output, output_seal, &mut rows.outputs, &mut broken)?;
    each(connection, NAMES[3], flow, decode_source, source_seal, &mut rows.sources, &mut broken)?;
    each(connection, NAMES[4], flow, decode_chore, chore_seal, &mut rows.chores, &mut broken)?;
    rows.broken = broken;
    Ok(rows)
}

/// Returns the names of all flows that anything is kept of.
///
/// # Errors
/// SQLite's.
pub(super) fn flows(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let union = NAMES.map(|table| format!("SELECT flow FROM {table}")).join(" UNION ");
    let mut statement = connection.prepare(&union)?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Copies every whole row of a damaged database, as far as it can be read.
///
/// # Errors
/// SQLite's, where a row cannot be written.
pub(super) fn carry_over(damaged: &Connection, into: &Connection) -> rusqlite::Result<()> {
    for flow in flows(damaged).unwrap_or_default() {
        let Ok(rows) = load(damaged, &flow) else { continue };
        let commit = ConsumerCommit {
            flow: Arc::from(flow),
            started: rows.started,
            shards: rows.shards,
            outputs: rows.outputs,
            sources: rows.sources,
            chores: rows.chores,
            ..ConsumerCommit::default()
        };
        write(into, &commit)?;
    }
    Ok(())
}

/// When a flow started first, in milliseconds since 1970.
#[derive(Debug)]
struct Started(u64);

type Decode<T> = fn(&Row<'_>) -> rusqlite::Result<(T, u32)>;

fn each<T>(
    connection: &Connection,
    table: &str,
    flow: &str,
    decode: Decode<T>,
    seal: fn(&str, &T) -> u32,
    whole: &mut Vec<T>,
    broken: &mut u64,
) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT * FROM {table} WHERE flow = ?1"))?;
    let mut rows = statement.query([flow])?;
    while let Some(row) = rows.next()? {
        match decode(row) {
            Ok((row, written)) if seal(flow, &row) == written => whole.push(row),
            _ => *broken += 1,
        }
    }
    Ok(())
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

fn optional(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    row.get::<_, Option<i64>>(column).map(|number| number.map(i64::cast_unsigned))
}

fn decode_flow(row: &Row<'_>) -> rusqlite::Result<(Started, u32)> {
    Ok((Started(number(row, 1)?), row.get(2)?))
}

fn decode_shard(row: &Row<'_>) -> rusqlite::Result<(ShardRow, u32)> {
    let sequence: Option<String> = row.get(2)?;
    let pieces = optional(row, 3)?;
    let shard = ShardRow {
        shard: ShardId::from(&*row.get::<_, String>(1)?),
        progress: sequence
            .map(|sequence| Progress { sequence: SequenceNumber::from(&*sequence), pieces }),
        finished: row.get(4)?,
    };
    Ok((shard, row.get(5)?))
}

fn decode_output(row: &Row<'_>) -> rusqlite::Result<(OutputRow, u32)> {
    let output = OutputRow {
        name: row.get(1)?,
        length: number(row, 2)?,
        begun: number(row, 3)?,
        open_end: optional(row, 4)?.zip(optional(row, 5)?),
    };
    Ok((output, row.get(6)?))
}

fn decode_source(row: &Row<'_>) -> rusqlite::Result<(SourceRow, u32)> {
    let source = SourceRow {
        id: number(row, 1)?,
        host: row.get(2)?,
        path: row.get(3)?,
        device: number(row, 4)?,
        inode: number(row, 5)?,
        birth: number(row, 6)?,
        generation: number(row, 7)?,
        name: row.get(8)?,
        received: row.get(9)?,
        state: row.get(10)?,
        touched: number(row, 11)?,
    };
    Ok((source, row.get(12)?))
}

fn decode_chore(row: &Row<'_>) -> rusqlite::Result<(Chore, u32)> {
    let kind = match row.get::<_, u8>(2)? {
        0 => ChoreKind::Rename,
        _ => ChoreKind::Compress,
    };
    let chore = Chore { id: number(row, 1)?, kind, source: row.get(3)?, target: row.get(4)? };
    Ok((chore, row.get(5)?))
}

fn begin(flow: &str) -> Seal {
    let mut seal = Seal::default();
    seal.bytes(flow.as_bytes());
    seal
}

fn flow_seal(flow: &str, started: &Started) -> u32 {
    let mut seal = begin(flow);
    seal.number(started.0);
    seal.finish()
}

fn shard_seal(flow: &str, row: &ShardRow) -> u32 {
    let mut seal = begin(flow);
    seal.bytes(row.shard.0.as_bytes());
    seal.number(u64::from(row.finished));
    if let Some(progress) = &row.progress {
        seal.bytes(progress.sequence.0.as_bytes());
        seal.number(u64::from(progress.pieces.is_some()));
        seal.number(progress.pieces.unwrap_or_default());
    }
    seal.finish()
}

fn output_seal(flow: &str, row: &OutputRow) -> u32 {
    let mut seal = begin(flow);
    seal.bytes(&row.name);
    seal.number(row.length);
    seal.number(row.begun);
    if let Some((source, offset)) = row.open_end {
        seal.number(source);
        seal.number(offset);
    }
    seal.finish()
}

fn source_seal(flow: &str, row: &SourceRow) -> u32 {
    let mut seal = begin(flow);
    seal.bytes(row.host.as_bytes());
    seal.bytes(&row.path);
    seal.bytes(&row.name);
    seal.bytes(&row.received);
    let numbers = [row.id, row.device, row.inode, row.birth, row.generation, row.touched];
    for number in numbers.into_iter().chain([u64::from(row.state)]) {
        seal.number(number);
    }
    seal.finish()
}

fn chore_seal(flow: &str, row: &Chore) -> u32 {
    let mut seal = begin(flow);
    seal.number(row.id);
    seal.number(u64::from(row.kind as u8));
    seal.bytes(&row.source);
    seal.bytes(&row.target);
    seal.finish()
}
