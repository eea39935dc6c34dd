//! What the encoder writes, the decoder and prost read.

use cambium_model::profile::SampleLabelValue;
use cambium_model::stacktrace::NO_PARENT;
use prost::Message;

use super::super::{Decoded, Decoder, Encoder, Header};
use super::oracle::decoded_sums;
use super::{Builder, LIMITS, push, wire};

/// A decoded profile, written as pprof again.
pub(super) fn encode_again(decoded: &Decoded<'_>) -> Vec<u8> {
    let profile = &decoded.profile;
    let types = &profile.types;
    let sample_types: Vec<(&str, &str)> =
        types.iter().map(|ty| (&*ty.sample_type, &*ty.sample_unit)).collect();
    let mut encoder = Encoder::new(&Header {
        sample_types: &sample_types,
        period_type: (&types[0].period_type, &types[0].period_unit),
        period: profile.period,
        time_ns: profile.time_ns,
        duration_ns: profile.duration_ns,
    });
    let ids: Vec<u64> =
        (0..profile.locations.len()).map(|at| encoder.location(&decoded.location(at))).collect();
    for sample in 0..profile.sample_count() {
        let mut stack = Vec::new();
        let mut node = profile.sample_nodes[sample];
        while node != NO_PARENT {
            stack.push(ids[profile.nodes[node as usize].location as usize]);
            node = profile.nodes[node as usize].parent;
        }
        let values: Vec<i64> = (0..types.len()).map(|ty| profile.column(ty)[sample]).collect();
        let set = profile.sample_label_sets.get(sample).map(|&set| &profile.label_sets[set as usize]);
        encoder.sample(&stack, &values, set.unwrap_or(&Vec::new()));
    }
    encoder.finish()
}

#[test]
fn a_profile_survives_encoding() {
    let mut builder = Builder::new();
    builder.mapping(1, [0x1000, 0x9000, 0x200], "/bin/x", "abc");
    builder.mapping(2, [0, 0, 0], "/lib/y", "");
    builder.function(1, "f", "_f", "f.c");
    builder.function(2, "g", "", "");
    builder.location(1, 1, 0x1010, &[1, 2]);
    builder.location(2, 2, 0x10, &[]);
    builder.location(3, 0, 0, &[2]);
    builder.sample(&[1, 2, 3], &[5]);
    builder.sample(&[], &[6]);
    builder.sample(&[3], &[-7]);
    let [key, text, unit] = ["k", "v", "bytes"].map(|text| builder.string(text));
    builder.profile.sample[2].label = vec![
        wire::Label { key, str: text, ..Default::default() },
        wire::Label { key, num: -1, num_unit: unit, ..Default::default() },
    ];
    builder.profile.time_nanos = 1_000;
    builder.profile.duration_nanos = 2_000;
    builder.profile.period = 3;
    builder.profile.period_type = Some(builder.value_type("cpu", "nanoseconds"));

    let (mut first, mut second) = (Decoder::new(), Decoder::new());
    let raw = builder.bytes();
    let original = first.decode(&raw, &LIMITS, push()).unwrap();
    let encoded = encode_again(&original);
    let again = second.decode(&encoded, &LIMITS, push()).unwrap();
    assert_eq!(again.profile, original.profile);
    assert_eq!(decoded_sums(&again), decoded_sums(&original));
    assert_eq!(encode_again(&again), encoded, "encoding is a fixed point");

    let read = wire::Profile::decode(&encoded[..]).unwrap();
    assert_eq!((read.time_nanos, read.duration_nanos, read.period), (1_000, 2_000, 3));
    // Mappings are numbered in order of appearance, stacks being read from the root.
    assert!(!read.mapping[0].has_functions);
    assert!(read.mapping[1].has_functions && read.mapping[1].has_inline_frames);
}

#[test]
fn what_is_added_twice_is_written_once() {
    let mut encoder = Encoder::new(&Header { sample_types: &[("cpu", "nanoseconds")], ..Header::default() });
    let location = cambium_model::symbols::Location { address: 5, ..Default::default() };
    assert_eq!(encoder.location(&location), 1);
    assert_eq!(encoder.location(&location), 1);
    let labels = vec![("k".into(), SampleLabelValue::Number(0, "".into()))];
    encoder.sample(&[1], &[1], &labels);
    let profile = wire::Profile::decode(&encoder.finish()[..]).unwrap();
    assert_eq!(profile.location.len(), 1);
    assert_eq!(profile.string_table, ["", "cpu", "nanoseconds", "k"]);
}
