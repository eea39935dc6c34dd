//! A bucket, a catalogue and a clock, flushed to as an ingester does, and everything that was ever flushed beside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cambium_blocks::cache::Cache;
use cambium_blocks::source::{Pick, TreeScan};
use cambium_blocks::testing::{DatasetBuilder, FaultyStore, Shape, random_profiles, tenant};
use cambium_blocks::without::Without;
use cambium_blocks::writer::{Compression, encode, put};
use cambium_blocks::{BlockSource, Source};
use cambium_compactor::rebuild::cover::{Candidates, choose};
use cambium_compactor::rebuild::{read_bucket, rebuilt};
use cambium_compactor::{Config, Deps, Service};
use cambium_metastore::backup::{self, Overwrite};
use cambium_metastore::catalogue::{FlushCommit, OwnedBlocks};
use cambium_metastore::kv::memory::MemoryStore;
use cambium_metastore::kv::testing::FaultyStore as FaultyKv;
use cambium_metastore::{Catalogue, KvStore, Leases, Tenants};
use cambium_model::block::{BlockMeta, LogId, LogRange, Offset, Partition};
use cambium_model::deletion::Deletion;
use cambium_model::labels::Labels;
use cambium_model::limits::{Overrides, TenantLimits};
use cambium_model::profile::Profile;
use cambium_model::profile_type::ProfileType;
use cambium_model::retention::RetentionRule;
use cambium_model::selector::Selector;
use cambium_model::stacktrace::PathHash;
use cambium_model::tenant::TenantNumber;
use cambium_model::time::{DAY_NS, SECOND_NS, TimeRange};
use cambium_runtime::clock::{Clock, MockClock};
use cambium_runtime::metrics::Metrics;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::sync::watch;

pub const LOG: LogId = LogId { partition: Partition(0), log: 0 };

/// Midnight.
const START_NS: i64 = 20_000 * DAY_NS;

/// Type, labels, time, total and number of samples of a profile.
type Row = (ProfileType, Labels, i64, i64, u32);

pub struct World {
    pub kv: FaultyKv,
    pub store: FaultyStore,
    pub clock: MockClock,
    pub limits: watch::Sender<Arc<Overrides>>,
    pub catalogue: Catalogue,
    scratch: tempfile::TempDir,
    epoch: u64,
    next: u64,
    /// What was pushed and not deleted, by tenant.
    pub pushed: BTreeMap<u32, Vec<Profile>>,
    deleted: Vec<(u32, Deletion)>,
}

impl World {
    pub async fn new(limits: TenantLimits) -> Self {
        let kv = FaultyKv::new(Arc::new(MemoryStore::new()));
        let catalogue = Catalogue::new(Arc::new(kv.clone()));
        let epoch = catalogue.open_log(LOG, "").await.unwrap().epoch;
        Self {
            kv,
            store: FaultyStore::new(Arc::new(InMemory::new())),
            clock: MockClock::at(START_NS),
            limits: watch::Sender::new(Arc::new(Overrides { defaults: limits, ..Overrides::default() })),
            catalogue,
            scratch: tempfile::tempdir().unwrap(),
            epoch,
            next: 0,
            pushed: BTreeMap::new(),
            deleted: Vec::new(),
        }
    }

    pub fn minutes(&self, count: u64) {
        self.clock.advance(Duration::from_secs(60 * count));
    }

    /// A compactor of this name, as after a start.
    pub fn compactor(&self, holder: &str) -> Service {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let deps = Deps {
            catalogue: Arc::new(Catalogue::new(Arc::new(self.kv.clone()))),
            tenants: Arc::new(self.tenants()),
            leases: Leases::new(Arc::new(self.kv.clone()), Arc::clone(&clock), holder),
            store: Arc::new(self.store.clone()),
            scratch: self.scratch.path().to_owned(),
            limits: self.limits.subscribe(),
            clock,
            metrics: Metrics::new(),
        };
        Service::new(Config::default(), deps)
    }

    pub fn tenants(&self) -> Tenants {
        Tenants::new(Arc::new(self.kv.clone()), Arc::new(self.clock.clone()))
    }

    /// From now on each of these services' series have a rule of retention: so long that nothing goes.
    pub fn keep_apart(&self, services: &[u64]) {
        let rule = |(years, service): (u64, &u64)| RetentionRule {
            selector: format!(r#"{{service_name="service-{service}"}}"#).parse().unwrap(),
            retention_secs: (10 + years) * 365 * 86_400,
        };
        let rules: Vec<RetentionRule> = (0..).zip(services).map(rule).collect();
        self.change_limits(|limits| limits.retention_rules = rules.try_into().unwrap());
    }

    pub fn change_limits(&self, change: impl FnOnce(&mut TenantLimits)) {
        self.limits.send_modify(|limits| {
            let mut changed = Overrides::clone(limits);
            change(&mut changed.defaults);
            *limits = Arc::new(changed);
        });
    }

    /// Flushes a block of profiles of the last ten minutes for each of these tenants.
    pub async fn flush(&mut self, seed: u64, tenants: &[u32]) {
        let span_ns = 600 * SECOND_NS;
        let shape = Shape {
            profiles: 5,
            types: 2,
            start_ns: self.clock.now_ns() - span_ns,
            span_ns,
            ..Shape::default()
        };
        let mut datasets = Vec::new();
        for number in tenants {
            let profiles = random_profiles(seed ^ u64::from(*number) << 32, &shape);
            let mut builder = DatasetBuilder::new(tenant(*number));
            profiles.iter().for_each(|profile| builder.push(profile));
            datasets.push(builder.finish());
            self.pushed.entry(*number).or_default().extend(profiles);
        }
        self.forget_deleted();
        let range = LogRange { log: LOG, first: Offset(self.next), next: Offset(self.next + 1) };
        self.next += 1;
        let block = encode(&datasets, range, self.epoch, 0, Compression::Hot).unwrap();
        put(&self.store, &block).await.unwrap();
        let commit = FlushCommit { range, epoch: self.epoch, block: Some(block.meta), tenure: None };
        self.catalogue.commit_flush(&commit).await.unwrap();
    }

    /// Has these series' profiles of the time before deleted.
    pub async fn delete(&mut self, number: u32, selector: &str) {
        let now_ns = self.clock.now_ns();
        let selector: Selector = selector.parse().unwrap();
        let deletion = Deletion { selector, range: TimeRange::new(i64::MIN, now_ns) };
        self.catalogue.delete(TenantNumber(number), &deletion, now_ns).await.unwrap();
        self.deleted.push((number, deletion));
        self.forget_deleted();
    }

    /// What comes late into a range that was deleted is deleted too.
    fn forget_deleted(&mut self) {
        for (number, Deletion { selector, range }) in &self.deleted {
            let of_tenant = self.pushed.entry(*number).or_default();
            of_tenant
                .retain(|profile| !range.contains(profile.time_ns) || !selector.matches(&profile.labels));
        }
    }

    /// Checks that the same would be seen where the metadata store is lost: restored from a backup of now, and rebuilt from
    /// the bucket with whatever lies there.
    pub async fn check_rebuilt(&self) {
        let header = backup::Header { created_ns: 0, symbols: false, overrides: String::new() };
        let mut file = Vec::new();
        backup::write(&self.kv, &header, &mut file).await.unwrap();
        let kv: Arc<dyn KvStore> = Arc::new(MemoryStore::new());
        backup::restore(&*kv, || Ok(&*file), Overwrite::Refuse, 0).await.unwrap();
        let contents = read_bucket(&self.store).await.unwrap();
        let candidates = Candidates {
            blocks: &contents.blocks,
            damaged: &contents.damaged,
            is_wanted: &|_| true,
            complete_from_ns: i64::MAX,
        };
        let choice = choose(&candidates);
        assert!(choice.is_proven && choice.lost.is_empty(), "{:?}", choice.lost);
        let rebuilt = rebuilt(&contents, &choice, &BTreeMap::new()).unwrap();
        let catalogue = Catalogue::new(kv);
        catalogue.rebuild(&rebuilt, 1, 0).await.unwrap();
        self.look(&catalogue, true).await;
    }

    /// Checks that what was deleted is not even in the blocks any more.
    pub async fn check_erased(&self, merged: &[OwnedBlocks]) {
        for dataset in merged.iter().flat_map(|owned| &owned.blocks).flat_map(|block| &block.datasets) {
            let number = dataset.tenant.number.0;
            let deletions = self.catalogue.view(&tenant(number), TimeRange::ALL).await.unwrap().deletions;
            assert!(!deletions.iter().any(|recorded| dataset.awaits(recorded)), "tenant {number}");
        }
        self.look(&self.catalogue, false).await;
    }

    /// The tenant's blocks.
    pub async fn blocks(&self, number: u32) -> Vec<Arc<BlockMeta>> {
        self.catalogue.view(&tenant(number), TimeRange::ALL).await.unwrap().blocks
    }

    /// How many objects the bucket holds.
    pub async fn objects(&self) -> usize {
        self.store.list(None).try_collect::<Vec<_>>().await.unwrap().len()
    }

    /// Checks that a query of each tenant would see what was pushed and not deleted, and each of it once.
    pub async fn check(&self) {
        self.look(&self.catalogue, true).await;
    }

    async fn look(&self, catalogue: &Catalogue, apply_deletions: bool) {
        for (number, profiles) in &self.pushed {
            let mut builder = DatasetBuilder::new(tenant(*number));
            profiles.iter().for_each(|profile| builder.push(profile));
            let expected: Vec<Arc<dyn Source>> = vec![Arc::new(builder.finish())];
            let mut sources: Vec<Arc<dyn Source>> = Vec::new();
            let view = catalogue.view(&tenant(*number), TimeRange::ALL).await.unwrap();
            for block in view.blocks {
                let index = block.datasets.iter().position(|d| d.tenant.number.0 == *number).unwrap();
                let (store, cache) =
                    (Arc::new(self.store.clone()), Arc::new(Cache::new(1 << 20, &Metrics::new())));
                let awaited = view.deletions.iter().filter(|recorded| block.datasets[index].awaits(recorded));
                let awaited: Vec<Deletion> = awaited.map(|recorded| recorded.deletion.clone()).collect();
                let source: Arc<dyn Source> = Arc::new(BlockSource::new(store, cache, block, index));
                let awaited = if apply_deletions { awaited } else { Vec::new() };
                sources.push(Arc::new(Without::new(source, awaited)));
            }
            let (rows, sums) = seen(&sources).await;
            let (expected_rows, expected_sums) = seen(&expected).await;
            assert_eq!(rows, expected_rows, "profiles of tenant {number}");
            assert_eq!(sums, expected_sums, "sums of tenant {number}");
        }
    }
}

/// All profiles, and all sums by type and path.
async fn seen(sources: &[Arc<dyn Source>]) -> (Vec<Row>, BTreeMap<(ProfileType, PathHash), i64>) {
    let (mut rows, mut sums) = (Vec::new(), BTreeMap::new());
    for source in sources {
        let table = source.series().await.unwrap();
        let profiles = source.profiles(&vec![0..table.len() as u32], TimeRange::ALL).await.unwrap();
        for i in 0..profiles.series.len() {
            let row = profiles.series[i];
            let profile_type = table.types[table.type_of[row as usize] as usize].clone();
            rows.push((
                profile_type,
                table.labels(row),
                profiles.time_ns[i],
                profiles.total[i],
                profiles.samples[i],
            ));
        }
        for profile_type in &table.types {
            let rows = table.select(Some(profile_type), &"{}".parse().unwrap());
            let scan = TreeScan { rows, range: TimeRange::ALL, pick: Pick::Sum };
            let partial = source.tree(&scan).await.unwrap();
            for (path, value) in partial.tree.paths.iter().zip(&partial.self_values).filter(|(_, v)| **v != 0)
            {
                *sums.entry((profile_type.clone(), *path)).or_insert(0) += value;
            }
        }
    }
    rows.sort();
    sums.retain(|_, sum| *sum != 0);
    (rows, sums)
}
