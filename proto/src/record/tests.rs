//! Round trips, and what damaged bytes are answered with.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn tenant() -> Tenant {
    Tenant { id: TenantId::new("team-a").unwrap(), number: TenantNumber(7) }
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-zäλ]{0,5}".prop_map(Into::into)
}

fn sample_label() -> impl Strategy<Value = (Arc<str>, SampleLabelValue)> {
    let value = prop_oneof![
        text().prop_map(SampleLabelValue::Text),
        (any::<i64>(), text()).prop_map(|(number, unit)| SampleLabelValue::Number(number, unit)),
    ];
    (text(), value)
}

fn profile_type() -> impl Strategy<Value = ProfileType> {
    (vec(text(), 5), any::<bool>()).prop_map(|(parts, delta)| ProfileType {
        name: Arc::clone(&parts[0]),
        sample_type: Arc::clone(&parts[1]),
        sample_unit: Arc::clone(&parts[2]),
        period_type: Arc::clone(&parts[3]),
        period_unit: Arc::clone(&parts[4]),
        delta,
    })
}

/// Any profile that keeps the laws of its type.
fn profile() -> impl Strategy<Value = Profile> {
    let heads = (
        any::<[u8; 16]>(),
        proptest::collection::btree_map("[a-z]{1,3}", "[a-z]{1,3}", 0..4),
        vec(profile_type(), 0..3),
        any::<(i64, i64, i64)>(),
    );
    let bodies = (
        vec(any::<[u8; 16]>(), 1..6),
        vec(any::<(Option<Index>, Index)>(), 0..20),
        vec(any::<(Option<Index>, Index, i64)>(), 0..20),
        proptest::option::of(vec(vec(sample_label(), 0..3), 0..4)),
    );
    (heads, bodies).prop_map(|((id, labels, types, times), (locations, nodes, samples, sets))| {
        let nodes: Vec<Node> = (nodes.iter().enumerate())
            .map(|(i, (parent, location))| Node {
                parent: parent.filter(|_| i > 0).map_or(NO_PARENT, |p| p.index(i) as u32),
                location: location.index(locations.len()) as u32,
            })
            .collect();
        let label_sets: Vec<SampleLabels> =
            sets.map_or_else(Vec::new, |sets| std::iter::once(Vec::new()).chain(sets).collect());
        let sets_of_samples = if label_sets.is_empty() { &[][..] } else { &samples };
        Profile {
            id: ProfileId(id),
            labels: Labels::from_pairs(labels).unwrap(),
            time_ns: times.0,
            duration_ns: times.1,
            period: times.2,
            sample_nodes: (samples.iter())
                .map(|(node, _, _)| {
                    node.filter(|_| !nodes.is_empty()).map_or(NO_PARENT, |n| n.index(nodes.len()) as u32)
                })
                .collect(),
            values: types.iter().flat_map(|_| samples.iter().map(|(_, _, value)| *value)).collect(),
            sample_label_sets: (sets_of_samples.iter())
                .map(|(_, set, _)| set.index(label_sets.len()) as u32)
                .collect(),
            types,
            locations: locations.into_iter().map(LocationId).collect(),
            nodes,
            label_sets,
        }
    })
}

proptest! {
    #[test]
    fn profiles_come_back_whole(profiles in vec(profile(), 0..3)) {
        let bytes = encode(&tenant(), &profiles);
        prop_assert_eq!(decode(&bytes), Ok((tenant(), profiles)));
    }

    #[test]
    fn a_cut_record_is_an_error(profiles in vec(profile(), 0..3), at: Index) {
        let bytes = encode(&tenant(), &profiles);
        prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn damage_never_panics(profiles in vec(profile(), 1..3), flips in vec(any::<(Index, u8)>(), 1..4)) {
        let mut bytes = encode(&tenant(), &profiles);
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        if let Ok((_, profiles)) = decode(&bytes) {
            profiles.iter().for_each(check_laws);
        }
    }

    #[test]
    fn noise_never_panics(mut noise in vec(any::<u8>(), 0..200)) {
        noise.insert(0, VERSION);
        let _ = decode(&noise);
    }
}

/// What the head relies on.
fn check_laws(profile: &Profile) {
    for (i, node) in profile.nodes.iter().enumerate() {
        assert!(node.parent == NO_PARENT || (node.parent as usize) < i);
        assert!((node.location as usize) < profile.locations.len());
    }
    for &node in &profile.sample_nodes {
        assert!(node == NO_PARENT || (node as usize) < profile.nodes.len());
    }
    assert_eq!(profile.values.len(), profile.types.len() * profile.sample_count());
    match profile.label_sets.first() {
        None => assert!(profile.sample_label_sets.is_empty()),
        Some(first) => {
            assert!(first.is_empty());
            assert_eq!(profile.sample_label_sets.len(), profile.sample_count());
            assert!(profile.sample_label_sets.iter().all(|&set| (set as usize) < profile.label_sets.len()));
        }
    }
}

/// A record up to the field that a test spoils: tenant, one profile's id, no labels.
fn prefix() -> Vec<u8> {
    let mut bytes = vec![VERSION, 7, 1, b'a', 1];
    bytes.extend([9; ID_BYTES]);
    bytes.push(0);
    bytes
}

#[test]
fn each_damage_is_named() {
    #[track_caller]
    fn check(tail: &[u8], message: &str) {
        let bytes = [&prefix()[..], tail].concat();
        assert_eq!(decode(&bytes).unwrap_err().to_string(), message);
    }
    // Types, three times, locations, nodes, samples, label sets: all empty, then padding that counts may claim.
    check(&[0, 0, 0, 0, 0, 0, 0, 0, 5, 5], "record has 2 bytes after its last profile");
    check(
        &[0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0],
        "record claims 16383 types at byte 24, more than its bytes can hold",
    );
    check(&[0, 0, 0, 0, 0, 1, 0, 0, 0], "nodes.location[0] points to 0, the table has 0");
    check(&[0, 0, 0, 0, 0, 1, 3, 0, 0], "nodes.parent[0] points to 3, the table has 0");
    check(&[0, 0, 0, 0, 0, 0, 1, 2, 0], "sample_nodes[0] points to 1, the table has 0");
    check(&[0, 0, 0, 0, 0, 0, 1, 0, 1, 4], "sample_label_sets[0] points to 4, the table has 1");
    check(&[0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 9, 0], "record has 9 for sample label kind");
    check(
        &[0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
        "record is cut or garbled in time_ns at byte 23",
    );
    assert_eq!(decode(&[2]).unwrap_err().to_string(), "record has version 2, this server reads version 1");
    assert_eq!(decode(&[]).unwrap_err().to_string(), "record is cut or garbled in version at byte 0");
    assert_eq!(decode(&[1, 0, 1, 0xff]).unwrap_err().to_string(), "tenant at byte 3 is not UTF-8");
}
