//! A column of a row group, read forwards a page at a time.

use std::ops::Range;

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;

use super::pages::Pieces;
use super::place::Place;
use super::unpack::{self, PAGE_VALUES_MAX, Value};
use crate::Error;

/// Reads a column of a row group forwards, from bytes that were fetched or from a file.
pub(crate) struct Cursor<'a, V, R: ChunkReader + 'static = Pieces> {
    place: &'a Place,
    reader: SerializedPageReader<R>,
    dictionary: Vec<V>,
    /// Row of the section at which the page in hand begins.
    page_start: u64,
    /// Its values.
    page: Vec<V>,
}

impl<'a, V: Value, R: ChunkReader + 'static> Cursor<'a, V, R> {
    /// A cursor before the first page of a row group that begins at this row of the section.
    pub(super) fn new(place: &'a Place, reader: SerializedPageReader<R>, start: u64) -> Self {
        Self { place, reader, dictionary: Vec::new(), page_start: start, page: Vec::new() }
    }

    /// Appends the values of these rows, which must not lie before those read already.
    pub(crate) fn read(&mut self, rows: Range<u64>, values: &mut Vec<V>) -> Result<(), Error> {
        let place = self.place;
        let mut at = rows.start;
        while at < rows.end {
            let page_end = self.page_start + self.page.len() as u64;
            if at < page_end {
                let end = rows.end.min(page_end);
                let within = (at - self.page_start) as usize..(end - self.page_start) as usize;
                values.extend_from_slice(&self.page[within]);
                at = end;
                continue;
            }
            let Some(page) = place.guard(|| self.turn_page(at))? else {
                return Err(place.corrupt(format_args!("row {at} and those after it are missing")));
            };
            let page_rows = u64::from(page.num_values());
            if self.page_start == at && at + page_rows <= rows.end {
                // Nobody will ask for any of it again.
                place.guard(|| decode(&page, &self.dictionary, values))?;
                self.page_start += page_rows;
                at = self.page_start;
            } else {
                place.guard(|| decode(&page, &self.dictionary, &mut self.page))?;
            }
        }
        Ok(())
    }

    /// The next page that could hold the row; none where there is none.
    fn turn_page(&mut self, row: u64) -> ParquetResult<Option<Page>> {
        self.page_start += self.page.len() as u64;
        self.page.clear();
        while let Some(next) = self.reader.peek_next_page()? {
            let rows = next.num_rows.unwrap_or(0) as u64;
            if !next.is_dict && rows > 0 && self.page_start + rows <= row {
                self.reader.skip_next_page()?;
                self.page_start += rows;
                continue;
            }
            let Some(page) = self.reader.get_next_page()? else { return Ok(None) };
            match &page {
                Page::DictionaryPage { buf, num_values, .. } => {
                    self.dictionary.clear();
                    unpack::plain(buf, *num_values as usize, &mut self.dictionary)?;
                }
                _ if u64::from(page.num_values()) != rows => {
                    return Err(ParquetError::General("a page has other rows than its index says".into()));
                }
                _ if rows == 0 => {}
                _ => return Ok(Some(page)),
            }
        }
        Ok(None)
    }
}

fn decode<V: Value>(page: &Page, dictionary: &[V], values: &mut Vec<V>) -> ParquetResult<()> {
    let count = page.num_values() as usize;
    if count > PAGE_VALUES_MAX {
        return Err(ParquetError::General(format!("a page of {count} values")));
    }
    let bytes = page.buffer();
    match page.encoding() {
        Encoding::DELTA_BINARY_PACKED => unpack::deltas(bytes, count, values),
        Encoding::RLE_DICTIONARY => unpack::indexed(bytes, count, dictionary, values),
        Encoding::PLAIN => unpack::plain(bytes, count, values),
        other => Err(ParquetError::NYI(format!("encoding {other}"))),
    }
}
