//! The samples: read last, when everything that they refer to is known.

use super::decode::Limits;
use super::error::{Bound, Error, Place};
use super::labels::{Label, LabelSets};
use super::normalise::Resolved;
use super::prune::Pruner;
use super::stacks::Stacks;
use super::strings::Strings;
use super::tables::{SAMPLE_TYPES_MAX, Tables};
use super::wire::{LEN, Reader, Span, VARINT};

/// What samples refer to.
pub(super) struct Lookups<'a> {
    pub(super) tables: &'a Tables,
    pub(super) resolved: &'a Resolved,
    pub(super) pruner: &'a Pruner,
    pub(super) strings: &'a Strings<'a>,
}

/// The samples of one profile, folded.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) stacks: Stacks,
    pub(super) label_sets: LabelSets,
    row: Row,
}

impl Samples {
    /// Reads a profile's samples, in place of those before.
    pub(super) fn read(
        &mut self,
        raw: &[u8],
        lookups: &Lookups<'_>,
        types: usize,
        limits: &Limits,
    ) -> Result<(), Error> {
        let Lookups { tables, resolved, pruner, strings } = lookups;
        let Self { stacks, label_sets, row } = self;
        stacks.clear(tables.locations.len());
        label_sets.clear();
        for (sample, &span) in tables.samples.iter().enumerate() {
            row.read(raw, span, sample, resolved, limits)?;
            if row.value_count != types {
                return Err(Error::Values { sample, values: row.value_count, types });
            }
            let label_set = label_sets.position(&row.labels, sample, strings)?;
            let node = stacks.node(pruner.prune_stack(&row.stack), &resolved.location_ids)?;
            stacks.add(node, label_set, &row.values, sample)?;
        }
        Ok(())
    }
}

/// The sample being read.
#[derive(Debug, Default)]
struct Row {
    /// Rows of locations, the innermost first.
    stack: Vec<u32>,
    /// As many as a profile can have sample types; there may be more on the wire.
    values: Vec<i64>,
    value_count: usize,
    labels: Vec<Label>,
}

impl Row {
    fn read(
        &mut self,
        raw: &[u8],
        span: Span,
        sample: usize,
        resolved: &Resolved,
        limits: &Limits,
    ) -> Result<(), Error> {
        self.stack.clear();
        self.values.clear();
        self.value_count = 0;
        self.labels.clear();
        let mut from = Reader::of(raw, span);
        while let Some((field, wire_type)) = from.key()? {
            match (field, wire_type) {
                (1, LEN) => {
                    let mut packed = from.message()?;
                    while !packed.at_end() {
                        self.push_frame(packed.varint()?, sample, resolved, limits)?;
                    }
                }
                (1, VARINT) => self.push_frame(from.varint()?, sample, resolved, limits)?,
                (2, LEN) => {
                    let mut packed = from.message()?;
                    while !packed.at_end() {
                        self.push_value(packed.signed()?);
                    }
                }
                (2, VARINT) => self.push_value(from.signed()?),
                (3, LEN) => {
                    let at = self.labels.len();
                    let max = limits.sample_labels_max;
                    within(at + 1, max, Bound::Labels, || Place::Row("sample", sample))?;
                    self.labels.push(Label::read(from.message()?, sample, at)?);
                }
                _ => from.skip(Place::Row("sample", sample), 3, field, wire_type)?,
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn push_frame(
        &mut self,
        id: u64,
        sample: usize,
        resolved: &Resolved,
        limits: &Limits,
    ) -> Result<(), Error> {
        let at = self.stack.len();
        let Some(row) = resolved.locations.row(id) else {
            let place = Place::Element("sample", sample, "location_id", at);
            return Err(Error::Dangling { place, id, table: "location" });
        };
        within(at + 1, limits.stack_depth_max, Bound::Frames, || {
            Place::RowField("sample", sample, "location_id")
        })?;
        self.stack.push(row);
        Ok(())
    }

    #[inline(always)]
    fn push_value(&mut self, value: i64) {
        self.value_count += 1;
        if self.values.len() < SAMPLE_TYPES_MAX {
            self.values.push(value);
        }
    }
}

/// Whether a count is within its bound.
#[inline(always)]
fn within(count: usize, max: usize, bound: Bound, place: impl FnOnce() -> Place) -> Result<(), Error> {
    if count > max { Err(Error::Limit { place: place(), count, max, bound }) } else { Ok(()) }
}
