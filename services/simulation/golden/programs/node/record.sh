#!/bin/sh
# Installs the pprof package (its native part is prebuilt inside it) under the neutral path /src/demo and records
# node-cpu.pb.gz, node-cpu-lines.pb.gz and node-heap.pb.gz.
# Usage: record.sh <output folder>       Needs Node.js 20 and npm.
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p /src/demo/node
cp "$here/package.json" "$here/kitchen.js" /src/demo/node/
cd /src/demo/node
npm install --silent --ignore-scripts --no-package-lock
node kitchen.js "$out/node-cpu.pb.gz" "$out/node-cpu-lines.pb.gz" "$out/node-heap.pb.gz"
