#!/usr/bin/env bash
# Muster beside its peers under the same load and mutual TLS: prints a table of figures and one of ratios. It judges nothing
# and is no part of the tests. Peers: Debian's mosquitto and nats-server, rumqttd from crates.io.
#
#   tests/bench.sh [--quick] [--repeat N] [--only NAME,…] [--rows TEXT,…] [--json FILE] [--without-rumqttd]
#   tests/bench.sh --large [--only ROW,…] [--minutes N]
#
#   --quick            short runs, one repetition
#   --repeat N         interleaved repetitions of which the medians are printed (default 3)
#   --only NAME,…      muster, mosquitto, nats, rumqttd
#   --rows TEXT,…      rows with such a text in their name
#   --json FILE        keep every figure
#   --without-rumqttd  do not build rumqttd (minutes, once)
#   --large            no peers: what one broker holds (subscriptions, retained, connections, cores, mixed)
#   --minutes N        how long the mixed load lasts (default 20)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/prepare.sh

RUMQTTD_VERSION=0.20.0
rumqttd=true
program=tests/peers.py
arguments=()
for argument in "$@"; do
  case "$argument" in
    -h|--help) sed -n '2,15s/^# \{0,1\}//p' tests/bench.sh; exit 0 ;;
    --without-rumqttd) rumqttd=false ;;
    --large) rumqttd=false; program=tests/large.py ;;
    *) arguments+=("$argument") ;;
  esac
done

debian_packages build-essential mosquitto nats-server python3 python3-venv
rust
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
python_packages
if $rumqttd && [ "$("$target/peers/bin/rumqttd" --version 2>/dev/null)" != "rumqttd $RUMQTTD_VERSION" ]; then
  step "build rumqttd $RUMQTTD_VERSION"
  # Not by its own lock file: what that pins does not build with today's Rust.
  cargo install --quiet --root "$target/peers" --target-dir "$target/peers/target" --version "$RUMQTTD_VERSION" rumqttd
fi
step "build"
cargo build --release --locked -p muster
step "measure"
export MUSTER_BIN="${MUSTER_BIN:-$target/release/muster}" PYTHONDONTWRITEBYTECODE=1
exec env PATH="$target/peers/bin:/usr/sbin:$PATH" "$venv/bin/python" "$program" "${arguments[@]}"
