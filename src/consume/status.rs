//! What a consuming flow says of itself.
//!
//! Invariant: what is told as written is committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::shards::Stage;
use super::sink::{Generations, SinkError, Tally};
use crate::config::{Consume, Layout};
use crate::position::{Progress, ShardId};
use crate::record::split::Found;
use crate::status::{ConsumerStatus, ConsumerTotals, ShardStatus};
use crate::stream::read::ReadError;

/// A failure of reading that has lasted so long is told as a problem; throttles and lost connections
/// come and go.
const PROBLEM_AFTER: Duration = Duration::from_secs(10);

/// A repeated failure is logged as often as this.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// What is asked of a flow from outside while it runs.
#[derive(Debug)]
pub struct Shared {
    name: String,
    stream: String,
    directory: String,
    layout: Layout,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shards: BTreeMap<ShardId, Reading>,
    tallies: HashMap<ShardId, Tally>,
    formats: Found,
    generations: Generations,
    files: u64,
    listing: Option<String>,
    coordination: Option<String>,
    writing: Option<String>,
    logged: Option<(String, Instant)>,
    committed_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Reading {
    stage: Option<Stage>,
    progress: Option<Progress>,
    behind: Option<Duration>,
    reads: u64,
    failures: u64,
    throttled: u64,
    error: Option<(String, Instant)>,
}

impl Shared {
    /// Makes what a flow says before it runs.
    #[must_use]
    pub fn new(consume: &Consume) -> Self {
        Self {
            name: consume.name.to_string(),
            stream: consume.stream.clone(),
            directory: consume.directory.display().to_string(),
            layout: consume.layout,
            state: Mutex::default(),
        }
    }

    /// Returns the flow's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic ends the process in production (`panic = "abort"`).
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the flow says.
    #[must_use]
    pub fn status(&self) -> ConsumerStatus {
        let state = self.state();
        let shards: Vec<ShardStatus> =
            state.shards.iter().map(|(id, reading)| shard(id, reading, &state)).collect();
        let mut totals = ConsumerTotals {
            records_kpl: state.formats.kpl,
            records_compressed: state.formats.compressed,
            records_unsplit: state.formats.unsplit,
            files: state.files,
            generations: state.generations.known,
            generations_verified: state.generations.verified,
            generations_damaged: state.generations.damaged,
            missing_bytes: state.generations.hole_bytes,
            ..ConsumerTotals::default()
        };
        for tally in state.tallies.values() {
            totals.records += tally.records;
            totals.bytes += tally.bytes;
            totals.lines += tally.lines;
            totals.duplicate_bytes += tally.duplicate_bytes;
            totals.names_refused += tally.refused;
            totals.beyond_max_files += tally.beyond_files;
        }
        ConsumerStatus {
            name: self.name.clone(),
            stream: self.stream.clone(),
            directory: self.directory.clone(),
            layout: match self.layout {
                Layout::Append => "append".to_owned(),
                Layout::Mirror => "mirror".to_owned(),
            },
            problems: problems(&state),
            shards,
            totals,
        }
    }

    /// Returns when everything was committed last, and why it is not just now.
    #[must_use]
    pub fn last_commit(&self) -> (Option<Instant>, Option<String>) {
        let state = self.state();
        (state.committed_at, state.writing.clone())
    }

    /// Sets what becomes of the shards.
    pub(super) fn staged<'a>(&self, stages: impl Iterator<Item = (&'a ShardId, Stage)>) {
        let mut state = self.state();
        let mut shards = std::mem::take(&mut state.shards);
        for (id, stage) in stages {
            let mut reading = shards.remove(id).unwrap_or_default();
            reading.stage = Some(stage);
            state.shards.insert(id.clone(), reading);
        }
    }

    /// The shard is written up to here; from an earlier run, too.
    pub(super) fn advanced(&self, shard: &ShardId, progress: Option<&Progress>, ended: bool) {
        let mut state = self.state();
        let reading = state.shards.entry(shard.clone()).or_default();
        if let Some(progress) = progress {
            reading.progress = Some(progress.clone());
        }
        if ended {
            reading.behind = None;
        }
    }

    /// A read came off.
    pub(super) fn read(&self, shard: &ShardId, behind: Option<Duration>) {
        let mut state = self.state();
        let reading = state.shards.entry(shard.clone()).or_default();
        reading.reads = reading.reads.saturating_add(1);
        reading.behind = behind;
        if reading.error.take().is_some_and(|(_, since)| since.elapsed() >= PROBLEM_AFTER) {
            tracing::info!(flow = self.name, %shard, "the shard can be read again");
        }
    }

    /// A read failed.
    pub(super) fn read_failed(&self, shard: &ShardId, error: &ReadError) {
        let mut state = self.state();
        let reading = state.shards.entry(shard.clone()).or_default();
        reading.failures = reading.failures.saturating_add(1);
        let throttled = matches!(error, ReadError::Throttled(_));
        reading.throttled = reading.throttled.saturating_add(u64::from(throttled));
        let words = error.to_string();
        tracing::debug!(flow = self.name, %shard, error = words, "a read failed");
        // How long it has failed counts, not how long with these words.
        let since = reading.error.as_ref().map_or_else(Instant::now, |(_, since)| *since);
        let unavailable = matches!(error, ReadError::Unavailable { .. });
        reading.error = Some((words.clone(), since));
        if unavailable || since.elapsed() >= PROBLEM_AFTER {
            log(&mut state, &self.name, &words, "a shard cannot be read");
        }
    }

    /// The shards were listed, or why not.
    pub(super) fn listed(&self, outcome: Result<(), &ReadError>) {
        let mut state = self.state();
        state.listing = outcome.err().map(|error| format!("shards are not listed: {error}"));
        if let Some(words) = state.listing.clone() {
            log(&mut state, &self.name, &words, "the stream cannot be read");
        }
    }

    /// What is wrong with coordination.
    pub(super) fn coordinated(&self, problem: Option<String>) {
        self.state().coordination = problem;
    }

    /// What was written, all in all.
    pub(super) fn written(
        &self,
        tallies: &HashMap<ShardId, Tally>,
        formats: Found,
        generations: Generations,
        files: usize,
    ) {
        let mut state = self.state();
        state.tallies.clone_from(tallies);
        state.formats = formats;
        state.generations = generations;
        state.files = files as u64;
    }

    /// Everything is committed.
    pub(super) fn committed(&self) {
        let mut state = self.state();
        state.committed_at = Some(Instant::now());
        if state.writing.take().is_some() {
            state.logged = None;
            tracing::info!(flow = self.name, "lines are written again");
        }
    }

    /// Writing failed, and is tried again.
    pub(super) fn writing_failed(&self, error: &SinkError) {
        let mut state = self.state();
        let words = error.to_string();
        state.writing = Some(words.clone());
        log(&mut state, &self.name, &words, "lines cannot be written; it is tried again");
    }
}

fn log(state: &mut State, flow: &str, words: &str, what: &'static str) {
    let is_known = state
        .logged
        .as_ref()
        .is_some_and(|(known, at)| known == words && at.elapsed() < LOG_INTERVAL);
    if !is_known {
        tracing::error!(flow, error = words, "{what}");
        state.logged = Some((words.to_owned(), Instant::now()));
    }
}

fn problems(state: &State) -> Vec<String> {
    let writing = state.writing.iter().map(|error| format!("lines are not written: {error}"));
    let failing = state.shards.iter().filter_map(|(id, reading)| {
        let (error, since) = reading.error.as_ref()?;
        (since.elapsed() >= PROBLEM_AFTER).then(|| format!("{id} cannot be read: {error}"))
    });
    let damaged = state.generations.damaged;
    let damaged =
        (damaged > 0).then(|| format!("{damaged} mirrored files are not what was received"));
    let listing = state.listing.iter().chain(&state.coordination).cloned();
    writing.chain(listing).chain(failing).chain(damaged).collect()
}

fn shard(id: &ShardId, reading: &Reading, state: &State) -> ShardStatus {
    let tally = state.tallies.get(id).copied().unwrap_or_default();
    let progress = reading.progress.as_ref();
    ShardStatus {
        shard: id.to_string(),
        state: match reading.stage {
            Some(Stage::Reading) => "reading",
            Some(Stage::Finished) => "finished",
            Some(Stage::Waiting) | None => "waiting",
        }
        .to_owned(),
        sequence_number: progress.map(|progress| progress.sequence.to_string()),
        millis_behind_latest: reading
            .behind
            .map(|behind| u64::try_from(behind.as_millis()).unwrap_or(u64::MAX)),
        records: tally.records,
        bytes: tally.bytes,
        lines: tally.lines,
        names_refused: tally.refused,
        reads: reading.reads,
        reads_failed: reading.failures,
        reads_throttled: reading.throttled,
        last_error: reading.error.as_ref().map(|(error, _)| error.clone()),
    }
}
