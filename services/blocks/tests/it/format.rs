//! What the bytes of a block are, and how it comes into a store.

use std::collections::BTreeSet;
use std::sync::Arc;

use cambium_blocks::cache::Cache;
use cambium_blocks::source::{Pick, Profiles, TreeScan};
use cambium_blocks::testing::{
    DatasetBuilder, FaultyStore, PutFault, Shape, random_dataset, random_profiles, tenant,
};
use cambium_blocks::verify::verify;
use cambium_blocks::writer::{Compression, encode, put};
use cambium_blocks::{Dataset, Error, Source, reader};
use cambium_model::block::{LABEL_VALUES_LISTED_MAX, SCOPES_LISTED_MAX, SectionKind};
use cambium_model::labels::Labels;
use cambium_model::profile::{Profile, ProfileId};
use cambium_model::stacktrace::NO_PARENT;
use cambium_model::time::{ROLLUP_BUCKET_NS, TimeRange};
use cambium_runtime::metrics::Metrics;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use proptest::prelude::*;

use crate::store::{EPOCH, block, log_range, run, sources};

/// One profile of one type whose samples have no stack.
fn bare_profile(labels: &[(&str, &str)], time_ns: i64, values: &[i64]) -> Profile {
    Profile {
        id: ProfileId([7; 16]),
        labels: Labels::from_pairs(labels.iter().copied()).unwrap(),
        types: vec!["wall:wall:nanoseconds:wall:nanoseconds".parse().unwrap()],
        time_ns,
        duration_ns: 0,
        period: 1,
        locations: vec![],
        nodes: vec![],
        sample_nodes: vec![NO_PARENT; values.len()],
        values: values.to_vec(),
        sample_label_sets: vec![],
        label_sets: vec![],
    }
}

fn dataset(profiles: impl IntoIterator<Item = Profile>) -> Dataset {
    let mut builder = DatasetBuilder::new(tenant(1));
    profiles.into_iter().for_each(|profile| builder.push(&profile));
    builder.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn encoding_is_deterministic_and_verifiable(seed in any::<u64>(), level in 0..=3u8, cold in any::<bool>()) {
        let compression = if cold { Compression::Cold } else { Compression::Hot };
        let datasets = [3, 1, 2].map(|number| random_dataset(tenant(number), seed ^ u64::from(number), &Shape::default()));
        let encoded = block(&datasets, level, compression);
        let [third, first, second] = datasets;
        let again = block(&[first, second, third], level, compression);
        prop_assert_eq!(&encoded.bytes, &again.bytes, "tenants are sorted");
        prop_assert_eq!(&encoded.meta, &again.meta);
        let numbers: Vec<u32> = encoded.meta.datasets.iter().map(|dataset| dataset.tenant.number.0).collect();
        prop_assert_eq!(numbers, [1, 2, 3]);
        prop_assert_eq!(verify(&encoded.meta.path, &encoded.bytes).unwrap(), encoded.meta);
    }
}

#[test]
fn what_happened_first_does_not_matter() {
    let profiles = random_profiles(11, &Shape::default());
    let forward = block(&[dataset(profiles.clone())], 0, Compression::Hot);
    let backward = block(&[dataset(profiles.into_iter().rev())], 0, Compression::Hot);
    assert_eq!(forward.bytes, backward.bytes);
}

#[test]
fn the_entry_can_be_read_from_the_object() {
    run(async {
        // Enough labels for a table of contents that the first read does not hold.
        let named = |i: usize| [("service_name", "api".to_owned()), ("pod", format!("pod-{i:0>1000}"))];
        let profiles = (0..200).map(|i| {
            let labels = named(i);
            let pairs: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, &**value)).collect();
            bare_profile(&pairs, 5, &[1])
        });
        for datasets in
            [vec![], vec![dataset(profiles)], vec![random_dataset(tenant(2), 5, &Shape::default())]]
        {
            let encoded = block(&datasets, 0, Compression::Hot);
            let store = InMemory::new();
            put(&store, &encoded).await.unwrap();
            assert_eq!(reader::open(&store, &encoded.meta.path).await.unwrap(), encoded.meta);
        }
    });
}

#[test]
fn datasets_without_profiles_are_left_out() {
    let encoded =
        block(&[Dataset::new(tenant(1)), dataset([bare_profile(&[], 0, &[])])], 0, Compression::Hot);
    assert_eq!(encoded.meta.datasets.len(), 1);
    let none = block(&[], 0, Compression::Hot);
    assert_eq!(none.meta.path, "v1/l0/0001/1970010100/00000002-000000000000000a-3.blk");
    assert_eq!(verify(&none.meta.path, &none.bytes).unwrap(), none.meta);
}

#[test]
fn a_profile_without_samples_is_kept() {
    run(async {
        let profiles = [bare_profile(&[("a", "b")], 5, &[]), bare_profile(&[("a", "b")], 6, &[0])];
        let encoded = block(&[dataset(profiles)], 0, Compression::Hot);
        assert_eq!(verify(&encoded.meta.path, &encoded.bytes).unwrap(), encoded.meta);
        let source = sources(&encoded).await.remove(0);
        let profiles = source.profiles(&vec![0..1], TimeRange::ALL).await.unwrap();
        assert_eq!((profiles.time_ns, profiles.samples), (vec![5, 6], vec![0, 0]));
        let scan = TreeScan { rows: vec![0..1], range: TimeRange::ALL, pick: Pick::Sum };
        assert!(source.tree(&scan).await.unwrap().self_values.iter().all(|value| *value == 0));
    });
}

#[test]
fn summaries_list_values_and_scopes_while_they_are_few() {
    let entry = |count: usize| {
        let profiles = (0..count).map(|i| {
            let (service, pod) = (format!("s{i:03}"), format!("p{i:03}"));
            let mut pairs = vec![("service_name", service.as_str()), ("pod", &pod)];
            pairs.truncate(if i == 0 { 1 } else { 2 });
            bare_profile(&pairs, 5, &[1])
        });
        block(&[dataset(profiles)], 0, Compression::Hot).meta.datasets.remove(0)
    };
    let few = entry(SCOPES_LISTED_MAX);
    assert_eq!((few.scopes.len(), few.scopes[9].as_str()), (SCOPES_LISTED_MAX, "s009"));
    let [pod, service] = &few.labels[..] else { panic!("{:?}", few.labels) };
    assert_eq!((pod.name.as_str(), pod.distinct, pod.on_every_series), ("pod", 63, false));
    assert_eq!((service.distinct, service.on_every_series, service.values.len()), (64, true, 64));
    let many = entry(LABEL_VALUES_LISTED_MAX + 1);
    assert!(many.scopes.is_empty());
    assert_eq!((many.labels[0].values.len(), many.labels[0].distinct), (LABEL_VALUES_LISTED_MAX, 256));
    assert_eq!((many.labels[1].values.len(), many.labels[1].distinct), (0, 257));
    assert_eq!(many.types.len(), 1);
}

#[test]
fn series_without_profiles_leave_no_trace() {
    let mut dataset =
        dataset([bare_profile(&[("gone", "x")], 5, &[1]), bare_profile(&[("kept", "y")], 5, &[1])]);
    let chunk = Arc::make_mut(&mut dataset.chunks[0]);
    chunk.profiles.remove(0);
    let entry = block(&[dataset], 0, Compression::Hot).meta.datasets.remove(0);
    assert_eq!((entry.series, entry.labels.len(), entry.labels[0].name.as_str()), (1, 1, "kept"));
}

#[test]
fn sums_that_do_not_fit_are_an_error_only_where_they_are_asked_for() {
    run(async {
        let at = |bucket: i64, value| bare_profile(&[("a", "b")], bucket * ROLLUP_BUCKET_NS, &[value]);
        let profiles = [at(0, i64::MAX), at(1, i64::MAX), at(1, 1), at(2, i64::MIN), at(3, 7)];
        let dataset = dataset(profiles);
        let encoded = block(std::slice::from_ref(&dataset), 0, Compression::Hot);
        assert_eq!(verify(&encoded.meta.path, &encoded.bytes).unwrap(), encoded.meta);
        let source = sources(&encoded).await.remove(0);
        for source in [&dataset as &dyn Source, &source] {
            let sum = async |from: i64, to: i64| {
                let range = TimeRange::new(from * ROLLUP_BUCKET_NS, to * ROLLUP_BUCKET_NS);
                let tree = source.tree(&TreeScan { rows: vec![0..1], range, pick: Pick::Sum }).await;
                tree.map(|tree| tree.self_values.iter().sum::<i64>())
            };
            assert_eq!(sum(0, 1).await.unwrap(), i64::MAX);
            assert!(
                matches!(sum(1, 2).await, Err(Error::Overflow { profile_type }) if profile_type.starts_with("wall"))
            );
            assert!(matches!(sum(0, 2).await, Err(Error::Overflow { .. })));
            assert_eq!(sum(1, 3).await.unwrap(), 0, "what is too large on the way may fit in the end");
            assert_eq!(sum(3, 4).await.unwrap(), 7);
        }
    });
}

#[test]
fn ids_are_dropped_above_level_1() {
    run(async {
        let profiles = async |level| -> Profiles {
            let encoded = block(&[dataset([bare_profile(&[], 5, &[1])])], level, Compression::Cold);
            sources(&encoded).await.remove(0).profiles(&vec![0..1], TimeRange::ALL).await.unwrap()
        };
        assert_eq!(profiles(1).await.ids, [ProfileId([7; 16])]);
        assert!(profiles(2).await.ids.is_empty());
    });
}

#[test]
fn putting_again_is_success_and_putting_something_else_is_not() {
    run(async {
        let faulty = FaultyStore::new(Arc::new(InMemory::new()));
        let encoded = block(&[dataset([bare_profile(&[], 5, &[1])])], 0, Compression::Hot);
        for fault in [PutFault::NotWritten, PutFault::AnswerLost] {
            faulty.fail_puts(fault, 1);
            assert!(matches!(put(&faulty, &encoded).await, Err(Error::Store { .. })), "{fault:?}");
        }
        put(&faulty, &encoded).await.unwrap();
        put(&faulty, &encoded).await.unwrap();
        let other = block(&[dataset([bare_profile(&[], 5, &[2])])], 0, Compression::Hot);
        assert_eq!(other.meta.path, encoded.meta.path);
        assert!(
            matches!(put(&faulty, &other).await, Err(Error::PathTaken { path }) if path == other.meta.path)
        );
        let longer = block(&[dataset([bare_profile(&[("a", "b")], 5, &[1])])], 0, Compression::Hot);
        assert!(matches!(put(&faulty, &longer).await, Err(Error::PathTaken { .. })));
        let later = encode(&[], log_range(), EPOCH + 1, 0, Compression::Hot).unwrap();
        put(&faulty, &later).await.unwrap();
    });
}

/// 350,000 samples: more than is fetched whole.
fn large() -> Dataset {
    let shape =
        Shape { profiles: 1_300, samples: 700, depth: 3, locations: 400, types: 1, ..Shape::default() };
    random_dataset(tenant(1), 1, &shape)
}

#[test]
fn no_more_is_fetched_than_is_asked_for() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
        let encoded = block(&[large()], 0, Compression::Hot);
        put(&*store, &encoded).await.unwrap();
        let samples = encoded.meta.datasets[0].section(SectionKind::Samples).copied().unwrap();
        assert!(samples.length > 3 * (256 << 10), "{samples:?}");
        let cache = Arc::new(Cache::new(64 << 20, &Metrics::new()));
        let meta = Arc::new(encoded.meta.clone());
        let source =
            || cambium_blocks::BlockSource::new(Arc::clone(&store), Arc::clone(&cache), Arc::clone(&meta), 0);
        let table = source().series().await.unwrap();
        let rows: BTreeSet<u32> = table.type_of.iter().copied().collect();
        assert_eq!(rows.len(), 2, "two types");

        let series = source();
        let of_type = vec![0..table.type_of.partition_point(|index| *index == 0) as u32];
        let found = series.profiles(&of_type, TimeRange::ALL).await.unwrap();
        assert_eq!(series.stats().sample_rows, 0);
        assert!(series.stats().bytes_fetched < encoded.bytes.len() as u64 / 8, "{:?}", series.stats());

        let scan = |rows, range| TreeScan { rows, range, pick: Pick::Sum };
        let whole = source();
        whole.tree(&scan(of_type, TimeRange::ALL)).await.unwrap();
        assert_eq!(whole.stats().sample_rows, 0, "rollups only");
        assert!(whole.stats().rollup_rows > 0);

        let (from, to) = (found.time_ns[0], found.time_ns[1]);
        let narrow = source();
        narrow.tree(&scan(vec![0..1], TimeRange::new(from, to))).await.unwrap();
        let cost = narrow.stats();
        assert_eq!((cost.sample_rows, cost.rollup_rows), (u64::from(found.samples[0]), 0));
        assert!(cost.bytes_fetched < samples.length * 3 / 5, "{cost:?} of {}", samples.length);

        let again = source();
        again.tree(&scan(vec![0..1], TimeRange::new(from, to))).await.unwrap();
        assert_eq!((again.stats().requests, again.stats().bytes_fetched), (0, 0), "all is cached");
    });
}
