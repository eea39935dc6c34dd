//! Blocks that live under a clock that is moved: flushed each minute, merged, removed, and asked for over the real endpoints.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use cambium_blocks::Dataset;
use cambium_blocks::cache::Cache;
use cambium_blocks::guarded::{Bounds, Guarded};
use cambium_blocks::writer::{Compression, encode, put};
use cambium_compactor as compactor;
use cambium_metastore::catalogue::{FlushCommit, OpenLog};
use cambium_metastore::kv::memory::MemoryStore;
use cambium_metastore::{Catalogue, KvStore, Leases, Symbols, Tenants, symbols};
use cambium_model::block::{LogRange, Offset};
use cambium_model::limits::{Overrides, TenantLimits};
use cambium_model::tenant::Tenant;
use cambium_model::time::{DAY_NS, SECOND_NS};
use cambium_querier::heads::{Found, HeadsError};
use cambium_querier::{Heads, Querier, api};
use cambium_runtime::clock::{Clock, MockClock, SystemClock};
use cambium_runtime::metrics::Metrics;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tokio::sync::watch;

use crate::fleet::LOG;

/// Midnight.
pub const START_NS: i64 = 20_000 * DAY_NS;
pub const MINUTE_NS: i64 = 60 * SECOND_NS;
/// Most objects put for each minute of a partition.
pub const PUTS_PER_MINUTE_MAX: f64 = 2.0;

/// One partition, its blocks in a folder, a compactor and a querier.
pub struct Life {
    pub clock: MockClock,
    pub tenants: Arc<Tenants>,
    pub symbols: Arc<Symbols>,
    pub router: Router,
    /// Minutes since the start.
    pub minute: i64,
    metrics: Metrics,
    store: Arc<dyn ObjectStore>,
    catalogue: Arc<Catalogue>,
    compactor: compactor::Service,
    epoch: u64,
    _limits: watch::Sender<Arc<Overrides>>,
    _folders: [tempfile::TempDir; 2],
}

/// Everything is in blocks.
struct NoHeads;

#[async_trait]
impl Heads for NoHeads {
    async fn heads(&self, _tenant: &Tenant, _logs: &[OpenLog]) -> Result<Found, HeadsError> {
        Ok(Found::default())
    }
}

impl Life {
    /// Nothing so far.
    pub async fn new() -> anyhow::Result<Self> {
        let clock = MockClock::at(START_NS);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let kv: Arc<dyn KvStore> = Arc::new(MemoryStore::new());
        let metrics = Metrics::new();
        let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
        let local = Arc::new(LocalFileSystem::new_with_prefix(folders[0].path())?);
        let guarded = Guarded::new(local, Bounds::LOCAL, Arc::new(SystemClock::new()), &metrics);
        let store: Arc<dyn ObjectStore> = Arc::new(guarded);
        let catalogue = Arc::new(Catalogue::new(Arc::clone(&kv)));
        let tenants = Arc::new(Tenants::new(Arc::clone(&kv), Arc::clone(&shared)));
        let settings = symbols::Config::default();
        let symbols = Arc::new(Symbols::new(Arc::clone(&kv), Arc::clone(&shared), &settings, &metrics));
        // The querier's clock is that of the wall.
        let defaults = TenantLimits { retention_secs: 0, ..TenantLimits::default() };
        let (sender, limits) = watch::channel(Arc::new(Overrides { defaults, ..Overrides::default() }));
        let compactor = compactor::Service::new(
            compactor::Config::default(),
            compactor::Deps {
                catalogue: Arc::clone(&catalogue),
                tenants: Arc::clone(&tenants),
                leases: Leases::new(kv, Arc::clone(&shared), "bench"),
                store: Arc::clone(&store),
                scratch: folders[1].path().to_owned(),
                limits: limits.clone(),
                clock: shared,
                metrics: metrics.clone(),
            },
        );
        let deps = cambium_querier::Deps {
            catalogue: Arc::clone(&catalogue),
            tenants: Arc::clone(&tenants),
            symbols: Arc::clone(&symbols),
            store: Arc::clone(&store),
            cache: Arc::new(Cache::new(cambium_server::Config::default().blocks.cache_bytes.0, &metrics)),
            heads: Arc::new(NoHeads),
            limits,
            clock: Arc::new(SystemClock::new()),
            metrics: metrics.clone(),
        };
        let epoch = catalogue.open_log(LOG, "bench").await?.epoch;
        Ok(Self {
            clock,
            tenants,
            symbols,
            router: api::router(Querier::new(cambium_querier::Config::default(), deps)),
            minute: 0,
            metrics,
            store,
            catalogue,
            compactor,
            epoch,
            _limits: sender,
            _folders: folders,
        })
    }

    /// When the minute begins.
    pub fn start_ns(&self) -> i64 {
        START_NS + self.minute * MINUTE_NS
    }

    /// Flushes what a minute has brought, lets it pass, and merges what is due then.
    pub async fn pass(&mut self, datasets: &[Dataset]) -> anyhow::Result<()> {
        let minute = self.minute as u64;
        let range = LogRange { log: LOG, first: Offset(minute), next: Offset(minute + 1) };
        let block = encode(datasets, range, self.epoch, 0, Compression::Hot)?;
        put(&*self.store, &block).await?;
        let commit = FlushCommit { range, epoch: self.epoch, block: Some(block.meta), tenure: None };
        self.catalogue.commit_flush(&commit).await?;
        self.clock.advance(Duration::from_secs(60));
        self.minute += 1;
        while self.compactor.work().await? > 0 {}
        Ok(())
    }

    /// Objects that are there.
    pub async fn objects(&self) -> anyhow::Result<usize> {
        Ok(self.store.list(None).try_collect::<Vec<_>>().await?.len())
    }

    /// Objects put so far.
    pub fn puts(&self) -> f64 {
        let name = "cambium_object_store_requests_total{operation=\"put\",outcome=\"success\"} ";
        let text = self.metrics.encode();
        text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0.0)
    }
}
