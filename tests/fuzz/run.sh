#!/usr/bin/env bash
# Fuzzes with libFuzzer, on stable Rust: tests/fuzz/run.sh [--keep] [SECONDS [TARGET…]]
#
#   SECONDS   for each target, one after the other (default 60)
#   TARGET    codec differential firmware identity policy session shadow topics websocket (default all)
#   --keep    adds what was found interesting to tests/fuzz/corpus, as few inputs as cover the same
#
# Ends with an error at the first input that fails; the input lies in tests/fuzz/found then.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

keep=false
if [ "${1:-}" = --keep ]; then keep=true; shift; fi
seconds=60
if [ $# -gt 0 ]; then seconds=$1; shift; fi
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "run.sh: $seconds is no number of seconds" >&2; exit 2; }
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(codec differential firmware identity policy session shadow topics websocket)

host=$(rustc -vV | sed -n 's/^host: //p')
target=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")/fuzz
# Coverage for libFuzzer; arithmetic and assertions checked as in a debug build. No sanitizer: there is no unsafe code.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
CARGO_TARGET_DIR=$target cargo build --release --locked --quiet --target "$host" -p muster-fuzz --features libfuzzer

for name in "${targets[@]}"; do
  program=$target/$host/release/fuzz-$name
  work=$target/corpus/$name
  mkdir -p "$work" found
  echo "== $name, $seconds s"
  # Documents are longer than packets have to be.
  length=512; case $name in firmware|identity|policy|shadow) length=4096 ;; esac
  "$program" -max_total_time="$seconds" -max_len=$length -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="found/$name-" "$work" "corpus/$name" 2>&1 | grep -vE '^#[0-9]+.*(NEW|REDUCE|RELOAD)|NEW_FUNC'
  if $keep; then
    # Without the finer signals: a file for each new edge, not for each new count.
    "$program" -merge=1 -use_counters=0 "corpus/$name" "$work" 2>&1 | tail -1
  fi
done
rmdir found 2>/dev/null || true
