//! The section `series` as a [`SeriesTable`].
//!
//! Text columns go through Arrow's reader, which hands out Parquet's dictionaries as they are: a label of 200,000
//! series with ten values costs ten strings.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type, UInt64Type};
use bytes::Bytes;
use cambium_model::profile_type::ProfileType;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Type as Physical;

use super::place::Place;
use super::table::check_file;
use crate::Error;
use crate::cache::Weigh;
use crate::series_table::{LabelColumn, ScopeName, SeriesTable};
use crate::toc::check_section;
use crate::writer::series::LABEL_PREFIX;

impl Weigh for Arc<SeriesTable> {
    fn weight(&self) -> usize {
        let labels: usize = self
            .columns
            .iter()
            .map(|(name, column)| {
                let texts: usize = column.values.iter().map(|value| value.len() + 32).sum();
                name.len() + texts + column.codes.len() * 4
            })
            .sum();
        self.len() * 16 + labels
    }
}

pub(crate) fn decode(place: &Place, types: &[ProfileType], bytes: Bytes) -> Result<Arc<SeriesTable>, Error> {
    let batch = read(place, bytes)?;
    let numbers = |name: &str| -> Result<Vec<u32>, Error> {
        let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<UInt32Type>());
        let column = column.ok_or_else(|| place.corrupt(format_args!("has no column {name}")))?;
        Ok(column.values().to_vec())
    };
    let (type_of, scope_of) = (numbers("profile_type")?, numbers("scope")?);
    if type_of.iter().any(|index| *index as usize >= types.len()) {
        return Err(place.corrupt("a profile type is not in the table of contents"));
    }
    if !type_of.iter().zip(&scope_of).is_sorted() {
        return Err(place.corrupt("is not sorted by profile type and scope"));
    }
    let fingerprints =
        batch.column_by_name("fingerprint").and_then(|column| column.as_primitive_opt::<UInt64Type>());
    let fingerprints = fingerprints.ok_or_else(|| place.corrupt("has no column fingerprint"))?;
    let mut table = SeriesTable {
        types: types.to_vec(),
        scopes: scopes(place, &batch, &scope_of)?,
        type_of,
        scope_of,
        fingerprints: fingerprints.values().to_vec(),
        columns: Default::default(),
    };
    for field in batch.schema_ref().fields() {
        if let Some(name) = field.name().strip_prefix(LABEL_PREFIX).filter(|name| !name.is_empty()) {
            table.columns.insert(name.into(), text_column(place, &batch, field.name())?);
        }
    }
    Ok(Arc::new(table))
}

/// The section as one batch.
fn read(place: &Place, bytes: Bytes) -> Result<RecordBatch, Error> {
    check_section(&place.path, place.kind(), &bytes, place.section.length, place.section.crc32c)?;
    // Twice: the columns' types decide the Arrow schema to read with.
    let plain = place.guard(|| ParquetRecordBatchReaderBuilder::try_new(bytes.clone()))?;
    let metadata = plain.metadata();
    check_file(place, metadata.file_metadata(), metadata.row_groups().iter().map(|group| group.num_rows()))?;
    let columns = metadata.file_metadata().schema_descr().columns();
    let fields = columns.iter().map(|column| {
        let data_type = match column.physical_type() {
            Physical::INT32 => DataType::UInt32,
            Physical::INT64 => DataType::UInt64,
            _ => DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8)),
        };
        Field::new(column.name(), data_type, column.max_def_level() > 0)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let rows = place.section.rows as usize;
    let batch = place.guard(|| {
        let options = ArrowReaderOptions::new().with_schema(schema);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)?;
        Ok(builder.with_batch_size(rows.max(1)).build()?.next().transpose()?)
    })?;
    batch
        .filter(|batch| batch.num_rows() == rows)
        .ok_or_else(|| place.corrupt(format_args!("does not hold its {rows} rows")))
}

fn scopes(place: &Place, batch: &RecordBatch, scope_of: &[u32]) -> Result<Vec<ScopeName>, Error> {
    let labels = text_column(place, batch, "scope_label")?;
    let values = text_column(place, batch, "scope_value")?;
    let count = scope_of.iter().max().map_or(0, |last| *last as usize + 1);
    if count > scope_of.len() {
        return Err(place.corrupt("scopes are not numbered from 0 on"));
    }
    let mut names: Vec<Option<ScopeName>> = vec![None; count];
    for (row, scope) in (0..).zip(scope_of) {
        names[*scope as usize].get_or_insert_with(|| ScopeName {
            value: Arc::clone(values.value(row)),
            label: Arc::clone(labels.value(row)),
        });
    }
    let names: Option<Vec<ScopeName>> = names.into_iter().collect();
    names.ok_or_else(|| place.corrupt("scopes are not numbered from 0 on"))
}

fn text_column(place: &Place, batch: &RecordBatch, name: &str) -> Result<LabelColumn, Error> {
    let column = batch.column_by_name(name).and_then(|column| column.as_dictionary_opt::<UInt32Type>());
    let column = column.ok_or_else(|| place.corrupt(format_args!("has no column {name}")))?;
    let texts = column.values().as_string_opt::<i32>();
    let texts = texts.ok_or_else(|| place.corrupt(format_args!("column {name} is not text")))?;
    let mut values: Vec<Arc<str>> = vec!["".into()];
    values.extend(texts.iter().map(|text| Arc::from(text.unwrap_or_default())));
    let codes: Vec<u32> = column.keys().iter().map(|key| key.map_or(0, |key| key + 1)).collect();
    if codes.iter().any(|code| *code as usize >= values.len()) {
        return Err(place.corrupt(format_args!("column {name} points outside its dictionary")));
    }
    Ok(LabelColumn::new(values, codes))
}
