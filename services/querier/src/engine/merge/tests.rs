use std::cmp::Reverse;
use std::collections::BTreeMap;

use cambium_blocks::testing::tenant;
use cambium_model::labels::Labels;
use cambium_model::profile::{ProfileId, SampleLabelValue, SampleLabels};
use cambium_model::selector::ProfileQuery;
use cambium_model::time::{SECOND_NS, TimeRange};
use proptest::prelude::*;

use super::super::oracle::{
    self, Path, START_NS, Single, World, block_on, by_part, bys, paths, queries, ranges, worlds,
};
use super::*;
use crate::merged::Collected;
use crate::request::{Aggregation, Pick};

/// Numerator and denominator by (stack, label set).
type Exact = BTreeMap<(Path, SampleLabels), f64>;

/// Profiles, and how much of each counts.
type Shares<'a> = Vec<(&'a Single, f64)>;

/// What goes into a merge, and each profile's share of it.
fn picked(selected: &[Single], aggregation: Aggregation) -> Shares<'_> {
    let of_series =
        |one: &Single| selected.iter().filter(|other| other.labels == one.labels).collect::<Vec<_>>();
    let newest = |one: &Single| of_series(one).iter().map(|other| (other.time_ns, other.id)).max();
    let shares = selected.iter().map(|one| match aggregation {
        Aggregation::Sum => (one, 1.0),
        Aggregation::Avg => (one, 1.0 / of_series(one).len() as f64),
        Aggregation::Last => (one, if newest(one) == Some((one.time_ns, one.id)) { 1.0 } else { 0.0 }),
    });
    shares.filter(|(_, share)| *share > 0.0).collect()
}

fn exact(picked: &[(&Single, f64)]) -> Exact {
    let mut sums = Exact::new();
    for (one, share) in picked {
        for (key, value) in &one.values {
            *sums.entry(key.clone()).or_default() += *value as f64 * share;
        }
    }
    sums
}

fn by_path(sums: &Exact) -> BTreeMap<Path, f64> {
    let mut by_path = BTreeMap::new();
    for ((path, _), value) in sums {
        *by_path.entry(path.clone()).or_default() += value;
    }
    by_path
}

/// A mean is rounded once per source and once at the root.
fn close(got: i64, exact: f64, aggregation: Aggregation) -> bool {
    let tolerance = if aggregation == Aggregation::Avg { 0.51 } else { 1e-6 };
    (got as f64 - exact).abs() <= tolerance
}

fn aggregations() -> impl Strategy<Value = Aggregation> {
    prop::sample::select(vec![Aggregation::Sum, Aggregation::Avg, Aggregation::Last])
}

fn query(query: ProfileQuery, pick: Pick, by: Vec<String>) -> MergeQuery {
    MergeQuery { tenant: tenant(1), query, pick, fold_by: FoldBy::Location, by, exact: false }
}

fn check_tree(tree: &MergedTree, expected: &BTreeMap<Path, f64>, aggregation: Aggregation) {
    let paths = paths(tree);
    let got: BTreeMap<&Path, i64> = paths.iter().zip(tree.self_values.iter().copied()).collect();
    for (path, value) in expected {
        let got = got.get(path).copied().unwrap_or(0);
        assert!(close(got, *value, aggregation), "{path:?}: {got} for {value}");
    }
    for (path, got) in got {
        let value = expected.get(path).copied().unwrap_or(0.0);
        assert!(close(got, value, aggregation), "{path:?}: {got} for {value}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_merge_equals_the_naive_one(
        world in worlds(), asked in queries(), range in ranges(), aggregation in aggregations(), by in bys(),
    ) {
        let sources = world.sources();
        let pick = Pick::Range { range, aggregation };
        let merged = block_on(merge(&oracle::env(), &sources, &query(asked.clone(), pick, by.clone()))).unwrap();
        let selected = world.selected(&asked, range);
        let mut groups: BTreeMap<u64, (Labels, Shares<'_>)> = BTreeMap::new();
        for (one, share) in picked(&selected, aggregation) {
            let labels = by_part(&one.labels, &by);
            groups.entry(labels.fingerprint()).or_insert_with(|| (labels, Vec::new())).1.push((one, share));
        }
        let order: Vec<_> = merged.groups.iter().map(|group| group.labels.clone()).collect();
        if by.is_empty() {
            prop_assert_eq!(order, [Labels::empty()]);
            let all: Vec<_> = groups.into_values().flat_map(|(_, picked)| picked).collect();
            check_tree(&merged.groups[0].tree, &by_path(&exact(&all)), aggregation);
        } else {
            // A group whose samples cancel out or average to nothing may be there or not.
            for group in &merged.groups {
                let named = groups.values().find(|(labels, _)| *labels == group.labels);
                let (_, picked) = named.expect("no group without profiles");
                check_tree(&group.tree, &by_path(&exact(picked)), aggregation);
            }
            for (labels, picked) in groups.values() {
                let weight: f64 = by_path(&exact(picked)).values().map(|value| value.abs()).sum();
                prop_assert!(weight < 1.0 || order.contains(labels), "{:?} is missing", labels);
            }
            let mut sorted = order.clone();
            sorted.sort_by(|a, b| a.iter().cmp(b.iter()));
            prop_assert_eq!(order, sorted);
        }
    }

    #[test]
    fn a_merge_of_samples_keeps_their_labels(
        world in worlds(), asked in queries(), range in ranges(), aggregation in aggregations(),
    ) {
        let sources = world.sources();
        let pick = Pick::Range { range, aggregation };
        let merged = block_on(merge_samples(&oracle::env(), &sources, &query(asked.clone(), pick, vec![]))).unwrap();
        let selected = world.selected(&asked, range);
        let picked = picked(&selected, aggregation);
        let expected = exact(&picked);
        check_tree(&merged.tree, &by_path(&expected), aggregation);
        let paths = paths(&merged.tree);
        let mut got = BTreeMap::new();
        for sample in &merged.samples {
            let key = (paths[sample.node as usize].clone(), (*merged.label_sets[sample.label_set as usize]).clone());
            prop_assert!(got.insert(key, sample.value).is_none(), "each (node, label set) once");
            prop_assert!(sample.value != 0);
        }
        for (key, value) in &expected {
            let got = got.remove(key).unwrap_or(0);
            prop_assert!(close(got, *value, aggregation), "{:?}: {} for {}", key, got, value);
        }
        prop_assert!(got.values().all(|value| *value == 0), "{:?}", got);
        prop_assert_eq!(merged.collected, Collected {
            profiles: picked.len() as u64,
            time_ns: picked.iter().map(|(one, _)| one.time_ns).min().unwrap_or(0),
            duration_ns: picked.iter().map(|(one, _)| one.duration_ns).sum(),
            period: picked.iter().map(|(one, _)| one.period).max().unwrap_or(0),
        });
    }

    #[test]
    fn the_closest_profile_is_found(world in worlds(), asked in queries(), offset in -30..150_i64) {
        let sources = world.sources();
        let time_ns = START_NS + offset * SECOND_NS;
        let wanted = query(asked.clone(), Pick::Closest { time_ns }, vec![]);
        let merged = block_on(merge(&oracle::env(), &sources, &wanted)).unwrap();
        let selected = world.selected(&asked, TimeRange::ALL);
        let rank = |one: &&Single| {
            (one.time_ns.abs_diff(time_ns), one.time_ns, one.labels.fingerprint(), Reverse(one.id))
        };
        let Some(best) = selected.iter().min_by_key(rank) else {
            prop_assert!(merged.single.is_none() && merged.groups[0].tree == MergedTree::new());
            return Ok(());
        };
        let single = merged.single.unwrap();
        prop_assert_eq!((&single.labels, single.time_ns), (&best.labels, best.time_ns));
        prop_assert_eq!((single.period, single.duration_ns), (best.period, best.duration_ns));
        check_tree(&merged.groups[0].tree, &by_path(&exact(&[(best, 1.0)])), Aggregation::Sum);
        let samples = block_on(merge_samples(&oracle::env(), &sources, &wanted)).unwrap();
        check_tree(&samples.tree, &by_path(&exact(&[(best, 1.0)])), Aggregation::Sum);
        prop_assert_eq!(samples.collected.profiles, 1);
    }
}

fn world(value: i64, copies: usize) -> World {
    let shape =
        cambium_blocks::testing::Shape { profiles: 1, types: 1, sample_labels: false, ..Default::default() };
    let mut profile = cambium_blocks::testing::random_profiles(1, &shape).pop().unwrap();
    profile.types = vec!["a:b:c:d:e:delta".parse().unwrap()];
    profile.sample_nodes = vec![cambium_model::stacktrace::NO_PARENT];
    profile.values = vec![value];
    World { profiles: vec![profile; copies], source_of: (0..copies).collect() }
}

fn sum_all() -> MergeQuery {
    let pick = Pick::Range { range: TimeRange::ALL, aggregation: Aggregation::Sum };
    query("a:b:c:d:e:delta".parse().unwrap(), pick, vec![])
}

#[test]
fn a_sum_that_does_not_fit_is_an_error_that_names_the_type() {
    let fits = block_on(merge(&oracle::env(), &world(i64::MAX / 3, 3).sources(), &sum_all())).unwrap();
    assert_eq!(fits.groups[0].tree.self_values, [i64::MAX / 3 * 3]);
    for copies in [2, 7] {
        let error =
            block_on(merge(&oracle::env(), &world(i64::MAX, copies).sources(), &sum_all())).unwrap_err();
        assert!(
            matches!(&error, Error::Overflow { profile_type } if profile_type == "a:b:c:d:e:delta"),
            "{error:?}"
        );
    }
}

#[test]
fn of_two_profiles_of_one_time_the_greatest_id_is_picked() {
    let thread = vec![("thread".into(), SampleLabelValue::Text("main".into()))];
    let mut world = world(1, 2);
    for (number, profile) in (0..).zip(&mut world.profiles) {
        profile.id = ProfileId([9 - number; 16]);
        profile.values = vec![10 + i64::from(number)];
        profile.label_sets = vec![vec![], thread.clone()];
        profile.sample_label_sets = vec![1];
    }
    for source_of in [[0, 0], [0, 1], [1, 0]] {
        world.source_of = source_of.to_vec();
        let mut query = sum_all();
        query.pick = Pick::Range { range: TimeRange::ALL, aggregation: Aggregation::Last };
        let merged = block_on(merge_samples(&oracle::env(), &world.sources(), &query)).unwrap();
        let [sample] = merged.samples[..] else { panic!("{:?}", merged.samples) };
        let labels = &merged.label_sets[sample.label_set as usize];
        assert_eq!((sample.value, &**labels, merged.collected.profiles), (10, &thread, 1), "{source_of:?}");
    }
}

#[test]
fn a_merge_without_memory_is_refused() {
    let error =
        block_on(merge(&oracle::env_with_memory(16), &world(1, 2).sources(), &sum_all())).unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error:?}");
}

#[test]
fn no_sources_make_a_bare_tree() {
    let merged = block_on(merge(&oracle::env(), &Sources::default(), &sum_all())).unwrap();
    assert_eq!(merged.groups.len(), 1);
    assert_eq!(merged.groups[0].tree, MergedTree::new());
}
