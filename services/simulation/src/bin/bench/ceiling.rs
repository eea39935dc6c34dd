//! What this machine can do at best, so that bars mean the same on any machine.
//!
//! Each probe does the least that any implementation must: copy the bytes, add the values, decode the pages. The study
//! that set the bars measured the same probes on its machine; a bar here is that bar times the ratio of the two.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Encoding, Repetition, Type as Physical};
use parquet::column::reader::ColumnReader;
use parquet::data_type::{DataType, Int32Type, Int64Type};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type};

use cambium_blocks::Dataset;
use cambium_proto::pprof::Decompressor;

use crate::Bench;
use crate::cpu::best;
use crate::fleet::{Fleet, START_NS};
use crate::table::{Row, Unit};

const COPIED_BYTES: usize = 256 << 20;
const ROW_GROUP_ROWS: usize = 1 << 20;
const PAGE_ROWS: usize = 16 << 10;
const GUNZIPPED_PROFILES: u64 = 500;

/// A probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// Bytes copied.
    Copy,
    /// (stack, value) pairs added to dense cells.
    ScatterAdd,
    /// (stack, value) pairs decoded from uncompressed Parquet pages.
    Decode,
    /// (path, value) pairs added to a hash table.
    HashAdd,
    /// Bytes out of gzip.
    Gunzip,
}

/// What each probe did per second.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    copy: f64,
    scatter_add: f64,
    decode: f64,
    hash_add: f64,
    gunzip: f64,
}

impl Ceiling {
    const ALL: [Self; 5] = [Self::Copy, Self::ScatterAdd, Self::Decode, Self::HashAdd, Self::Gunzip];

    /// The middle of what the study measured.
    fn in_study(self) -> f64 {
        match self {
            Self::Copy => 9.75e9,
            Self::ScatterAdd => 746e6,
            Self::Decode => 355e6,
            Self::HashAdd => 195e6,
            Self::Gunzip => 605e6,
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Copy | Self::Gunzip => Unit::BytesPerSecond,
            Self::ScatterAdd | Self::Decode | Self::HashAdd => Unit::PerSecond,
        }
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => "memcpy",
            Self::ScatterAdd => "scatter-add",
            Self::Decode => "decode-only",
            Self::HashAdd => "hash-add",
            Self::Gunzip => "gunzip",
        })
    }
}

impl Ceilings {
    /// Runs every probe, on the columns of a workload where it needs some.
    pub fn measure(fleet: &Fleet) -> anyhow::Result<Self> {
        let (stacks, values) = columns(&fleet.dataset);
        let rows = stacks.len() as f64;
        let cells = fleet.dataset.tree.len();
        let file = encode(&stacks, &values)?;
        Ok(Self {
            copy: COPIED_BYTES as f64 / copy()?,
            scatter_add: rows / scatter_add(&stacks, &values, cells)?,
            decode: rows / decode(&file)?,
            hash_add: rows / hash_add(fleet, &stacks, &values)?,
            gunzip: gunzip(fleet)?,
        })
    }

    /// What a probe did per second.
    pub fn of(&self, ceiling: Ceiling) -> f64 {
        match ceiling {
            Ceiling::Copy => self.copy,
            Ceiling::ScatterAdd => self.scatter_add,
            Ceiling::Decode => self.decode,
            Ceiling::HashAdd => self.hash_add,
            Ceiling::Gunzip => self.gunzip,
        }
    }

    /// This machine compared to the study's.
    pub fn ratio(&self, ceiling: Ceiling) -> f64 {
        self.of(ceiling) / ceiling.in_study()
    }
}

/// Prints the ceilings themselves.
pub fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let ceilings = bench.ceilings()?;
    for ceiling in Ceiling::ALL {
        let row = Row::new(format!("ceiling: {ceiling}"), ceilings.of(ceiling), ceiling.unit());
        bench.table.add(row.note(format!("{:.2} × the study's", ceilings.ratio(ceiling))));
    }
    Ok(())
}

/// All samples as two columns.
fn columns(dataset: &Dataset) -> (Vec<i32>, Vec<i64>) {
    let stacks = dataset.chunks.iter().flat_map(|chunk| chunk.stacks.iter().map(|stack| *stack as i32));
    let values = dataset.chunks.iter().flat_map(|chunk| chunk.values());
    (stacks.collect(), values.collect())
}

fn copy() -> anyhow::Result<f64> {
    let from = vec![1_u8; COPIED_BYTES];
    let mut to = vec![2_u8; COPIED_BYTES];
    let (seconds, ()) = best(|| {
        std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from));
        Ok(())
    })?;
    Ok(seconds)
}

fn scatter_add(stacks: &[i32], values: &[i64], cells: usize) -> anyhow::Result<f64> {
    let (seconds, _) = best(|| {
        let mut sums = vec![0_i64; cells];
        for (stack, value) in stacks.iter().zip(values) {
            sums[*stack as usize] += value;
        }
        Ok(std::hint::black_box(sums))
    })?;
    Ok(seconds)
}

fn hash_add(fleet: &Fleet, stacks: &[i32], values: &[i64]) -> anyhow::Result<f64> {
    let paths: Vec<u64> = stacks.iter().map(|stack| fleet.dataset.tree.paths[*stack as usize].0).collect();
    let (seconds, _) = best(|| {
        let mut sums: hashbrown::HashTable<(u64, i64)> = hashbrown::HashTable::new();
        for (path, value) in paths.iter().zip(values) {
            sums.entry(*path, |(held, _)| held == path, |(held, _)| *held)
                .and_modify(|(_, sum)| *sum += value)
                .or_insert((*path, *value));
        }
        Ok(std::hint::black_box(sums))
    })?;
    Ok(seconds)
}

/// The two columns as a Parquet file: differences of stacks packed, values by dictionary, nothing compressed.
fn encode(stacks: &[i32], values: &[i64]) -> anyhow::Result<Bytes> {
    let column = |name, physical| {
        let column = Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED);
        Ok::<_, parquet::errors::ParquetError>(Arc::new(column.build()?))
    };
    let fields = vec![column("stack", Physical::INT32)?, column("value", Physical::INT64)?];
    let schema = Arc::new(Type::group_type_builder("probe").with_fields(fields).build()?);
    let stack = ColumnPath::from("stack");
    let properties = WriterProperties::builder()
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_dictionary_enabled(stack.clone(), false)
        .set_column_encoding(stack, Encoding::DELTA_BINARY_PACKED)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    for (stacks, values) in stacks.chunks(ROW_GROUP_ROWS).zip(values.chunks(ROW_GROUP_ROWS)) {
        let mut group = writer.next_row_group()?;
        write::<Int32Type>(&mut group, stacks)?;
        write::<Int64Type>(&mut group, values)?;
        group.close()?;
    }
    Ok(writer.into_inner()?.into())
}

fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
) -> anyhow::Result<()> {
    let mut column = group.next_column()?.expect("the schema has two columns");
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()?;
    Ok(())
}

fn decode(file: &Bytes) -> anyhow::Result<f64> {
    let (mut stacks, mut values) = (Vec::new(), Vec::new());
    let (seconds, ()) = best(|| {
        let reader = SerializedFileReader::new(file.clone())?;
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group)?;
            for column in 0..2 {
                match group.get_column_reader(column)? {
                    ColumnReader::Int32ColumnReader(mut reader) => {
                        while reader.read_records(PAGE_ROWS, None, None, &mut stacks)?.0 > 0 {
                            std::hint::black_box(&stacks);
                            stacks.clear();
                        }
                    }
                    ColumnReader::Int64ColumnReader(mut reader) => {
                        while reader.read_records(PAGE_ROWS, None, None, &mut values)?.0 > 0 {
                            std::hint::black_box(&values);
                            values.clear();
                        }
                    }
                    _ => anyhow::bail!("the schema has other columns"),
                }
            }
        }
        Ok(())
    })?;
    Ok(seconds)
}

fn gunzip(fleet: &Fleet) -> anyhow::Result<f64> {
    let bodies: Vec<Vec<u8>> = (0..GUNZIPPED_PROFILES)
        .map(|series| fleet.workload.pprof_gz(series % fleet.workload.series(), 0, START_NS))
        .collect();
    let mut decompressor = Decompressor::new();
    let (seconds, bytes) = best(|| {
        let mut bytes = 0;
        for body in &bodies {
            bytes += decompressor.decompress(body, usize::MAX >> 1)?.len();
        }
        Ok(bytes)
    })?;
    Ok(bytes as f64 / seconds)
}
