//! The decoder against an oracle that reads pprof with prost and follows the definitions literally; every refusal;
//! real files.

mod broken;

mod examples;

mod oracle;

mod real;

mod roundtrip;

use cambium_model::labels::Labels;
use cambium_model::profile::ProfileId;
use prost::Message;

use super::{Limits, Push};
use crate::wire::perftools as wire;

const LIMITS: Limits = Limits {
    bytes_max: 64 << 20,
    samples_max: 1 << 20,
    stack_depth_max: 1024,
    sample_labels_max: 100,
    symbol_bytes_max: 65_535,
};

fn push() -> Push<'static> {
    Push { id: ProfileId([7; 16]), labels: Labels::empty(), name: None, addresses_relative: false }
}

/// Builds pprof messages by name: strings are entered as text.
#[derive(Clone, Debug)]
struct Builder {
    profile: wire::Profile,
}

impl Builder {
    /// A CPU profile without samples.
    fn new() -> Self {
        let mut builder = Self { profile: wire::Profile::default() };
        builder.string("");
        let cpu = builder.value_type("cpu", "nanoseconds");
        builder.profile.sample_type.push(cpu);
        builder
    }

    fn string(&mut self, text: &str) -> i64 {
        let table = &mut self.profile.string_table;
        let known = table.iter().position(|known| known == text);
        known.unwrap_or_else(|| {
            table.push(text.to_owned());
            table.len() - 1
        }) as i64
    }

    fn value_type(&mut self, ty: &str, unit: &str) -> wire::ValueType {
        wire::ValueType { r#type: self.string(ty), unit: self.string(unit) }
    }

    fn mapping(&mut self, id: u64, [start, limit, offset]: [u64; 3], file: &str, build_id: &str) {
        let mapping = wire::Mapping {
            id,
            memory_start: start,
            memory_limit: limit,
            file_offset: offset,
            filename: self.string(file),
            build_id: self.string(build_id),
            ..Default::default()
        };
        self.profile.mapping.push(mapping);
    }

    fn function(&mut self, id: u64, name: &str, system_name: &str, file: &str) {
        let function = wire::Function {
            id,
            name: self.string(name),
            system_name: self.string(system_name),
            filename: self.string(file),
            start_line: 0,
        };
        self.profile.function.push(function);
    }

    /// A location whose lines are in these functions, each at line ten times its function's id.
    fn location(&mut self, id: u64, mapping_id: u64, address: u64, functions: &[u64]) {
        let line = |&function_id: &u64| wire::Line { function_id, line: function_id as i64 * 10, column: 0 };
        let line = functions.iter().map(line).collect();
        self.profile.location.push(wire::Location { id, mapping_id, address, line, is_folded: false });
    }

    fn sample(&mut self, location_id: &[u64], value: &[i64]) {
        let (location_id, value) = (location_id.to_vec(), value.to_vec());
        self.profile.sample.push(wire::Sample { location_id, value, label: vec![] });
    }

    fn bytes(&self) -> Vec<u8> {
        self.profile.encode_to_vec()
    }
}
