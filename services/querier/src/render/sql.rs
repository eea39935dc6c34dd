//! Rows of an SQL answer: as JSON objects, CSV, or an Arrow stream.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::csv;
use arrow::error::ArrowError;
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};

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

/// A line with the columns' names, then a line per row; NULL is empty, a list or a struct is JSON.
pub fn csv(answer: &SqlAnswer) -> Result<Vec<u8>, ArrowError> {
    let mut out = Vec::new();
    let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut out);
    for batch in &answer.batches {
        writer.write(&flat(batch)?)?;
    }
    if answer.batches.iter().all(|batch| batch.num_rows() == 0) {
        writer.write(&flat(&RecordBatch::new_empty(Arc::clone(&answer.schema)))?)?;
    }
    drop(writer);
    Ok(out)
}

/// The batch with JSON for what a line of text has no form for.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    if !schema.fields().iter().any(|field| field.data_type().is_nested()) {
        return Ok(batch.clone());
    }
    let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
        if !field.data_type().is_nested() {
            return Ok((field.name(), Arc::clone(column)));
        }
        let alone = RecordBatch::try_from_iter([("value", Arc::clone(column))])?;
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
        writer.write(&alone)?;
        writer.finish()?;
        let lines = String::from_utf8_lossy(writer.get_ref()).into_owned();
        // Each line is `{"value":…}`.
        let texts = lines.lines().map(|line| line.get(r#"{"value":"#.len()..line.len() - 1));
        let texts = texts.map(|text| text.filter(|text| *text != "null"));
        Ok((field.name(), Arc::new(texts.collect::<StringArray>()) as ArrayRef))
    });
    RecordBatch::try_from_iter(columns.collect::<Result<Vec<_>, ArrowError>>()?)
}

/// The rows as an Arrow IPC stream.
pub fn arrow(answer: &SqlAnswer) -> Result<Vec<u8>, ArrowError> {
    super::arrow::stream(&answer.schema, &answer.batches)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::merged::Stats;

    #[test]
    fn lists_in_csv_are_json() {
        let lists = [Some(vec![Some(1), None]), None, Some(vec![])];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7, 8, 9]));
        let batch = RecordBatch::try_from_iter([("list", lists), ("number", numbers)]).unwrap();
        let mut answer = SqlAnswer { schema: batch.schema(), batches: vec![batch], stats: Stats::default() };
        let text = |answer: &SqlAnswer| String::from_utf8(csv(answer).unwrap()).unwrap();
        assert_eq!(text(&answer), "list,number\n\"[1,null]\",7\n,8\n[],9\n");
        answer.batches.clear();
        assert_eq!(text(&answer), "list,number\n");
    }
}
