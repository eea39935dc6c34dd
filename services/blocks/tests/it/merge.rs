//! A merge is what one head would have written: byte by byte, however the profiles were spread over its inputs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cambium_blocks::merge::{Input, Wanted, merge, samples_by_scope};
use cambium_blocks::series_table::ScopeName;
use cambium_blocks::testing::{DatasetBuilder, Shape, random_profiles, tenant};
use cambium_blocks::verify::verify;
use cambium_blocks::writer::spool::Scratch;
use cambium_blocks::writer::{Compression, EncodedBlock, EncodedDataset, assemble};
use cambium_blocks::{Dataset, Error};
use cambium_model::block::BlockMeta;
use cambium_model::deletion::Deletion;
use cambium_model::labels::{Labels, SERVICE_NAME};
use cambium_model::profile::Profile;
use cambium_model::retention::{RetentionRule, RetentionRules};
use cambium_model::selector::Selector;
use cambium_model::time::TimeRange;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use proptest::prelude::*;

use crate::store::{block, run};

fn dataset<'a>(profiles: impl IntoIterator<Item = &'a Profile>) -> Dataset {
    let mut builder = DatasetBuilder::new(tenant(1)).chunk_samples(16);
    profiles.into_iter().for_each(|profile| builder.push(profile));
    builder.finish()
}

fn input(block: &EncodedBlock, spoil: impl FnOnce(&mut Vec<u8>)) -> Result<Input, Error> {
    let mut bytes = block.bytes.to_vec();
    spoil(&mut bytes);
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    Input::open(Arc::new(file), Arc::new(block.meta.clone()), 0)
}

/// The profiles as `count` blocks of one dataset each, as far as any are of it.
fn inputs(profiles: &[Profile], count: usize, place: impl Fn(usize) -> usize) -> Vec<Input> {
    let of = |wanted: usize| {
        let own = profiles.iter().enumerate().filter(|(index, _)| place(*index) % count == wanted);
        dataset(own.map(|(_, profile)| profile))
    };
    let blocks = (0..count).map(|wanted| block(&[of(wanted)], 0, Compression::Hot));
    blocks
        .filter(|block| !block.meta.datasets.is_empty())
        .map(|block| input(&block, |_| {}).unwrap())
        .collect()
}

fn everything() -> Wanted<'static> {
    Wanted { keep_ids: true, ..Wanted::everything(1, Compression::Cold) }
}

/// A block of the dataset, as whole as an object.
fn object(dataset: Option<EncodedDataset>, like: &BlockMeta) -> EncodedBlock {
    let meta = BlockMeta { datasets: Vec::new(), ..like.clone() };
    assemble(meta, dataset.into_iter().collect()).into_memory().unwrap()
}

/// What one head of these profiles would have been written as.
fn check<'a>(merged: Option<EncodedDataset>, profiles: impl IntoIterator<Item = &'a Profile>, level: u8) {
    let expected = block(&[dataset(profiles)], level, Compression::Cold);
    let merged = object(merged, &expected.meta);
    assert_eq!(merged.meta, expected.meta);
    assert!(merged.bytes == expected.bytes, "other bytes, though all checksums are equal");
    verify(&merged.meta.path, &merged.bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_merge_is_what_one_head_would_have_written(
        seed in any::<u64>(), profiles in 0..60usize, count in 1..6usize, places in any::<u64>(), keep_ids in any::<bool>(),
        level in 2..=3u8, on_disk in any::<bool>(),
    ) {
        let profiles = random_profiles(seed, &Shape { profiles, ..Shape::default() });
        let place = |index: usize| (places.rotate_left(index as u32 * 7) % 97) as usize;
        let inputs = inputs(&profiles, count, place);
        let folder = tempfile::tempdir().unwrap();
        let scratch = if on_disk { Scratch::folder(folder.path(), 100) } else { Scratch::memory() };
        let level = if keep_ids { 1 } else { level };
        let merged = merge(&inputs, &Wanted { level, keep_ids, ..everything() }, &scratch).unwrap();
        check(merged, &profiles, level);
    }

    #[test]
    fn merging_in_steps_is_merging_at_once(seed in any::<u64>(), keep_ids in any::<bool>()) {
        let mut profiles = random_profiles(seed, &Shape::default());
        if !keep_ids {
            // Two of one series and instant are ordered by their ids, and those are gone after the first step.
            let mut seen = BTreeSet::new();
            profiles.retain(|profile| seen.insert((profile.labels.clone(), profile.time_ns)));
        }
        let inputs = inputs(&profiles, 4, |index| index);
        let level = if keep_ids { 1 } else { 2 };
        let wanted = Wanted { level, keep_ids, ..everything() };
        let like = block(&[dataset(&profiles)], 0, Compression::Hot).meta;
        let steps: Vec<Input> = inputs
            .chunks(2)
            .map(|pair| object(merge(pair, &wanted, &Scratch::memory()).unwrap(), &like))
            .map(|block| input(&block, |_| {}).unwrap())
            .collect();
        let merged = merge(&steps, &Wanted { level, ..everything() }, &Scratch::memory()).unwrap();
        check(merged, &profiles, level);
    }

    #[test]
    fn deleted_profiles_leave_no_trace(seed in any::<u64>(), from in 0..3_000i64, length in 0..3_000i64) {
        let profiles = random_profiles(seed, &Shape::default());
        let start = Shape::default().start_ns;
        let second = 1_000_000_000;
        let deletions = [
            Deletion {
                selector: r#"{pod="pod-1"}"#.parse().unwrap(),
                range: TimeRange::new(start + from * second, start + (from + length) * second),
            },
            Deletion { selector: r#"{zone="",service_name="service-0"}"#.parse().unwrap(), range: TimeRange::ALL },
        ];
        let inputs = inputs(&profiles, 3, |index| index);
        let merged = merge(&inputs, &Wanted { deletions: &deletions, ..everything() }, &Scratch::memory()).unwrap();
        let is_left = |profile: &&Profile| {
            !deletions.iter().any(|deletion| {
                deletion.selector.matches(&profile.labels) && deletion.range.contains(profile.time_ns)
            })
        };
        check(merged, profiles.iter().filter(is_left), 1);
    }

    #[test]
    fn parts_by_scope_are_the_whole(seed in any::<u64>(), cut in 0..5usize) {
        let profiles = random_profiles(seed, &Shape::default());
        let inputs = inputs(&profiles, 3, |index| index);
        let scopes: Vec<ScopeName> = samples_by_scope(&inputs, &everything()).unwrap().into_keys().collect();
        let (first, second) = scopes.split_at(cut.min(scopes.len()));
        for part in [first, second] {
            let part: BTreeSet<ScopeName> = part.iter().cloned().collect();
            let merged = merge(&inputs, &Wanted { scopes: Some(&part), ..everything() }, &Scratch::memory()).unwrap();
            let is_of_part = |profile: &&Profile| part.contains(&scope(&profile.labels));
            check(merged, profiles.iter().filter(is_of_part), 1);
        }
    }
}

#[test]
fn classes_of_retention_are_the_whole() {
    let profiles = random_profiles(7, &Shape::default());
    let inputs = inputs(&profiles, 3, |index| index);
    let rule = |selector: &str| RetentionRule { selector: selector.parse().unwrap(), retention_secs: 1 };
    let rules = [r#"{pod="pod-1"}"#, r#"{pod=~"pod-[12]",zone=""}"#, r#"{no="such"}"#].map(rule);
    let selectors: Vec<Selector> = rules.iter().map(|rule| rule.selector.clone()).collect();
    let rules: RetentionRules = Vec::from(rules).try_into().unwrap();
    let mut sizes = Vec::new();
    for class in 0..=selectors.len() {
        let wanted = Wanted { class: Some((&rules, class)), ..everything() };
        let merged = merge(&inputs, &wanted, &Scratch::memory()).unwrap();
        let first = |profile: &Profile| selectors.iter().position(|rule| rule.matches(&profile.labels));
        let own: Vec<&Profile> =
            profiles.iter().filter(|profile| first(profile).unwrap_or(selectors.len()) == class).collect();
        sizes.push(own.len());
        if own.is_empty() { assert!(merged.is_none()) } else { check(merged, own, 1) }
    }
    assert_eq!(sizes.iter().map(|size| *size > 0).collect::<Vec<_>>(), [true, true, false, true]);
}

fn scope(labels: &Labels) -> ScopeName {
    match labels.get(SERVICE_NAME) {
        Some(value) => ScopeName { value: value.into(), label: SERVICE_NAME.into() },
        None => ScopeName { value: "unknown".into(), label: "".into() },
    }
}

#[test]
fn a_merge_that_nobody_waits_for_ends() {
    let inputs = inputs(&random_profiles(7, &Shape::default()), 2, |index| index);
    let stop = AtomicBool::new(true);
    let stopped = merge(&inputs, &Wanted { stop: Some(&stop), ..everything() }, &Scratch::memory());
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
}

#[test]
fn samples_are_counted_by_scope() {
    let profiles = random_profiles(7, &Shape::default());
    let counted = samples_by_scope(&inputs(&profiles, 3, |index| index), &everything()).unwrap();
    let all: u64 = counted.values().sum();
    assert_eq!(all, dataset(&profiles).sample_count() as u64);
    let alone = profiles.iter().filter(|profile| scope(&profile.labels).value == "service-1".into());
    let of_one = counted.iter().find(|(scope, _)| &*scope.value == "service-1").unwrap().1;
    assert_eq!(*of_one, dataset(alone).sample_count() as u64);
}

#[test]
fn a_damaged_input_is_refused() {
    let block = block(&[dataset(&random_profiles(7, &Shape::default()))], 0, Compression::Hot);
    for section in &block.meta.datasets[0].sections {
        let at = (section.offset + section.length / 2) as usize;
        let damaged = input(&block, |bytes| bytes[at] ^= 1);
        assert!(matches!(damaged, Err(Error::Corrupt { .. })), "{section:?}: {damaged:?}");
    }
    let cut = input(&block, |bytes| bytes.truncate(bytes.len() / 2));
    assert!(matches!(cut, Err(Error::Corrupt { .. })), "{cut:?}");
}

#[test]
fn blocks_are_put_from_memory_and_from_disk() {
    run(async {
        let profiles = random_profiles(7, &Shape::default());
        let like = block(&[dataset(&profiles)], 0, Compression::Hot).meta;
        let store = InMemory::new();
        let folder = tempfile::tempdir().unwrap();
        let merged =
            merge(&inputs(&profiles, 2, |index| index), &everything(), &Scratch::folder(folder.path(), 0));
        let meta = BlockMeta { datasets: Vec::new(), path: "v1/l1/x.blk".into(), ..like.clone() };
        let put_meta = assemble(meta, vec![merged.unwrap().unwrap()]).put(&store).await.unwrap();
        let stored = store.get(&Path::from("v1/l1/x.blk")).await.unwrap().bytes().await.unwrap();
        assert_eq!(verify("v1/l1/x.blk", &stored).unwrap(), put_meta);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "scratch files have no names");
    });
}
