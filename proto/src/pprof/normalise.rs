//! Checks what refers to what, and gives every location its identity.
//!
//! ```text
//! function  key    = xxh3(system name, file)            where the name is the same or one of the two is missing
//!                    xxh3(system name, file, name)      where the name is another: such functions are told apart
//!           detail = xxh3(name, system name, start line)
//! location  named  = function hash: xxh3(key of each line), and the detail hash where a line's function has no name:
//!                                   it folds only with itself, as native code does
//!                    detail hash:   xxh3(build id or file of the mapping, file address, (line, column, detail) …)
//!           native = build reference of the mapping, file address
//! ```
//!
//! A text enters by its xxh3-64, a number by its eight bytes, little end first. Stored ids depend on every part of
//! this: changing it makes all named locations new.

use cambium_model::stacktrace::{BuildRef, LocationId};
use xxhash_rust::xxh3::xxh3_64;

use super::error::{Error, Place};
use super::ids::Ids;
use super::strings::{Hashes, Strings};
use super::tables::{Function, Location, Mapping, Tables};

/// In place of a mapping's row.
pub(super) const NO_MAPPING: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct FunctionHashes {
    key: u64,
    detail: u64,
    nameless: bool,
}

#[derive(Clone, Copy, Debug)]
struct Object {
    build: BuildRef,
    identity: u64,
}

/// The profile's references as rows, and the hashes behind location ids.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// Rows of locations by id, for the samples.
    pub(super) locations: Ids,
    /// The function's row of every line.
    pub(super) line_functions: Vec<u32>,
    /// The mapping's row of every location.
    pub(super) location_mappings: Vec<u32>,
    /// The identity of every location.
    pub(super) location_ids: Vec<LocationId>,
    mappings: Ids,
    functions: Ids,
    hashes: Hashes,
    function_hashes: Vec<FunctionHashes>,
    objects: Vec<Object>,
    bytes: Vec<u8>,
}

impl Resolved {
    /// Checks every table of a profile, in place of the one before; the samples are checked when they are read.
    pub(super) fn resolve(&mut self, tables: &Tables, strings: &Strings<'_>) -> Result<(), Error> {
        self.clear();
        self.hashes.reset(tables.strings.len());
        rebuild(&mut self.mappings, "mapping", tables.mappings.iter().map(|row| row.id))?;
        rebuild(&mut self.functions, "function", tables.functions.iter().map(|row| row.id))?;
        rebuild(&mut self.locations, "location", tables.locations.iter().map(|row| row.id))?;
        for (index, mapping) in tables.mappings.iter().enumerate() {
            let object = self.object(mapping, index, strings)?;
            self.objects.push(object);
        }
        for (index, function) in tables.functions.iter().enumerate() {
            let hashes = self.function(function, index, strings)?;
            self.function_hashes.push(hashes);
        }
        for (index, location) in tables.locations.iter().enumerate() {
            self.references(location, index, tables)?;
        }
        Ok(())
    }

    /// Gives every location its id. After pruning, because that can cut a location's lines.
    pub(super) fn identify(&mut self, tables: &Tables, addresses_relative: bool) {
        for (row, location) in tables.locations.iter().enumerate() {
            let id = self.location_id(row, location, tables, addresses_relative);
            self.location_ids.push(id);
        }
    }

    /// The build reference of a location's mapping.
    pub(super) fn build_ref(&self, mapping: u32) -> BuildRef {
        self.objects.get(mapping as usize).map_or_else(|| BuildRef::new("", ""), |object| object.build)
    }

    fn clear(&mut self) {
        let kept = super::decode::KEPT_ROWS_MAX;
        for ids in [&mut self.locations, &mut self.mappings, &mut self.functions] {
            ids.shrink_to(kept);
        }
        self.line_functions.clear();
        self.line_functions.shrink_to(kept);
        self.location_mappings.clear();
        self.location_mappings.shrink_to(kept);
        self.location_ids.clear();
        self.location_ids.shrink_to(kept);
        self.function_hashes.clear();
        self.function_hashes.shrink_to(kept);
        self.objects.clear();
        self.objects.shrink_to(kept);
    }

    fn object(&mut self, row: &Mapping, index: usize, strings: &Strings<'_>) -> Result<Object, Error> {
        let file = strings.text(row.file, || Place::RowField("mapping", index, "filename"))?;
        let build_id = strings.text(row.build_id, || Place::RowField("mapping", index, "build_id"))?;
        let identity = if build_id.is_empty() { file } else { build_id };
        Ok(Object { build: BuildRef::new(build_id, file), identity: xxh3_64(identity.as_bytes()) })
    }

    fn function(
        &mut self,
        row: &Function,
        index: usize,
        strings: &Strings<'_>,
    ) -> Result<FunctionHashes, Error> {
        let mut hash =
            |string, field| self.hashes.hash(strings, string, || Place::RowField("function", index, field));
        let name = hash(row.name, "name")?;
        let system_name = hash(row.system_name, "system_name")?;
        let file = hash(row.file, "filename")?;
        // Some senders leave the system name out; different functions must not fold into one.
        let linker_name = if strings.is_empty(row.system_name) { name } else { system_name };
        let nameless = strings.is_empty(row.name);
        Ok(FunctionHashes {
            key: if nameless || name == linker_name {
                hash_numbers([linker_name, file])
            } else {
                hash_numbers([linker_name, file, name])
            },
            detail: hash_numbers([name, system_name, row.start_line as u64]),
            nameless,
        })
    }

    /// Resolves a location's mapping and the functions of its lines.
    fn references(&mut self, row: &Location, index: usize, tables: &Tables) -> Result<(), Error> {
        let mapping = match (row.mapping_id, self.mappings.row(row.mapping_id)) {
            (0, _) => NO_MAPPING,
            (_, Some(mapping)) => mapping,
            (id, None) => {
                let place = Place::RowField("location", index, "mapping_id");
                return Err(Error::Dangling { place, id, table: "mapping" });
            }
        };
        self.location_mappings.push(mapping);
        for (at, line) in tables.lines[row.lines()].iter().enumerate() {
            let id = line.function_id;
            let Some(function) = self.functions.row(id) else {
                let place = Place::ElementField("location", index, "line", at, "function_id");
                return Err(Error::Dangling { place, id, table: "function" });
            };
            self.line_functions.push(function);
        }
        Ok(())
    }

    fn location_id(
        &mut self,
        row: usize,
        location: &Location,
        tables: &Tables,
        relative: bool,
    ) -> LocationId {
        let mapping = self.location_mappings[row];
        let address = file_address(location, tables.mappings.get(mapping as usize), relative);
        if location.lines().is_empty() {
            return LocationId::native(self.build_ref(mapping), address);
        }
        let functions = &self.line_functions[location.lines()];
        let hashes = |function: &u32| self.function_hashes[*function as usize];
        self.bytes.clear();
        let identity = self.objects.get(mapping as usize).map_or(0, |object| object.identity);
        self.bytes.extend_from_slice(&identity.to_le_bytes());
        self.bytes.extend_from_slice(&address.to_le_bytes());
        for (line, function) in tables.lines[location.lines()].iter().zip(functions) {
            self.bytes.extend_from_slice(&line.line.to_le_bytes());
            self.bytes.extend_from_slice(&line.column.to_le_bytes());
            self.bytes.extend_from_slice(&hashes(function).detail.to_le_bytes());
        }
        let detail_hash = xxh3_64(&self.bytes);
        self.bytes.clear();
        functions.iter().for_each(|f| self.bytes.extend_from_slice(&hashes(f).key.to_le_bytes()));
        if functions.iter().any(|f| hashes(f).nameless) {
            self.bytes.extend_from_slice(&detail_hash.to_le_bytes());
        }
        LocationId::named(xxh3_64(&self.bytes), detail_hash)
    }
}

/// The address in the object's file, where the location lies in its mapping; else the address as it is.
pub(super) fn file_address(location: &Location, mapping: Option<&Mapping>, relative: bool) -> u64 {
    match mapping {
        Some(mapping)
            if !relative
                && mapping.start <= location.address
                && (location.address < mapping.limit || mapping.limit == 0) =>
        {
            (location.address - mapping.start).wrapping_add(mapping.offset)
        }
        _ => location.address,
    }
}

fn rebuild(
    table: &mut Ids,
    name: &'static str,
    ids: impl ExactSizeIterator<Item = u64> + Clone,
) -> Result<(), Error> {
    if let Some(row) = ids.clone().position(|id| id == 0) {
        return Err(Error::IdZero { place: Place::Row(name, row) });
    }
    table.rebuild(ids).map_err(|duplicate| Error::IdDuplicate {
        table: name,
        row: duplicate.row,
        id: duplicate.id,
        first: duplicate.first,
    })
}

fn hash_numbers<const N: usize>(numbers: [u64; N]) -> u64 {
    xxh3_64(numbers.map(u64::to_le_bytes).as_flattened())
}
