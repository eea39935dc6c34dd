"""Reads a block with pyarrow and nothing else, as docs/block-format.md says, and prints what it holds.

    python read_block.py FILE

One line per series, `series <tenant> <type> {label="value",…} <profiles> <sum of totals>`, and one line per stack,
`stack <tenant> <type> <location ids, innermost first> <sum>`, sorted.
"""

import collections
import struct
import sys

import pyarrow as pa
import pyarrow.parquet as pq

SECTIONS = {1: "series", 2: "profiles", 3: "samples", 4: "rollup", 5: "stacks", 6: "nodes", 7: "locations",
            8: "label_sets", 9: "rollup_2h", 10: "series_rollup", 11: "series_buckets"}
BUCKET_NS = 600 * 10**9


def varint(data, at):
    value, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    """A protobuf message as {field number: [values]}; numbers as int, the rest as bytes."""
    found, at = collections.defaultdict(list), 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 1:
            value, at = struct.unpack_from("<q", data, at)[0], at + 8
        elif kind == 5:
            value, at = struct.unpack_from("<I", data, at)[0], at + 4
        elif kind == 2:
            length, at = varint(data, at)
            value, at = data[at:at + length], at + length
        else:
            raise ValueError(f"wire type {kind}")
        found[key >> 3].append(value)
    return found


def table_of_contents(block):
    if block[-8:] != b"CAMBIUM1":
        raise ValueError("not a block")
    length, _crc = struct.unpack_from("<II", block, len(block) - 16)
    return fields(block[len(block) - 16 - length:len(block) - 16])


def text(message, number):
    return message[number][0].decode() if message[number] else ""


def profile_type(message):
    parts = [text(message, number) for number in range(1, 6)]
    return ":".join(parts) + (":delta" if message[6] and message[6][0] else "")


def read_sections(block, dataset):
    tables = {}
    for section in map(fields, dataset[11]):
        kind, offset, length, rows = (section[number][0] if section[number] else 0 for number in range(1, 5))
        table = pq.read_table(pa.BufferReader(block[offset:offset + length]), use_threads=False)
        assert table.num_rows == rows, SECTIONS[kind]
        tables[SECTIONS[kind]] = {name: table.column(name).to_pylist() for name in table.column_names}
    return tables


def check_profiles(tables):
    """Samples follow their profiles, and their values add up to the totals."""
    profiles, samples = tables["profiles"], tables["samples"]
    for index, first in enumerate(profiles["first_sample"]):
        rows = range(first, first + profiles["samples"][index])
        assert all(samples["series"][row] == profiles["series"][index] for row in rows)
        assert all(samples["time_ns"][row] == profiles["time_ns"][index] for row in rows)
        assert sum(samples["value"][row] for row in rows) == profiles["total"][index]
        keys = [(samples["stack"][row], samples.get("label_set", samples["stack"])[row]) for row in rows]
        assert keys == sorted(keys, reverse=index % 2 == 1)


def check_rollup(tables, name, bucket_ns):
    """Rollups are the sums of samples by (type, scope, bucket, stack)."""
    series, rollup = tables["series"], tables[name]
    sums, profiles = sums_by(tables, bucket_ns, lambda of: (series["profile_type"][of], series["scope"][of]))
    keys = list(zip(rollup["profile_type"], rollup["scope"], rollup["bucket_ns"], rollup["stack"]))
    assert keys == sorted(sums), "one row for each key, in order"
    assert rollup["sum"] == [sums[key] for key in keys]
    # Two profiles of one series and time are two; this count sees one.
    assert all(count >= len(profiles[key]) for key, count in zip(keys, rollup["profiles"]))


def check_series_rollup(tables):
    """Those of series are, by (series, bucket, stack), up and down in turn, and series_buckets says where they lie."""
    rollup, buckets = tables["series_rollup"], tables["series_buckets"]
    sums, _ = sums_by(tables, BUCKET_NS, lambda of: (of,))
    keys = list(zip(rollup["series"], rollup["bucket_ns"], rollup["stack"]))
    assert rollup["sum"] == [sums[key] for key in keys]
    expected = collections.defaultdict(list)
    for key in sorted(sums):
        expected[key[:2]].append(key)
    assert list(zip(buckets["series"], buckets["bucket_ns"])) == list(expected)
    assert buckets["rows"] == [len(rows) for rows in expected.values()]
    ordered = [rows if index % 2 == 0 else rows[::-1] for index, rows in enumerate(expected.values())]
    assert keys == [key for rows in ordered for key in rows]


def check_sums(tables):
    """Where there are no samples, the sums of each (series, bucket) are the totals of its profiles."""
    profiles, rollup, buckets = tables["profiles"], tables["series_rollup"], tables["series_buckets"]
    assert list(zip(buckets["series"], buckets["bucket_ns"])) == sorted(zip(buckets["series"], buckets["bucket_ns"]))
    assert sum(buckets["rows"]) == len(rollup["stack"])
    totals, sums, scopes = collections.Counter(), collections.Counter(), collections.Counter()
    for of, time_ns, total in zip(profiles["series"], profiles["time_ns"], profiles["total"]):
        totals[of, time_ns // BUCKET_NS * BUCKET_NS] += total
    for of, bucket_ns, stack, value in zip(*(rollup[name] for name in ("series", "bucket_ns", "stack", "sum"))):
        sums[of, bucket_ns] += value
        series = tables["series"]
        scopes[series["profile_type"][of], series["scope"][of], bucket_ns, stack] += value
    assert {key: sum for key, sum in totals.items() if sum} == {key: sum for key, sum in sums.items() if sum}
    rollup = tables["rollup"]
    keys = zip(rollup["profile_type"], rollup["scope"], rollup["bucket_ns"], rollup["stack"])
    assert dict(zip(keys, rollup["sum"])) == dict(scopes) and "profiles" not in rollup


def sums_by(tables, bucket_ns, of_series):
    samples = tables["samples"]
    sums, profiles = collections.Counter(), collections.defaultdict(set)
    for row, stack in enumerate(samples["stack"]):
        of, time_ns = samples["series"][row], samples["time_ns"][row]
        key = (*of_series(of), time_ns // bucket_ns * bucket_ns, stack)
        sums[key] += samples["value"][row]
        profiles[key].add((of, time_ns))
    return sums, profiles


def path(tables, node):
    """Location ids from a node to the root."""
    deltas, locations, ids = tables["nodes"]["parent_delta"], tables["nodes"]["location"], tables["locations"]["id"]
    found = []
    while deltas[node] != 0:
        found.append(ids[locations[node]].hex())
        node -= deltas[node]
    return ",".join(found)


def describe(block, dataset):
    tenant, types = text(dataset, 1), [profile_type(fields(message)) for message in dataset[8]]
    tables = read_sections(block, dataset)
    if "samples" in tables:
        summed, column = tables["samples"], "value"
        check_profiles(tables)
        check_rollup(tables, "rollup", BUCKET_NS)
        if "rollup_2h" in tables:
            check_rollup(tables, "rollup_2h", 12 * BUCKET_NS)
        if "series_rollup" in tables:
            check_series_rollup(tables)
    else:
        summed, column = tables["series_rollup"], "sum"
        check_sums(tables)
    series = tables["series"]
    names = sorted(name.removeprefix("label.") for name in series if name.startswith("label."))
    profiles, totals = collections.Counter(), collections.Counter()
    for row, of in enumerate(tables["profiles"]["series"]):
        profiles[of] += 1
        totals[of] += tables["profiles"]["total"][row]
    for row in range(len(series["fingerprint"])):
        values = [(name, series["label." + name][row]) for name in names]
        labels = ",".join(f'{name}="{value}"' for name, value in values if value is not None)
        yield f"series {tenant} {types[series['profile_type'][row]]} {{{labels}}} {profiles[row]} {totals[row]}"
    sums = collections.Counter()
    for row, stack in enumerate(summed["stack"]):
        of = summed["series"][row]
        key = (types[series["profile_type"][of]], path(tables, tables["stacks"]["node"][stack]))
        sums[key] += summed[column][row]
    for (kind, stack), value in sums.items():
        yield f"stack {tenant} {kind} {stack} {value}"
    label_sets = tables.get("label_sets", {"label_set": []})
    for row, label_set in enumerate(label_sets["label_set"]):
        value = label_sets["text"][row]
        if value is None:
            value = f"{label_sets['number'][row]} {label_sets['unit'][row]}"
        yield f"labels {tenant} {label_set} {label_sets['name'][row]} {value}"


def main():
    with open(sys.argv[1], "rb") as file:
        block = file.read()
    lines = [line for dataset in table_of_contents(block)[7] for line in describe(block, fields(dataset))]
    print("\n".join(sorted(lines)))


main()
