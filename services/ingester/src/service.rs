//! The ingester as a role: opens its logs, replays them, takes writes, flushes until told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cambium_blocks::Dataset;
use cambium_blocks::Source;
use cambium_blocks::cache::Cache;
use cambium_blocks::reader::BlockSource;
use cambium_ingestlog::Log;
use cambium_ingestlog::log::Entry;
use cambium_metastore::catalogue::Catalogue;
use cambium_model::block::{BlockMeta, LogId, Offset, Partition as PartitionId};
use cambium_model::limits::Overrides;
use cambium_model::tenant::TenantNumber;
use cambium_model::time::TimeRange;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tasks::Tasks;
use hashbrown::HashMap;
use object_store::ObjectStore;
use tokio::sync::{mpsc, oneshot, watch};

use crate::Config;
use crate::Error;
use crate::dedup::Dedup;
use crate::flush::Owned;
use crate::metrics::IngesterMetrics;
use crate::partition::{Ack, Partition};

/// Bytes of records read at once during replay.
const REPLAY_BYTES: usize = 16 << 20;
/// Requests to flush that may wait.
const FLUSH_REQUESTS_WAITING_MAX: usize = 16;
/// How often gauges and old pushes are looked after, and active series published.
const TICK: Duration = Duration::from_secs(1);
/// Wait after a failed flush: doubled from the first to the second bound.
const FLUSH_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What the ingester works with.
#[derive(Debug)]
pub struct Deps {
    /// One per partition that this process owns.
    pub logs: Vec<Arc<dyn Log>>,
    /// This process, for people who look at the catalogue.
    pub node: String,
    /// Where blocks are committed.
    pub catalogue: Arc<Catalogue>,
    /// Where blocks are put.
    pub store: Arc<dyn ObjectStore>,
    /// Block sections, to read back the pushes of recent blocks at start.
    pub cache: Arc<Cache>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Tenants' limits, for scope labels and the acceptance window.
    pub limits: watch::Receiver<Arc<Overrides>>,
    /// The registry.
    pub metrics: Metrics,
}

/// What all partitions of the process share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: IngesterMetrics,
    partitions: Vec<Arc<Owned>>,
    stopping: AtomicBool,
    tasks: Tasks,
    active_series: watch::Sender<Arc<HashMap<TenantNumber, u64>>>,
}

/// The role, before it runs.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    requests: Vec<mpsc::Receiver<FlushRequest>>,
    handle: Handle,
}

/// Writes to and reads from the running role. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    flushers: Vec<mpsc::Sender<FlushRequest>>,
}

type FlushRequest = oneshot::Sender<Result<usize, Error>>;

impl Service {
    /// Opens the logs under a new epoch each, reads back the pushes that recent blocks hold and replays what is not in
    /// blocks.
    pub async fn open(config: Config, deps: Deps) -> Result<Self, Error> {
        let metrics = IngesterMetrics::new(&deps.metrics);
        let mut partitions = Vec::new();
        for log in &deps.logs {
            let owned = open_partition(&deps, &metrics, Arc::clone(log)).await?;
            partitions.push(Arc::new(owned));
        }
        let (flushers, requests) =
            partitions.iter().map(|_| mpsc::channel(FLUSH_REQUESTS_WAITING_MAX)).unzip();
        let shared = Arc::new(Shared {
            config,
            catalogue: deps.catalogue,
            store: deps.store,
            clock: deps.clock,
            metrics,
            partitions,
            stopping: AtomicBool::new(false),
            tasks: Tasks::new(),
            active_series: watch::Sender::default(),
        });
        shared.publish();
        let handle = Handle { shared: Arc::clone(&shared), flushers };
        Ok(Self { shared, requests, handle })
    }

    /// For writes and reads.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Flushes when due until `shutdown`, then refuses writes, flushes everything and closes the logs.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self { shared, requests, handle } = self;
        for (owned, requests) in shared.partitions.iter().zip(requests) {
            let flusher = Flusher { shared: Arc::clone(&shared), owned: Arc::clone(owned), requests };
            shared.tasks.spawn("flusher", flusher.run());
        }
        shared.tasks.spawn("ticker", tick(Arc::clone(&shared)));
        shutdown.await;
        shared.stopping.store(true, Ordering::Release);
        drop(handle);
        // Flushers end at the signal; writes under way run to their end.
        shared.tasks.shut_down().await;
        for owned in &shared.partitions {
            owned.flush(&shared).await?;
            owned.partition.log().close().await;
        }
        Ok(())
    }
}

impl Handle {
    /// Makes a record durable and applies it: see [`Partition::write`]. Runs to its end even if the caller goes away.
    pub async fn write(&self, partition: PartitionId, record: Bytes) -> Result<Ack, Error> {
        // First of all: is there room? An operator who sees this often raises `head_bytes_max` or lowers
        // `flush_bytes`; one who sees it for long looks at `flush_failures`.
        self.shared.admit()?;
        let owned = self.shared.owned(partition)?;
        let writing = self.shared.tasks.spawn("write", {
            let owned = Arc::clone(owned);
            async move { owned.partition.write(record).await }
        });
        let ack = writing.await.map_err(|_| Error::TaskEnded)??;
        self.shared.metrics.profiles_applied.inc_by(ack.applied as u64);
        self.shared.metrics.profiles_duplicate.inc_by(ack.duplicates as u64);
        Ok(ack)
    }

    /// A tenant's heads of every partition, each from where the catalogue snapshot says that its blocks end.
    pub fn heads(&self, tenant: TenantNumber, committed: &[(LogId, Offset)]) -> Result<Vec<Dataset>, Error> {
        let mut found = Vec::new();
        for owned in &self.shared.partitions {
            let log = owned.partition.log_id();
            let end = committed.iter().find(|(id, _)| *id == log).map_or(Offset(0), |(_, end)| *end);
            found.extend(owned.partition.heads(tenant, end)?);
        }
        Ok(found)
    }

    /// Flushes every partition now; returns the number of blocks written.
    pub async fn flush(&self) -> Result<usize, Error> {
        let mut answers = Vec::new();
        for flusher in &self.flushers {
            let (sender, receiver) = oneshot::channel();
            flusher.send(sender).await.map_err(|_| Error::ShuttingDown)?;
            answers.push(receiver);
        }
        let mut blocks = 0;
        for answer in answers {
            blocks += answer.await.map_err(|_| Error::ShuttingDown)??;
        }
        Ok(blocks)
    }

    /// Series in heads by tenant, published every second: distributors enforce limits on it.
    pub fn active_series(&self) -> watch::Receiver<Arc<HashMap<TenantNumber, u64>>> {
        self.shared.active_series.subscribe()
    }

    /// The partitions that this process owns.
    pub fn partitions(&self) -> Vec<PartitionId> {
        self.shared.partitions.iter().map(|owned| owned.partition.log_id().partition).collect()
    }
}

impl Shared {
    fn admit(&self) -> Result<(), Error> {
        if self.stopping.load(Ordering::Acquire) {
            return Err(Error::ShuttingDown);
        }
        let held = self.partitions.iter().map(|owned| owned.partition.held());
        let held_bytes: usize = held.map(|held| held.active_bytes + held.frozen_bytes).sum();
        let budget_bytes = self.config.head_bytes_max.0;
        if held_bytes as u64 > budget_bytes {
            self.metrics.writes_refused.inc();
            return Err(Error::HeadFull { held_bytes: held_bytes as u64, budget_bytes });
        }
        Ok(())
    }

    fn owned(&self, partition: PartitionId) -> Result<&Arc<Owned>, Error> {
        let mut all = self.partitions.iter();
        all.find(|owned| owned.partition.log_id().partition == partition).ok_or(Error::NotOwner(partition))
    }

    /// Brings gauges and active series up to date.
    fn publish(&self) {
        let mut by_tenant = HashMap::new();
        let (mut active, mut frozen, mut series, mut ids) = (0, 0, 0, 0);
        for owned in &self.partitions {
            let held = owned.partition.held();
            active += held.active_bytes;
            frozen += held.frozen_bytes;
            ids += held.dedup_ids;
            for (tenant, count) in owned.partition.series_by_tenant() {
                series += count;
                *by_tenant.entry(tenant).or_insert(0) += count;
            }
        }
        self.metrics.head_bytes.set(active as i64);
        self.metrics.frozen_bytes.set(frozen as i64);
        self.metrics.head_series.set(series as i64);
        self.metrics.dedup_ids.set(ids as i64);
        self.active_series.send_replace(Arc::new(by_tenant));
    }
}

/// Looks after what only time changes.
async fn tick(shared: Arc<Shared>) {
    let shutdown = shared.tasks.shutdown_signal();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = shared.clock.sleep(TICK) => {}
        }
        for owned in &shared.partitions {
            owned.partition.forget_old_pushes();
        }
        shared.publish();
    }
}

/// Decides when a partition is flushed, and retries.
struct Flusher {
    shared: Arc<Shared>,
    owned: Arc<Owned>,
    requests: mpsc::Receiver<FlushRequest>,
}

impl Flusher {
    async fn run(self) {
        let Self { shared, owned, mut requests } = self;
        let shutdown = shared.tasks.shutdown_signal();
        let mut failures = 0;
        loop {
            let request = tokio::select! {
                () = shutdown.cancelled() => return,
                request = requests.recv() => request,
                () = due(&shared, &owned.partition, failures) => None,
            };
            let result = owned.flush(&shared).await;
            failures = match &result {
                Ok(_) => 0,
                Err(error) => {
                    tracing::error!(log = %owned.partition.log_id(), failures, %error, "flush failed");
                    failures + 1
                }
            };
            if let Some(request) = request {
                // The asker may have gone away.
                let _ = request.send(result);
            }
        }
    }
}

/// Returns when a flush is due by size or age, or when a failed one may be tried again.
async fn due(shared: &Shared, partition: &Partition, failures: u32) {
    if failures > 0 {
        let doubled = FLUSH_BACKOFF.0 * 2_u32.pow(failures.min(10));
        shared.clock.sleep(doubled.min(FLUSH_BACKOFF.1)).await;
        return;
    }
    let config = &shared.config;
    loop {
        let held = partition.held();
        if held.active_bytes as u64 >= config.flush_bytes.0 {
            return;
        }
        let Some(since) = held.active_since else {
            partition.grown().await;
            continue;
        };
        let age = shared.clock.monotonic().saturating_sub(since);
        if age >= config.flush_interval.0 {
            return;
        }
        tokio::select! {
            () = partition.grown() => {}
            () = shared.clock.sleep(config.flush_interval.0 - age) => {}
        }
    }
}

async fn open_partition(deps: &Deps, metrics: &IngesterMetrics, log: Arc<dyn Log>) -> Result<Owned, Error> {
    let id = log.id();
    let state = deps.catalogue.open_log(id, &deps.node).await?;
    let committed = state.committed_next;
    if log.first() > committed {
        return Err(Error::LogBehind { log: id, first: log.first(), committed });
    }
    let dedup = recent_pushes(deps, id).await?;
    let pushes = dedup.len();
    let partition =
        Partition::new(Arc::clone(&log), Arc::clone(&deps.clock), deps.limits.clone(), committed, dedup);
    partition.forget_old_pushes();
    let mut from = committed;
    while from < log.next() {
        for entry in log.read(from, REPLAY_BYTES).await.map_err(Error::Log)? {
            match entry {
                Entry::Record { offset, payload } => {
                    partition.replay(offset, &payload)?;
                    metrics.replayed_records.inc();
                    from = Offset(offset.0 + 1);
                }
                Entry::Gap { first, next } => {
                    let lost = next.0 - first.0.max(from.0);
                    tracing::error!(log = %id, first = first.0, next = next.0, lost, "records of the log are lost");
                    metrics.log_records_lost.inc_by(lost);
                    partition.skip(next);
                    from = next;
                }
            }
        }
    }
    tracing::info!(log = %id, epoch = state.epoch, committed = committed.0, next = from.0, pushes, "log opened");
    Ok(Owned::new(partition, state.epoch))
}

/// The pushes that blocks of this log hold and that a client may still retry.
async fn recent_pushes(deps: &Deps, log: LogId) -> Result<Dedup, Error> {
    let mut dedup = Dedup::default();
    let since_ns = crate::partition::window_start(&deps.limits.borrow(), deps.clock.now_ns());
    for block in deps.catalogue.blocks_since(log, since_ns).await? {
        for (index, dataset) in block.datasets.iter().enumerate() {
            let source = source(deps, &block, index);
            let rows = vec![0..u32::try_from(dataset.series).unwrap_or(u32::MAX)];
            let profiles = source.profiles(&rows, TimeRange::ALL).await?;
            for (id, time_ns) in profiles.ids.iter().zip(&profiles.time_ns) {
                dedup.insert((dataset.tenant.number, *id), *time_ns);
            }
        }
    }
    Ok(dedup)
}

fn source(deps: &Deps, block: &Arc<BlockMeta>, index: usize) -> BlockSource {
    BlockSource::new(Arc::clone(&deps.store), Arc::clone(&deps.cache), Arc::clone(block), index)
}
