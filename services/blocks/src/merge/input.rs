//! A dataset of a block that lies in a local file, read forwards in pieces, whatever its size.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use cambium_model::block::{BlockMeta, DatasetMeta, SectionKind};
use cambium_model::profile::SampleLabels;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

use crate::Error;
use crate::reader::column::Cursor;
use crate::reader::pages::{Pages, Parsed, tail_guess};
use crate::reader::place::Place;
use crate::reader::rollup::SeriesBuckets;
use crate::reader::unpack::Value;
use crate::reader::{series, side};
use crate::series_table::SeriesTable;
use crate::toc::section_name;

/// Bytes read at a time to check a section.
const CHECK_BYTES: usize = 256 << 10;

/// One tenant's dataset of a block in a file. Series are in memory; everything else is read when it is asked for.
#[derive(Clone, Debug)]
pub struct Input {
    file: Arc<File>,
    block: Arc<BlockMeta>,
    index: usize,
    pub(super) series: Arc<SeriesTable>,
}

/// A section that is read a page at a time.
pub(super) struct PagedSection {
    pub(super) pages: Pages,
    bytes: Arc<FileSection>,
}

/// A column of a paged section, read forwards across row groups.
pub(super) struct Column<'a, V> {
    section: &'a PagedSection,
    index: usize,
    at: Option<(usize, Cursor<'a, V, FileSection>)>,
}

impl Input {
    /// The dataset at `index` of the block whose object `file` holds. Checks every byte of it against its checksum.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Scratch`].
    pub fn open(file: Arc<File>, block: Arc<BlockMeta>, index: usize) -> Result<Self, Error> {
        let mut new = Self { file, block, index, series: Arc::default() };
        for section in &new.meta().sections {
            new.check(&new.place(section.kind)?)?;
        }
        let place = new.place(SectionKind::Series)?;
        new.series = series::decode(&place, &new.meta().types, new.whole(&place)?)?;
        Ok(new)
    }

    /// What the catalogue says of it.
    pub fn meta(&self) -> &DatasetMeta {
        &self.block.datasets[self.index]
    }

    /// The section that has the values of stacks, and the column of values: samples, or what is left of them.
    pub(super) fn values(&self) -> (SectionKind, &'static str) {
        if self.meta().is_downsampled() {
            (SectionKind::SeriesRollup, "sum")
        } else {
            (SectionKind::Samples, "value")
        }
    }

    /// Where the rows of each series and bucket lie, if those are what it has.
    pub(super) fn buckets(&self) -> Result<Option<SeriesBuckets>, Error> {
        if !self.meta().is_downsampled() {
            return Ok(None);
        }
        let place = self.place(SectionKind::SeriesBuckets)?;
        let rows = self.place(SectionKind::SeriesRollup)?.section.rows;
        SeriesBuckets::decode(&place, self.whole(&place)?, (self.meta().series, rows), true).map(Some)
    }

    pub(super) fn has(&self, kind: SectionKind) -> bool {
        self.meta().section(kind).is_some()
    }

    pub(super) fn place(&self, kind: SectionKind) -> Result<Place, Error> {
        let section = self.meta().section(kind).copied().ok_or_else(|| Error::Corrupt {
            path: self.block.path.clone(),
            what: format!("has no section {}", section_name(kind)),
        })?;
        Ok(Place { path: self.block.path.as_str().into(), section })
    }

    fn check(&self, place: &Place) -> Result<(), Error> {
        let Range { mut start, end } = section_range(place);
        let (mut piece, mut crc32c) = (vec![0; CHECK_BYTES], 0);
        while start < end {
            let length = CHECK_BYTES.min((end - start) as usize);
            self.file.read_exact_at(&mut piece[..length], start).map_err(|error| short(place, error))?;
            crc32c = crc32c::crc32c_append(crc32c, &piece[..length]);
            start += length as u64;
        }
        if crc32c == place.section.crc32c {
            Ok(())
        } else {
            let stored = place.section.crc32c;
            Err(place.corrupt(format_args!("has checksum {crc32c:08x}, not {stored:08x}")))
        }
    }

    fn read(&self, place: &Place, range: Range<u64>) -> Result<Bytes, Error> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        self.file.read_exact_at(&mut bytes, range.start).map_err(|error| short(place, error))?;
        Ok(bytes.into())
    }

    fn whole(&self, place: &Place) -> Result<Bytes, Error> {
        self.read(place, section_range(place))
    }

    pub(super) fn stacks(&self) -> Result<side::StackTable, Error> {
        let places = side::StackSections {
            stacks: self.place(SectionKind::Stacks)?,
            nodes: self.place(SectionKind::Nodes)?,
            locations: self.place(SectionKind::Locations)?,
        };
        let bytes = side::StackSections {
            stacks: self.whole(&places.stacks)?,
            nodes: self.whole(&places.nodes)?,
            locations: self.whole(&places.locations)?,
        };
        side::StackTable::decode(&places, bytes)
    }

    /// Entry 0 is the empty set.
    pub(super) fn label_sets(&self) -> Result<Arc<Vec<SampleLabels>>, Error> {
        if !self.has(SectionKind::LabelSets) {
            return Ok(Arc::new(vec![SampleLabels::new()]));
        }
        let place = self.place(SectionKind::LabelSets)?;
        side::label_sets(&place, self.whole(&place)?)
    }

    pub(super) fn paged(&self, kind: SectionKind) -> Result<PagedSection, Error> {
        let place = self.place(kind)?;
        let Range { start, end } = section_range(&place);
        let mut wanted = tail_guess(&place);
        let pages = loop {
            match Pages::parse(&place, &self.read(&place, end - wanted..end)?)? {
                Parsed::Pages(pages) => break *pages,
                Parsed::Needs(needed) => wanted = needed,
            }
        };
        let bytes = FileSection { file: Arc::clone(&self.file), start, length: end - start };
        Ok(PagedSection { pages, bytes: Arc::new(bytes) })
    }
}

impl PagedSection {
    pub(super) fn column<V: Value>(&self, name: &str) -> Result<Column<'_, V>, Error> {
        Ok(Column { section: self, index: self.pages.column(name)?, at: None })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.pages.find_column(name).is_some()
    }
}

impl<V: Value> Column<'_, V> {
    /// Appends the values of these rows, which must not lie before those read already.
    pub(super) fn read(&mut self, rows: Range<u64>, values: &mut Vec<V>) -> Result<(), Error> {
        let section = self.section;
        for (group, part) in section.pages.by_group(&rows) {
            let cursor = match &mut self.at {
                Some((at, cursor)) if *at == group => cursor,
                at => &mut at.insert((group, section.pages.cursor(&section.bytes, group, self.index)?)).1,
            };
            cursor.read(part, values)?;
        }
        Ok(())
    }
}

fn section_range(place: &Place) -> Range<u64> {
    place.section.offset..place.section.offset + place.section.length
}

fn short(place: &Place, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => place.corrupt("ends early"),
        _ => Error::scratch(error),
    }
}

/// The bytes of a section in a file; each was checked before.
#[derive(Debug)]
pub(super) struct FileSection {
    file: Arc<File>,
    start: u64,
    length: u64,
}

impl Length for FileSection {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for FileSection {
    type T = io::Empty;

    /// Only pages of known length are read here.
    fn get_read(&self, _start: u64) -> ParquetResult<Self::T> {
        Err(ParquetError::General("a section in a file is read page by page".into()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF("a page reaches beyond its section".into()));
        }
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, self.start + start);
        read.map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(bytes.into())
    }
}
