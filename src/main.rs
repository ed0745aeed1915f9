//! The command: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    kinetail::cli::run(std::env::args_os())
}
