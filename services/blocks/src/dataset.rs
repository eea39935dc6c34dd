//! One tenant's columns in memory: what a head fills, a query scans and the writer encodes.
//!
//! Everything grows by appending and sits behind an `Arc`, so a clone is a consistent snapshot: later appends copy
//! only the pieces that a snapshot still holds (`Arc::make_mut`).

use std::collections::BTreeMap;
use std::sync::Arc;

use cambium_model::profile::SampleLabels;
use cambium_model::tenant::Tenant;

use crate::series_table::SeriesTable;
use crate::tree::Tree;

mod chunk;

mod values;

pub use chunk::{CHUNK_SAMPLES, Chunk, NewProfile, NewSamples, ProfileRow};
pub use values::ValuePlace;

/// A tenant's columns. Stacks are node positions in `tree`.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Whose they are.
    pub tenant: Tenant,
    /// Label sets × profile types, in order of arrival.
    pub series: Arc<SeriesTable>,
    /// The stack traces of all types.
    pub tree: Arc<Tree>,
    /// Labels of samples; entry 0 is the empty set.
    pub label_sets: Arc<Vec<SampleLabels>>,
    /// Profiles and samples in order of arrival.
    pub chunks: Vec<Arc<Chunk>>,
    /// For each scope of the series table its stacks: the nodes where samples end, in order of first use.
    pub stacks: Vec<Arc<Vec<u32>>>,
    /// Running sums, one for each stack that the key's scope had at the last addition. A key is complete or, once a sum
    /// has left 64 bits, absent for good: its samples are summed instead, and they say that they overflow.
    pub rollups: BTreeMap<RollupKey, Arc<Vec<i64>>>,
}

/// Which running sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RollupKey {
    /// Position in the series table's types.
    pub type_index: u32,
    /// Position in the series table's scopes.
    pub scope_index: u32,
    /// Start of the 10-minute bucket of profile time.
    pub bucket_ns: i64,
}

impl Dataset {
    /// No profiles yet.
    pub fn new(tenant: Tenant) -> Self {
        Self {
            tenant,
            series: Arc::default(),
            tree: Arc::default(),
            label_sets: Arc::new(vec![SampleLabels::new()]),
            chunks: Vec::new(),
            stacks: Vec::new(),
            rollups: BTreeMap::new(),
        }
    }

    /// Profiles × types held.
    pub fn profile_count(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.profiles.len()).sum()
    }

    /// Samples held.
    pub fn sample_count(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.stacks.len()).sum()
    }

    /// Appends a profile to the last chunk, or to a new one where that has no room; a chunk left behind gives back what
    /// it reserved.
    pub fn append(&mut self, profile: NewProfile, samples: NewSamples<'_>) {
        match self.chunks.last_mut() {
            Some(last) if last.has_room(samples.stacks.len()) => {
                Arc::make_mut(last).push(profile, samples);
            }
            last => {
                if let Some(full) = last {
                    Arc::make_mut(full).shrink();
                }
                let mut chunk = Chunk::default();
                chunk.push(profile, samples);
                self.chunks.push(Arc::new(chunk));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cambium_model::profile::ProfileId;

    use super::*;
    use crate::testing::tenant;

    #[test]
    fn a_chunk_is_left_when_the_next_profile_does_not_fit() {
        let mut dataset = Dataset::new(tenant(1));
        let mut append = |samples: usize| {
            let profile =
                NewProfile { id: ProfileId([0; 16]), series: 0, time_ns: 0, duration_ns: 0, period: 0 };
            let (stacks, values) = (vec![0; samples], vec![1; samples]);
            dataset.append(profile, NewSamples { stacks: &stacks, values: &values, label_sets: &[] });
        };
        [CHUNK_SAMPLES - 10, 10, 1, 3 * CHUNK_SAMPLES, 0, 2].into_iter().for_each(&mut append);
        let samples: Vec<usize> = dataset.chunks.iter().map(|chunk| chunk.stacks.len()).collect();
        assert_eq!(samples, [CHUNK_SAMPLES, 1, 3 * CHUNK_SAMPLES, 2]);
        let first = &dataset.chunks[0];
        assert_eq!(first.heap_bytes(), CHUNK_SAMPLES * (4 + 1) + 2 * size_of::<ProfileRow>());
        assert_eq!(dataset.sample_count(), samples.iter().sum::<usize>());
    }

    #[test]
    fn a_clone_does_not_see_what_comes_later() {
        let mut dataset = Dataset::new(tenant(1));
        let profile = NewProfile { id: ProfileId([0; 16]), series: 0, time_ns: 0, duration_ns: 0, period: 0 };
        let samples = |value| NewSamples { stacks: &[0], values: value, label_sets: &[] };
        dataset.append(profile, samples(&[1]));
        let before = dataset.clone();
        dataset.append(profile, samples(&[1 << 40]));
        assert_eq!(before.chunks[0].values(), [1]);
        assert_eq!(dataset.chunks[0].values(), [1, 1 << 40]);
    }
}
