//! The head against a naive model: stacks as lists, sums as maps.

use std::collections::BTreeMap;

use cambium_model::labels::Labels;
use cambium_model::profile::{ProfileId, SampleLabelValue};
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use cambium_model::tenant::{TenantId, TenantNumber};
use proptest::prelude::*;

use super::*;

/// A stack, innermost first, its values and the number of its label.
type NaiveSample = (Vec<u64>, [i64; 2], i64);

fn tenant() -> Tenant {
    Tenant { id: TenantId::new("t").unwrap(), number: TenantNumber(1) }
}

/// A profile of two types from naive samples.
fn profile(service: &str, time_ns: i64, samples: &[NaiveSample]) -> Profile {
    let mut new = Profile {
        id: ProfileId([0; 16]),
        labels: Labels::from_pairs([("service_name", service)]).unwrap(),
        types: vec!["a:x:count:c:d".parse().unwrap(), "a:y:bytes:c:d".parse().unwrap()],
        time_ns,
        duration_ns: 0,
        period: 1,
        locations: Vec::new(),
        nodes: Vec::new(),
        sample_nodes: Vec::new(),
        values: Vec::new(),
        sample_label_sets: Vec::new(),
        label_sets: vec![Vec::new()],
    };
    let mut known: BTreeMap<(u32, u64), u32> = BTreeMap::new();
    for (stack, _, label) in samples {
        let mut at = NO_PARENT;
        for code in stack.iter().rev() {
            at = *known.entry((at, *code)).or_insert_with(|| {
                new.locations.push(LocationId::named(*code, *code));
                let location = (new.locations.len() - 1) as u32;
                new.nodes.push(Node { parent: at, location });
                (new.nodes.len() - 1) as u32
            });
        }
        new.sample_nodes.push(at);
        new.label_sets.push(vec![("n".into(), SampleLabelValue::Number(*label, "".into()))]);
        new.sample_label_sets.push((new.label_sets.len() - 1) as u32);
    }
    for column in 0..2 {
        new.values.extend(samples.iter().map(|(_, values, _)| values[column]));
    }
    new
}

/// What is in a dataset, in the naive form: (service, type, time, stack, label) to the sum of values.
type Contents = BTreeMap<(String, String, i64, Vec<u64>, i64), i64>;

fn contents(dataset: &Dataset) -> Contents {
    let mut found = Contents::new();
    for chunk in &dataset.chunks {
        for row in &chunk.profiles {
            let mut values = Vec::new();
            chunk.read_values(row, &mut values);
            assert_eq!(values.iter().sum::<i64>(), row.total);
            for (sample, value) in row.sample_range().zip(values) {
                let mut stack = Vec::new();
                let mut at = chunk.stacks[sample];
                while dataset.tree.nodes[at as usize].parent != NO_PARENT {
                    let node = dataset.tree.nodes[at as usize];
                    stack.push(dataset.tree.locations[node.location as usize].low());
                    at = node.parent;
                }
                let label = match &dataset.label_sets[chunk.label_sets[sample] as usize][0].1 {
                    SampleLabelValue::Number(number, _) => *number,
                    SampleLabelValue::Text(text) => panic!("unexpected {text}"),
                };
                let table = &dataset.series;
                let profile_type = &table.types[table.type_of[row.series as usize] as usize];
                let service = table.value(row.series, "service_name").to_owned();
                let key = (service, profile_type.to_string(), row.time_ns, stack, label);
                *found.entry(key).or_default() += value;
            }
        }
    }
    found
}

/// Sums by (type, scope, bucket) and node position, from the running sums and from the samples.
fn rolled_up(dataset: &Dataset) -> [BTreeMap<(RollupKey, u32), i64>; 2] {
    let mut from_rollups = BTreeMap::new();
    for (key, sums) in &dataset.rollups {
        let stacks = &dataset.stacks[key.scope_index as usize];
        for (node, sum) in stacks.iter().zip(sums.iter()).filter(|(_, sum)| **sum != 0) {
            from_rollups.insert((*key, *node), *sum);
        }
    }
    let mut from_samples = BTreeMap::new();
    for chunk in &dataset.chunks {
        for row in &chunk.profiles {
            let key = RollupKey {
                type_index: dataset.series.type_of[row.series as usize],
                scope_index: dataset.series.scope_of[row.series as usize],
                bucket_ns: bucket_start(row.time_ns),
            };
            let mut values = Vec::new();
            chunk.read_values(row, &mut values);
            for (stack, value) in chunk.stacks[row.sample_range()].iter().zip(values) {
                *from_samples.entry((key, *stack)).or_default() += value;
            }
        }
    }
    from_samples.retain(|_, sum| *sum != 0);
    [from_rollups, from_samples]
}

proptest! {
    #[test]
    fn a_head_holds_what_was_added(
        pushes in prop::collection::vec(
            (
                "[ab]",
                0..3_i64,
                prop::collection::vec(
                    (prop::collection::vec(0..4_u64, 0..5), [-2..3_i64, 0..3_i64], 1..3_i64),
                    0..8,
                ),
            ),
            0..12,
        ),
    ) {
        let mut head = Head::new(tenant());
        let mut expected = Contents::new();
        for (service, bucket, samples) in &pushes {
            let time_ns = bucket * cambium_model::time::ROLLUP_BUCKET_NS;
            head.add(&profile(service, time_ns, samples), &["service_name".to_owned()]);
            for (stack, values, label) in samples {
                for (name, value) in [("a:x:count:c:d", values[0]), ("a:y:bytes:c:d", values[1])] {
                    if value != 0 {
                        let key = (service.clone(), name.to_owned(), time_ns, stack.clone(), *label);
                        *expected.entry(key).or_default() += value;
                    }
                }
            }
        }
        let dataset = head.snapshot();
        prop_assert_eq!(contents(&dataset), expected);
        let [from_rollups, from_samples] = rolled_up(&dataset);
        prop_assert_eq!(from_rollups, from_samples);
    }
}

#[test]
fn a_snapshot_does_not_change() {
    let mut head = Head::new(tenant());
    head.add(&profile("a", 0, &[(vec![1, 2], [1, 2], 1)]), &[]);
    let before = head.snapshot();
    head.add(&profile("b", 0, &[(vec![3], [5, 5], 2)]), &[]);
    assert_eq!(before.profile_count(), 2);
    assert_eq!(contents(&before).len(), 2);
    assert_eq!(contents(&head.snapshot()).len(), 4);
}

#[test]
fn a_sum_beyond_64_bits_is_left_to_the_samples() {
    let mut head = Head::new(tenant());
    for _ in 0..3 {
        head.add(&profile("a", 0, &[(vec![1], [i64::MAX, 1], 1)]), &[]);
    }
    let dataset = head.snapshot();
    assert_eq!(dataset.series.types.len(), 2);
    let kept: Vec<u32> = dataset.rollups.keys().map(|key| key.type_index).collect();
    assert_eq!(kept, [1], "the type whose sums fit");
}

#[test]
fn types_of_a_push_share_stacks() {
    let mut head = Head::new(tenant());
    head.add(&profile("a", 0, &[(vec![1, 2, 3], [1, 1], 1), (vec![9, 2, 3], [1, 1], 1)]), &[]);
    // A scope node, 3, 2, and the two innermost frames.
    assert_eq!(head.snapshot().tree.len(), 5);
    assert_eq!(head.series_count(), 2);
    assert!(head.bytes() > 0);
}

#[test]
fn the_estimate_covers_the_columns() {
    let mut head = Head::new(tenant());
    for number in 0..400 {
        let samples: Vec<NaiveSample> =
            (0..500_u64).map(|code| (vec![code % 50 + number, code], [1, 1 << 33], 1)).collect();
        head.add(&profile("a", number as i64, &samples), &[]);
    }
    let dataset = head.snapshot();
    assert!(dataset.chunks.len() > 1);
    let chunks: usize = dataset.chunks.iter().map(|chunk| chunk.heap_bytes()).sum();
    let tree = dataset.tree.len() * (size_of::<Node>() + size_of::<PathHash>());
    let held = chunks + tree;
    assert!(head.bytes() > held, "{} of {held} B", head.bytes());
    assert!(head.bytes() < 4 * tree + 2 * chunks, "{} of {held} B", head.bytes());
}
