//! The command line: one file a subcommand.
//!
//! Invariant: what a command answers goes to standard output, everything else to standard error;
//! every end has an exit code of sysexits.h, the same for the same reason in every command.

mod chart;
mod check;
#[cfg(feature = "demo")]
mod demo;
mod estimate;
mod exit;
mod figures;
#[cfg(feature = "demo")]
mod local;
mod prices;
mod run;
mod screen;
mod status;
mod table;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use self::exit::{Exit, ExitWith, Failure};
use crate::config::Config;
use crate::telemetry;

/// Where the configuration stands unless `--config` says otherwise.
const CONFIG_FILE: &str = "/etc/kinetail/agent.yaml";

/// The exit codes that every command shares.
const EXIT_CODES: &str = "\
Exit codes:
   0  done
  64  the command line is wrong
  70  a bug
  74  a file, a socket or the stream cannot be used
  75  not now, try again: another agent holds the state directory, or a run was interrupted
  78  the configuration is wrong

Environment:
  KINETAIL_LOG  what is logged: error, warn, info, debug, trace, or directives such as
                kinetail::produce=debug
  NO_COLOR      set to anything: no colours";

/// Tails log files, merges their lines into well-filled Kinesis records, and loses nothing.
#[derive(Debug, Parser)]
#[command(name = "kinetail", version, after_long_help = EXIT_CODES, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    logging: Logging,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging (to standard error)")]
struct Logging {
    /// How log events are written [default: text on a terminal, else json]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,

    /// What is logged: a level, or directives (see kinetail --help) [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,

    /// Log more: -v is debug, -vv is trace
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "log_level")]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// A line for people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration
    #[arg(long, short, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow log files and ship their lines
    #[command(long_about = run::ABOUT, after_long_help = run::EXIT_CODES)]
    Run(run::Arguments),

    /// Validate the configuration, and show what would be followed and sent where
    #[command(long_about = check::ABOUT, after_long_help = check::EXIT_CODES)]
    Check(check::Arguments),

    /// Show how far every file is, and what is wrong
    #[command(long_about = status::ABOUT, after_long_help = status::EXIT_CODES)]
    Status(status::Arguments),

    /// Show what log files would cost in Kinesis, unmerged and merged in several ways
    #[command(long_about = estimate::ABOUT, after_long_help = estimate::EXIT_CODES)]
    Estimate(estimate::Arguments),

    /// Show the whole road on this machine: no AWS account, no network, under 20 seconds
    #[cfg(feature = "demo")]
    #[command(long_about = demo::ABOUT, after_long_help = demo::EXIT_CODES)]
    Demo(demo::Arguments),

    /// Run an embedded Kinesis-compatible endpoint, for development
    #[cfg(feature = "demo")]
    #[command(long_about = local::ABOUT, after_long_help = local::EXIT_CODES)]
    Local(local::Arguments),

    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },

    /// Print the manual page
    Man,
}

/// Runs the command that `arguments` name, the program's own name first.
pub fn run<I>(arguments: I) -> ExitCode
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let outcome = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => start(arguments),
        Err(error) => explain(&error),
    };
    let exit = outcome.unwrap_or_else(|failure| {
        failure.tell(&mut io::stderr());
        failure.exit
    });
    exit.into()
}

/// Prints help, version or what is wrong with the command line. clap would exit with 2.
fn explain(error: &clap::Error) -> Result<Exit, Failure> {
    error.print().exit_with(Exit::Io)?;
    Ok(if error.use_stderr() { Exit::Usage } else { Exit::Done })
}

fn start(arguments: Arguments) -> Result<Exit, Failure> {
    arguments.logging.start()?;
    match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Estimate(arguments) => estimate::run(&arguments),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => demo::run(&arguments),
        #[cfg(feature = "demo")]
        Command::Local(arguments) => local::run(&arguments),
        Command::Completions { shell } => print(&completions(shell)),
        Command::Man => print(&manual().exit_with(Exit::Bug)?),
    }
}

impl Logging {
    fn start(&self) -> Result<(), Failure> {
        let format = match self.log_format {
            None => telemetry::Format::detect(),
            Some(LogFormat::Json) => telemetry::Format::Json,
            Some(LogFormat::Text) => telemetry::Format::Text,
        };
        let level = match self.verbose {
            0 => self.log_level.as_deref(),
            1 => Some("debug"),
            _ => Some("trace"),
        };
        // The error's words include those of its causes.
        telemetry::start(format, level)
            .map_err(|error| anyhow!("--log-level or {}: {error}", telemetry::LEVEL_VARIABLE))
            .exit_with(Exit::Usage)
    }
}

/// Reads the configuration; all mistakes in it are told at once.
fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|mistakes| Failure::told(Exit::Config, mistakes.to_string()))
}

/// Writes an answer to standard output.
fn print(answer: &[u8]) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(answer).and_then(|()| out.flush());
    match written {
        // `kinetail status | head` has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        written => written
            .context("cannot write to standard output")
            .exit_with(Exit::Io)
            .map(|()| Exit::Done),
    }
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "kinetail", &mut out);
    out
}

/// The manual page: the command's own, then a section for every subcommand.
fn manual() -> io::Result<Vec<u8>> {
    let mut command = Arguments::command();
    command.build();
    let mut out = Vec::new();
    clap_mangen::Man::new(command.clone()).section("8").render(&mut out)?;
    for subcommand in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = subcommand.get_name().to_uppercase();
        writeln!(out, ".SH \"KINETAIL {name}\"")?;
        // The options that every command takes are told once, above.
        let own = subcommand.clone().mut_args(|argument| {
            let global = argument.is_global_set();
            argument.hide(global)
        });
        let page = clap_mangen::Man::new(own);
        page.render_synopsis_section(&mut out)?;
        page.render_description_section(&mut out)?;
        page.render_options_section(&mut out)?;
        page.render_extra_section(&mut out)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_default_configuration_is_that_of_the_packages() {
        let arguments = Arguments::try_parse_from(["kinetail", "run"]).unwrap();
        let Command::Run(run) = arguments.command else { panic!("not run") };
        assert_eq!(run.file.config, Path::new("/etc/kinetail/agent.yaml"));
    }

    #[test]
    fn logging_is_set_before_or_after_the_command() {
        for line in [["kinetail", "-vv", "check"], ["kinetail", "check", "-vv"]] {
            assert_eq!(Arguments::try_parse_from(line).unwrap().logging.verbose, 2);
        }
    }

    #[test]
    fn every_command_says_how_it_ends() {
        let mut command = Arguments::command();
        for name in ["run", "check", "status", "estimate"] {
            let help = command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
            assert!(help.contains("Exit codes:"), "{name}: {help}");
        }
    }

    #[test]
    fn completions_and_manual_name_every_command() {
        let bash = String::from_utf8(completions(Shell::Bash)).unwrap();
        let manual = String::from_utf8(manual().unwrap()).unwrap();
        for command in Arguments::command().get_subcommands() {
            assert!(bash.contains(command.get_name()), "{}", command.get_name());
            assert!(manual.contains(command.get_name()), "{}", command.get_name());
        }
        assert!(manual.contains("KINETAIL RUN") && manual.contains("Exit codes"));
    }
}
