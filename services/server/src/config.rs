//! The process' configuration: one tree of settings, each a YAML key, a flag and an environment variable.
//!
//! ```text
//!   defaults ◄── file.yaml (${VAR} expanded) ◄── CAMBIUM_INGESTER_FLUSH_INTERVAL ◄── --ingester.flush-interval
//! ```
//!
//! Later layers win. Unknown keys are errors that name the nearest known one. Each role owns its part.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cambium_blocks::cache::disk;
use cambium_blocks::stores;
use cambium_cluster::{peers, swim};
use cambium_model::limits::{Overrides, TenantLimits};
use cambium_runtime::quantity::{ByteSize, Span};
use cambium_runtime::secret::Secret;
use serde::{Deserialize, Serialize};

mod layers;

mod target;

pub use layers::{ConfigError, Setting, load, settings};
pub use target::Target;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which roles to run: `all`, or some of `distributor`, `ingester`, `querier` and `compactor`, separated by commas.
    pub target: Target,
    /// This process among others.
    pub cluster: Cluster,
    /// Where HTTP, gRPC and gRPC-web are served.
    pub listen: SocketAddr,
    /// Role-to-role services and, off loopback, the operate endpoints.
    pub internal: Internal,
    /// Who may do what: `none` (everything is tenant `anonymous`) or `header` (trust `X-Scope-OrgID`).
    pub auth: Auth,
    /// Listen off loopback without authentication all the same.
    pub allow_insecure: bool,
    /// Folder of the log, the metastore and the blocks.
    pub data_dir: PathBuf,
    /// Partitions of the log; fixed when the data folder is created.
    pub partitions: u32,
    /// How logs are written.
    pub log: Log,
    /// Limits of tenants without an override.
    pub limits: TenantLimits,
    /// A YAML file with limits by tenant, read again when it changes; empty for none.
    pub overrides_file: PathBuf,
    /// Accepting profiles.
    pub distributor: cambium_distributor::Config,
    /// Heads and flushes.
    pub ingester: cambium_ingester::Config,
    /// Queries.
    pub querier: cambium_querier::Config,
    /// Merging blocks, and removing old ones.
    pub compactor: cambium_compactor::Config,
    /// The log of acknowledged records.
    pub ingest_log: IngestLog,
    /// The metadata store.
    pub metastore: Metastore,
    /// Reading blocks.
    pub blocks: Blocks,
    /// Cambium's profiles of itself.
    pub self_profiling: SelfProfiling,
}

/// How requests are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Everything is tenant `anonymous`.
    None,
    /// `X-Scope-OrgID` is trusted: a proxy in front has checked it.
    Header,
}

/// The listener that tenants do not reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Internal {
    /// Its address.
    pub listen: SocketAddr,
}

/// This process among others. With `enabled: false` it is alone, and none of this applies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Whether there are others: the metadata store and the store of blocks are then those that all of them share.
    pub enabled: bool,
    /// This node's name, which no other has and which it keeps over restarts; the machine's where it is empty.
    pub name: String,
    /// What may fail together with this node: partitions are spread over zones.
    pub zone: String,
    /// The secret that all nodes have and nobody else; none only where everything stays on this machine.
    pub key: Option<Secret>,
    /// A file with it.
    pub key_file: PathBuf,
    /// This node's address for others' gossip, `ip` or `ip:port`; where it listens if that is empty.
    pub advertise: String,
    /// This node's address for others' calls, `host:port`; of the machine that gossips if that is empty.
    pub advertise_internal: String,
    /// Membership.
    pub gossip: swim::Config,
    /// Connections to others.
    pub peers: peers::Config,
}

impl Cluster {
    /// The secret; empty where there is none.
    pub fn key(&self) -> std::io::Result<Secret> {
        match &self.key {
            Some(key) => Ok(key.clone()),
            None if self.key_file.as_os_str().is_empty() => Ok(Secret::new("")),
            None => Secret::read(&self.key_file),
        }
    }
}

/// How logs are written, to standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level or a filter such as `info,cambium_querier=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// A log line's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors.
    Json,
}

/// Where acknowledged records are until they are in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IngestLogKind {
    /// On the disk of the ingester that owns the partition: they survive its process.
    #[default]
    Local,
    /// In Kafka: they survive a machine.
    Kafka,
}

/// The log of acknowledged records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestLog {
    /// Where it is: `local` or `kafka`.
    pub kind: IngestLogKind,
    /// How to reach Kafka.
    #[cfg(feature = "cluster")]
    pub kafka: cambium_ingestlog::kafka::Config,
}

/// Where metadata are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MetastoreKind {
    /// In a file of the data folder, which one process can open.
    #[default]
    Redb,
    /// In a TiKV cluster.
    Tikv,
}

/// The metadata store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metastore {
    /// Which: `redb` or `tikv`.
    pub kind: MetastoreKind,
    /// How to reach TiKV.
    #[cfg(feature = "cluster")]
    pub tikv: cambium_metastore::kv::tikv::Config,
    /// Pages of the store kept in memory.
    pub cache_bytes: ByteSize,
    /// Names of locations kept in memory.
    pub symbols_cache_bytes: ByteSize,
}

/// Blocks: where they are, and what is kept of them here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blocks {
    /// Where they are: a folder, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; empty for `blocks`
    /// in `data_dir`.
    pub store: String,
    /// How to reach a store that is no folder.
    pub remote: stores::Config,
    /// Sections of blocks kept in memory, as fetched and decoded.
    pub cache_bytes: ByteSize,
    /// Fetched bytes of blocks kept on a disk besides, which pays where the store is farther than that; 0 for none, else
    /// at least 32 MiB.
    pub disk_cache_bytes: ByteSize,
    /// The folder for them; empty for `cache` in `data_dir`.
    pub disk_cache_dir: PathBuf,
}

/// Profiles of this process, pushed to itself as tenant `anonymous`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfProfiling {
    /// Whether to.
    pub enabled: bool,
    /// Length of a CPU profile, and how often one is pushed.
    pub cpu_interval: Span,
    /// How often a heap profile is pushed.
    pub heap_interval: Span,
    /// Samples per second of CPU time.
    pub frequency: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            target: Target::all(),
            cluster: Cluster::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 4040)),
            internal: Internal::default(),
            auth: Auth::None,
            allow_insecure: false,
            data_dir: "./data".into(),
            partitions: 1,
            log: Log::default(),
            limits: TenantLimits::default(),
            overrides_file: PathBuf::new(),
            distributor: cambium_distributor::Config::default(),
            ingester: cambium_ingester::Config::default(),
            querier: cambium_querier::Config::default(),
            compactor: cambium_compactor::Config::default(),
            ingest_log: IngestLog::default(),
            metastore: Metastore::default(),
            blocks: Blocks::default(),
            self_profiling: SelfProfiling::default(),
        }
    }
}

impl Default for Internal {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 4041)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

impl Default for Metastore {
    fn default() -> Self {
        Self {
            kind: MetastoreKind::default(),
            #[cfg(feature = "cluster")]
            tikv: Default::default(),
            cache_bytes: ByteSize(16 << 20),
            symbols_cache_bytes: ByteSize(64 << 20),
        }
    }
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            store: String::new(),
            remote: stores::Config::default(),
            cache_bytes: ByteSize(128 << 20),
            disk_cache_bytes: ByteSize(0),
            disk_cache_dir: PathBuf::new(),
        }
    }
}

impl Default for SelfProfiling {
    fn default() -> Self {
        Self {
            enabled: true,
            cpu_interval: Span(Duration::from_secs(10)),
            heap_interval: Span(Duration::from_secs(60)),
            frequency: 99,
        }
    }
}

impl Config {
    /// Refuses combinations that would be unsafe or cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let problem = |key: &str, message: String| Err(ConfigError::Value { key: key.to_owned(), message });
        if self.auth == Auth::None && !self.listen.ip().is_loopback() && !self.allow_insecure {
            return problem(
                "auth",
                format!(
                    "{} is reachable from other machines and nothing checks who asks: set --auth, listen on \
                     loopback, or say --allow-insecure",
                    self.listen
                ),
            );
        }
        if !self.internal.listen.ip().is_loopback() && !self.cluster.enabled {
            return problem("internal.listen", "must be a loopback address: there is no cluster".to_owned());
        }
        self.check_cluster()?;
        if self.partitions == 0 || self.partitions > 1_024 {
            return problem("partitions", format!("{} is not between 1 and 1024", self.partitions));
        }
        let disk_cache_bytes = self.blocks.disk_cache_bytes.0;
        if (1..disk::BYTES_MIN).contains(&disk_cache_bytes) {
            let message = format!("must be 0 or at least {} bytes", disk::BYTES_MIN);
            return problem("blocks.disk_cache_bytes", message);
        }
        let grace = Duration::from_nanos(cambium_compactor::sweep::GRACE_NS.unsigned_abs());
        if self.querier.timeout.0 >= grace {
            let timeout = self.querier.timeout;
            let message = format!(
                "{timeout} is not shorter than the {}s for which replaced blocks are kept",
                grace.as_secs()
            );
            return problem("querier.timeout", message);
        }
        if !(1..=1_000).contains(&self.self_profiling.frequency) {
            return problem("self_profiling.frequency", "must be between 1 and 1000 Hz".to_owned());
        }
        Ok(())
    }

    /// Alone a process does everything on its own disk; with others it shares what all of them must agree on.
    fn check_cluster(&self) -> Result<(), ConfigError> {
        let problem = |key: &str, message: &str| {
            Err(ConfigError::Value { key: key.to_owned(), message: message.to_owned() })
        };
        if !self.cluster.enabled && self.target != Target::all() {
            return problem(
                "target",
                "a process that does not do everything needs others: set cluster.enabled",
            );
        }
        if self.cluster.enabled && self.metastore.kind == MetastoreKind::Redb {
            return problem("metastore.kind", "redb is for one process: a cluster needs tikv");
        }
        if self.cluster.enabled && self.blocks.store.is_empty() {
            return problem("blocks.store", "must name the store that all nodes of the cluster share");
        }
        if self.metastore.kind == MetastoreKind::Tikv && !cfg!(feature = "cluster") {
            return problem(
                "metastore.kind",
                "this build has no client of TiKV: build with --features cluster",
            );
        }
        if self.ingest_log.kind == IngestLogKind::Kafka && !cfg!(feature = "cluster") {
            return problem(
                "ingest_log.kind",
                "this build has no client of Kafka: build with --features cluster",
            );
        }
        if self.ingest_log.kind == IngestLogKind::Kafka && !self.cluster.enabled {
            return problem(
                "ingest_log.kind",
                "a process that is alone has its log on its own disk: set cluster.enabled",
            );
        }
        let key = self.cluster.key().map_err(|error| ConfigError::Value {
            key: "cluster.key_file".to_owned(),
            message: error.to_string(),
        })?;
        if !self.internal.listen.ip().is_loopback() && key.expose().trim().is_empty() {
            return problem(
                "cluster.key",
                "must be set where the internal port is reachable from other machines",
            );
        }
        Ok(())
    }

    /// The limits in force: the defaults, and what `overrides_file` says.
    pub fn overrides(&self) -> Result<Overrides, ConfigError> {
        if self.overrides_file.as_os_str().is_empty() {
            return Ok(Overrides { defaults: self.limits.clone(), tenants: Default::default() });
        }
        layers::overrides(&self.overrides_file, &self.limits)
    }
}

#[cfg(test)]
mod tests;
