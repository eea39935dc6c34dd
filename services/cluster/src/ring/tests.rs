use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::node::tests::node;
use crate::node::{NodeState, WIRE_VERSION_MAX};

fn view<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> View {
    View::new(node("this", "").name, nodes.into_iter().map(|node| Arc::new(node.clone())), [])
}

fn names<'a>(nodes: impl IntoIterator<Item = &'a Arc<Node>>) -> Vec<String> {
    nodes.into_iter().map(|node| node.name.to_string()).collect()
}

fn owner(ring: &Ring, partition: u32) -> Option<String> {
    ring.owner(Partition(partition)).map(|node| node.name.to_string())
}

/// Up to 24 nodes of random names in up to four zones.
fn nodes() -> impl Strategy<Value = Vec<Node>> {
    let named = proptest::collection::btree_map("[a-z]{1,6}-[0-9]{1,3}", 0..4_u8, 1..24);
    named.prop_map(|nodes| nodes.iter().map(|(name, zone)| node(name, &format!("z{zone}"))).collect())
}

/// How many partitions may move when one ingester less becomes `more`, or the other way round.
fn moved_max(partitions: u32, more: usize) -> f64 {
    f64::from(partitions.div_ceil(more as u32)) + 2.0 * f64::from(partitions).sqrt()
}

fn moved(before: &Ring, after: &Ring) -> usize {
    (0..before.partitions()).filter(|partition| owner(before, *partition) != owner(after, *partition)).count()
}

proptest! {
    #[test]
    fn every_partition_has_an_owner_and_nobody_more_than_a_fair_share(
        nodes in nodes(), partitions in 1..300_u32,
    ) {
        let ring = Ring::new(&view(&nodes), partitions);
        let mut held = BTreeMap::<String, u32>::new();
        for partition in 0..partitions {
            *held.entry(owner(&ring, partition).unwrap()).or_default() += 1;
        }
        let most = *held.values().max().unwrap();
        prop_assert!(most <= partitions.div_ceil(nodes.len() as u32), "{held:?}");
        prop_assert_eq!(owner(&ring, partitions), None);
    }

    #[test]
    fn the_order_in_which_nodes_are_seen_does_not_matter(
        (nodes, shuffled) in nodes().prop_flat_map(|nodes| (Just(nodes.clone()), Just(nodes).prop_shuffle())),
        key in any::<u64>(),
    ) {
        let (one, other) = (view(&nodes), view(&shuffled));
        prop_assert_eq!(Ring::new(&one, 64), Ring::new(&other, 64));
        let tenant = key.to_string();
        let shard = |view| names(shuffle_shard(view, &tenant, Role::Ingester, 3));
        prop_assert_eq!(shard(&one), shard(&other));
        let order = |view| names(by_key(view, Role::Querier, tenant.as_bytes()));
        prop_assert_eq!(order(&one), order(&other));
    }

    #[test]
    fn candidates_begin_with_the_owner_and_are_spread_over_zones(nodes in nodes(), partition in 0..64_u32) {
        let ring = Ring::new(&view(&nodes), 64);
        let candidates = ring.candidates(Partition(partition));
        prop_assert_eq!(Some(candidates[0]), ring.owner(Partition(partition)));
        prop_assert_eq!(names(candidates.iter().copied()).into_iter().collect::<BTreeSet<_>>().len(), nodes.len());
        let zones: BTreeSet<&str> = nodes.iter().map(|node| node.zone.as_str()).collect();
        let first: BTreeSet<&str> = candidates[..zones.len()].iter().map(|node| node.zone.as_str()).collect();
        prop_assert_eq!(first, zones);
    }

    #[test]
    fn an_ingester_more_or_less_moves_little(nodes in nodes(), partitions in 1..300_u32) {
        let (newcomer, others) = nodes.split_last().unwrap();
        prop_assume!(!others.is_empty());
        let (fewer, more) = (Ring::new(&view(others), partitions), Ring::new(&view(&nodes), partitions));
        let most = moved_max(partitions, nodes.len());
        prop_assert!(moved(&fewer, &more) as f64 <= most, "{} of {partitions}", newcomer.name);
    }

    #[test]
    fn a_shard_is_as_large_as_asked_and_spread_over_zones(nodes in nodes(), tenant in "[a-z]{1,9}", size in 1..9_usize) {
        let view = view(&nodes);
        let shard = shuffle_shard(&view, &tenant, Role::Ingester, size);
        prop_assert_eq!(shard.len(), size.min(nodes.len()));
        let zones: BTreeSet<&str> = nodes.iter().map(|node| node.zone.as_str()).collect();
        let of_shard: BTreeSet<&str> = shard.iter().map(|node| node.zone.as_str()).collect();
        prop_assert_eq!(of_shard.len(), zones.len().min(size));
        let all = shuffle_shard(&view, &tenant, Role::Ingester, 0);
        prop_assert_eq!(&all[..shard.len()], &shard[..], "a larger shard has the smaller one in it");
        prop_assert_eq!(all.len(), nodes.len());
    }

    #[test]
    fn a_node_more_or_less_changes_one_member_of_a_shard_at_most(
        nodes in nodes(), tenant in "[a-z]{1,9}", size in 1..9_usize, goes in any::<prop::sample::Index>(),
    ) {
        let goes = goes.index(nodes.len());
        let fewer: Vec<_> = nodes.iter().enumerate().filter(|(n, _)| *n != goes).map(|(_, node)| node).collect();
        let shard = |view: &View| -> BTreeSet<String> {
            names(shuffle_shard(view, &tenant, Role::Ingester, size)).into_iter().collect()
        };
        let (with, without) = (shard(&view(&nodes)), shard(&view(fewer)));
        prop_assert!(with.difference(&without).count() <= 1, "{with:?} {without:?}");
        prop_assert!(without.difference(&with).count() <= 1, "{with:?} {without:?}");
    }

    #[test]
    fn the_order_for_a_key_is_the_same_without_a_node(nodes in nodes(), key in any::<[u8; 8]>()) {
        let all = view(&nodes);
        let order = names(by_key(&all, Role::Querier, &key));
        let without_first = view(nodes.iter().filter(|node| node.name.as_str() != order[0]));
        prop_assert_eq!(&names(by_key(&without_first, Role::Querier, &key)), &order[1..]);
    }
}

#[test]
fn balance_costs_few_moves() {
    for (partitions, ingesters) in [(16, 3), (64, 3), (64, 8), (256, 8), (256, 30), (1_024, 30)] {
        let mut extra = Vec::new();
        for round in 0..40 {
            let all: Vec<_> = (0..=ingesters).map(|n| node(&format!("r{round}-ingester-{n}"), "")).collect();
            let ring = |count: usize| Ring::new(&view(&all[..count]), partitions);
            let fair = (partitions as usize).div_ceil(ingesters + 1);
            extra.push(moved(&ring(ingesters), &ring(ingesters + 1)) as f64 - fair as f64);
        }
        let most = extra.iter().copied().fold(f64::MIN, f64::max);
        let mean = extra.iter().sum::<f64>() / extra.len() as f64;
        println!(
            "{partitions} partitions, {ingesters} ingesters and one more: {mean:.1} moves besides its share, at most {most}"
        );
        assert!(most <= f64::from(partitions).sqrt() && mean <= f64::from(partitions).sqrt() / 2.0);
    }
}

#[test]
fn only_usable_ingesters_are_given_anything() {
    let in_state = |name: &str, state| Node { state, ..node(name, "") };
    let nodes = [
        in_state("joining", NodeState::Joining),
        in_state("leaving", NodeState::Leaving),
        in_state("read-only", NodeState::ReadOnly),
        Node { wire_version: WIRE_VERSION_MAX + 1, ..node("newer", "") },
        Node { roles: [Role::Querier].into_iter().collect(), ..node("querier", "") },
    ];
    let without = view(&nodes);
    assert_eq!(
        (owner(&Ring::new(&without, 8), 0), Ring::new(&without, 8).candidates(Partition(0))),
        (None, vec![])
    );
    assert_eq!(shuffle_shard(&without, "t", Role::Ingester, 3), Vec::<&Arc<Node>>::new());
    let active = node("active", "");
    let with = view(nodes.iter().chain([&active]));
    let ring = Ring::new(&with, 8);
    assert!((0..8).all(|partition| owner(&ring, partition).as_deref() == Some("active")));
    assert_eq!(names(shuffle_shard(&with, "t", Role::Ingester, 0)), ["active"]);
    assert_eq!(names(by_key(&with, Role::Ingester, b"k")), ["active"]);
}

/// If this fails, an upgrade would move every partition and empty every cache.
#[test]
fn outcomes_are_the_same_for_ever() {
    let nodes: Vec<_> = (0..5).map(|n| node(&format!("ingester-{n}"), ["a", "b", "c"][n % 3])).collect();
    let view = view(&nodes);
    let ring = Ring::new(&view, 8);
    let digits =
        |nodes: Vec<&Arc<Node>>| nodes.iter().map(|node| &node.name.as_str()[9..]).collect::<String>();
    let candidates: Vec<_> = (0..8).map(|partition| digits(ring.candidates(Partition(partition)))).collect();
    assert_eq!(candidates, ["42301", "13204", "43201", "24310", "01234", "20431", "01234", "12304"]);
    let shards = ["anonymous", "team-a", "team-b"]
        .map(|tenant| digits(shuffle_shard(&view, tenant, Role::Ingester, 3)));
    assert_eq!(shards, ["243", "234", "201"]);
    let orders = [&b"block-1"[..], b"block-2"].map(|key| digits(by_key(&view, Role::Querier, key)));
    assert_eq!(orders, ["03142", "41032"]);
    assert_eq!(claim(Domain::Partition, &[0, 0, 0, 1], "ingester-0"), 9_664_921_825_056_838_433);
}
