//! The walk over a profile's bytes: every message but the samples into rows, nothing resolved, no byte copied.
//!
//! Samples are noted by their range only, because they may come before what they refer to.

use super::error::{Bound, Error, Place};
use super::wire::{LEN, Reader, Span, VARINT};
use super::{Limits, decode};

/// Rows of any table but the samples'. Real profiles stay far below; a table of the smallest possible messages could
/// otherwise take a hundred times the memory of the profile's bytes.
const ROWS_MAX: usize = 2 << 20;

/// Sample types of a profile; each costs eight bytes per sample.
pub(super) const SAMPLE_TYPES_MAX: usize = 32;

/// Positions in the string table, not yet checked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ValueType {
    pub(super) ty: i64,
    pub(super) unit: i64,
}

/// As on the wire; texts are positions in the string table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mapping {
    pub(super) id: u64,
    pub(super) start: u64,
    pub(super) limit: u64,
    pub(super) offset: u64,
    pub(super) file: i64,
    pub(super) build_id: i64,
}

/// As on the wire; texts are positions in the string table.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Function {
    pub(super) id: u64,
    pub(super) name: i64,
    pub(super) system_name: i64,
    pub(super) file: i64,
    pub(super) start_line: i64,
}

/// As on the wire.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    pub(super) function_id: u64,
    pub(super) line: i64,
    pub(super) column: i64,
}

/// As on the wire; its lines are a run of the table of all lines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Location {
    pub(super) id: u64,
    pub(super) mapping_id: u64,
    pub(super) address: u64,
    pub(super) first_line: u32,
    pub(super) end_line: u32,
}

impl Location {
    pub(super) fn lines(&self) -> std::ops::Range<usize> {
        self.first_line as usize..self.end_line as usize
    }
}

/// The tables of one profile, in the order of its messages.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) sample_types: Vec<ValueType>,
    pub(super) samples: Vec<Span>,
    pub(super) mappings: Vec<Mapping>,
    pub(super) locations: Vec<Location>,
    pub(super) lines: Vec<Line>,
    pub(super) functions: Vec<Function>,
    pub(super) strings: Vec<Span>,
    pub(super) scalars: Scalars,
}

/// The fields that occur once; the last one counts, as everywhere in protobuf.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scalars {
    pub(super) drop_frames: i64,
    pub(super) keep_frames: i64,
    pub(super) time_nanos: i64,
    pub(super) duration_nanos: i64,
    pub(super) period_type: ValueType,
    pub(super) period: i64,
}

impl Tables {
    /// Empties the tables; those that an unusually large profile blew up shrink.
    fn clear(&mut self) {
        fn clear<T>(rows: &mut Vec<T>) {
            rows.clear();
            rows.shrink_to(decode::KEPT_ROWS_MAX);
        }
        clear(&mut self.sample_types);
        clear(&mut self.samples);
        clear(&mut self.mappings);
        clear(&mut self.locations);
        clear(&mut self.lines);
        clear(&mut self.functions);
        clear(&mut self.strings);
        self.scalars = Scalars::default();
    }

    /// Reads a profile in place of the one before.
    pub(super) fn read(&mut self, raw: &[u8], limits: &Limits) -> Result<(), Error> {
        self.clear();
        let mut from = Reader::new(raw);
        while let Some((field, wire_type)) = from.key()? {
            match (field, wire_type) {
                (1, LEN) => {
                    let place = Place::Row("sample_type", self.sample_types.len());
                    let row = value_type(from.message()?, place)?;
                    push(&mut self.sample_types, row, "sample_type", SAMPLE_TYPES_MAX, Bound::SampleTypes)?;
                }
                (2, LEN) => {
                    let max = limits.samples_max;
                    push(&mut self.samples, from.span()?, "sample", max, Bound::Samples)?;
                }
                (3, LEN) => {
                    let row = mapping(from.message()?, self.mappings.len())?;
                    push(&mut self.mappings, row, "mapping", ROWS_MAX, Bound::Rows)?;
                }
                (4, LEN) => {
                    let row = location(from.message()?, self.locations.len(), &mut self.lines)?;
                    push(&mut self.locations, row, "location", ROWS_MAX, Bound::Rows)?;
                }
                (5, LEN) => {
                    let row = function(from.message()?, self.functions.len())?;
                    push(&mut self.functions, row, "function", ROWS_MAX, Bound::Rows)?;
                }
                (6, LEN) => push(&mut self.strings, from.span()?, "string_table", ROWS_MAX, Bound::Rows)?,
                (13, LEN | VARINT) => from.skip(Place::Field("profile"), 0, field, wire_type)?,
                _ => self.scalars.read(&mut from, field, wire_type)?,
            }
        }
        Ok(())
    }
}

impl Scalars {
    fn read(&mut self, from: &mut Reader<'_>, field: u32, wire_type: u32) -> Result<(), Error> {
        match (field, wire_type) {
            (7, VARINT) => self.drop_frames = from.signed()?,
            (8, VARINT) => self.keep_frames = from.signed()?,
            (9, VARINT) => self.time_nanos = from.signed()?,
            (10, VARINT) => self.duration_nanos = from.signed()?,
            (11, LEN) => self.period_type = value_type(from.message()?, Place::Field("period_type"))?,
            (12, VARINT) => self.period = from.signed()?,
            // The default sample type and the documentation's address have no meaning here.
            (14 | 15, VARINT) => drop(from.varint()?),
            _ => from.skip(Place::Field("profile"), 15, field, wire_type)?,
        }
        Ok(())
    }
}

fn push<T>(rows: &mut Vec<T>, row: T, table: &'static str, max: usize, bound: Bound) -> Result<(), Error> {
    if rows.len() == max {
        return Err(Error::Limit { place: Place::Field(table), count: max + 1, max, bound });
    }
    rows.push(row);
    Ok(())
}

fn value_type(mut from: Reader<'_>, place: Place) -> Result<ValueType, Error> {
    let mut row = ValueType::default();
    while let Some((field, wire_type)) = from.key()? {
        match (field, wire_type) {
            (1, VARINT) => row.ty = from.signed()?,
            (2, VARINT) => row.unit = from.signed()?,
            _ => from.skip(place, 2, field, wire_type)?,
        }
    }
    Ok(row)
}

fn mapping(mut from: Reader<'_>, index: usize) -> Result<Mapping, Error> {
    let mut row = Mapping::default();
    while let Some((field, wire_type)) = from.key()? {
        match (field, wire_type) {
            (1, VARINT) => row.id = from.varint()?,
            (2, VARINT) => row.start = from.varint()?,
            (3, VARINT) => row.limit = from.varint()?,
            (4, VARINT) => row.offset = from.varint()?,
            (5, VARINT) => row.file = from.signed()?,
            (6, VARINT) => row.build_id = from.signed()?,
            // What the sender resolved shows in the locations.
            (7..=10, VARINT) => drop(from.varint()?),
            _ => from.skip(Place::Row("mapping", index), 10, field, wire_type)?,
        }
    }
    Ok(row)
}

fn location(mut from: Reader<'_>, index: usize, lines: &mut Vec<Line>) -> Result<Location, Error> {
    let mut row = Location { first_line: lines.len() as u32, ..Location::default() };
    while let Some((field, wire_type)) = from.key()? {
        match (field, wire_type) {
            (1, VARINT) => row.id = from.varint()?,
            (2, VARINT) => row.mapping_id = from.varint()?,
            (3, VARINT) => row.address = from.varint()?,
            (4, LEN) => {
                let at = lines.len() - row.first_line as usize;
                let line = line(from.message()?, Place::Element("location", index, "line", at))?;
                push(lines, line, "location.line", ROWS_MAX, Bound::Rows)?;
            }
            (5, VARINT) => drop(from.varint()?),
            _ => from.skip(Place::Row("location", index), 5, field, wire_type)?,
        }
    }
    row.end_line = lines.len() as u32;
    Ok(row)
}

fn line(mut from: Reader<'_>, place: Place) -> Result<Line, Error> {
    let mut row = Line::default();
    while let Some((field, wire_type)) = from.key()? {
        match (field, wire_type) {
            (1, VARINT) => row.function_id = from.varint()?,
            (2, VARINT) => row.line = from.signed()?,
            (3, VARINT) => row.column = from.signed()?,
            _ => from.skip(place, 3, field, wire_type)?,
        }
    }
    Ok(row)
}

fn function(mut from: Reader<'_>, index: usize) -> Result<Function, Error> {
    let mut row = Function::default();
    while let Some((field, wire_type)) = from.key()? {
        match (field, wire_type) {
            (1, VARINT) => row.id = from.varint()?,
            (2, VARINT) => row.name = from.signed()?,
            (3, VARINT) => row.system_name = from.signed()?,
            (4, VARINT) => row.file = from.signed()?,
            (5, VARINT) => row.start_line = from.signed()?,
            _ => from.skip(Place::Row("function", index), 5, field, wire_type)?,
        }
    }
    Ok(row)
}
