#!/usr/bin/env bash
# Counts the instructions of the hot functions and compares them with benches/instructions.txt:
# 1 where one is above the margin. `--record` writes the figures anew.
# Needs valgrind, which it installs on a Debian-like system as root.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(uname -m)" != x86_64 ]; then
    echo 'the figures are of x86-64' >&2
    exit 64
fi
if ! command -v valgrind >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends valgrind
fi
cargo build --locked --release --example instructions
exec "${CARGO_TARGET_DIR:-target}/release/examples/instructions" "$@"
