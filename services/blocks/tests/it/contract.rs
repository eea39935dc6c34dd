//! A dataset in memory, the same dataset in another process and in a block answer alike, and as the naive oracle says.

use std::sync::Arc;

use cambium_blocks::series_table::RowSet;
use cambium_blocks::source::{Pick, TreeScan};
use cambium_blocks::testing::{DatasetBuilder, Shape, random_profiles, tenant};
use cambium_blocks::writer::Compression;
use cambium_blocks::{Dataset, Source};
use cambium_model::block::SectionKind;
use cambium_model::profile::Profile;
use cambium_model::time::{ROLLUP_BUCKET_NS, SECOND_NS, TimeRange, bucket_start, coarse_bucket_start};
use proptest::prelude::*;

use crate::oracle::Oracle;
use crate::owner::Owner;
use crate::store::{block, run, sources};

pub fn dataset(profiles: &[Profile], number: u32) -> Dataset {
    let mut builder = DatasetBuilder::new(tenant(number)).chunk_samples(16);
    profiles.iter().for_each(|profile| builder.push(profile));
    builder.finish()
}

/// Ranges that begin and end inside, between and outside of rollup buckets.
fn ranges(shape: &Shape) -> impl Strategy<Value = TimeRange> + use<> {
    let inside = shape.start_ns - ROLLUP_BUCKET_NS..shape.start_ns + shape.span_ns + ROLLUP_BUCKET_NS;
    let edge = prop_oneof![
        inside.clone(),
        inside.clone().prop_map(bucket_start),
        inside.prop_map(coarse_bucket_start)
    ];
    prop_oneof![
        Just(TimeRange::ALL),
        (edge.clone(), edge).prop_map(|(a, b)| TimeRange::new(a.min(b), a.max(b))),
    ]
}

/// Small and varied, or dense.
pub fn shapes() -> impl Strategy<Value = (Shape, TimeRange)> {
    let varied = (0..60usize).prop_map(|profiles| Shape { profiles, ..Shape::default() });
    let shape = prop_oneof![7 => varied, 1 => Just(Shape::dense())];
    shape.prop_flat_map(|shape| {
        let ranges = ranges(&shape);
        (Just(shape), ranges)
    })
}

#[test]
fn every_kind_of_rollup_is_used_where_it_pays() {
    let dataset = dataset(&random_profiles(7, &Shape::dense()), 1);
    let kinds = |level| {
        let block = block(std::slice::from_ref(&dataset), level, Compression::Cold);
        let has = |kind| block.meta.datasets[0].section(kind).is_some();
        [SectionKind::SeriesRollup, SectionKind::SeriesBuckets, SectionKind::CoarseRollup].map(has)
    };
    assert_eq!([0, 1, 2, 3].map(kinds), [[false; 3], [true, true, false], [true, true, false], [true; 3]]);
    let varied = self::dataset(&random_profiles(7, &Shape::default()), 1);
    let block = block(std::slice::from_ref(&varied), 2, Compression::Cold);
    assert_eq!(block.meta.datasets[0].section(SectionKind::SeriesRollup), None, "as many rows as samples");

    let table = Arc::clone(&dataset.series);
    let cost = |rows: RowSet, from_s: i64, to_s: i64| {
        let block = self::block(std::slice::from_ref(&dataset), 3, Compression::Cold);
        run(async move {
            let source = sources(&block).await.remove(0);
            let range = TimeRange::new(from_s * SECOND_NS, to_s * SECOND_NS);
            source.tree(&TreeScan { rows, range, pick: Pick::Sum }).await.unwrap();
            (source.stats().rollup_rows, source.stats().sample_rows)
        })
    };
    // One wide bucket, most of it, and two narrow ones of one series.
    let (from_s, to_s) = (1_699_999_200, 1_699_999_200 + 7_200);
    let of_type = vec![0..table.type_of.iter().filter(|index| **index == 0).count() as u32];
    let (coarse, samples) = cost(of_type.clone(), from_s, to_s);
    assert_eq!(samples, 0);
    let fine = cost(of_type, from_s, to_s - 600).0;
    assert!(coarse * 4 < fine, "{coarse} rows of wide buckets, {fine} of narrow ones");
    let (rows, samples) = cost(vec![0..1], from_s + 1_200, from_s + 2_400);
    assert!(rows > 0 && samples == 0, "{rows} {samples}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn sources_answer_as_the_oracle(
        seed in any::<u64>(), (shape, range) in shapes(), some in any::<u64>(), whole in any::<bool>(),
    ) {
        let profiles = random_profiles(seed, &shape);
        let oracle = Oracle::new(&profiles);
        let dataset = dataset(&profiles, 1);
        let types: std::collections::BTreeSet<_> = profiles.iter().flat_map(|profile| &profile.types).collect();
        run(async {
            let hot = block(std::slice::from_ref(&dataset), 0, Compression::Hot);
            let cold = block(std::slice::from_ref(&dataset), 3, Compression::Cold);
            let (hot, cold) = (sources(&hot).await, sources(&cold).await);
            let remote = Owner::of(vec![Arc::new(dataset.clone())]).opened().await.remove(0);
            for profile_type in types {
                // Whole services, so that rollups are used, or any series.
                let keep = |labels: &cambium_model::labels::Labels| {
                    let hash = if whole { labels.get("service_name").map_or(5, |name| name.len() as u64 + u64::from(name.as_bytes()[8])) } else { labels.fingerprint() };
                    (some >> (hash % 64)) & 3 != 0
                };
                oracle.check(&dataset, profile_type, keep, range).await;
                oracle.check(&*remote, profile_type, keep, range).await;
                for source in hot.iter().chain(&cold) {
                    oracle.check(source, profile_type, keep, range).await;
                }
            }
        });
    }
}
