//! What the demo plays on: a directory, an endpoint on a thread, an agent as a process.
//!
//! Invariant: when the stage is dropped, the agent is dead and the directory is gone, whatever
//! happened.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use crossbeam_channel::{Sender, bounded};
use rustix::process::{Pid, Signal, kill_process};

use super::traffic::LOG_NAME;
use crate::control;
use crate::local::Endpoint;
use crate::status::Status;

/// The stream.
pub(super) const STREAM: &str = "demo";

/// Its shards.
pub(super) const SHARDS: u32 = 4;

/// The region that the endpoint calls itself.
pub(super) const REGION: &str = "us-east-1";

/// Set where the process runs without the environment's credentials.
const APART: &str = "KINETAIL_DEMO";

/// How long the agent may take to end.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// Lines of the agent's log that are shown where it fails.
const LOG_LINES: usize = 10;

/// Returns whether this process has been started by [`start_apart`].
pub(super) fn is_apart() -> bool {
    std::env::var_os(APART).is_some()
}

/// Becomes the same command again, in an environment in which nothing points to a real account.
/// Returns only where that is not possible, with the reason.
pub(super) fn start_apart() -> io::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error,
    };
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(APART, "1");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command
        .env("AWS_ACCESS_KEY_ID", "demo")
        .env("AWS_SECRET_ACCESS_KEY", "demo")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        // A proxy must not come between the agent and this machine.
        .env("NO_PROXY", "127.0.0.1")
        .exec()
}

/// The stage.
#[derive(Debug)]
pub(super) struct Stage {
    // Dropped in this order: first the agent, then what it works on.
    agent: Option<Running>,
    url: String,
    directory: Directory,
}

impl Stage {
    /// Makes the directory, and starts the endpoint with its stream.
    pub(super) fn open() -> anyhow::Result<Self> {
        let directory = Directory::make()?;
        let (tell, told) = bounded(1);
        thread::Builder::new()
            .name("endpoint".to_owned())
            .spawn(move || serve(&tell))
            .context("cannot start the endpoint's thread")?;
        let url = told.recv().context("the endpoint did not start")??;
        let stage = Self { agent: None, url, directory };
        fs::create_dir(stage.logs()).context("cannot make the directory of the logs")?;
        Ok(stage)
    }

    /// Returns where the endpoint listens.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the directory of the logs.
    pub(super) fn logs(&self) -> PathBuf {
        self.directory.0.join("logs")
    }

    fn state_dir(&self) -> PathBuf {
        self.directory.0.join("state")
    }

    fn agent_log(&self) -> PathBuf {
        self.directory.0.join("agent.log")
    }

    /// Starts `kinetail run` on the logs.
    pub(super) fn start_agent(&mut self) -> anyhow::Result<()> {
        let configuration = self.directory.0.join("agent.yaml");
        fs::write(&configuration, agent_yaml(&self.state_dir(), &self.logs(), &self.url))
            .context("cannot write agent.yaml")?;
        let log = fs::File::create(self.agent_log()).context("cannot create the agent's log")?;
        let child = Command::new(std::env::current_exe()?)
            .args(["run", "--log-format", "text", "--config"])
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is for the demo, which then ends the agent in its own way.
            .process_group(0)
            .spawn()
            .context("cannot start kinetail run")?;
        self.agent = Some(Running(child));
        Ok(())
    }

    /// Asks the agent how it is; `None` while it is starting.
    pub(super) fn status(&mut self) -> anyhow::Result<Option<Status>> {
        if let Some(Running(child)) = &mut self.agent
            && let Some(status) = child.try_wait().context("cannot look after the agent")?
        {
            bail!("the agent ended, {status}\n{}", self.log());
        }
        Ok(control::client::status(&self.state_dir())?)
    }

    /// Ends the agent as a service manager would, and waits until it has ended well.
    pub(super) fn stop_agent(&mut self) -> anyhow::Result<()> {
        let Some(mut agent) = self.agent.take() else { return Ok(()) };
        let status = agent.terminate().context("cannot end the agent")?;
        if status.success() {
            return Ok(());
        }
        bail!("the agent ended badly, {status}\n{}", self.log())
    }

    /// Returns the last lines of the agent's log.
    pub(super) fn log(&self) -> String {
        let log = fs::read_to_string(self.agent_log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
    }
}

/// Serves until the process ends; tells the address or why there is none.
fn serve(tell: &Sender<anyhow::Result<String>>) {
    let served = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the endpoint's runtime")
        .and_then(|runtime| {
            runtime.block_on(Box::pin(async {
                let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let endpoint = Endpoint::bind(free).await?;
                endpoint.create_stream(STREAM, SHARDS).await?;
                tell.send(Ok(endpoint.url())).map_err(|_| anyhow!("nobody waits"))?;
                endpoint.serve().await.context("the endpoint ended")
            }))
        });
    if let Err(error) = served
        && tell.try_send(Err(error)).is_err()
    {
        tracing::debug!("the endpoint ended after the demo");
    }
}

/// Paths are quoted as JSON strings, which YAML takes as they are.
fn agent_yaml(state_dir: &Path, logs: &Path, url: &str) -> String {
    let quoted = |path: PathBuf| serde_json::Value::from(path.display().to_string());
    format!(
        "\
state_dir: {}
aws:
  region: {REGION}
  endpoint_url: {url}
produce:
  - name: access
    files: [{}]
    stream: {STREAM}
",
        quoted(state_dir.to_path_buf()),
        quoted(logs.join("*").join(LOG_NAME)),
    )
}

/// A running agent; killed when it is dropped.
#[derive(Debug)]
struct Running(Child);

impl Running {
    fn terminate(&mut self) -> io::Result<ExitStatus> {
        let id = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            kill_process(id, Signal::TERM)?;
        }
        let patience = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            if patience.elapsed() > END_PATIENCE {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let ended = self.0.kill().and_then(|()| self.0.wait());
            tracing::debug!(?ended, "the agent was killed");
        }
    }
}

/// A directory for this process alone, removed when it is dropped.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn make() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("kinetail-demo-{}", process::id()));
        // Fails where the name exists: nobody else can have prepared it.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "cannot remove the demo's directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_private_and_goes_with_the_stage() {
        let stage = Stage::open().unwrap();
        let path = stage.directory.0.clone();
        let mode = fs::metadata(&path).map(|found| {
            use std::os::unix::fs::PermissionsExt;
            found.permissions().mode() & 0o777
        });
        assert_eq!(mode.unwrap(), 0o700);
        assert!(stage.url().starts_with("http://127.0.0.1:"));
        drop(stage);
        assert!(path.symlink_metadata().is_err());
    }

    #[test]
    fn the_configuration_follows_the_logs_of_all_servers() {
        let text = agent_yaml(Path::new("/s"), Path::new("/l"), "http://127.0.0.1:1");
        assert!(text.contains("files: [\"/l/*/access.log\"]"), "{text}");
    }
}
