//! The table of contents at an object's end, from which a catalogue can be rebuilt.
//!
//! ```text
//! [sections of dataset 0] … [sections of dataset n] [BlockEntry, protobuf] [its length u32] [its CRC32C u32] [magic]
//! ```
//!
//! Numbers are little endian. What is read is hostile until checked: lengths are bounded before anything is allocated,
//! and every section must lie before the table, in ascending order.

use cambium_model::block::{BlockMeta, DatasetMeta, SectionKind};
use cambium_proto::wire::metastore::BlockEntry;
use prost::Message;

use crate::Error;

/// The last eight bytes of every block.
pub const MAGIC: [u8; 8] = *b"CAMBIUM1";

/// Bytes after the protobuf message: length, checksum, magic.
pub const TRAILER_BYTES: usize = 16;

/// Largest table of contents that is read.
pub const TOC_BYTES_MAX: usize = 64 << 20;

/// Most rows of a section that is decoded whole: with the next, bounds what a hostile block can make a reader allocate.
pub const SIDE_ROWS_MAX: u64 = 1 << 26;

/// Most rows per byte of a section: a page has at most 16 Ki rows, and costs more than 32 bytes with its header and its
/// place in the page index.
pub const ROWS_PER_BYTE_MAX: u64 = 512;

/// The table of contents and trailer for these datasets, and the checksum. `meta`'s size and checksum are not in it.
pub(crate) fn encode_toc(meta: &BlockMeta) -> (Vec<u8>, u32) {
    let mut entry = BlockEntry::from(meta);
    entry.size_bytes = 0;
    entry.toc_crc32c = 0;
    let mut bytes = entry.encode_to_vec();
    let crc = crc32c::crc32c(&bytes);
    let length = u32::try_from(bytes.len()).expect("a table of contents is far below 4 GiB");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&MAGIC);
    (bytes, crc)
}

/// How many bytes at the object's end hold its table of contents and trailer. `tail` is any part of the object that
/// reaches to its end and has at least [`TRAILER_BYTES`].
///
/// # Errors
/// [`Error::Corrupt`] where the trailer is not a block's or does not fit the object.
pub(crate) fn toc_length(path: &str, tail: &[u8], object_bytes: u64) -> Result<usize, Error> {
    let corrupt = |what: String| Error::Corrupt { path: path.to_owned(), what };
    let Some((_, trailer)) = tail.split_last_chunk::<TRAILER_BYTES>() else {
        return Err(corrupt(format!("has {object_bytes} bytes, too few for a trailer")));
    };
    if trailer[8..] != MAGIC {
        return Err(corrupt("does not end like a block".into()));
    }
    let length = u32_at(trailer, 0) as usize;
    let all = length + TRAILER_BYTES;
    if length > TOC_BYTES_MAX || all as u64 > object_bytes {
        return Err(corrupt(format!("table of contents has {length} bytes, the object {object_bytes}")));
    }
    Ok(all)
}

/// Reads the table of contents. `tail` is any part of the object that reaches to its end and holds all of it.
///
/// # Errors
/// [`Error::Corrupt`] where anything does not hold: it says what.
pub fn read_toc(path: &str, tail: &[u8], object_bytes: u64) -> Result<BlockMeta, Error> {
    let corrupt = |what: String| Error::Corrupt { path: path.to_owned(), what };
    let all = toc_length(path, tail, object_bytes)?;
    let Some(start) = tail.len().checked_sub(all) else {
        return Err(corrupt(format!("table of contents needs {all} bytes, {} were read", tail.len())));
    };
    let (toc, trailer) = tail[start..].split_at(all - TRAILER_BYTES);
    let (stored, actual) = (u32_at(trailer, 4), crc32c::crc32c(toc));
    if stored != actual {
        return Err(corrupt(format!("table of contents has checksum {actual:08x}, not {stored:08x}")));
    }
    let entry = BlockEntry::decode(toc).map_err(|error| corrupt(format!("table of contents: {error}")))?;
    let mut meta =
        BlockMeta::try_from(entry).map_err(|error| corrupt(format!("table of contents: {error}")))?;
    if meta.path != path {
        return Err(corrupt(format!("calls itself {}", meta.path)));
    }
    meta.size_bytes = object_bytes;
    meta.toc_crc32c = stored;
    let mut end = 0;
    for (index, dataset) in meta.datasets.iter().enumerate() {
        end = check_dataset(dataset, end).map_err(|what| corrupt(format!("dataset {index}: {what}")))?;
    }
    if end > object_bytes - all as u64 {
        return Err(corrupt("sections reach into the table of contents".into()));
    }
    Ok(meta)
}

/// Checks a dataset's sections, the first of which must not begin before `end`; returns where the last one ends.
fn check_dataset(dataset: &DatasetMeta, mut end: u64) -> Result<u64, String> {
    let mut seen: Vec<SectionKind> = Vec::new();
    for section in &dataset.sections {
        let kind = section.kind;
        if seen.contains(&kind) {
            return Err(format!("has two sections {}", section_name(kind)));
        }
        seen.push(kind);
        let section_end = section.offset.checked_add(section.length);
        match section_end {
            Some(section_end) if section.offset >= end => end = section_end,
            _ => return Err(format!("section {} overlaps the one before", section_name(kind))),
        }
        let in_ranges = matches!(
            kind,
            SectionKind::Samples
                | SectionKind::Rollup
                | SectionKind::CoarseRollup
                | SectionKind::SeriesRollup
        );
        if section.rows / ROWS_PER_BYTE_MAX > section.length || (!in_ranges && section.rows > SIDE_ROWS_MAX) {
            return Err(format!("section {} has {} rows", section_name(kind), section.rows));
        }
    }
    let mut sections = vec![(SectionKind::Series, dataset.series), (SectionKind::Profiles, dataset.profiles)];
    // What has no samples has sums by series instead.
    if !dataset.is_downsampled() || dataset.section(SectionKind::SeriesRollup).is_none() {
        sections.push((SectionKind::Samples, dataset.samples));
    }
    for (kind, rows) in sections {
        if dataset.section(kind).map(|section| section.rows) != Some(rows) {
            return Err(format!("section {} does not have the dataset's {rows} rows", section_name(kind)));
        }
    }
    Ok(end)
}

/// Checks a whole section's length and checksum.
pub(crate) fn check_section(
    path: &str,
    kind: SectionKind,
    bytes: &[u8],
    length: u64,
    stored: u32,
) -> Result<(), Error> {
    let corrupt = |what: String| Error::Corrupt { path: path.to_owned(), what };
    let name = section_name(kind);
    if bytes.len() as u64 != length {
        return Err(corrupt(format!("section {name} has {} bytes, not {length}", bytes.len())));
    }
    let actual = crc32c::crc32c(bytes);
    if actual != stored {
        return Err(corrupt(format!("section {name} has checksum {actual:08x}, not {stored:08x}")));
    }
    Ok(())
}

/// A section's name, in errors and docs.
pub fn section_name(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Series => "series",
        SectionKind::Profiles => "profiles",
        SectionKind::Samples => "samples",
        SectionKind::Rollup => "rollup",
        SectionKind::Stacks => "stacks",
        SectionKind::Nodes => "nodes",
        SectionKind::Locations => "locations",
        SectionKind::LabelSets => "label_sets",
        SectionKind::CoarseRollup => "rollup_2h",
        SectionKind::SeriesRollup => "series_rollup",
        SectionKind::SeriesBuckets => "series_buckets",
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

#[cfg(test)]
mod tests {
    use cambium_model::block::{LogId, LogRange, Offset, Partition};

    use super::*;
    use crate::testing::{Shape, random_dataset, tenant};
    use crate::writer::{Compression, encode};

    #[test]
    fn a_dataset_without_samples_must_have_sums_by_series() {
        let log = LogId { partition: Partition(0), log: 0 };
        let range = LogRange { log, first: Offset(0), next: Offset(1) };
        let read = |keep: &dyn Fn(SectionKind) -> bool| {
            let datasets = [random_dataset(tenant(1), 7, &Shape::dense())];
            let mut meta = encode(&datasets, range, 1, 3, Compression::Hot).unwrap().meta;
            meta.datasets[0].sections.retain(|section| keep(section.kind));
            let (toc, _) = encode_toc(&meta);
            read_toc(&meta.path, &toc, meta.size_bytes)
        };
        assert!(read(&|_| true).is_ok());
        assert!(read(&|kind| kind != SectionKind::Samples).is_ok());
        let neither = read(&|kind| !matches!(kind, SectionKind::Samples | SectionKind::SeriesRollup));
        let error = neither.unwrap_err().to_string();
        assert!(error.contains("section samples does not have"), "{error}");
    }
}
