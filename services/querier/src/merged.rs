//! What the engine answers: numbers and identities, no names yet.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use cambium_metastore::catalogue::OpenLog;
use cambium_model::labels::Labels;
use cambium_model::profile::SampleLabels;
use cambium_model::profile_type::ProfileType;
use cambium_model::stacktrace::{LocationId, NO_PARENT, PathHash};
use serde::Serialize;

use crate::error::Error;
use crate::explain::Explain;

/// A merge: one tree per group.
#[derive(Clone, Debug)]
pub struct Merged {
    /// What the values measure.
    pub profile_type: ProfileType,
    /// Sorted by labels. Without `by` exactly one, whose labels are empty and whose tree is bare where nothing matched;
    /// with it only those with samples.
    pub groups: Vec<Group>,
    /// The profile that was chosen, where one was asked for and found.
    pub single: Option<SingleProfile>,
    /// What it cost.
    pub stats: Stats,
    /// What was read for it.
    pub plan: Explain,
}

/// A merge's part with one combination of `by` labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The `by` labels; absent ones are left out.
    pub labels: Labels,
    /// The sums.
    pub tree: MergedTree,
}

/// The profile closest to the time asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct SingleProfile {
    /// Its series' labels.
    pub labels: Labels,
    /// When it was collected.
    pub time_ns: i64,
    /// Over how long; 0 for an instant.
    pub duration_ns: i64,
    /// Units of the period type between two samples.
    pub period: i64,
}

/// Sums by stack trace: a tree as parallel columns, every node with a nonzero value at or below it. Node 0 is the
/// root, whose own value is that of samples without a stack; parents come before their children; siblings come in the
/// order of the first source that has them (renders order them by value, then by path).
#[derive(Clone, Debug, PartialEq)]
pub struct MergedTree {
    /// Position of each node's parent; [`NO_PARENT`] for the root.
    pub parents: Vec<u32>,
    /// Each node's place in code; [`ROOT_LOCATION`] for the root.
    pub locations: Vec<LocationId>,
    /// Each node's path from the root.
    pub paths: Vec<PathHash>,
    /// Each node's own value: of the samples that end there.
    pub self_values: Vec<i64>,
}

/// The location of a root node, which is no place in code.
pub const ROOT_LOCATION: LocationId = LocationId([0; 16]);

impl MergedTree {
    /// A root without a value.
    pub fn new() -> Self {
        Self {
            parents: vec![NO_PARENT],
            locations: vec![ROOT_LOCATION],
            paths: vec![PathHash::ROOT],
            self_values: vec![0],
        }
    }

    /// Adds a node and returns its position. The caller knows that the parent has no such child yet.
    pub fn push(&mut self, parent: u32, location: LocationId, path: PathHash, self_value: i64) -> u32 {
        debug_assert!((parent as usize) < self.len());
        self.parents.push(parent);
        self.locations.push(location);
        self.paths.push(path);
        self.self_values.push(self_value);
        (self.parents.len() - 1) as u32
    }

    /// How many nodes, the root included.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Sum of all values, or `None` where it does not fit 64 bits.
    pub fn total(&self) -> Option<i64> {
        i64::try_from(self.self_values.iter().map(|value| i128::from(*value)).sum::<i128>()).ok()
    }

    /// Each node's value with those of all nodes below it, or `None` where one does not fit 64 bits.
    pub fn cumulative(&self) -> Option<Vec<i64>> {
        let mut sums = self.self_values.clone();
        for node in (1..sums.len()).rev() {
            let parent = self.parents[node] as usize;
            sums[parent] = sums[parent].checked_add(sums[node])?;
        }
        Some(sums)
    }
}

impl Default for MergedTree {
    fn default() -> Self {
        Self::new()
    }
}

/// A merge that keeps the samples' labels, for downloads as pprof.
#[derive(Clone, Debug)]
pub struct MergedSamples {
    /// What the values measure.
    pub profile_type: ProfileType,
    /// Every stack; the values of all label sets together.
    pub tree: MergedTree,
    /// The values by label set, for nodes with a value; in no particular order, each (node, label set) once.
    pub samples: Vec<MergedSample>,
    /// What samples refer to; entry 0 is the empty set, each set once.
    pub label_sets: Vec<Arc<SampleLabels>>,
    /// When and how what was merged had been collected.
    pub collected: Collected,
    /// The profile that was chosen, where one was asked for and found.
    pub single: Option<SingleProfile>,
    /// What it cost.
    pub stats: Stats,
}

/// A stack's value under one label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergedSample {
    /// Node of the tree.
    pub node: u32,
    /// Position in `label_sets`.
    pub label_set: u32,
    /// Never 0.
    pub value: i64,
}

/// Head of a merged profile, by the rules of pprof's own merge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many profiles.
    pub profiles: u64,
    /// The earliest one's time; 0 where there is none.
    pub time_ns: i64,
    /// All durations together.
    pub duration_ns: i64,
    /// The largest period.
    pub period: i64,
}

/// Profile values over time.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// One per combination of `by` labels that has a point, sorted by labels.
    pub series: Vec<MatrixSeries>,
    /// What it cost.
    pub stats: Stats,
    /// What was read for it.
    pub plan: Explain,
}

/// The points of one combination of `by` labels.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSeries {
    /// The `by` labels; absent ones are left out.
    pub labels: Labels,
    /// Ascending by time; steps without a profile have no point.
    pub points: Vec<Point>,
}

/// A value at a time. Sums are exact until they become a float here, as Prometheus' answers are floats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// End of the step, inclusive.
    pub time_ns: i64,
    /// The value, in the sample unit (per second where a rate was asked for).
    pub value: f64,
}

/// What exists, sorted.
#[derive(Clone, Debug)]
pub struct Listing<T> {
    /// The entries, each once.
    pub entries: Vec<T>,
    /// Whether the limit cut any off.
    pub truncated: bool,
    /// What it cost.
    pub stats: Stats,
}

/// A label set with a profile type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesEntry {
    /// The type.
    pub profile_type: ProfileType,
    /// The labels.
    pub labels: Labels,
}

/// Rows of an SQL answer.
#[derive(Clone, Debug)]
pub struct SqlAnswer {
    /// Columns; also there when no row is.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// What it cost.
    pub stats: Stats,
}

/// What an answer cost. Serialised as the `stats` of every answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Blocks scanned.
    pub blocks: u64,
    /// Heads scanned.
    pub heads: u64,
    /// Requests to the object store.
    pub requests: u64,
    /// Bytes fetched from the object store.
    pub bytes: u64,
    /// Bytes of blocks that were needed, cached ones included.
    pub bytes_needed: u64,
    /// What times are rounded to in sums of stack traces, because samples were dropped; 0 where they are exact. Seconds.
    pub resolution_secs: u64,
    /// Rows read: samples, rollups and profiles.
    pub rows: u64,
    /// Logs whose recent profiles are not in the answer, because nobody could be asked for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<MissingLog>,
    /// Where the time went.
    pub milliseconds: Milliseconds,
}

/// A log whose profiles are not in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingLog {
    /// The log.
    pub log: String,
    /// The node that holds it.
    pub holder: String,
    /// The first record that is missing: earlier ones are in blocks.
    pub from_offset: u64,
}

impl From<&OpenLog> for MissingLog {
    fn from(open: &OpenLog) -> Self {
        Self { log: open.log.to_string(), holder: open.holder.clone(), from_offset: open.next.0 }
    }
}

/// Time by stage. Scan and merge are sums over parallel work and may pass the wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Milliseconds {
    /// Catalogue, heads and the choice of rows.
    pub plan: f64,
    /// Reading sources.
    pub scan: f64,
    /// Summing partial trees.
    pub merge: f64,
    /// Looking up names.
    pub resolve: f64,
    /// Making the answer's form.
    pub render: f64,
}

/// The sum of two values of this type, or the error that names it.
pub(crate) fn checked_add(a: i64, b: i64, profile_type: &ProfileType) -> Result<i64, Error> {
    a.checked_add(b).ok_or_else(|| Error::Overflow { profile_type: profile_type.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cumulative_values_include_everything_below() {
        let mut tree = MergedTree::new();
        let (a, b) = (LocationId::named(1, 1), LocationId::named(2, 2));
        let path = PathHash::ROOT.child(a);
        let outer = tree.push(0, a, path, 3);
        tree.push(outer, b, path.child(b), 4);
        tree.push(0, b, PathHash::ROOT.child(b), -2);
        assert_eq!(tree.cumulative().unwrap(), [5, 7, 4, -2]);
        assert_eq!(tree.total(), Some(5));
        tree.self_values[1] = i64::MAX;
        assert_eq!(tree.cumulative(), None);
    }
}
