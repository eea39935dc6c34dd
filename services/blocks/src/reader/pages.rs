//! A section that is read in ranges of rows: which bytes they need, and cursors over their columns.
//!
//! A range of bytes cannot be checked against the section's checksum, so the section's footer holds one for each piece
//! of 256 KiB. When the footer is first read, all of them together with the footer must give the section's own.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Type as Physical;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use super::column::Cursor;
use super::place::Place;
use super::table::{check_file, key_value};
use super::unpack::Value;
use crate::Error;
use crate::cache::Weigh;
use crate::toc::check_section;
use crate::writer::section::{CHECKED_BYTES, CHECKSUMS_KEY, DATA_BYTES_KEY};

/// Where the pages of a section lie.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) place: Place,
    metadata: ParquetMetaData,
    /// The first row of each row group, and after the last one the number of rows.
    group_starts: Vec<u64>,
    /// Bytes before the page index.
    data_bytes: u64,
    checksums: Vec<u32>,
}

impl Weigh for Pages {
    fn weight(&self) -> usize {
        self.metadata.memory_size() + self.checksums.len() * 4
    }
}

/// How much of a section's end probably holds its footer.
pub(crate) fn tail_guess(place: &Place) -> u64 {
    const FOOTER_BYTES: u64 = 16 << 10;
    const ROWS_PER_INDEX_BYTE: u64 = 128; // 16 Ki rows a page, about 128 bytes a page
    (FOOTER_BYTES + place.section.rows / ROWS_PER_INDEX_BYTE).min(place.section.length)
}

/// What came of a section's last bytes.
pub(crate) enum Parsed {
    Pages(Box<Pages>),
    /// They were too few: so many are needed.
    Needs(u64),
}

impl Pages {
    /// Reads footer and page index from the last bytes of the section.
    pub(crate) fn parse(place: &Place, tail: &Bytes) -> Result<Parsed, Error> {
        let length = place.section.length;
        let parsed = place.guard(|| {
            let mut reader = ParquetMetaDataReader::new()
                .with_column_index_policy(PageIndexPolicy::Skip)
                .with_offset_index_policy(PageIndexPolicy::Optional);
            match reader.try_parse_sized(tail, length) {
                Err(ParquetError::NeedMoreData(needed)) if (tail.len() as u64) < length => {
                    Ok(Err(needed as u64))
                }
                parsed => parsed.and_then(|()| reader.finish()).map(Ok),
            }
        })?;
        let metadata = match parsed {
            Ok(metadata) => metadata,
            Err(needed) => return Ok(Parsed::Needs(needed.clamp(tail.len() as u64 + 1, length))),
        };
        let data_bytes: Option<u64> =
            key_value(metadata.file_metadata(), DATA_BYTES_KEY).and_then(|text| text.parse().ok());
        let data_bytes = data_bytes
            .filter(|bytes| *bytes <= length)
            .ok_or_else(|| place.corrupt(format_args!("{DATA_BYTES_KEY} is missing or too large")))?;
        if (tail.len() as u64) < length - data_bytes {
            return Ok(Parsed::Needs(length - data_bytes));
        }
        let checksums = checksums(place, &metadata, data_bytes)?;
        let footer = &tail[tail.len() - (length - data_bytes) as usize..];
        check_all(place, &checksums, data_bytes, footer)?;
        let groups = metadata.row_groups();
        check_file(place, metadata.file_metadata(), groups.iter().map(|group| group.num_rows()))?;
        if !groups.is_empty() && metadata.offset_index().is_none() {
            return Err(place.corrupt("has no page index"));
        }
        let mut group_starts = vec![0];
        for group in groups {
            group_starts.push(group_starts[group_starts.len() - 1] + group.num_rows() as u64);
        }
        let place = place.clone();
        Ok(Parsed::Pages(Box::new(Self { place, metadata, group_starts, data_bytes, checksums })))
    }

    /// A section that is in memory as a whole: its pages and all its pieces, each checked.
    pub(crate) fn whole(place: &Place, bytes: &Bytes) -> Result<(Self, Pieces), Error> {
        check_section(&place.path, place.kind(), bytes, place.section.length, place.section.crc32c)?;
        let Parsed::Pages(pages) = Self::parse(place, bytes)? else {
            return Err(place.corrupt("footer reaches beyond the section"));
        };
        let mut held = Vec::with_capacity(pages.checksums.len());
        for piece in 0..pages.piece_count() {
            let range = pages.piece_range(piece);
            let bytes = bytes.slice(range.start as usize..range.end as usize);
            pages.check_piece(piece, &bytes)?;
            held.push((piece, bytes));
        }
        let pieces = Pieces::new(place, held);
        Ok((*pages, pieces))
    }

    pub(crate) fn column(&self, name: &str) -> Result<usize, Error> {
        self.find_column(name).ok_or_else(|| self.place.corrupt(format_args!("has no column {name}")))
    }

    pub(crate) fn find_column(&self, name: &str) -> Option<usize> {
        let columns = self.metadata.file_metadata().schema_descr().columns();
        columns.iter().position(|column| column.name() == name)
    }

    pub(crate) fn group_count(&self) -> usize {
        self.group_starts.len() - 1
    }

    /// The rows of a row group.
    pub(crate) fn group_rows(&self, group: usize) -> Range<u64> {
        self.group_starts[group]..self.group_starts[group + 1]
    }

    /// Cuts a run of rows where row groups end.
    pub(crate) fn by_group(&self, rows: &Range<u64>) -> impl Iterator<Item = (usize, Range<u64>)> {
        let mut start = rows.start;
        let end = rows.end;
        std::iter::from_fn(move || {
            if start >= end {
                return None;
            }
            let group = self.group_starts.partition_point(|first| *first <= start) - 1;
            let part = start..end.min(self.group_rows(group).end);
            start = part.end;
            Some((group, part))
        })
    }

    fn locations(&self, group: usize, column: usize) -> Result<&[PageLocation], Error> {
        let index = self.metadata.offset_index().and_then(|index| index.get(group)?.get(column));
        let index = index.ok_or_else(|| self.place.corrupt("has no page index"))?;
        Ok(index.page_locations())
    }

    /// The pieces that hold a column's pages of these rows, which are of one row group and ascending. Adds to `wanted`.
    pub(crate) fn want(
        &self,
        group: usize,
        column: usize,
        rows: impl Iterator<Item = Range<u64>>,
        wanted: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let locations = self.locations(group, column)?;
        let Some(first) = locations.first() else {
            return Ok(());
        };
        // The dictionary page, if there is one, stands before the first data page.
        let chunk = self.metadata.row_group(group).column(column);
        let (start, _) = self.place.guard(|| Ok(chunk.byte_range()))?;
        self.want_bytes(start..first.offset as u64, wanted)?;
        let base = self.group_starts[group];
        let mut next = 0;
        for rows in rows.filter(|rows| !rows.is_empty()) {
            let (from, to) = ((rows.start - base) as i64, (rows.end - base) as i64);
            let page = locations.partition_point(|page| page.first_row_index <= from).saturating_sub(1);
            next = page.max(next);
            while next < locations.len() && locations[next].first_row_index < to {
                let offset = locations[next].offset as u64;
                let end = offset.saturating_add(locations[next].compressed_page_size as u64);
                self.want_bytes(offset..end, wanted)?;
                next += 1;
            }
        }
        Ok(())
    }

    fn want_bytes(&self, bytes: Range<u64>, wanted: &mut Vec<u32>) -> Result<(), Error> {
        if bytes.end > self.data_bytes || bytes.start > bytes.end {
            return Err(self.place.corrupt("a page lies outside its section"));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let pieces = bytes.start / CHECKED_BYTES as u64..=(bytes.end - 1) / CHECKED_BYTES as u64;
        wanted.extend(pieces.map(|piece| piece as u32));
        Ok(())
    }

    pub(crate) fn piece_count(&self) -> u32 {
        self.checksums.len() as u32
    }

    /// The bytes of a piece, in the section.
    pub(crate) fn piece_range(&self, piece: u32) -> Range<u64> {
        let start = u64::from(piece) * CHECKED_BYTES as u64;
        start..(start + CHECKED_BYTES as u64).min(self.data_bytes)
    }

    pub(crate) fn check_piece(&self, piece: u32, bytes: &[u8]) -> Result<(), Error> {
        let range = self.piece_range(piece);
        if bytes.len() as u64 != range.end - range.start
            || crc32c::crc32c(bytes) != self.checksums[piece as usize]
        {
            let (start, end) = (range.start, range.end);
            return Err(self
                .place
                .corrupt(format_args!("bytes {start} to {end} do not have their checksum")));
        }
        Ok(())
    }

    /// A cursor over a u32 column of a row group; its values are reinterpreted, as Parquet does.
    pub(crate) fn u32_cursor(
        &self,
        pieces: &Arc<Pieces>,
        group: usize,
        column: usize,
    ) -> Result<Cursor<'_, i32>, Error> {
        self.cursor(pieces, group, column)
    }

    /// A cursor over an i64 column of a row group.
    pub(crate) fn i64_cursor(
        &self,
        pieces: &Arc<Pieces>,
        group: usize,
        column: usize,
    ) -> Result<Cursor<'_, i64>, Error> {
        self.cursor(pieces, group, column)
    }

    /// A cursor over a column of a row group, whose bytes `reader` has.
    pub(crate) fn cursor<V: Value, R: ChunkReader + 'static>(
        &self,
        reader: &Arc<R>,
        group: usize,
        column: usize,
    ) -> Result<Cursor<'_, V, R>, Error> {
        let rows = self.group_rows(group);
        let locations = self.locations(group, column)?.to_vec();
        let count = (rows.end - rows.start) as usize;
        let chunk = self.metadata.row_group(group).column(column);
        let held = chunk.column_descr();
        if held.physical_type() != V::PHYSICAL || held.max_def_level() > 0 || held.max_rep_level() > 0 {
            return Err(self.place.corrupt("a column has another type"));
        }
        if V::PHYSICAL == Physical::FIXED_LEN_BYTE_ARRAY && held.type_length() != V::BYTES as i32 {
            return Err(self.place.corrupt("a column has another width"));
        }
        let reader = Arc::clone(reader);
        let reader = self.place.guard(|| SerializedPageReader::new(reader, chunk, count, Some(locations)))?;
        Ok(Cursor::new(&self.place, reader, rows.start))
    }
}

fn checksums(place: &Place, metadata: &ParquetMetaData, data_bytes: u64) -> Result<Vec<u32>, Error> {
    let text = key_value(metadata.file_metadata(), CHECKSUMS_KEY).unwrap_or_default();
    let digits = |piece: &[u8]| u32::from_str_radix(std::str::from_utf8(piece).ok()?, 16).ok();
    let checksums: Option<Vec<u32>> = text.as_bytes().chunks(8).map(digits).collect();
    checksums
        .filter(|checksums| checksums.len() as u64 == data_bytes.div_ceil(CHECKED_BYTES as u64))
        .ok_or_else(|| place.corrupt(format_args!("{CHECKSUMS_KEY} does not hold a checksum for each piece")))
}

/// Checks that the pieces' checksums and the rest of the section give the section's checksum.
fn check_all(place: &Place, checksums: &[u32], data_bytes: u64, rest: &[u8]) -> Result<(), Error> {
    let mut all = 0;
    let mut left = data_bytes as usize;
    for checksum in checksums {
        let length = left.min(CHECKED_BYTES);
        all = crc32c::crc32c_combine(all, *checksum, length);
        left -= length;
    }
    all = crc32c::crc32c_append(all, rest);
    let stored = place.section.crc32c;
    if all == stored {
        Ok(())
    } else {
        Err(place.corrupt(format_args!("has checksum {all:08x}, not {stored:08x}")))
    }
}

/// The fetched bytes of a section, with holes.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// Ascending.
    held: Vec<(u32, Bytes)>,
    length: u64,
}

impl Pieces {
    pub(crate) fn new(place: &Place, held: Vec<(u32, Bytes)>) -> Self {
        debug_assert!(held.is_sorted_by_key(|(piece, _)| *piece));
        Self { held, length: place.section.length }
    }

    fn piece(&self, number: u64) -> ParquetResult<&Bytes> {
        let found = self.held.binary_search_by_key(&number, |(piece, _)| u64::from(*piece));
        found.map(|index| &self.held[index].1).map_err(|_| ParquetError::EOF("bytes were not fetched".into()))
    }
}

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Pieces {
    type T = bytes::buf::Reader<Bytes>;

    /// Only pages of known length are read here.
    fn get_read(&self, _start: u64) -> ParquetResult<Self::T> {
        Err(ParquetError::General("a section in pieces is read page by page".into()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        const SIZE: u64 = CHECKED_BYTES as u64;
        let (first, last) = (start / SIZE, (start + (length as u64).max(1) - 1) / SIZE);
        let within = (start % SIZE) as usize;
        let piece = self.piece(first)?;
        if first == last && within + length <= piece.len() {
            return Ok(piece.slice(within..within + length));
        }
        // A page that lies across pieces is put together.
        let mut whole = Vec::with_capacity(length.min((last - first + 1) as usize * CHECKED_BYTES));
        for number in first..=last {
            let piece = self.piece(number)?;
            let from = if number == first { within.min(piece.len()) } else { 0 };
            let to = piece.len().min(from + length - whole.len());
            whole.extend_from_slice(&piece[from..to]);
        }
        if whole.len() < length {
            return Err(ParquetError::EOF("bytes were not fetched".into()));
        }
        Ok(whole.into())
    }
}
