#!/usr/bin/env bash
# All tests: those of each crate, then the end-to-end suites against the release binaries with real clients.
# A bare Debian 12 or 13 with Rust is enough; what is missing is installed first, or named.
#
#   tests/run.sh [--measure] [--instructions [--renew]] [--simulate SECONDS] [--crash-rounds N] [-- PYTEST-ARGUMENT…]
#
#   --measure         measure instead of testing (tests/measure.py); -- ITEM… for some of it
#   --instructions    count instructions instead of testing; with --renew the counts become the baseline (tests/instructions)
#   --simulate S      run seeds of the simulated broker for S seconds instead of testing (tests/simulate)
#   --crash-rounds N  rounds of the kill -9 suite (default 20)
#   -- …              given to pytest: `-- -k revoke -x`; the crates' own tests are skipped then
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

measure=false
instructions=false
renew=()
simulate=
select=()
while [ $# -gt 0 ]; do
  case "$1" in
    --measure) measure=true ;;
    --instructions) instructions=true ;;
    --renew) renew=(--renew) ;;
    --simulate)
      [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || { echo "tests/run.sh: --simulate needs a whole number of seconds above 0" >&2; exit 2; }
      simulate="$2"; shift ;;
    --crash-rounds)
      [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || { echo "tests/run.sh: --crash-rounds needs a whole number above 0" >&2; exit 2; }
      export MUSTER_CRASH_ROUNDS="$2"; shift ;;
    --) shift; select=("$@"); break ;;
    -h|--help) sed -n '2,11s/^# \{0,1\}//p' tests/run.sh; exit 0 ;;
    *) echo "tests/run.sh: $1 is not an option (--measure, --instructions, --renew, --simulate SECONDS, --crash-rounds N, -- PYTEST-ARGUMENT…)" >&2; exit 2 ;;
  esac
  shift
done

if [ ${#renew[@]} -gt 0 ] && ! $instructions; then echo "tests/run.sh: --renew goes with --instructions" >&2; exit 2; fi

source tests/prepare.sh

# 1. Debian packages: clients, the peer that measures stand beside, a C compiler for the cryptography.
packages=(build-essential ca-certificates curl faketime gnutls-bin libstrongswan-standard-plugins mosquitto mosquitto-clients openssl python3 python3-venv
  softhsm2 strongswan-pki valgrind)
debian_packages "${packages[@]}"
rust

if [ -n "$simulate" ]; then
  step "simulate"
  # Other seeds each time; the one that fails is named.
  exec cargo run --release --locked -p muster-simulate -- --seconds "$simulate" --from "$(($(date +%s) * 1000))"
fi

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
python_packages

# 2. The programs as they are shipped, and beside them the steps whose instructions are counted.
step "build"
cargo build --release --locked -p muster -p muster-agent -p muster-instructions -p muster-scale
cargo build --release --locked -p muster-agent --example own-application
cargo build --release --locked -p muster-policy --example figures
export MUSTER_BIN="${MUSTER_BIN:-$target/release/muster}"
export MUSTER_SCALE_BIN="${MUSTER_SCALE_BIN:-$target/release/muster-scale}"
export MUSTER_POLICY_FIGURES="${MUSTER_POLICY_FIGURES:-$target/release/examples/figures}"
export MUSTER_AGENT_BIN="${MUSTER_AGENT_BIN:-$target/release/muster-agent}"
export PYTHONDONTWRITEBYTECODE=1

count_instructions() {
  step "instructions"
  python3 tests/instructions/count.py "$target/release/muster-instructions" "${renew[@]}"
}

if $instructions; then
  count_instructions
  exit
fi

if $measure; then
  # Beside the workspace, with its own lock: what the engine is compared with is none of its dependencies.
  if [ ${#select[@]} -eq 0 ] || [[ " ${select[*]} " = *" compare "* ]]; then
    CARGO_TARGET_DIR="$target/compare" cargo build --release --locked --manifest-path tests/compare/Cargo.toml
    export MUSTER_COMPARE_BIN="${MUSTER_COMPARE_BIN:-$target/compare/release/muster-compare}"
  fi
  step "measure"
  exec "$venv/bin/python" tests/measure.py "${select[@]}"
fi

# 3. The crates' own tests, then the suites.
if [ ${#select[@]} -eq 0 ]; then
  step "crates"
  # What a test leaves behind it has not closed, or not dropped. Said and no failure: a thread that was caught in the
  # middle of a step by the end of its test is no fault of what is tested.
  scratch=$(mktemp -d)
  TMPDIR="$scratch" cargo test --workspace --locked --quiet
  if ! rmdir "$scratch" 2>/dev/null; then
    echo "tests/run.sh: the crates' tests left this behind:" >&2
    find "$scratch" -mindepth 1 -maxdepth 3 >&2
    rm -rf "$scratch"
  fi
  # Each of criterion's benches once, unmeasured, so that none rots.
  step "benches"
  cargo test --locked --quiet -p muster-policy --bench decide
  cargo test --locked --quiet -p muster-broker --bench codec --bench session --bench topic_tree
  cargo test --locked --quiet -p muster-simulate --bench decision
  count_instructions
fi
step "end to end"
exec "$venv/bin/python" -m pytest tests/e2e -n "${MUSTER_TEST_WORKERS:-2}" --dist loadfile "${select[@]}" </dev/null
