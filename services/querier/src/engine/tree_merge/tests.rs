use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cambium_blocks::shape::FoldBy;
use cambium_blocks::tree::{PartialTree, Tree};
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use proptest::prelude::*;

use super::*;

fn profile_type() -> ProfileType {
    "a:b:c:d:e".parse().unwrap()
}

/// Trees of one or two scopes with random shapes and values, some zero.
fn partials() -> impl Strategy<Value = PartialTree> {
    let node = (any::<prop::sample::Index>(), 0..4_u32, -2..3_i64);
    (1..3_usize, prop::collection::vec(node, 0..24)).prop_map(|(scopes, wanted)| {
        let mut nodes = vec![Node { parent: NO_PARENT, location: u32::MAX }; scopes];
        let mut self_values = vec![1; scopes];
        for (parent, location, value) in wanted {
            let node = Node { parent: parent.index(nodes.len()) as u32, location };
            // Two children of one node are never the same place.
            if !nodes.contains(&node) {
                nodes.push(node);
                self_values.push(value);
            }
        }
        let locations = (0..4).map(|number| LocationId::named(number, number)).collect();
        PartialTree { tree: Arc::new(Tree::new(nodes, locations)), self_values }
    })
}

fn rows(partial: &PartialTree, group: u32) -> RecordBatch {
    TreeRows::of_partial(partial, FoldBy::Location, group).unwrap().into_batch()
}

fn naive(partials: &[(u32, PartialTree)]) -> BTreeMap<(u32, u64), i64> {
    let mut sums = BTreeMap::new();
    for (group, partial) in partials {
        for (path, value) in partial.tree.paths.iter().zip(&partial.self_values) {
            *sums.entry((*group, path.0)).or_default() += value;
        }
    }
    sums
}

proptest! {
    #[test]
    fn sums_and_trees_equal_the_naive_ones(
        partials in prop::collection::vec((0..3_u32, partials()), 1..5), split in any::<prop::sample::Index>(),
    ) {
        // The same once directly and once through partial sums.
        let add = |parts: &[(u32, PartialTree)]| {
            let mut sums = TreeSums::new(profile_type());
            for (group, partial) in parts {
                sums.add(rows(partial, *group)).unwrap();
            }
            sums.into_batch()
        };
        let direct = add(&partials);
        let (left, right) = partials.split_at(split.index(partials.len()));
        let mut halves = TreeSums::new(profile_type());
        for half in [add(left), add(right)] {
            halves.add(half).unwrap();
        }
        prop_assert_eq!(&direct, &halves.into_batch());

        let (trees, _) = build_trees(RowColumns::of(&direct), 3).unwrap();
        let mut expected = naive(&partials);
        for (group, tree) in (0..).zip(trees) {
            for node in 0..tree.len() {
                let value = expected.remove(&(group, tree.paths[node].0)).unwrap_or(0);
                prop_assert_eq!(tree.self_values[node], value);
                if node > 0 {
                    let parent = tree.parents[node] as usize;
                    prop_assert!(parent < node);
                    prop_assert_eq!(tree.paths[parent].child(tree.locations[node]), tree.paths[node]);
                }
            }
        }
        prop_assert!(expected.values().all(|value| *value == 0), "missing: {:?}", expected);
    }

    #[test]
    fn only_live_nodes_become_rows(partial in partials()) {
        let parents: BTreeMap<PathHash, PathHash> = (partial.tree.nodes.iter().zip(&partial.tree.paths))
            .filter(|(node, _)| node.parent != NO_PARENT)
            .map(|(node, path)| (*path, partial.tree.paths[node.parent as usize]))
            .collect();
        let mut live = BTreeSet::new();
        let sums = naive(&[(0, partial.clone())]);
        for ((_, path), _) in sums.into_iter().filter(|(_, value)| *value != 0) {
            let mut next = Some(PathHash(path));
            while let Some(path) = next {
                live.insert(path);
                next = parents.get(&path).copied();
            }
        }
        prop_assert_eq!(rows(&partial, 0).num_rows(), live.len());
    }
}

#[test]
fn a_row_before_its_parent_is_a_defect() {
    for parent in [0, 1, 7] {
        let mut rows = TreeRows::default();
        rows.push(0, 1, parent, [0; 16], 3);
        rows.push(0, 2, NO_PARENT, [0; 16], 3);
        let batch = rows.into_batch();
        assert!(build_trees(RowColumns::of(&batch), 1).is_err(), "{parent}");
        let mut sums = TreeSums::new(profile_type());
        sums.add(batch.clone()).unwrap();
        let added = sums.add(batch);
        assert!(added.is_err() || build_trees(RowColumns::of(&sums.into_batch()), 1).is_err(), "{parent}");
    }
}

#[test]
fn means_are_rounded_to_the_nearest() {
    let half = MEAN_SCALE / 2;
    let cases = [
        (0, 0),
        (half - 1, 0),
        (half, 1),
        (-half + 1, 0),
        (-half, -1),
        (7 * MEAN_SCALE + half, 8),
        (i64::MAX, i64::MAX / MEAN_SCALE),
    ];
    for (scaled, expected) in cases {
        assert_eq!(unscale(scaled), expected, "{scaled}");
    }
}
