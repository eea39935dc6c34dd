//! Which part of a sum comes from rollups and which from samples. Pure.
//!
//! ```text
//!   range            [··························)
//!   buckets    |      |######|######|######|      |      of a scope all of whose series are asked for, or of a series
//!              samples ^      rollups       ^ samples
//! ```
//!
//! Wider buckets come first, then narrower ones in what is left. A bucket without a rollup (nothing was collected, or a sum
//! did not fit) is read from samples like an edge.

use std::collections::BTreeMap;
use std::ops::Range;

use cambium_model::time::{COARSE_BUCKET_NS, ROLLUP_BUCKET_NS, TimeRange};
use hashbrown::HashMap;

use crate::dataset::RollupKey;
use crate::series_table::{RowSet, SeriesTable};

/// How to sum: what of it rollups give is taken away step by step, and the rest is read.
#[derive(Debug)]
pub(crate) struct SumPlan {
    /// What is still to be read of scopes all of whose series are asked for.
    windows: BTreeMap<ScopeKey, Vec<TimeRange>>,
    rows: RowSet,
    range: TimeRange,
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

impl SumPlan {
    /// A plan of a sum over these rows and this range, without rollups.
    pub(crate) fn new(series: &SeriesTable, rows: &RowSet, range: TimeRange) -> Self {
        let all: Vec<TimeRange> =
            Some(range).filter(|range| range.start_ns < range.end_ns).into_iter().collect();
        let windows = whole_scopes(series, rows).into_iter().map(|scope| (scope, all.clone())).collect();
        Self { windows, rows: rows.clone(), range }
    }

    /// The rollups of wider buckets that are to be added.
    pub(crate) fn take_coarse<R>(&mut self, rollups: &BTreeMap<RollupKey, R>) -> Vec<RollupKey> {
        self.take(rollups, COARSE_BUCKET_NS)
    }

    /// The rollups that are to be added.
    pub(crate) fn take_fine<R>(&mut self, rollups: &BTreeMap<RollupKey, R>) -> Vec<RollupKey> {
        self.take(rollups, ROLLUP_BUCKET_NS)
    }

    fn take<R>(&mut self, rollups: &BTreeMap<RollupKey, R>, width_ns: i64) -> Vec<RollupKey> {
        let mut taken = Vec::new();
        for ((type_index, scope_index), windows) in &mut self.windows {
            let key = |bucket_ns| RollupKey { type_index: *type_index, scope_index: *scope_index, bucket_ns };
            let mut left = Vec::with_capacity(windows.len());
            for window in windows.iter() {
                let of_window = rollups.range(key(window.start_ns)..=key(window.end_ns));
                let first = taken.len();
                taken.extend(
                    of_window.map(|(key, _)| *key).filter(|key| is_whole(key.bucket_ns, width_ns, window)),
                );
                left.extend(around(*window, taken[first..].iter().map(|key| key.bucket_ns), width_ns));
            }
            *windows = left;
        }
        taken
    }

    /// Whether rollups of whole scopes may still help to read what was collected in this span.
    pub(crate) fn has_windows(&self, first_ns: i64, last_ns: i64) -> bool {
        self.windows.values().flatten().any(|window| window.touches(first_ns, last_ns))
    }

    /// What is left to be read.
    pub(crate) fn reads(&self, series: &SeriesTable) -> Vec<Read> {
        let runs = self.rows.iter().flat_map(|run| runs_of_one_scope(series, run.clone()));
        let reads = runs.map(|run| {
            let windows = self.windows.get(&scope_key(series, run.start));
            Read { windows: windows.cloned().unwrap_or_else(|| vec![self.range]), rows: run }
        });
        reads.filter(|read| !read.windows.is_empty()).collect()
    }
}

/// Whether the bucket lies whole inside the window.
pub(crate) fn is_whole(bucket_ns: i64, width_ns: i64, window: &TimeRange) -> bool {
    window.covers(bucket_ns, bucket_ns.saturating_add(width_ns - 1))
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

/// What of the range lies outside these buckets, which ascend.
pub(crate) fn around(
    range: TimeRange,
    buckets: impl IntoIterator<Item = i64>,
    width_ns: i64,
) -> Vec<TimeRange> {
    let mut outside = Vec::new();
    let mut start = range.start_ns;
    for bucket_ns in buckets {
        if start < bucket_ns {
            outside.push(TimeRange::new(start, bucket_ns));
        }
        start = bucket_ns.saturating_add(width_ns);
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
        let mut plan = SumPlan::new(&table, &rows, range);
        let taken = plan.take_fine(&keys.collect());
        assert_eq!(taken.iter().map(numbers).collect::<Vec<_>>(), rollups);
        let expected: Vec<Read> = reads
            .iter()
            .map(|(start, end, windows)| Read {
                rows: *start..*end,
                windows: windows.iter().map(|(start, end)| TimeRange::new(*start, *end)).collect(),
            })
            .collect();
        assert_eq!(plan.reads(&table), expected);
    }

    fn numbers(key: &RollupKey) -> (u32, u32, i64) {
        (key.type_index, key.scope_index, key.bucket_ns)
    }

    #[test]
    fn wider_buckets_come_first() {
        const C: i64 = COARSE_BUCKET_NS;
        let table = table(&[(0, 0), (0, 1)]);
        let keys = |buckets: &[i64]| -> BTreeMap<RollupKey, ()> {
            let key =
                |bucket_ns: &i64| (RollupKey { type_index: 0, scope_index: 0, bucket_ns: *bucket_ns }, ());
            buckets.iter().map(key).collect()
        };
        let mut plan = SumPlan::new(&table, &vec![0..2], TimeRange::new(C - W - 5, 4 * C));
        let taken = plan.take_coarse(&keys(&[0, C, 3 * C, 4 * C]));
        assert_eq!(taken.iter().map(numbers).collect::<Vec<_>>(), [(0, 0, C), (0, 0, 3 * C)]);
        assert!(plan.has_windows(C - 5, C - 5));
        assert!(!plan.windows[&(0, 0)].iter().any(|window| window.touches(C, 2 * C - 1)));
        let taken = plan.take_fine(&keys(&[C - 2 * W, C - W, C, 2 * C + W]));
        assert_eq!(taken.iter().map(numbers).collect::<Vec<_>>(), [(0, 0, C - W), (0, 0, 2 * C + W)]);
        let windows = |list: Windows<'_>| list.iter().map(|(a, b)| TimeRange::new(*a, *b)).collect();
        let left: Vec<TimeRange> = windows(&[(C - W - 5, C - W), (2 * C, 2 * C + W), (2 * C + 2 * W, 3 * C)]);
        assert_eq!(plan.windows[&(0, 0)], left);
        let all = windows(&[(C - W - 5, 4 * C)]);
        assert_eq!(
            plan.reads(&table),
            [Read { rows: 0..1, windows: left }, Read { rows: 1..2, windows: all }]
        );
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
