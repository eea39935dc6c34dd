//! The sections `series_rollup` and `series_buckets`: sums by (series, bucket, stack), gathered while profiles pass by in
//! their order. They are kept where they are much fewer than the samples.

use cambium_model::block::SectionKind;
use parquet::errors::Result;

use super::Compression;
use super::section::{Column, ROW_GROUP_ROWS_MAX, Section, SectionWriter, Shape, Values, zstd};
use super::spool::Scratch;
use super::stacks::Stacks;

/// Samples for each sum from which on the sections pay (reference: the storage study's §2.3, where real fleets have 5.8 and
/// hostile ones 1.9).
const SHRINK_MIN: u64 = 3;

/// Samples after which sums that do not pay are given up, so that little is encoded in vain.
const TRIED_SAMPLES: u64 = 1 << 20;

/// The sums of one series and bucket at a time.
pub(super) struct SeriesRollup<'a> {
    stacks: &'a Stacks,
    rows: Rows,
    buckets: Buckets,
    /// The series, its scope and the bucket at hand.
    current: Option<(u32, u32, i64)>,
    /// One per stack of the scope.
    sums: Vec<i64>,
    is_touched: Vec<bool>,
    /// The stacks at hand, by their place in the scope.
    touched: Vec<u32>,
    /// A sum did not fit 64 bits: the bucket gets no rollup, and queries read its samples.
    overflowed: bool,
    /// There will be no samples to read: the sections are kept whatever they take, and a sum that does not fit goes on in
    /// another bucket of the same time.
    alone: bool,
    samples: u64,
    written: u64,
}

impl<'a> SeriesRollup<'a> {
    pub(super) fn new(
        stacks: &'a Stacks,
        alone: bool,
        compression: Compression,
        scratch: &Scratch,
    ) -> Result<Self> {
        Ok(Self {
            stacks,
            rows: Rows::new(compression, scratch)?,
            buckets: Buckets::new(scratch)?,
            current: None,
            sums: Vec::new(),
            is_touched: Vec::new(),
            touched: Vec::new(),
            overflowed: false,
            alone,
            samples: 0,
            written: 0,
        })
    }

    /// Adds a profile's samples: (stack and label set, value). Those of one series and bucket must follow one another.
    pub(super) fn add(
        &mut self,
        (series, scope): (u32, u32),
        bucket_ns: i64,
        rows: &[(u64, i64)],
    ) -> Result<()> {
        let current = (series, scope, bucket_ns);
        if self.current != Some(current) {
            self.end_bucket()?;
            self.current = Some(current);
            let cells = self.stacks.of_scope[scope as usize].len();
            if self.sums.len() < cells {
                self.sums.resize(cells, 0);
                self.is_touched.resize(cells, false);
            }
        }
        self.samples += rows.len() as u64;
        let first = self.stacks.of_scope[scope as usize].start;
        for (key, value) in rows {
            let stack = (*key >> 32) as u32 - first;
            let cell = stack as usize;
            if self.alone && self.sums[cell].checked_add(*value).is_none() {
                self.end_bucket()?;
                self.current = Some(current);
            }
            if !std::mem::replace(&mut self.is_touched[cell], true) {
                self.touched.push(stack);
            }
            let (sum, overflowed) = self.sums[cell].overflowing_add(*value);
            self.sums[cell] = sum;
            self.overflowed |= overflowed;
        }
        Ok(())
    }

    /// Whether the sums so far say that the sections will not pay.
    pub(super) fn is_vain(&self) -> bool {
        !self.alone && self.samples >= TRIED_SAMPLES && !self.pays()
    }

    /// Whether the sections pay.
    fn pays(&self) -> bool {
        self.written > 0 && self.written * SHRINK_MIN <= self.samples
    }

    fn end_bucket(&mut self) -> Result<()> {
        let Some((series, scope, bucket_ns)) = self.current.take() else { return Ok(()) };
        let first = self.stacks.of_scope[scope as usize].start;
        self.touched.sort_unstable();
        // Up and down in turn, as samples are.
        if self.buckets.count % 2 == 1 {
            self.touched.reverse();
        }
        if !self.overflowed && !self.touched.is_empty() {
            self.rows.reserve(self.touched.len())?;
            for stack in &self.touched {
                let cell = *stack as usize;
                self.rows.push(series, bucket_ns, first + stack, self.sums[cell]);
            }
            self.buckets.push(series, bucket_ns, self.touched.len())?;
            self.written += self.touched.len() as u64;
        }
        for stack in self.touched.drain(..) {
            self.sums[stack as usize] = 0;
            self.is_touched[stack as usize] = false;
        }
        self.overflowed = false;
        Ok(())
    }

    /// The rows and the buckets, if they pay.
    pub(super) fn finish(mut self) -> Result<Option<(Section, Section)>> {
        self.end_bucket()?;
        if !self.alone && !self.pays() {
            return Ok(None);
        }
        Ok(Some((self.rows.finish()?, self.buckets.finish()?)))
    }
}

struct Rows {
    section: SectionWriter,
    series: Vec<i32>,
    bucket_ns: Vec<i64>,
    stack: Vec<i32>,
    sum: Vec<i64>,
}

impl Rows {
    fn new(compression: Compression, scratch: &Scratch) -> Result<Self> {
        let columns = [
            Column::new("series", Shape::Dictionary32, zstd(1)),
            Column::new("bucket_ns", Shape::Dictionary64, zstd(1)),
            Column::new("stack", Shape::Delta32, compression.stacks()),
            Column::new("sum", Shape::Dictionary64, compression.values()),
        ];
        Ok(Self {
            section: SectionWriter::new(SectionKind::SeriesRollup, &columns, scratch)?,
            series: Vec::new(),
            bucket_ns: Vec::new(),
            stack: Vec::new(),
            sum: Vec::new(),
        })
    }

    /// Makes sure that so many rows will be of one row group, if one can hold them.
    fn reserve(&mut self, rows: usize) -> Result<()> {
        if self.stack.len() + rows > ROW_GROUP_ROWS_MAX { self.end_row_group() } else { Ok(()) }
    }

    fn push(&mut self, series: u32, bucket_ns: i64, stack: u32, sum: i64) {
        self.series.push(series as i32);
        self.bucket_ns.push(bucket_ns);
        self.stack.push(stack as i32);
        self.sum.push(sum);
    }

    fn end_row_group(&mut self) -> Result<()> {
        self.section.write(
            self.stack.len(),
            &[
                Values::U32(&self.series),
                Values::I64(&self.bucket_ns),
                Values::U32(&self.stack),
                Values::I64(&self.sum),
            ],
        )?;
        self.series.clear();
        self.bucket_ns.clear();
        self.stack.clear();
        self.sum.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Section> {
        self.end_row_group()?;
        self.section.finish()
    }
}

struct Buckets {
    section: SectionWriter,
    series: Vec<i32>,
    bucket_ns: Vec<i64>,
    rows: Vec<i32>,
    count: usize,
}

impl Buckets {
    fn new(scratch: &Scratch) -> Result<Self> {
        let columns = [
            Column::new("series", Shape::Delta32, zstd(1)),
            Column::new("bucket_ns", Shape::Delta64, zstd(1)),
            Column::new("rows", Shape::Delta32, zstd(1)),
        ];
        let section = SectionWriter::new(SectionKind::SeriesBuckets, &columns, scratch)?;
        Ok(Self { section, series: Vec::new(), bucket_ns: Vec::new(), rows: Vec::new(), count: 0 })
    }

    fn push(&mut self, series: u32, bucket_ns: i64, rows: usize) -> Result<()> {
        if self.series.len() == ROW_GROUP_ROWS_MAX {
            self.end_row_group()?;
        }
        self.series.push(series as i32);
        self.bucket_ns.push(bucket_ns);
        self.rows.push(rows as i32);
        self.count += 1;
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        let values = [Values::U32(&self.series), Values::I64(&self.bucket_ns), Values::U32(&self.rows)];
        self.section.write(self.series.len(), &values)?;
        self.series.clear();
        self.bucket_ns.clear();
        self.rows.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Section> {
        self.end_row_group()?;
        self.section.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::place::Place;
    use crate::reader::rollup::SeriesBuckets;

    #[test]
    fn only_where_there_are_no_samples_may_two_buckets_be_of_one_series_and_time() {
        let decode = |buckets: &[(u32, i64)], alone| {
            let mut section = Buckets::new(&Scratch::memory()).unwrap();
            for (series, bucket_ns) in buckets {
                section.push(*series, *bucket_ns, 2).unwrap();
            }
            let Section { meta, bytes } = section.finish().unwrap();
            let place = Place { path: "block".into(), section: meta };
            let held = (4, 2 * buckets.len() as u64);
            SeriesBuckets::decode(&place, bytes.into_bytes().unwrap().into(), held, alone)
        };
        let once = [(0, 600), (0, 1_200), (3, 600)];
        let decoded = decode(&once, false).unwrap();
        assert_eq!((0..3).map(|bucket| decoded.key(bucket)).collect::<Vec<_>>(), once);
        let twice = [(0, 600), (0, 600)];
        assert!(decode(&twice, true).is_ok());
        assert!(decode(&twice, false).unwrap_err().to_string().contains("not sorted"));
    }
}
