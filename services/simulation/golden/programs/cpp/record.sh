#!/bin/sh
# Builds the mill (-O2) under the neutral path /src/demo, samples it with gperftools, and lets Go's pprof turn the
# sampler's legacy format into pprof twice: as it is, and with names, lines and inlined functions.
# Usage: record.sh <output folder>       Needs g++, binutils and Debian's libgoogle-perftools-dev.
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
tools=$HOME/.cache/cambium/peers/bin # built by regenerate.sh
mkdir -p /src/demo/cpp /src/demo/bin
cp "$here/mill.cc" /src/demo/cpp/
cd /src/demo/cpp
g++ -O2 -g1 -fno-omit-frame-pointer -Wl,--build-id -o /src/demo/bin/mill mill.cc -Wl,--no-as-needed -lprofiler
cd /src/demo
CPUPROFILE=/src/demo/mill.prof CPUPROFILE_FREQUENCY=100 bin/mill
export PPROF_TMPDIR=/src/demo
"$tools/pprof" -proto -symbolize=none -output=plain.pb.gz mill.prof
"$tools/pprof" -proto -symbolize=local:demangle=full -output=named.pb.gz bin/mill mill.prof
# The sampler's format has no build ids: put in those of the binaries.
"$tools/pprof-oracle" buildids plain.pb.gz "$out/cpp-cpu-unsymbolised.pb.gz"
"$tools/pprof-oracle" buildids named.pb.gz "$out/cpp-cpu.pb.gz"
rm mill.prof plain.pb.gz named.pb.gz
