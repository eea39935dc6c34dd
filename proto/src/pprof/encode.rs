//! Building a pprof message: for downloads, and for whoever makes profiles up.
//!
//! Everything is numbered in order of first use, so that equal input makes equal bytes. Addresses are those of the
//! model, relative to the object's file; a mapping therefore starts at 0 and knows no limit.

use std::collections::HashMap;

use cambium_model::profile::{SampleLabelValue, SampleLabels};
use cambium_model::symbols::{Function, Location, Mapping};
use libdeflater::{CompressionLvl, Compressor};

use super::wire::{LEN, VARINT};
use crate::varint;

/// What a profile says besides its samples.
#[derive(Clone, Debug, Default)]
pub struct Header<'a> {
    /// Type and unit of each value of a sample.
    pub sample_types: &'a [(&'a str, &'a str)],
    /// What is counted between two samples, and its unit; both may be empty.
    pub period_type: (&'a str, &'a str),
    /// How many of it; 0 where unknown.
    pub period: i64,
    /// When it was collected, nanoseconds since the epoch; 0 where unknown.
    pub time_ns: i64,
    /// Over how long, nanoseconds; 0 for an instant.
    pub duration_ns: i64,
}

/// A profile in the making.
#[derive(Debug)]
pub struct Encoder {
    head: Vec<u8>,
    samples: Vec<u8>,
    tail: Vec<u8>,
    mappings: Rows,
    /// What the locations of each mapping know, by its id less one.
    mapping_names: Vec<Names>,
    functions: Rows,
    locations: Rows,
    strings: HashMap<Box<str>, u64>,
    string_bytes: Vec<u8>,
    scratch: Vec<u8>,
}

/// The messages of a table by their bytes without the id, which is their position from 1.
#[derive(Debug, Default)]
struct Rows {
    ids: HashMap<Box<[u8]>, u64>,
    in_order: Vec<Box<[u8]>>,
}

/// What is resolved in a mapping, so that pprof does not look for the binary.
#[derive(Clone, Copy, Debug, Default)]
struct Names {
    functions: bool,
    files: bool,
    lines: bool,
    inlined: bool,
}

impl Encoder {
    /// A profile without samples.
    pub fn new(header: &Header<'_>) -> Self {
        let mut encoder = Self {
            head: Vec::new(),
            samples: Vec::new(),
            tail: Vec::new(),
            mappings: Rows::default(),
            mapping_names: Vec::new(),
            functions: Rows::default(),
            locations: Rows::default(),
            strings: HashMap::new(),
            string_bytes: Vec::new(),
            scratch: Vec::new(),
        };
        encoder.string("");
        for &sample_type in header.sample_types {
            let message = encoder.value_type(sample_type);
            put_bytes(&mut encoder.head, 1, &message);
        }
        put_number(&mut encoder.tail, 9, header.time_ns as u64);
        put_number(&mut encoder.tail, 10, header.duration_ns as u64);
        if header.period_type != ("", "") {
            let message = encoder.value_type(header.period_type);
            put_bytes(&mut encoder.tail, 11, &message);
        }
        put_number(&mut encoder.tail, 12, header.period as u64);
        encoder
    }

    /// The id of a location in this profile; the same for equal locations.
    pub fn location(&mut self, location: &Location) -> u64 {
        let mapping = self.mapping(&location.mapping);
        if let Some(names) = (mapping as usize).checked_sub(1).map(|row| &mut self.mapping_names[row]) {
            names.functions |= !location.lines.is_empty();
            names.files |= location.lines.iter().any(|line| !line.function.file.is_empty());
            names.lines |= location.lines.iter().any(|line| line.line != 0);
            names.inlined |= location.lines.len() > 1;
        }
        let mut message = Vec::new();
        put_number(&mut message, 2, mapping);
        put_number(&mut message, 3, location.address);
        for line in &location.lines {
            let function = self.function(&line.function);
            self.scratch.clear();
            put_number(&mut self.scratch, 1, function);
            put_number(&mut self.scratch, 2, line.line as u64);
            put_number(&mut self.scratch, 3, line.column as u64);
            put_bytes(&mut message, 4, &self.scratch);
        }
        self.locations.id(message)
    }

    /// Adds a sample: its stack as ids of [`Encoder::location`], the innermost first; a value for each sample type;
    /// its labels.
    pub fn sample(&mut self, stack: &[u64], values: &[i64], labels: &SampleLabels) {
        let mut message = Vec::with_capacity(stack.len() * 2 + values.len() * 4 + labels.len() * 8 + 8);
        put_packed(&mut message, 1, stack.iter().copied());
        put_packed(&mut message, 2, values.iter().map(|&value| value as u64));
        for (name, value) in labels {
            let mut label = Vec::with_capacity(16);
            put_number(&mut label, 1, self.string(name));
            match value {
                SampleLabelValue::Text(text) => put_number(&mut label, 2, self.string(text)),
                SampleLabelValue::Number(number, unit) => {
                    put_number(&mut label, 3, *number as u64);
                    put_number(&mut label, 4, self.string(unit));
                }
            }
            put_bytes(&mut message, 3, &label);
        }
        put_bytes(&mut self.samples, 2, &message);
    }

    /// The message's bytes, uncompressed.
    pub fn finish(self) -> Vec<u8> {
        let mut out = self.head;
        out.extend_from_slice(&self.samples);
        for (id, (row, names)) in (1..).zip(self.mappings.in_order.iter().zip(&self.mapping_names)) {
            let mut message = with_id(id, row);
            for (field, known) in (7..).zip([names.functions, names.files, names.lines, names.inlined]) {
                put_number(&mut message, field, u64::from(known));
            }
            put_bytes(&mut out, 3, &message);
        }
        for (field, rows) in [(4, &self.locations), (5, &self.functions)] {
            for (id, row) in (1..).zip(&rows.in_order) {
                put_bytes(&mut out, field, &with_id(id, row));
            }
        }
        out.extend_from_slice(&self.string_bytes);
        out.extend_from_slice(&self.tail);
        out
    }

    fn value_type(&mut self, (ty, unit): (&str, &str)) -> Vec<u8> {
        let mut message = Vec::new();
        put_number(&mut message, 1, self.string(ty));
        put_number(&mut message, 2, self.string(unit));
        message
    }

    /// The mapping's id; 0 where nothing is known of it. Readers take the first mapping for the executable: whoever knows
    /// which one that is names it before any location.
    pub fn mapping(&mut self, mapping: &Mapping) -> u64 {
        if mapping.file.is_empty() && mapping.build_id.is_empty() {
            return 0;
        }
        let mut message = Vec::new();
        put_number(&mut message, 5, self.string(&mapping.file));
        put_number(&mut message, 6, self.string(&mapping.build_id));
        let id = self.mappings.id(message);
        self.mapping_names.resize(self.mappings.in_order.len(), Names::default());
        id
    }

    fn function(&mut self, function: &Function) -> u64 {
        let mut message = Vec::new();
        put_number(&mut message, 2, self.string(&function.name));
        put_number(&mut message, 3, self.string(&function.system_name));
        put_number(&mut message, 4, self.string(&function.file));
        put_number(&mut message, 5, function.start_line as u64);
        self.functions.id(message)
    }

    fn string(&mut self, text: &str) -> u64 {
        if let Some(&known) = self.strings.get(text) {
            return known;
        }
        let index = self.strings.len() as u64;
        self.strings.insert(text.into(), index);
        put_bytes(&mut self.string_bytes, 6, text.as_bytes());
        index
    }
}

impl Rows {
    fn id(&mut self, message: Vec<u8>) -> u64 {
        if let Some(&known) = self.ids.get(message.as_slice()) {
            return known;
        }
        let row = message.into_boxed_slice();
        self.in_order.push(row.clone());
        let id = self.in_order.len() as u64;
        self.ids.insert(row, id);
        id
    }
}

/// Compresses as gzip: fast rather than small, because a download is read once.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(CompressionLvl::new(4).expect("4 is a level"));
    let mut out = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let length = compressor.gzip_compress(bytes, &mut out).expect("the bound is large enough");
    out.truncate(length);
    out
}

fn with_id(id: u64, row: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(row.len() + 16);
    put_number(&mut message, 1, id);
    message.extend_from_slice(row);
    message
}

fn put_key(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint::put(out, u64::from(field << 3 | wire_type));
}

/// A number, unless it is the default.
fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    if number != 0 {
        put_key(out, field, VARINT);
        varint::put(out, number);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_key(out, field, LEN);
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_packed(out: &mut Vec<u8>, field: u32, numbers: impl Iterator<Item = u64>) {
    let mut packed = Vec::new();
    numbers.for_each(|number| varint::put(&mut packed, number));
    if !packed.is_empty() {
        put_bytes(out, field, &packed);
    }
}
