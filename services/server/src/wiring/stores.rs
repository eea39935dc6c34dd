//! What a process shares with others, or has for itself: metadata, logs, blocks, as the settings name them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use cambium_blocks::cache::Cache;
use cambium_blocks::cache::disk::Disk;
use cambium_blocks::guarded::Guarded;
use cambium_blocks::stores;
use cambium_distributor::sink::Sink;
use cambium_ingestlog::Logs;
use cambium_ingestlog::local;
use cambium_ingestlog::local::disk::SystemDisk;
use cambium_ingestlog::logs::LocalLogs;
use cambium_metastore::Symbols;
use cambium_metastore::kv::KvStore;
use cambium_metastore::kv::redb::RedbStore;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use object_store::ObjectStore;

use crate::Config;
use crate::config::{IngestLogKind, MetastoreKind};

/// The metadata store that the settings name.
pub(super) async fn open_metastore(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<Arc<dyn KvStore>> {
    match config.metastore.kind {
        MetastoreKind::Redb => open_redb(config).await,
        #[cfg(feature = "cluster")]
        MetastoreKind::Tikv => {
            use cambium_metastore::kv::tikv::TikvStore;
            let store = TikvStore::new(&config.metastore.tikv, Arc::clone(clock), rand::random(), metrics);
            Ok(Arc::new(store))
        }
        #[cfg(not(feature = "cluster"))]
        MetastoreKind::Tikv => {
            let _ = (clock, metrics);
            anyhow::bail!("metastore.kind: this build has no client of TiKV")
        }
    }
}

pub(crate) async fn open_redb(config: &Config) -> anyhow::Result<Arc<dyn KvStore>> {
    create_folder(&config.data_dir)?;
    let path = config.data_dir.join("metastore.redb");
    let cache_bytes = usize::try_from(config.metastore.cache_bytes.0).unwrap_or(usize::MAX);
    let opening = tokio::task::spawn_blocking(move || RedbStore::open(&path, cache_bytes));
    Ok(Arc::new(opening.await?.context("open the metastore")?))
}

/// Where the logs of partitions are, and what distributors write to where that is the same for all nodes.
pub(super) async fn open_logs(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<(Arc<dyn Logs>, Option<Arc<dyn Sink>>)> {
    match config.ingest_log.kind {
        IngestLogKind::Local => {
            let folder = config.data_dir.join("log");
            let deps = local::Deps { clock: Arc::clone(clock), disk: Arc::new(SystemDisk) };
            Ok((Arc::new(LocalLogs::new(local::Config::new(&folder), deps)), None))
        }
        #[cfg(feature = "cluster")]
        IngestLogKind::Kafka => open_kafka(config, clock, metrics).await,
        #[cfg(not(feature = "cluster"))]
        IngestLogKind::Kafka => {
            let _ = metrics;
            anyhow::bail!("ingest_log.kind: this build has no client of Kafka")
        }
    }
}

#[cfg(feature = "cluster")]
async fn open_kafka(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<(Arc<dyn Logs>, Option<Arc<dyn Sink>>)> {
    use cambium_distributor::sink::kafka::KafkaSink;
    use cambium_ingestlog::kafka::{self, KafkaLogs, KafkaMetrics, KafkaProducer};

    let settings = &config.ingest_log.kafka;
    kafka::ensure_topic(settings, config.partitions, &**clock).await.context("the topic of the log")?;
    let metrics = KafkaMetrics::new(metrics);
    let producer = KafkaProducer::open(settings, Arc::clone(clock), metrics.clone()).context("open Kafka")?;
    let producer = Arc::new(producer);
    let deps = kafka::log::Deps { producer: Arc::clone(&producer), clock: Arc::clone(clock), metrics };
    Ok((Arc::new(KafkaLogs::new(settings.clone(), deps)), Some(Arc::new(KafkaSink(producer)))))
}

/// The store of blocks, proved to keep what is there already.
pub(super) async fn open_store(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let default = config.data_dir.join("blocks");
    let address = match config.blocks.store.as_str() {
        "" => default.to_str().context("data_dir is not UTF-8")?,
        address => address,
    };
    let stores::Opened { store, bounds, folder } =
        stores::open(address, &config.blocks.remote).context("open the store of blocks")?;
    match folder {
        // Whoever is alone here is the only one that puts blocks.
        Some(folder) if !config.cluster.enabled => {
            let unfinished = folder.remove_unfinished().context("tidy the folder of blocks")?;
            if unfinished > 0 {
                tracing::info!(unfinished, "removed objects that a crash had interrupted");
            }
        }
        _ => {}
    }
    let store = Arc::new(Guarded::new(store, bounds, Arc::clone(clock), metrics));
    stores::prove_conditional_put(&*store, &**clock).await.context("the store of blocks")?;
    Ok(store)
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

pub(super) async fn open_cache(config: &Config, metrics: &Metrics) -> Cache {
    let settings = &config.blocks;
    let cache = Cache::new(settings.cache_bytes.0, metrics);
    let default = config.data_dir.join("cache");
    let folder = Some(&settings.disk_cache_dir).filter(|folder| !folder.as_os_str().is_empty());
    match settings.disk_cache_bytes.0 {
        0 => cache,
        bytes => cache.with_disk(Disk::open(folder.unwrap_or(&default), bytes, metrics).await),
    }
}

pub(super) fn create_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))
}
