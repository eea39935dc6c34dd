//! The check of a dataset that has sums by series and bucket instead of samples.

use std::collections::BTreeMap;
use std::ops::Range;

use cambium_model::time::bucket_start;

use super::{DatasetCheck, Sums};
use crate::Error;

impl DatasetCheck {
    /// Compares the sums of some series' buckets with the totals of their profiles and adds them to those of the scope. All
    /// profiles of the series must be among these. Returns how many buckets there were.
    pub(super) fn check_sums(
        &self,
        profiles: Range<usize>,
        buckets: &mut BTreeMap<i64, Sums>,
    ) -> Result<usize, Error> {
        let Some((open, held)) = &self.series_rollup else { return Ok(0) };
        let columns = &self.profiles.columns;
        let mut totals: BTreeMap<(u32, i64), i64> = BTreeMap::new();
        for profile in profiles {
            let key = (columns.series[profile], bucket_start(columns.time_ns[profile]));
            let total = totals.entry(key).or_default();
            *total = total.wrapping_add(columns.total[profile]);
        }
        let mut seen = 0;
        for ((row, bucket_ns), total) in totals {
            let mut sum = 0_i64;
            for bucket in held.of_series(row).filter(|bucket| held.bucket_ns[*bucket] == bucket_ns) {
                let rows = held.rows(&(bucket..bucket + 1));
                let (stacks, values) = (open.u32("stack", &rows)?, open.i64("sum", &rows)?);
                self.check_keys((row, bucket_ns), &rows)?;
                let sorted = if bucket % 2 == 0 {
                    stacks.is_sorted_by(|a, b| a < b)
                } else {
                    stacks.is_sorted_by(|a, b| a > b)
                };
                if !sorted || stacks.iter().any(|stack| *stack as usize >= self.stacks.node_of_stack.len()) {
                    return Err(open.pages.place.corrupt("stacks are not sorted or do not exist"));
                }
                sum = values.iter().fold(sum, |sum, value| sum.wrapping_add(*value));
                let of_scope = buckets.entry(bucket_ns).or_default();
                for (stack, value) in stacks.into_iter().zip(values) {
                    of_scope.entry(stack).or_default().0 += i128::from(value);
                }
                seen += 1;
            }
            if sum != total {
                let what = format_args!("sums of series {row} at {bucket_ns} are not its profiles' totals");
                return Err(open.pages.place.corrupt(what));
            }
        }
        Ok(seen)
    }

    /// Checks that rows of sums are of the series and bucket that they are listed under.
    pub(super) fn check_keys(&self, (row, bucket_ns): (u32, i64), rows: &Range<u64>) -> Result<(), Error> {
        let Some((open, _)) = &self.series_rollup else { return Ok(()) };
        if open.u32("series", rows)?.iter().any(|series| *series != row)
            || open.i64("bucket_ns", rows)?.iter().any(|held| *held != bucket_ns)
        {
            let what = "rows are of another series or bucket than series_buckets says";
            return Err(open.pages.place.corrupt(what));
        }
        Ok(())
    }
}
