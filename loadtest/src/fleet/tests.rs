use std::collections::{BTreeMap, BTreeSet};

use cambium_model::limits::TenantLimits;
use cambium_model::profile::ProfileId;
use cambium_model::time::SECOND_NS;
use cambium_proto::pprof::{self, Decoder, Decompressor, Limits};
use cambium_proto::wire::perftools::Profile;

use super::*;

const START_NS: i64 = 1_700_000_000 * SECOND_NS;

fn shape() -> Shape {
    Shape {
        seed: 7,
        cluster: "test".into(),
        services: 6,
        pods: 4,
        kinds: Kind::ALL.to_vec(),
        interval_ns: 10 * SECOND_NS,
        draws: [20, 60],
        stacks: [30, 90],
        deploy_every_ns: 100 * SECOND_NS,
        rolling_ns: 40 * SECOND_NS,
        pod_lifetime_ns: 0,
        unique_labels: Vec::new(),
    }
}

fn fleet(shape: Shape) -> Fleet {
    Fleet::new(shape, &Bases::committed()).unwrap()
}

fn place(series: u64, round: u64) -> Place {
    Place { tenant: 0, series, round, offset_ns: round as i64 * 10 * SECOND_NS + series as i64 }
}

/// What a server sums a push to, by profile type, and the build ids in it.
fn decoded(push: &Push) -> (BTreeMap<String, i64>, BTreeSet<String>) {
    let mut decompressor = Decompressor::new();
    let raw = decompressor.decompress(&push.body, 1 << 24).unwrap();
    let limits = Limits::from(&TenantLimits::default());
    let mut decoder = Decoder::new();
    let request = pprof::Push {
        id: ProfileId([0; 16]),
        labels: push.labels.clone(),
        name: Some(push.kind.name()),
        addresses_relative: false,
    };
    let decoded = decoder.decode(raw, &limits, request).unwrap();
    let profile = &decoded.profile;
    assert_eq!(profile.time_ns, push.time_ns);
    let samples = profile.sample_count();
    let mut sums = BTreeMap::new();
    for (at, ty) in profile.types.iter().enumerate() {
        let values = &profile.values[at * samples..(at + 1) * samples];
        sums.insert(ty.to_string(), values.iter().sum());
    }
    let builds = (0..profile.locations.len()).map(|at| decoded.location(at).mapping.build_id.to_string());
    let builds = builds.collect();
    (sums, builds)
}

#[test]
fn sums_are_those_that_a_server_finds() {
    let fleet = fleet(shape());
    for series in 0..fleet.series() {
        let push = fleet.push(place(series, series % 5), START_NS);
        let (sums, _) = decoded(&push);
        let expected = (0..push.kind.sample_types().len())
            .map(|index| (push.kind.profile_type(index), push.sums[index]))
            .collect();
        assert_eq!(sums, expected, "series {series}");
        assert!(push.sums[0] > 0);
    }
}

#[test]
fn a_push_is_the_same_every_time_and_unlike_any_other() {
    let (one, other) = (fleet(shape()), fleet(shape()));
    let mut bodies = BTreeSet::new();
    for series in 0..one.series() {
        for round in [0, 1, 9] {
            let push = one.push(place(series, round), START_NS);
            assert_eq!(push, other.push(place(series, round), START_NS));
            assert!(bodies.insert(push.body));
        }
    }
    let of_tenant = one.push(Place { tenant: 1, ..place(0, 0) }, START_NS);
    assert!(!bodies.contains(&of_tenant.body));
    let reseeded = fleet(Shape { seed: 8, ..shape() });
    assert_ne!(reseeded.push(place(0, 0), START_NS).sums, one.push(place(0, 0), START_NS).sums);
}

#[test]
fn tables_are_numbered_from_1_in_order_of_first_use() {
    let push = fleet(shape()).push(place(5, 2), START_NS);
    let mut decompressor = Decompressor::new();
    let raw = decompressor.decompress(&push.body, 1 << 24).unwrap();
    let profile = Profile::decode(raw).unwrap();
    assert!(profile.location.iter().map(|location| location.id).eq(1..=profile.location.len() as u64));
    assert!(profile.function.iter().map(|function| function.id).eq(1..=profile.function.len() as u64));
    assert!(profile.mapping.iter().map(|mapping| mapping.id).eq(1..=profile.mapping.len() as u64));
    let mut used: Vec<u64> = Vec::new();
    for id in profile.sample.iter().flat_map(|sample| &sample.location_id) {
        if !used.contains(id) {
            used.push(*id);
        }
    }
    assert!(used.into_iter().eq(1..=profile.location.len() as u64));
    assert_eq!(profile.sample.len() as u64, push.samples);
}

#[test]
fn series_cover_every_service_pod_and_kind() {
    let fleet = fleet(shape());
    let seen: BTreeSet<(u64, String, Kind)> = (0..fleet.series())
        .map(|series| fleet.push(Place { offset_ns: 0, ..place(series, 0) }, START_NS))
        .map(|push| (push.service, push.labels.get("pod").unwrap().to_owned(), push.kind))
        .collect();
    assert_eq!(seen.len() as u64, fleet.series());
    assert_eq!(fleet.series(), 6 * 4 * 4);
}

#[test]
fn deploys_replace_pods_one_by_one() {
    let shape = shape();
    let at = |slot, seconds: i64| Pod::of(&shape, 0, 2, slot, seconds * SECOND_NS);
    let versions = |seconds| (0..shape.pods).map(|slot| at(slot, seconds).version).collect::<Vec<_>>();
    let first = (0..100).find(|second| at(0, *second).version == 1).unwrap();
    assert_eq!(versions(first - 1), [0; 4]);
    assert_eq!(versions(first), [1, 0, 0, 0]);
    assert_eq!(versions(first + 21), [1, 1, 1, 0]);
    assert_eq!(versions(first + 99), [1; 4]);
    assert_eq!(versions(first + 100), [2, 1, 1, 1]);
    assert_ne!(at(0, first - 1).identity, at(0, first).identity);
    assert_eq!(at(3, first - 1), at(3, first));
}

#[test]
fn a_version_has_a_build_of_its_own_and_most_of_the_names() {
    let fleet = fleet(shape());
    let (_, before) = decoded(&fleet.push(Place { offset_ns: 0, ..place(0, 0) }, START_NS));
    let (_, after) = decoded(&fleet.push(Place { offset_ns: 500 * SECOND_NS, ..place(0, 0) }, START_NS));
    assert_ne!(before, after);
}

#[test]
fn pods_that_live_for_one_round_have_labels_of_their_own() {
    let shape = Shape {
        pod_lifetime_ns: 10 * SECOND_NS,
        deploy_every_ns: 0,
        unique_labels: vec!["run_id".into(), "commit".into()],
        ..shape()
    };
    let fleet = fleet(shape);
    let labels = |round| fleet.push(place(3, round), START_NS).labels;
    let runs: BTreeSet<String> =
        (0..20).map(|round| labels(round).get("run_id").unwrap().to_owned()).collect();
    assert_eq!(runs.len(), 20);
    assert_ne!(labels(0).get("run_id"), labels(0).get("commit"));
    assert_ne!(labels(0).get("pod"), labels(1).get("pod"));
}

#[test]
fn a_folder_is_read_and_what_cannot_be_is_named() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/simulation/golden");
    let (bases, skipped) = Bases::of_folder(&golden.join("profiles")).unwrap();
    assert!(skipped.iter().any(|file| file.path.ends_with("edge-empty.pb.gz")), "{skipped:?}");
    let kinds = vec![Kind::Cpu];
    let fleet = Fleet::new(Shape { services: 30, pods: 1, kinds, ..shape() }, &bases).unwrap();
    for series in 0..fleet.series() {
        let push = fleet.push(place(series, 0), START_NS);
        assert_eq!(decoded(&push).0[&push.kind.profile_type(1)], push.sums[1], "service {}", push.service);
    }
    assert!(Bases::of_folder(&golden.join("programs")).is_err());
}
