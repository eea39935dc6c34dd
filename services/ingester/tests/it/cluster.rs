//! Several ingesters in one process, on a clock that is moved by hand: nodes die, stop for a while and come back.
//!
//! A node that is frozen gets no answers from its metadata store and its logs, and its own clock stands still: like a process
//! that was stopped, or that was killed if it is never thawed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cambium_blocks::cache::Cache;
use cambium_blocks::{BlockSource, Source};
use cambium_ingester::partition::{Ack, Claimed, Pushed};
use cambium_ingester::{Claims, Config, Deps, Error, Handle, Leased, Service, Tenures};
use cambium_ingestlog::logs::MemoryLogs;
use cambium_ingestlog::{Log, Logs};
use cambium_metastore::kv::memory::MemoryStore;
use cambium_metastore::kv::{self, KvStore, Outcome, Snapshot, Txn};
use cambium_metastore::owners::Owner;
use cambium_metastore::{Catalogue, Owners};
use cambium_model::block::{LogId, Partition};
use cambium_model::limits::Overrides;
use cambium_model::profile::Profile;
use cambium_model::time::TimeRange;
use cambium_proto::record;
use cambium_runtime::clock::MockClock;
use cambium_runtime::metrics::Metrics;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::sync::{oneshot, watch};

use crate::sandbox::{START_NS, tenant};

/// How far the clock moves at a time.
pub const STEP: Duration = Duration::from_millis(125);
/// How long a test waits for anything, on its clock.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often every task of every node gets its turn between two steps.
const TURNS: usize = 40;

/// What the nodes share.
pub struct Cluster {
    pub metastore: Arc<MemoryStore>,
    pub store: Arc<dyn ObjectStore>,
    pub nodes: BTreeMap<String, Node>,
    pub partitions: u32,
    living: Arc<Mutex<BTreeMap<String, Life>>>,
    elapsed: Duration,
}

/// A machine: its disk outlives its processes.
pub struct Node {
    pub logs: Arc<MemoryLogs>,
    pub wanted: watch::Sender<Arc<BTreeSet<Partition>>>,
    stop: Option<oneshot::Sender<()>>,
}

/// A process on a machine.
#[derive(Clone, Debug)]
struct Life {
    handle: Handle,
    clock: MockClock,
    frozen: watch::Sender<bool>,
}

impl Cluster {
    pub fn new(nodes: &[&str], partitions: u32) -> Self {
        let node = |name: &&str| {
            let wanted = watch::Sender::new(Arc::default());
            (name.to_string(), Node { logs: Arc::default(), wanted, stop: None })
        };
        Self {
            metastore: Arc::new(MemoryStore::new()),
            store: Arc::new(InMemory::new()),
            nodes: nodes.iter().map(node).collect(),
            partitions,
            living: Arc::default(),
            elapsed: Duration::ZERO,
        }
    }

    /// Starts a process on the machine.
    pub async fn start(&mut self, name: &str) {
        let frozen = watch::Sender::new(false);
        let now_ns = START_NS + i64::try_from(self.elapsed.as_nanos()).unwrap();
        let clock = MockClock::at(now_ns);
        let gate = Gate(frozen.subscribe());
        let kv: Arc<dyn KvStore> =
            Arc::new(GatedStore { inner: Arc::clone(&self.metastore), gate: gate.clone() });
        let node = self.nodes.get_mut(name).unwrap();
        let leased = Leased {
            partitions: self.partitions,
            owners: Arc::new(Owners::new(Arc::clone(&kv), Arc::new(clock.clone()), name)),
            wanted: node.wanted.subscribe(),
            claims: Arc::new(Neighbours { living: Arc::clone(&self.living), gate: gate.clone() }),
        };
        let (_, limits) = watch::channel(Arc::new(Overrides::default()));
        let deps = Deps {
            logs: Arc::new(GatedLogs { inner: Arc::clone(&node.logs), gate }),
            tenures: Tenures::Leased(leased),
            node: name.to_owned(),
            catalogue: Arc::new(Catalogue::new(kv)),
            store: Arc::clone(&self.store),
            cache: Arc::new(Cache::new(1 << 20, &Metrics::new())),
            clock: Arc::new(clock.clone()),
            limits,
            metrics: Metrics::new(),
        };
        let service = Service::open(Config::default(), deps).await.unwrap();
        let handle = service.handle();
        let (stop, stopped) = oneshot::channel();
        node.stop = Some(stop);
        let living = Arc::clone(&self.living);
        living.lock().unwrap().insert(name.to_owned(), Life { handle, clock, frozen });
        let name = name.to_owned();
        #[expect(clippy::disallowed_methods, reason = "the test owns the task")]
        tokio::spawn(async move {
            service.run(async move { drop(stopped.await) }).await.expect("everything is handed over");
            living.lock().unwrap().remove(&name);
        });
    }

    /// Asks the process to stop and waits until it has.
    pub async fn stop(&mut self, name: &str) {
        self.nodes.get_mut(name).unwrap().stop.take().expect("it runs").send(()).unwrap();
        self.until("the process stops", async |cluster| cluster.life(name).is_none()).await;
    }

    /// The process is gone at once.
    pub fn kill(&mut self, name: &str) {
        let life = self.living.lock().unwrap().remove(name).expect("it lives");
        life.frozen.send_replace(true);
        // Its tasks wait for ever.
        std::mem::forget(life);
        std::mem::forget(self.nodes.get_mut(name).unwrap().stop.take());
    }

    /// The process stands still, or goes on.
    pub fn freeze(&self, name: &str, frozen: bool) {
        let life = self.life(name).expect("it lives");
        if !frozen {
            life.clock.advance(self.elapsed - life.clock_elapsed());
        }
        life.frozen.send_replace(frozen);
    }

    pub fn lives(&self, name: &str) -> bool {
        self.life(name).is_some()
    }

    fn life(&self, name: &str) -> Option<Life> {
        self.living.lock().unwrap().get(name).cloned()
    }

    /// Gives the partitions to these nodes, in turn.
    pub fn assign(&self, owners: &[&str]) {
        for (name, node) in &self.nodes {
            let of_node = |partition: &u32| owners[*partition as usize % owners.len()] == name;
            let wanted: BTreeSet<Partition> = (0..self.partitions).filter(of_node).map(Partition).collect();
            node.wanted.send_replace(Arc::new(wanted));
        }
    }

    /// Lets everything go on for a moment.
    pub async fn step(&mut self) {
        self.elapsed += STEP;
        let living: Vec<Life> = self.living.lock().unwrap().values().cloned().collect();
        for life in living.iter().filter(|life| !*life.frozen.borrow()) {
            life.clock.advance(STEP);
        }
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until something holds; says how long that took, on the test's clock.
    pub async fn until(&mut self, what: &str, condition: impl AsyncFn(&Self) -> bool) -> Duration {
        let began = self.elapsed;
        while !condition(self).await {
            assert!(self.elapsed - began < PATIENCE, "{what}: not within {PATIENCE:?}");
            self.step().await;
        }
        self.elapsed - began
    }

    /// Whether the node takes writes for the partition.
    pub fn owns(&self, name: &str, partition: u32) -> bool {
        self.life(name).is_some_and(|life| life.handle.partitions().contains(&Partition(partition)))
    }

    pub async fn until_owned(&mut self, name: &str, partition: u32) -> Duration {
        let what = format!("{name} owns {partition}");
        self.until(&what, async |cluster| cluster.owns(name, partition)).await
    }

    pub async fn write(&self, name: &str, partition: u32, profile: &Profile) -> Result<Ack, Error> {
        let record = record::encode(&tenant(), std::slice::from_ref(profile));
        let life = self.life(name).ok_or(Error::NotOwner(Partition(partition)))?;
        life.handle.write(Partition(partition), Bytes::from(record)).await
    }

    pub fn handle(&self, name: &str) -> Handle {
        self.life(name).expect("it lives").handle
    }

    pub fn catalogue(&self) -> Catalogue {
        Catalogue::new(Arc::clone(&self.metastore) as _)
    }

    /// The times of all profiles that a query would see, and the logs that it would miss.
    pub async fn times(&self) -> (Vec<i64>, Vec<LogId>) {
        let view = self.catalogue().view(&tenant(), TimeRange::ALL).await.unwrap();
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        for block in &view.blocks {
            let index = block.datasets.iter().position(|dataset| dataset.tenant == tenant()).unwrap();
            let cache = Arc::new(Cache::new(1 << 20, &Metrics::new()));
            sources.push(Arc::new(BlockSource::new(
                Arc::clone(&self.store),
                cache,
                Arc::clone(block),
                index,
            )));
        }
        let mut missing = Vec::new();
        for open in view.logs.iter().filter(|open| !open.holder.is_empty()) {
            let Some(holder) = self.life(&open.holder).filter(|life| !*life.frozen.borrow()) else {
                missing.push(open.log);
                continue;
            };
            let heads = holder.handle.heads(tenant().number, &[(open.log, open.next)]).unwrap();
            missing.extend(heads.missing);
            sources.extend(heads.found.into_iter().map(|(_, head)| Arc::new(head) as Arc<dyn Source>));
        }
        let mut times = Vec::new();
        for source in sources {
            let rows = source.series().await.unwrap().len() as u32;
            times.extend(source.profiles(&vec![0..rows], TimeRange::ALL).await.unwrap().time_ns);
        }
        times.sort_unstable();
        (times, missing)
    }
}

impl Life {
    /// How far its clock has moved since the cluster's beginning.
    fn clock_elapsed(&self) -> Duration {
        use cambium_runtime::clock::Clock;
        Duration::from_nanos(u64::try_from(self.clock.now_ns() - START_NS).unwrap())
    }
}

/// Open while its node is not frozen.
#[derive(Clone, Debug)]
struct Gate(watch::Receiver<bool>);

impl Gate {
    async fn pass(&self) {
        let mut frozen = self.0.clone();
        if frozen.wait_for(|frozen| !*frozen).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[derive(Debug)]
struct GatedStore {
    inner: Arc<MemoryStore>,
    gate: Gate,
}

#[async_trait]
impl KvStore for GatedStore {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, kv::Error> {
        self.gate.pass().await;
        self.inner.snapshot().await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, kv::Error> {
        self.gate.pass().await;
        self.inner.commit(txn).await
    }
}

#[derive(Debug)]
struct GatedLogs {
    inner: Arc<MemoryLogs>,
    gate: Gate,
}

#[async_trait]
impl Logs for GatedLogs {
    fn are_shared(&self) -> bool {
        false
    }

    async fn open(&self, id: LogId) -> Result<Arc<dyn Log>, cambium_ingestlog::Error> {
        self.gate.pass().await;
        self.inner.open(id).await
    }

    async fn held(&self) -> Result<Vec<LogId>, cambium_ingestlog::Error> {
        self.gate.pass().await;
        self.inner.held().await
    }

    async fn remove(&self, id: LogId) -> Result<(), cambium_ingestlog::Error> {
        self.gate.pass().await;
        self.inner.remove(id).await
    }

    async fn set_aside(&self, id: LogId) -> Result<(), cambium_ingestlog::Error> {
        self.gate.pass().await;
        self.inner.set_aside(id).await
    }
}

/// The other nodes, as one sees them.
#[derive(Debug)]
struct Neighbours {
    living: Arc<Mutex<BTreeMap<String, Life>>>,
    gate: Gate,
}

#[async_trait]
impl Claims for Neighbours {
    async fn claim(&self, owner: &Owner, log: LogId, pushes: &[Pushed]) -> Result<Claimed, Error> {
        self.gate.pass().await;
        let life = self.living.lock().unwrap().get(&owner.holder).cloned();
        let life = life.filter(|life| !*life.frozen.borrow()).ok_or(Error::NoOwner(log.partition))?;
        life.handle.claim(log, pushes)
    }
}
