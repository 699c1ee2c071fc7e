#!/usr/bin/env bash
# All tests: those of each crate, then the end-to-end suites against the release binaries with real clients.
# A bare Debian 12 or 13 with Rust is enough; what is missing is installed first, or named.
#
#   tests/run.sh [--measure] [--simulate SECONDS] [--crash-rounds N] [-- PYTEST-ARGUMENT…]
#
#   --measure         measure instead of testing (tests/measure.py)
#   --simulate S      run seeds of the simulated broker for S seconds instead of testing (tests/simulate)
#   --crash-rounds N  rounds of the kill -9 suite (default 20)
#   -- …              given to pytest: `-- -k revoke -x`; the crates' own tests are skipped then
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

measure=false
simulate=
select=()
while [ $# -gt 0 ]; do
  case "$1" in
    --measure) measure=true ;;
    --simulate)
      [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || { echo "tests/run.sh: --simulate needs a whole number of seconds above 0" >&2; exit 2; }
      simulate="$2"; shift ;;
    --crash-rounds)
      [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || { echo "tests/run.sh: --crash-rounds needs a whole number above 0" >&2; exit 2; }
      export MUSTER_CRASH_ROUNDS="$2"; shift ;;
    --) shift; select=("$@"); break ;;
    -h|--help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "tests/run.sh: $1 is not an option (--measure, --simulate SECONDS, --crash-rounds N, -- PYTEST-ARGUMENT…)" >&2; exit 2 ;;
  esac
  shift
done

step() { printf '\n== %s\n' "$*"; }

# 1. Debian packages: clients, the peer that measures stand beside, a C compiler for the cryptography.
packages=(build-essential ca-certificates curl faketime gnutls-bin libstrongswan-standard-plugins mosquitto mosquitto-clients openssl python3 python3-venv
  softhsm2 strongswan-pki)
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  step "install Debian packages: ${missing[*]}"
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
      as_root=(sudo)
    else
      printf 'These Debian packages are missing: %s\nInstall them as root, then run this again:\n  apt-get update && apt-get install -y %s\n' \
        "${missing[*]}" "${missing[*]}" >&2
      exit 1
    fi
  fi
  "${as_root[@]}" apt-get update -q </dev/null
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" </dev/null
fi
command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs, then run this again" >&2; exit 1; }

if [ -n "$simulate" ]; then
  step "simulate"
  # Other seeds each time; the one that fails is named.
  exec cargo run --release --locked -p muster-simulate -- --seconds "$simulate" --from "$(($(date +%s) * 1000))"
fi

# 2. Python packages, pinned, in an environment of their own.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
venv="$target/venv"
wanted=$( (python3 --version; cat tests/requirements.txt) | sha256sum | cut -d' ' -f1)
if [ "$(cat "$venv/.requirements" 2>/dev/null || true)" != "$wanted" ]; then
  step "install Python packages"
  rm -rf "$venv"
  mkdir -p "$target"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --no-input --disable-pip-version-check -r tests/requirements.txt
  echo "$wanted" >"$venv/.requirements"
fi

# 3. The programs as they are shipped.
step "build"
cargo build --release --locked
export MUSTER_BIN="${MUSTER_BIN:-$target/release/muster}"
export MUSTER_AGENT_BIN="${MUSTER_AGENT_BIN:-$target/release/muster-agent}"
export PYTHONDONTWRITEBYTECODE=1

if $measure; then
  step "measure"
  exec "$venv/bin/python" tests/measure.py
fi

# 4. The crates' own tests, then the suites.
if [ ${#select[@]} -eq 0 ]; then
  step "crates"
  cargo test --workspace --locked --quiet
fi
step "end to end"
exec "$venv/bin/python" -m pytest tests/e2e -n "${MUSTER_TEST_WORKERS:-2}" --dist loadfile "${select[@]}" </dev/null
