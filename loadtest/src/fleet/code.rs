//! A service's code as the tables of a pprof, and profiles cut out of them.
//!
//! A fleet's profiles are made while a server is measured on the same machine, so making one looks nothing up by name:
//! names are numbers from the beginning, and a profile only numbers those again that it uses, from 1 in order of first
//! use (Parca takes no other order).

use std::collections::HashMap;

use cambium_model::symbols::{self, Location as Named};
use cambium_proto::wire::perftools::{Function, Line, Location, Mapping, Profile, Sample, ValueType};

use super::Build;

/// What a profile says besides its samples.
pub(super) struct Header<'a> {
    pub(super) sample_types: &'a [(&'a str, &'a str)],
    pub(super) period_type: (&'a str, &'a str),
    pub(super) period: i64,
    pub(super) time_ns: i64,
    pub(super) duration_ns: i64,
}

/// The tables; ids in them are positions plus 1, texts positions in `strings`.
#[derive(Debug, Default)]
pub(super) struct Code {
    strings: Vec<String>,
    mappings: Vec<Mapping>,
    functions: Vec<Function>,
    locations: Vec<Location>,
    /// Of each location, a hash of its innermost function's name.
    hashes: Vec<u64>,
    /// Of each mapping, whether it is built anew with each version: shared objects are not.
    own: Vec<bool>,
}

impl Code {
    /// The tables of these locations, in their order.
    pub(super) fn new(locations: &[Named]) -> Self {
        let mut code = Self::default();
        let mut strings = HashMap::new();
        let (mut mappings, mut functions) = (HashMap::new(), HashMap::new());
        code.string(&mut strings, "");
        for named in locations {
            let mapping_id = match (&*named.mapping.file, &*named.mapping.build_id) {
                ("", "") => 0,
                _ => *mappings
                    .entry(&named.mapping)
                    .or_insert_with(|| code.mapping(&mut strings, &named.mapping)),
            };
            let lines = named.lines.iter().map(|line| {
                let new = || code.function(&mut strings, &line.function);
                let function_id = *functions.entry(&line.function).or_insert_with(new);
                Line { function_id, line: line.line, column: line.column }
            });
            let line = lines.collect();
            code.locations.push(Location {
                id: 0,
                mapping_id,
                address: named.address,
                line,
                is_folded: false,
            });
            let name = named.lines.first().map_or("", |line| &line.function.name);
            let hash = |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte));
            code.hashes.push(name.bytes().fold(0, hash));
        }
        code
    }

    fn string(&mut self, known: &mut HashMap<String, i64>, text: &str) -> i64 {
        if let Some(&index) = known.get(text) {
            return index;
        }
        let index = self.strings.len() as i64;
        self.strings.push(text.to_owned());
        known.insert(text.to_owned(), index);
        index
    }

    fn mapping(&mut self, strings: &mut HashMap<String, i64>, mapping: &symbols::Mapping) -> u64 {
        let filename = self.string(strings, &mapping.file);
        let build_id = self.string(strings, &mapping.build_id);
        let file = &mapping.file;
        self.own.push(!file.is_empty() && !file.contains(".so") && !file.starts_with('['));
        let flags = Mapping {
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
            ..Mapping::default()
        };
        self.mappings.push(Mapping { filename, build_id, ..flags });
        self.mappings.len() as u64
    }

    fn function(&mut self, strings: &mut HashMap<String, i64>, function: &symbols::Function) -> u64 {
        let [name, system_name, filename] =
            [&function.name, &function.system_name, &function.file].map(|text| self.string(strings, text));
        let start_line = function.start_line;
        self.functions.push(Function { id: 0, name, system_name, filename, start_line });
        self.functions.len() as u64
    }
}

/// A profile in the making: what it uses of some code, in one version.
pub(super) struct Cut<'a> {
    code: &'a Code,
    build: &'a Build,
    profile: Profile,
    /// New numbers by old ones; 0 for what is not used so far.
    strings: Vec<i64>,
    mappings: Vec<u64>,
    functions: Vec<u64>,
    locations: Vec<u64>,
}

impl<'a> Cut<'a> {
    pub(super) fn new(code: &'a Code, build: &'a Build, header: &Header<'_>) -> Self {
        let mut cut = Self {
            code,
            build,
            profile: Profile {
                string_table: vec![String::new()],
                period: header.period,
                time_nanos: header.time_ns,
                duration_nanos: header.duration_ns,
                ..Profile::default()
            },
            strings: vec![0; code.strings.len()],
            mappings: vec![0; code.mappings.len()],
            functions: vec![0; code.functions.len()],
            locations: vec![0; code.locations.len()],
        };
        let types = header.sample_types.iter().map(|ty| cut.value_type(*ty)).collect();
        cut.profile.sample_type = types;
        cut.profile.period_type = Some(cut.value_type(header.period_type));
        cut
    }

    /// Adds a sample: positions of its locations, the innermost first, and a value for each sample type.
    pub(super) fn sample(&mut self, stack: impl Iterator<Item = u32>, values: &[i64]) {
        let location_id = stack.map(|at| self.location(at as usize)).collect();
        self.profile.sample.push(Sample { location_id, value: values.to_vec(), label: Vec::new() });
    }

    pub(super) fn finish(self) -> Profile {
        self.profile
    }

    fn value_type(&mut self, (ty, unit): (&str, &str)) -> ValueType {
        ValueType { r#type: self.new_text(ty), unit: self.new_text(unit) }
    }

    fn location(&mut self, at: usize) -> u64 {
        if self.locations[at] != 0 {
            return self.locations[at];
        }
        let mut location = self.code.locations[at].clone();
        location.mapping_id = self.mapping(location.mapping_id);
        for line in &mut location.line {
            line.function_id = self.function(line.function_id);
        }
        if let Some(line) = location.line.first_mut().filter(|line| line.line > 0) {
            line.line += self.build.moved_by(self.code.hashes[at]);
        }
        location.id = self.profile.location.len() as u64 + 1;
        self.locations[at] = location.id;
        self.profile.location.push(location);
        self.locations[at]
    }

    fn mapping(&mut self, id: u64) -> u64 {
        let Some(at) = (id as usize).checked_sub(1) else { return 0 };
        if self.mappings[at] == 0 {
            let mut mapping = self.code.mappings[at];
            mapping.id = self.profile.mapping.len() as u64 + 1;
            mapping.filename = self.text(mapping.filename);
            let own = self.code.own[at];
            mapping.build_id = if own { self.new_text(&self.build.id) } else { self.text(mapping.build_id) };
            self.mappings[at] = mapping.id;
            self.profile.mapping.push(mapping);
        }
        self.mappings[at]
    }

    fn function(&mut self, id: u64) -> u64 {
        let at = id as usize - 1;
        if self.functions[at] == 0 {
            let mut function = self.code.functions[at];
            function.id = self.profile.function.len() as u64 + 1;
            function.name = self.text(function.name);
            function.system_name = self.text(function.system_name);
            function.filename = self.text(function.filename);
            self.functions[at] = function.id;
            self.profile.function.push(function);
        }
        self.functions[at]
    }

    /// A string of the code, in the profile's table.
    fn text(&mut self, index: i64) -> i64 {
        let index = index as usize;
        if index != 0 && self.strings[index] == 0 {
            self.strings[index] = self.new_text(&self.code.strings[index]);
        }
        self.strings[index]
    }

    /// A string that the code may not have.
    fn new_text(&mut self, text: &str) -> i64 {
        self.profile.string_table.push(text.to_owned());
        self.profile.string_table.len() as i64 - 1
    }
}
