//! Random profiles: the decoder must see in them what a literal reading of the definitions sees.

use std::collections::{BTreeMap, HashMap};

use cambium_model::profile::{SampleLabelValue, SampleLabels};
use cambium_model::stacktrace::NO_PARENT;
use cambium_model::symbols::{Function, Line, Location, Mapping};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use prost::Message;

use super::super::{Decoded, Decoder};
use super::{LIMITS, push, wire};
use crate::record;

/// Sums by stack (outermost frame first) and labels, both as text.
pub(super) type Sums = BTreeMap<(Vec<String>, String), Vec<i64>>;

/// A location as far as its id tells it from others: of a mapping with a build id, the file does not matter.
fn key(mut location: Location) -> String {
    if !location.mapping.build_id.is_empty() {
        location.mapping.file = "".into();
    }
    format!("{location:?}")
}

/// What the decoder made of a profile. Checks the laws of the model on the way.
pub(super) fn decoded_sums(decoded: &Decoded<'_>) -> Sums {
    let profile = &decoded.profile;
    let keys: Vec<String> = (0..profile.locations.len()).map(|i| key(decoded.location(i))).collect();
    let ids: BTreeMap<_, _> = profile.locations.iter().zip(&keys).collect();
    assert_eq!(ids.len(), keys.len(), "a location id occurs twice");
    let mut distinct = keys.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), keys.len(), "one location has two ids");
    let mut sums = Sums::new();
    for sample in 0..profile.sample_count() {
        let mut stack = Vec::new();
        let mut node = profile.sample_nodes[sample];
        while node != NO_PARENT {
            let this = profile.nodes[node as usize];
            assert!(this.parent == NO_PARENT || this.parent < node, "a parent comes after its child");
            stack.insert(0, keys[this.location as usize].clone());
            node = this.parent;
        }
        let labels =
            match profile.label_sets.get(profile.sample_label_sets.get(sample).map_or(0, |&s| s as usize)) {
                Some(set) => format!("{set:?}"),
                None => "[]".to_owned(),
            };
        let values = (0..profile.types.len()).map(|ty| profile.column(ty)[sample]).collect();
        assert_eq!(sums.insert((stack, labels), values), None, "equal samples are not summed");
    }
    sums
}

/// The same, read by prost and computed naively.
pub(super) fn naive_sums(raw: &[u8]) -> Sums {
    let profile = wire::Profile::decode(raw).unwrap();
    let text = |index: i64| profile.string_table[index as usize].as_str();
    let functions: HashMap<u64, &wire::Function> = profile.function.iter().map(|f| (f.id, f)).collect();
    let mappings: HashMap<u64, &wire::Mapping> = profile.mapping.iter().map(|m| (m.id, m)).collect();
    let mut locations: Vec<wire::Location> = profile.location.clone();
    let flags = prune(&mut locations, text(profile.drop_frames), text(profile.keep_frames), |function| {
        text(functions[&function].name)
    });
    let model = |location: &wire::Location| {
        let mapping = mappings.get(&location.mapping_id);
        let address = match mapping {
            Some(m)
                if m.memory_start <= location.address
                    && (m.memory_limit == 0 || location.address < m.memory_limit) =>
            {
                location.address - m.memory_start + m.file_offset
            }
            _ => location.address,
        };
        let lines = location.line.iter().map(|line| {
            let f = functions[&line.function_id];
            let function = Function {
                name: text(f.name).into(),
                system_name: text(f.system_name).into(),
                file: text(f.filename).into(),
                start_line: f.start_line,
            };
            Line { function, line: line.line, column: line.column }
        });
        let lines = lines.collect();
        let mapping = mapping.map_or_else(Mapping::default, |m| Mapping {
            file: text(m.filename).into(),
            build_id: text(m.build_id).into(),
        });
        key(Location { mapping, address, lines })
    };
    let keys: HashMap<u64, String> = locations.iter().map(|l| (l.id, model(l))).collect();
    let mut sums = Sums::new();
    for sample in &profile.sample {
        let mut stack: Vec<String> =
            cut(&sample.location_id, &flags).iter().map(|id| keys[id].clone()).collect();
        stack.reverse();
        let mut labels = SampleLabels::new();
        for label in &sample.label {
            let value = match label {
                l if l.str != 0 => SampleLabelValue::Text(text(l.str).into()),
                l if l.num != 0 || l.num_unit != 0 => {
                    SampleLabelValue::Number(l.num, text(l.num_unit).into())
                }
                _ => continue,
            };
            labels.push((text(label.key).into(), value));
        }
        labels.sort();
        let sum = sums.entry((stack, format!("{labels:?}"))).or_insert_with(|| vec![0; sample.value.len()]);
        sum.iter_mut().zip(&sample.value).for_each(|(sum, value)| *sum += value);
    }
    sums
}

/// By location id: whether the location as a whole is dropped, or only lines of it.
type Flags = HashMap<u64, bool>;

/// Drops lines as pprof does. The expressions of these tests mean the same in Go and here.
fn prune<'a>(
    locations: &mut [wire::Location],
    drop: &str,
    keep: &str,
    name: impl Fn(u64) -> &'a str,
) -> Flags {
    let mut flags = Flags::new();
    if drop.is_empty() {
        return flags;
    }
    let matches = |pattern: &str, name: &str| {
        !pattern.is_empty() && regex::Regex::new(&format!("^({pattern})$")).unwrap().is_match(name)
    };
    for location in locations {
        for at in (0..location.line.len()).rev() {
            let name = name(location.line[at].function_id);
            let simple = name.split('(').next().unwrap_or("");
            if !name.is_empty() && matches(drop, simple) && !matches(keep, simple) {
                let whole = at + 1 == location.line.len();
                flags.insert(location.id, whole);
                if !whole {
                    location.line.drain(..=at);
                }
                break;
            }
        }
    }
    flags
}

fn cut<'a>(stack: &'a [u64], flags: &Flags) -> &'a [u64] {
    let mut found_user = false;
    for (at, id) in stack.iter().enumerate().rev() {
        match flags.get(id) {
            None => found_user = true,
            Some(true) if found_user => return &stack[at + 1..],
            Some(false) if found_user => return &stack[at..],
            Some(_) => {}
        }
    }
    stack
}

/// How a random profile is put on the wire.
#[derive(Clone, Debug)]
struct Layout {
    /// The order of the tables.
    order: Vec<usize>,
    /// Whether repeated numbers are packed.
    packed: bool,
    /// What sequential ids are multiplied with: odd, so that they stay distinct and never 0.
    id_factor: u64,
}

const TEXTS: [&str; 8] = ["", "a", "b", "c", "d", "a(int)", "/bin/x", "s"];

fn text() -> impl Strategy<Value = i64> {
    0..TEXTS.len() as i64
}

fn profile() -> impl Strategy<Value = wire::Profile> {
    let mapping = (select(vec![0, 0x1000u64]), select(vec![0, 0x3000u64]), 0..3u64, text(), text());
    let function = (text(), text(), text(), 0..2i64);
    let location = (any::<Option<Index>>(), 0..0x4000u64, vec((any::<Index>(), 0..3i64, 0..2i64), 0..4));
    let label = (text(), text(), 0..2i64, text());
    let sample = (vec(any::<Index>(), 0..6), vec(-5..100i64, 2), vec(label, 0..3));
    let tables = (vec(mapping, 0..3), vec(function, 1..6), vec(location, 1..8), vec(sample, 0..20));
    let patterns = (select(vec!["", "a", "a|b", "c|d|a"]), select(vec!["", "a", "c"]));
    (tables, patterns).prop_map(|((mappings, functions, locations, samples), (drop, keep))| {
        let string_table = TEXTS.map(String::from).to_vec();
        let mut profile = wire::Profile { string_table, ..Default::default() };
        let mut string = |text: &str| {
            let index = profile.string_table.len();
            profile.string_table.push(text.to_owned());
            index as i64
        };
        (profile.drop_frames, profile.keep_frames) = (string(drop), string(keep));
        let [samples_type, cpu] = ["samples", "cpu"].map(&mut string);
        profile.sample_type = [samples_type, cpu].map(|ty| wire::ValueType { r#type: ty, unit: 7 }).to_vec();
        let ids = || 1..;
        profile.mapping = (ids().zip(mappings))
            .map(|(id, (memory_start, memory_limit, file_offset, filename, build_id))| wire::Mapping {
                id,
                memory_start,
                memory_limit,
                file_offset,
                filename,
                build_id,
                ..Default::default()
            })
            .collect();
        profile.function = (ids().zip(functions))
            .map(|(id, (name, system_name, filename, start_line))| wire::Function {
                id,
                name,
                system_name,
                filename,
                start_line,
            })
            .collect();
        let some_id = |index: Index, len: usize| index.index(len) as u64 + 1;
        let (mapping_count, function_count) = (profile.mapping.len(), profile.function.len());
        profile.location = (ids().zip(locations))
            .map(|(id, (mapping, address, lines))| wire::Location {
                id,
                mapping_id: mapping.filter(|_| mapping_count > 0).map_or(0, |m| some_id(m, mapping_count)),
                address,
                line: (lines.into_iter())
                    .map(|(function, line, column)| wire::Line {
                        function_id: some_id(function, function_count),
                        line,
                        column,
                    })
                    .collect(),
                is_folded: false,
            })
            .collect();
        let location_count = profile.location.len();
        profile.sample = (samples.into_iter())
            .map(|(stack, value, labels)| wire::Sample {
                location_id: stack.into_iter().map(|l| some_id(l, location_count)).collect(),
                value,
                label: (labels.into_iter())
                    .map(|(key, str, num, num_unit)| wire::Label { key, str, num, num_unit })
                    .collect(),
            })
            .collect();
        profile
    })
}

fn layout() -> impl Strategy<Value = Layout> {
    let order = Just((0..6).collect::<Vec<usize>>()).prop_shuffle();
    let id_factor = select(vec![1, 3, 1_000_003, 0x9E37_79B9_7F4A_7C15]);
    (order, any::<bool>(), id_factor).prop_map(|(order, packed, id_factor)| Layout {
        order,
        packed,
        id_factor,
    })
}

/// Concatenated messages are merged by protobuf, so each table can be written on its own.
fn serialise(mut profile: wire::Profile, layout: &Layout) -> Vec<u8> {
    let far = |id: &mut u64| *id = id.wrapping_mul(layout.id_factor);
    profile.mapping.iter_mut().for_each(|m| far(&mut m.id));
    profile.function.iter_mut().for_each(|f| far(&mut f.id));
    for location in &mut profile.location {
        far(&mut location.id);
        far(&mut location.mapping_id);
        location.line.iter_mut().for_each(|line| far(&mut line.function_id));
    }
    profile.sample.iter_mut().flat_map(|sample| &mut sample.location_id).for_each(far);
    let none = wire::Profile::default;
    let parts = [
        wire::Profile { sample_type: profile.sample_type, ..none() }.encode_to_vec(),
        if layout.packed {
            wire::Profile { sample: profile.sample, ..none() }.encode_to_vec()
        } else {
            profile.sample.iter().flat_map(unpacked).collect()
        },
        wire::Profile { mapping: profile.mapping, ..none() }.encode_to_vec(),
        wire::Profile { location: profile.location, ..none() }.encode_to_vec(),
        wire::Profile { function: profile.function, ..none() }.encode_to_vec(),
        wire::Profile {
            string_table: profile.string_table,
            drop_frames: profile.drop_frames,
            keep_frames: profile.keep_frames,
            ..none()
        }
        .encode_to_vec(),
    ];
    layout.order.iter().flat_map(|&part| parts[part].iter().copied()).collect()
}

/// A sample message with a key before every number.
fn unpacked(sample: &wire::Sample) -> Vec<u8> {
    let mut message = wire::Sample { label: sample.label.clone(), ..Default::default() }.encode_to_vec();
    let numbers = sample.location_id.iter().map(|&id| (8, id));
    for (key, number) in numbers.chain(sample.value.iter().map(|&value| (16, value as u64))) {
        message.push(key);
        crate::varint::put(&mut message, number);
    }
    let mut out = vec![0x12];
    crate::varint::put(&mut out, message.len() as u64);
    out.extend(message);
    out
}

proptest! {
    #[test]
    fn the_decoder_agrees_with_the_definitions(
        profiles in vec((profile(), layout()), 1..3),
    ) {
        // One decoder for all: nothing of a profile may show in the next.
        let mut decoder = Decoder::new();
        for (profile, layout) in profiles {
            let raw = serialise(profile, &layout);
            let decoded = decoder.decode(&raw, &LIMITS, push()).unwrap();
            prop_assert_eq!(decoded_sums(&decoded), naive_sums(&raw));
        }
    }

    #[test]
    fn damage_never_panics_and_never_breaks_a_law(
        profile in profile(),
        layout in layout(),
        flips in vec(any::<(Index, u8)>(), 1..4),
    ) {
        let mut raw = serialise(profile, &layout);
        for (at, flip) in flips {
            let at = at.index(raw.len());
            raw[at] ^= flip;
        }
        if let Ok(decoded) = Decoder::new().decode(&raw, &LIMITS, push()) {
            decoded_sums(&decoded);
            decoded.mappings();
            let tenant = cambium_model::tenant::Tenant {
                id: cambium_model::tenant::TenantId::anonymous(),
                number: cambium_model::tenant::TenantNumber(1),
            };
            let profiles = vec![decoded.profile];
            prop_assert_eq!(record::decode(&record::encode(&tenant, &profiles)), Ok((tenant, profiles)));
        }
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..300)) {
        let _ = Decoder::new().decode(&noise, &LIMITS, push());
    }
}
