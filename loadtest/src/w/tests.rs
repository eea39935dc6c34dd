use std::collections::{BTreeMap, HashSet};

use cambium_model::limits::TenantLimits;
use cambium_model::stacktrace::LocationId;
use cambium_proto::pprof::{Decoder, Limits, Push};

use super::*;

const SMALL: Shape = Shape { services: 3, pods: 2, rounds: 4, stacks_min: 100, stacks_max: 300, wide: 1 };

fn small() -> Workload {
    Workload::new(SMALL, Path::new("/nowhere")).unwrap()
}

fn sums(profile: &Profile) -> BTreeMap<Vec<LocationId>, i64> {
    let mut sums = BTreeMap::new();
    for (leaf, value) in profile.sample_nodes.iter().zip(&profile.values) {
        let stack = stacks::outermost_first(&profile.nodes, *leaf);
        let stack = stack.iter().map(|location| profile.locations[*location as usize]).collect();
        *sums.entry(stack).or_default() += value;
    }
    sums
}

#[test]
fn bytes_and_values_are_the_same_profile() {
    let workload = small();
    let limits = Limits::from(&TenantLimits::default());
    let mut decoder = Decoder::new();
    for (series, round) in [(0, 0), (3, 1), (5, 3)] {
        let made = workload.profile(series, round, 1_000);
        let raw = workload.pprof(series, round, 1_000);
        let push = Push {
            id: made.id,
            labels: workload.labels(series),
            name: Some("process_cpu"),
            addresses_relative: false,
        };
        let decoded = decoder.decode(&raw, &limits, push).unwrap().profile;
        assert_eq!(sums(&decoded), sums(&made));
        assert_eq!(
            (decoded.types, decoded.time_ns, decoded.duration_ns, decoded.period),
            (made.types, made.time_ns, made.duration_ns, made.period)
        );
    }
}

/// A stream that is not really compressed would flatter whoever takes it in.
#[test]
fn compressed_profiles_are_smaller_and_come_back() {
    let workload = small();
    let (raw, zipped) = (workload.pprof(1, 2, 3), workload.pprof_gz(1, 2, 3));
    assert!(zipped.len() * 3 < raw.len() * 2, "{} of {} bytes", zipped.len(), raw.len());
    assert_eq!(cambium_proto::pprof::Decompressor::new().decompress(&zipped, raw.len()), Ok(&raw[..]));
}

#[test]
fn services_share_no_location_and_pods_share_their_services() {
    let workload = small();
    let locations = |series| workload.profile(series, 0, 0).locations.into_iter().collect::<HashSet<_>>();
    let of_series: Vec<HashSet<LocationId>> = (0..workload.series()).map(locations).collect();
    assert!(of_series[0].is_disjoint(&of_series[2]));
    assert!(!of_series[0].is_disjoint(&of_series[1]));
    let functions =
        |set: &HashSet<LocationId>| set.iter().map(LocationId::function_key).collect::<HashSet<_>>();
    assert!(functions(&of_series[0]).is_disjoint(&functions(&of_series[4])));
}

#[test]
fn the_stream_is_the_same_every_time() {
    let (one, other) = (small(), small());
    for series in 0..one.series() {
        assert_eq!(one.profile(series, 2, 7), other.profile(series, 2, 7));
    }
    assert_ne!(one.profile(0, 0, 0).values, one.profile(0, 1, 0).values);
}

#[test]
fn universes_grow_past_their_base_by_crossing() {
    let shape = Shape { stacks_min: 8_000, stacks_max: 8_000, services: 1, ..SMALL };
    let workload = Workload::new(shape, Path::new("/nowhere")).unwrap();
    assert_eq!(workload.stacks(), 8_000);
}

/// The shape of W itself, where the real profiles are at hand.
#[test]
#[ignore = "takes a minute in a debug build; prints what docs/performance.md says of W"]
fn the_shape_of_w_and_h() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/pprof");
    for (name, shape) in [("W", W), ("H", H)] {
        let workload = Workload::new(shape, &folder).unwrap();
        let nodes: usize = workload.services.iter().map(|service| service.universe.nodes.len()).sum();
        let locations: usize = workload.services.iter().map(|service| service.universe.ids.len()).sum();
        let step = 17;
        let profiles: Vec<usize> = (0..workload.series())
            .step_by(step)
            .map(|series| workload.profile(series, series % workload.rounds(), 0).sample_count())
            .collect();
        let samples = profiles.iter().sum::<usize>() as f64 / profiles.len() as f64;
        println!(
            "{name}: {} stacks, {nodes} nodes, {locations} locations, {samples:.0} samples",
            workload.stacks()
        );
    }
}
