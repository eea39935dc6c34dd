//! Builds the roles of a process and connects them: the only place that holds all of them in one hand.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cambium_blocks::cache::Cache;
use cambium_cluster::node::{NodeState, Role};
use cambium_distributor::sink::Sink;
use cambium_distributor::sink::owners::OwnersKnown;
use cambium_distributor::sink::ring::{self, RingSink};
use cambium_ingester::claims::PeerClaims;
use cambium_ingester::{Leased, Tenures};
use cambium_ingestlog::Logs;
use cambium_metastore::kv::KvStore;
use cambium_metastore::{Catalogue, Leases, Owners, Symbols, Tenants};
use cambium_model::limits::Overrides;
use cambium_querier::heads::remote::{self, RemoteHeads};
use cambium_querier::{Heads, Querier};
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tasks::Tasks;
use object_store::ObjectStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Config;
use crate::cluster::Place;
use crate::crash;
use crate::http;
use crate::http::Listeners;
use crate::self_profile::SelfProfiler;

mod local;

mod stores;

use local::{LocalHeads, LocalSink};
use stores::{create_folder, open_cache, open_logs, open_metastore, open_store};
pub(crate) use stores::{open_redb, open_symbols};

/// How often the file of overrides is looked at.
const OVERRIDES_INTERVAL: Duration = Duration::from_secs(5);

/// A running process: stop it, or it runs until its shutdown endpoint is asked.
#[derive(Debug)]
pub struct Running {
    tasks: Tasks,
    stop: watch::Sender<bool>,
    address: SocketAddr,
    internal_address: SocketAddr,
    ingester: Option<JoinHandle<Result<(), cambium_ingester::Error>>>,
    cache: Arc<Cache>,
    place: Option<Place>,
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
    /// This process' name in leases and in the catalogue.
    node: String,
    /// This process among others.
    place: Option<Place>,
    logs: Arc<dyn Logs>,
    /// Where distributors write, if not to the owners of partitions.
    shared_sink: Option<Arc<dyn Sink>>,
    tasks: Tasks,
}

/// The roles of this process, before they run.
struct Roles {
    distributor: Option<cambium_distributor::Service>,
    ingester: Option<cambium_ingester::Service>,
    querier: Option<Querier>,
    compactor: Option<cambium_compactor::Service>,
    self_profiler: SelfProfiler,
}

impl Roles {
    async fn build(shared: &Shared) -> anyhow::Result<Self> {
        let target = shared.config.target;
        let ingester = match target.has(Role::Ingester) {
            true => Some(ingester(shared).await?),
            false => None,
        };
        let handle = ingester.as_ref().map(cambium_ingester::Service::handle);
        let distributor = match target.has(Role::Distributor) {
            true => Some(distributor(shared, handle.clone())?),
            false => None,
        };
        let compactor = match target.has(Role::Compactor) {
            true => Some(compactor(shared)?),
            false => None,
        };
        let querier = target.has(Role::Querier).then(|| querier(shared, handle));
        let (settings, clock) = (&shared.config.self_profiling, Arc::clone(&shared.clock));
        let self_profiler = SelfProfiler::new(settings, clock, &shared.metrics);
        Ok(Self { distributor, ingester, querier, compactor, self_profiler })
    }

    /// What the doors lead to.
    fn doors(&self, shared: &Shared, stop: &watch::Sender<bool>) -> http::Doors {
        http::Doors {
            config: shared.config.clone(),
            clock: Arc::clone(&shared.clock),
            metastore: Arc::clone(&shared.metastore),
            metrics: shared.metrics.clone(),
            limits: shared.limits.clone(),
            catalogue: Arc::clone(&shared.catalogue),
            tenants: Arc::clone(&shared.tenants),
            distributor: self.distributor.as_ref().map(cambium_distributor::Service::handle),
            querier: self.querier.clone(),
            ingester: self.ingester.as_ref().map(cambium_ingester::Service::handle),
            place: shared.place.clone(),
            self_profiler: self.self_profiler.clone(),
            stop: stop.clone(),
        }
    }

    /// Runs them until they are stopped; the ingester's end is the caller's to wait for.
    fn run(
        self,
        shared: &Shared,
        doors: &http::Doors,
        stopped: watch::Receiver<bool>,
    ) -> Option<JoinHandle<Result<(), cambium_ingester::Error>>> {
        let tasks = &shared.tasks;
        if let Some(distributor) = self.distributor {
            tasks.spawn("distributor", distributor.run(wait(stopped.clone())));
        }
        if let Some(compactor) = self.compactor {
            tasks.spawn("compactor", compactor.run(wait(stopped.clone())));
        }
        let profiling = &shared.config.self_profiling;
        if let Some(distributor) = doors.distributor.clone().filter(|_| profiling.enabled) {
            self.self_profiler.spawn(profiling, distributor, tasks);
        }
        self.ingester.map(|ingester| tasks.spawn("ingester", ingester.run(wait(stopped))))
    }
}

impl Running {
    /// Opens the stores, replays logs, builds every role of this process and listens.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let clock = crash::clock().map_err(anyhow::Error::msg)?;
        let tasks = Tasks::new();
        let (stop, stopped) = watch::channel(false);
        let limits = watch_overrides(&config, &clock, &tasks)?;
        let metrics = Metrics::new();
        create_folder(&config.data_dir)?;
        let metastore = open_metastore(&config, &clock, &metrics).await?;
        let sockets = http::bind_all(&config).await?;
        let Listeners { public, internal } = sockets.at;
        let place = match config.cluster.enabled {
            true => Some(Place::join(&config, sockets.at.internal, &clock, &metrics, &tasks).await?),
            false => None,
        };
        let (logs, shared_sink) = open_logs(&config, &clock, &metrics).await?;
        let shared = Shared {
            clock: Arc::clone(&clock),
            logs,
            shared_sink,
            store: open_store(&config, &clock, &metrics).await?,
            limits,
            cache: Arc::new(open_cache(&config, &metrics).await),
            tenants: Arc::new(Tenants::new(Arc::clone(&metastore), Arc::clone(&clock))),
            catalogue: Arc::new(Catalogue::new(Arc::clone(&metastore))),
            symbols: Arc::new(open_symbols(&config, &metastore, &clock, &metrics)),
            node: place.as_ref().map_or_else(|| config.listen.to_string(), |place| place.name.to_string()),
            tasks: tasks.clone(),
            place,
            metastore,
            metrics,
            config,
        };
        fix_partitions(&shared).await?;
        let roles = Roles::build(&shared).await?;
        let doors = roles.doors(&shared, &stop);
        http::listen(&doors, sockets, &tasks);
        if let Some(place) = &shared.place {
            place.membership.set_state(NodeState::Active).await.context("join the cluster")?;
        }
        let ingester = roles.run(&shared, &doors, stopped);
        tracing::info!(address = %public, internal = %internal, node = shared.node, "ready");
        Ok(Self {
            tasks,
            stop,
            address: public,
            internal_address: internal,
            ingester,
            cache: shared.cache,
            place: shared.place,
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
        if let Some(place) = &self.place {
            // Others take over what this node owns while it still answers.
            if let Err(error) = place.membership.set_state(NodeState::Leaving).await {
                tracing::warn!(%error, "others do not know that this node leaves");
            }
        }
        self.stop.send_replace(true);
        let flushed = match self.ingester {
            Some(ingester) => ingester.await.context("the ingester's task failed")?,
            None => Ok(()),
        };
        if let Some(place) = &self.place
            && let Err(error) = place.membership.leave().await
        {
            tracing::warn!(%error, "left without a goodbye");
        }
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
    let partitions = shared.config.partitions;
    let tenures = match &shared.place {
        None => Tenures::Alone { partitions },
        Some(place) => Tenures::Leased(Leased {
            partitions,
            owners: Arc::new(owners(shared)),
            wanted: place.wanted(&shared.tasks),
            claims: Arc::new(PeerClaims {
                view: place.view(),
                peers: Arc::clone(&place.peers),
                sender: place.sender.clone(),
                clock: Arc::clone(&shared.clock),
            }),
        }),
    };
    let deps = cambium_ingester::Deps {
        logs: Arc::clone(&shared.logs),
        tenures,
        node: shared.node.clone(),
        catalogue: Arc::clone(&shared.catalogue),
        store: Arc::clone(&shared.store),
        cache: Arc::clone(&shared.cache),
        clock: Arc::clone(&shared.clock),
        limits: shared.limits.clone(),
        metrics: shared.metrics.clone(),
    };
    cambium_ingester::Service::open(shared.config.ingester.clone(), deps).await.context("replay the log")
}

/// The leases on partitions, as this node.
fn owners(shared: &Shared) -> Owners {
    Owners::new(Arc::clone(&shared.metastore), Arc::clone(&shared.clock), shared.node.clone())
}

fn distributor(
    shared: &Shared,
    ingester: Option<cambium_ingester::Handle>,
) -> anyhow::Result<cambium_distributor::Service> {
    let partitions =
        NonZeroU32::new(shared.config.partitions).context("partitions: 0 is not a number of partitions")?;
    let active_series = match &ingester {
        Some(ingester) => ingester.active_series(),
        None => watch::channel(Arc::default()).1,
    };
    let local = ingester.map(|ingester| Arc::new(LocalSink(ingester)) as Arc<dyn Sink>);
    let sink: Arc<dyn Sink> = match (&shared.shared_sink, &shared.place) {
        (Some(sink), _) => Arc::clone(sink),
        (None, None) => local.context("target: a distributor that is alone needs an ingester")?,
        (None, Some(place)) => Arc::new(RingSink::new(ring::Deps {
            owners: OwnersKnown::follow(Arc::new(owners(shared)), Arc::clone(&shared.clock), &shared.tasks),
            view: place.view(),
            peers: Arc::clone(&place.peers),
            sender: place.sender.clone(),
            local,
            clock: Arc::clone(&shared.clock),
        })),
    };
    let deps = cambium_distributor::Deps {
        tenants: Arc::clone(&shared.tenants),
        symbols: Arc::clone(&shared.symbols),
        partitions,
        active_series,
        sink,
        limits: shared.limits.clone(),
        clock: Arc::clone(&shared.clock),
        metrics: shared.metrics.clone(),
    };
    Ok(cambium_distributor::Service::new(shared.config.distributor.clone(), deps))
}

fn querier(shared: &Shared, ingester: Option<cambium_ingester::Handle>) -> Querier {
    let local = ingester.map(|ingester| Arc::new(LocalHeads(ingester)) as Arc<dyn Heads>);
    let heads: Arc<dyn Heads> = match (&shared.place, local) {
        (None, local) => local.expect("a querier that is alone has an ingester: the target is all"),
        (Some(place), local) => Arc::new(RemoteHeads::new(remote::Deps {
            view: place.view(),
            peers: Arc::clone(&place.peers),
            sender: place.sender.clone(),
            local,
            query_timeout: shared.config.querier.timeout.0,
            clock: Arc::clone(&shared.clock),
            tasks: shared.tasks.clone(),
        })),
    };
    let deps = cambium_querier::Deps {
        catalogue: Arc::clone(&shared.catalogue),
        tenants: Arc::clone(&shared.tenants),
        symbols: Arc::clone(&shared.symbols),
        store: Arc::clone(&shared.store),
        cache: Arc::clone(&shared.cache),
        heads,
        limits: shared.limits.clone(),
        clock: Arc::clone(&shared.clock),
        metrics: shared.metrics.clone(),
    };
    Querier::new(shared.config.querier.clone(), deps)
}

fn compactor(shared: &Shared) -> anyhow::Result<cambium_compactor::Service> {
    let scratch = shared.config.data_dir.join("scratch");
    create_folder(&scratch)?;
    let holder = shared.node.clone();
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
