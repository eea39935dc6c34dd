//! One tenant's head: a [`Dataset`] and the indexes that let a profile be added to it in a few microseconds.
//!
//! ```text
//!   Profile ─► series rows (one per type) ─► stack nodes (one look-up per sample) ─► chunk ─► rollups
//! ```
//!
//! The dataset is what queries snapshot and the writer encodes; the indexes live and die with the generation.

use std::sync::Arc;

use cambium_blocks::Dataset;
use cambium_blocks::dataset::{NewProfile, NewSamples, RollupKey};
use cambium_model::profile::{Profile, SampleLabels};
use cambium_model::stacktrace::{LocationId, Node, PathHash};
use cambium_model::tenant::Tenant;
use cambium_model::time::bucket_start;
use hashbrown::{HashMap, HashSet};

use series::SeriesIndex;
use stacktraces::StackIndex;

mod node_table;
mod series;
mod stacktraces;

/// A node at which no sample has ended yet.
const NO_SLOT: u32 = u32::MAX;

/// One tenant's mutable recent data.
#[derive(Debug)]
pub struct Head {
    dataset: Dataset,
    series: SeriesIndex,
    stacks: StackIndex,
    label_sets: HashMap<SampleLabels, u32>,
    /// Each node's position among the stacks of its scope, or `NO_SLOT`.
    slots: Vec<u32>,
    /// Running sums that have left 64 bits: they are not kept again.
    overflowed: HashSet<RollupKey>,
    scratch: Scratch,
    counted: Counted,
}

/// Bytes allocated for what would take long to walk through; the rest is asked when the head is.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    series: usize,
    label_sets: usize,
    /// All but the last.
    chunks: usize,
    /// The stacks of the scopes and the running sums.
    rollups: usize,
}

/// Buffers of one `add`, kept to spare the allocations.
#[derive(Debug, Default)]
struct Scratch {
    rows: Vec<u32>,
    order: Vec<(u32, u32)>,
    sample_label_sets: Vec<u32>,
    kept: Kept,
}

/// Samples of one type that are not 0.
#[derive(Debug, Default)]
struct Kept {
    stacks: Vec<u32>,
    values: Vec<i64>,
    label_sets: Vec<u32>,
}

impl Head {
    /// An empty head.
    pub fn new(tenant: Tenant) -> Self {
        Self {
            dataset: Dataset::new(tenant),
            series: SeriesIndex::default(),
            stacks: StackIndex::default(),
            label_sets: HashMap::new(),
            slots: Vec::new(),
            overflowed: HashSet::new(),
            scratch: Scratch::default(),
            counted: Counted::default(),
        }
    }

    /// The columns as they are now; later additions do not change the clone.
    pub fn snapshot(&self) -> Dataset {
        self.dataset.clone()
    }

    /// The columns, for good.
    pub fn into_dataset(self) -> Dataset {
        self.dataset
    }

    /// Estimate of the bytes allocated, indexes included: what vectors and tables reserve, not only what they hold.
    pub fn bytes(&self) -> usize {
        let Counted { series, label_sets, chunks, rollups } = self.counted;
        let tree = &self.dataset.tree;
        let tree_bytes = tree.nodes.capacity() * size_of::<Node>()
            + tree.paths.capacity() * size_of::<PathHash>()
            + tree.locations.capacity() * size_of::<LocationId>();
        let open_chunk = self.dataset.chunks.last().map_or(0, |chunk| chunk.heap_bytes());
        let indexes = self.stacks.heap_bytes() + self.slots.capacity() * size_of::<u32>();
        series + label_sets + chunks + rollups + tree_bytes + open_chunk + indexes
    }

    /// Series held: label sets × profile types.
    pub fn series_count(&self) -> usize {
        self.dataset.series.len()
    }

    /// Adds a profile. `scope_labels` are the tenant's.
    pub fn add(&mut self, profile: &Profile, scope_labels: &[String]) {
        let Self { dataset, series, stacks, label_sets, slots, overflowed, scratch, counted } = self;
        let scope_name = profile.labels.scope(scope_labels);
        let series_table = Arc::make_mut(&mut dataset.series);
        let tree = Arc::make_mut(&mut dataset.tree);
        let scope = series.scope(series_table, scope_name, || tree.push_scope());
        if dataset.stacks.len() == scope.index as usize {
            dataset.stacks.push(Arc::default());
        }
        scratch.rows.clear();
        if series.rows(series_table, &profile.labels, &profile.types, scope.index, &mut scratch.rows) {
            counted.series = series_table.heap_bytes() + series.heap_bytes();
        }
        stacks.resolve(tree, profile, scope);
        let tree_len = tree.len();
        counted.label_sets +=
            intern_label_sets(label_sets, &mut dataset.label_sets, profile, &mut scratch.sample_label_sets);

        scratch.order.clear();
        let nodes = stacks.sample_nodes();
        scratch.order.extend(nodes.iter().copied().zip(0..));
        scratch.order.sort_unstable();

        let scope_stacks = &mut dataset.stacks[scope.index as usize];
        let before = scope_stacks.capacity();
        give_slots(slots, scope_stacks, tree_len, &scratch.order);
        counted.rollups += scope_stacks.capacity() * size_of::<u32>();
        counted.rollups -= before * size_of::<u32>();

        let bucket_ns = bucket_start(profile.time_ns);
        for (position, &row) in scratch.rows.iter().enumerate() {
            let added = Added {
                profile,
                row,
                values: profile.column(position),
                order: &scratch.order,
                label_sets: &scratch.sample_label_sets,
            };
            counted.chunks += append(dataset, &added, &mut scratch.kept);
            let type_index = dataset.series.type_of[row as usize];
            let key = RollupKey { type_index, scope_index: scope.index, bucket_ns };
            if overflowed.contains(&key) {
                continue;
            }
            let sums = dataset.rollups.entry(key).or_default();
            counted.rollups -= sums.capacity() * size_of::<i64>();
            if roll_up(sums, dataset.stacks[scope.index as usize].len(), &added, slots) {
                counted.rollups += sums.capacity() * size_of::<i64>();
            } else {
                dataset.rollups.remove(&key);
                overflowed.insert(key);
            }
        }
    }
}

/// A profile's samples of one type, on their way into a chunk.
struct Added<'a> {
    profile: &'a Profile,
    row: u32,
    values: &'a [i64],
    /// (node in the head's tree, sample in the profile), sorted.
    order: &'a [(u32, u32)],
    /// Each sample's set in the dataset; empty where no sample has labels.
    label_sets: &'a [u32],
}

/// Appends to the dataset's chunks; returns the bytes of a chunk that this has filled.
fn append(dataset: &mut Dataset, added: &Added<'_>, kept: &mut Kept) -> usize {
    let Kept { stacks, values, label_sets } = kept;
    stacks.clear();
    values.clear();
    label_sets.clear();
    for &(node, sample) in added.order {
        let value = added.values[sample as usize];
        if value != 0 {
            stacks.push(node);
            values.push(value);
            label_sets.extend(added.label_sets.get(sample as usize));
        }
    }
    let chunks = dataset.chunks.len();
    dataset.append(
        NewProfile {
            id: added.profile.id,
            series: added.row,
            time_ns: added.profile.time_ns,
            duration_ns: added.profile.duration_ns,
            period: added.profile.period,
        },
        NewSamples { stacks, values, label_sets },
    );
    match chunks {
        0 => 0,
        before if before == dataset.chunks.len() => 0,
        before => dataset.chunks[before - 1].heap_bytes(),
    }
}

/// Numbers the stacks at which samples end, those of the scope by themselves: running sums are as long as their scope
/// has stacks, not as the tree has nodes.
fn give_slots(slots: &mut Vec<u32>, stacks: &mut Arc<Vec<u32>>, nodes: usize, order: &[(u32, u32)]) {
    slots.resize(nodes, NO_SLOT);
    for &(node, _) in order {
        let slot = &mut slots[node as usize];
        if *slot == NO_SLOT {
            let stacks = Arc::make_mut(stacks);
            *slot = stacks.len() as u32;
            stacks.push(node);
        }
    }
}

/// Adds the samples to the running sums of their type, scope and bucket, one for each of the scope's stacks; false
/// where a sum leaves 64 bits.
fn roll_up(sums: &mut Arc<Vec<i64>>, stacks: usize, added: &Added<'_>, slots: &[u32]) -> bool {
    let sums = Arc::make_mut(sums);
    sums.resize(stacks, 0);
    for &(node, sample) in added.order {
        let sum = &mut sums[slots[node as usize] as usize];
        match sum.checked_add(added.values[sample as usize]) {
            Some(more) => *sum = more,
            None => return false,
        }
    }
    true
}

/// Maps the profile's sample labels to the dataset's table; returns the bytes added.
fn intern_label_sets(
    index: &mut HashMap<SampleLabels, u32>,
    held: &mut Arc<Vec<SampleLabels>>,
    profile: &Profile,
    mapped: &mut Vec<u32>,
) -> usize {
    mapped.clear();
    if profile.sample_label_sets.is_empty() {
        return 0;
    }
    let mut bytes = 0;
    let mut positions = vec![0_u32; profile.label_sets.len()];
    for (position, set) in positions.iter_mut().zip(&profile.label_sets) {
        if set.is_empty() {
            continue;
        }
        *position = match index.get(set) {
            Some(&known) => known,
            None => {
                let sets = Arc::make_mut(held);
                sets.push(set.clone());
                bytes += 2 * set.len() * 48;
                let new = (sets.len() - 1) as u32;
                index.insert(set.clone(), new);
                new
            }
        };
    }
    mapped.extend(profile.sample_label_sets.iter().map(|&set| positions[set as usize]));
    bytes
}

#[cfg(test)]
mod tests;
