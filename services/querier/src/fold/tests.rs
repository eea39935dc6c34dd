use std::collections::BTreeMap;

use cambium_model::stacktrace::LocationId;
use proptest::prelude::*;

use super::testing::fold;
use super::*;

/// A tree from paths of (function, detail) pairs.
fn tree(stacks: &[(Vec<(u64, u64)>, i64)]) -> MergedTree {
    let mut tree = MergedTree::new();
    let mut nodes = BTreeMap::from([(PathHash::ROOT, 0)]);
    for (stack, value) in stacks {
        let mut node = 0;
        for (function, detail) in stack {
            let location = LocationId::named(*function, *detail);
            let path = tree.paths[node as usize].child(location);
            node = *nodes.entry(path).or_insert_with(|| tree.push(node, location, path, 0));
        }
        tree.self_values[node as usize] += value;
    }
    tree
}

/// Self and cumulative values by the path of keys, for comparison.
fn by_path<const N: usize>(tree: &FoldedTree<N>) -> BTreeMap<PathHash, ([i64; N], [i64; N])> {
    (0..tree.len()).map(|node| (tree.paths[node], (tree.self_values[node], tree.cumulative[node]))).collect()
}

#[test]
fn functions_fold_lines_and_lines_do_not() {
    let tree = tree(&[(vec![(1, 1), (2, 1)], 3), (vec![(1, 2), (2, 1)], 4), (vec![(1, 2)], 5)]);
    let functions = fold([&tree], Granularity::Function).unwrap();
    assert_eq!(functions.self_values, [[0], [5], [7]]);
    assert_eq!(functions.cumulative, [[12], [12], [7]]);
    assert_eq!(functions.locations[1], LocationId::named(1, 1), "the smallest stands for all");
    let lines = fold([&tree], Granularity::Line).unwrap();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines.paths, tree.paths);
}

#[test]
fn native_addresses_never_fold() {
    let build = cambium_model::stacktrace::BuildRef::new("build", "");
    let mut tree = MergedTree::new();
    for address in [1, 2] {
        let location = LocationId::native(build, address);
        tree.push(0, location, PathHash::ROOT.child(location), 1);
    }
    assert_eq!(fold([&tree], Granularity::Function).unwrap().len(), 3);
}

#[test]
fn a_diff_is_the_union_of_both_sides() {
    let left = tree(&[(vec![(1, 1)], 3), (vec![(2, 1)], 4)]);
    let right = tree(&[(vec![(2, 2)], 5), (vec![(3, 1)], 6), (vec![], 1)]);
    let both = fold([&left, &right], Granularity::Function).unwrap();
    assert_eq!(both.self_values, [[0, 1], [3, 0], [4, 5], [0, 6]]);
    assert_eq!(both.cumulative[0], [7, 12]);
}

#[test]
fn a_sum_that_does_not_fit_is_none() {
    let tree = tree(&[(vec![(1, 1)], i64::MAX), (vec![(1, 2)], 1)]);
    assert_eq!(fold([&tree], Granularity::Function), None);
}

#[test]
fn the_lightest_are_dropped_and_counted() {
    let tree = tree(&[
        (vec![(1, 1)], 1),
        (vec![(1, 1), (2, 1)], 50),
        (vec![(1, 1), (3, 1)], 4),
        (vec![(1, 1), (3, 1), (4, 1)], 5),
        (vec![(1, 1), (5, 1)], 6),
        (vec![(6, 1)], 34),
    ]);
    let folded = fold([&tree], Granularity::Function).unwrap();
    let three = truncate(folded.clone(), Truncation { max_nodes: 3, min_fraction: 0.0 });
    assert_eq!(three.tree.cumulative, [[100], [66], [50], [34]]);
    assert_eq!(three.others, [Other { parent: 1, nodes: 3, values: [15] }]);
    let a_tenth = truncate(folded.clone(), Truncation { max_nodes: 0, min_fraction: 0.1 });
    assert_eq!(a_tenth, three);
    assert_eq!(truncate(folded.clone(), Truncation::NONE), Truncated { tree: folded, others: vec![] });
}

#[test]
fn equals_are_chosen_by_path() {
    let forward: Vec<_> = (0..20).map(|function| (vec![(function, 0)], 1)).collect();
    let backward: Vec<_> = forward.iter().rev().cloned().collect();
    let survivors = |stacks| {
        let folded = fold([&tree(stacks)], Granularity::Function).unwrap();
        by_path(&truncate(folded, Truncation { max_nodes: 7, min_fraction: 0.0 }).tree)
    };
    assert_eq!(survivors(&forward), survivors(&backward));
}

#[test]
fn a_diff_keeps_what_is_heavy_on_either_side() {
    let left = tree(&[(vec![(1, 1)], 99), (vec![(2, 1)], 1)]);
    let right = tree(&[(vec![(2, 1)], 5), (vec![(3, 1)], 5)]);
    let folded = fold([&left, &right], Granularity::Function).unwrap();
    let truncated = truncate(folded, Truncation { max_nodes: 0, min_fraction: 0.4 });
    assert_eq!(truncated.tree.cumulative[1..], [[99, 0], [1, 5], [0, 5]]);
}

fn any_stacks() -> impl Strategy<Value = Vec<(Vec<(u64, u64)>, i64)>> {
    let frame = (0..4_u64, 0..3_u64);
    prop::collection::vec((prop::collection::vec(frame, 0..6), -20..100_i64), 0..40)
}

/// Folds by walking every stack on its own.
fn naive(stacks: &[(Vec<(u64, u64)>, i64)], with_detail: bool) -> BTreeMap<Vec<u64>, (i64, i64)> {
    let mut sums = BTreeMap::from([(vec![], (0, 0))]);
    for (stack, value) in stacks {
        let key =
            |(function, detail): &(u64, u64)| if with_detail { function * 10 + detail } else { *function };
        let path: Vec<u64> = stack.iter().map(key).collect();
        for depth in 0..=path.len() {
            sums.entry(path[..depth].to_vec()).or_default().1 += value;
        }
        sums.entry(path).or_default().0 += value;
    }
    sums
}

proptest! {
    #[test]
    fn folding_equals_the_naive_sum(stacks in any_stacks()) {
        for granularity in [Granularity::Function, Granularity::Line] {
            let folded = fold([&tree(&stacks)], granularity).unwrap();
            let mut found: Vec<(i64, i64)> =
                (0..folded.len()).map(|node| (folded.self_values[node][0], folded.cumulative[node][0])).collect();
            let mut expected: Vec<(i64, i64)> =
                naive(&stacks, granularity == Granularity::Line).into_values().collect();
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn truncation_keeps_survivors_exact(
        stacks in any_stacks(),
        max_nodes in 0..12_usize,
        min_fraction in prop_oneof![Just(0.0), 0.0..0.6_f64],
    ) {
        let folded = fold([&tree(&stacks)], Granularity::Function).unwrap();
        let all = by_path(&folded);
        let before = folded.len();
        let Truncated { tree, others } = truncate(folded, Truncation { max_nodes, min_fraction });
        let dropped: usize = others.iter().map(|other| other.nodes as usize).sum();
        prop_assert_eq!(tree.len() + dropped, before);
        prop_assert!(max_nodes == 0 || tree.len() <= max_nodes + 1);
        let mut below: Vec<i64> = tree.self_values.iter().map(|values| values[0]).collect();
        for node in 1..tree.len() {
            below[tree.parents[node] as usize] += tree.cumulative[node][0];
        }
        for other in &others {
            below[other.parent as usize] += other.values[0];
        }
        for node in 0..tree.len() {
            prop_assert_eq!(all[&tree.paths[node]], (tree.self_values[node], tree.cumulative[node]));
            prop_assert_eq!(below[node], tree.cumulative[node][0], "children + self == cumulative");
        }
    }
}
