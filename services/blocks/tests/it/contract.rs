//! A dataset in memory and the same dataset in a block answer alike, and as the naive oracle says.

use cambium_blocks::Dataset;
use cambium_blocks::testing::{DatasetBuilder, Shape, random_profiles, tenant};
use cambium_blocks::writer::Compression;
use cambium_model::profile::Profile;
use cambium_model::time::{ROLLUP_BUCKET_NS, TimeRange, bucket_start};
use proptest::prelude::*;

use crate::oracle::Oracle;
use crate::store::{block, run, sources};

fn dataset(profiles: &[Profile], number: u32) -> Dataset {
    let mut builder = DatasetBuilder::new(tenant(number)).chunk_samples(16);
    profiles.iter().for_each(|profile| builder.push(profile));
    builder.finish()
}

/// Ranges that begin and end inside, between and outside of rollup buckets.
fn ranges() -> impl Strategy<Value = TimeRange> {
    let shape = Shape::default();
    let inside = shape.start_ns - ROLLUP_BUCKET_NS..shape.start_ns + shape.span_ns + ROLLUP_BUCKET_NS;
    let edge = prop_oneof![inside.clone(), inside.prop_map(bucket_start)];
    prop_oneof![
        Just(TimeRange::ALL),
        (edge.clone(), edge).prop_map(|(a, b)| TimeRange::new(a.min(b), a.max(b))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn sources_answer_as_the_oracle(
        seed in any::<u64>(), profiles in 0..60usize, range in ranges(), some in any::<u64>(), whole in any::<bool>(),
    ) {
        let profiles = random_profiles(seed, &Shape { profiles, ..Shape::default() });
        let oracle = Oracle::new(&profiles);
        let dataset = dataset(&profiles, 1);
        let types: std::collections::BTreeSet<_> = profiles.iter().flat_map(|profile| &profile.types).collect();
        run(async {
            let hot = block(std::slice::from_ref(&dataset), 0, Compression::Hot);
            let cold = block(std::slice::from_ref(&dataset), 2, Compression::Cold);
            let (hot, cold) = (sources(&hot).await, sources(&cold).await);
            for profile_type in types {
                // Whole services, so that rollups are used, or any series.
                let keep = |labels: &cambium_model::labels::Labels| {
                    let hash = if whole { labels.get("service_name").map_or(5, |name| name.len() as u64 + u64::from(name.as_bytes()[8])) } else { labels.fingerprint() };
                    (some >> (hash % 64)) & 3 != 0
                };
                oracle.check(&dataset, profile_type, keep, range).await;
                for source in hot.iter().chain(&cold) {
                    oracle.check(source, profile_type, keep, range).await;
                }
            }
        });
    }
}
