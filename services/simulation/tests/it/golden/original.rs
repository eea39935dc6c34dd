//! A profile as prost reads it, normalised by a literal reading of pprof's rules: the oracle for downloads.
//!
//! A stack is a list of places, innermost first. A place is what must not get lost on the way: the object (its build
//! id, else its file), the address in the object's file, and every line with its function.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use cambium_proto::wire::perftools::{Label, Location, Mapping, Profile, ValueType};
use prost::Message;
use regex::Regex;

use super::corpus::unzipped;

/// A profile and the bytes it was read from.
#[derive(Debug)]
pub struct Original {
    /// What is pushed.
    pub bytes: Vec<u8>,
    /// What it says.
    pub profile: Profile,
}

/// Numbers of places, innermost first, and the sample's labels as text.
pub type Stack = (Vec<u32>, String);

/// A number for each distinct place.
#[derive(Clone, Debug, Default)]
pub struct Places {
    numbers: HashMap<String, u32>,
    texts: Vec<String>,
}

impl Original {
    /// Reads a file.
    pub fn read(path: &Path) -> Self {
        Self::of_bytes(std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Reads gzipped bytes.
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        let profile = Profile::decode(unzipped(&bytes).as_slice()).unwrap();
        Self { bytes, profile }
    }

    /// Makes it a profile over this long; 0 for one of an instant.
    pub fn set_duration(&mut self, duration_nanos: i64) {
        self.profile.duration_nanos = duration_nanos;
        self.bytes = self.profile.encode_to_vec();
    }

    /// Two profiles that together say the same.
    pub fn halves(&self) -> [Vec<u8>; 2] {
        let (samples, duration) = (&self.profile.sample, self.profile.duration_nanos);
        assert_ne!(duration, 1, "half of it is not a duration");
        let (first, second) = samples.split_at(samples.len() / 2);
        let half = |sample: &[_], duration_nanos| {
            Profile { sample: sample.to_vec(), duration_nanos, ..self.profile.clone() }.encode_to_vec()
        };
        [half(first, duration / 2), half(second, duration - duration / 2)]
    }

    /// A text of the string table.
    pub fn text(&self, index: i64) -> &str {
        text(&self.profile, index)
    }

    /// Type and unit; both empty for none.
    pub fn value_type(&self, value_type: Option<&ValueType>) -> (&str, &str) {
        value_type.map_or(("", ""), |value_type| (self.text(value_type.r#type), self.text(value_type.unit)))
    }
}

/// The values of all profiles, by stack and labels.
pub fn sums<'a>(
    profiles: impl IntoIterator<Item = &'a Profile>,
    places: &mut Places,
) -> BTreeMap<Stack, Vec<i64>> {
    let mut sums: BTreeMap<Stack, Vec<i64>> = BTreeMap::new();
    for profile in profiles {
        let pruned = Pruned::new(profile);
        let mappings: HashMap<u64, &Mapping> = profile.mapping.iter().map(|row| (row.id, row)).collect();
        let functions = functions(profile);
        let numbers: HashMap<u64, u32> = (pruned.locations.iter())
            .map(|row| (row.id, places.number(place(profile, row, &mappings, &functions))))
            .collect();
        for sample in &profile.sample {
            let stack = pruned.stack(&sample.location_id).iter().map(|id| numbers[id]).collect();
            let sum = sums.entry((stack, labels(profile, &sample.label)));
            let sum = sum.or_insert_with(|| vec![0; sample.value.len()]);
            sum.iter_mut().zip(&sample.value).for_each(|(sum, value)| *sum += value);
        }
    }
    sums
}

/// The function's message and, as text, everything that tells it from others.
fn functions(profile: &Profile) -> HashMap<u64, String> {
    let described = profile.function.iter().map(|row| {
        let [name, system_name, file] =
            [row.name, row.system_name, row.filename].map(|index| text(profile, index));
        (row.id, format!("{name} ({system_name}) {file} from {}", row.start_line))
    });
    described.collect()
}

fn place(
    profile: &Profile,
    location: &Location,
    mappings: &HashMap<u64, &Mapping>,
    functions: &HashMap<u64, String>,
) -> String {
    let mapping = mappings.get(&location.mapping_id);
    let object = mapping.map_or("", |mapping| match text(profile, mapping.build_id) {
        "" => text(profile, mapping.filename),
        build_id => build_id,
    });
    let address = match mapping {
        Some(mapping)
            if mapping.memory_start <= location.address
                && (mapping.memory_limit == 0 || location.address < mapping.memory_limit) =>
        {
            location.address - mapping.memory_start + mapping.file_offset
        }
        _ => location.address,
    };
    let lines = location
        .line
        .iter()
        .map(|line| format!(" | {} at {}:{}", functions[&line.function_id], line.line, line.column));
    format!("{object} {address:#x}{}", lines.collect::<String>())
}

/// Text outranks a number, and a label of neither is none.
fn labels(profile: &Profile, labels: &[Label]) -> String {
    let mut told: Vec<String> = labels
        .iter()
        .filter(|label| label.str != 0 || label.num != 0 || label.num_unit != 0)
        .map(|label| {
            let key = text(profile, label.key);
            match label.str {
                0 => format!("{key}={} {:?}", label.num, text(profile, label.num_unit)),
                str => format!("{key}={:?}", text(profile, str)),
            }
        })
        .collect();
    told.sort_unstable();
    told.join(", ")
}

fn text(profile: &Profile, index: i64) -> &str {
    &profile.string_table[index as usize]
}

/// What is left of the locations and stacks after `drop_frames` and `keep_frames`.
struct Pruned {
    locations: Vec<Location>,
    /// By location that lost lines: whether it is to go from stacks as a whole.
    cut: HashMap<u64, bool>,
}

impl Pruned {
    fn new(profile: &Profile) -> Self {
        let mut pruned = Self { locations: profile.location.clone(), cut: HashMap::new() };
        let pattern = |index: i64| {
            let text = Some(text(profile, index)).filter(|text| !text.is_empty());
            text.map(|text| Regex::new(&format!("^({text})$")).unwrap())
        };
        let Some(drop) = pattern(profile.drop_frames) else { return pruned };
        let keep = pattern(profile.keep_frames);
        let dropped = |name: &str| {
            let simple = simplified(name);
            !name.is_empty()
                && drop.is_match(&simple)
                && !keep.as_ref().is_some_and(|keep| keep.is_match(&simple))
        };
        let dropped: HashMap<u64, bool> =
            profile.function.iter().map(|row| (row.id, dropped(text(profile, row.name)))).collect();
        for location in &mut pruned.locations {
            // The outermost line comes last.
            if let Some(at) = location.line.iter().rposition(|line| dropped[&line.function_id]) {
                let gone = at + 1 == location.line.len();
                pruned.cut.insert(location.id, gone);
                if !gone {
                    location.line.drain(..=at);
                }
            }
        }
        pruned
    }

    /// The part of a stack that stays: from the root to the first pruned location below one that is not.
    fn stack<'a>(&self, ids: &'a [u64]) -> &'a [u64] {
        let Some(user) = ids.iter().rposition(|id| !self.cut.contains_key(id)) else { return ids };
        match ids[..user].iter().rposition(|id| self.cut.contains_key(id)) {
            None => ids,
            Some(at) if self.cut[&ids[at]] => &ids[at + 1..],
            Some(at) => &ids[at..],
        }
    }
}

/// A function's name without a leading dot and without its arguments.
fn simplified(name: &str) -> String {
    // Two parentheses belong to names.
    const RESERVED: [(&str, &str); 2] = [("(anonymous namespace)", "\u{1}"), ("operator()", "\u{2}")];
    let mut name = name.strip_prefix('.').unwrap_or(name).to_owned();
    RESERVED.iter().for_each(|(text, mark)| name = name.replace(text, mark));
    name.truncate(name.find('(').unwrap_or(name.len()));
    RESERVED.iter().for_each(|(text, mark)| name = name.replace(mark, text));
    name
}

impl Places {
    fn number(&mut self, place: String) -> u32 {
        let next = self.texts.len() as u32;
        match self.numbers.get(&place) {
            Some(known) => *known,
            None => {
                self.texts.push(place.clone());
                self.numbers.insert(place, next);
                next
            }
        }
    }

    /// A stack as text.
    pub fn describe(&self, (stack, labels): &Stack) -> String {
        let frames: Vec<&str> = stack.iter().map(|place| &*self.texts[*place as usize]).collect();
        format!("{{{labels}}} {}", frames.join(" ← "))
    }
}
