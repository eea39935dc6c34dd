//! The seam to the recent profiles: those that no committed block holds yet.
//!
//! Law: together with the blocks of one catalogue snapshot, the answer for that snapshot's logs holds every acked profile
//! exactly once, but for those in logs that it names as missing.

use std::sync::Arc;

use async_trait::async_trait;
use cambium_blocks::Source;
use cambium_metastore::catalogue::OpenLog;
use cambium_model::block::{LogId, Offset};
use cambium_model::tenant::Tenant;
use cambium_runtime::error::{HasKind, Kind};

pub mod remote;

/// Whoever holds heads.
#[async_trait]
pub trait Heads: Send + Sync {
    /// The tenant's profiles in each of these logs, from where its blocks end.
    async fn heads(&self, tenant: &Tenant, logs: &[OpenLog]) -> Result<Found, HeadsError>;
}

/// The heads that were found.
#[derive(Debug, Default)]
pub struct Found {
    /// One or several of each log.
    pub heads: Vec<Arc<dyn Source>>,
    /// Logs that nobody could be asked for.
    pub missing: Vec<OpenLog>,
}

/// Why there is no answer from heads.
#[derive(Debug, thiserror::Error)]
pub enum HeadsError {
    /// A holder no longer has what follows the committed offset, because newer blocks hold it: take a new snapshot
    /// of the catalogue.
    #[error("log {log} no longer holds its profiles from offset {committed} on", committed = .committed.0)]
    SnapshotTooOld {
        /// The log.
        log: LogId,
        /// The offset of the catalogue's snapshot.
        committed: Offset,
    },
    /// A holder cannot be asked now.
    #[error("recent profiles are not available: {0}")]
    Unavailable(String),
}

impl HasKind for HeadsError {
    fn kind(&self) -> Kind {
        match self {
            Self::SnapshotTooOld { .. } | Self::Unavailable(_) => Kind::Unavailable,
        }
    }
}
