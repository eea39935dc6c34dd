//! The section `rollup`: sums by (type, scope, bucket, stack), gathered while profiles pass by in their order.

use std::collections::BTreeMap;

use cambium_model::block::SectionKind;
use parquet::errors::Result;

use super::Compression;
use super::section::{Column, ROW_GROUP_ROWS_MAX, Section, SectionWriter, Shape, Values, zstd};
use super::stacks::Stacks;

/// Sums of one type and scope at a time.
pub(super) struct Rollup<'a> {
    stacks: &'a Stacks,
    /// The type and scope at hand.
    current: Option<(u32, u32)>,
    buckets: BTreeMap<i64, Bucket>,
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
    /// A sum did not fit: the bucket gets no rollup, and queries read its samples.
    overflowed: bool,
}

impl<'a> Rollup<'a> {
    pub(super) fn new(stacks: &'a Stacks) -> Self {
        Self {
            stacks,
            current: None,
            buckets: BTreeMap::new(),
            profile_type: Vec::new(),
            scope: Vec::new(),
            bucket_ns: Vec::new(),
            stack: Vec::new(),
            sum: Vec::new(),
            profiles: Vec::new(),
        }
    }

    /// Adds a profile's samples: (stack and label set, value), equal stacks next to each other. Profiles of one type and
    /// scope must follow one another.
    pub(super) fn add(&mut self, profile_type: u32, scope: u32, bucket_ns: i64, rows: &[(u64, i64)]) {
        if self.current != Some((profile_type, scope)) {
            self.end_scope();
            self.current = Some((profile_type, scope));
        }
        if rows.is_empty() {
            return;
        }
        let stacks = &self.stacks.of_scope[scope as usize];
        let bucket = self.buckets.entry(bucket_ns).or_insert_with(|| Bucket {
            sums: vec![0; stacks.len()],
            profiles: vec![0; stacks.len()],
            overflowed: false,
        });
        let mut before = None;
        for (key, value) in rows {
            let cell = ((key >> 32) as u32 - stacks.start) as usize;
            let (sum, overflowed) = bucket.sums[cell].overflowing_add(*value);
            bucket.sums[cell] = sum;
            bucket.overflowed |= overflowed;
            bucket.profiles[cell] += i32::from(before != Some(cell));
            before = Some(cell);
        }
    }

    fn end_scope(&mut self) {
        let Some((profile_type, scope)) = self.current.take() else {
            return;
        };
        let first = self.stacks.of_scope[scope as usize].start;
        for (bucket_ns, bucket) in std::mem::take(&mut self.buckets) {
            if bucket.overflowed {
                continue;
            }
            for (stack, (sum, profiles)) in (first..).zip(bucket.sums.iter().zip(&bucket.profiles)) {
                if *profiles > 0 {
                    self.stack.push(stack as i32);
                    self.sum.push(*sum);
                    self.profiles.push(*profiles);
                }
            }
            self.profile_type.resize(self.stack.len(), profile_type as i32);
            self.scope.resize(self.stack.len(), scope as i32);
            self.bucket_ns.resize(self.stack.len(), bucket_ns);
        }
    }

    pub(super) fn encode(mut self, compression: Compression) -> Result<Section> {
        self.end_scope();
        let columns = [
            Column::new("profile_type", Shape::Dictionary32, zstd(1)),
            Column::new("scope", Shape::Dictionary32, zstd(1)),
            Column::new("bucket_ns", Shape::Dictionary64, zstd(1)),
            Column::new("stack", Shape::Delta32, compression.stacks()),
            Column::new("sum", Shape::Dictionary64, compression.values()),
            Column::new("profiles", Shape::Delta32, zstd(1)),
        ];
        let mut section = SectionWriter::new(SectionKind::Rollup, &columns)?;
        for start in (0..self.stack.len()).step_by(ROW_GROUP_ROWS_MAX) {
            let rows = start..self.stack.len().min(start + ROW_GROUP_ROWS_MAX);
            section.write(
                rows.len(),
                &[
                    Values::U32(&self.profile_type[rows.clone()]),
                    Values::U32(&self.scope[rows.clone()]),
                    Values::I64(&self.bucket_ns[rows.clone()]),
                    Values::U32(&self.stack[rows.clone()]),
                    Values::I64(&self.sum[rows.clone()]),
                    Values::U32(&self.profiles[rows.clone()]),
                ],
            )?;
        }
        section.finish()
    }
}
