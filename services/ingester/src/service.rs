//! The ingester as a role: holds logs, takes writes, flushes until told to stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use cambium_blocks::Dataset;
use cambium_blocks::cache::Cache;
use cambium_ingestlog::Logs;
use cambium_metastore::catalogue::Catalogue;
use cambium_model::block::{LogId, Offset, Partition as PartitionId};
use cambium_model::limits::Overrides;
use cambium_model::tenant::TenantNumber;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tasks::Tasks;
use hashbrown::{HashMap, HashSet};
use object_store::ObjectStore;
use tokio::sync::watch;

use crate::Config;
use crate::Error;
use crate::flush::Owned;
use crate::leftover;
use crate::metrics::IngesterMetrics;
use crate::open::{self, Opened};
use crate::partition::{Ack, Claimed, Partition, Pushed};
use crate::tenure::{self, Tenures};

/// How often gauges and old pushes are looked after, and active series published.
const TICK: Duration = Duration::from_secs(1);
/// Wait after a failed flush: doubled from the first to the second bound.
const FLUSH_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How long a sealed log can still be read from: a query's snapshot of the catalogue may be that old.
const READ_GRACE: Duration = Duration::from_secs(60);

/// What the ingester works with.
#[derive(Debug)]
pub struct Deps {
    /// Where its logs are.
    pub logs: Arc<dyn Logs>,
    /// Which partitions are its own.
    pub tenures: Tenures,
    /// This process: its name in the catalogue, which no other has.
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

/// What all logs of the process share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) deps: Deps,
    pub(crate) metrics: IngesterMetrics,
    pub(crate) tasks: Tasks,
    held: RwLock<BTreeMap<LogId, Arc<Owned>>>,
    /// New logs on their way to be held: nothing can be in them yet.
    beginning: Mutex<BTreeSet<LogId>>,
    stopping: AtomicBool,
    active_series: watch::Sender<Arc<HashMap<TenantNumber, u64>>>,
}

/// The role, before it runs.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
}

/// Writes to and reads from the running role. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// A tenant's heads.
#[derive(Debug, Default)]
pub struct Heads {
    /// The profiles of each log from where it was asked, one after the other.
    pub found: Vec<(LogId, Dataset)>,
    /// Logs that are not held here, or cannot be read yet.
    pub missing: Vec<LogId>,
}

impl Service {
    /// The role. Without other processes its logs are opened here: the pushes that recent blocks hold are read back, and
    /// what is not in blocks is replayed.
    pub async fn open(config: Config, deps: Deps) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            config,
            metrics: IngesterMetrics::new(&deps.metrics),
            deps,
            tasks: Tasks::new(),
            held: RwLock::default(),
            beginning: Mutex::default(),
            stopping: AtomicBool::new(false),
            active_series: watch::Sender::default(),
        });
        if let Tenures::Alone { partitions } = &shared.deps.tenures {
            for partition in 0..*partitions {
                let id = LogId { partition: PartitionId(partition), log: 0 };
                let opened = Opened::open(&shared, id).await?;
                let since_ns = open::retried_since(&shared);
                let owned = opened.replay(&shared, None, since_ns, HashSet::new()).await?;
                let (_, for_ever) = watch::channel(Duration::MAX);
                shared.hold(owned.accepting_until(for_ever));
            }
        }
        shared.publish();
        Ok(Self { shared })
    }

    /// For writes and reads.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// Holds partitions and flushes when due until `shutdown`, then hands everything over: all is flushed, logs are closed.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self { shared } = self;
        for log in shared.deps.logs.held().await.map_err(Error::Log)? {
            if shared.find(log).is_none() {
                leftover::spawn(&shared, log);
            }
        }
        if let Tenures::Leased(leased) = &shared.deps.tenures {
            for partition in 0..leased.partitions {
                shared.tasks.spawn("tenure", tenure::hold(Arc::clone(&shared), PartitionId(partition)));
            }
        }
        shared.tasks.spawn("ticker", tick(Arc::clone(&shared)));
        shutdown.await;
        shared.stopping.store(true, Ordering::Release);
        // Tenures end with a hand-over.
        shared.tasks.shut_down().await;
        for owned in shared.all() {
            owned.stop().await;
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
        // A log that every node can open is written to without us.
        if self.shared.deps.logs.are_shared() {
            return Err(Error::NotOwner(partition));
        }
        let owned = self.shared.accepting(partition)?;
        let writing = owned.tasks().spawn("write", {
            let owned = Arc::clone(&owned);
            async move { owned.partition.write(record).await }
        });
        let ack = writing.await.map_err(|_| Error::TaskEnded)??;
        self.shared.metrics.profiles_applied.inc_by(ack.applied as u64);
        self.shared.metrics.profiles_duplicate.inc_by(ack.duplicates as u64);
        Ok(ack)
    }

    /// A tenant's heads of these logs, each from where the catalogue snapshot says that its blocks end.
    ///
    /// # Errors
    /// [`Error::SnapshotTooOld`].
    pub fn heads(&self, tenant: TenantNumber, logs: &[(LogId, Offset)]) -> Result<Heads, Error> {
        let mut heads = Heads::default();
        for (log, from) in logs {
            // Asked before the log is looked for: it may be held in between.
            let is_beginning = self.shared.beginning().contains(log);
            match self.shared.find(*log) {
                Some(owned) => {
                    let of_log = owned.partition.heads(tenant, *from)?;
                    heads.found.extend(of_log.into_iter().map(|head| (*log, head)));
                }
                None if is_beginning => {}
                None => heads.missing.push(*log),
            }
        }
        Ok(heads)
    }

    /// As the owner of a log's partition: decides which of the pushes in that log, of an earlier tenure, count there. What
    /// is not counted here by now will not be.
    ///
    /// # Errors
    /// [`Error::NotOwner`], [`Error::NoOwner`] where too many are claimed already.
    pub fn claim(&self, log: LogId, pushes: &[Pushed]) -> Result<Claimed, Error> {
        self.shared.claim(log, pushes)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Flushes every log now; returns the number of blocks written.
    pub async fn flush(&self) -> Result<usize, Error> {
        let mut blocks = 0;
        for owned in self.shared.all() {
            let flushing = self.shared.tasks.spawn("flush", {
                let (shared, owned) = (Arc::clone(&self.shared), owned);
                async move { owned.flush(&shared).await }
            });
            blocks += flushing.await.map_err(|_| Error::TaskEnded)??;
        }
        Ok(blocks)
    }

    /// Series in heads by tenant, published every second: distributors enforce limits on it.
    pub fn active_series(&self) -> watch::Receiver<Arc<HashMap<TenantNumber, u64>>> {
        self.shared.active_series.subscribe()
    }

    /// The partitions that take writes here now.
    pub fn partitions(&self) -> Vec<PartitionId> {
        let now = self.shared.deps.clock.monotonic();
        let accepting = self.shared.all().into_iter().filter(|owned| owned.is_accepting(now));
        accepting.map(|owned| owned.log_id().partition).collect()
    }
}

impl Shared {
    pub(crate) fn admit(&self) -> Result<(), Error> {
        if self.stopping.load(Ordering::Acquire) && matches!(self.deps.tenures, Tenures::Alone { .. }) {
            return Err(Error::ShuttingDown);
        }
        let held = self.locked();
        let held = held.values().map(|owned| owned.partition.held());
        let held_bytes: usize = held.map(|held| held.active_bytes + held.frozen_bytes).sum();
        let budget_bytes = self.config.head_bytes_max.0;
        if held_bytes as u64 > budget_bytes {
            self.metrics.writes_refused.inc();
            return Err(Error::HeadFull { held_bytes: held_bytes as u64, budget_bytes });
        }
        Ok(())
    }

    /// The partition's log that takes writes.
    fn accepting(&self, partition: PartitionId) -> Result<Arc<Owned>, Error> {
        let now = self.deps.clock.monotonic();
        let held = self.locked();
        let of_partition = |log| LogId { partition, log };
        let mut logs = held.range(of_partition(0)..=of_partition(u32::MAX)).rev();
        let found = logs.find(|(_, owned)| owned.is_accepting(now));
        found.map(|(_, owned)| Arc::clone(owned)).ok_or(Error::NotOwner(partition))
    }

    pub(crate) fn claim(&self, log: LogId, pushes: &[Pushed]) -> Result<Claimed, Error> {
        let owned = self.accepting(log.partition)?;
        let taken = owned.partition.claim(log, pushes).ok_or(Error::NoOwner(log.partition))?;
        Ok(Claimed { tenure: owned.tenure.clone(), taken })
    }

    /// Makes a log readable, and flushes it when due.
    pub(crate) fn hold(self: &Arc<Self>, owned: Owned) -> Arc<Owned> {
        let owned = Arc::new(owned);
        self.held.write().unwrap_or_else(PoisonError::into_inner).insert(owned.log_id(), Arc::clone(&owned));
        self.beginning().remove(&owned.log_id());
        owned.tasks().spawn("flusher", flush_when_due(Arc::clone(self), Arc::clone(&owned)));
        owned
    }

    /// Lets readers with an older snapshot of the catalogue finish, then lets go of a sealed log.
    pub(crate) fn retire(self: &Arc<Self>, owned: &Arc<Owned>) {
        let owned = Arc::clone(owned);
        let (shared, stop) = (Arc::clone(self), self.tasks.shutdown_signal());
        self.tasks.spawn("retire", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = shared.deps.clock.sleep(READ_GRACE) => {}
            }
            let mut held = shared.held.write().unwrap_or_else(PoisonError::into_inner);
            // The same log may have been opened again.
            let id = owned.log_id();
            if held.get(&id).is_some_and(|now| Arc::ptr_eq(now, &owned)) {
                held.remove(&id);
            }
        });
    }

    /// Stops whatever is done with a log, and closes it.
    pub(crate) async fn put_down(&self, id: LogId) {
        self.beginning().remove(&id);
        let held = self.held.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(owned) = held {
            owned.stop().await;
            owned.partition.log().close().await;
        }
    }

    pub(crate) fn beginning(&self) -> MutexGuard<'_, BTreeSet<LogId>> {
        self.beginning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, log: LogId) -> Option<Arc<Owned>> {
        self.locked().get(&log).cloned()
    }

    fn all(&self) -> Vec<Arc<Owned>> {
        self.locked().values().cloned().collect()
    }

    fn locked(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<LogId, Arc<Owned>>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings gauges and active series up to date.
    fn publish(&self) {
        let mut by_tenant = HashMap::new();
        let (mut active, mut frozen, mut series, mut ids) = (0, 0, 0, 0);
        let all = self.all();
        for owned in &all {
            let held = owned.partition.held();
            active += held.active_bytes;
            frozen += held.frozen_bytes;
            ids += held.dedup_ids;
            for (tenant, count) in owned.partition.series_by_tenant() {
                series += count;
                *by_tenant.entry(tenant).or_insert(0) += count;
            }
        }
        self.metrics.logs_held.set(all.len() as i64);
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
            () = shared.deps.clock.sleep(TICK) => {}
        }
        for owned in shared.all() {
            owned.partition.forget_old_pushes();
        }
        shared.publish();
    }
}

/// Decides when a log is flushed, and retries.
async fn flush_when_due(shared: Arc<Shared>, owned: Arc<Owned>) {
    let stop = owned.tasks().shutdown_signal();
    let mut failures = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = due(&shared, &owned.partition, failures) => {}
        }
        failures = match owned.flush(&shared).await {
            Ok(_) => 0,
            Err(error) => {
                tracing::error!(log = %owned.log_id(), failures, %error, "flush failed");
                failures + 1
            }
        };
    }
}

/// Returns when a flush is due by size or age, or when a failed one may be tried again.
async fn due(shared: &Shared, partition: &Partition, failures: u32) {
    let clock = &shared.deps.clock;
    if failures > 0 {
        let doubled = FLUSH_BACKOFF.0 * 2_u32.pow(failures.min(10));
        clock.sleep(doubled.min(FLUSH_BACKOFF.1)).await;
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
        let age = clock.monotonic().saturating_sub(since);
        if age >= config.flush_interval.0 {
            return;
        }
        tokio::select! {
            () = partition.grown() => {}
            () = clock.sleep(config.flush_interval.0 - age) => {}
        }
    }
}
