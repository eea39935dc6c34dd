//! Which rows of `rollup` are of which (type, scope, bucket), and which of `series_rollup` of which (series, bucket).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cambium_model::time::{ROLLUP_BUCKET_NS, TimeRange};

use super::pages::{Pages, Pieces};
use super::place::Place;
use super::table::Table;
use crate::Error;
use crate::cache::Weigh;
use crate::dataset::RollupKey;
use crate::plan::is_whole;

/// The rows of each key.
#[derive(Debug, Default)]
pub(crate) struct RollupIndex {
    pub(crate) rows: BTreeMap<RollupKey, Range<u64>>,
}

impl Weigh for RollupIndex {
    fn weight(&self) -> usize {
        self.rows.len() * (size_of::<RollupKey>() + size_of::<Range<u64>>())
    }
}

impl RollupIndex {
    /// The pieces that hold the key columns.
    pub(crate) fn wanted(pages: &Pages) -> Result<Vec<u32>, Error> {
        let mut wanted = Vec::new();
        for group in 0..pages.group_count() {
            for name in ["profile_type", "scope", "bucket_ns"] {
                let all = std::iter::once(pages.group_rows(group));
                pages.want(group, pages.column(name)?, all, &mut wanted)?;
            }
        }
        Ok(wanted)
    }

    pub(crate) fn read(pages: &Pages, pieces: &Arc<Pieces>) -> Result<Self, Error> {
        let mut index = Self::default();
        let mut last: Option<(RollupKey, Range<u64>)> = None;
        for group in 0..pages.group_count() {
            let rows = pages.group_rows(group);
            let (mut types, mut scopes, mut buckets) = (Vec::new(), Vec::new(), Vec::new());
            pages.u32_cursor(pieces, group, pages.column("profile_type")?)?.read(rows.clone(), &mut types)?;
            pages.u32_cursor(pieces, group, pages.column("scope")?)?.read(rows.clone(), &mut scopes)?;
            pages.i64_cursor(pieces, group, pages.column("bucket_ns")?)?.read(rows.clone(), &mut buckets)?;
            for (row, ((type_index, scope_index), bucket_ns)) in
                rows.zip(types.into_iter().zip(scopes).zip(buckets))
            {
                let key =
                    RollupKey { type_index: type_index as u32, scope_index: scope_index as u32, bucket_ns };
                match &mut last {
                    Some((held, rows)) if *held == key => rows.end = row + 1,
                    Some((held, _)) if *held > key => return Err(pages.place.corrupt("is not sorted")),
                    _ => index.rows.extend(last.replace((key, row..row + 1))),
                }
            }
        }
        index.rows.extend(last);
        Ok(index)
    }
}

/// The rows of each series' buckets. Where there are no samples, several buckets may be of one series and time: together
/// they are what does not fit one.
#[derive(Debug)]
pub(crate) struct SeriesBuckets {
    /// The first bucket of each series, and after the last one their number.
    starts: Vec<usize>,
    pub(crate) bucket_ns: Vec<i64>,
    /// The first row of each bucket, and after the last one their number.
    first_row: Vec<u64>,
}

impl Weigh for SeriesBuckets {
    fn weight(&self) -> usize {
        self.starts.len() * 8 + self.bucket_ns.len() * 16
    }
}

impl SeriesBuckets {
    /// `alone` says that there are no samples.
    pub(crate) fn decode(
        place: &Place,
        bytes: Bytes,
        (series, rows): (u64, u64),
        alone: bool,
    ) -> Result<Self, Error> {
        let table = Table::open(place, bytes)?;
        let (series_of, bucket_ns) = (table.u32("series")?, table.i64("bucket_ns")?);
        if !series_of.iter().zip(&bucket_ns).is_sorted_by(|a, b| a < b || (alone && a == b)) {
            return Err(place.corrupt("is not sorted by series and bucket"));
        }
        if series_of.last().is_some_and(|last| u64::from(*last) >= series) {
            return Err(place.corrupt("a bucket is of no series"));
        }
        let mut first_row = vec![0u64];
        for count in table.u32("rows")? {
            first_row.push(first_row[first_row.len() - 1] + u64::from(count));
        }
        if first_row.last() != Some(&rows) {
            return Err(
                place.corrupt(format_args!("series_rollup has {rows} rows, not those of all buckets"))
            );
        }
        let mut starts = Vec::with_capacity(series as usize + 1);
        for (bucket, row) in series_of.iter().enumerate() {
            starts.resize(*row as usize + 1, bucket);
        }
        starts.resize(series as usize + 1, series_of.len());
        Ok(Self { starts, bucket_ns, first_row })
    }

    /// How many buckets there are.
    pub(crate) fn len(&self) -> usize {
        self.bucket_ns.len()
    }

    /// The series of a bucket, and its start.
    pub(crate) fn key(&self, bucket: usize) -> (u32, i64) {
        let series = self.starts.partition_point(|first| *first <= bucket) - 1;
        (series as u32, self.bucket_ns[bucket])
    }

    /// The buckets of a series.
    pub(crate) fn of_series(&self, row: u32) -> Range<usize> {
        self.starts[row as usize]..self.starts[row as usize + 1]
    }

    /// The buckets of a series that lie whole inside the window.
    pub(crate) fn within(&self, row: u32, window: &TimeRange) -> Range<usize> {
        let all = self.of_series(row);
        let of_series = &self.bucket_ns[all.clone()];
        let start = all.start + of_series.partition_point(|bucket_ns| *bucket_ns < window.start_ns);
        let is_before =
            |bucket_ns: &i64| *bucket_ns < window.start_ns || is_whole(*bucket_ns, ROLLUP_BUCKET_NS, window);
        start..all.start + of_series.partition_point(is_before)
    }

    /// The rows of a run of buckets.
    pub(crate) fn rows(&self, buckets: &Range<usize>) -> Range<u64> {
        self.first_row[buckets.start]..self.first_row[buckets.end]
    }
}
