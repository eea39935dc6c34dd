//! A workload in memory: as a head and as a block in an object store of this process.

use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::memory::InMemory;

use cambium_blocks::cache::Cache;
use cambium_blocks::writer::{self, Compression, EncodedBlock};
use cambium_blocks::{BlockSource, Dataset};
use cambium_ingester::head::Head;
use cambium_loadtest::w::{Shape, Workload};
use cambium_model::block::{BlockMeta, LogId, LogRange, Offset, Partition};
use cambium_model::limits::TenantLimits;
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_runtime::metrics::Metrics;

/// Time of the first round: in the middle of a rollup bucket, as heads begin anywhere.
pub const START_NS: i64 = 1_700_000_530_000_000_000;
/// The log of every block here.
pub const LOG: LogId = LogId { partition: Partition(0), log: 0 };
/// Memory for cached sections: nothing is ever pushed out.
const CACHE_BYTES: u64 = 1 << 30;

/// A workload, its head's columns and what else the parts need of it.
#[derive(Debug)]
pub struct Fleet {
    pub workload: Workload,
    pub dataset: Dataset,
}

/// A block where a querier finds it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub store: Arc<dyn ObjectStore>,
    pub cache: Arc<Cache>,
    pub meta: Arc<BlockMeta>,
}

/// The tenant of everything here.
pub fn tenant() -> Tenant {
    Tenant { id: TenantId::anonymous(), number: TenantNumber(1) }
}

/// Every profile of a workload, a round after the other, as pods send them.
pub fn pushes(workload: &Workload) -> impl Iterator<Item = (u64, u64)> {
    let (series, rounds) = (workload.series(), workload.rounds());
    (0..rounds).flat_map(move |round| (0..series).map(move |series| (series, round)))
}

impl Fleet {
    /// Makes the workload and fills a head with all of it.
    pub fn build(shape: Shape, folder: &Path) -> anyhow::Result<Self> {
        let workload = Workload::new(shape, folder)?;
        let scope_labels = TenantLimits::default().scope_labels;
        let mut head = Head::new(tenant());
        for (series, round) in pushes(&workload) {
            head.add(&workload.profile(series, round, START_NS), &scope_labels);
        }
        Ok(Self { workload, dataset: head.into_dataset() })
    }

    /// Samples of the whole stream.
    pub fn samples(&self) -> f64 {
        self.dataset.sample_count() as f64
    }

    /// The whole stream as one block.
    pub fn encode(&self, level: u8, compression: Compression) -> anyhow::Result<EncodedBlock> {
        let range =
            LogRange { log: LOG, first: Offset(0), next: Offset(self.dataset.profile_count() as u64) };
        Ok(writer::encode(std::slice::from_ref(&self.dataset), range, 1, level, compression)?)
    }

    /// The whole stream as a block of level 0 in an object store.
    pub async fn store(&self) -> anyhow::Result<Stored> {
        let block = self.encode(0, Compression::Hot)?;
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        writer::put(&*store, &block).await?;
        Ok(Stored {
            store,
            cache: Arc::new(Cache::new(CACHE_BYTES, &Metrics::new())),
            meta: Arc::new(block.meta),
        })
    }
}

impl Stored {
    /// The block's only dataset, with what this process has cached of it.
    pub fn source(&self) -> BlockSource {
        BlockSource::new(Arc::clone(&self.store), Arc::clone(&self.cache), Arc::clone(&self.meta), 0)
    }

    /// The same, with nothing cached.
    pub fn cold_source(&self) -> BlockSource {
        let cache = Arc::new(Cache::new(CACHE_BYTES, &Metrics::new()));
        BlockSource::new(Arc::clone(&self.store), cache, Arc::clone(&self.meta), 0)
    }
}
