//! Blocks of which only sums are left answer as the oracle does about whole buckets, and refuse what they cannot answer.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use cambium_blocks::Source;
use cambium_blocks::merge::{Input, Wanted, merge};
use cambium_blocks::source::{Pick, TreeScan};
use cambium_blocks::testing::{DatasetBuilder, Shape, random_profiles, tenant};
use cambium_blocks::verify::verify;
use cambium_blocks::without::Without;
use cambium_blocks::writer::spool::Scratch;
use cambium_blocks::writer::{Compression, EncodedBlock, assemble};
use cambium_model::block::{BlockMeta, SectionKind};
use cambium_model::deletion::Deletion;
use cambium_model::labels::Labels;
use cambium_model::profile::Profile;
use cambium_model::time::{ROLLUP_BUCKET_NS, SECOND_NS, TimeRange, bucket_start};
use proptest::prelude::*;

use crate::contract::shapes;
use crate::oracle::Oracle;
use crate::store::{block, run, sources};

fn of<'a>(profiles: impl IntoIterator<Item = &'a Profile>) -> EncodedBlock {
    let mut builder = DatasetBuilder::new(tenant(1));
    profiles.into_iter().for_each(|profile| builder.push(profile));
    block(&[builder.finish()], 0, Compression::Hot)
}

fn input(block: &EncodedBlock) -> Input {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&block.bytes).unwrap();
    Input::open(Arc::new(file), Arc::new(block.meta.clone()), 0).unwrap()
}

/// What is left of these blocks; none where nothing is.
pub fn downsampled(
    blocks: &[EncodedBlock],
    deletions: &[Deletion],
    downsample: bool,
) -> Option<EncodedBlock> {
    let held = blocks.iter().filter(|block| !block.meta.datasets.is_empty());
    let inputs: Vec<Input> = held.map(input).collect();
    let wanted = Wanted { deletions, downsample, ..Wanted::everything(3, Compression::Cold) };
    let dataset = merge(&inputs, &wanted, &Scratch::memory()).unwrap()?;
    let header = BlockMeta { datasets: Vec::new(), level: 3, ..blocks[0].meta.clone() };
    let merged = assemble(header, vec![dataset]).into_memory().unwrap();
    verify(&merged.meta.path, &merged.bytes).unwrap();
    assert!(merged.meta.datasets[0].is_downsampled());
    Some(merged)
}

async fn check(source: &dyn Source, profiles: &[Profile], range: TimeRange) {
    let oracle = Oracle::new(profiles);
    let types: BTreeSet<_> = profiles.iter().flat_map(|profile| &profile.types).collect();
    for profile_type in types {
        for keep in [|_: &Labels| true, |labels: &Labels| !labels.fingerprint().is_multiple_of(3)] {
            oracle.check(source, profile_type, keep, range).await;
        }
    }
}

/// Whether the deletion takes the profile's bucket.
fn takes(deletion: &Deletion, profile: &Profile) -> bool {
    let start_ns = bucket_start(profile.time_ns);
    deletion.selector.matches(&profile.labels)
        && start_ns < deletion.range.end_ns
        && deletion.range.start_ns < start_ns + ROLLUP_BUCKET_NS
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn sums_are_those_of_whole_buckets(seed in any::<u64>(), (shape, range) in shapes(), parts in 1..4usize) {
        let mut profiles = random_profiles(seed, &shape);
        // Without ids nobody knows the order of two of one series and instant.
        let mut seen = BTreeSet::new();
        profiles.retain(|profile| seen.insert((profile.labels.clone(), profile.time_ns)));
        let part = |part: usize| of(profiles.iter().enumerate().filter(move |(at, _)| at % parts == part).map(|(_, p)| p));
        let blocks: Vec<EncodedBlock> = (0..parts).map(part).collect();
        let Some(once) = downsampled(&blocks, &[], true) else { return Ok(()) };
        run(async {
            check(&sources(&once).await[0], &profiles, range).await;
        });
        let again = downsampled(std::slice::from_ref(&once), &[], false).unwrap();
        run(async {
            check(&sources(&again).await[0], &profiles, range).await;
        });
        // Sums of some and samples of others.
        let Some(first) = downsampled(&blocks[..1], &[], true) else { return Ok(()) };
        let mixed: Vec<EncodedBlock> = std::iter::once(first).chain(blocks[1..].iter().cloned()).collect();
        let mixed = downsampled(&mixed, &[], false).unwrap();
        run(async {
            check(&sources(&mixed).await[0], &profiles, range).await;
        });
    }

    #[test]
    fn a_deletion_takes_the_buckets_that_it_touches(seed in any::<u64>(), from in 0..3_000i64, length in 1..3_000i64) {
        let shape = Shape::default();
        let mut profiles = random_profiles(seed, &shape);
        let mut seen = BTreeSet::new();
        profiles.retain(|profile| seen.insert((profile.labels.clone(), profile.time_ns)));
        let start_ns = shape.start_ns + from * SECOND_NS;
        let deletion = Deletion {
            selector: r#"{pod="pod-1"}"#.parse().unwrap(),
            range: TimeRange::new(start_ns, start_ns + length * SECOND_NS),
        };
        let whole = downsampled(&[of(&profiles)], &[], true).unwrap();
        let rewritten = downsampled(std::slice::from_ref(&whole), std::slice::from_ref(&deletion), false);
        let left: Vec<Profile> = profiles.iter().filter(|profile| !takes(&deletion, profile)).cloned().collect();
        prop_assert_eq!(rewritten.is_some(), !left.is_empty());
        run(async {
            if let Some(rewritten) = &rewritten {
                check(&sources(rewritten).await[0], &left, TimeRange::ALL).await;
            }
            // Until then queries see the same, but for series that have lost all their profiles.
            let source: Arc<dyn Source> = Arc::new(sources(&whole).await.remove(0));
            let without = Without::new(Arc::clone(&source), vec![deletion.clone()]);
            let rows = vec![0..source.series().await.unwrap().len() as u32];
            let seen = without.profiles(&rows, TimeRange::ALL).await.unwrap();
            let columns: usize = left.iter().map(|profile| profile.types.len()).sum();
            assert_eq!(seen.time_ns.len(), columns);
            let table = source.series().await.unwrap();
            for profile_type in &table.types {
                let rows = table.select(Some(profile_type), &"{}".parse().unwrap());
                let seen = without.profiles(&rows, TimeRange::ALL).await.unwrap();
                let scan = TreeScan { rows, range: TimeRange::ALL, pick: Pick::Sum };
                let sum: i64 = without.tree(&scan).await.unwrap().self_values.iter().sum();
                assert_eq!(sum, seen.total.iter().sum::<i64>());
            }
        });
    }
}

#[test]
fn sums_that_do_not_fit_go_on_beside() {
    let shape = Shape { profiles: 6, types: 1, services: 1, span_ns: 60 * SECOND_NS, ..Shape::default() };
    let mut profiles = random_profiles(3, &shape);
    for (at, profile) in profiles.iter_mut().enumerate() {
        profile
            .values
            .iter_mut()
            .for_each(|value| *value = if at % 2 == 0 { i64::MAX } else { i64::MIN + 1 });
        profile.labels = Labels::from_pairs([("service_name", "a")]).unwrap();
        // In an order in which sums pass the bounds on the way: two and two.
        profile.time_ns = shape.start_ns + [0, 2, 1, 3, 4, 5][at] * SECOND_NS;
    }
    // One sample each, so that a profile's own total fits.
    profiles.retain(|profile| !profile.sample_nodes.is_empty());
    for profile in &mut profiles {
        let types = profile.types.len();
        profile.sample_nodes.truncate(1);
        profile.values.truncate(types);
        profile.sample_label_sets.truncate(1);
    }
    let whole = downsampled(&[of(&profiles)], &[], true).unwrap();
    let meta = &whole.meta.datasets[0];
    assert!(
        meta.section(SectionKind::SeriesBuckets).unwrap().rows > 1,
        "one bucket of time, several of sums"
    );
    run(async { check(&sources(&whole).await[0], &profiles, TimeRange::ALL).await });
}

#[test]
fn what_needs_samples_is_refused_and_says_what_to_ask_for() {
    let profiles = random_profiles(7, &Shape::default());
    let whole = downsampled(&[of(&profiles)], &[], true).unwrap();
    let message = run(async {
        let source = sources(&whole).await.remove(0);
        let (rows, range) = (vec![0..1], TimeRange::ALL);
        let picked = TreeScan { rows, range, pick: Pick::At(vec![Some(Shape::default().start_ns)]) };
        source.tree(&picked).await.unwrap_err().to_string()
    });
    assert!(
        message.contains("dropped when they were downsampled")
            && message.contains("start=2023-11-14T22:20:00Z and end=2023-11-14T23:09:59.999999999Z"),
        "{message}"
    );
}
