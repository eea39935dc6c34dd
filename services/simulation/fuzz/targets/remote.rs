//! Messages between a querier and the owner of a head: refused with an error or taken, and what is taken holds together.
//!
//! The first byte says which message the rest is. What the other side has told before, such as how many series there
//! are, is made to fit, so that the checks behind are reached.

#![no_main]

use cambium_blocks::remote::labels::decode_label_sets;
use cambium_blocks::remote::profiles::{decode_profiles, decode_samples};
use cambium_blocks::remote::scans::{decode_sample_scan, decode_tree_scan};
use cambium_blocks::remote::series::decode_series;
use cambium_blocks::remote::stacks::{decode_tree, decode_values};
use cambium_blocks::shape::FoldBy;
use cambium_blocks::source::Pick;
use cambium_model::stacktrace::NO_PARENT;
use cambium_proto::wire::ingester as wire;
use libfuzzer_sys::fuzz_target;
use prost::Message;

/// Rows of the table that is asked for.
const ROWS: u32 = 32;

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 7 {
        0 => decoded(bytes, series),
        1 => decoded(bytes, profiles),
        2 => decoded(bytes, samples),
        3 => decoded(bytes, partial_tree),
        4 => decoded(bytes, label_sets),
        5 => decoded(bytes, tree_request),
        _ => decoded(bytes, samples_request),
    }
});

fn decoded<M: Message + Default>(bytes: &[u8], check: fn(M)) {
    if let Ok(message) = M::decode(bytes) {
        check(message);
    }
}

fn series(message: wire::SeriesTable) {
    let count = message.type_of.len();
    let Ok(table) = decode_series(message, count) else { return };
    for row in 0..count as u32 {
        let labels = table.labels(row);
        assert!(table.has_labels(row, &labels));
        let _ = &table.scopes[table.scope_of[row as usize] as usize];
    }
}

fn profiles(message: wire::Profiles) {
    let Ok(profiles) = decode_profiles(message, &vec![0..ROWS]) else { return };
    assert!(profiles.series.iter().all(|row| *row < ROWS));
    assert!(profiles.ids.is_empty() || profiles.ids.len() == profiles.total.len());
}

fn samples(message: wire::Samples) {
    const NODES: usize = 64;
    let Ok(samples) = decode_samples(message, &vec![0..ROWS], NODES, NODES) else { return };
    assert_eq!((samples.series.len(), samples.time_ns.len()), (samples.nodes.len(), samples.values.len()));
    assert!(samples.nodes.iter().chain(&samples.label_sets).all(|position| (*position as usize) < NODES));
}

fn partial_tree(message: wire::PartialTree) {
    let wire::PartialTree { tree, nodes, values, .. } = message;
    let Ok(tree) = decode_tree(tree.unwrap_or_default()) else { return };
    let before = |(node, parent): (u32, u32)| parent == NO_PARENT || parent < node;
    assert!((0..).zip(tree.nodes.iter().map(|node| node.parent)).all(before));
    let shape = tree.shape(FoldBy::Function);
    if let Ok(values) = decode_values(&nodes, &values, tree.len()) {
        let _ = shape.sum(&values);
    }
}

fn label_sets(message: wire::LabelSets) {
    let count = message.sets.len();
    if let Ok(sets) = decode_label_sets(message, count) {
        assert!(sets[0].is_empty());
    }
}

fn tree_request(message: wire::TreeRequest) {
    let Ok(scan) = decode_tree_scan(message, ROWS as usize) else { return };
    let count: usize = scan.rows.iter().map(ExactSizeIterator::len).sum();
    assert!(scan.rows.iter().all(|run| run.start < run.end && run.end <= ROWS));
    assert!(scan.rows.is_sorted_by(|a, b| a.end < b.start));
    match scan.pick {
        Pick::Sum => {}
        Pick::Mean(counts) => assert_eq!(counts.len(), count),
        Pick::At(times) => assert_eq!(times.len(), count),
    }
}

fn samples_request(message: wire::SamplesRequest) {
    if let Ok(scan) = decode_sample_scan(message, ROWS as usize) {
        assert!(scan.rows.iter().all(|run| run.end <= ROWS));
    }
}
