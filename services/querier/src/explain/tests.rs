use cambium_model::block::{LabelSummary, SectionMeta};
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};

use super::*;

const HOUR_NS: i64 = 6 * ROLLUP_BUCKET_NS;

/// Ten hours; each section has 1,000 bytes times its number.
fn dataset(kinds: &[SectionKind]) -> DatasetMeta {
    let section = |kind: &SectionKind| SectionMeta {
        kind: *kind,
        offset: 0,
        length: 1_000 * *kind as u64,
        rows: 1,
        crc32c: 0,
    };
    let values = ["api", "db", "web", "x"].map(str::to_owned).to_vec();
    DatasetMeta {
        tenant: Tenant { id: TenantId::anonymous(), number: TenantNumber(1) },
        first_ns: 0,
        last_ns: 10 * HOUR_NS,
        series: 1,
        profiles: 1,
        samples: 1,
        types: Vec::new(),
        scopes: Vec::new(),
        labels: vec![LabelSummary {
            name: "service_name".into(),
            distinct: 4,
            on_every_series: true,
            values,
        }],
        sections: kinds.iter().map(section).collect(),
        deletions_done: 0,
        profiles_left_out: 0,
        retention_selector: None,
        covers: Vec::new(),
    }
}

fn check(kinds: &[SectionKind], range: TimeRange, matches: &str, wants: Wants, expected: u64) {
    let matches: Vec<SeriesMatch> = matches.parse().into_iter().collect();
    let wants = match wants {
        Wants::Sums { .. } => Wants::sums(&matches[0], &["service_name".to_owned()]),
        other => other,
    };
    assert_eq!(
        estimate(&dataset(kinds), range, &matches, wants),
        expected,
        "{matches:?} {wants:?} {range:?}"
    );
}

#[test]
fn estimates_follow_the_plan_of_a_scan() {
    use SectionKind::*;
    let low = [Samples, Rollup, Profiles, Series, Stacks, Nodes, Locations];
    let all = [&low[..], &[CoarseRollup, SeriesRollup, SeriesBuckets]].concat();
    let (whole, half) = (TimeRange::ALL, TimeRange::new(0, 5 * HOUR_NS));
    let sums = Wants::Sums { whole_scopes: true };
    // Series 1, profiles 2, samples 3, rollup 4, trees 5 + 6 + 7, coarse 9, by series 10, its buckets 11; in thousands.
    check(&all, whole, "{}", Wants::Series, 1_000);
    check(&all, half, "{}", Wants::Profiles, 3_000);
    check(&all, whole, "{}", sums, 28_000);
    check(&low, whole, "{}", sums, 23_000);
    // Half of the rollup, and the samples of two buckets of sixty.
    check(&low, half, "{}", sums, 1_000 + 18_000 + 2_000 + 2_000 + 100);
    check(&low, whole, r#"{service_name="api"}"#, sums, 1_000 + 18_000 + 1_000);
    check(&low, whole, r#"{service_name=~"api|db"}"#, sums, 1_000 + 18_000 + 2_000);
    // Some series of a service.
    check(&low, half, r#"{pod="a"}"#, sums, 1_000 + 18_000 + 2_000 + 1_500);
    check(&all, whole, r#"{pod="a"}"#, sums, 1_000 + 18_000 + 11_000 + 10_000);
    check(&low, whole, "{}", Wants::Samples, 1_000 + 18_000 + 2_000 + 3_000);
}

#[test]
fn only_so_many_blocks_are_listed() {
    let mut plan = Explain::default();
    for _ in 0..LISTED_MAX + 2 {
        plan.push(SourcePlan { bytes_estimated: 3, ..SourcePlan::default() });
    }
    plan.took(
        LISTED_MAX + 1,
        ScanStats { bytes_by_section: [5; SectionKind::COUNT], ..ScanStats::default() },
    );
    assert_eq!((plan.blocks, plan.sources.len(), plan.sources_left_out), (1_002, LISTED_MAX, 2));
    assert_eq!(plan.bytes_estimated, 3 * 1_002);
    assert_eq!(plan.bytes_by_section["series_rollup"], 5);
}
