//! Small trees and exactly what each render makes of them.

use ::arrow::array::{Array, AsArray, Int64Array, StringArray};
use ::arrow::datatypes::{Int32Type, Int64Type, UInt32Type};
use ::arrow::ipc::reader::StreamReader;
use cambium_model::labels::Labels;
use cambium_model::limits::TenantLimits;
use cambium_model::profile::{ProfileId, SampleLabelValue};
use cambium_model::symbols::Location;
use cambium_proto::pprof::{Decoder, Decompressor, Limits, Push};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fold::{Granularity, Truncation};
use crate::merged::{Collected, MatrixSeries, MergedSample, MergedSamples, Point, SqlAnswer, Stats};
use crate::resolve::frame::View;
use crate::resolve::testing::{both, frames, stacks};

const SMALL: &str = "main;run;work 20\nmain;run 5\nmain;idle 5\n0x1f@/lib/libc.so 3\n 2";

fn graph(text: &str) -> FrameTree<1> {
    frames(text, Granularity::Function, View::Graph, Truncation::NONE)
}

fn report(text: &str, granularity: Granularity) -> FrameTree<1> {
    frames(text, granularity, View::Report, Truncation::NONE)
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_flame_graph_is_names_and_rows() {
    let expected = json!({
        "unit": "nanoseconds",
        "total": 35,
        "height": 3,
        "nodes_dropped": 0,
        "value_dropped": 0,
        "unresolved": 1,
        "names": ["total", "main", "main.rs", "run", "run.rs", "work", "work.rs", "idle", "idle.rs", "libc.so 0x1f"],
        "nodes": [
            [-1, 0, 2, 35, -1, 0],
            [0, 1, 0, 30, 2, 0],
            [1, 3, 5, 25, 4, 0],
            [2, 5, 20, 20, 6, 0],
            [1, 7, 5, 5, 8, 0],
            [0, 9, 3, 3, -1, 0],
        ],
    });
    let rendered = flamegraph::render(&graph(SMALL), "nanoseconds");
    assert_eq!(parsed(&rendered), expected);
    assert_eq!(
        parsed(&rendered).to_string().len(),
        rendered.len(),
        "no byte of white space, keys in this order"
    );
}

#[test]
fn dropped_nodes_are_one_child_with_their_number() {
    let truncation = Truncation { max_nodes: 2, min_fraction: 0.0 };
    let tree = frames(SMALL, Granularity::Function, View::Graph, truncation);
    let rendered = parsed(&flamegraph::render(&tree, "count"));
    assert_eq!(rendered["nodes_dropped"], 3);
    assert_eq!(rendered["value_dropped"], 28);
    assert_eq!(rendered["unresolved"], 0, "only survivors are looked up");
    let rows = [[-1, 0, 2, 35, -1, 0], [0, 1, 0, 30, 2, 0], [1, 3, 5, 25, 4, 0]];
    assert_eq!(rendered["nodes"].as_array().unwrap()[..3], rows.map(|row| json!(row)));
    let others: Vec<&Value> = rendered["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| rendered["names"][row[1].as_u64().unwrap() as usize] == "other")
        .collect();
    assert_eq!(
        others,
        [&json!([2, 5, 20, 20, -1, 1]), &json!([1, 5, 5, 5, -1, 1]), &json!([0, 5, 3, 3, -1, 1])]
    );
}

#[test]
fn an_empty_merge_is_a_root() {
    let rendered = parsed(&flamegraph::render(&graph(""), "count"));
    assert_eq!(rendered["nodes"], json!([[-1, 0, 0, 0, -1, 0]]));
    assert_eq!(rendered["height"], 0);
    assert_eq!(
        parsed(&top::render(&report("", Granularity::Function), "count").unwrap())["entries"],
        json!([])
    );
    assert_eq!(folded::render(&report("", Granularity::Function)), "");
    let speedscope = parsed(&speedscope::render(&graph(""), "count", "t"));
    assert_eq!(speedscope["profiles"][0]["samples"], json!([]));
}

#[test]
fn a_diff_has_both_sides_in_every_row() {
    let tree = both("main;a 10\nmain;b 5", "main;a 4\nmain;c 9", View::Graph);
    let rendered = parsed(&flamegraph::render(&tree, "count"));
    assert_eq!(rendered["total"], json!([15, 13]));
    let nodes = json!([
        [-1, 0, 0, 15, 0, 13, -1, 0],
        [0, 1, 0, 15, 0, 13, 2, 0],
        [1, 3, 10, 10, 4, 4, 4, 0],
        [1, 5, 0, 0, 9, 9, 6, 0],
        [1, 7, 5, 5, 0, 0, 8, 0],
    ]);
    assert_eq!(rendered["nodes"], nodes);
    let tree = both("main;a 10\nmain;b 5", "main;a 4\nmain;c 9", View::Report);
    let rendered = parsed(&top::render(&tree, "count").unwrap());
    let entries: Vec<(&str, &Value, &Value)> = rendered["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap(), &entry["self"], &entry["cumulative"]))
        .collect();
    let expected = [
        ("c", &json!([0, 9]), &json!([0, 9])),
        ("a", &json!([10, 4]), &json!([10, 4])),
        ("b", &json!([5, 0]), &json!([5, 0])),
        ("main", &json!([0, 0]), &json!([15, 13])),
    ];
    assert_eq!(entries, expected);
}

#[test]
fn arrow_has_the_same_rows() {
    let bytes = arrow::render(&graph(SMALL), "nanoseconds").unwrap();
    let reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
    assert_eq!(reader.schema().metadata()["total"], "35");
    assert_eq!(reader.schema().metadata()["unresolved"], "1");
    let batch = reader.map(Result::unwrap).next().unwrap();
    let text = |column: &str| -> Vec<Option<String>> {
        let array = batch.column_by_name(column).unwrap().as_dictionary::<Int32Type>();
        let values = array.values().as_string::<i32>();
        array.keys().iter().map(|key| key.map(|key| values.value(key as usize).to_owned())).collect()
    };
    let names: Vec<String> = text("name").into_iter().flatten().collect();
    assert_eq!(names, ["total", "main", "run", "work", "idle", "libc.so 0x1f"]);
    assert_eq!(text("file")[5], None);
    let parents = batch.column_by_name("parent").unwrap().as_primitive::<UInt32Type>();
    assert!(parents.is_null(0));
    assert_eq!(parents.values()[1..], [0, 1, 2, 1, 0]);
    let own = batch.column_by_name("self").unwrap().as_primitive::<Int64Type>();
    assert_eq!(own.values()[..], [2, 0, 5, 20, 5, 3]);
}

fn check_top(text: &str, granularity: Granularity, expected: &[(&str, i64, i64)]) {
    let tree = report(text, granularity);
    let entries = top::entries(&tree).unwrap();
    let found: Vec<(String, i64, i64)> = entries
        .iter()
        .map(|entry| (tree.frames[entry.frame as usize].printed(), entry.self_values[0], entry.cumulative[0]))
        .collect();
    let found: Vec<(&str, i64, i64)> =
        found.iter().map(|(name, own, all)| (name.as_str(), *own, *all)).collect();
    assert_eq!(found, expected, "{text:?}");
}

#[test]
fn top_counts_recursion_once_and_inlined_functions_each() {
    check_top(
        SMALL,
        Granularity::Function,
        &[("work", 20, 20), ("run", 5, 25), ("idle", 5, 5), ("[libc.so]", 3, 3), ("main", 0, 30)],
    );
    check_top("f;f;f 4\nf;g;f 2\ng 1", Granularity::Function, &[("f", 6, 6), ("g", 1, 3)]);
    check_top(
        "main;a>b>c 4\nmain;a>b 1\nc 1",
        Granularity::Function,
        &[("c", 5, 5), ("b", 1, 5), ("a", 0, 5), ("main", 0, 5)],
    );
    check_top("f:1;f:2 4\nf:1 1", Granularity::Line, &[("f f.rs:2", 4, 4), ("f f.rs:1", 1, 5)]);
    check_top(
        "f:1/0x10 4\nf:1/0x20 1",
        Granularity::Address,
        &[("0000000000000010 f f.rs:1", 4, 4), ("0000000000000020 f f.rs:1", 1, 1)],
    );
}

#[test]
fn top_entries_have_the_parts_that_count() {
    let rendered =
        parsed(&top::render(&report("f:7/0x10 4\n0x20@/lib/x.so 1", Granularity::Address), "count").unwrap());
    let expected = json!({
        "unit": "count",
        "total": 5,
        "entries": [
            {"name": "f", "file": "f.rs", "line": 7, "column": 0, "address": "0x10", "self": 4, "cumulative": 4},
            {"name": "[x.so]", "file": "", "line": 0, "column": 0, "address": "0x20", "self": 1, "cumulative": 1},
        ],
        "unresolved": 1,
    });
    assert_eq!(rendered, expected);
}

#[test]
fn text_forms() {
    let tree = report(SMALL, Granularity::Function);
    let expected = "\
(no stack) 2
main;run 5
main;run;work 20
main;idle 5
[libc.so] 3
";
    assert_eq!(folded::render(&tree), expected);
    let expected = "\
unit: nanoseconds
        self    cumulative
           2            35  total
           0            30    main
           5            25      run
          20            20        work
           5             5      idle
           3             3    [libc.so]
";
    assert_eq!(tree::render(&tree, "nanoseconds"), expected);
}

#[test]
fn a_call_graph_has_an_arrow_per_call_and_counts_it_once_per_stack() {
    let text = "main;f;g;f;g 60\nmain;f 30\nmain;tiny;h 4\nmain;g 1000\nmain 9000";
    let expected = r##"digraph "cpu" {
node [style=filled fillcolor="#f8f8f8"]
L [shape=box fontsize=16 label="cpu\ntotal 10094 nanoseconds\n3 of 5 frames"]
N1 [label="main\n9000 (89.16%)\nof 10094 (100.00%)" shape=box fontsize=24 tooltip="main"]
N2 [label="g\n1060 (10.50%)\nof 1060 (10.50%)" shape=box fontsize=13 tooltip="g"]
N3 [label="f\n30 (0.30%)\nof 90 (0.89%)" shape=box fontsize=9 tooltip="f"]
N1 -> N2 [label=" 1000" weight=11 penwidth=1.5]
N1 -> N3 [label=" 90" weight=2 penwidth=1.0]
N2 -> N3 [label=" 60" weight=2 penwidth=1.0]
N3 -> N2 [label=" 60" weight=2 penwidth=1.0]
}
"##;
    assert_eq!(dot::render(&report(text, Granularity::Function), "nanoseconds", "cpu").unwrap(), expected);
    let over_a_light_frame =
        "main;light;heavy 1000\nmain;light 1\nheavy 9999999\nlight;light;light 0\nmain 1000000";
    let drawn = dot::render(&report(over_a_light_frame, Granularity::Function), "count", "cpu").unwrap();
    assert!(!drawn.contains("light\\n"), "{drawn}");
}

#[test]
fn speedscope_has_a_sample_per_path() {
    let expected = json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "cambium",
        "name": "cpu",
        "activeProfileIndex": 0,
        "shared": {"frames": [
            {"name": "main", "file": "main.rs"},
            {"name": "run", "file": "run.rs"},
            {"name": "work", "file": "work.rs"},
        ]},
        "profiles": [{
            "type": "sampled",
            "name": "cpu",
            "unit": "none",
            "startValue": 0,
            "endValue": 25,
            "samples": [[0, 1], [0, 1, 2]],
            "weights": [5, 20],
        }],
    });
    assert_eq!(parsed(&speedscope::render(&graph("main;run;work 20\nmain;run 5"), "count", "cpu")), expected);
}

#[test]
fn points_and_lists_are_prometheus_json() {
    let labels = Labels::from_pairs([("pod", "a")]).unwrap();
    let points =
        vec![Point { time_ns: 15_000_000_000, value: 3.0 }, Point { time_ns: 30_500_000_000, value: 0.25 }];
    let expected = json!({
        "resultType": "matrix",
        "result": [{"metric": {"pod": "a"}, "values": [[15, "3"], [30.5, "0.25"]]}],
    });
    assert_eq!(series::matrix(&[MatrixSeries { labels: labels.clone(), points }]), expected);
    let profile_type: cambium_model::profile_type::ProfileType = "p:cpu:ns:cpu:ns:delta".parse().unwrap();
    let expected = json!([{
        "id": "p:cpu:ns:cpu:ns:delta", "name": "p", "sample_type": "cpu", "sample_unit": "ns", "period_type": "cpu",
        "period_unit": "ns", "delta": true,
    }]);
    assert_eq!(series::profile_types(std::slice::from_ref(&profile_type)), expected);
    let entry = crate::merged::SeriesEntry { profile_type, labels };
    assert_eq!(
        series::label_sets(&[entry]),
        json!([{"__profile_type__": "p:cpu:ns:cpu:ns:delta", "pod": "a"}])
    );
}

#[test]
fn rows_as_json_csv_and_arrow() {
    let columns: [(&str, ::arrow::array::ArrayRef, bool); 2] = [
        ("n", std::sync::Arc::new(Int64Array::from(vec![1, 2])), false),
        ("s", std::sync::Arc::new(StringArray::from(vec![Some("a,b"), None])), true),
    ];
    let batch = ::arrow::array::RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let full = SqlAnswer { schema: batch.schema(), batches: vec![batch], stats: Stats::default() };
    let empty = SqlAnswer { batches: Vec::new(), ..full.clone() };
    assert_eq!(parsed(&sql::json(&full).unwrap()), json!([{"n": 1, "s": "a,b"}, {"n": 2, "s": null}]));
    assert_eq!(parsed(&sql::json(&empty).unwrap()), json!([]));
    assert_eq!(sql::csv(&full).unwrap(), b"n,s\n1,\"a,b\"\n2,\n");
    assert_eq!(sql::csv(&empty).unwrap(), b"n,s\n");
    for (answer, rows) in [(&full, 2), (&empty, 0)] {
        let bytes = sql::arrow(answer).unwrap();
        let reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
        assert_eq!(reader.schema().fields().len(), 2);
        assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), rows);
    }
}

#[test]
fn pprof_keeps_locations_and_labels() {
    let read = stacks("main;a>b 4\nmain;0x1f@/lib/libc.so 3\nmain 2");
    let nodes: Vec<u32> =
        (0..read.tree.len() as u32).filter(|node| read.tree.self_values[*node as usize] != 0).collect();
    let label = vec![("thread".into(), SampleLabelValue::Number(7, "id".into()))];
    let merged = MergedSamples {
        profile_type: "p:cpu:nanoseconds:cpu:nanoseconds:delta".parse().unwrap(),
        samples: nodes
            .iter()
            .map(|node| MergedSample {
                node: *node,
                label_set: u32::from(*node == 1),
                value: read.tree.self_values[*node as usize],
            })
            .collect(),
        tree: read.tree,
        label_sets: vec![Default::default(), std::sync::Arc::new(label)],
        collected: Collected { profiles: 1, time_ns: 1_000, duration_ns: 10, period: 100 },
        single: None,
        stats: Stats::default(),
    };
    let gzipped = pprof::render(&merged, &read.names);
    assert_eq!(pprof::render(&merged, &read.names), gzipped);

    let mut decompressor = Decompressor::new();
    let raw = decompressor.decompress(&gzipped, 1 << 20).unwrap();
    let (id, labels) = (ProfileId([0; 16]), Labels::empty());
    let push = Push { id, labels, name: Some("p"), addresses_relative: true };
    let mut decoder = Decoder::new();
    let decoded = decoder.decode(raw, &Limits::from(&TenantLimits::default()), push).unwrap();
    let profile = &decoded.profile;
    assert_eq!(profile.types, std::slice::from_ref(&merged.profile_type));
    assert_eq!((profile.time_ns, profile.duration_ns, profile.period), (1_000, 10, 100));
    assert_eq!(profile.column(0), [4, 3, 2], "the heaviest first");
    assert_eq!(profile.label_sets.len(), 2);
    assert_eq!(profile.label_sets[profile.sample_label_sets[2] as usize], *merged.label_sets[1]);
    let locations: Vec<Location> =
        (0..profile.locations.len()).map(|index| decoded.location(index)).collect();
    for location in merged.tree.locations[1..].iter().map(|id| &read.names[id]) {
        assert!(locations.contains(location), "{location:?} is in {locations:?}");
    }
}

fn any_stacks() -> impl Strategy<Value = Vec<(Vec<Vec<u8>>, i64)>> {
    let chain = prop::collection::vec(0..5_u8, 1..3);
    prop::collection::vec((prop::collection::vec(chain, 0..5), 1..100_i64), 0..30)
}

proptest! {
    /// Go's rule, stack by stack: every frame once for cumulative, the innermost for self.
    #[test]
    fn top_equals_counting_stack_by_stack(stacks in any_stacks()) {
        let mut sums = std::collections::BTreeMap::<String, (i64, i64)>::new();
        let mut text = String::new();
        for (stack, value) in &stacks {
            let name = |function: &u8| format!("f{function}");
            let flat: Vec<String> = stack.iter().flatten().map(name).collect();
            let distinct: std::collections::BTreeSet<&String> = flat.iter().collect();
            for frame in distinct {
                sums.entry(frame.clone()).or_default().1 += value;
            }
            if let Some(leaf) = flat.last() {
                sums.entry(leaf.clone()).or_default().0 += value;
            }
            let locations: Vec<String> =
                stack.iter().map(|chain| chain.iter().map(name).collect::<Vec<_>>().join(">")).collect();
            text.push_str(&format!("{} {value}\n", locations.join(";")));
        }
        let tree = report(&text, Granularity::Function);
        let entries = top::entries(&tree).unwrap();
        let found: std::collections::BTreeMap<String, (i64, i64)> = entries
            .iter()
            .map(|entry| {
                let values = (entry.self_values[0], entry.cumulative[0]);
                (tree.frames[entry.frame as usize].printed(), values)
            })
            .collect();
        prop_assert_eq!(found, sums);
        prop_assert!(entries.is_sorted_by_key(|entry| -entry.self_values[0]));
    }

    /// In every graph children and self make the cumulative value, and every row comes after its parent's.
    #[test]
    fn rows_add_up(stacks in any_stacks(), max_nodes in 0..8_usize) {
        let mut text = String::new();
        for (stack, value) in &stacks {
            let frames: Vec<String> = stack.iter().flatten().map(|function| format!("f{function}")).collect();
            text.push_str(&format!("{} {value}\n", frames.join(";")));
        }
        let truncation = Truncation { max_nodes, min_fraction: 0.0 };
        let tree = frames(&text, Granularity::Function, View::Graph, truncation);
        let rendered = parsed(&flamegraph::render(&tree, "count"));
        let rows: Vec<Vec<i64>> = serde_json::from_value(rendered["nodes"].clone()).unwrap();
        let mut below: Vec<i64> = rows.iter().map(|row| row[2]).collect();
        for (at, row) in rows.iter().enumerate().skip(1) {
            prop_assert!((0..at as i64).contains(&row[0]));
            below[row[0] as usize] += row[3];
        }
        prop_assert_eq!(below, rows.iter().map(|row| row[3]).collect::<Vec<_>>());
    }
}
