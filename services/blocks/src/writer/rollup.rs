//! The sections `rollup` and `rollup_2h`: sums by (type, scope, bucket, stack), gathered while profiles pass by in their
//! order.
//!
//! A scope's buckets are all open at once, because its profiles come series by series. What that may take is bounded: a
//! bucket that does not fit any more gets no rollup, and queries read its samples.

use std::collections::BTreeMap;

use cambium_model::block::SectionKind;
use cambium_model::time::coarse_bucket_start;
use parquet::errors::Result;

use super::samples::{Form, Rollups};
use super::section::{Column, ROW_GROUP_ROWS_MAX, Section, SectionWriter, Shape, Values, zstd};
use super::spool::Scratch;
use super::stacks::Stacks;

/// Most sums held at once: 12 bytes each.
const CELLS_MAX: usize = 16 << 20;

/// Sums of one type and scope at a time.
pub(super) struct Rollup<'a> {
    fine: Rows,
    coarse: Option<Rows>,
    stacks: &'a Stacks,
    /// The type and scope at hand.
    current: Option<(u32, u32)>,
    buckets: BTreeMap<i64, Bucket>,
    /// Cells of all buckets.
    cells: usize,
}

/// One cell per stack of the scope.
struct Bucket {
    sums: Vec<i64>,
    profiles: Vec<i32>,
    /// A sum did not fit 64 bits, or the bucket did not fit in memory: it gets no rollup, and queries read its samples.
    overflowed: bool,
}

impl Bucket {
    fn new(cells: usize) -> Self {
        Self { sums: vec![0; cells], profiles: vec![0; cells], overflowed: false }
    }

    fn add(&mut self, cell: usize, value: i64, profiles: i32) {
        let (sum, overflowed) = self.sums[cell].overflowing_add(value);
        self.sums[cell] = sum;
        self.overflowed |= overflowed;
        self.profiles[cell] += profiles;
    }
}

impl<'a> Rollup<'a> {
    pub(super) fn new(stacks: &'a Stacks, form: Form, scratch: &Scratch) -> Result<Self> {
        let coarse = form.rollups.has_wider().then(|| Rows::new(SectionKind::CoarseRollup, form, scratch));
        Ok(Self {
            fine: Rows::new(SectionKind::Rollup, form, scratch)?,
            coarse: coarse.transpose()?,
            stacks,
            current: None,
            buckets: BTreeMap::new(),
            cells: 0,
        })
    }

    /// Adds a profile's samples: (stack and label set, value), equal stacks next to each other. Profiles of one type and
    /// scope must follow one another.
    pub(super) fn add(
        &mut self,
        (profile_type, scope): (u32, u32),
        bucket_ns: i64,
        rows: &[(u64, i64)],
    ) -> Result<()> {
        if self.current != Some((profile_type, scope)) {
            self.end_scope()?;
            self.current = Some((profile_type, scope));
        }
        if rows.is_empty() {
            return Ok(());
        }
        let stacks = &self.stacks.of_scope[scope as usize];
        let cells = &mut self.cells;
        let bucket = self.buckets.entry(bucket_ns).or_insert_with(|| {
            if *cells + stacks.len() > CELLS_MAX {
                return Bucket { overflowed: true, ..Bucket::new(0) };
            }
            *cells += stacks.len();
            Bucket::new(stacks.len())
        });
        if bucket.overflowed {
            return Ok(());
        }
        let mut before = None;
        for (key, value) in rows {
            let cell = ((key >> 32) as u32 - stacks.start) as usize;
            bucket.add(cell, *value, i32::from(before != Some(cell)));
            before = Some(cell);
        }
        Ok(())
    }

    fn end_scope(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let first = self.stacks.of_scope[current.1 as usize].start;
        self.cells = 0;
        let buckets: Vec<(i64, Bucket)> = std::mem::take(&mut self.buckets).into_iter().collect();
        for (bucket_ns, bucket) in &buckets {
            self.fine.push(current, *bucket_ns, first, bucket)?;
        }
        let Some(coarse) = &mut self.coarse else { return Ok(()) };
        for parts in buckets.chunk_by(|(a, _), (b, _)| coarse_bucket_start(*a) == coarse_bucket_start(*b)) {
            let bucket_ns = coarse_bucket_start(parts[0].0);
            coarse.push(current, bucket_ns, first, &sum(parts))?;
        }
        Ok(())
    }

    /// The sections; the second of wider buckets, if they were wanted.
    pub(super) fn finish(mut self) -> Result<(Section, Option<Section>)> {
        self.end_scope()?;
        Ok((self.fine.finish()?, self.coarse.map(Rows::finish).transpose()?))
    }
}

/// Buckets of one scope as one.
fn sum(parts: &[(i64, Bucket)]) -> Bucket {
    if parts.iter().any(|(_, part)| part.overflowed) {
        return Bucket { overflowed: true, ..Bucket::new(0) };
    }
    let mut sum = Bucket::new(parts[0].1.sums.len());
    for (_, part) in parts {
        for (cell, (value, profiles)) in part.sums.iter().zip(&part.profiles).enumerate() {
            sum.add(cell, *value, *profiles);
        }
    }
    sum
}

/// Rows of one of the sections, a row group of them at a time.
struct Rows {
    section: SectionWriter,
    /// Whether it says how many profiles have a stack: without samples nobody could tell any more.
    counts: bool,
    profile_type: Vec<i32>,
    scope: Vec<i32>,
    bucket_ns: Vec<i64>,
    stack: Vec<i32>,
    sum: Vec<i64>,
    profiles: Vec<i32>,
}

impl Rows {
    fn new(kind: SectionKind, form: Form, scratch: &Scratch) -> Result<Self> {
        let compression = form.compression;
        let mut columns = vec![
            Column::new("profile_type", Shape::Dictionary32, zstd(1)),
            Column::new("scope", Shape::Dictionary32, zstd(1)),
            Column::new("bucket_ns", Shape::Dictionary64, zstd(1)),
            Column::new("stack", Shape::Delta32, compression.stacks()),
            Column::new("sum", Shape::Dictionary64, compression.values()),
        ];
        let counts = form.rollups != Rollups::Alone;
        if counts {
            columns.push(Column::new("profiles", Shape::Delta32, zstd(1)));
        }
        Ok(Self {
            counts,
            section: SectionWriter::new(kind, &columns, scratch)?,
            profile_type: Vec::new(),
            scope: Vec::new(),
            bucket_ns: Vec::new(),
            stack: Vec::new(),
            sum: Vec::new(),
            profiles: Vec::new(),
        })
    }

    /// Adds a bucket, whose first cell is that of the stack `first`, if it may be a rollup.
    fn push(&mut self, of: (u32, u32), bucket_ns: i64, first: u32, bucket: &Bucket) -> Result<()> {
        if bucket.overflowed {
            return Ok(());
        }
        for (stack, (sum, profiles)) in (first..).zip(bucket.sums.iter().zip(&bucket.profiles)) {
            if *profiles == 0 {
                continue;
            }
            if self.stack.len() == ROW_GROUP_ROWS_MAX {
                self.end_row_group()?;
            }
            self.profile_type.push(of.0 as i32);
            self.scope.push(of.1 as i32);
            self.bucket_ns.push(bucket_ns);
            self.stack.push(stack as i32);
            self.sum.push(*sum);
            self.profiles.push(*profiles);
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        let mut values = vec![
            Values::U32(&self.profile_type),
            Values::U32(&self.scope),
            Values::I64(&self.bucket_ns),
            Values::U32(&self.stack),
            Values::I64(&self.sum),
        ];
        if self.counts {
            values.push(Values::U32(&self.profiles));
        }
        self.section.write(self.stack.len(), &values)?;
        self.profile_type.clear();
        self.scope.clear();
        self.bucket_ns.clear();
        self.stack.clear();
        self.sum.clear();
        self.profiles.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Section> {
        self.end_row_group()?;
        self.section.finish()
    }
}
