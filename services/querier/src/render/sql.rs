//! Rows of an SQL answer: as JSON objects, CSV, or an Arrow stream.

use arrow::csv;
use arrow::error::ArrowError;
use arrow::json::writer::{JsonArray, WriterBuilder};

use crate::merged::SqlAnswer;

/// A list with an object per row; NULL is `null`.
pub fn json(answer: &SqlAnswer) -> Result<Vec<u8>, ArrowError> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    for batch in &answer.batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    let rows = writer.into_inner();
    // The writer opens its list with the first row.
    Ok(if rows.is_empty() { b"[]".to_vec() } else { rows })
}

/// A line with the columns' names, then a line per row; NULL is empty.
pub fn csv(answer: &SqlAnswer) -> Result<Vec<u8>, ArrowError> {
    let mut out = Vec::new();
    let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut out);
    for batch in &answer.batches {
        writer.write(batch)?;
    }
    if answer.batches.iter().all(|batch| batch.num_rows() == 0) {
        writer.write(&arrow::array::RecordBatch::new_empty(std::sync::Arc::clone(&answer.schema)))?;
    }
    drop(writer);
    Ok(out)
}

/// The rows as an Arrow IPC stream.
pub fn arrow(answer: &SqlAnswer) -> Result<Vec<u8>, ArrowError> {
    super::arrow::stream(&answer.schema, &answer.batches)
}
