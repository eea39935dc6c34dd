//! What the tables of one query have in common: the sources with their series, and the columns that labels make.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Int32Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Int32Type};
use cambium_blocks::Source;
use cambium_blocks::series_table::SeriesTable;
use cambium_model::time::TimeRange;
use futures::{StreamExt, TryStreamExt, stream};

use crate::engine::SOURCES_AT_ONCE;
use crate::engine::sources::Sources;
use crate::error::Error;

/// Names that labels cannot take, because some table has a column of that name.
const FIXED_COLUMNS: [&str; 10] = [
    "time",
    "profile_type",
    "value",
    "stack_id",
    "sample_labels",
    "duration_ns",
    "period",
    "samples",
    "fingerprint",
    "depth",
];

/// The sources of one query.
#[derive(Debug)]
pub(super) struct Tables {
    /// Each source with its series.
    pub sources: Vec<TableSource>,
    /// What the tables hold.
    pub range: TimeRange,
    /// A column for each label that any source has, sorted by label.
    pub labels: Vec<LabelColumnName>,
}

/// A source with its series.
#[derive(Clone, Debug)]
pub(super) struct TableSource {
    /// The source.
    pub source: Arc<dyn Source>,
    /// Its series.
    pub series: Arc<SeriesTable>,
    /// Time of its earliest and of its latest profile, where known.
    pub span: Option<(i64, i64)>,
}

/// How a label is called as a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LabelColumnName {
    /// The label.
    pub label: Arc<str>,
    /// The column.
    pub column: String,
}

impl Tables {
    /// Reads the series of all sources.
    pub async fn open(sources: &Sources, range: TimeRange) -> Result<Self, Error> {
        let opened: Vec<TableSource> = stream::iter(sources.list.clone())
            .map(|opened| async move {
                let series = opened.source.series().await?;
                Ok::<_, Error>(TableSource { source: opened.source, series, span: opened.span })
            })
            .buffered(SOURCES_AT_ONCE)
            .try_collect()
            .await?;
        let names: BTreeSet<Arc<str>> =
            opened.iter().flat_map(|one| one.series.columns.keys().cloned()).collect();
        let labels = label_columns(&names);
        Ok(Self { sources: opened, range, labels })
    }

    /// The label that is called so as a column.
    pub fn label(&self, column: &str) -> &Arc<str> {
        let name = self.labels.iter().find(|name| name.column == column);
        &name.expect("columns of a schema are fixed ones or labels").label
    }

    /// The fields of the label columns.
    pub fn label_fields(&self) -> impl Iterator<Item = Field> + '_ {
        self.labels.iter().map(|name| text_field(&name.column))
    }
}

fn label_columns(names: &BTreeSet<Arc<str>>) -> Vec<LabelColumnName> {
    let mut taken: BTreeSet<String> = FIXED_COLUMNS.iter().map(|name| (*name).to_owned()).collect();
    taken.extend(
        names.iter().filter(|name| !FIXED_COLUMNS.contains(&&***name)).map(|name| (**name).to_owned()),
    );
    let mut columns = Vec::with_capacity(names.len());
    for label in names {
        let mut column = (**label).to_owned();
        if FIXED_COLUMNS.contains(&&**label) {
            while taken.contains(&column) {
                column.insert_str(0, "label_");
            }
            taken.insert(column.clone());
        }
        columns.push(LabelColumnName { label: Arc::clone(label), column });
    }
    columns
}

/// A column of repeated text.
pub(super) fn text_field(name: &str) -> Field {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Field::new(name, dictionary, false)
}

/// A column of repeated text from distinct values and, by row, their positions.
pub(super) fn text_column(values: &ArrayRef, keys: impl Iterator<Item = u32>) -> ArrayRef {
    let keys = Int32Array::from_iter_values(keys.map(|key| key as i32));
    Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::clone(values)))
}

/// Distinct values of a text column.
pub(super) fn text_values<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// A column of the series that a source holds, for any of its rows.
#[derive(Clone, Debug)]
pub(super) enum SeriesColumn {
    /// The profile type.
    Type {
        /// The table's types as text.
        values: ArrayRef,
    },
    /// The label set's hash.
    Fingerprint,
    /// A label's value.
    Label {
        /// Which label.
        label: Arc<str>,
        /// The label's values in this source.
        values: ArrayRef,
    },
}

impl SeriesColumn {
    /// The profile type.
    pub fn profile_type(series: &SeriesTable) -> Self {
        Self::Type { values: text_values(series.types.iter().map(ToString::to_string)) }
    }

    /// A label's value; empty everywhere where the source has no such label.
    pub fn label(series: &SeriesTable, label: &Arc<str>) -> Self {
        let values = match series.columns.get(label) {
            Some(column) => text_values(column.values.iter()),
            None => text_values([""]),
        };
        Self::Label { label: Arc::clone(label), values }
    }

    /// The column's values for these series, in this order.
    pub fn of(&self, series: &SeriesTable, rows: &[u32]) -> ArrayRef {
        let rows = rows.iter().copied();
        match self {
            Self::Type { values } => text_column(values, rows.map(|row| series.type_of[row as usize])),
            Self::Fingerprint => {
                Arc::new(UInt64Array::from_iter_values(rows.map(|row| series.fingerprints[row as usize])))
            }
            Self::Label { label, values } => {
                let codes = series.columns.get(label).map_or(&[][..], |column| &column.codes);
                text_column(values, rows.map(|row| codes.get(row as usize).copied().unwrap_or(0)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_hide_columns() {
        let names = ["label_value", "pod", "time", "value"].map(Arc::from).into();
        let columns: Vec<String> = label_columns(&names).into_iter().map(|name| name.column).collect();
        assert_eq!(columns, ["label_value", "pod", "label_time", "label_label_value"]);
    }
}
