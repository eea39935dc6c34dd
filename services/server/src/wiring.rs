//! Builds the roles of a process and connects them: the only place that holds all of them in one hand.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use cambium_blocks::cache::Cache;
use cambium_blocks::cache::disk::Disk;
use cambium_blocks::guarded::{Bounds, Guarded};
use cambium_blocks::local::DurableLocal;
use cambium_blocks::source::Source;
use cambium_distributor::sink::{Ack, Sink, SinkError};
use cambium_ingester::Tenures;
use cambium_ingestlog::local;
use cambium_ingestlog::local::disk::SystemDisk;
use cambium_ingestlog::logs::LocalLogs;
use cambium_metastore::catalogue::OpenLog;
use cambium_metastore::kv::KvStore;
use cambium_metastore::kv::redb::RedbStore;
use cambium_metastore::{Catalogue, Leases, Symbols, Tenants};
use cambium_model::block::{LogId, Offset, Partition};
use cambium_model::limits::Overrides;
use cambium_model::tenant::Tenant;
use cambium_querier::heads::{Found, HeadsError};
use cambium_querier::{Heads, Querier};
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tasks::Tasks;
use object_store::ObjectStore;
use tokio::sync::watch;

use crate::Config;
use crate::crash;
use crate::http;
use crate::self_profile::SelfProfiler;

/// How often the file of overrides is looked at.
const OVERRIDES_INTERVAL: Duration = Duration::from_secs(5);

/// A running process: stop it, or it runs until its shutdown endpoint is asked.
#[derive(Debug)]
pub struct Running {
    tasks: Tasks,
    stop: watch::Sender<bool>,
    address: SocketAddr,
    internal_address: SocketAddr,
    ingester: tokio::task::JoinHandle<Result<(), cambium_ingester::Error>>,
    cache: Arc<Cache>,
    _metastore: Arc<dyn KvStore>,
}

/// What every role is built from.
struct Shared {
    config: Config,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    limits: watch::Receiver<Arc<Overrides>>,
    store: Arc<dyn ObjectStore>,
    cache: Arc<Cache>,
    tenants: Arc<Tenants>,
    metastore: Arc<dyn KvStore>,
    catalogue: Arc<Catalogue>,
    symbols: Arc<Symbols>,
}

impl Running {
    /// Opens the data folder, replays the log, builds every role and listens.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let clock = crash::clock().map_err(anyhow::Error::msg)?;
        let tasks = Tasks::new();
        let (stop, stopped) = watch::channel(false);
        let limits = watch_overrides(&config, &clock, &tasks)?;
        let metastore = open_metastore(&config).await?;
        let metrics = Metrics::new();
        let folder = config.data_dir.join("blocks");
        let folder = Arc::new(DurableLocal::open(&folder).context("open the folder of blocks")?);
        // Whoever has the metadata store open is the only one that puts blocks here.
        let unfinished = folder.remove_unfinished().context("tidy the folder of blocks")?;
        if unfinished > 0 {
            tracing::info!(unfinished, "removed objects that a crash had interrupted");
        }
        let shared = Shared {
            clock: Arc::clone(&clock),
            store: Arc::new(Guarded::new(folder, Bounds::LOCAL, Arc::clone(&clock), &metrics)),
            limits,
            cache: Arc::new(open_cache(&config, &metrics).await),
            tenants: Arc::new(Tenants::new(Arc::clone(&metastore), Arc::clone(&clock))),
            catalogue: Arc::new(Catalogue::new(Arc::clone(&metastore))),
            symbols: Arc::new(open_symbols(&config, &metastore, &clock, &metrics)),
            metastore,
            metrics,
            config,
        };
        fix_partitions(&shared).await?;
        let ingester = ingester(&shared).await?;
        let ingester_handle = ingester.handle();
        let distributor_service = distributor(&shared, ingester_handle.clone())?;
        let distributor = distributor_service.handle();
        let querier = querier(&shared, ingester_handle.clone());
        let profiling = &shared.config.self_profiling;
        let self_profiler = SelfProfiler::new(profiling, Arc::clone(&clock), &shared.metrics);
        let doors = http::Doors {
            config: shared.config.clone(),
            clock: Arc::clone(&clock),
            metastore: Arc::clone(&shared.metastore),
            metrics: shared.metrics.clone(),
            limits: shared.limits.clone(),
            distributor: distributor.clone(),
            querier,
            ingester: ingester_handle,
            self_profiler: self_profiler.clone(),
            stop: stop.clone(),
        };
        let listeners = http::listen(doors, &tasks).await?;
        tasks.spawn("distributor", distributor_service.run(wait(stopped.clone())));
        tasks.spawn("compactor", compactor(&shared)?.run(wait(stopped.clone())));
        let ingester = tasks.spawn("ingester", ingester.run(wait(stopped)));
        if profiling.enabled {
            self_profiler.spawn(profiling, distributor, &tasks);
        }
        tracing::info!(address = %listeners.public, internal = %listeners.internal, "ready");
        Ok(Self {
            tasks,
            stop,
            address: listeners.public,
            internal_address: listeners.internal,
            ingester,
            cache: shared.cache,
            _metastore: shared.metastore,
        })
    }

    /// Where HTTP and gRPC are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the operate endpoints are always served.
    pub fn internal_address(&self) -> SocketAddr {
        self.internal_address
    }

    /// Returns when somebody has asked the process to stop.
    pub async fn stop_requested(&self) {
        wait(self.stop.subscribe()).await;
    }

    /// Stops in the order of the flow: no new requests, heads flushed, logs closed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let flushed = self.ingester.await.context("the ingester's task failed")?;
        self.tasks.shut_down().await;
        self.cache.close().await;
        flushed.context("flush at shutdown: what is not in a block is in the log and will be replayed")
    }
}

async fn wait(mut stopped: watch::Receiver<bool>) {
    // A closed channel means that the process is gone: stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn watch_overrides(
    config: &Config,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) -> anyhow::Result<watch::Receiver<Arc<Overrides>>> {
    let first = config.overrides().context("overrides")?;
    let (sender, receiver) = watch::channel(Arc::new(first));
    if config.overrides_file.as_os_str().is_empty() {
        // Kept open for as long as the process has tasks.
        tasks.spawn("overrides", {
            let shutdown = tasks.shutdown_signal();
            async move {
                shutdown.cancelled().await;
                drop(sender);
            }
        });
        return Ok(receiver);
    }
    let (config, clock, shutdown) = (config.clone(), Arc::clone(clock), tasks.shutdown_signal());
    tasks.spawn("overrides", async move {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = clock.sleep(OVERRIDES_INTERVAL) => {}
            }
            match config.overrides() {
                Ok(new) => {
                    sender.send_if_modified(|held| {
                        let changed = **held != new;
                        *held = Arc::new(new);
                        changed
                    });
                }
                // The last good ones stay in force.
                Err(error) => tracing::error!(%error, "overrides not reloaded"),
            }
        }
    });
    Ok(receiver)
}

pub(crate) async fn open_metastore(config: &Config) -> anyhow::Result<Arc<dyn KvStore>> {
    create_folder(&config.data_dir)?;
    let path = config.data_dir.join("metastore.redb");
    let cache_bytes = usize::try_from(config.metastore.cache_bytes.0).unwrap_or(usize::MAX);
    let opening = tokio::task::spawn_blocking(move || RedbStore::open(&path, cache_bytes));
    Ok(Arc::new(opening.await?.context("open the metastore")?))
}

pub(crate) fn open_symbols(
    config: &Config,
    metastore: &Arc<dyn KvStore>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Symbols {
    let settings = cambium_metastore::symbols::Config { cache_bytes: config.metastore.symbols_cache_bytes.0 };
    Symbols::new(Arc::clone(metastore), Arc::clone(clock), &settings, metrics)
}

async fn open_cache(config: &Config, metrics: &Metrics) -> Cache {
    let settings = &config.blocks;
    let cache = Cache::new(settings.cache_bytes.0, metrics);
    let default = config.data_dir.join("cache");
    let folder = Some(&settings.disk_cache_dir).filter(|folder| !folder.as_os_str().is_empty());
    match settings.disk_cache_bytes.0 {
        0 => cache,
        bytes => cache.with_disk(Disk::open(folder.unwrap_or(&default), bytes, metrics).await),
    }
}

fn create_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))
}

/// The number of partitions, which was fixed when the store was new.
async fn fix_partitions(shared: &Shared) -> anyhow::Result<()> {
    let configured = shared.config.partitions;
    let partitions = shared.catalogue.fix_partition_count(configured).await?;
    anyhow::ensure!(
        partitions == configured,
        "the data folder was created with {partitions} partitions, {configured} are configured: partitions cannot be changed"
    );
    Ok(())
}

async fn ingester(shared: &Shared) -> anyhow::Result<cambium_ingester::Service> {
    let folder = shared.config.data_dir.join("log");
    create_folder(&folder)?;
    let log = local::Deps { clock: Arc::clone(&shared.clock), disk: Arc::new(SystemDisk) };
    let deps = cambium_ingester::Deps {
        logs: Arc::new(LocalLogs::new(local::Config::new(&folder), log)),
        tenures: Tenures::Alone { partitions: shared.config.partitions },
        node: shared.config.listen.to_string(),
        catalogue: Arc::clone(&shared.catalogue),
        store: Arc::clone(&shared.store),
        cache: Arc::clone(&shared.cache),
        clock: Arc::clone(&shared.clock),
        limits: shared.limits.clone(),
        metrics: shared.metrics.clone(),
    };
    cambium_ingester::Service::open(shared.config.ingester.clone(), deps).await.context("replay the log")
}

fn distributor(
    shared: &Shared,
    ingester: cambium_ingester::Handle,
) -> anyhow::Result<cambium_distributor::Service> {
    let partitions =
        NonZeroU32::new(shared.config.partitions).context("partitions: 0 is not a number of partitions")?;
    let deps = cambium_distributor::Deps {
        tenants: Arc::clone(&shared.tenants),
        symbols: Arc::clone(&shared.symbols),
        partitions,
        active_series: ingester.active_series(),
        sink: Arc::new(LocalSink(ingester)),
        limits: shared.limits.clone(),
        clock: Arc::clone(&shared.clock),
        metrics: shared.metrics.clone(),
    };
    Ok(cambium_distributor::Service::new(shared.config.distributor.clone(), deps))
}

fn querier(shared: &Shared, ingester: cambium_ingester::Handle) -> Querier {
    let deps = cambium_querier::Deps {
        catalogue: Arc::clone(&shared.catalogue),
        tenants: Arc::clone(&shared.tenants),
        symbols: Arc::clone(&shared.symbols),
        store: Arc::clone(&shared.store),
        cache: Arc::clone(&shared.cache),
        heads: Arc::new(LocalHeads(ingester)),
        limits: shared.limits.clone(),
        clock: Arc::clone(&shared.clock),
        metrics: shared.metrics.clone(),
    };
    Querier::new(shared.config.querier.clone(), deps)
}

fn compactor(shared: &Shared) -> anyhow::Result<cambium_compactor::Service> {
    let scratch = shared.config.data_dir.join("scratch");
    create_folder(&scratch)?;
    let holder = shared.config.listen.to_string();
    let deps = cambium_compactor::Deps {
        catalogue: Arc::clone(&shared.catalogue),
        tenants: Arc::clone(&shared.tenants),
        leases: Leases::new(Arc::clone(&shared.metastore), Arc::clone(&shared.clock), holder),
        store: Arc::clone(&shared.store),
        scratch,
        limits: shared.limits.clone(),
        clock: Arc::clone(&shared.clock),
        metrics: shared.metrics.clone(),
    };
    Ok(cambium_compactor::Service::new(shared.config.compactor.clone(), deps))
}

/// The ingester of this very process as the distributor's sink.
#[derive(Debug)]
struct LocalSink(cambium_ingester::Handle);

#[async_trait]
impl Sink for LocalSink {
    async fn write(&self, partition: Partition, record: Bytes) -> Result<Ack, SinkError> {
        let ack = self.0.write(partition, record).await.map_err(|error| SinkError::new(partition, error))?;
        Ok(Ack { duplicate: ack.applied == 0 })
    }
}

/// The ingester of this very process as the querier's heads.
#[derive(Debug)]
struct LocalHeads(cambium_ingester::Handle);

#[async_trait]
impl Heads for LocalHeads {
    async fn heads(&self, tenant: &Tenant, logs: &[OpenLog]) -> Result<Found, HeadsError> {
        let from: Vec<(LogId, Offset)> = logs.iter().map(|open| (open.log, open.next)).collect();
        match self.0.heads(tenant.number, &from) {
            Ok(heads) => {
                let is_missing = |open: &&OpenLog| heads.missing.contains(&open.log);
                let missing = logs.iter().filter(is_missing).cloned().collect();
                let found = heads.found.into_iter().map(|(_, head)| Arc::new(head) as Arc<dyn Source>);
                Ok(Found { heads: found.collect(), missing })
            }
            Err(cambium_ingester::Error::SnapshotTooOld { log, offset }) => {
                Err(HeadsError::SnapshotTooOld { log, committed: offset })
            }
            Err(other) => Err(HeadsError::Unavailable(other.to_string())),
        }
    }
}
