//! An input's profiles, one after the other.

use std::ops::Range;

use cambium_model::profile::ProfileId;
use cambium_model::time::bucket_start;

use super::input::{Column, Input, PagedSection};
use super::series::{NONE, Union};
use crate::Error;
use crate::reader::rollup::SeriesBuckets;

/// Profiles read at a time.
const BATCH_ROWS: u64 = 4_096;

/// A profile of an input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    /// Its series in the input.
    pub(super) input_series: u32,
    /// Its series in the union; none where it is not kept.
    pub(super) series: Option<u32>,
    pub(super) id: ProfileId,
    pub(super) time_ns: i64,
    pub(super) duration_ns: i64,
    pub(super) period: i64,
    pub(super) total: i64,
    /// How many samples it has or had.
    pub(super) samples: u32,
    /// The rows of its samples; where those were dropped the first profile of each series and bucket has the bucket's.
    pub(super) rows: (u64, u64),
}

impl Profile {
    pub(super) fn rows(&self) -> Range<u64> {
        self.rows.0..self.rows.1
    }
}

/// The profiles of an input in their order.
pub(super) struct Profiles<'a> {
    section: &'a PagedSection,
    /// Rows of the input's series in the union.
    rows: &'a [u32],
    union: &'a Union,
    /// How many rows values have.
    values: u64,
    /// Where values are sums by bucket, the buckets, and how many have been given to profiles.
    buckets: Option<(SeriesBuckets, usize)>,
    columns: Columns<'a>,
    batch: Batch,
    /// Position in the batch.
    at: usize,
    next_row: u64,
    /// The first value of the next profile.
    first_value: u64,
}

struct Columns<'a> {
    series: Column<'a, i32>,
    time_ns: Column<'a, i64>,
    duration_ns: Column<'a, i64>,
    period: Column<'a, i64>,
    total: Column<'a, i64>,
    samples: Column<'a, i32>,
    ids: Option<Column<'a, [u8; 16]>>,
}

#[derive(Default)]
struct Batch {
    series: Vec<i32>,
    time_ns: Vec<i64>,
    duration_ns: Vec<i64>,
    period: Vec<i64>,
    total: Vec<i64>,
    samples: Vec<i32>,
    ids: Vec<[u8; 16]>,
}

impl<'a> Profiles<'a> {
    /// The profiles of the input at this place of the union; `section` is its `profiles`.
    pub(super) fn new(
        input: &Input,
        section: &'a PagedSection,
        union: &'a Union,
        place: usize,
    ) -> Result<Self, Error> {
        let ids = if section.has("profile_id") { Some(section.column("profile_id")?) } else { None };
        Ok(Self {
            section,
            rows: &union.rows[place],
            union,
            values: input.place(input.values().0)?.section.rows,
            buckets: input.buckets()?.map(|buckets| (buckets, 0)),
            columns: Columns {
                series: section.column("series")?,
                time_ns: section.column("time_ns")?,
                duration_ns: section.column("duration_ns")?,
                period: section.column("period")?,
                total: section.column("total")?,
                samples: section.column("samples")?,
                ids,
            },
            batch: Batch::default(),
            at: 0,
            next_row: 0,
            first_value: 0,
        })
    }

    /// The next profile, kept or not.
    pub(super) fn next(&mut self) -> Result<Option<Profile>, Error> {
        if self.at == self.batch.series.len() && !self.fill()? {
            return Ok(None);
        }
        let (batch, at) = (&self.batch, self.at);
        let input_series = batch.series[at] as u32;
        let corrupt = |what: &str| Err(self.section.pages.place.corrupt(what));
        let Some(row) = self.rows.get(input_series as usize) else {
            return corrupt("a profile is of no series");
        };
        let (time_ns, samples) = (batch.time_ns[at], batch.samples[at] as u32);
        let first_value = self.first_value;
        let values = match &mut self.buckets {
            None => u64::from(samples),
            Some((buckets, given)) => {
                let key = (input_series, bucket_start(time_ns));
                let next = |given: usize| (given < buckets.len()).then(|| buckets.key(given));
                if next(*given).is_some_and(|next| next < key) {
                    return corrupt("sums of a bucket are of no profile");
                }
                let first = *given;
                while next(*given) == Some(key) {
                    *given += 1;
                }
                let rows = buckets.rows(&(first..*given));
                rows.end - rows.start
            }
        };
        let profile = Profile {
            input_series,
            series: Some(*row).filter(|row| *row != NONE && !self.union.erased.has(*row, time_ns)),
            id: ProfileId(batch.ids.get(at).copied().unwrap_or_default()),
            time_ns,
            duration_ns: batch.duration_ns[at],
            period: batch.period[at],
            total: batch.total[at],
            samples,
            rows: (first_value, first_value + values),
        };
        self.first_value += values;
        if self.first_value > self.values {
            return corrupt("profiles have more samples than there are");
        }
        self.at += 1;
        Ok(Some(profile))
    }

    /// The next profile that is kept.
    pub(super) fn next_kept(&mut self) -> Result<Option<Profile>, Error> {
        while let Some(profile) = self.next()? {
            if profile.series.is_some() {
                return Ok(Some(profile));
            }
        }
        Ok(None)
    }

    fn fill(&mut self) -> Result<bool, Error> {
        let rows = self.next_row..self.section.pages.place.section.rows.min(self.next_row + BATCH_ROWS);
        if rows.is_empty() {
            return Ok(false);
        }
        self.next_row = rows.end;
        self.at = 0;
        let (batch, columns) = (&mut self.batch, &mut self.columns);
        refill(&mut columns.series, &rows, &mut batch.series)?;
        refill(&mut columns.time_ns, &rows, &mut batch.time_ns)?;
        refill(&mut columns.duration_ns, &rows, &mut batch.duration_ns)?;
        refill(&mut columns.period, &rows, &mut batch.period)?;
        refill(&mut columns.total, &rows, &mut batch.total)?;
        refill(&mut columns.samples, &rows, &mut batch.samples)?;
        if let Some(ids) = &mut columns.ids {
            refill(ids, &rows, &mut batch.ids)?;
        }
        Ok(true)
    }
}

fn refill<V: crate::reader::unpack::Value>(
    column: &mut Column<'_, V>,
    rows: &Range<u64>,
    values: &mut Vec<V>,
) -> Result<(), Error> {
    values.clear();
    column.read(rows.clone(), values)
}
