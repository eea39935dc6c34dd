//! Names of locations and loaded objects, and the values that the metadata store keeps of them.

use std::sync::Arc;

use cambium_model::symbols::{Function, Line, Location, Mapping};

use crate::wire::metastore as wire;

impl wire::Location {
    /// The stored value of a location written on this day (days since the Unix epoch).
    pub fn new(location: &Location, written_day: u32) -> Self {
        Self {
            mapping_file: location.mapping.file.to_string(),
            build_id: location.mapping.build_id.to_string(),
            address: location.address,
            lines: location.lines.iter().map(Into::into).collect(),
            written_day,
        }
    }
}

impl From<wire::Location> for Location {
    fn from(stored: wire::Location) -> Self {
        Self {
            mapping: Mapping { file: stored.mapping_file.into(), build_id: stored.build_id.into() },
            address: stored.address,
            lines: stored.lines.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<&Line> for wire::Line {
    fn from(line: &Line) -> Self {
        let Function { name, system_name, file, start_line } = &line.function;
        Self {
            name: name.to_string(),
            system_name: (system_name != name).then(|| system_name.to_string()),
            file: file.to_string(),
            start_line: *start_line,
            line: line.line,
            column: line.column,
        }
    }
}

impl From<wire::Line> for Line {
    fn from(stored: wire::Line) -> Self {
        let name: Arc<str> = stored.name.into();
        let system_name = stored.system_name.map_or_else(|| Arc::clone(&name), Into::into);
        Self {
            function: Function { name, system_name, file: stored.file.into(), start_line: stored.start_line },
            line: stored.line,
            column: stored.column,
        }
    }
}

impl wire::BuildObject {
    /// The stored value of a loaded object written on this day (days since the Unix epoch).
    pub fn new(mapping: &Mapping, written_day: u32) -> Self {
        Self { build_id: mapping.build_id.to_string(), file: mapping.file.to_string(), written_day }
    }
}

impl From<wire::BuildObject> for Mapping {
    fn from(stored: wire::BuildObject) -> Self {
        Self { file: stored.file.into(), build_id: stored.build_id.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_comes_back_whole() {
        let line = |name: &str, system_name: &str| Line {
            function: Function {
                name: name.into(),
                system_name: system_name.into(),
                file: "a.cc".into(),
                start_line: -1,
            },
            line: 3,
            column: 4,
        };
        let location = Location {
            mapping: Mapping { file: "/bin/x".into(), build_id: "ab".into() },
            address: u64::MAX,
            lines: vec![line("f", "f"), line("f(int)", "_Z1fi"), line("g", "")],
        };
        assert_eq!(Location::from(wire::Location::new(&location, 20_000)), location);
        assert_eq!(Mapping::from(wire::BuildObject::new(&location.mapping, 1)), location.mapping);
    }
}
