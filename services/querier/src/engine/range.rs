//! Values over time: from the profiles' totals alone, samples are never read.

use cambium_blocks::source::Profiles;
use cambium_model::profile::ProfileId;
use cambium_model::profile_type::ProfileType;
use cambium_model::time::{SECOND_NS, TimeRange};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use hashbrown::HashMap;

use super::fold_profiles;
use super::merge::Env;
use super::selection::{Counted, Groups, Selected, SeriesIds, positions, profile_id, select};
use super::sources::Sources;
use super::stages::Stage;
use crate::error::Error;
use crate::explain::Explain;
use crate::merged::{Matrix, MatrixSeries, Point, Stats, checked_add};
use crate::request::{Aggregation, POINTS_MAX, RangeQuery};

/// Bytes of one cell in a table of cells.
const CELL_BYTES: usize = 2 * 32;

/// The points of a query: `count` of them, `step_ns` apart, the first at `start_ns`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Steps {
    start_ns: i64,
    step_ns: i64,
    count: i64,
}

impl Steps {
    /// The points of a query. Errors: a step that is not positive, too many points.
    pub fn of(query: &RangeQuery) -> Result<Self, Error> {
        if query.step_ns <= 0 {
            return Err(Error::Step { step_ns: query.step_ns });
        }
        let span = i128::from(query.end_ns) - i128::from(query.start_ns);
        let count = if span < 0 { 0 } else { span / i128::from(query.step_ns) + 1 };
        if count > i128::from(POINTS_MAX) {
            let points = i64::try_from(count).unwrap_or(i64::MAX);
            return Err(Error::TooManyPoints { points, max: POINTS_MAX });
        }
        Ok(Self { start_ns: query.start_ns, step_ns: query.step_ns, count: count as i64 })
    }

    /// What the points cover: a point at `t` covers `(t - step, t]`.
    pub fn range(&self) -> TimeRange {
        let first_ns = self.start_ns.saturating_sub(self.step_ns).saturating_add(1);
        TimeRange::new(first_ns, self.time_ns(self.count - 1).saturating_add(1))
    }

    fn time_ns(&self, index: i64) -> i64 {
        self.start_ns.saturating_add(index.saturating_mul(self.step_ns))
    }

    /// The point that covers an instant of the range.
    fn index(&self, time_ns: i64) -> u32 {
        let since = i128::from(time_ns) - i128::from(self.start_ns);
        let index = -(-since).div_euclid(i128::from(self.step_ns));
        debug_assert!((0..i128::from(self.count)).contains(&index));
        index as u32
    }
}

/// Sums under way: what has been met of each step.
struct Sums {
    steps: Steps,
    profile_type: ProfileType,
    cells: Cells,
    /// By source, the group (for sums) or the number (else) of each selected series.
    owners: Vec<Vec<u32>>,
    reservation: MemoryReservation,
}

enum Cells {
    /// By group and step; `None` where there is no profile.
    Sum(Vec<Vec<Option<i64>>>),
    /// By series and step: the sum and how many.
    Avg(HashMap<(u32, u32), (i64, u32)>),
    /// By series and step: the newest profile's time, id and value.
    Last(HashMap<(u32, u32), ((i64, ProfileId), i64)>),
}

/// Values over time; the stats are left to the caller.
pub(crate) async fn range(
    env: &Env,
    sources: &Sources,
    query: &RangeQuery,
    steps: Steps,
) -> Result<Matrix, Error> {
    let selected = env.stages.time(Stage::Plan, select(sources, &query.query)).await?;
    let mut groups = Groups::new(&query.by);
    let group_of: Vec<Vec<u32>> = selected.iter().map(|one| groups.of(&one.series, &one.rows)).collect();
    let mut series = SeriesIds::default();
    let reservation = MemoryConsumer::new("time series").register(env.context.memory_pool());
    let (cells, owners) = match query.aggregation {
        Aggregation::Sum => {
            let cells = groups.len() * steps.count as usize;
            reservation.try_grow(cells * size_of::<Option<i64>>())?;
            (Cells::Sum(vec![vec![None; steps.count as usize]; groups.len()]), group_of.clone())
        }
        Aggregation::Avg | Aggregation::Last => {
            let owners = selected.iter().map(|one| series.of(&one.series, &one.rows)).collect();
            let is_avg = query.aggregation == Aggregation::Avg;
            (if is_avg { Cells::Avg(HashMap::new()) } else { Cells::Last(HashMap::new()) }, owners)
        }
    };
    let profile_type = query.query.profile_type.clone();
    let sums = Sums { steps, profile_type, cells, owners, reservation };
    let sums =
        fold_profiles(&selected, Counted::InRange(steps.range()), &env.stages, sums, Sums::add).await?;
    let mut group_of_series = vec![0; series.len()];
    if !matches!(sums.cells, Cells::Sum(_)) {
        for (owners, groups) in sums.owners.iter().zip(&group_of) {
            owners.iter().zip(groups).for_each(|(owner, group)| group_of_series[*owner as usize] = *group);
        }
    }
    let unit = if query.per_second { query.step_ns as f64 / SECOND_NS as f64 } else { 1.0 };
    let values = sums.cells.into_values(&group_of_series, groups.len(), steps.count as usize);
    let points = |values: Vec<Option<f64>>| -> Vec<Point> {
        let present = (0..).zip(values).filter_map(|(index, value)| Some((index, value?)));
        present.map(|(index, value)| Point { time_ns: steps.time_ns(index), value: value / unit }).collect()
    };
    let series = groups.sorted(values).into_iter();
    let series = series.map(|(labels, values)| MatrixSeries { labels, points: points(values) });
    let series = series.filter(|one| !one.points.is_empty()).collect();
    Ok(Matrix { series, stats: Stats::default(), plan: Explain::default() })
}

impl Sums {
    fn add(&mut self, index: usize, one: &Selected, profiles: &Profiles) -> Result<(), Error> {
        let positions = positions(&one.rows);
        let entries = self.cells.entries();
        for profile in 0..profiles.series.len() {
            let owner = self.owners[index][positions[profiles.series[profile] as usize] as usize];
            let (time_ns, total) = (profiles.time_ns[profile], profiles.total[profile]);
            let step = self.steps.index(time_ns);
            let add = |sum: i64| checked_add(sum, total, &self.profile_type);
            match &mut self.cells {
                Cells::Sum(groups) => {
                    let cell = &mut groups[owner as usize][step as usize];
                    *cell = Some(add(cell.unwrap_or(0))?);
                }
                Cells::Avg(cells) => {
                    let (sum, count) = cells.entry((owner, step)).or_default();
                    (*sum, *count) = (add(*sum)?, *count + 1);
                }
                Cells::Last(cells) => {
                    let found = (time_ns, profile_id(profiles, profile));
                    let (newest, value) = cells.entry((owner, step)).or_insert((found, total));
                    if *newest <= found {
                        (*newest, *value) = (found, total);
                    }
                }
            }
        }
        self.reservation.try_grow((self.cells.entries() - entries) * CELL_BYTES)?;
        Ok(())
    }
}

impl Cells {
    /// Entries of a table that grows.
    fn entries(&self) -> usize {
        match self {
            Self::Sum(_) => 0,
            Self::Avg(cells) => cells.len(),
            Self::Last(cells) => cells.len(),
        }
    }

    /// The value of each step of each group. Series are added in the order of their numbers, so that floats round
    /// alike whenever the sources are the same.
    fn into_values(self, group_of: &[u32], groups: usize, steps: usize) -> Vec<Vec<Option<f64>>> {
        let mut by_series: Vec<((u32, u32), f64)> = match self {
            Self::Sum(groups) => {
                let float = |cell: Option<i64>| cell.map(|sum| sum as f64);
                return groups.into_iter().map(|steps| steps.into_iter().map(float).collect()).collect();
            }
            Self::Avg(cells) => {
                let mean = |(key, (sum, count))| (key, sum as f64 / f64::from(count));
                cells.into_iter().map(mean).collect()
            }
            Self::Last(cells) => cells.into_iter().map(|(key, (_, value))| (key, value as f64)).collect(),
        };
        by_series.sort_unstable_by_key(|(key, _)| *key);
        let mut values = vec![vec![None; steps]; groups];
        for ((series, step), value) in by_series {
            let cell = &mut values[group_of[series as usize] as usize][step as usize];
            *cell = Some(cell.unwrap_or(0.0) + value);
        }
        values
    }
}

#[cfg(test)]
mod tests;
