//! The agent's process: the real binary, started, watched, signalled and killed.
//!
//! Invariant: an agent never outlives its [`Agent`]; it sees no environment, credentials or
//! configuration of the machine the tests run on.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(2);
/// How much of an output is shown where a test fails.
const SHOWN: usize = 8_000;

/// A directory of its own with a configuration, logs and a state directory: what an agent lives in.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
    endpoint: String,
}

impl Home {
    /// Makes a home whose agents talk to `endpoint`. In the template `{state}`, `{logs}`, `{out}` and
    /// `{endpoint}` stand for the state directory, the directory of logs, that of what is consumed
    /// and the endpoint's URL.
    #[must_use]
    pub fn new(endpoint: &str, template: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("kinetail-").tempdir().unwrap();
        let home = Self { dir, endpoint: endpoint.to_owned() };
        std::fs::create_dir(home.logs()).unwrap();
        home.configure(template);
        home
    }

    /// Writes another configuration.
    pub fn configure(&self, template: &str) {
        let text = template
            .replace("{state}", &self.state().display().to_string())
            .replace("{logs}", &self.logs().display().to_string())
            .replace("{out}", &self.out().display().to_string())
            .replace("{endpoint}", &self.endpoint);
        std::fs::write(self.config(), text).unwrap();
    }

    /// Returns the path of `agent.yaml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("agent.yaml")
    }

    /// Returns the directory of logs, which exists.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    /// Returns the directory of what is consumed, which the agent makes.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// Returns the state directory, which the agent makes.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Starts `kinetail run` on the configuration.
    #[must_use]
    pub fn start(&self) -> Agent {
        Agent::spawn(self.command(&["run", "--config"]).arg(self.config()))
    }

    /// Runs `kinetail run --once` to its end.
    #[must_use]
    pub fn once(&self, deadline: Duration) -> Finished {
        let mut command = self.command(&["run", "--once", "--config"]);
        Agent::spawn(command.arg(self.config())).wait(deadline)
    }

    /// Returns what `kinetail status --json` says.
    #[must_use]
    pub fn status(&self, deadline: Duration) -> serde_json::Value {
        let mut command = self.command(&["status", "--json", "--config"]);
        let finished = Agent::spawn(command.arg(self.config())).wait(deadline);
        assert!(finished.status.success(), "{finished:?}");
        serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|error| panic!("{error}: {finished:?}"))
    }

    /// Runs the binary with any arguments to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str], deadline: Duration) -> Finished {
        Agent::spawn(&mut self.command(arguments)).wait(deadline)
    }

    /// Returns the command with these arguments, in this home and no other environment.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        isolate(&mut command, self.dir.path());
        command.args(arguments);
        command
    }
}

/// Returns the configuration of a flow of all logs into a stream, with more settings of the flow.
#[must_use]
pub fn shipping(stream: &str, settings: &str) -> String {
    format!(
        "state_dir: {{state}}
aws: {{ endpoint_url: '{{endpoint}}', region: us-east-1 }}
produce:
  - name: web
    files: ['{{logs}}/*.log']
    stream: {stream}
    {settings}
"
    )
}

/// Returns the binary under test: the one that cargo built with the tests, or the one that
/// `KINETAIL_BINARY` names, such as a release build.
#[must_use]
pub fn binary() -> PathBuf {
    let named = std::env::var_os("KINETAIL_BINARY").map(PathBuf::from);
    named.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_kinetail")))
}

/// Gives a command fake credentials, and nothing else of this machine but its `PATH`.
pub fn isolate(command: &mut Command, home: &Path) {
    command.env_clear().current_dir(home);
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.env("HOME", home).env("TMPDIR", home).env("RUST_BACKTRACE", "1");
    command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "example-secret");
    command.env("AWS_REGION", "eu-west-1").env("AWS_EC2_METADATA_DISABLED", "true");
}

/// A process at work. Dropping it kills it, and shows its output where the test fails.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    stdout: Output,
    stderr: Output,
    ended: bool,
}

/// A process that has ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
}

impl Finished {
    /// Returns the exit code; `None` where a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Returns the signal that ended it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

impl Agent {
    /// Starts a command and captures what it writes.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Output::capture(child.stdout.take().unwrap());
        let stderr = Output::capture(child.stderr.take().unwrap());
        Self { child, stdout, stderr, ended: false }
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(mut self) -> Finished {
        self.child.kill().unwrap();
        self.wait(Duration::from_secs(10))
    }

    /// Asks it to end (SIGTERM); [`wait`](Self::wait) for it then.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        // The child is not waited for yet, so the id is still its own, even if it has ended.
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Returns whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; panics with its output at the deadline.
    pub fn wait(mut self, deadline: Duration) -> Finished {
        let end = Instant::now() + deadline;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "the process did not end within {deadline:?}");
            thread::sleep(POLL);
        };
        self.ended = true;
        Finished { status, stdout: self.stdout.join(), stderr: self.stderr.join() }
    }

    /// Waits until stderr, where the logs go, satisfies `condition`; panics at the deadline.
    pub fn wait_for_stderr(
        &self,
        claim: &str,
        deadline: Duration,
        condition: impl Fn(&str) -> bool,
    ) {
        self.stderr.wait(claim, deadline, condition);
    }

    /// Returns stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Returns stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // It may have ended by itself: then there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
        if thread::panicking() {
            let (stdout, stderr) = (self.stdout.join(), self.stderr.join());
            eprintln!("--- stdout\n{}\n--- stderr\n{}", tail(&stdout), tail(&stderr));
        }
    }
}

/// An output, captured as it comes.
#[derive(Debug)]
struct Output {
    shared: Arc<(Mutex<Captured>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    fn capture(mut pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Captured::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut block = vec![0; 16 * 1024];
            loop {
                let count = pipe.read(&mut block).unwrap_or(0);
                let mut captured = theirs.0.lock().unwrap();
                captured.bytes.extend_from_slice(&block[..count]);
                captured.ended = count == 0;
                theirs.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Self { shared, thread: Some(thread) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.0.lock().unwrap().bytes).into_owned()
    }

    /// Returns all of it, once the process has closed it.
    fn join(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.text()
    }

    fn wait(&self, claim: &str, deadline: Duration, condition: impl Fn(&str) -> bool) {
        let holds = |captured: &Captured| condition(&String::from_utf8_lossy(&captured.bytes));
        let captured = self.shared.0.lock().unwrap();
        let waits = |captured: &mut Captured| !captured.ended && !holds(captured);
        let (captured, _) = self.shared.1.wait_timeout_while(captured, deadline, waits).unwrap();
        let met = holds(&captured);
        drop(captured);
        assert!(met, "not within {deadline:?}: {claim}");
    }
}

/// Returns the end of a text.
fn tail(text: &str) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(SHOWN))..]
}
