//! The catalogue: which blocks there are, and up to which offset each log is in blocks.
//!
//! ```text
//!   owner  ── open_log ──► LogState { epoch + 1, committed_next }        fences whoever held the log before
//!          ── commit_flush { range, epoch, block } ──► ONE transaction: block entry + committed_next = range.next
//!   querier ── view(tenant, range) ──► blocks and committed offsets of ONE snapshot
//! ```
//!
//! Laws: an entry and the offset it covers appear in the same instant, so that heads and blocks never overlap; a log's
//! commits follow each other without gap; whoever opened a log last is the only one who can commit to it; committing
//! the same flush again is harmless, which is also the way out of an undetermined commit; entries are immutable.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cambium_model::block::{BlockMeta, LogId, LogRange, Offset};
use cambium_model::tenant::Tenant;
use cambium_model::time::TimeRange;
use cambium_proto::wire::metastore as stored;
use cambium_runtime::error::{self, HasKind};
use prost::Message;

use crate::error::{Error as StoreError, decode, decode_u32};
use crate::keys::{self, Kind};
use crate::kv::{self, KvStore, Snapshot, Step, Txn};

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
            Self::Fenced { .. } => error::Kind::Unavailable,
            Self::OutOfOrder { .. } | Self::UnknownLog { .. } => error::Kind::Internal,
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
}

/// One cut of the catalogue, as one tenant sees it.
#[derive(Clone, Debug)]
pub struct CatalogueView {
    /// Blocks with a dataset of the tenant that touches the range, by log and offset.
    pub blocks: Vec<Arc<BlockMeta>>,
    /// Every log, with the first offset that is in no block: from there on, its holder answers.
    pub committed: Vec<(LogId, Offset)>,
}

/// The block catalogue of a cluster.
#[derive(Debug)]
pub struct Catalogue {
    store: Arc<dyn KvStore>,
    /// Decoded entries, so that a view reads only what was committed since the last one. Entries are immutable and
    /// nothing removes them yet; whoever first does must make it show in the log's state.
    logs: Mutex<HashMap<LogId, CachedLog>>,
}

/// The entries of one log up to an offset where a commit ended, in log order.
#[derive(Debug, Default)]
struct CachedLog {
    next: u64,
    blocks: Vec<Arc<BlockMeta>>,
}

impl Catalogue {
    /// The catalogue kept in `store`.
    pub fn new(store: Arc<dyn KvStore>) -> Self {
        Self { store, logs: Mutex::default() }
    }

    /// The cluster's partition count: `configured` if it has none yet, else the one it was created with. The caller
    /// compares, because a cluster's partitions cannot be changed.
    pub async fn fix_partition_count(&self, configured: u32) -> Result<u32, Error> {
        kv::transact(&*self.store, |snapshot| async move {
            let key = keys::partition_count();
            if let Some(value) = snapshot.get(&key).await? {
                return Ok(Step::Done(decode_u32(Kind::PartitionCount, &value)?));
            }
            let value = configured.to_be_bytes().to_vec();
            Ok(Step::Commit(Txn::new().expect(key.clone(), None).put(key, value), configured))
        })
        .await
    }

    /// Takes the log over: fences every earlier holder, and says where to replay from. `holder` names the node for
    /// people; it may be empty.
    pub async fn open_log(&self, log: LogId, holder: &str) -> Result<LogState, Error> {
        kv::transact(&*self.store, |snapshot| async move {
            let key = keys::log_state(log);
            let before = snapshot.get(&key).await?;
            let mut state: stored::LogState = match &before {
                Some(value) => decode(Kind::LogState, value)?,
                None => stored::LogState::default(),
            };
            // After an undetermined commit this may raise the epoch twice, which fences nobody but ourselves.
            state.epoch += 1;
            state.holder = holder.to_owned();
            let opened = LogState { epoch: state.epoch, committed_next: Offset(state.committed_next) };
            let txn = Txn::new().expect(key.clone(), before).put(key, state.encode_to_vec());
            Ok(Step::Commit(txn, opened))
        })
        .await
    }

    /// Commits a flush: the block's entry and the log's committed offset, in one transaction. Committing the same
    /// flush again succeeds without effect.
    ///
    /// Errors: [`Error::Fenced`], [`Error::OutOfOrder`], [`Error::UnknownLog`]; nothing is written then. On
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
        kv::transact(&*self.store, |snapshot| decide_flush(snapshot, flush)).await
    }

    /// The tenant's blocks that touch the range, and how far every log is in blocks, as of one instant.
    pub async fn view(&self, tenant: &Tenant, range: TimeRange) -> Result<CatalogueView, Error> {
        let committed = self.refresh().await?;
        let mut blocks = Vec::new();
        let logs = self.logs();
        for (log, next) in &committed {
            let Some(cached) = logs.get(log) else { continue };
            // The cache may know later commits than this snapshot: they are not part of the cut.
            let until = cached.blocks.partition_point(|block| first_offset(block) < next.0);
            let touching =
                |block: &&Arc<BlockMeta>| block.dataset(tenant).is_some_and(|dataset| dataset.touches(range));
            blocks.extend(cached.blocks[..until].iter().filter(touching).cloned());
        }
        drop(logs);
        Ok(CatalogueView { blocks, committed })
    }

    /// Every tenant's blocks of one log that hold a profile of this time or later, in log order. Its owner reads
    /// from them at start which pushes a client may still retry.
    pub async fn blocks_since(&self, log: LogId, since_ns: i64) -> Result<Vec<Arc<BlockMeta>>, Error> {
        self.refresh().await?;
        let logs = self.logs();
        let held = logs.get(&log).map(|cached| cached.blocks.as_slice()).unwrap_or_default();
        let recent =
            |block: &&Arc<BlockMeta>| block.datasets.iter().any(|dataset| dataset.last_ns >= since_ns);
        Ok(held.iter().filter(recent).cloned().collect())
    }

    /// Caches what was committed since the last time; how far every log is, as of one instant.
    async fn refresh(&self) -> Result<Vec<(LogId, Offset)>, Error> {
        let snapshot = self.store.snapshot().await?;
        let committed = committed_offsets(&*snapshot).await?;
        for (log, from, to) in self.uncached(&committed) {
            let entries = kv::scan_all(&*snapshot, keys::blocks(log, from, to)).await?;
            let blocks =
                entries.iter().map(|(_, value)| read_block(value, log)).collect::<Result<Vec<_>, _>>()?;
            self.remember(log, to, blocks);
        }
        Ok(committed)
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<LogId, CachedLog>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For each log, the offsets that are committed but not cached.
    fn uncached(&self, committed: &[(LogId, Offset)]) -> Vec<(LogId, Offset, Offset)> {
        let logs = self.logs();
        let cached_next = |log| logs.get(log).map_or(0, |cached| cached.next);
        let behind = committed.iter().map(|(log, next)| (*log, Offset(cached_next(log)), *next));
        behind.filter(|(_, from, to)| from < to).collect()
    }

    /// Caches the log's blocks up to `to`; some of them may have been cached by another view meanwhile.
    fn remember(&self, log: LogId, to: Offset, blocks: Vec<BlockMeta>) {
        let mut logs = self.logs();
        let cached = logs.entry(log).or_default();
        let new = blocks.into_iter().filter(|block| first_offset(block) >= cached.next);
        cached.blocks.extend(new.map(Arc::new));
        cached.next = cached.next.max(to.0);
    }
}

/// What committing this flush means on this snapshot.
async fn decide_flush(snapshot: Box<dyn Snapshot>, flush: &FlushCommit) -> Result<Step<()>, Error> {
    let FlushCommit { range, epoch, block } = flush;
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
    let txn = Txn::new().expect(state_key.clone(), before).put(state_key, after.encode_to_vec());
    let txn = match block {
        Some(block) => txn.put(block_key, stored::BlockEntry::from(block).encode_to_vec()),
        None => txn,
    };
    Ok(Step::Commit(txn, ()))
}

/// Whether an earlier attempt has committed this flush: its block has its entry (no other holder can have written
/// that path), or without a block its own epoch has passed the range.
fn is_committed(flush: &FlushCommit, state: &stored::LogState, entry: Option<&Bytes>) -> Result<bool, Error> {
    match (&flush.block, entry) {
        (Some(block), Some(entry)) => {
            let entry = read_block(entry, flush.range.log)?;
            Ok(entry.path == block.path && entry.epoch == block.epoch && entry.log_ranges == block.log_ranges)
        }
        (None, None) => Ok(state.epoch == flush.epoch && state.committed_next >= flush.range.next.0),
        _ => Ok(false),
    }
}

async fn committed_offsets(snapshot: &dyn Snapshot) -> Result<Vec<(LogId, Offset)>, Error> {
    let states = kv::scan_all(snapshot, keys::log_states()).await?;
    let read = |(key, value): &(kv::Key, Bytes)| {
        let log =
            keys::log_of(key).ok_or_else(|| StoreError::corrupt(Kind::LogState, "the key names no log"))?;
        let state: stored::LogState = decode(Kind::LogState, value)?;
        Ok((log, Offset(state.committed_next)))
    };
    states.iter().map(read).collect()
}

/// Reads an entry of this log; its one log range is checked here, so that [`first_offset`] can rely on it.
fn read_block(value: &[u8], log: LogId) -> Result<BlockMeta, Error> {
    let entry: stored::BlockEntry = decode(Kind::Block, value)?;
    let block = BlockMeta::try_from(entry).map_err(|source| StoreError::corrupt(Kind::Block, source))?;
    if !matches!(block.log_ranges.as_slice(), [range] if range.log == log) {
        return Err(StoreError::corrupt(Kind::Block, "a level 0 block holds one range of its log").into());
    }
    Ok(block)
}

fn first_offset(block: &BlockMeta) -> u64 {
    block.log_ranges[0].first.0
}

#[cfg(test)]
mod tests;
