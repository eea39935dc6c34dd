//! Small profiles with known sums, for tests that count what survives.

use cambium_proto::wire::perftools::{Function, Line, Location, Profile, Sample, ValueType};
use prost::Message;

/// A CPU profile of `samples` stacks, `main` calling `work0`, `work1`, …, each worth `value` nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Synthetic {
    /// When it was collected.
    pub time_ns: i64,
    /// How many stacks.
    pub samples: u64,
    /// Value of each.
    pub value: i64,
}

impl Synthetic {
    /// Sum over all stacks.
    pub fn total(&self) -> i64 {
        self.value * self.samples as i64
    }

    /// As raw pprof.
    pub fn pprof(&self) -> Vec<u8> {
        let mut strings: Vec<String> =
            ["", "cpu", "nanoseconds", "main", "main.rs"].map(String::from).to_vec();
        let value_type = ValueType { r#type: 1, unit: 2 };
        let mut profile = Profile {
            sample_type: vec![value_type],
            period_type: Some(value_type),
            period: 10_000_000,
            time_nanos: self.time_ns,
            duration_nanos: 10_000_000_000,
            ..Profile::default()
        };
        for index in 0..=self.samples {
            let name = if index == 0 { 3 } else { strings.len() as i64 };
            if index > 0 {
                strings.push(format!("work{}", index - 1));
            }
            let id = index + 1;
            profile.function.push(Function { id, name, system_name: name, filename: 4, start_line: 1 });
            profile.location.push(Location {
                id,
                address: 0x1000 + index,
                line: vec![Line { function_id: id, line: 10 + index as i64, column: 0 }],
                ..Location::default()
            });
            if index > 0 {
                let sample = Sample { location_id: vec![id, 1], value: vec![self.value], label: Vec::new() };
                profile.sample.push(sample);
            }
        }
        profile.string_table = strings;
        profile.encode_to_vec()
    }
}
