//! A whole section in memory, read column by column.

use std::sync::Arc;

use bytes::Bytes;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::file::metadata::FileMetaData;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;

use super::place::Place;
use crate::Error;
use crate::toc::check_section;
use crate::writer::section::{VERSION, VERSION_KEY};

/// A section whose checksum, version and row count have been verified.
pub(super) struct Table {
    place: Place,
    file: SerializedFileReader<Bytes>,
}

/// Checks that the section is of a version we read and has the rows that the table of contents says.
pub(super) fn check_file(
    place: &Place,
    file: &FileMetaData,
    group_rows: impl Iterator<Item = i64>,
) -> Result<(), Error> {
    let version = key_value(file, VERSION_KEY);
    if version != Some(VERSION) {
        return Err(place.corrupt(format_args!("version is {version:?}, this reader knows {VERSION:?}")));
    }
    let mut rows = 0i64;
    for count in group_rows {
        rows = match rows.checked_add(count) {
            Some(sum) if count >= 0 => sum,
            _ => return Err(place.corrupt("row groups have impossible row counts")),
        };
    }
    if u64::try_from(rows) != Ok(place.section.rows) {
        return Err(place.corrupt(format_args!("has {rows} rows, not {}", place.section.rows)));
    }
    Ok(())
}

/// A value of the footer.
pub(super) fn key_value<'a>(file: &'a FileMetaData, key: &str) -> Option<&'a str> {
    file.key_value_metadata()?.iter().find(|pair| pair.key == key)?.value.as_deref()
}

impl Table {
    pub(super) fn open(place: &Place, bytes: Bytes) -> Result<Self, Error> {
        check_section(&place.path, place.kind(), &bytes, place.section.length, place.section.crc32c)?;
        let file = place.guard(|| SerializedFileReader::new(bytes))?;
        let groups = file.metadata().row_groups();
        check_file(place, file.metadata().file_metadata(), groups.iter().map(|group| group.num_rows()))?;
        Ok(Self { place: place.clone(), file })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    fn position(&self, name: &str) -> Option<usize> {
        let columns = self.file.metadata().file_metadata().schema_descr().columns();
        columns.iter().position(|column| column.name() == name)
    }

    /// All values of a u32 column.
    pub(super) fn u32(&self, name: &str) -> Result<Vec<u32>, Error> {
        let mut values = Vec::new();
        self.each_group(name, |reader, rows| match reader {
            ColumnReader::Int32ColumnReader(reader) => Some(read(reader, rows, None, &mut values)),
            _ => None,
        })?;
        Ok(values.into_iter().map(|value| value as u32).collect())
    }

    /// All values of an i64 column.
    pub(super) fn i64(&self, name: &str) -> Result<Vec<i64>, Error> {
        let mut values = Vec::new();
        self.each_group(name, |reader, rows| match reader {
            ColumnReader::Int64ColumnReader(reader) => Some(read(reader, rows, None, &mut values)),
            _ => None,
        })?;
        Ok(values)
    }

    /// All values of an i64 column that may be null.
    pub(super) fn optional_i64(&self, name: &str) -> Result<Vec<Option<i64>>, Error> {
        let (mut values, mut present) = (Vec::new(), Vec::new());
        self.each_group(name, |reader, rows| match reader {
            ColumnReader::Int64ColumnReader(reader) => {
                Some(read(reader, rows, Some(&mut present), &mut values))
            }
            _ => None,
        })?;
        Ok(spread(values, &present))
    }

    /// All texts of a column; null where absent.
    pub(super) fn optional_text(&self, name: &str) -> Result<Vec<Option<Arc<str>>>, Error> {
        let (mut values, mut present) = (Vec::new(), Vec::new());
        self.each_group(name, |reader, rows| match reader {
            ColumnReader::ByteArrayColumnReader(reader) => {
                Some(read(reader, rows, Some(&mut present), &mut values))
            }
            _ => None,
        })?;
        let text =
            |value: ByteArray| value.as_utf8().map(Arc::from).map_err(|error| self.place.parquet(error));
        let texts = values.into_iter().map(text).collect::<Result<Vec<Arc<str>>, Error>>()?;
        if present.is_empty() {
            return Ok(texts.into_iter().map(Some).collect()); // a column that cannot be null has no levels
        }
        Ok(spread(texts, &present))
    }

    /// All values of a column of sixteen bytes each.
    pub(super) fn ids(&self, name: &str) -> Result<Vec<[u8; 16]>, Error> {
        let mut values = Vec::new();
        self.each_group(name, |reader, rows| match reader {
            ColumnReader::FixedLenByteArrayColumnReader(reader) => {
                Some(read(reader, rows, None, &mut values))
            }
            _ => None,
        })?;
        let id = |value: &parquet::data_type::FixedLenByteArray| {
            value
                .data()
                .try_into()
                .map_err(|_| self.place.corrupt(format_args!("{name} is not 16 bytes wide")))
        };
        values.iter().map(id).collect()
    }

    fn each_group(
        &self,
        name: &str,
        mut read: impl FnMut(&mut ColumnReader, usize) -> Option<parquet::errors::Result<usize>>,
    ) -> Result<(), Error> {
        let position =
            self.position(name).ok_or_else(|| self.place.corrupt(format_args!("has no column {name}")))?;
        for index in 0..self.file.num_row_groups() {
            let rows = self.file.metadata().row_group(index).num_rows() as usize;
            let got = self.place.guard(|| {
                let mut reader = self.file.get_row_group(index)?.get_column_reader(position)?;
                read(&mut reader, rows).transpose()
            })?;
            let got =
                got.ok_or_else(|| self.place.corrupt(format_args!("column {name} has another type")))?;
            if got != rows {
                return Err(self.place.corrupt(format_args!("column {name} has {got} of {rows} rows")));
            }
        }
        Ok(())
    }
}

fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    rows: usize,
    present: Option<&mut Vec<i16>>,
    values: &mut Vec<T::T>,
) -> parquet::errors::Result<usize> {
    Ok(reader.read_records(rows, present, None, values)?.0)
}

/// Values with their nulls between.
fn spread<T>(values: Vec<T>, present: &[i16]) -> Vec<Option<T>> {
    let mut values = values.into_iter();
    present.iter().map(|level| if *level == 1 { values.next() } else { None }).collect()
}
