//! A campaign: logs are written and rotated, a producer ships them and a consumer writes them again, each in
//! a process of its own that is killed over and over, while calls to the endpoint fail.
//!
//! ```text
//!  staged ─▶ logs ─▶ producer ─▶ ┐
//!                                ├─▶ fault endpoint ─▶ ferrokinesis (`kinetail local`)
//!  mirror, appended ◀─ consumer ◀┘
//! ```
//!
//! Invariant: what is judged is the trees alone: the mirror is the logs (`diff -r`), and each appended file
//! holds the lines of its log, each as often as the log does. How much is tried, `tests/mirror` says.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{CONSUMER, difference, files, mirror_of, names};
use crate::effort;
use crate::scene::{DEADLINE, append, stop};
use crate::support::agent::{Agent, Home};
use crate::support::endpoint::{CallFault, EntryFault, FaultEndpoint, Options, ReadFault, Script};
use crate::support::generator;

/// Logs that grow at the same time.
const LOGS: usize = 8;
/// Shards of the stream.
const SHARDS: u32 = 12;
/// The most that is written at a time: whole lines and pieces of them.
const PIECE_MAX: u64 = 64 << 10;
/// The most that goes to a log after it was renamed.
const LATE_MAX: u64 = 20_000;

/// The producer: each third of the logs is packed in another way.
const SHIP: &str = "state_dir: {state}
aws: { endpoint_url: '{endpoint}' }
checkpoint_interval: 100 ms
produce:
  - name: plain
    files: ['{logs}/0/*']
    stream: web
    merge: { format: kpl, max_age: 50 ms }
    tail: { scan_interval: 200 ms }
    ship: { timeout: 10 s, backoff_max: 200 ms }
  - name: zstd
    files: ['{logs}/1/*']
    stream: web
    merge: { format: kpl, compression: zstd, max_age: 50 ms }
    tail: { scan_interval: 200 ms }
    ship: { timeout: 10 s, backoff_max: 200 ms }
  - name: gzip
    files: ['{logs}/2/*']
    stream: web
    merge: { format: kpl, compression: gzip, max_age: 50 ms }
    tail: { scan_interval: 200 ms }
    ship: { timeout: 10 s, backoff_max: 200 ms }
";

/// The consumer's two flows.
const WRITE: &str = "consume:
  - name: tree
    stream: web
    directory: {out}
    layout: mirror
    path: '{path}'
    read: { poll_interval: 200 ms, backoff_max: 200 ms, timeout: 10 s }
  - name: lines
    stream: web
    directory: {out}2
    layout: append
    path: '{file}'
    read: { poll_interval: 200 ms, backoff_max: 200 ms, timeout: 10 s }
";

/// What befalls calls.
fn script(seed: u64) -> Script {
    let reads = [
        ReadFault::Empty,
        ReadFault::Expired,
        ReadFault::Call(CallFault::CutBeforeStoring),
        ReadFault::Call(CallFault::CutInAnswer),
        ReadFault::Call(CallFault::InternalFailure),
        ReadFault::Call(CallFault::KmsThrottled),
        ReadFault::Call(CallFault::Throttled),
        ReadFault::Call(CallFault::WrongLength),
    ];
    let script = Script::seeded(seed)
        .entry(EntryFault::InternalFailure, 0.02)
        .entry(EntryFault::Throttled, 0.02)
        .call(CallFault::InternalFailure, 0.01)
        .call(CallFault::Unavailable, 0.01)
        .call(CallFault::CutBeforeStoring, 0.01)
        .call(CallFault::CutAfterStoring, 0.01)
        .call(CallFault::CutInAnswer, 0.01);
    reads.into_iter().fold(script, |script, fault| script.read(fault, 0.01))
}

/// Opens step by step: so that logs grow from the first kill to the last, whatever the machine's speed.
#[derive(Debug)]
struct Gate {
    steps: u64,
    open: Mutex<u64>,
    opened: Condvar,
}

impl Gate {
    fn step(&self) {
        *self.open.lock().unwrap() += 1;
        self.opened.notify_all();
    }

    /// Waits until more than `done` of `total` may be done; returns how much.
    fn wait(&self, done: u64, total: u64) -> u64 {
        let share = |open: u64| total * open.min(self.steps) / self.steps;
        let open = self.opened.wait_while(self.open.lock().unwrap(), |open| share(*open) <= done);
        share(*open.unwrap())
    }
}

/// A log: where it stands, and the text that goes to it.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    staged: PathBuf,
    mirror: PathBuf,
    generations: u64,
    draws: Rng,
}

impl Log {
    /// Writes all of it, rotating by rename; returns how often.
    fn write(mut self, gate: &Gate) -> u64 {
        let text = File::open(&self.staged).unwrap();
        let total = text.metadata().unwrap().len();
        let mut done = 0;
        for generation in 1..=self.generations {
            let mut file = File::options().append(true).create(true).open(&self.path).unwrap();
            let is_last = generation == self.generations;
            let end = if is_last {
                total
            } else {
                line_end(&text, total * generation / self.generations)
            };
            let late = if is_last { 0 } else { self.draws.u64(0..LATE_MAX) };
            let renamed_at = end.saturating_sub(late).max(done);
            self.copy(&text, &mut file, &mut done, renamed_at, |done| gate.wait(done, total));
            if !is_last {
                self.rotate(generation);
                self.copy(&text, &mut file, &mut done, end, |_| end);
            }
        }
        self.generations - 1
    }

    /// Copies up to `end` in pieces, as far as it may.
    fn copy(
        &mut self,
        text: &File,
        file: &mut File,
        done: &mut u64,
        end: u64,
        may: impl Fn(u64) -> u64,
    ) {
        while *done < end {
            let most = may(*done).min(end) - *done;
            let length = self.draws.u64(1..=PIECE_MAX).min(most);
            let mut piece = vec![0; usize::try_from(length).unwrap()];
            text.read_exact_at(&mut piece, *done).unwrap();
            file.write_all(&piece).unwrap();
            *done += length;
        }
    }

    /// Renames it and its older generations, as logrotate does. A file is mirrored by the name it was first
    /// found at: it must be found before it is renamed.
    fn rotate(&self, generations: u64) {
        let end = Instant::now() + 5 * DEADLINE;
        while self.own(&self.mirror) != self.own(self.path.parent().unwrap()) {
            let (there, here) = (self.own(&self.mirror), self.own(self.path.parent().unwrap()));
            assert!(Instant::now() < end, "{}: {there:?}, not {here:?}", self.path.display());
            thread::sleep(Duration::from_millis(20));
        }
        let name = |number: u64| match number {
            0 => self.path.clone(),
            _ => self.path.with_added_extension(number.to_string()),
        };
        for number in (0..generations).rev() {
            fs::rename(name(number), name(number + 1)).unwrap();
        }
    }

    /// Returns the names of its generations in a directory.
    fn own(&self, directory: &Path) -> BTreeSet<OsString> {
        let stem = self.path.file_name().unwrap().as_encoded_bytes();
        let is_own = |name: &OsString| name.as_encoded_bytes().starts_with(stem);
        names(directory).into_iter().filter(is_own).collect()
    }
}

/// Returns where the line ends that holds the byte at `offset`.
fn line_end(text: &File, mut offset: u64) -> u64 {
    let mut block = vec![0; 4096];
    loop {
        let count = text.read_at(&mut block, offset).unwrap();
        if let Some(place) = memchr::memchr(b'\n', &block[..count]) {
            return offset + place as u64 + 1;
        }
        assert!(count > 0, "no line ends behind {offset}");
        offset += count as u64;
    }
}

/// Starts what writes the logs.
fn write_logs(home: &Home, seed: u64, bytes: u64, kills: u64) -> (Arc<Gate>, Vec<JoinHandle<u64>>) {
    let staged = home.logs().with_file_name("staged");
    let gate = Gate { steps: kills, open: Mutex::new(0), opened: Condvar::new() };
    let gate = Arc::new(gate);
    let writers = generator::generate(&staged, seed, LOGS, bytes).unwrap();
    let writers = writers.into_iter().enumerate().map(|(n, generated)| {
        let directory = home.logs().join((n % 3).to_string());
        fs::create_dir_all(&directory).unwrap();
        let log = Log {
            path: directory.join(generated.path.file_name().unwrap()),
            staged: generated.path,
            mirror: mirror_of(home).join((n % 3).to_string()),
            generations: 2 + kills / 10,
            draws: Rng::with_seed(seed ^ n as u64),
        };
        let gate = Arc::clone(&gate);
        thread::spawn(move || log.write(&gate))
    });
    let writers = writers.collect();
    (gate, writers)
}

/// Starts ferrokinesis in a process of its own; returns it with its address.
fn ferrokinesis(home: &Home) -> (Agent, std::net::SocketAddr) {
    let stream = format!("web:{SHARDS}");
    let mut command = home.command(&["local", "--listen", "127.0.0.1:0", "--stream", &stream]);
    let agent = Agent::spawn(&mut command);
    let end = Instant::now() + DEADLINE;
    loop {
        let told = agent.stdout();
        let url = told.split_once("http://").and_then(|(_, rest)| rest.split_once(','));
        if let Some((address, _)) = url {
            return (agent, address.parse().unwrap());
        }
        assert!(Instant::now() < end, "it does not say where it listens: {told}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the bytes of the lines beneath a directory that have ended.
fn whole_lines(directory: &Path) -> u64 {
    let whole = |path: PathBuf| {
        let file = File::open(path).unwrap();
        let mut end = file.metadata().unwrap().len();
        let mut block = [0; 4096];
        while end > 0 {
            let from = end.saturating_sub(block.len() as u64);
            let length = usize::try_from(end - from).unwrap();
            file.read_exact_at(&mut block[..length], from).unwrap();
            if let Some(place) = memchr::memrchr(b'\n', &block[..length]) {
                return from + place as u64 + 1;
            }
            end = from;
        }
        0
    };
    files(directory).into_iter().map(whole).sum()
}

/// Returns the sizes of the files beneath a directory. They may be renamed meanwhile.
fn size(directory: &Path) -> u64 {
    let sizes =
        files(directory).into_iter().filter_map(|path| Some(fs::metadata(path).ok()?.len()));
    sizes.sum()
}

/// Waits until so many bytes stand beneath a directory, for as long as it gets on.
fn wait_for_bytes(directory: &Path, bytes: u64) {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let now = size(directory);
        if now >= bytes {
            return;
        }
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < DEADLINE, "{}: {now} of {bytes} bytes", directory.display());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Asserts that each appended file holds the lines of all generations of its log, each as often as they do.
/// Returns how many.
fn assert_appended(home: &Home) -> usize {
    let (logs, appended) = (files(&home.logs()), home.out().with_file_name("out2"));
    let mut count = 0;
    for file in files(&appended) {
        let stem = file.file_name().unwrap().as_encoded_bytes();
        let own = |log: &&PathBuf| log.file_name().unwrap().as_encoded_bytes().starts_with(stem);
        let texts: Vec<Vec<u8>> =
            logs.iter().filter(own).map(|log| fs::read(log).unwrap()).collect();
        let written = fs::read(&file).unwrap();
        let mut expected: Vec<&[u8]> = texts.iter().flat_map(|text| lines(text)).collect();
        let mut found: Vec<&[u8]> = lines(&written).collect();
        expected.sort_unstable();
        found.sort_unstable();
        assert_eq!(found.len(), expected.len(), "lines of {}", file.display());
        let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert_eq!(differs, None, "{}", file.display());
        count += found.len();
    }
    assert_eq!(files(&appended).len(), LOGS);
    count
}

/// Returns the lines of a text without their newlines; the last may have none.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|byte| *byte == b'\n')
}

/// Runs all of it.
fn campaign(seed: u64, bytes: u64, kills: u64) {
    let begun = Instant::now();
    eprintln!("seed {seed}");
    let behind = Home::new("", "");
    let (behind, address) = ferrokinesis(&behind);
    let options = Options { upstream: Some(address), ..Options::default() };
    let endpoint = FaultEndpoint::start_with(options, script(seed));
    let source = Home::new(&endpoint.url(), SHIP);
    let out = source.out().display().to_string();
    let target = Home::new(&endpoint.url(), &[CONSUMER, WRITE].concat().replace("{out}", &out));
    let (gate, writers) = write_logs(&source, seed, bytes, kills);
    let mut draws = Rng::with_seed(seed);
    for _ in 0..kills {
        let (producer, consumer) = (source.start(), target.start());
        gate.step();
        // Any moments are fair ones, from the start of the process on.
        thread::sleep(Duration::from_millis(draws.u64(0..1500)));
        let (first, second) =
            if draws.bool() { (producer, consumer) } else { (consumer, producer) };
        first.kill();
        thread::sleep(Duration::from_millis(draws.u64(0..700)));
        second.kill();
    }
    let (producer, consumer) = (source.start(), target.start());
    let rotations: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    let mirror = mirror_of(&source);
    wait_for_bytes(&mirror, whole_lines(&source.logs()));
    endpoint.set_script(Script::healthy());
    append(&source.logs().join("0/app-0000.log"), b"a fresh line\n");
    wait_for_bytes(&mirror, whole_lines(&source.logs()));
    stop(producer);
    stop(consumer);
    // A last line without its newline is shipped by a run that ends with the files.
    for home in [&source, &target] {
        let finished = home.once(5 * DEADLINE);
        assert_eq!(finished.code(), Some(0), "{finished:?}");
    }
    assert_eq!(difference(&source), "");
    let lines = assert_appended(&source);
    let (requests, failed) = endpoint.with_log(|log| {
        (log.requests.len(), log.requests.iter().filter(|request| request.fault.is_some()).count())
    });
    drop(behind);
    eprintln!(
        "tried: {kills} kills of the producer and as many of the consumer from seed {seed}, \
         {bytes} bytes in {lines} lines, {rotations} rotations, {failed} of {requests} calls failed, \
         in {} s: the mirror is the logs, every line is appended once",
        begun.elapsed().as_secs(),
    );
}

/// "end to end, a mirrored file is byte-identical to its source, and appended files hold each line once",
/// whatever is killed when, under rotations and faults.
#[test]
fn whatever_is_killed_the_mirror_is_the_logs_and_every_line_is_appended_once() {
    let bytes = effort::variable("KINETAIL_MIRROR_BYTES").unwrap_or(12_000_000);
    let kills = effort::variable("KINETAIL_MIRROR_KILLS").unwrap_or(10);
    campaign(effort::variable("KINETAIL_MIRROR_SEED").unwrap_or(78), bytes, kills);
}
