//! One section: a complete Parquet file, written column by column.

use std::sync::Arc;

use bytes::Bytes;
use cambium_model::block::{SectionKind, SectionMeta};
use parquet::basic::{Compression, Encoding, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{ColumnPath, Type, TypePtr};

use super::spool::{Scratch, Spool};

/// Rows after which a row group ends.
pub(super) const ROW_GROUP_ROWS_MAX: usize = 1 << 20;
/// Rows of a data page.
pub(crate) const PAGE_ROWS: usize = 16 << 10;
/// Length of the pieces whose checksums stand in a section's footer.
pub(crate) const CHECKED_BYTES: usize = 256 << 10;
/// Key of those checksums: eight hexadecimal digits each, one for each piece of the bytes before the page index.
pub(crate) const CHECKSUMS_KEY: &str = "cambium.crc32c";
/// Key of the number of bytes before the page index.
pub(crate) const DATA_BYTES_KEY: &str = "cambium.data_bytes";
/// Key of the format's version.
pub(crate) const VERSION_KEY: &str = "cambium.version";
/// The version this crate writes and reads.
pub(crate) const VERSION: &str = "1";

/// What a column holds and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// u32, differences packed.
    Delta32,
    /// u32, few distinct values or long runs.
    Dictionary32,
    /// i64, differences packed.
    Delta64,
    /// i64, few distinct values or long runs.
    Dictionary64,
    /// u64 of no pattern.
    Plain64,
    /// i64 or null.
    Optional64,
    /// Text, few distinct values.
    Text,
    /// Text or null.
    OptionalText,
    /// 16 bytes of no pattern.
    Id,
}

/// A column's name, shape and codec.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) codec: Compression,
}

impl Column {
    pub(super) fn new(name: impl Into<String>, shape: Shape, codec: Compression) -> Self {
        Self { name: name.into(), shape, codec }
    }

    fn schema(&self) -> Result<TypePtr> {
        let (physical, logical) = match self.shape {
            Shape::Delta32 | Shape::Dictionary32 => (Physical::INT32, Some(unsigned(32))),
            Shape::Plain64 => (Physical::INT64, Some(unsigned(64))),
            Shape::Delta64 | Shape::Dictionary64 | Shape::Optional64 => (Physical::INT64, None),
            Shape::Text | Shape::OptionalText => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Shape::Id => (Physical::FIXED_LEN_BYTE_ARRAY, None),
        };
        let optional = matches!(self.shape, Shape::Optional64 | Shape::OptionalText);
        let repetition = if optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        let column = Type::primitive_type_builder(&self.name, physical)
            .with_repetition(repetition)
            .with_logical_type(logical)
            .with_length(if self.shape == Shape::Id { 16 } else { -1 })
            .build()?;
        Ok(Arc::new(column))
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.shape {
            Shape::Delta32 | Shape::Delta64 => Some(Encoding::DELTA_BINARY_PACKED),
            Shape::Plain64 | Shape::Optional64 | Shape::Id => Some(Encoding::PLAIN),
            Shape::Dictionary32 | Shape::Dictionary64 | Shape::Text | Shape::OptionalText => None,
        }
    }
}

fn unsigned(bit_width: i8) -> LogicalType {
    LogicalType::integer(bit_width, false)
}

/// The codec of everything that is read once and then kept decoded.
pub(super) fn zstd(level: i32) -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(level).expect("levels 1 to 22 exist"))
}

/// Values of one column, of all rows of a write. The second vector of the optional ones is 1 for a value, 0 for null;
/// the first holds only the values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values<'a> {
    U32(&'a [i32]),
    I64(&'a [i64]),
    OptionalI64(&'a [i64], &'a [i16]),
    Text(&'a [ByteArray]),
    OptionalText(&'a [ByteArray], &'a [i16]),
    Id(&'a [FixedLenByteArray]),
}

/// Writes the row groups of one section.
pub(super) struct SectionWriter {
    kind: SectionKind,
    file: SerializedFileWriter<Spool>,
    rows: u64,
}

/// A finished section; its offset is still 0.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) meta: SectionMeta,
    pub(crate) bytes: Spool,
}

impl SectionWriter {
    /// A section of these columns. Page statistics are kept for columns that rows are sorted by.
    pub(super) fn new(kind: SectionKind, columns: &[Column], scratch: &Scratch) -> Result<Self> {
        let fields = columns.iter().map(Column::schema).collect::<Result<Vec<_>>>()?;
        let schema = Type::group_type_builder("cambium").with_fields(fields).build()?;
        let mut properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_created_by("cambium".into())
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_write_batch_size(PAGE_ROWS)
            .set_statistics_enabled(EnabledStatistics::Page);
        for column in columns {
            let path = ColumnPath::from(vec![column.name.clone()]);
            properties = properties.set_column_compression(path.clone(), column.codec);
            if let Some(encoding) = column.encoding() {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path.clone(), encoding);
            }
            if matches!(column.name.as_str(), "stack" | "value" | "sum") {
                properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
            }
        }
        let file = SerializedFileWriter::new(scratch.open(), Arc::new(schema), Arc::new(properties.build()))?;
        Ok(Self { kind, file, rows: 0 })
    }

    /// Writes rows as one row group: one entry per column. Nothing for no rows.
    pub(super) fn write(&mut self, rows: usize, columns: &[Values<'_>]) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        self.rows += rows as u64;
        let mut group = self.file.next_row_group()?;
        for values in columns {
            let mut column = group.next_column()?.ok_or_else(|| extra("column"))?;
            write_column(&mut column, *values)?;
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// Ends the file.
    pub(super) fn finish(mut self) -> Result<Section> {
        self.file.flush().map_err(|error| ParquetError::External(Box::new(error)))?;
        let data = self.file.inner();
        let checksums: String = data.piece_checksums().map(|piece| format!("{piece:08x}")).collect();
        let data_bytes = data.len().to_string();
        for (key, value) in
            [(VERSION_KEY, VERSION.to_owned()), (DATA_BYTES_KEY, data_bytes), (CHECKSUMS_KEY, checksums)]
        {
            self.file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        let bytes = self.file.into_inner()?;
        let (length, crc32c) = (bytes.len(), bytes.crc32c());
        let meta = SectionMeta { kind: self.kind, offset: 0, length, rows: self.rows, crc32c };
        Ok(Section { meta, bytes })
    }
}

fn write_column(column: &mut SerializedColumnWriter<'_>, values: Values<'_>) -> Result<()> {
    match (column.untyped(), values) {
        (ColumnWriter::Int32ColumnWriter(column), Values::U32(values)) => {
            column.write_batch(values, None, None)?;
        }
        (ColumnWriter::Int64ColumnWriter(column), Values::I64(values)) => {
            column.write_batch(values, None, None)?;
        }
        (ColumnWriter::Int64ColumnWriter(column), Values::OptionalI64(values, present)) => {
            column.write_batch(values, Some(present), None)?;
        }
        (ColumnWriter::ByteArrayColumnWriter(column), Values::Text(values)) => {
            column.write_batch(values, None, None)?;
        }
        (ColumnWriter::ByteArrayColumnWriter(column), Values::OptionalText(values, present)) => {
            column.write_batch(values, Some(present), None)?;
        }
        (ColumnWriter::FixedLenByteArrayColumnWriter(column), Values::Id(values)) => {
            column.write_batch(values, None, None)?;
        }
        _ => return Err(extra("kind of values")),
    }
    Ok(())
}

fn extra(what: &str) -> ParquetError {
    ParquetError::General(format!("a write has another {what} than the section's schema"))
}

/// Sixteen-byte values that share one allocation.
pub(super) fn ids<'a>(values: impl Iterator<Item = &'a [u8; 16]>) -> Vec<FixedLenByteArray> {
    let all: Vec<u8> = values.flatten().copied().collect();
    let all = Bytes::from(all);
    (0..all.len() / 16)
        .map(|i| FixedLenByteArray::from(ByteArray::from(all.slice(i * 16..i * 16 + 16))))
        .collect()
}

/// A text as a column holds it.
pub(super) fn text(value: &str) -> ByteArray {
    ByteArray::from(value.as_bytes().to_vec())
}
