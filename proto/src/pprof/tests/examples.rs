//! The definitions by example: identity of locations, pruning, labels, profile types.

use cambium_model::profile::SampleLabelValue;
use cambium_model::stacktrace::{BuildRef, LocationId, NO_PARENT};
use cambium_model::symbols::Mapping;

use super::super::{Decoder, Push};
use super::{Builder, LIMITS, push, wire};

#[test]
fn native_addresses_become_those_of_the_file() {
    #[track_caller]
    fn check([start, limit, offset]: [u64; 3], address: u64, file_address: u64) {
        let mut builder = Builder::new();
        builder.mapping(4, [start, limit, offset], "/bin/x", "abc");
        builder.location(9, 4, address, &[]);
        builder.sample(&[9], &[1]);
        let raw = builder.bytes();
        let mut decoder = Decoder::new();
        let decoded = decoder.decode(&raw, &LIMITS, push()).unwrap();
        let build = BuildRef::new("abc", "");
        assert_eq!(decoded.profile.locations, [LocationId::native(build, file_address)]);
        assert_eq!(decoded.location(0).address, file_address);
        let object = Mapping { file: "/bin/x".into(), build_id: "abc".into() };
        assert_eq!(decoded.mappings(), [(build, object)]);
        let relative = Push { addresses_relative: true, ..push() };
        let decoded = decoder.decode(&raw, &LIMITS, relative).unwrap();
        assert_eq!(decoded.profile.locations, [LocationId::native(build, address)]);
    }
    check([0x1000, 0x2000, 0x300], 0x1010, 0x310);
    check([0x1000, 0x2000, 0x300], 0x1000, 0x300);
    check([0x1000, 0x2000, 0x300], 0x1fff, 0x12ff);
    check([0x1000, 0x2000, 0x300], 0x2000, 0x2000);
    check([0x1000, 0x2000, 0x300], 0xfff, 0xfff);
    check([0x1000, 0, 0x300], u64::MAX, 0xffff_ffff_ffff_f2ff);
    check([0, 0, 0], 7, 7);
}

#[test]
fn a_location_without_mapping_has_no_object() {
    let mut builder = Builder::new();
    builder.location(1, 0, 5, &[]);
    builder.sample(&[1], &[1]);
    let raw = builder.bytes();
    let mut decoder = Decoder::new();
    let decoded = decoder.decode(&raw, &LIMITS, push()).unwrap();
    assert_eq!(decoded.profile.locations, [LocationId::native(BuildRef::new("", ""), 5)]);
    assert_eq!(decoded.mappings(), []);
}

#[test]
fn named_locations_fold_by_names_and_file() {
    let mut builder = Builder::new();
    builder.function(1, "f(int)", "_Z1fi", "f.cc");
    builder.function(2, "f(int)", "_Z1fi", "g.cc");
    builder.function(3, "other name", "_Z1fi", "f.cc");
    builder.function(4, "nameless", "", "f.cc");
    builder.function(5, "nameless", "nameless", "f.cc");
    builder.function(6, "_Z1fi", "_Z1fi", "f.cc");
    for function in 1..=6 {
        builder.location(function, 0, function, &[function]);
    }
    builder.location(7, 0, 1, &[1]);
    builder.location(8, 0, 8, &[1]);
    builder.sample(&[8, 7, 6, 5, 4, 3, 2, 1], &[1]);
    let profile = Decoder::new().decode(&builder.bytes(), &LIMITS, push()).unwrap().profile;
    // In order of appearance, from the root; the seventh location is the first again.
    assert_eq!(profile.locations.len(), 7);
    let keys: Vec<u64> = profile.locations.iter().map(LocationId::function_key).collect();
    assert_ne!(keys[0], keys[1], "another file");
    assert_ne!(keys[0], keys[2], "another name of the same symbol");
    assert_ne!(keys[0], keys[5], "no other name");
    assert_ne!(keys[0], keys[3]);
    assert_eq!(keys[3], keys[4], "without a system name the name stands in");
    assert_ne!(profile.locations[3], profile.locations[4], "yet what was sent is kept apart");
    assert_eq!(keys[0], keys[6], "another address");
}

#[test]
fn nameless_functions_fold_only_with_themselves() {
    let mut builder = Builder::new();
    builder.function(1, "", "", "f.cc");
    builder.location(1, 0, 0x10, &[1]);
    builder.location(2, 0, 0x20, &[1]);
    builder.sample(&[1, 2], &[1]);
    let profile = Decoder::new().decode(&builder.bytes(), &LIMITS, push()).unwrap().profile;
    assert_ne!(profile.locations[0].function_key(), profile.locations[1].function_key());
}

#[test]
fn code_without_a_name_folds_only_with_itself() {
    let mut builder = Builder::new();
    builder.function(1, "", "", "");
    builder.location(1, 0, 0x10, &[1]);
    builder.location(2, 0, 0x20, &[1]);
    builder.sample(&[1, 2], &[1]);
    let profile = Decoder::new().decode(&builder.bytes(), &LIMITS, push()).unwrap().profile;
    assert_ne!(profile.locations[0].function_key(), profile.locations[1].function_key());
}

#[test]
fn stored_ids_do_not_change() {
    let mut builder = Builder::new();
    builder.mapping(1, [0x1000, 0x9000, 0], "/bin/x", "abc");
    builder.function(1, "main", "main", "main.go");
    builder.function(2, "work", "work", "work.go");
    builder.location(1, 1, 0x1010, &[2, 1]);
    builder.sample(&[1], &[10]);
    let profile = Decoder::new().decode(&builder.bytes(), &LIMITS, push()).unwrap().profile;
    assert_eq!(format!("{:?}", profile.locations[0]), "0231b7499c95558ce1b53ec22c952435");
}

#[test]
fn frames_are_dropped_as_go_drops_them() {
    // Functions a…e; the location of each has its letter's number; location 9 is c inlined into b.
    #[track_caller]
    fn check((drop, keep): (&str, &str), stack: &[u64], left: &[&str]) {
        let mut builder = Builder::new();
        for (id, name) in (1..).zip(["a", "b", "c", "d", "e"]) {
            builder.function(id, name, name, "");
            builder.location(id, 0, id, &[id]);
        }
        builder.location(9, 0, 9, &[3, 2]);
        builder.sample(stack, &[1]);
        (builder.profile.drop_frames, builder.profile.keep_frames) =
            (builder.string(drop), builder.string(keep));
        let raw = builder.bytes();
        let mut decoder = Decoder::new();
        let decoded = decoder.decode(&raw, &LIMITS, push()).unwrap();
        let mut frames = Vec::new();
        let mut node = decoded.profile.sample_nodes[0];
        while node != NO_PARENT {
            let this = decoded.profile.nodes[node as usize];
            let lines = decoded.location(this.location as usize).lines;
            frames.push(lines.iter().map(|line| &*line.function.name).collect::<Vec<_>>().join("<"));
            node = this.parent;
        }
        assert_eq!(frames, left, "{drop:?} but not {keep:?} from {stack:?}");
    }
    // Innermost first, as in pprof.
    let stack = [1, 2, 3, 2, 4];
    check(("", "b"), &stack, &["a", "b", "c", "b", "d"]);
    check(("a", ""), &stack, &["b", "c", "b", "d"]);
    check(("b", ""), &stack, &["d"]);
    check(("[ab]", "b"), &stack, &["b", "c", "b", "d"]);
    check(("d", ""), &stack, &["a", "b", "c", "b", "d"]);
    check(("b|d", ""), &stack, &["c", "b", "d"]);
    check((".*", ""), &stack, &["a", "b", "c", "b", "d"]);
    check(("x", ""), &stack, &["a", "b", "c", "b", "d"]);
    // Of an inlined chain only what lies below the dropped line goes.
    check(("c", ""), &[1, 9, 4], &["b", "d"]);
    check(("b", ""), &[1, 9, 4], &["d"]);
    check(("c", ""), &[1, 9], &["a", "b"]);
    check(("c", ""), &[], &[]);
}

#[test]
fn labels_are_sorted_and_shared() {
    let mut builder = Builder::new();
    let [thread, bytes, unit, one, two] =
        ["thread", "bytes", "kilobytes", "one", "two"].map(|text| builder.string(text));
    let text = |str| wire::Label { key: thread, str, ..Default::default() };
    let number = |num, num_unit| wire::Label { key: bytes, num, num_unit, ..Default::default() };
    for label in [
        vec![text(two), text(one), number(5, unit)],
        vec![number(5, unit), text(one), text(two)],
        vec![number(0, 0)],
        vec![],
        vec![number(5, 0)],
        vec![number(0, unit)],
    ] {
        builder.profile.sample.push(wire::Sample { label, value: vec![1], ..Default::default() });
    }
    let decoded_profile =
        |builder: &Builder| Decoder::new().decode(&builder.bytes(), &LIMITS, push()).unwrap().profile;
    let profile = decoded_profile(&builder);
    let text = |text: &str| ("thread".into(), SampleLabelValue::Text(text.into()));
    let number = |number, unit: &str| ("bytes".into(), SampleLabelValue::Number(number, unit.into()));
    let expected = [
        vec![],
        vec![number(5, "kilobytes"), text("one"), text("two")],
        vec![number(5, "")],
        vec![number(0, "kilobytes")],
    ];
    assert_eq!(profile.label_sets, expected);
    assert_eq!(profile.sample_label_sets, [1, 0, 2, 3]);
    assert_eq!(profile.values, [2, 2, 1, 1]);
    builder.profile.sample.drain(..2);
    builder.profile.sample.truncate(2);
    let profile = decoded_profile(&builder);
    assert!(profile.label_sets.is_empty() && profile.sample_label_sets.is_empty());
}

#[test]
fn each_sample_type_is_a_column_and_a_type() {
    let mut builder = Builder::new();
    builder.profile.sample_type =
        ["inuse_objects", "inuse_space"].map(|ty| builder.value_type(ty, "count")).to_vec();
    builder.profile.period_type = Some(builder.value_type("space", "bytes"));
    builder.profile.period = 512;
    builder.profile.time_nanos = 77;
    builder.location(1, 0, 1, &[]);
    builder.sample(&[1], &[1, 10]);
    builder.sample(&[], &[2, 20]);
    builder.sample(&[1], &[3, 30]);
    let types = |builder: &Builder, name| {
        let raw = builder.bytes();
        let mut decoder = Decoder::new();
        let decoded = decoder.decode(&raw, &LIMITS, Push { name, ..push() }).unwrap();
        assert_eq!(decoded.samples, 3);
        assert_eq!(decoded.profile.values, [4, 2, 40, 20]);
        assert_eq!(decoded.profile.sample_nodes, [0, NO_PARENT]);
        assert_eq!((decoded.profile.period, decoded.profile.time_ns), (512, 77));
        decoded.profile.types.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let expected = ["memory:inuse_objects:count:space:bytes", "memory:inuse_space:count:space:bytes"];
    assert_eq!(types(&builder, None), expected);
    builder.profile.duration_nanos = 1;
    let expected = ["x:inuse_objects:count:space:bytes:delta", "x:inuse_space:count:space:bytes:delta"];
    assert_eq!(types(&builder, Some("x")), expected);
}
