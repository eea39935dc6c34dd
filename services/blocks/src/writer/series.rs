//! The sections `series` and `label_sets`, and what the catalogue says of labels.

use std::collections::BTreeSet;

use cambium_model::block::{LABEL_VALUES_LISTED_MAX, LabelSummary, SectionKind};
use cambium_model::profile::{SampleLabelValue, SampleLabels};
use parquet::data_type::ByteArray;
use parquet::errors::Result;

use super::order::Order;
use super::section::{Column, Section, SectionWriter, Shape, Values, text, zstd};
use super::spool::Scratch;
use crate::series_table::{LabelColumn, SeriesTable};

/// What stands before a label's name in the name of its column.
pub(crate) const LABEL_PREFIX: &str = "label.";

/// One label of the live series, in the block's order.
struct Label<'a> {
    name: &'a str,
    /// The values that are present.
    values: Vec<ByteArray>,
    /// 1 where a series has the label.
    present: Vec<i16>,
    summary: LabelSummary,
}

/// Encodes the series; also returns what their labels are, sorted by name.
pub(crate) fn encode_series(
    table: &SeriesTable,
    order: &Order,
    scratch: &Scratch,
) -> Result<(Section, Vec<LabelSummary>)> {
    let all = table.columns.iter().map(|(name, column)| label(name, column, order));
    let labels: Vec<Label<'_>> = all.filter(|label| !label.values.is_empty()).collect();
    let mut columns = vec![
        Column::new("profile_type", Shape::Dictionary32, zstd(1)),
        Column::new("scope", Shape::Dictionary32, zstd(1)),
        Column::new("scope_label", Shape::Text, zstd(1)),
        Column::new("scope_value", Shape::Text, zstd(1)),
        Column::new("fingerprint", Shape::Plain64, zstd(1)),
    ];
    columns.extend(
        labels
            .iter()
            .map(|label| Column::new(format!("{LABEL_PREFIX}{}", label.name), Shape::OptionalText, zstd(1))),
    );
    let types: Vec<i32> = order.series.iter().map(|row| row.type_index as i32).collect();
    let scopes: Vec<i32> = order.series.iter().map(|row| row.scope_index as i32).collect();
    let scope_texts: Vec<(ByteArray, ByteArray)> =
        order.scopes.iter().map(|scope| (text(&scope.label), text(&scope.value))).collect();
    let of_scope = |row: &super::order::SeriesRow| scope_texts[row.scope_index as usize].clone();
    let (scope_labels, scope_values): (Vec<ByteArray>, Vec<ByteArray>) =
        order.series.iter().map(of_scope).unzip();
    let fingerprints: Vec<i64> =
        order.series.iter().map(|row| table.fingerprints[row.old as usize] as i64).collect();
    let mut values = vec![
        Values::U32(&types),
        Values::U32(&scopes),
        Values::Text(&scope_labels),
        Values::Text(&scope_values),
        Values::I64(&fingerprints),
    ];
    values.extend(labels.iter().map(|label| Values::OptionalText(&label.values, &label.present)));
    let mut section = SectionWriter::new(SectionKind::Series, &columns, scratch)?;
    section.write(order.series.len(), &values)?;
    Ok((section.finish()?, labels.into_iter().map(|label| label.summary).collect()))
}

fn label<'a>(name: &'a str, column: &LabelColumn, order: &Order) -> Label<'a> {
    let texts: Vec<ByteArray> = column.values.iter().map(|value| text(value)).collect();
    let mut used = vec![false; column.values.len()];
    let mut values = Vec::new();
    let mut present = Vec::with_capacity(order.series.len());
    for row in &order.series {
        let code = column.codes.get(row.old as usize).copied().unwrap_or(0);
        used[code as usize] = true;
        present.push(i16::from(code != 0));
        if code != 0 {
            values.push(texts[code as usize].clone());
        }
    }
    let on_every_series = !used[0];
    used[0] = false;
    let distinct: Vec<&str> =
        column.values.iter().zip(&used).filter(|(_, used)| **used).map(|(value, _)| &**value).collect();
    let listed: BTreeSet<&str> = if distinct.len() <= LABEL_VALUES_LISTED_MAX {
        distinct.iter().copied().collect()
    } else {
        BTreeSet::new()
    };
    let summary = LabelSummary {
        name: name.to_owned(),
        distinct: distinct.len() as u32,
        on_every_series,
        values: listed.into_iter().map(str::to_owned).collect(),
    };
    Label { name, values, present, summary }
}

/// The sample labels in use, and each old set's place among them: the empty set is 0, the others sorted.
#[derive(Default)]
pub(crate) struct LabelSets<'a> {
    sets: Vec<&'a SampleLabels>,
    pub(crate) places: Vec<u32>,
}

impl<'a> LabelSets<'a> {
    /// Those of `sets`, whose first is the empty one, that are `used`.
    pub(crate) fn new(sets: &'a [SampleLabels], used: &[bool]) -> Self {
        let mut old: Vec<u32> = (1..used.len() as u32).filter(|set| used[*set as usize]).collect();
        old.sort_by(|a, b| sets[*a as usize].cmp(&sets[*b as usize]));
        let mut places = vec![0; used.len()];
        for (place, set) in (1..).zip(&old) {
            places[*set as usize] = place;
        }
        Self { sets: old.into_iter().map(|set| &sets[set as usize]).collect(), places }
    }

    /// Whether no sample has labels.
    pub(crate) fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The section: one row per label.
    pub(crate) fn encode(&self, scratch: &Scratch) -> Result<Section> {
        let columns = [
            Column::new("label_set", Shape::Delta32, zstd(1)),
            Column::new("name", Shape::Text, zstd(1)),
            Column::new("text", Shape::OptionalText, zstd(1)),
            Column::new("number", Shape::Optional64, zstd(1)),
            Column::new("unit", Shape::OptionalText, zstd(1)),
        ];
        let (mut sets, mut names) = (Vec::new(), Vec::new());
        let (mut texts, mut is_text) = (Vec::new(), Vec::new());
        let (mut numbers, mut units, mut is_number) = (Vec::new(), Vec::new(), Vec::new());
        for (set, (name, value)) in
            (1..).zip(&self.sets).flat_map(|(set, pairs)| pairs.iter().map(move |pair| (set, pair)))
        {
            sets.push(set);
            names.push(text(name));
            match value {
                SampleLabelValue::Text(value) => texts.push(text(value)),
                SampleLabelValue::Number(value, unit) => {
                    numbers.push(*value);
                    units.push(text(unit));
                }
            }
            is_text.push(i16::from(matches!(value, SampleLabelValue::Text(_))));
            is_number.push(i16::from(matches!(value, SampleLabelValue::Number(..))));
        }
        let values = [
            Values::U32(&sets),
            Values::Text(&names),
            Values::OptionalText(&texts, &is_text),
            Values::OptionalI64(&numbers, &is_number),
            Values::OptionalText(&units, &is_number),
        ];
        let mut section = SectionWriter::new(SectionKind::LabelSets, &columns, scratch)?;
        section.write(sets.len(), &values)?;
        section.finish()
    }
}
