//! One tenant's head: a [`Dataset`] and the indexes that let a profile be added to it in a few microseconds.
//!
//! ```text
//!   Profile ─► series rows (one per type) ─► stack nodes (one look-up per sample) ─► chunk ─► rollups
//! ```
//!
//! The dataset is what queries snapshot and the writer encodes; the indexes live and die with the generation.

use std::sync::Arc;

use cambium_blocks::Dataset;
use cambium_blocks::dataset::{CHUNK_SAMPLES, Chunk, ProfileRow, RollupKey};
use cambium_model::profile::{Profile, SampleLabels};
use cambium_model::tenant::Tenant;
use cambium_model::time::bucket_start;
use hashbrown::{HashMap, HashSet};

use series::SeriesIndex;
use stacktraces::StackIndex;

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
    bytes: usize,
}

/// Buffers of one `add`, kept to spare the allocations.
#[derive(Debug, Default)]
struct Scratch {
    rows: Vec<u32>,
    order: Vec<(u32, u32)>,
    sample_label_sets: Vec<u32>,
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
            bytes: 0,
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

    /// Estimate of the bytes held, indexes included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Series held: label sets × profile types.
    pub fn series_count(&self) -> usize {
        self.dataset.series.len()
    }

    /// Adds a profile. `scope_labels` are the tenant's.
    pub fn add(&mut self, profile: &Profile, scope_labels: &[String]) {
        let Self { dataset, series, stacks, label_sets, slots, overflowed, scratch, bytes } = self;
        let scope_name = profile.labels.scope(scope_labels);
        let series_table = Arc::make_mut(&mut dataset.series);
        let tree = Arc::make_mut(&mut dataset.tree);
        let scope = series.scope(series_table, scope_name, || tree.push_scope());
        if dataset.stacks.len() == scope.index as usize {
            dataset.stacks.push(Arc::default());
        }
        scratch.rows.clear();
        *bytes += series.rows(series_table, &profile.labels, &profile.types, scope.index, &mut scratch.rows);
        *bytes += stacks.resolve(tree, profile, scope);
        let tree_len = tree.len();
        *bytes +=
            intern_label_sets(label_sets, &mut dataset.label_sets, profile, &mut scratch.sample_label_sets);

        scratch.order.clear();
        let nodes = stacks.sample_nodes();
        scratch.order.extend(nodes.iter().copied().zip(0..));
        scratch.order.sort_unstable();

        *bytes += give_slots(slots, &mut dataset.stacks[scope.index as usize], tree_len, &scratch.order);

        let bucket_ns = bucket_start(profile.time_ns);
        for (position, &row) in scratch.rows.iter().enumerate() {
            let added = Added {
                profile,
                row,
                values: profile.column(position),
                order: &scratch.order,
                label_sets: &scratch.sample_label_sets,
            };
            *bytes += append(&mut dataset.chunks, &added);
            let type_index = dataset.series.type_of[row as usize];
            let key = RollupKey { type_index, scope_index: scope.index, bucket_ns };
            if !overflowed.contains(&key) {
                match roll_up(dataset, key, &added, slots) {
                    Some(grown) => *bytes += grown,
                    None => {
                        dataset.rollups.remove(&key);
                        overflowed.insert(key);
                    }
                }
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

/// Appends to the last chunk, or to a new one; returns the bytes added.
fn append(chunks: &mut Vec<Arc<Chunk>>, added: &Added<'_>) -> usize {
    if chunks.last().is_none_or(|chunk| chunk.stacks.len() >= CHUNK_SAMPLES) {
        chunks.push(Arc::default());
    }
    let last = chunks.last_mut().expect("one was just pushed where there was none");
    let chunk = Arc::make_mut(last);
    let first = chunk.stacks.len();
    let mut total: i64 = 0;
    let labelled = !added.label_sets.is_empty();
    if labelled {
        chunk.label_sets.resize(first, 0);
    }
    for &(node, sample) in added.order {
        let value = added.values[sample as usize];
        if value == 0 {
            continue;
        }
        chunk.stacks.push(node);
        chunk.values.push(value);
        if labelled {
            chunk.label_sets.push(added.label_sets[sample as usize]);
        }
        // The decoder has checked that a profile's values add up.
        total = total.wrapping_add(value);
    }
    if !labelled && !chunk.label_sets.is_empty() {
        chunk.label_sets.resize(chunk.stacks.len(), 0);
    }
    let samples = chunk.stacks.len() - first;
    chunk.profiles.push(ProfileRow {
        id: added.profile.id,
        series: added.row,
        first_sample: first as u32,
        samples: samples as u32,
        time_ns: added.profile.time_ns,
        duration_ns: added.profile.duration_ns,
        period: added.profile.period,
        total,
    });
    let per_sample = if chunk.label_sets.is_empty() { 12 } else { 16 };
    size_of::<ProfileRow>() + samples * per_sample
}

/// Numbers the stacks at which samples end, those of the scope by themselves: running sums are as long as their scope
/// has stacks, not as the tree has nodes. Returns the bytes added.
fn give_slots(slots: &mut Vec<u32>, stacks: &mut Arc<Vec<u32>>, nodes: usize, order: &[(u32, u32)]) -> usize {
    let before = (slots.len(), stacks.len());
    slots.resize(nodes, NO_SLOT);
    for &(node, _) in order {
        let slot = &mut slots[node as usize];
        if *slot == NO_SLOT {
            let stacks = Arc::make_mut(stacks);
            *slot = stacks.len() as u32;
            stacks.push(node);
        }
    }
    (slots.len() - before.0 + stacks.len() - before.1) * size_of::<u32>()
}

/// Adds the samples to the running sums of their type, scope and bucket; returns the bytes added, or `None` where a
/// sum leaves 64 bits.
fn roll_up(dataset: &mut Dataset, key: RollupKey, added: &Added<'_>, slots: &[u32]) -> Option<usize> {
    let sums = Arc::make_mut(dataset.rollups.entry(key).or_default());
    let before = sums.len();
    sums.resize(dataset.stacks[key.scope_index as usize].len(), 0);
    for &(node, sample) in added.order {
        let sum = &mut sums[slots[node as usize] as usize];
        *sum = sum.checked_add(added.values[sample as usize])?;
    }
    Some((sums.len() - before) * size_of::<i64>())
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
