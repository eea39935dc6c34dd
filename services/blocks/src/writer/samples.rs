//! The sections `profiles` and `samples`, and on the way the rollup.

use cambium_model::block::SectionKind;
use cambium_model::time::bucket_start;
use parquet::errors::Result;

use super::Compression;
use super::order::Order;
use super::rollup::Rollup;
use super::section::{Column, ROW_GROUP_ROWS_MAX, Section, SectionWriter, Shape, Values, ids, zstd};
use super::series::LabelSets;
use super::stacks::Stacks;
use crate::Dataset;

/// The sections that hold profiles and their samples.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) profiles: Section,
    pub(super) samples: Section,
    pub(super) rollup: Section,
}

/// Encodes all profiles of the dataset.
pub(super) fn encode(
    dataset: &Dataset,
    order: &Order,
    stacks: &Stacks,
    label_sets: &LabelSets<'_>,
    keep_ids: bool,
    compression: Compression,
) -> Result<Encoded> {
    let mut profiles = Profiles::default();
    let mut samples = Samples::new(!label_sets.is_empty(), compression)?;
    let mut rollup = Rollup::new(stacks);
    let mut rows: Vec<(u64, i64)> = Vec::new();
    let mut values: Vec<i64> = Vec::new();
    let mut current_type = None;
    for (number, profile) in order.profiles.iter().enumerate() {
        let series = &order.series[profile.series as usize];
        let (chunk, row) = profile.of(dataset);
        if current_type.replace(series.type_index).is_some_and(|before| before != series.type_index) {
            samples.end_row_group()?;
        }
        let held = row.sample_range();
        rows.clear();
        values.clear();
        chunk.read_values(row, &mut values);
        if chunk.label_sets.is_empty() {
            let stack_ids = chunk.stacks[held].iter().map(|node| u64::from(stacks.stack(*node)) << 32);
            rows.extend(stack_ids.zip(values.iter().copied()));
        } else {
            rows.extend(held.zip(&values).map(|(sample, value)| {
                let stack = stacks.stack(chunk.stacks[sample]);
                let label_set = label_sets.places[chunk.label_sets[sample] as usize];
                ((u64::from(stack) << 32) | u64::from(label_set), *value)
            }));
        }
        rows.sort_unstable_by_key(|(key, _)| *key);
        // Up and down in turn: a step from the last stack of a profile back to the first of the next would be the
        // least difference of its block of 128, above which all others of the block are stored.
        if number % 2 == 1 {
            rows.reverse();
        }
        rollup.add(series.type_index, series.scope_index, bucket_start(row.time_ns), &rows);
        profiles.first_sample.push(samples.written as i64);
        samples.add(profile.series, row.time_ns, &rows)?;
        profiles.series.push(profile.series as i32);
        profiles.time_ns.push(row.time_ns);
        profiles.duration_ns.push(row.duration_ns);
        profiles.period.push(row.period);
        profiles.total.push(row.total);
        profiles.samples.push(row.samples as i32);
    }
    Ok(Encoded {
        profiles: profiles.encode(dataset, order, keep_ids)?,
        samples: samples.finish()?,
        rollup: rollup.encode(compression)?,
    })
}

#[derive(Default)]
struct Profiles {
    series: Vec<i32>,
    time_ns: Vec<i64>,
    duration_ns: Vec<i64>,
    period: Vec<i64>,
    total: Vec<i64>,
    samples: Vec<i32>,
    first_sample: Vec<i64>,
}

impl Profiles {
    fn encode(&self, dataset: &Dataset, order: &Order, keep_ids: bool) -> Result<Section> {
        let column = |name: &str, shape| Column::new(name, shape, zstd(1));
        let mut columns = vec![
            column("series", Shape::Delta32),
            column("time_ns", Shape::Delta64),
            column("duration_ns", Shape::Dictionary64),
            column("period", Shape::Dictionary64),
            column("total", Shape::Delta64),
            column("samples", Shape::Delta32),
            column("first_sample", Shape::Delta64),
        ];
        if keep_ids {
            columns.push(Column::new("profile_id", Shape::Id, parquet::basic::Compression::UNCOMPRESSED));
        }
        let mut section = SectionWriter::new(SectionKind::Profiles, &columns)?;
        for start in (0..self.series.len()).step_by(ROW_GROUP_ROWS_MAX) {
            let rows = start..self.series.len().min(start + ROW_GROUP_ROWS_MAX);
            let mut values = vec![
                Values::U32(&self.series[rows.clone()]),
                Values::I64(&self.time_ns[rows.clone()]),
                Values::I64(&self.duration_ns[rows.clone()]),
                Values::I64(&self.period[rows.clone()]),
                Values::I64(&self.total[rows.clone()]),
                Values::U32(&self.samples[rows.clone()]),
                Values::I64(&self.first_sample[rows.clone()]),
            ];
            let profile_ids;
            if keep_ids {
                profile_ids =
                    ids(order.profiles[rows.clone()].iter().map(|profile| &profile.of(dataset).1.id.0));
                values.push(Values::Id(&profile_ids));
            }
            section.write(rows.len(), &values)?;
        }
        section.finish()
    }
}

/// Gathers samples and writes them a row group at a time, so that a block of any size needs little memory.
struct Samples {
    section: SectionWriter,
    labelled: bool,
    /// Samples so far, in all row groups.
    written: u64,
    series: Vec<i32>,
    time_ns: Vec<i64>,
    stack: Vec<i32>,
    value: Vec<i64>,
    label_set: Vec<i32>,
}

impl Samples {
    fn new(labelled: bool, compression: Compression) -> Result<Self> {
        let mut columns = vec![
            Column::new("series", Shape::Dictionary32, compression.values()),
            Column::new("time_ns", Shape::Dictionary64, compression.values()),
            Column::new("stack", Shape::Delta32, compression.stacks()),
            Column::new("value", Shape::Dictionary64, compression.values()),
        ];
        if labelled {
            columns.push(Column::new("label_set", Shape::Dictionary32, compression.values()));
        }
        Ok(Self {
            section: SectionWriter::new(SectionKind::Samples, &columns)?,
            labelled,
            written: 0,
            series: Vec::new(),
            time_ns: Vec::new(),
            stack: Vec::new(),
            value: Vec::new(),
            label_set: Vec::new(),
        })
    }

    /// Adds a profile's samples: (stack and label set, value), largest key first.
    fn add(&mut self, series: u32, time_ns: i64, rows: &[(u64, i64)]) -> Result<()> {
        if self.stack.len() + rows.len() > ROW_GROUP_ROWS_MAX {
            self.end_row_group()?;
        }
        let end = self.stack.len() + rows.len();
        self.series.resize(end, series as i32);
        self.time_ns.resize(end, time_ns);
        self.stack.extend(rows.iter().map(|(key, _)| (key >> 32) as i32));
        self.value.extend(rows.iter().map(|(_, value)| *value));
        if self.labelled {
            self.label_set.extend(rows.iter().map(|(key, _)| *key as i32));
        }
        self.written += rows.len() as u64;
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        let mut values = vec![
            Values::U32(&self.series),
            Values::I64(&self.time_ns),
            Values::U32(&self.stack),
            Values::I64(&self.value),
        ];
        if self.labelled {
            values.push(Values::U32(&self.label_set));
        }
        self.section.write(self.stack.len(), &values)?;
        self.series.clear();
        self.time_ns.clear();
        self.stack.clear();
        self.value.clear();
        self.label_set.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Section> {
        self.end_row_group()?;
        self.section.finish()
    }
}
