//! A storm of rotations by the real logrotate, in every mode it has, over many logs at once, followed
//! by the real binary. `tests/rotation-storm` installs logrotate and runs this; without it this fails.
//!
//! Promise 1: "Nothing is lost." Of a file that is renamed every line written must arrive, once, and
//! in order within the file. `copytruncate` destroys lines by itself (what is written between its copy
//! and its truncation is in no file afterwards), so there every line must arrive that survives in any
//! file, and what arrives of all lines is told beside what the disk kept.
//!
//! In the environment: `KINETAIL_STORM_SECONDS` for all modes together, `KINETAIL_STORM_SEED`,
//! `KINETAIL_STORM_FILES`, and `KINETAIL_BINARY`, the binary under test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    unreachable_pub,
    reason = "a test ends by a panic that says where; `support` is written as a library"
)]

#[path = "storm/logrotate.rs"]
mod logrotate;
#[path = "storm/phase.rs"]
mod phase;
#[allow(dead_code, unused_imports, reason = "a module of tests uses what it needs of it")]
mod support;
#[path = "storm/writers.rs"]
mod writers;

use std::str::FromStr;
use std::time::Duration;

use phase::{Mode, Trouble};

/// What logrotate is told, whether the agent's pattern covers the rotated names too, and what else
/// goes wrong meanwhile.
const MODES: [Mode; 12] = [
    mode("create", "rotate 5\ncreate", "", Trouble::None),
    mode("create, covered, agent stopped", "rotate 50\ncreate", "*", Trouble::Stops),
    mode("create, endpoint dead", "rotate 5\ncreate", "", Trouble::DeadEndpoint),
    mode("nocreate", "rotate 5\nnocreate", "", Trouble::None),
    mode("dateext", "rotate 5\ncreate\ndateext\ndateformat -%s", "*", Trouble::None),
    mode("compress", "rotate 5\ncreate\ncompress", "*", Trouble::None),
    mode(
        "delaycompress, endpoint dead",
        "rotate 5\ncompress\ndelaycompress",
        "*",
        Trouble::DeadEndpoint,
    ),
    mode("olddir", "rotate 5\ncreate\nolddir {dir}/old", "", Trouble::None),
    mode("sharedscripts", "rotate 5\ncreate\nsharedscripts", "", Trouble::None),
    mode("rotate 1", "rotate 1\ncreate", "", Trouble::None),
    mode("rotate 1, endpoint dead", "rotate 1\ncreate", "*", Trouble::DeadEndpoint),
    mode("copytruncate", "rotate 10\ncopytruncate", "*", Trouble::None),
];

const fn mode(
    name: &'static str,
    directives: &'static str,
    suffix: &'static str,
    trouble: Trouble,
) -> Mode {
    Mode { name, directives, suffix, trouble }
}

/// Returns a number of the environment.
fn setting<T: FromStr>(variable: &str, default: T) -> T {
    let Ok(text) = std::env::var(variable) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}"))
}

/// Each mode in its turn; a row a mode, and at the end all that was wrong.
#[test]
fn every_mode_of_logrotate_under_load() {
    let seconds: u64 = setting("KINETAIL_STORM_SECONDS", 60);
    let (seed, files) = (setting("KINETAIL_STORM_SEED", 1), setting("KINETAIL_STORM_FILES", 50));
    let only = std::env::var("KINETAIL_STORM_MODE").ok();
    let modes = MODES.iter().filter(|mode| only.as_deref().is_none_or(|only| only == mode.name));
    let modes: Vec<_> = modes.collect();
    let time = Duration::from_secs(seconds) / u32::try_from(modes.len()).unwrap();
    eprintln!("seed {seed}, {files} files, {seconds} s\n{}", phase::HEADER);
    let mut wrong = Vec::new();
    for (number, mode) in (0..).zip(modes) {
        let outcome = phase::run(mode, files, seed + number, time);
        eprintln!("{}", outcome.row);
        wrong.extend(outcome.wrong.iter().map(|what| format!("{}: {what}", mode.name)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
