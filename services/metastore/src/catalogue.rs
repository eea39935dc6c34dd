//! The catalogue: which blocks there are, and up to which offset each log is in blocks.
//!
//! ```text
//!   owner  ── open_log ──► LogState { epoch + 1, committed_next }        fences whoever held the log before
//!          ── commit_flush { range, epoch, block } ──► ONE transaction: block entry + committed_next = range.next
//!   compactor ── replace { inputs, outputs, lease } ──► ONE transaction: entries out, entries in, objects to garbage
//!   querier ── view(tenant, range) ──► blocks and committed offsets of ONE snapshot
//! ```
//!
//! Laws: an entry and the offset it covers appear in the same instant, so that heads and blocks never overlap; a log's
//! commits follow each other without gap; whoever opened a log last is the only one who can commit to it; whoever holds
//! a job's lease is the only one who can commit it; committing the same thing again is harmless, which is also the way
//! out of an undetermined commit; entries are immutable, and whoever removes one says so in a counter beside it.

use std::sync::Arc;

use bytes::Bytes;
use cambium_model::block::{BlockMeta, LogId, LogRange, Offset};
use cambium_model::profile::ProfileId;
use cambium_model::tenant::TenantNumber;
use cambium_proto::wire::metastore as stored;
use cambium_runtime::error::{self, HasKind};
use prost::Message;

use crate::error::{Error as StoreError, decode, decode_u32};
use crate::keys::{self, Kind};
use crate::kv::{self, Key, KvStore, Snapshot, Step, Txn};
use crate::leases::Lease;

mod deletions;

mod logs;

mod rebuild;

mod replace;

mod view;

pub use deletions::DELETIONS_MAX;
pub use logs::OpenLog;
pub use rebuild::{Rebuilt, RebuiltTenant};
pub use replace::{Garbage, Replacement};
pub use view::{CatalogueView, Everything, LogBlocks, OwnedBlocks};

/// Why the catalogue refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed, or holds a corrupt value.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody else has opened the log since: the caller no longer owns it.
    #[error("log {log} was opened with epoch {current} since, epoch {ours} may not commit any more")]
    Fenced {
        /// The log.
        log: LogId,
        /// The caller's epoch.
        ours: u64,
        /// The epoch now.
        current: u64,
    },
    /// The flush does not begin where the last one ended: a defect of the caller.
    #[error("a flush of log {log} begins at offset {first}, but the log is committed up to {committed_next}")]
    OutOfOrder {
        /// The log.
        log: LogId,
        /// Where the flush begins.
        first: u64,
        /// Where it should.
        committed_next: u64,
    },
    /// Somebody else has merged or removed some of the blocks since.
    #[error("block {path} is no longer in the catalogue")]
    BlockGone {
        /// The first that is missing.
        path: String,
    },
    /// The tenant has as many deletions as it may have.
    #[error("the tenant has {DELETIONS_MAX} deletions already: delete by fewer selectors")]
    TooManyDeletions,
    /// The catalogue is not whole: rebuilding it was begun and not ended.
    #[error("the catalogue is not whole: run cambium admin rebuild-catalogue --replace again")]
    Unfinished,
    /// Somebody else holds the lease under which this was done.
    #[error("the lease on {job} with fence {fence} is lost")]
    LeaseLost {
        /// The job.
        job: String,
        /// The caller's fence.
        fence: u64,
    },
    /// The log is sealed: whatever it held is in blocks, or was given up.
    #[error("log {log} is sealed")]
    Sealed {
        /// The log.
        log: LogId,
    },
    /// Nobody has opened the log: a defect of the caller.
    #[error("log {log} was never opened")]
    UnknownLog {
        /// The log.
        log: LogId,
    },
}

impl From<kv::Error> for Error {
    fn from(error: kv::Error) -> Self {
        Self::Store(error.into())
    }
}

impl HasKind for Error {
    fn kind(&self) -> error::Kind {
        match self {
            Self::Store(error) => error.kind(),
            // The log's new owner will take the work.
            Self::Fenced { .. } | Self::Sealed { .. } | Self::BlockGone { .. } | Self::LeaseLost { .. } => {
                error::Kind::Unavailable
            }
            Self::TooManyDeletions => error::Kind::Unprocessable,
            Self::OutOfOrder { .. } | Self::UnknownLog { .. } | Self::Unfinished => error::Kind::Internal,
        }
    }
}

/// How far a log is in blocks, and the fence of whoever opened it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Raised by one at every opening; the first is 1.
    pub epoch: u64,
    /// The first offset that is in no committed block.
    pub committed_next: Offset,
}

/// A run of a log that is safe in a block, or that holds nothing worth one.
#[derive(Clone, Debug, PartialEq)]
pub struct FlushCommit {
    /// The records; not empty.
    pub range: LogRange,
    /// The epoch that [`Catalogue::open_log`] gave.
    pub epoch: u64,
    /// The block that holds them, already in object storage; `None` where every record was a duplicate.
    pub block: Option<BlockMeta>,
    /// The tenure of the log's partition that must be in force, where tenures decide who may write: the flusher's own, or
    /// for a log of an earlier tenure that of the owner who said which of its pushes it has taken in since.
    pub tenure: Option<Lease>,
}

/// The block catalogue of a cluster.
#[derive(Debug)]
pub struct Catalogue {
    store: Arc<dyn KvStore>,
    read: view::Entries,
}

impl Catalogue {
    /// The catalogue kept in `store`.
    pub fn new(store: Arc<dyn KvStore>) -> Self {
        Self { store, read: view::Entries::default() }
    }

    /// The cluster's partition count: `configured` if it has none yet, else the one it was created with. The caller
    /// compares, because a cluster's partitions cannot be changed.
    ///
    /// # Errors
    /// [`Error::Unfinished`]: nobody may start on half a catalogue.
    pub async fn fix_partition_count(&self, configured: u32) -> Result<u32, Error> {
        kv::transact(&*self.store, |snapshot| async move {
            let key = keys::partition_count();
            if snapshot.get(&keys::rebuilding()).await?.is_some() {
                return Err(Error::Unfinished);
            }
            if let Some(value) = snapshot.get(&key).await? {
                return Ok(Step::Done(decode_u32(Kind::PartitionCount, &value)?));
            }
            let value = configured.to_be_bytes().to_vec();
            Ok(Step::Commit(Txn::new().expect(key.clone(), None).put(key, value), configured))
        })
        .await
    }

    /// Commits a flush: the block's entry and the log's committed offset, in one transaction. Committing the same
    /// flush again succeeds without effect.
    ///
    /// Errors: [`Error::Fenced`], [`Error::LeaseLost`], [`Error::OutOfOrder`], [`Error::UnknownLog`]; nothing is written then. On
    /// [`Error::Store`] the outcome may be unknown: commit the same flush again.
    pub async fn commit_flush(&self, flush: &FlushCommit) -> Result<(), Error> {
        debug_assert!(flush.range.first < flush.range.next, "a flush holds at least one record");
        debug_assert!(
            flush
                .block
                .as_ref()
                .is_none_or(|block| block.log_ranges == [flush.range] && block.epoch == flush.epoch),
            "the block says what the flush says"
        );
        kv::transact(&*self.store, |snapshot| decide_flush(snapshot, flush, &[])).await
    }

    /// Commits a block of imported profiles like a flush, and that these of the tenant's are in it.
    ///
    /// # Errors
    /// As [`Self::commit_flush`].
    pub async fn commit_import(
        &self,
        flush: &FlushCommit,
        tenant: TenantNumber,
        imported: &[ProfileId],
    ) -> Result<(), Error> {
        let marks: Vec<Key> = imported.iter().map(|id| keys::imported(tenant, *id)).collect();
        kv::transact(&*self.store, |snapshot| decide_flush(snapshot, flush, &marks)).await
    }

    /// Which of these profiles the tenant has imported.
    pub async fn imported(&self, tenant: TenantNumber, ids: &[ProfileId]) -> Result<Vec<bool>, Error> {
        let marks: Vec<Key> = ids.iter().map(|id| keys::imported(tenant, *id)).collect();
        let held = self.store.snapshot().await?.batch_get(&marks).await?;
        Ok(held.iter().map(Option::is_some).collect())
    }
}

/// What committing this flush means on this snapshot.
async fn decide_flush(
    snapshot: Box<dyn Snapshot>,
    flush: &FlushCommit,
    marks: &[Key],
) -> Result<Step<()>, Error> {
    let FlushCommit { range, epoch, block, tenure } = flush;
    let log = range.log;
    let (state_key, block_key) = (keys::log_state(log), keys::block(log, range.first));
    let mut values = snapshot.batch_get(&[state_key.clone(), block_key.clone()]).await?.into_iter();
    let (before, entry) = (values.next().flatten(), values.next().flatten());
    let state: stored::LogState = match &before {
        Some(value) => decode(Kind::LogState, value)?,
        None => return Err(Error::UnknownLog { log }),
    };
    if is_committed(flush, &state, entry.as_ref())? {
        return Ok(Step::Done(()));
    }
    if state.epoch != *epoch {
        return Err(Error::Fenced { log, ours: *epoch, current: state.epoch });
    }
    if state.committed_next != range.first.0 {
        let committed_next = state.committed_next;
        return Err(Error::OutOfOrder { log, first: range.first.0, committed_next });
    }
    let after = stored::LogState { committed_next: range.next.0, ..state };
    let txn = match tenure {
        Some(lease) => expect_lease(&*snapshot, lease, Txn::new()).await?,
        None => Txn::new(),
    };
    let txn = txn.expect(state_key.clone(), before).put(state_key, after.encode_to_vec());
    let txn = marks.iter().fold(txn, |txn, mark| txn.put(mark.clone(), Vec::new()));
    let txn = match block {
        Some(block) => txn.put(block_key, stored::BlockEntry::from(block).encode_to_vec()),
        None => txn,
    };
    Ok(Step::Commit(txn, ()))
}

/// The transaction, and that the lease is held still.
async fn expect_lease(snapshot: &dyn Snapshot, lease: &Lease, txn: Txn) -> Result<Txn, Error> {
    let key = keys::lease(&lease.job);
    let value = snapshot.get(&key).await?;
    let record: Option<stored::LeaseRecord> =
        value.as_ref().map(|value| decode(Kind::Lease, value)).transpose()?;
    if record.is_none_or(|record| record.fence != lease.fence) {
        return Err(Error::LeaseLost { job: lease.job.clone(), fence: lease.fence });
    }
    Ok(txn.expect(key, value))
}

/// Whether an earlier attempt has committed this flush: its block has its entry (no other holder can have written
/// that path), or its own epoch has passed the range, without a block or with one that has been merged since.
fn is_committed(flush: &FlushCommit, state: &stored::LogState, entry: Option<&Bytes>) -> Result<bool, Error> {
    match (&flush.block, entry) {
        (Some(block), Some(entry)) => {
            let entry = read_block(Kind::Block, entry)?;
            Ok(entry.path == block.path && entry.epoch == block.epoch && entry.log_ranges == block.log_ranges)
        }
        (_, None) => Ok(state.epoch == flush.epoch && state.committed_next >= flush.range.next.0),
        (None, Some(_)) => Ok(false),
    }
}

fn read_block(kind: Kind, value: &[u8]) -> Result<BlockMeta, Error> {
    let entry: stored::BlockEntry = decode(kind, value)?;
    Ok(BlockMeta::try_from(entry).map_err(|source| StoreError::corrupt(kind, source))?)
}

/// Reads a stored number: eight bytes, big endian.
pub(crate) fn read_u64(kind: Kind, value: &[u8]) -> Result<u64, Error> {
    let bytes: Result<[u8; 8], _> = value.try_into();
    Ok(u64::from_be_bytes(bytes.map_err(|source| StoreError::corrupt(kind, source))?))
}

#[cfg(test)]
mod tests;
