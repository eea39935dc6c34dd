//! The section `rollup`: sums by (type, scope, bucket, stack), gathered while profiles pass by in their order.
//!
//! A scope's buckets are all open at once, because its profiles come series by series. What that may take is bounded: a
//! bucket that does not fit any more gets no rollup, and queries read its samples.

use std::collections::BTreeMap;

use cambium_model::block::SectionKind;
use parquet::errors::Result;

use super::Compression;
use super::section::{Column, ROW_GROUP_ROWS_MAX, Section, SectionWriter, Shape, Values, zstd};
use super::spool::Scratch;
use super::stacks::Stacks;

/// Most sums held at once: 12 bytes each.
const CELLS_MAX: usize = 16 << 20;

/// Sums of one type and scope at a time.
pub(super) struct Rollup<'a> {
    section: SectionWriter,
    stacks: &'a Stacks,
    /// The type and scope at hand.
    current: Option<(u32, u32)>,
    buckets: BTreeMap<i64, Bucket>,
    /// Cells of all buckets.
    cells: usize,
    profile_type: Vec<i32>,
    scope: Vec<i32>,
    bucket_ns: Vec<i64>,
    stack: Vec<i32>,
    sum: Vec<i64>,
    profiles: Vec<i32>,
}

/// One cell per stack of the scope.
struct Bucket {
    sums: Vec<i64>,
    profiles: Vec<i32>,
    /// A sum did not fit 64 bits, or the bucket did not fit in memory: it gets no rollup, and queries read its samples.
    overflowed: bool,
}

impl<'a> Rollup<'a> {
    pub(super) fn new(stacks: &'a Stacks, compression: Compression, scratch: &Scratch) -> Result<Self> {
        let columns = [
            Column::new("profile_type", Shape::Dictionary32, zstd(1)),
            Column::new("scope", Shape::Dictionary32, zstd(1)),
            Column::new("bucket_ns", Shape::Dictionary64, zstd(1)),
            Column::new("stack", Shape::Delta32, compression.stacks()),
            Column::new("sum", Shape::Dictionary64, compression.values()),
            Column::new("profiles", Shape::Delta32, zstd(1)),
        ];
        Ok(Self {
            section: SectionWriter::new(SectionKind::Rollup, &columns, scratch)?,
            stacks,
            current: None,
            buckets: BTreeMap::new(),
            cells: 0,
            profile_type: Vec::new(),
            scope: Vec::new(),
            bucket_ns: Vec::new(),
            stack: Vec::new(),
            sum: Vec::new(),
            profiles: Vec::new(),
        })
    }

    /// Adds a profile's samples: (stack and label set, value), equal stacks next to each other. Profiles of one type and
    /// scope must follow one another.
    pub(super) fn add(
        &mut self,
        profile_type: u32,
        scope: u32,
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
            let fits = *cells + stacks.len() <= CELLS_MAX;
            let length = if fits { stacks.len() } else { 0 };
            *cells += length;
            Bucket { sums: vec![0; length], profiles: vec![0; length], overflowed: !fits }
        });
        if bucket.overflowed {
            return Ok(());
        }
        let mut before = None;
        for (key, value) in rows {
            let cell = ((key >> 32) as u32 - stacks.start) as usize;
            let (sum, overflowed) = bucket.sums[cell].overflowing_add(*value);
            bucket.sums[cell] = sum;
            bucket.overflowed |= overflowed;
            bucket.profiles[cell] += i32::from(before != Some(cell));
            before = Some(cell);
        }
        Ok(())
    }

    fn end_scope(&mut self) -> Result<()> {
        let Some((profile_type, scope)) = self.current.take() else {
            return Ok(());
        };
        let first = self.stacks.of_scope[scope as usize].start;
        self.cells = 0;
        for (bucket_ns, bucket) in std::mem::take(&mut self.buckets) {
            if bucket.overflowed {
                continue;
            }
            for (stack, (sum, profiles)) in (first..).zip(bucket.sums.iter().zip(&bucket.profiles)) {
                if *profiles > 0 {
                    if self.stack.len() == ROW_GROUP_ROWS_MAX {
                        self.end_row_group()?;
                    }
                    self.profile_type.push(profile_type as i32);
                    self.scope.push(scope as i32);
                    self.bucket_ns.push(bucket_ns);
                    self.stack.push(stack as i32);
                    self.sum.push(*sum);
                    self.profiles.push(*profiles);
                }
            }
        }
        Ok(())
    }

    fn end_row_group(&mut self) -> Result<()> {
        self.section.write(
            self.stack.len(),
            &[
                Values::U32(&self.profile_type),
                Values::U32(&self.scope),
                Values::I64(&self.bucket_ns),
                Values::U32(&self.stack),
                Values::I64(&self.sum),
                Values::U32(&self.profiles),
            ],
        )?;
        self.profile_type.clear();
        self.scope.clear();
        self.bucket_ns.clear();
        self.stack.clear();
        self.sum.clear();
        self.profiles.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Section> {
        self.end_scope()?;
        self.end_row_group()?;
        self.section.finish()
    }
}
