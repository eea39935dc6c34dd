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
use cambium_model::limits::{Overrides, TenantLimits};
use cambium_runtime::quantity::{ByteSize, Span};
use serde::{Deserialize, Serialize};

mod layers;

pub use layers::{ConfigError, Setting, load, settings};

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which roles to run. This build runs all of them in one process.
    pub target: Target,
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
    /// The metadata store.
    pub metastore: Metastore,
    /// Reading blocks.
    pub blocks: Blocks,
    /// Cambium's profiles of itself.
    pub self_profiling: SelfProfiling,
}

/// Which roles a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// All of them, talking in process.
    All,
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

/// The embedded metadata store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metastore {
    /// Pages of the store kept in memory.
    pub cache_bytes: ByteSize,
    /// Names of locations kept in memory.
    pub symbols_cache_bytes: ByteSize,
}

/// Reading blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blocks {
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
            target: Target::All,
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
        Self { cache_bytes: ByteSize(16 << 20), symbols_cache_bytes: ByteSize(64 << 20) }
    }
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
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
        if !self.internal.listen.ip().is_loopback() {
            return problem(
                "internal.listen",
                "must be a loopback address: this build has no credentials between roles".to_owned(),
            );
        }
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
