//! The sections `profiles`, `stacks`, `nodes`, `locations` and `label_sets`, decoded and checked: whatever comes out
//! here points only to what exists.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use cambium_model::profile::{ProfileId, SampleLabelValue, SampleLabels};
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use cambium_model::time::TimeRange;

use super::place::Place;
use super::table::Table;
use crate::Error;
use crate::cache::Weigh;
use crate::shape::Shape;
use crate::source::Profiles;
use crate::tree::{SCOPE_LOCATION, Tree};

/// All profiles of a dataset.
#[derive(Debug)]
pub(crate) struct ProfileTable {
    /// In block order: (series, time, id).
    pub(crate) columns: Profiles,
    /// The profiles of each series: from `starts[row]` to `starts[row + 1]`.
    starts: Vec<usize>,
    /// The samples of each profile: from `first_sample[p]` to `first_sample[p + 1]`.
    first_sample: Vec<u64>,
}

impl Weigh for ProfileTable {
    fn weight(&self) -> usize {
        self.columns.series.len() * (48 + 16) + self.starts.len() * 8
    }
}

impl ProfileTable {
    /// `samples` is how many there are, if there still are any.
    pub(crate) fn decode(
        place: &Place,
        bytes: Bytes,
        series: u64,
        samples: Option<u64>,
    ) -> Result<Self, Error> {
        let table = Table::open(place, bytes)?;
        let has_ids = table.has("profile_id");
        let columns = Profiles {
            series: table.u32("series")?,
            time_ns: table.i64("time_ns")?,
            duration_ns: table.i64("duration_ns")?,
            period: table.i64("period")?,
            total: table.i64("total")?,
            samples: table.u32("samples")?,
            ids: if has_ids {
                table.ids("profile_id")?.into_iter().map(ProfileId).collect()
            } else {
                Vec::new()
            },
        };
        if !columns.series.iter().zip(&columns.time_ns).is_sorted() {
            return Err(place.corrupt("is not sorted by series and time"));
        }
        if columns.series.last().is_some_and(|last| u64::from(*last) >= series) {
            return Err(place.corrupt("a profile is of no series"));
        }
        let mut first_sample = vec![0u64];
        let mut next = 0;
        for (count, stored) in columns.samples.iter().zip(table.i64("first_sample")?) {
            if u64::try_from(stored) != Ok(next) {
                return Err(place.corrupt("a profile's first sample does not follow the one before"));
            }
            next += u64::from(*count);
            first_sample.push(next);
        }
        if let Some(samples) = samples.filter(|samples| *samples != next) {
            return Err(place.corrupt(format_args!("profiles have {next} samples, not {samples}")));
        }
        let mut starts = Vec::with_capacity(series as usize + 1);
        for (profile, row) in columns.series.iter().enumerate() {
            starts.resize(*row as usize + 1, profile);
        }
        starts.resize(series as usize + 1, columns.series.len());
        Ok(Self { columns, starts, first_sample })
    }

    /// The earliest and the latest profile.
    pub(crate) fn time_bounds(&self) -> Option<(i64, i64)> {
        let times = &self.columns.time_ns;
        Some((*times.iter().min()?, *times.iter().max()?))
    }

    /// The profiles of a series inside a range.
    pub(crate) fn of_series(&self, row: u32, range: TimeRange) -> Range<usize> {
        let all = self.starts[row as usize]..self.starts[row as usize + 1];
        let times = &self.columns.time_ns[all.clone()];
        let start = all.start + times.partition_point(|time| *time < range.start_ns);
        let end = all.start + times.partition_point(|time| *time < range.end_ns);
        start..end.max(start)
    }

    /// The last profile of a series at exactly this time.
    pub(crate) fn at(&self, row: u32, time_ns: i64) -> Option<usize> {
        let all = self.starts[row as usize]..self.starts[row as usize + 1];
        let times = &self.columns.time_ns[all.clone()];
        let last = times.partition_point(|time| *time <= time_ns).checked_sub(1)?;
        (times[last] == time_ns).then_some(all.start + last)
    }

    /// The samples of a run of profiles, as rows of `samples`.
    pub(crate) fn samples(&self, profiles: &Range<usize>) -> Range<u64> {
        self.first_sample[profiles.start]..self.first_sample[profiles.end]
    }

    /// Copies runs of profiles.
    pub(crate) fn gather(&self, runs: &[Range<usize>]) -> Profiles {
        fn pick<T: Copy>(column: &[T], runs: &[Range<usize>]) -> Vec<T> {
            let mut picked = Vec::with_capacity(runs.iter().map(Range::len).sum());
            runs.iter().for_each(|run| picked.extend_from_slice(&column[run.clone()]));
            picked
        }
        let columns = &self.columns;
        Profiles {
            series: pick(&columns.series, runs),
            time_ns: pick(&columns.time_ns, runs),
            duration_ns: pick(&columns.duration_ns, runs),
            period: pick(&columns.period, runs),
            total: pick(&columns.total, runs),
            samples: pick(&columns.samples, runs),
            ids: if columns.ids.is_empty() { Vec::new() } else { pick(&columns.ids, runs) },
        }
    }
}

/// The stacks of a dataset: its tree, and where each stack ends in it.
#[derive(Debug)]
pub(crate) struct StackTable {
    pub(crate) tree: Arc<Tree>,
    pub(crate) node_of_stack: Vec<u32>,
}

impl Weigh for StackTable {
    fn weight(&self) -> usize {
        // Queries will ask for the tree's shapes.
        let node_bytes = 16 + 2 * Shape::NODE_BYTES;
        self.node_of_stack.len() * 4 + self.tree.len() * node_bytes + self.tree.locations.len() * 16
    }
}

/// The three sections that stacks are made of.
pub(crate) struct StackSections<T> {
    pub(crate) stacks: T,
    pub(crate) nodes: T,
    pub(crate) locations: T,
}

impl StackTable {
    pub(crate) fn decode(places: &StackSections<Place>, bytes: StackSections<Bytes>) -> Result<Self, Error> {
        let place = &places.locations;
        let locations = Table::open(place, bytes.locations)?.ids("id")?.into_iter().map(LocationId).collect();
        let place = &places.nodes;
        let table = Table::open(place, bytes.nodes)?;
        let tree = tree(place, &table.u32("parent_delta")?, &table.u32("location")?, locations)?;
        let place = &places.stacks;
        let node_of_stack = Table::open(place, bytes.stacks)?.u32("node")?;
        if node_of_stack.iter().any(|node| *node as usize >= tree.len()) {
            return Err(place.corrupt("a stack ends at no node"));
        }
        Ok(Self { tree: Arc::new(tree), node_of_stack })
    }
}

fn tree(
    place: &Place,
    parents: &[u32],
    node_locations: &[u32],
    locations: Vec<LocationId>,
) -> Result<Tree, Error> {
    let mut nodes = Vec::with_capacity(parents.len());
    for (index, (delta, location)) in parents.iter().zip(node_locations).enumerate() {
        if *delta == 0 {
            nodes.push(Node { parent: NO_PARENT, location: SCOPE_LOCATION });
            continue;
        }
        let parent = (index as u32).checked_sub(*delta);
        let parent =
            parent.ok_or_else(|| place.corrupt(format_args!("node {index} has no parent before it")))?;
        if *location as usize >= locations.len() {
            return Err(place.corrupt(format_args!("node {index} is at no location")));
        }
        nodes.push(Node { parent, location: *location });
    }
    Ok(Tree::new(nodes, locations))
}

impl Weigh for Arc<Vec<SampleLabels>> {
    fn weight(&self) -> usize {
        self.iter().map(|set| set.len() * 64 + 24).sum()
    }
}

/// Entry 0 is the empty set.
pub(crate) fn label_sets(place: &Place, bytes: Bytes) -> Result<Arc<Vec<SampleLabels>>, Error> {
    let table = Table::open(place, bytes)?;
    let set_of = table.u32("label_set")?;
    if !set_of.is_sorted()
        || set_of.windows(2).any(|pair| pair[1] - pair[0] > 1)
        || set_of.first().is_some_and(|first| *first != 1)
    {
        return Err(place.corrupt("label sets are not numbered from 1 on"));
    }
    let names = table.optional_text("name")?;
    let texts = table.optional_text("text")?;
    let numbers = table.optional_i64("number")?;
    let units = table.optional_text("unit")?;
    let mut sets = vec![SampleLabels::new()];
    for (row, set) in set_of.into_iter().enumerate() {
        let value = match (&texts[row], numbers[row], &units[row]) {
            (Some(text), None, None) => SampleLabelValue::Text(Arc::clone(text)),
            (None, Some(number), Some(unit)) => SampleLabelValue::Number(number, Arc::clone(unit)),
            _ => return Err(place.corrupt(format_args!("row {row} is neither text nor number"))),
        };
        let name = names[row].clone().ok_or_else(|| place.corrupt(format_args!("row {row} has no name")))?;
        if sets.len() == set as usize {
            sets.push(SampleLabels::new());
        }
        sets[set as usize].push((name, value));
    }
    Ok(Arc::new(sets))
}
