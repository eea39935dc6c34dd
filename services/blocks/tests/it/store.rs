//! Blocks in a store, for tests.

use std::sync::Arc;

use cambium_blocks::cache::Cache;
use cambium_blocks::writer::{Compression, EncodedBlock, encode, put};
use cambium_blocks::{BlockSource, Dataset};
use cambium_model::block::{LogId, LogRange, Offset, Partition};
use cambium_runtime::metrics::Metrics;
use object_store::ObjectStore;
use object_store::memory::InMemory;

pub const EPOCH: u64 = 3;

pub fn log_range() -> LogRange {
    LogRange { log: LogId { partition: Partition(1), log: 2 }, first: Offset(10), next: Offset(20) }
}

pub fn block(datasets: &[Dataset], level: u8, compression: Compression) -> EncodedBlock {
    encode(datasets, log_range(), EPOCH, level, compression).unwrap()
}

/// A source for each dataset of the block, put into a store of its own.
pub async fn sources(block: &EncodedBlock) -> Vec<BlockSource> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    put(&*store, block).await.unwrap();
    sources_in(store, block)
}

/// A source for each dataset of a block that is in the store.
pub fn sources_in(store: Arc<dyn ObjectStore>, block: &EncodedBlock) -> Vec<BlockSource> {
    let cache = Arc::new(Cache::new(64 << 20, &Metrics::new()));
    let meta = Arc::new(block.meta.clone());
    let source = |index| BlockSource::new(Arc::clone(&store), Arc::clone(&cache), Arc::clone(&meta), index);
    (0..meta.datasets.len()).map(source).collect()
}

/// Runs a future to its end.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}
