//! Writing a whole catalogue, as it was read from the bucket. For a store that nobody else uses meanwhile.
//!
//! ```text
//!   mark ─► old entries out ─► tenants ─► entries ─► versions, logs, counters ─► unmark
//! ```
//!
//! Laws: while the mark stands nobody can start on the catalogue, so that a crash on the way is seen and the same done
//! again; numbers of tenants, deletions, fences and epochs never go down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cambium_model::block::{BlockMeta, IMPORTS, LogId, Partition};
use cambium_model::tenant::{Tenant, TenantNumber};
use cambium_proto::wire::metastore as stored;
use prost::Message;

use super::{Catalogue, Error, LogState, read_u64};
use crate::error::{decode, decode_u32};
use crate::keys::{self, Kind, OwnerDay};
use crate::kv::{self, Key, KvStore, Step, Txn};
use crate::tenants;

/// Keys written or deleted at a time.
const KEYS_AT_ONCE: usize = 128;

/// So many numbers of logs of each partition are left out after a rebuild, where tenures have logs of their own.
const LOGS_SKIPPED: u32 = 1_024;

/// What the bucket says that the catalogue should hold.
#[derive(Clone, Debug, Default)]
pub struct Rebuilt {
    /// The blocks that count.
    pub blocks: Vec<Arc<BlockMeta>>,
    /// Every log, with the highest epoch seen.
    pub logs: BTreeMap<LogId, LogState>,
    /// The highest fence seen.
    pub fence: u64,
    /// Every tenant seen, by number.
    pub tenants: Vec<RebuiltTenant>,
    /// The highest number of a deletion seen, by tenant.
    pub last_deletions: BTreeMap<TenantNumber, u64>,
    /// As many partitions as there are at least.
    pub partitions_min: u32,
}

/// A tenant as its blocks name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuiltTenant {
    /// The tenant.
    pub tenant: Tenant,
    /// Its earliest profile, nanoseconds since the Unix epoch.
    pub first_ns: i64,
}

impl Catalogue {
    /// How many blocks and how many logs with something committed the store knows: none where a catalogue may be rebuilt
    /// without replacing one.
    pub async fn entries(&self) -> Result<usize, Error> {
        let snapshot = self.store.snapshot().await?;
        let mut entries = 0;
        for range in [keys::all_blocks(), keys::all_merged()] {
            entries += kv::count(&*snapshot, range).await?;
        }
        for (_, value) in kv::scan_all(&*snapshot, keys::log_states()).await? {
            let state: stored::LogState = decode(Kind::LogState, &value)?;
            entries += usize::from(state.committed_next > 0);
        }
        Ok(entries)
    }

    /// The partition count that the store knows, if any.
    pub async fn partition_count(&self) -> Result<Option<u32>, Error> {
        let value = self.store.snapshot().await?.get(&keys::partition_count()).await?;
        Ok(value.map(|value| decode_u32(Kind::PartitionCount, &value)).transpose()?)
    }

    /// Replaces whatever the catalogue holds by this. Doing the same again does the same.
    ///
    /// # Errors
    /// [`Error::Store`]: do the same again; until that succeeds nobody can start on the store. Where tenants and blocks
    /// disagree, nothing has been written.
    pub async fn rebuild(&self, rebuilt: &Rebuilt, partitions: u32, now_ns: i64) -> Result<(), Error> {
        let store = &*self.store;
        tenants::check(store, &rebuilt.tenants).await?;
        kv::put_all(store, vec![(keys::rebuilding(), Vec::new())]).await?;
        fail::fail_point!("rebuild-marked");
        let epochs = self.epochs().await?;
        for range in keys::of_catalogue() {
            kv::delete_all(store, range, KEYS_AT_ONCE).await?;
        }
        fail::fail_point!("rebuild-emptied");
        tenants::rebuild(store, &rebuilt.tenants, now_ns).await?;
        let mut entries: Vec<(Key, Vec<u8>)> = Vec::with_capacity(KEYS_AT_ONCE);
        for blocks in rebuilt.blocks.chunks(KEYS_AT_ONCE) {
            let entry = |block: &Arc<BlockMeta>| {
                (keys::entry(block), stored::BlockEntry::from(&**block).encode_to_vec())
            };
            entries.extend(blocks.iter().map(entry));
            kv::put_all(store, std::mem::take(&mut entries)).await?;
        }
        fail::fail_point!("rebuild-entered");
        let merged = rebuilt.blocks.iter().filter(|block| block.level > 0);
        let places: BTreeSet<OwnerDay> = merged.map(|block| OwnerDay::of(block)).collect();
        entries.extend(places.into_iter().map(|p| (keys::merged_version(p), 1_u64.to_be_bytes().to_vec())));
        entries.extend(rebuilt.logs.iter().map(|(log, state)| {
            let epoch = state.epoch.max(epochs.get(log).copied().unwrap_or(0));
            let committed_next = state.committed_next.0;
            let state = stored::LogState { epoch, committed_next, ..stored::LogState::default() };
            (keys::log_state(*log), state.encode_to_vec())
        }));
        entries.extend(skipped_logs(&rebuilt.logs));
        entries.push((keys::partition_count(), partitions.to_be_bytes().to_vec()));
        for chunk in entries.chunks(KEYS_AT_ONCE) {
            kv::put_all(store, chunk.to_vec()).await?;
        }
        raise(store, keys::fence(), Kind::Fence, rebuilt.fence).await?;
        for (tenant, last) in &rebuilt.last_deletions {
            raise(store, keys::last_deletion(*tenant), Kind::LastDeletion, *last).await?;
        }
        kv::delete_all(store, keys::rebuildings(), 1).await?;
        Ok(())
    }

    /// The epochs that logs have had.
    async fn epochs(&self) -> Result<BTreeMap<LogId, u64>, Error> {
        let snapshot = self.store.snapshot().await?;
        let mut epochs = BTreeMap::new();
        for (key, value) in kv::scan_all(&*snapshot, keys::log_states()).await? {
            let state: stored::LogState = decode(Kind::LogState, &value)?;
            epochs.extend(keys::log_of(&key).map(|log| (log, state.epoch)));
        }
        Ok(epochs)
    }
}

/// Numbers of logs that are given no more, because a tenure may have begun one and flushed nothing of it, so that the bucket
/// does not show it while some node's disk still has it.
fn skipped_logs(seen: &BTreeMap<LogId, LogState>) -> Vec<(Key, Vec<u8>)> {
    let mut last: BTreeMap<Partition, u32> = BTreeMap::new();
    for id in seen.keys().filter(|id| id.log > 0 && id.partition != IMPORTS) {
        last.insert(id.partition, id.log);
    }
    let sealed = stored::LogState { sealed: true, ..Default::default() }.encode_to_vec();
    let skip = |(partition, log): (Partition, u32)| {
        (keys::log_state(LogId { partition, log: log.saturating_add(LOGS_SKIPPED) }), sealed.clone())
    };
    last.into_iter().map(skip).collect()
}

/// Sets a counter that is lower, or not there.
async fn raise(store: &dyn KvStore, key: Key, kind: Kind, least: u64) -> Result<(), Error> {
    kv::transact(store, |snapshot| {
        let key = key.clone();
        async move {
            let before = snapshot.get(&key).await?;
            let held = before.as_ref().map_or(Ok(0), |value| read_u64(kind, value))?;
            if held >= least {
                return Ok(Step::Done(()));
            }
            let txn = Txn::new().expect(key.clone(), before).put(key, least.to_be_bytes().to_vec());
            Ok(Step::Commit(txn, ()))
        }
    })
    .await
}
