#!/bin/sh
# Builds the grinder (release, line tables) under the neutral path /src/demo and records rust-cpu.pb.gz.
# Usage: record.sh <output folder>       (takes about 30 seconds, most of it for building)
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p /src/demo/rust /src/demo/bin
cp -r "$here/Cargo.toml" "$here/Cargo.lock" "$here/src" /src/demo/rust/
cd /src/demo/rust
registry=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*)
# Paths of the builder's home become neutral; frame pointers let the profiler walk the stack.
RUSTFLAGS="--remap-path-prefix=$registry=/cargo -C force-frame-pointers=yes" \
    CARGO_TARGET_DIR=/src/demo/rust/target cargo build --release --quiet --locked
cp target/release/grinder /src/demo/bin/
cd /src/demo
bin/grinder rust-cpu.pb
gzip -n -9 <rust-cpu.pb >"$out/rust-cpu.pb.gz"
rm rust-cpu.pb
