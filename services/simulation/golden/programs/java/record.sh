#!/bin/sh
# Fetches async-profiler and its converter from Maven Central, records the brewery under the neutral path /src/demo
# (CPU by itimer, which needs no perf events, and allocations), and converts the recordings to pprof:
# java-cpu.pb.gz and java-alloc.pb.gz.
# Usage: record.sh <output folder>       Needs a JDK (17), Maven and unzip.
set -eu
version=4.5
out=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p /src/demo/java
cp "$here/Brewery.java" /src/demo/java/
cd /src/demo/java
for artifact in async-profiler jfr-converter; do
    [ -e $artifact-$version.jar ] || mvn -q -B dependency:copy -Dartifact=tools.profiler:$artifact:$version:jar \
        -DoutputDirectory=/src/demo/java
done
unzip -q -o async-profiler-$version.jar linux-x64/libasyncProfiler.so
javac -g -d . Brewery.java
agent=/src/demo/java/linux-x64/libasyncProfiler.so
java -agentpath:$agent=start,event=itimer,interval=10ms,file=cpu.jfr -cp . Brewery
java -agentpath:$agent=start,event=alloc,alloc=256k,file=alloc.jfr -cp . Brewery
java -cp jfr-converter-$version.jar one.convert.Main --cpu --threads -o pprof cpu.jfr cpu.pprof
java -cp jfr-converter-$version.jar one.convert.Main --alloc --total -o pprof alloc.jfr alloc.pprof
for kind in cpu alloc; do
    gzip -n -9 <$kind.pprof >"$out/java-$kind.pb.gz"
    rm $kind.pprof $kind.jfr
done
