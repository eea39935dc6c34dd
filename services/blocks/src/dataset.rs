//! One tenant's columns in memory: what a head fills, a query scans and the writer encodes.
//!
//! Everything grows by appending and sits behind an `Arc`, so a clone is a consistent snapshot: later appends copy
//! only the pieces that a snapshot still holds (`Arc::make_mut`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use cambium_model::profile::{ProfileId, SampleLabels};
use cambium_model::tenant::Tenant;

use crate::series_table::SeriesTable;
use crate::tree::Tree;

/// Samples after which a chunk is sealed and the next one begun.
pub const CHUNK_SAMPLES: usize = 64 << 10;

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

/// A run of profiles with their samples.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The profiles; each one's samples lie in the same chunk.
    pub profiles: Vec<ProfileRow>,
    /// Each sample's node in the tree; sorted within a profile, each stack × label set once.
    pub stacks: Vec<u32>,
    /// Each sample's value; never 0.
    pub values: Vec<i64>,
    /// Each sample's position in the dataset's label sets; empty while no sample of the chunk has labels.
    pub label_sets: Vec<u32>,
}

/// One profile of one type of one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileRow {
    /// The push it came with.
    pub id: ProfileId,
    /// Row in the series table.
    pub series: u32,
    /// First of its samples in the chunk.
    pub first_sample: u32,
    /// How many samples.
    pub samples: u32,
    /// When, nanoseconds since the epoch.
    pub time_ns: i64,
    /// Over how long; 0 for an instant.
    pub duration_ns: i64,
    /// Units of the period type between two samples.
    pub period: i64,
    /// Sum of its samples' values.
    pub total: i64,
}

impl ProfileRow {
    /// Where its samples lie in its chunk.
    pub fn sample_range(&self) -> Range<usize> {
        let first = self.first_sample as usize;
        first..first + self.samples as usize
    }
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
}
