use std::sync::Arc;

use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use cambium_model::time::TimeRange;
use cambium_proto::wire::ingester as wire;
use futures::TryStreamExt;
use proptest::prelude::*;
use prost::Message;

use super::labels::{decode_label_sets, encode_label_sets};
use super::pieces::{Joined, PIECE_BYTES_MAX, cut};
use super::profiles::{
    MESSAGE_SAMPLES_MAX, decode_profiles, decode_samples, encode_profiles, encode_samples,
};
use super::scans::{
    decode_sample_scan, decode_selection, decode_tree_scan, encode_sample_scan, encode_selection,
    encode_tree_scan,
};
use super::series::{decode_series, encode_series};
use super::stacks::{decode_tree, decode_values, encode_partial, encode_tree};
use super::*;
use crate::series_table::{RowSet, SeriesTable};
use crate::shape::FoldBy;
use crate::source::{Pick, Profiles, SampleScan, Samples, TreeScan};
use crate::testing::{Shape, random_dataset, tenant};
use crate::tree::{PartialTree, SCOPE_LOCATION, Tree};
use crate::{Dataset, Source};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn dataset(seed: u64, profiles: usize) -> Dataset {
    random_dataset(tenant(1), seed, &Shape { profiles, ..Shape::default() })
}

fn all_rows(dataset: &Dataset) -> RowSet {
    let rows = dataset.series.len() as u32;
    if rows == 0 { RowSet::new() } else { vec![0..rows] }
}

/// A dataset's answers to everything.
struct Answers {
    profiles: Profiles,
    samples: Vec<Samples>,
    partial: PartialTree,
}

fn answers(dataset: &Dataset) -> Answers {
    run(async {
        let (rows, range) = (all_rows(dataset), TimeRange::ALL);
        let scan = SampleScan { rows: rows.clone(), range, at: None };
        let samples = dataset.samples(&scan).await.unwrap().try_collect().await.unwrap();
        let profiles = dataset.profiles(&rows, range).await.unwrap();
        let partial = dataset.tree(&TreeScan { rows, range, pick: Pick::Sum }).await.unwrap();
        Answers { profiles, samples, partial }
    })
}

fn assert_same_tree(a: &Tree, b: &Tree) {
    assert_eq!((&a.nodes, &a.paths, &a.locations), (&b.nodes, &b.paths, &b.locations));
}

fn assert_same_series(a: &SeriesTable, b: &SeriesTable) {
    assert_eq!((&a.types, &a.scopes), (&b.types, &b.scopes));
    assert_eq!((&a.type_of, &a.scope_of, &a.fingerprints), (&b.type_of, &b.scope_of, &b.fingerprints));
    let columns = |table: &SeriesTable| -> Vec<_> {
        let parts = table.columns.iter();
        parts.map(|(name, held)| (Arc::clone(name), held.values.clone(), held.codes.clone())).collect()
    };
    assert_eq!(columns(a), columns(b));
}

/// Rows that ascend and do not touch, in a table of so many.
fn row_sets() -> impl Strategy<Value = (RowSet, u32)> {
    prop::collection::vec((1..5_u32, 1..5_u32), 0..5).prop_flat_map(|runs| {
        let mut end = 0;
        let mut rows = RowSet::new();
        for (passed, taken) in runs {
            // The first may begin with the first row.
            let start = if end == 0 { passed - 1 } else { end + passed };
            end = start + taken;
            rows.push(start..end);
        }
        (Just(rows), end..end + 3)
    })
}

fn count(rows: &RowSet) -> usize {
    rows.iter().map(|run| run.len()).sum()
}

proptest! {
    #[test]
    fn scans_come_back_whole(
        (rows, series) in row_sets(), start_ns in any::<i64>(), end_ns in any::<i64>(), kind in 0..3,
        numbers in prop::collection::vec(prop::option::of(any::<i64>()), 20),
    ) {
        let (range, series) = (TimeRange::new(start_ns, end_ns), series as usize);
        let selection = encode_selection(&rows, range);
        prop_assert_eq!(decode_selection(Some(selection), series).unwrap(), (rows.clone(), range));
        let times = numbers[..count(&rows)].to_vec();
        let pick = match kind {
            0 => Pick::Sum,
            1 => Pick::Mean(times.iter().map(|time| time.unwrap_or_default() as u32).collect()),
            _ => Pick::At(times.clone()),
        };
        let head = wire::HeadRequest { id: vec![7; 16].into(), tenant_number: 9 };
        let scan = TreeScan { rows: rows.clone(), range, pick };
        let request = encode_tree_scan(head.clone(), &scan, true);
        prop_assert!(request.has_stack_tree && request.head == Some(head.clone()));
        let decoded = decode_tree_scan(request, series).unwrap();
        prop_assert_eq!((decoded.rows, decoded.range, decoded.pick), (rows.clone(), range, scan.pick));
        let scan = SampleScan { rows: rows.clone(), range, at: (kind == 2).then_some(times) };
        let decoded = decode_sample_scan(encode_sample_scan(head, &scan), series).unwrap();
        prop_assert_eq!((decoded.rows, decoded.range, decoded.at), (rows, range, scan.at));
    }

    #[test]
    fn answers_come_back_whole(seed in any::<u64>(), profiles in 0..30_usize) {
        let dataset = dataset(seed, profiles);
        let Answers { profiles, samples, partial } = answers(&dataset);
        let rows = all_rows(&dataset);
        let series = decode_series(encode_series(&dataset.series), dataset.series.len()).unwrap();
        assert_same_series(&series, &dataset.series);
        prop_assert_eq!(decode_profiles(encode_profiles(profiles.clone()), &rows).unwrap(), profiles);
        assert_same_tree(&decode_tree(encode_tree(&dataset.tree)).unwrap(), &dataset.tree);
        let sets = decode_label_sets(encode_label_sets(&dataset.label_sets), dataset.label_sets.len());
        prop_assert_eq!(&sets.unwrap(), &*dataset.label_sets);
        let (nodes, sets) = (dataset.tree.len(), dataset.label_sets.len());
        for batch in samples {
            let decode = |message| decode_samples(message, &rows, nodes, sets).unwrap();
            let decoded: Vec<Samples> = encode_samples(&batch).map(decode).collect();
            prop_assert_eq!(decoded, [batch]);
        }
        let wire::PartialTree { tree, nodes: at, values, .. } = encode_partial(&partial, true);
        prop_assert_eq!(tree, None);
        prop_assert_eq!(decode_values(&at, &values, nodes).unwrap(), partial.self_values);
    }

    /// Whatever bytes come, a decoder returns; what it takes in holds together.
    #[test]
    fn damaged_answers_are_refused_or_taken(
        seed in any::<u64>(), kind in 0..6, damage in prop::collection::vec((any::<u32>(), any::<u8>()), 1..4),
        cut_at in prop::option::of(any::<u32>()),
    ) {
        let dataset = dataset(seed, 8);
        let Answers { profiles, samples, partial } = answers(&dataset);
        let mut bytes = match kind {
            0 => encode_series(&dataset.series).encode_to_vec(),
            1 => encode_profiles(profiles).encode_to_vec(),
            2 => encode_tree(&dataset.tree).encode_to_vec(),
            3 => encode_partial(&partial, false).encode_to_vec(),
            4 => encode_label_sets(&dataset.label_sets).encode_to_vec(),
            _ => samples.first().and_then(|batch| encode_samples(batch).next()).unwrap_or_default().encode_to_vec(),
        };
        if let (Some(at), false) = (cut_at, bytes.is_empty()) {
            bytes.truncate(at as usize % bytes.len());
        }
        for (at, byte) in damage {
            let length = bytes.len().max(1);
            if let Some(held) = bytes.get_mut(at as usize % length) {
                *held ^= byte;
            }
        }
        let (rows, nodes, sets) = (all_rows(&dataset), dataset.tree.len(), dataset.label_sets.len());
        match kind {
            0 => check(&bytes, |message| decode_series(message, dataset.series.len()), |table| {
                (0..table.len() as u32).for_each(|row| drop(table.labels(row)));
            }),
            1 => check(&bytes, |message| decode_profiles(message, &rows), |profiles| {
                assert!(profiles.series.is_sorted() && profiles.total.len() == profiles.samples.len());
            }),
            2 => check(&bytes, decode_tree, |tree| {
                let before = |(node, parent): (u32, u32)| parent == NO_PARENT || parent < node;
                assert!((0..).zip(tree.nodes.iter().map(|node| node.parent)).all(before));
                tree.shape(FoldBy::Function);
            }),
            3 => check(&bytes, |message: wire::PartialTree| {
                let tree = decode_tree(message.tree.unwrap_or_default())?;
                let self_values = decode_values(&message.nodes, &message.values, tree.len())?;
                Ok(PartialTree { tree: Arc::new(tree), self_values })
            }, |partial| assert_eq!(partial.tree.len(), partial.self_values.len())),
            4 => check(&bytes, |message| decode_label_sets(message, sets), |found| assert!(found[0].is_empty())),
            _ => check(&bytes, |message| decode_samples(message, &rows, nodes, sets), |samples| {
                assert_eq!(samples.series.len(), samples.values.len());
                assert!(samples.nodes.iter().all(|node| (*node as usize) < nodes));
            }),
        }
    }
}

fn check<M: Message + Default, V>(
    bytes: &[u8],
    decode: impl Fn(M) -> Result<V, Malformed>,
    holds: impl Fn(V),
) {
    if let Ok(Ok(value)) = M::decode(bytes).map(decode) {
        holds(value);
    }
}

#[test]
fn requests_that_would_reach_past_a_table_are_refused() {
    let selection = |runs: &[u32]| {
        let selection = wire::Selection { runs: runs.to_vec(), start_ns: 0, end_ns: 1 };
        decode_selection(Some(selection), 10).map(|(rows, _)| rows).map_err(|error| error.to_string())
    };
    let runs = || Err("the rows asked for are not runs that ascend".to_owned());
    assert_eq!(selection(&[0, 10]), Ok(vec![0..10]));
    assert_eq!(selection(&[3, 2, 1, 4]), Ok(vec![3..5, 6..10]));
    assert_eq!(selection(&[1, 10]), Err("rows holds 10, which is not below 10".to_owned()));
    assert_eq!(selection(&[1]), runs());
    assert_eq!(selection(&[1, 0]), runs());
    assert_eq!(selection(&[0, 2, 0, 2]), runs());
    assert_eq!(selection(&[1, u32::MAX]), runs());
    assert!(matches!(decode_selection(None, 10), Err(Malformed::Missing("selection"))));

    let two_rows = || Some(wire::Selection { runs: vec![0, 2], start_ns: 0, end_ns: 1 });
    let mean = wire::Counts { profiles: vec![1] };
    let pick = Some(wire::tree_request::Pick::Mean(mean));
    let request = wire::TreeRequest { selection: two_rows(), pick, ..Default::default() };
    assert!(matches!(decode_tree_scan(request, 10), Err(Malformed::Length { found: 1, expected: 2, .. })));
    let at = Some(wire::Times { is_set: vec![true, false], time_ns: vec![1, 2] });
    let request = wire::SamplesRequest { selection: two_rows(), at, head: None };
    assert!(matches!(decode_sample_scan(request, 10), Err(Malformed::Length { found: 2, expected: 1, .. })));
}

#[test]
fn large_messages_travel_in_pieces() {
    let message = wire::Tree { up: vec![300; 2 * PIECE_BYTES_MAX], ..wire::Tree::default() };
    let pieces = cut(&message);
    assert_eq!(pieces.len(), 5);
    assert!(pieces.iter().all(|piece| piece.bytes.len() <= PIECE_BYTES_MAX));
    let mut joined = Joined::default();
    pieces.iter().for_each(|piece| joined.push(piece).unwrap());
    assert_eq!(joined.message::<wire::Tree>().unwrap(), message);
    assert_eq!(cut(&wire::Tree::default()), [wire::Piece::default()], "an empty message is one");
}

#[test]
fn samples_of_a_large_profile_travel_in_messages_that_fit() {
    let count = 2 * MESSAGE_SAMPLES_MAX + 1;
    let samples = Samples {
        // The worst of cases: nothing in common, no number small.
        series: vec![u32::MAX - 1; count],
        time_ns: (0..count as i64).collect(),
        nodes: vec![u32::MAX - 1; count],
        values: vec![i64::MIN; count],
        label_sets: vec![u32::MAX - 1; count],
    };
    let messages: Vec<wire::Samples> = encode_samples(&samples).collect();
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|message| message.encoded_len() < pieces::MESSAGE_BYTES_MAX));
    let end = u32::MAX as usize;
    let rows = vec![0..u32::MAX];
    let decode = |message| decode_samples(message, &rows, end, end).unwrap();
    let decoded: Vec<Samples> = messages.into_iter().map(decode).collect();
    assert_eq!(decoded.iter().map(|part| part.nodes.len()).sum::<usize>(), count);
    let times: Vec<i64> = decoded.iter().flat_map(|part| part.time_ns.iter().copied()).collect();
    assert_eq!(times, samples.time_ns);
}

/// `main` at line 9 in the first scope and at line 8 in the second; below it, `run` in both.
#[test]
fn the_location_that_stands_for_a_function_comes_along() {
    let scope = Node { parent: NO_PARENT, location: SCOPE_LOCATION };
    let node = |parent, location| Node { parent, location };
    let nodes = vec![scope, node(0, 0), node(1, 1), scope, node(3, 2), node(4, 1), node(3, 3)];
    let locations = [(1, 9), (2, 1), (1, 8), (3, 1)].map(|(name, line)| LocationId::named(name, line));
    let tree = Arc::new(Tree::new(nodes, locations.to_vec()));
    let part = |self_values: [i64; 7]| {
        let partial = PartialTree { tree: Arc::clone(&tree), self_values: self_values.to_vec() };
        let part = decode_tree(encode_partial(&partial, false).tree.unwrap()).unwrap();
        let shape = part.shape(FoldBy::Function);
        let found = |at: &u32| part.locations.get(*at as usize).copied();
        (part.len(), shape.locations.iter().map(found).collect::<Vec<_>>())
    };
    let all = [None, Some(locations[2]), Some(locations[1])];
    assert_eq!(part([0, 0, 7, 0, 0, 0, 0]), (5, all.to_vec()), "line 8, though no value is there");
    assert_eq!(part([0, 0, 0, 0, 0, 7, 0]), (3, all.to_vec()));
    assert_eq!(part([0, 0, 0, 0, 0, 0, 7]), (2, vec![None, Some(locations[3])]));
}

#[test]
fn of_a_tree_only_what_has_values_travels() {
    let dataset = dataset(3, 24);
    let tree = Arc::clone(&dataset.tree);
    let leaf = (tree.len() - 1) as u32;
    let mut self_values = vec![0; tree.len()];
    self_values[leaf as usize] = 7;
    let mut callers = 0;
    let mut node = leaf;
    while node != NO_PARENT {
        callers += 1;
        node = tree.nodes[node as usize].parent;
    }
    let message = encode_partial(&PartialTree { tree: Arc::clone(&tree), self_values }, false);
    let part = decode_tree(message.tree.unwrap()).unwrap();
    assert_eq!(decode_values(&message.nodes, &message.values, part.len()).unwrap().iter().sum::<i64>(), 7);
    assert!(part.len() >= callers && part.len() < tree.len() / 2, "{} of {}", part.len(), tree.len());
    assert!(part.locations.len() <= part.len());
    assert!(part.paths.contains(&tree.paths[leaf as usize]));
    let empty = PartialTree { self_values: vec![0; tree.len()], tree };
    let wire::PartialTree { tree, nodes, values, .. } = encode_partial(&empty, false);
    assert_eq!((tree, nodes.len(), values.len()), (Some(wire::Tree::default()), 0, 0));
}
