//! The folded partial trees of immutable blocks, kept for the next query that wants the same of them: whole blocks, whose
//! sums no range cuts.

use std::sync::Arc;

use arrow::array::RecordBatch;
use cambium_blocks::series_table::RowSet;
use cambium_blocks::shape::FoldBy;
use cambium_runtime::metrics::{CacheRequests, Metrics};

/// What was asked of which block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TreeKey {
    /// The dataset.
    pub source: Arc<SourceKey>,
    /// Its series.
    pub rows: RowSet,
    /// Which nodes are one.
    pub fold_by: FoldBy,
    /// The group that the rows say.
    pub group: u32,
}

/// A dataset as some query sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey {
    /// The object.
    pub path: String,
    /// The dataset's place in it.
    pub index: usize,
    /// The deletions that it is seen through.
    pub deletions: Vec<u64>,
}

/// What an entry costs besides its rows.
const ENTRY_BYTES: usize = 512;

/// Partial trees within a budget. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct PartialTrees {
    cache: moka::sync::Cache<Arc<TreeKey>, RecordBatch>,
    requests: CacheRequests,
}

impl PartialTrees {
    /// At most so many bytes; registers its metrics.
    pub fn new(bytes_max: u64, metrics: &Metrics) -> Self {
        let weight = |key: &Arc<TreeKey>, rows: &RecordBatch| {
            let bytes = rows.get_array_memory_size() + key.rows.len() * 8 + ENTRY_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let cache = moka::sync::Cache::builder().max_capacity(bytes_max).weigher(weight).build();
        let held = cache.clone();
        let requests = metrics.cache("partial_trees", move || held.weighted_size());
        Self { cache, requests }
    }

    /// The rows, if they are held.
    pub fn get(&self, key: &Arc<TreeKey>) -> Option<RecordBatch> {
        self.requests.count(self.cache.get(key))
    }

    /// Holds rows.
    pub fn keep(&self, key: &Arc<TreeKey>, rows: &RecordBatch) {
        self.cache.insert(Arc::clone(key), rows.clone());
    }
}
