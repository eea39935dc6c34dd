//! Which part of a sum comes from rollups and which from samples. Pure.
//!
//! ```text
//!   range            [··························)
//!   buckets    |      |######|######|######|      |      of a scope all of whose series are asked for
//!              samples ^      rollups       ^ samples
//! ```
//!
//! A bucket without a rollup (nothing was collected, or a sum did not fit) is read from samples like an edge.

use std::collections::BTreeMap;
use std::ops::Range;

use cambium_model::time::{ROLLUP_BUCKET_NS, TimeRange};
use hashbrown::HashMap;

use crate::dataset::RollupKey;
use crate::series_table::{RowSet, SeriesTable};

/// How to sum.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct SumPlan {
    /// Rollups to add, whole.
    pub(crate) rollups: Vec<RollupKey>,
    /// Samples to add.
    pub(crate) reads: Vec<Read>,
}

/// Samples of neighbouring series.
#[derive(Debug, PartialEq)]
pub(crate) struct Read {
    /// Rows of the series table.
    pub(crate) rows: Range<u32>,
    /// When their profiles were collected: ascending, not touching.
    pub(crate) windows: Vec<TimeRange>,
}

type ScopeKey = (u32, u32);

/// Plans a sum over these rows and this range, with these rollups at hand.
pub(crate) fn plan_sum<R>(
    series: &SeriesTable,
    rows: &RowSet,
    range: TimeRange,
    rollups: &BTreeMap<RollupKey, R>,
) -> SumPlan {
    let mut plan = SumPlan::default();
    let mut windows: HashMap<ScopeKey, Vec<TimeRange>> = HashMap::new();
    for (type_index, scope_index) in whole_scopes(series, rows) {
        let key = |bucket_ns| RollupKey { type_index, scope_index, bucket_ns };
        let of_scope = rollups.range(key(i64::MIN)..=key(i64::MAX)).map(|(key, _)| *key);
        let first = plan.rollups.len();
        plan.rollups.extend(of_scope.filter(|key| {
            let last_ns = key.bucket_ns.saturating_add(ROLLUP_BUCKET_NS - 1);
            range.covers(key.bucket_ns, last_ns)
        }));
        windows.insert((type_index, scope_index), around(range, &plan.rollups[first..]));
    }
    for run in rows.iter().flat_map(|run| runs_of_one_scope(series, run.clone())) {
        let windows = match windows.get(&scope_key(series, run.start)) {
            Some(windows) => windows.clone(),
            None => vec![range],
        };
        plan.reads.push(Read { rows: run, windows });
    }
    plan.reads.retain(|read| !read.windows.is_empty());
    plan
}

fn scope_key(series: &SeriesTable, row: u32) -> ScopeKey {
    (series.type_of[row as usize], series.scope_of[row as usize])
}

/// The (type, scope)s all of whose series are among the rows, in order.
fn whole_scopes(series: &SeriesTable, rows: &RowSet) -> Vec<ScopeKey> {
    let mut missing: HashMap<ScopeKey, usize> = HashMap::new();
    for run in rows.iter().flat_map(|run| runs_of_one_scope(series, run.clone())) {
        *missing.entry(scope_key(series, run.start)).or_default() += run.len();
    }
    for run in runs_of_one_scope(series, 0..series.len() as u32) {
        if let Some(count) = missing.get_mut(&scope_key(series, run.start)) {
            *count = count.wrapping_sub(run.len());
        }
    }
    let mut whole: Vec<ScopeKey> =
        missing.into_iter().filter(|(_, count)| *count == 0).map(|(key, _)| key).collect();
    whole.sort_unstable();
    whole
}

/// Cuts a run of rows where type or scope change.
fn runs_of_one_scope(series: &SeriesTable, rows: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let mut start = rows.start;
    std::iter::from_fn(move || {
        if start >= rows.end {
            return None;
        }
        let key = scope_key(series, start);
        let same = (start + 1..rows.end).take_while(|row| scope_key(series, *row) == key).count();
        let run = start..start + 1 + same as u32;
        start = run.end;
        Some(run)
    })
}

/// What of the range lies outside these buckets.
fn around(range: TimeRange, inner: &[RollupKey]) -> Vec<TimeRange> {
    let mut outside = Vec::new();
    let mut start = range.start_ns;
    for key in inner {
        if start < key.bucket_ns {
            outside.push(TimeRange::new(start, key.bucket_ns));
        }
        start = key.bucket_ns.saturating_add(ROLLUP_BUCKET_NS);
    }
    if start < range.end_ns {
        outside.push(TimeRange::new(start, range.end_ns));
    }
    outside
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "a row set may be one run")]
mod tests {
    use cambium_model::labels::Labels;

    use super::*;

    const W: i64 = ROLLUP_BUCKET_NS;

    /// Starts and ends.
    type Windows<'a> = &'a [(i64, i64)];

    fn table(keys: &[ScopeKey]) -> SeriesTable {
        let mut table = SeriesTable::default();
        for (type_index, scope_index) in keys {
            table.push(&Labels::empty(), 0, *type_index, *scope_index);
        }
        table
    }

    #[track_caller]
    fn check(
        rows: RowSet,
        range: (i64, i64),
        rollups: &[(u32, u32, i64)],
        reads: &[(u32, u32, Windows<'_>)],
    ) {
        let table = table(&[(0, 0), (0, 0), (0, 1), (1, 0), (0, 1)]);
        let range = TimeRange::new(range.0, range.1);
        let keys = [(0, 0), (0, 1), (1, 0)].into_iter().flat_map(|(type_index, scope_index)| {
            [0, W, 3 * W].map(|bucket_ns| (RollupKey { type_index, scope_index, bucket_ns }, ()))
        });
        let plan = plan_sum(&table, &rows, range, &keys.collect());
        let got: Vec<_> =
            plan.rollups.iter().map(|key| (key.type_index, key.scope_index, key.bucket_ns)).collect();
        assert_eq!(got, rollups);
        let expected: Vec<Read> = reads
            .iter()
            .map(|(start, end, windows)| Read {
                rows: *start..*end,
                windows: windows.iter().map(|(start, end)| TimeRange::new(*start, *end)).collect(),
            })
            .collect();
        assert_eq!(plan.reads, expected);
    }

    #[test]
    fn whole_scopes_use_rollups_inside_and_samples_at_the_edges() {
        check(vec![0..2], (5, 2 * W + 5), &[(0, 0, W)], &[(0, 2, &[(5, W), (2 * W, 2 * W + 5)])]);
        check(vec![0..2], (0, 2 * W), &[(0, 0, 0), (0, 0, W)], &[]);
        let all = [(0, 1, 0), (0, 1, W), (0, 1, 3 * W)];
        let outside: Windows<'_> = &[(-1, 0), (2 * W, 3 * W), (4 * W, 9 * W)];
        check(vec![2..3, 4..5], (-1, 9 * W), &all, &[(2, 3, outside), (4, 5, outside)]);
    }

    #[test]
    fn parts_of_scopes_are_read() {
        check(vec![1..2], (0, W), &[], &[(1, 2, &[(0, W)])]);
        check(vec![1..3], (0, W), &[], &[(1, 2, &[(0, W)]), (2, 3, &[(0, W)])]);
        check(vec![0..3], (0, W), &[(0, 0, 0)], &[(2, 3, &[(0, W)])]);
        check(vec![], (0, W), &[], &[]);
    }

    #[test]
    fn all_of_time_does_not_overflow() {
        let all = (i64::MIN, i64::MAX);
        let outside: Windows<'_> = &[(i64::MIN, 0), (2 * W, 3 * W), (4 * W, i64::MAX)];
        check(vec![0..2], all, &[(0, 0, 0), (0, 0, W), (0, 0, 3 * W)], &[(0, 2, outside)]);
    }
}
