//! Every way to be refused, and its message.

use cambium_model::labels::Labels;
use cambium_model::tenant::TenantNumber;

use super::super::{Decoder, Fault, Limits, Push, push_id};
use super::{Builder, LIMITS, push, wire};

/// A small profile without a fault: three locations, two functions, a mapping, two samples.
fn sound() -> Builder {
    let mut builder = Builder::new();
    builder.mapping(1, [0x1000, 0x9000, 0], "/bin/x", "abc");
    builder.function(1, "main", "main", "main.go");
    builder.function(2, "work", "work", "work.go");
    builder.location(1, 1, 0x1010, &[1]);
    builder.location(2, 1, 0x1020, &[2, 1]);
    builder.location(3, 1, 0x1030, &[]);
    builder.sample(&[2, 1], &[10]);
    builder.sample(&[3, 1], &[20]);
    builder
}

#[track_caller]
fn refused(raw: &[u8], limits: &Limits, push: Push<'_>, fault: Fault, message: &str) {
    let mut decoder = Decoder::new();
    let error = decoder.decode(raw, limits, push.clone()).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert_eq!(error.fault(), fault);
    // A refusal leaves nothing behind.
    assert!(decoder.decode(&sound().bytes(), &LIMITS, super::push()).is_ok());
}

#[track_caller]
fn check(spoil: impl FnOnce(&mut Builder), message: &str) {
    let mut builder = sound();
    spoil(&mut builder);
    refused(&builder.bytes(), &LIMITS, push(), Fault::Malformed, message);
}

#[test]
fn tables_that_contradict_themselves() {
    check(|b| b.profile.string_table.clear(), "string_table is missing");
    check(|b| b.profile.string_table[0] = "x".into(), "string_table[0] is not empty");
    check(|b| b.profile.sample_type.clear(), "sample_type is missing");
    check(
        |b| b.profile.sample_type = [b.profile.sample_type[0]; 2].to_vec(),
        "sample_type[1] repeats sample_type[0]",
    );
    check(|b| b.profile.location[1].id = 0, "location[1]: id 0 is reserved");
    check(|b| b.profile.location[2].id = 1, "location[2]: id 1 is already location[0]");
    check(|b| b.profile.function[0].id = 0, "function[0]: id 0 is reserved");
    check(|b| b.profile.function[1].id = 1, "function[1]: id 1 is already function[0]");
    check(|b| b.profile.mapping[0].id = 0, "mapping[0]: id 0 is reserved");
    check(
        |b| b.profile.mapping = [b.profile.mapping[0]; 2].to_vec(),
        "mapping[1]: id 1 is already mapping[0]",
    );
}

#[test]
fn references_that_lead_nowhere() {
    check(|b| b.profile.sample[1].location_id[1] = 99, "sample[1].location_id[1]: 99 names no location");
    check(|b| b.profile.sample[0].location_id[0] = 0, "sample[0].location_id[0]: 0 names no location");
    check(|b| b.profile.location[2].mapping_id = 9, "location[2].mapping_id: 9 names no mapping");
    check(
        |b| b.profile.location[1].line[1].function_id = 9,
        "location[1].line[1].function_id: 9 names no function",
    );
    check(
        |b| b.profile.location[0].line[0].function_id = 0,
        "location[0].line[0].function_id: 0 names no function",
    );
    let strings = sound().profile.string_table.len();
    let range = |place: &str| format!("{place}: string index 700 out of range, the table has {strings}");
    check(|b| b.profile.function[1].name = 700, &range("function[1].name"));
    check(|b| b.profile.function[1].system_name = 700, &range("function[1].system_name"));
    check(|b| b.profile.function[1].filename = 700, &range("function[1].filename"));
    check(|b| b.profile.mapping[0].filename = 700, &range("mapping[0].filename"));
    check(|b| b.profile.mapping[0].build_id = 700, &range("mapping[0].build_id"));
    check(|b| b.profile.sample_type[0].r#type = 700, &range("sample_type[0].type"));
    check(|b| b.profile.sample_type[0].unit = 700, &range("sample_type[0].unit"));
    check(|b| b.profile.drop_frames = 700, &range("drop_frames"));
    check(|b| b.profile.keep_frames = 700, &range("keep_frames"));
    let period = |unit| Some(wire::ValueType { r#type: 0, unit });
    check(|b| b.profile.period_type = period(700), &range("period_type.unit"));
    check(
        |b| b.profile.period_type = period(-1),
        &format!("period_type.unit: string index -1 out of range, the table has {strings}"),
    );
    let label = |key, str, num_unit| vec![wire::Label { key, str, num: 0, num_unit }];
    check(|b| b.profile.sample[1].label = label(700, 0, 0), &range("sample[1].label[0].key"));
    check(|b| b.profile.sample[1].label = label(1, 700, 0), &range("sample[1].label[0].str"));
    check(|b| b.profile.sample[1].label = label(1, 0, 700), &range("sample[1].label[0].num_unit"));
}

#[test]
fn values_that_make_no_sense() {
    check(
        |b| b.profile.sample[1].value = vec![1, 2, 3],
        "sample[1]: 3 values, the profile has 1 sample types",
    );
    check(|b| b.profile.sample[0].value.clear(), "sample[0]: 0 values, the profile has 1 sample types");
    check(|b| b.profile.time_nanos = -1, "time_nanos is -1, it must not be negative");
    check(|b| b.profile.duration_nanos = -5, "duration_nanos is -5, it must not be negative");
    check(|b| b.profile.period = i64::MIN, "period is -9223372036854775808, it must not be negative");
    check(
        |b| (0..2).for_each(|_| b.sample(&[1], &[i64::MAX])),
        "sample[3].value[0]: the sum with equal samples passes 64 bits",
    );
    check(
        |b| b.profile.sample_type[0].r#type = 0,
        "sample_type[0].type: \"\" cannot be part of a profile type: it must not be empty or hold a colon",
    );
    check(
        |b| b.profile.sample_type[0].unit = b.string("a:b"),
        "sample_type[0].unit: \"a:b\" cannot be part of a profile type: it must not be empty or hold a colon",
    );
    refused(
        &sound().bytes(),
        &LIMITS,
        Push { name: Some(""), ..push() },
        Fault::Malformed,
        "name: \"\" cannot be part of a profile type: it must not be empty or hold a colon",
    );
    let mut pattern = sound();
    pattern.profile.drop_frames = pattern.string("(");
    let error = Decoder::new().decode(&pattern.bytes(), &LIMITS, push()).unwrap_err().to_string();
    assert!(error.starts_with("drop_frames is no regular expression: "), "{error}");
    pattern.profile.drop_frames = pattern.string("x");
    pattern.profile.keep_frames = pattern.string("*");
    let error = Decoder::new().decode(&pattern.bytes(), &LIMITS, push()).unwrap_err().to_string();
    assert!(error.starts_with("keep_frames is no regular expression: "), "{error}");
}

#[test]
fn bytes_that_are_no_protobuf() {
    let sound = sound().bytes();
    #[track_caller]
    fn check(raw: &[u8], message: &str) {
        refused(raw, &LIMITS, push(), Fault::Malformed, message);
    }
    check(b"", "the profile is empty");
    check(b"\x0a", "the profile is cut or garbled at byte 1");
    check(b"\x0a\x05\x08", "a field at byte 1 claims 5 bytes, 1 are left");
    check(
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        "a field at byte 1 claims 18446744073709551615 bytes, 0 are left",
    );
    check(b"\x48\xff\xff", "the profile is cut or garbled at byte 1");
    check(b"\x48\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "the profile is cut or garbled at byte 1");
    check(b"\x00\x00", "the profile is cut or garbled at byte 0");
    check(b"\x49\0\0\0\0\0\0\0\0", "profile: field 9 has wire type 1 at byte 1");
    check(b"\x22\x02\x0a\x00", "location[0]: field 1 has wire type 2 at byte 3");
    check(b"\x22\x04\x22\x02\x0d\x00", "location[0].line[0]: field 1 has wire type 5 at byte 5");
    check(b"\x83\x01", "profile: field 16 has wire type 3 at byte 2");
    check(b"<html>", "profile: field 7 has wire type 4 at byte 1");
    let at = sound.len();
    check(
        &[&sound[..], &[0x12, 2, 0x0a, 5]].concat(),
        &format!("a field at byte {} claims 5 bytes, 0 are left", at + 3),
    );
    check(
        &[&sound[..], &[0x12, 3, 0x0a, 1, 0x80]].concat(),
        &format!("the profile is cut or garbled at byte {}", at + 4),
    );
}

#[test]
fn text_that_is_none() {
    // The string is the last of the table, which prost writes as the last field here.
    let spoilt = |builder: &mut Builder| {
        let mut raw = builder.bytes();
        let last = raw.windows(3).rposition(|bytes| bytes == b"BAD").unwrap();
        raw[last] = 0xff;
        raw
    };
    let mut builder = sound();
    let bad = builder.string("BAD");
    // Not used by anything, it does no harm.
    assert!(Decoder::new().decode(&spoilt(&mut builder), &LIMITS, push()).is_ok());
    builder.profile.function[1].filename = bad;
    let message = format!("function[1].filename: string_table[{bad}] is not UTF-8");
    refused(&spoilt(&mut builder), &LIMITS, push(), Fault::Malformed, &message);
}

#[test]
fn limits_name_themselves() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut Limits), spoil: impl FnOnce(&mut Builder), message: &str) {
        let (mut limits, mut builder) = (LIMITS, sound());
        change(&mut limits);
        spoil(&mut builder);
        refused(&builder.bytes(), &limits, push(), Fault::OverLimit, message);
    }
    check(|l| l.samples_max = 1, |_| {}, "sample: 2 messages, at most 1 are allowed (profile_samples_max)");
    check(
        |l| l.stack_depth_max = 2,
        |b| b.sample(&[1, 1, 1, 1], &[1]),
        "sample[2].location_id: 3 frames, at most 2 are allowed (stack_depth_max)",
    );
    check(
        |l| l.sample_labels_max = 1,
        |b| b.profile.sample[1].label = vec![wire::Label::default(); 3],
        "sample[1]: 2 labels, at most 1 are allowed (sample_labels_max)",
    );
    check(
        |l| l.symbol_bytes_max = 12,
        |b| b.profile.function[0].name = b.string("thirteen.chars"),
        "function[0].name: 14 bytes, at most 12 are allowed (symbol_bytes_max)",
    );
    check(
        |_| {},
        |b| {
            b.profile.sample_type = (0..33).map(|i| b.value_type(&format!("t{i}"), "count")).collect();
        },
        "sample_type: 33 messages, at most 32 are allowed (SAMPLE_TYPES_MAX)",
    );
    let raw = sound().bytes();
    let limits = Limits { bytes_max: raw.len() - 1, ..LIMITS };
    let message =
        format!("the profile has more than {} bytes uncompressed (profile_bytes_max)", raw.len() - 1);
    refused(&raw, &limits, push(), Fault::TooLarge, &message);
}

#[test]
fn a_million_tiny_messages_stop_early() {
    let tiny = [0x22, 0x00].repeat(3 << 20);
    let message = "location: 2097153 messages, at most 2097152 are allowed (ROWS_MAX)";
    refused(&tiny, &LIMITS, push(), Fault::OverLimit, message);
}

#[test]
fn unknown_fields_are_skipped() {
    let mut raw = sound().bytes();
    let expected = Decoder::new().decode(&raw, &LIMITS, push()).unwrap().profile;
    // Field 100 in each encoding, and comments packed and not.
    raw.extend(b"\xa0\x06\x07\xa1\x06\0\0\0\0\0\0\0\0\xa2\x06\x01x\xa5\x06\0\0\0\0\x6a\x01\x01\x68\x01");
    assert_eq!(Decoder::new().decode(&raw, &LIMITS, push()).unwrap().profile, expected);
}

#[test]
fn a_push_id_depends_on_everything_sent() {
    let labels = |text: &str| Labels::from_pairs([("a", text)]).unwrap();
    let base = push_id(b"body", &labels("x"), None, 0, TenantNumber(1));
    assert_eq!(base, push_id(b"body", &labels("x"), None, 0, TenantNumber(1)));
    for other in [
        push_id(b"bodY", &labels("x"), None, 0, TenantNumber(1)),
        push_id(b"body", &labels("y"), None, 0, TenantNumber(1)),
        push_id(b"body", &labels("x"), Some("cpu"), 0, TenantNumber(1)),
        push_id(b"body", &labels("x"), None, 1, TenantNumber(1)),
        push_id(b"body", &labels("x"), None, 0, TenantNumber(2)),
        push_id(b"", &labels("xbody"), None, 0, TenantNumber(1)),
    ] {
        assert_ne!(other, base);
    }
}
