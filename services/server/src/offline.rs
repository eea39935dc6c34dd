//! A data folder without a server on it: what operators' commands work on.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use cambium_blocks::local::DurableLocal;
use cambium_ingestlog::local;
use cambium_ingestlog::local::disk::SystemDisk;
use cambium_ingestlog::{LocalLog, Log};
use cambium_metastore::kv::memory::MemoryStore;
use cambium_metastore::kv::{self, KvStore};
use cambium_metastore::{Catalogue, Symbols, Tenants};
use cambium_model::block::{LogId, Offset, Partition};
use cambium_model::limits::Overrides;
use cambium_runtime::clock::{Clock, SystemClock};
use cambium_runtime::metrics::Metrics;
use object_store::ObjectStore;

use crate::Config;
use crate::wiring::{open_redb, open_symbols};

/// The folder's stores, opened. While this lives no server can start on it.
#[derive(Debug)]
pub(crate) struct Offline {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metastore: Arc<dyn KvStore>,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) catalogue: Catalogue,
    pub(crate) tenants: Tenants,
    pub(crate) symbols: Symbols,
    pub(crate) limits: Overrides,
}

/// What to do where there is no metadata store yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Begin one.
    Create,
    /// Go on with an empty one that is not kept.
    Pretend,
    /// Fail.
    Refuse,
}

impl Offline {
    pub(crate) async fn open(config: &Config, absent: Absent) -> anyhow::Result<Self> {
        let path = config.data_dir.join("metastore.redb");
        let metastore: Arc<dyn KvStore> = match absent {
            Absent::Pretend if !path.exists() => Arc::new(MemoryStore::new()),
            Absent::Refuse if !path.exists() => anyhow::bail!("there is no {}", path.display()),
            _ => open_redb(config).await?,
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let blocks = config.data_dir.join("blocks");
        Ok(Self {
            store: Arc::new(DurableLocal::open(&blocks).context("open the folder of blocks")?),
            catalogue: Catalogue::new(Arc::clone(&metastore)),
            tenants: Tenants::new(Arc::clone(&metastore), Arc::clone(&clock)),
            symbols: open_symbols(config, &metastore, &clock, &Metrics::new()),
            limits: config.overrides().context("overrides")?,
            config: config.clone(),
            clock,
            metastore,
        })
    }

    /// Whether the command failed because a server has the folder open.
    pub(crate) fn is_in_use(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| matches!(cause.downcast_ref(), Some(kv::Error::InUse)))
    }

    /// The first offset that each log still has, of those that there are.
    pub(crate) async fn log_firsts(&self, partitions: u32) -> anyhow::Result<BTreeMap<LogId, Offset>> {
        let folder = self.config.data_dir.join("log");
        let mut firsts = BTreeMap::new();
        if !folder.exists() {
            return Ok(firsts);
        }
        for partition in 0..partitions {
            let id = LogId { partition: Partition(partition), log: 0 };
            let deps = local::Deps { clock: Arc::clone(&self.clock), disk: Arc::new(SystemDisk) };
            let (log, _) =
                LocalLog::open(id, local::Config::new(&folder), deps).await.context("open the log")?;
            firsts.insert(id, log.first());
            log.close().await;
        }
        Ok(firsts)
    }
}
