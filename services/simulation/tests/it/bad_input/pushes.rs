//! Pushes that are refused: bodies that are no profile, profiles that contradict themselves, parameters.

use cambium_loadtest::synthetic::Synthetic;
use cambium_proto::pprof;
use cambium_proto::wire::perftools::{Label, Mapping, Profile, ValueType};
use prost::Message;

use super::{Case, Pairs, push};
use crate::main_job::now_ns;

const LABELS: (&str, &str) = ("labels", r#"{service_name="bad"}"#);

/// Every broken push.
pub fn cases() -> Vec<Case> {
    [bytes(), tables(), references(), values(), parameters(), labels()].concat()
}

/// A profile without a fault: three samples of two locations each, no mapping.
pub fn sound() -> Profile {
    let bytes = Synthetic { time_ns: now_ns(), samples: 3, value: 5 }.pprof();
    Profile::decode(&bytes[..]).expect("just encoded")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    pprof::gzip(bytes)
}

fn body(bytes: impl Into<Vec<u8>>, status: u16, message: &str) -> Case {
    push(&[LABELS], bytes, status, message)
}

/// The sound profile with one fault.
pub fn spoilt(spoil: impl FnOnce(&mut Profile), status: u16, message: &str) -> Case {
    let mut profile = sound();
    spoil(&mut profile);
    body(profile.encode_to_vec(), status, message)
}

/// The position of a text that the profile did not have.
pub fn string(profile: &mut Profile, text: &str) -> i64 {
    profile.string_table.push(text.into());
    profile.string_table.len() as i64 - 1
}

fn bytes() -> Vec<Case> {
    let raw = sound().encode_to_vec();
    let zipped = gzip(&raw);
    let half = &zipped[..zipped.len() / 2];
    let mut flipped = zipped.clone();
    let checksum = flipped.len() - 6;
    flipped[checksum] ^= 1;
    let second_cut = [&zipped[..], half].concat();
    vec![
        body(b"", 400, "the profile is empty"),
        body(gzip(b""), 400, "the profile is empty"),
        body(b"\x0a", 400, "the profile is cut or garbled at byte 1"),
        body(b"\x0a\x05\x08", 400, "a field at byte 1 claims 5 bytes, 1 are left"),
        body(
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            400,
            "a field at byte 1 claims 18446744073709551615 bytes, 0 are left",
        ),
        body(b"\x48\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 400, "the profile is cut or garbled at byte 1"),
        body(b"\x00\x00", 400, "the profile is cut or garbled at byte 0"),
        body(b"\x49\0\0\0\0\0\0\0\0", 400, "profile: field 9 has wire type 1 at byte 1"),
        body(b"\x22\x02\x0a\x00", 400, "location[0]: field 1 has wire type 2 at byte 3"),
        body(b"\x22\x04\x22\x02\x0d\x00", 400, "location[0].line[0]: field 1 has wire type 5 at byte 5"),
        body(b"\x83\x01", 400, "profile: field 16 has wire type 3 at byte 2"),
        body(b"<html>", 400, "profile: field 7 has wire type 4 at byte 1"),
        body(br#"{"profile": 1}"#, 400, "profile: field 15 has wire type 3 at byte 1"),
        body(&raw[..raw.len() - 1], 400, "the profile is cut or garbled at byte"),
        body(half, 400, "gzip member 0 is damaged"),
        body(flipped, 400, "gzip member 0 is damaged"),
        body(b"\x1f\x8b", 400, "gzip member 0 is damaged"),
        body(second_cut, 400, "gzip member 1 is damaged"),
        body([&zipped[..], b"more"].concat(), 400, "4 bytes after the gzip stream are not gzip"),
        body(b"\x28\xb5\x2f\xfd\x00\x00\x00", 400, "the zstd stream is damaged"),
        // A window of 3.75 TiB.
        body(b"\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00", 400, "the zstd stream is damaged"),
    ]
}

fn tables() -> Vec<Case> {
    let mapping = |id| Mapping { id, memory_start: 0x1000, memory_limit: 0x9000, ..Mapping::default() };
    vec![
        spoilt(|p| p.string_table.clear(), 400, "string_table is missing"),
        spoilt(|p| p.string_table[0] = "x".into(), 400, "string_table[0] is not empty"),
        spoilt(|p| p.sample_type.clear(), 400, "sample_type is missing"),
        spoilt(|p| p.sample_type = vec![p.sample_type[0]; 2], 400, "sample_type[1] repeats sample_type[0]"),
        spoilt(|p| p.location[1].id = 0, 400, "location[1]: id 0 is reserved"),
        spoilt(|p| p.location[2].id = 1, 400, "location[2]: id 1 is already location[0]"),
        spoilt(|p| p.function[0].id = 0, 400, "function[0]: id 0 is reserved"),
        spoilt(|p| p.function[1].id = 1, 400, "function[1]: id 1 is already function[0]"),
        spoilt(|p| p.mapping = vec![mapping(0)], 400, "mapping[0]: id 0 is reserved"),
        spoilt(|p| p.mapping = vec![mapping(1); 2], 400, "mapping[1]: id 1 is already mapping[0]"),
        spoilt(
            |p| {
                p.sample_type =
                    (0..33).map(|i| ValueType { r#type: string(p, &format!("t{i}")), unit: 2 }).collect();
            },
            422,
            "sample_type: 33 messages, at most 32 are allowed",
        ),
    ]
}

fn references() -> Vec<Case> {
    let label = |key, str, num_unit| vec![Label { key, str, num: 0, num_unit }];
    vec![
        spoilt(|p| p.sample[1].location_id[1] = 99, 400, "sample[1].location_id[1]: 99 names no location"),
        spoilt(|p| p.sample[0].location_id[0] = 0, 400, "sample[0].location_id[0]: 0 names no location"),
        spoilt(|p| p.location[2].mapping_id = 9, 400, "location[2].mapping_id: 9 names no mapping"),
        spoilt(
            |p| p.location[1].line[0].function_id = 9,
            400,
            "location[1].line[0].function_id: 9 names no function",
        ),
        spoilt(|p| p.function[1].name = 700, 400, "function[1].name: string index 700 out of range"),
        spoilt(|p| p.function[1].filename = -1, 400, "function[1].filename: string index -1 out of range"),
        spoilt(|p| p.sample_type[0].unit = 700, 400, "sample_type[0].unit: string index 700 out of range"),
        spoilt(
            |p| p.period_type = Some(ValueType { r#type: i64::MIN, unit: 0 }),
            400,
            "period_type.type: string index -9223372036854775808 out of range",
        ),
        spoilt(|p| p.drop_frames = 700, 400, "drop_frames: string index 700 out of range"),
        spoilt(|p| p.sample[1].label = label(700, 0, 0), 400, "sample[1].label[0].key: string index 700"),
        spoilt(|p| p.sample[1].label = label(1, 700, 0), 400, "sample[1].label[0].str: string index 700"),
        spoilt(
            |p| p.sample[1].label = label(1, 0, 700),
            400,
            "sample[1].label[0].num_unit: string index 700",
        ),
    ]
}

fn values() -> Vec<Case> {
    let hour_ago = now_ns() - 2 * 3_600_000_000_000;
    vec![
        spoilt(
            |p| p.sample[1].value = vec![1, 2],
            400,
            "sample[1]: 2 values, the profile has 1 sample types",
        ),
        spoilt(|p| p.sample[0].value.clear(), 400, "sample[0]: 0 values, the profile has 1 sample types"),
        spoilt(|p| p.time_nanos = -1, 400, "time_nanos is -1, it must not be negative"),
        spoilt(|p| p.duration_nanos = -5, 400, "duration_nanos is -5, it must not be negative"),
        spoilt(|p| p.period = i64::MIN, 400, "period is -9223372036854775808, it must not be negative"),
        spoilt(
            |p| {
                p.sample[0].value = vec![i64::MAX];
                p.sample.push(p.sample[0].clone());
            },
            400,
            "sample[3].value[0]: the sum with equal samples passes 64 bits",
        ),
        spoilt(
            |p| p.sample_type[0].r#type = 0,
            400,
            "sample_type[0].type: \"\" cannot be part of a profile type",
        ),
        spoilt(
            |p| p.sample_type[0].unit = string(p, "a:b"),
            400,
            "sample_type[0].unit: \"a:b\" cannot be part of a profile type",
        ),
        spoilt(|p| p.drop_frames = string(p, "("), 400, "drop_frames is no regular expression"),
        spoilt(
            |p| {
                p.drop_frames = string(p, "x");
                p.keep_frames = string(p, "*");
            },
            400,
            "keep_frames is no regular expression",
        ),
        spoilt(|p| p.time_nanos = hour_ago, 422, "3600s are allowed (reject_older_than_secs)"),
        spoilt(|p| p.time_nanos = i64::MAX, 422, "600s are allowed (reject_newer_than_secs)"),
    ]
}

fn parameters() -> Vec<Case> {
    let refused: &[(Pairs<'_>, u16, &str)] = &[
        (&[("label", "{}")], 400, "query string: "),
        (&[("labels", "{}"), ("labels", "{}")], 400, "duplicate field `labels`"),
        (&[LABELS, ("name", "")], 400, "profile name \"\" must have 1 to 256 bytes"),
        (&[LABELS, ("name", "a:b")], 400, "profile name \"a:b\" must have"),
        (&[LABELS, ("name", "é")], 400, "profile name \"é\" must have"),
        (
            &[LABELS, ("timestamp", "yesterday")],
            400,
            "parameter timestamp: \"yesterday\" is neither RFC 3339 nor",
        ),
        (
            &[LABELS, ("timestamp", "2026-02-30T00:00:00Z")],
            400,
            "parameter timestamp: \"2026-02-30T00:00:00Z\"",
        ),
        (&[LABELS, ("timestamp", "99999999999999999999")], 400, "parameter timestamp: "),
        (&[LABELS, ("timestamp", "")], 400, "parameter timestamp: \"\" is neither"),
        (&[LABELS, ("timestamp", "1")], 422, "too old"),
        (&[LABELS, ("timestamp", "9000000000")], 422, "too new"),
        (
            &[LABELS, ("profile_id", "12")],
            400,
            "profile_id must be 16 bytes (32 hexadecimal digits over HTTP)",
        ),
        (&[LABELS, ("profile_id", "+123456789abcdef0123456789abcdef")], 400, "profile_id must be 16 bytes"),
    ];
    let body = sound().encode_to_vec();
    refused
        .iter()
        .map(|(parameters, status, message)| push(parameters, &body[..], *status, message))
        .collect()
}

fn labels() -> Vec<Case> {
    let label = |name: &str, value: &str| format!(r#"{{{name}="{value}"}}"#);
    let many = |count: usize| {
        let all: Vec<String> = (0..count).map(|i| format!(r#"l{i}="x""#)).collect();
        format!("{{{}}}", all.join(","))
    };
    let refused: &[(&str, u16, &str)] = &[
        ("{", 400, "parameter labels: selector: expected a label name or '}' at byte 1, found the end"),
        ("service_name=\"a\"", 400, "parameter labels: selector: expected '{' at byte 0, found 's'"),
        ("{a=b}", 400, "expected a quoted value at byte 3, found 'b'"),
        (r#"{a="b"#, 400, "expected a closing quote at byte 5, found the end"),
        (r#"{a="b"}x"#, 400, "expected the end at byte 7, found 'x'"),
        (r#"{a="\q"}"#, 400, "expected an escape such as"),
        (r#"{a="\ud800"}"#, 400, "expected hexadecimal digits of a character"),
        (r#"{""="x"}"#, 400, "expected a label name at byte 1"),
        (r#"{a=~"b"}"#, 400, "a=~… is a matcher, a label set takes only ="),
        (r#"{a="1",a="2"}"#, 400, "label \"a\" is given twice"),
        (r#"{"a b"="x"}"#, 400, "label name \"a b\" must match"),
        (r#"{"é"="x"}"#, 400, "label name \"é\" must match"),
        (r#"{__tenant_id__="x"}"#, 400, "label name \"__tenant_id__\" must match"),
        (r#"{__name__="b:c"}"#, 400, "profile name \"b:c\" must have"),
        (&many(41), 422, "the series has 41 labels, 40 are allowed (label_names_max)"),
        (&many(257), 400, "selector has more than 256 matchers"),
        (&label(&"n".repeat(1_025), "x"), 422, "has 1025 bytes, 1024 are allowed (label_name_bytes_max)"),
        (
            &label("pod", &"v".repeat(2_049)),
            422,
            "the value of label pod has 2049 bytes, 2048 are allowed (label_value_bytes_max)",
        ),
    ];
    let body = sound().encode_to_vec();
    let mut cases: Vec<Case> = refused
        .iter()
        .map(|(labels, status, message)| push(&[("labels", labels)], &body[..], *status, message))
        .collect();
    let two_names = [("labels", r#"{__name__="b"}"#), ("name", "a")];
    cases.push(push(&two_names, body, 400, "the profile is named \"a\" and, by its label __name__, \"b\""));
    cases
}
