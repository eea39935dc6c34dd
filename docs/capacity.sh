#!/bin/sh
# What so many agents need, from the figures of performance.md: a column for each number, as Markdown.
#
#   docs/capacity.sh 100 1000 10000
#   SAMPLES=400 RETENTION_DAYS=90 docs/capacity.sh 500      every assumption below is a variable
#
# capacity.md says what the rows mean.
set -eu

# What agents send: profiles of one type, one every ten seconds.
: "${PROFILES_PER_MINUTE:=6}" "${SAMPLES:=250}" "${PROFILE_KB:=8}" "${SERIES:=1}" "${AGENTS_PER_SERVICE:=25}"
# What is kept: days, and copies of the log until it is in blocks.
: "${RETENTION_DAYS:=30}" "${REPLICATION:=1}"
# What people ask: sums of one service.
: "${AGENTS_PER_QUERY_MINUTE:=100}" "${QUERY_HOURS:=24}" "${REQUESTS_PER_QUERY:=50}"
# Part of the cores that is in use on average.
: "${UTILISATION:=0.6}"
# Settings, as they are by default: flush at so many minutes or MB; caches of blocks, names, pages and sums; querier.memory_max.
: "${FLUSH_MINUTES:=5}" "${FLUSH_MB:=134}" "${CACHES_MB:=285}" "${QUERIES_MB:=1074}"
# Example prices in US dollars, nobody's list: a core and a GB of memory for an hour, a GB of objects and of disk for a month,
# a thousand requests that write and that read.
: "${PRICE_CORE:=0.04}" "${PRICE_MEMORY:=0.005}" "${PRICE_OBJECTS:=0.023}" "${PRICE_DISK:=0.08}"
: "${PRICE_PUTS:=0.005}" "${PRICE_GETS:=0.0004}"

[ $# -gt 0 ] || { echo "usage: $0 AGENTS…" >&2; exit 1; }

awk -F ' *[|] *' -v agents="$*" \
  -v profiles_per_minute="$PROFILES_PER_MINUTE" -v samples="$SAMPLES" -v profile_kb="$PROFILE_KB" -v series="$SERIES" \
  -v agents_per_service="$AGENTS_PER_SERVICE" -v days="$RETENTION_DAYS" -v copies="$REPLICATION" \
  -v agents_per_query="$AGENTS_PER_QUERY_MINUTE" -v query_hours="$QUERY_HOURS" -v requests="$REQUESTS_PER_QUERY" \
  -v utilisation="$UTILISATION" -v flush_minutes="$FLUSH_MINUTES" -v flush_mb="$FLUSH_MB" -v caches_mb="$CACHES_MB" \
  -v queries_mb="$QUERIES_MB" -v price_core="$PRICE_CORE" -v price_memory="$PRICE_MEMORY" \
  -v price_objects="$PRICE_OBJECTS" -v price_disk="$PRICE_DISK" -v price_puts="$PRICE_PUTS" -v price_gets="$PRICE_GETS" '
# Rows of performance.md: figures by name, in bytes, seconds and things.
NF > 3 { split($3, part, " "); figures[$2] = part[1] * scale(part[2]) }

function scale(unit) {
  if (unit == "ms") return 1e-3
  if (unit ~ /^k/) return 1e3
  if (unit ~ /^M/) return 1e6
  if (unit ~ /^G/) return 1e9
  return 1
}
function figure(name) {
  if (figures[name] > 0) return figures[name]
  print "performance.md has no figure of: " name > "/dev/stderr"
  failed = 1
  return 1
}
function ceil(x) { return x > int(x) ? int(x) + 1 : int(x) }
function min(a, b) { return a < b ? a : b }
function row(name, format, values,    text, i) {
  text = "| " name
  for (i = 1; i <= count; i++) text = text " | " sprintf(format, values[i])
  print text " |"
}

END {
  count = split(agents, n, " ")
  # A profile costs so much however small, and so much for each of its samples; the figure is of 250.
  sample_s = 1 / figure("W: .pprof.gz to head, samples per core")
  profile_s = figure("W over HTTP: server CPU per 1,000 profiles") / 1000 - 250 * sample_s
  merge_s = 1 / figure("W: compaction, samples per core")
  query_s = figure("W1: merge of all to a flame graph, warm, server CPU")
  rollup_s = 1 / figure("W: whole block by rollup to flame graph, effective")
  hot = figure("W: whole block per sample, hot")
  cold = figure("W: whole block per sample, cold")
  id = figure("W: profile ids of levels 0 and 1, per profile")
  head_sample = figure("W: head memory per sample")
  head_series = figure("head memory per series with one sample")
  idle_mb = figure("idle: memory, default settings") / 1e6
  compaction_mb = figure("compaction of 4 GiB: peak memory") / 1e6
  puts_per_minute = figure("5000 tenants: objects put for each minute of a partition")
  if (failed) exit 1

  for (i = 1; i <= count; i++) {
    profiles[i] = n[i] * profiles_per_minute / 60
    rate = profiles[i] * samples
    per_s[i] = rate
    ingress = profiles[i] * profile_kb * 1e3
    network[i] = ingress / 1e6
    # Three levels: each sample is merged three times.
    write_cores[i] = profiles[i] * (profile_s + samples * sample_s)
    merge_cores[i] = rate * 3 * merge_s
    asked = n[i] / agents_per_query / 60
    service_rate = min(agents_per_service, n[i]) * profiles_per_minute / 60 * samples
    read_cores[i] = asked * (query_s + service_rate * query_hours * 3600 * rollup_s)
    cores[i] = ceil((write_cores[i] + merge_cores[i] + read_cores[i]) / utilisation)
    # As many as let none be flushed for its size more than once a minute.
    minute_mb = rate * 60 * head_sample / 1e6
    partitions[i] = ceil(minute_mb / flush_mb)
    # What is flushed stays until it is.
    heads_mb = 2 * (min(minute_mb * flush_minutes, partitions[i] * flush_mb) + n[i] * series * head_series / 1e6)
    memory[i] = (idle_mb + heads_mb + caches_mb + compaction_mb) / 1e3
    memory_max[i] = memory[i] + queries_mb / 1e3
    log_gb[i] = 2 * flush_minutes * 60 * ingress * copies / 1e9
    day = rate * 86400
    stored[i] = (day * cold * (days - 1) + day * hot + profiles[i] * 86400 * id) / 1e9
    # Level 3 by the day, at most 2 GiB each; what is younger, and what was replaced a quarter of an hour ago.
    objects[i] = days * ceil(day * cold / 2147483648) + 60 * partitions[i]
    puts[i] = puts_per_minute * partitions[i] * 60 * 730
    gets[i] = puts[i] + asked * 3600 * 730 * requests
    money[i] = 730 * (cores[i] * price_core + memory_max[i] * price_memory) + stored[i] * price_objects \
      + log_gb[i] * price_disk + (puts[i] * price_puts + gets[i] * price_gets) / 1000
    million_puts[i] = puts[i] / 1e6
    million_gets[i] = gets[i] / 1e6
    dashes[i] = "--:"
  }
  row("agents", "%d", n)
  row("---", "%s", dashes)
  row("profiles a second", "%.0f", profiles)
  row("samples a second", "%.0f", per_s)
  row("network in, MB a second", "%.2f", network)
  row("cores that write", "%.2f", write_cores)
  row("cores that merge", "%.2f", merge_cores)
  row("cores that answer", "%.3f", read_cores)
  row("**cores**, with room", "%d", cores)
  row("partitions", "%d", partitions)
  row("memory, GB", "%.2f", memory)
  row("**memory**, GB, queries at their bound", "%.2f", memory_max)
  row("log on disk, GB", "%.2f", log_gb)
  row("**objects**, GB", "%.1f", stored)
  row("objects", "%d", objects)
  row("**requests** that write, millions a month", "%.2f", million_puts)
  row("requests that read, millions a month", "%.2f", million_gets)
  row("**dollars** a month, at the example prices", "%.0f", money)
}' "$(dirname "$0")/performance.md"
