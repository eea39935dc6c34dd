#!/bin/sh
# Builds the shop under the neutral path /src/demo and records every Go profile of the golden set.
# Usage: record.sh <output folder>       (takes about 20 seconds)
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p /src/demo/go /src/demo/bin
cp "$here"/*.go "$here"/go.mod /src/demo/go/
cd /src/demo/go
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o /src/demo/bin/shop .
# The position-independent twin is loaded at another address in every run, and has several mappings.
CGO_ENABLED=1 go build -trimpath -buildvcs=false -buildmode=pie -o /src/demo/bin/shop-pie .
cd /src/demo
bin/shop cpu "$out/go-cpu-1.pb.gz" "$out/go-cpu-2.pb.gz"
for kind in heap allocs goroutine mutex block threadcreate heap-delta; do
    bin/shop "$kind" "$out/go-$kind.pb.gz"
done
bin/shop-pie cpu "$out/go-cpu-pie-1.pb.gz"
bin/shop-pie cpu "$out/go-cpu-pie-2.pb.gz"
