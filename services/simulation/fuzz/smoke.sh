#!/usr/bin/env bash
# Builds every fuzz target and runs them one after the other, SECONDS (60) in all:
#
#   ./smoke.sh [SECONDS]
#
# It runs on the stable toolchain: the flags are those that cargo-fuzz passes with `--sanitizer none`. What a run
# finds that is new goes to $CARGO_TARGET_DIR/fuzz/corpus and is begun with the next time; an input that breaks a
# target goes to $CARGO_TARGET_DIR/fuzz/artifacts, and the same target run with its path alone shows it again.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-${FUZZ_SECONDS:-60}}
targets=(decoder block query gossip remote)

host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/cambium/target}/fuzz
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
# `--target` keeps the flags away from build scripts and macros, which nobody fuzzes.
cargo build --locked --quiet --bins --target "$host"

share=$((seconds / ${#targets[@]}))
artifacts=$CARGO_TARGET_DIR/artifacts
mkdir -p "$artifacts"
passed=0
failed=0
for target in "${targets[@]}"; do
  found=$CARGO_TARGET_DIR/corpus/$target
  log=$CARGO_TARGET_DIR/$target.log
  mkdir -p "$found"
  dictionary=()
  [ -f "$target.dict" ] && dictionary=("-dict=$target.dict")
  if "$CARGO_TARGET_DIR/$host/debug/$target" "-max_total_time=$((share > 0 ? share : 1))" -timeout=10 \
    -rss_limit_mb=2048 -max_len=65536 "-artifact_prefix=$artifacts/$target-" "${dictionary[@]}" \
    "$found" "corpus/$target" >"$log" 2>&1; then
    passed=$((passed + 1))
    echo "$target: $(tail -n 1 "$log")"
  else
    failed=$((failed + 1))
    tail -n 60 "$log"
    echo "$target: FAILED, see $log"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
