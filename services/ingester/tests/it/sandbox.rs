//! An ingester on seams that outlive it, so that a test can stop it at any point and open it again.

use std::sync::Arc;

use bytes::Bytes;
use cambium_blocks::cache::Cache;
use cambium_blocks::{BlockSource, Dataset, Source};
use cambium_ingester::partition::Ack;
use cambium_ingester::{Config, Deps, Error, Handle, Service, Tenures};
use cambium_ingestlog::Log;
use cambium_ingestlog::local::{self, LocalLog};
use cambium_ingestlog::logs::MemoryLogs;
use cambium_ingestlog::testing::FaultyDisk;
use cambium_metastore::Catalogue;
use cambium_metastore::kv::memory::MemoryStore;
use cambium_model::block::{LogId, Offset, Partition};
use cambium_model::labels::Labels;
use cambium_model::limits::Overrides;
use cambium_model::profile::{Profile, ProfileId};
use cambium_model::stacktrace::{LocationId, NO_PARENT, Node};
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_model::time::{SECOND_NS, TimeRange};
use cambium_proto::record;
use cambium_runtime::clock::{MockClock, SystemClock};
use cambium_runtime::metrics::Metrics;
use object_store::ObjectStore;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub const LOG: LogId = LogId { partition: Partition(0), log: 0 };

/// When every test begins.
pub const START_NS: i64 = 1_800_000_000 * SECOND_NS;

/// What survives a restart.
pub struct Durable {
    pub log: Arc<dyn Log>,
    pub metastore: Arc<MemoryStore>,
    pub store: Arc<dyn ObjectStore>,
    pub clock: MockClock,
    pub config: Config,
}

/// A running ingester.
pub struct Running {
    pub handle: Handle,
    pub catalogue: Arc<Catalogue>,
    pub metrics: Metrics,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Error>>,
}

impl Durable {
    pub fn new(log: Arc<dyn Log>, store: Arc<dyn ObjectStore>) -> Self {
        let clock = MockClock::at(START_NS);
        Self { log, metastore: Arc::new(MemoryStore::new()), store, clock, config: Config::default() }
    }

    /// Opens the ingester; the error is that of replay.
    pub async fn try_open(&self) -> Result<Running, Error> {
        let catalogue = Arc::new(Catalogue::new(Arc::clone(&self.metastore) as _));
        let metrics = Metrics::new();
        let (_, limits) = watch::channel(Arc::new(Overrides::default()));
        let deps = Deps {
            logs: Arc::new(MemoryLogs::of([Arc::clone(&self.log)])),
            tenures: Tenures::Alone { partitions: 1 },
            node: "test".to_owned(),
            catalogue: Arc::clone(&catalogue),
            store: Arc::clone(&self.store),
            cache: Arc::new(Cache::new(1 << 20, &Metrics::new())),
            clock: Arc::new(self.clock.clone()),
            limits,
            metrics: metrics.clone(),
        };
        let service = Service::open(self.config.clone(), deps).await?;
        let handle = service.handle();
        let (stop, stopped) = oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "the test owns the task")]
        let task = tokio::spawn(service.run(async move {
            let _ = stopped.await;
        }));
        Ok(Running { handle, catalogue, metrics, stop: Some(stop), task })
    }

    /// Blocks in the catalogue, whether an ingester runs or not.
    pub async fn catalogue_blocks(&self) -> usize {
        let catalogue = Catalogue::new(Arc::clone(&self.metastore) as _);
        catalogue.view(&tenant(), TimeRange::ALL).await.expect("the memory store answers").blocks.len()
    }

    pub async fn open(&self) -> Running {
        self.try_open().await.expect("the ingester opens")
    }
}

impl Running {
    /// Stops as a process does that is asked to: everything is flushed.
    pub async fn stop(mut self) {
        let _ = self.stop.take().expect("stopped once").send(());
        self.task.await.expect("the role does not panic").expect("everything is flushed");
    }

    /// Stops as a process does that is killed.
    pub fn kill(self) {
        self.task.abort();
    }

    pub async fn write(&self, profile: &Profile) -> Result<Ack, Error> {
        let record = record::encode(&tenant(), std::slice::from_ref(profile));
        self.handle.write(Partition(0), Bytes::from(record)).await
    }

    /// How far the log is in blocks, and the blocks.
    pub async fn view(&self) -> cambium_metastore::catalogue::CatalogueView {
        self.catalogue.view(&tenant(), TimeRange::ALL).await.expect("the memory store answers")
    }

    /// Heads from an offset on.
    pub fn heads_from(&self, committed: Offset) -> Result<Vec<Dataset>, Error> {
        let heads = self.handle.heads(tenant().number, &[(LOG, committed)])?;
        Ok(heads.found.into_iter().map(|(_, head)| head).collect())
    }

    /// The times of all profiles that a query would see: one catalogue snapshot, and the heads from there on.
    pub async fn times(&self, store: &Arc<dyn ObjectStore>) -> Vec<i64> {
        let view = self.view().await;
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        for block in &view.blocks {
            let index = block.datasets.iter().position(|dataset| dataset.tenant == tenant()).unwrap();
            let cache = Arc::new(Cache::new(1 << 20, &Metrics::new()));
            sources.push(Arc::new(BlockSource::new(Arc::clone(store), cache, Arc::clone(block), index)));
        }
        let logs: Vec<_> = view.logs.iter().map(|open| (open.log, open.next)).collect();
        let heads = self.handle.heads(tenant().number, &logs).expect("the snapshot is new");
        assert_eq!(heads.missing, []);
        sources.extend(heads.found.into_iter().map(|(_, head)| Arc::new(head) as Arc<dyn Source>));
        let mut times = Vec::new();
        for source in sources {
            let rows = source.series().await.unwrap().len() as u32;
            times.extend(source.profiles(&vec![0..rows], TimeRange::ALL).await.unwrap().time_ns);
        }
        times.sort_unstable();
        times
    }
}

/// The log on this disk, as a process finds it when it starts.
pub async fn open_log(disk: &Arc<FaultyDisk>) -> Arc<dyn Log> {
    let deps = local::Deps { clock: Arc::new(SystemClock::new()), disk: Arc::clone(disk) as _ };
    let (log, _) = LocalLog::open(LOG, local::Config::new("/log"), deps).await.unwrap();
    Arc::new(log)
}

pub fn tenant() -> Tenant {
    Tenant { id: TenantId::new("t").unwrap(), number: TenantNumber(1) }
}

/// A profile of one stack, told apart from others by number and time.
pub fn profile(number: u32, time_ns: i64) -> Profile {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Profile {
        id: ProfileId(id),
        labels: Labels::from_pairs([("service_name", "api")]).unwrap(),
        types: vec!["process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta".parse().unwrap()],
        time_ns,
        duration_ns: 10 * SECOND_NS,
        period: 10_000_000,
        locations: vec![LocationId::named(1, 1)],
        nodes: vec![Node { parent: NO_PARENT, location: 0 }],
        sample_nodes: vec![0],
        values: vec![5],
        sample_label_sets: Vec::new(),
        label_sets: Vec::new(),
    }
}
