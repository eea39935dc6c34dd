//! Reading the catalogue: every view is of one snapshot, and reads only what has changed since the last one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cambium_model::block::{BlockMeta, LogId, Offset, Partition};
use cambium_model::deletion::RecordedDeletion;
use cambium_model::tenant::{Tenant, TenantNumber};
use cambium_model::time::TimeRange;
use cambium_proto::wire::metastore as stored;

use super::{Catalogue, Error, OpenLog, logs, read_block, read_u64};
use crate::error::Error as StoreError;
use crate::keys::{self, Kind, OwnerDay};
use crate::kv::{self, Key, Snapshot};
use crate::tenants::{self, Retired};

/// Bytes of merged blocks' entries kept in memory.
const MERGED_CACHE_BYTES: u64 = 64 << 20;

/// One cut of the catalogue, as one tenant sees it.
#[derive(Clone, Debug)]
pub struct CatalogueView {
    /// Blocks with a dataset of the tenant that touches the range: merged ones first, then those of level 0 by log and
    /// offset.
    pub blocks: Vec<Arc<BlockMeta>>,
    /// Every log of which records may be in no block: its holder answers for them.
    pub logs: Vec<OpenLog>,
    /// What of all that, heads included, does not count any more.
    pub deletions: Vec<RecordedDeletion>,
    /// The tenant was deleted: nothing of it counts, heads included, and no blocks are shown.
    pub retired: bool,
}

/// All of the catalogue, as of one instant.
#[derive(Clone, Debug, Default)]
pub struct Everything {
    /// Blocks of level 0, by log.
    pub logs: Vec<LogBlocks>,
    /// Merged blocks, by owner and day.
    pub merged: Vec<OwnedBlocks>,
    /// What tenants have had deleted, in the order of the deletions' numbers.
    pub deletions: BTreeMap<TenantNumber, Vec<RecordedDeletion>>,
    /// Tenants that were deleted.
    pub retired: BTreeMap<TenantNumber, Retired>,
}

/// A log's blocks of level 0.
#[derive(Clone, Debug)]
pub struct LogBlocks {
    /// The log.
    pub log: LogId,
    /// The first offset that is in no block.
    pub next: Offset,
    /// The log while it is not sealed.
    pub open: Option<OpenLog>,
    /// The blocks, in log order.
    pub blocks: Vec<Arc<BlockMeta>>,
}

/// The merged blocks of one tenant, or of several where they share them, whose last profiles are of one day.
#[derive(Clone, Debug)]
pub struct OwnedBlocks {
    /// The tenant; none where several share the blocks.
    pub tenant: Option<TenantNumber>,
    /// Days since the Unix epoch.
    pub day: u32,
    /// The blocks.
    pub blocks: Vec<Arc<BlockMeta>>,
}

/// What has been read.
#[derive(Debug)]
pub(super) struct Entries {
    logs: Mutex<HashMap<LogId, CachedLog>>,
    days: moka::sync::Cache<OwnerDay, CachedDay>,
}

/// The entries of one log up to an offset where a commit ended, in log order, as of so many removals.
#[derive(Clone, Debug, Default)]
struct CachedLog {
    removals: u64,
    next: u64,
    blocks: Vec<Arc<BlockMeta>>,
}

/// The merged blocks of an owner's day, as of this version.
#[derive(Clone, Debug)]
struct CachedDay {
    version: u64,
    bytes: u32,
    blocks: Arc<Vec<Arc<BlockMeta>>>,
}

impl Default for Entries {
    fn default() -> Self {
        let days = moka::sync::Cache::builder()
            .max_capacity(MERGED_CACHE_BYTES)
            .weigher(|_, day: &CachedDay| day.bytes)
            .build();
        Self { logs: Mutex::default(), days }
    }
}

impl Catalogue {
    /// The tenant's blocks that touch the range, and how far every log is in blocks, as of one instant.
    pub async fn view(&self, tenant: &Tenant, range: TimeRange) -> Result<CatalogueView, Error> {
        let snapshot = self.store.snapshot().await?;
        let day = keys::day_of(range.start_ns);
        let mut blocks = Vec::new();
        for owner in [tenant.number, keys::SHARED] {
            let versions = kv::scan_all(&*snapshot, keys::merged_versions(OwnerDay { owner, day })).await?;
            for (place, version) in read_versions(&versions)? {
                blocks.extend(self.read.day(&*snapshot, place, version).await?.iter().cloned());
            }
        }
        let logs = self.read.logs(&*snapshot).await?;
        let open = logs.iter().filter_map(|log| log.open.clone()).collect();
        blocks.extend(logs.into_iter().flat_map(|log| log.blocks));
        blocks.retain(|block| block.dataset(tenant).is_some_and(|dataset| dataset.touches(range)));
        let deletions = super::deletions::of(&*snapshot, tenant.number).await?;
        let retired = snapshot.get(&keys::retired(tenant.number)).await?.is_some();
        if retired {
            blocks.clear();
        }
        Ok(CatalogueView { blocks, logs: open, deletions, retired })
    }

    /// Every tenant's blocks that hold records of the partition and a profile of this time or later. Its owner reads from
    /// them at start which pushes a client may still retry.
    pub async fn blocks_since(
        &self,
        partition: Partition,
        since_ns: i64,
    ) -> Result<Vec<Arc<BlockMeta>>, Error> {
        let snapshot = self.store.snapshot().await?;
        let versions = kv::scan_all(&*snapshot, keys::all_merged_versions()).await?;
        let mut blocks = Vec::new();
        for (place, version) in read_versions(&versions)? {
            if place.day >= keys::day_of(since_ns) {
                blocks.extend(self.read.day(&*snapshot, place, version).await?.iter().cloned());
            }
        }
        blocks.extend(self.read.logs(&*snapshot).await?.into_iter().flat_map(|held| held.blocks));
        blocks.retain(|block| {
            block.log_ranges.iter().any(|range| range.log.partition == partition)
                && block.datasets.iter().any(|dataset| dataset.last_ns >= since_ns)
        });
        Ok(blocks)
    }

    /// Everything, as of one instant.
    pub async fn all(&self) -> Result<Everything, Error> {
        let snapshot = self.store.snapshot().await?;
        let logs = self.read.logs(&*snapshot).await?;
        let versions = kv::scan_all(&*snapshot, keys::all_merged_versions()).await?;
        let mut merged = Vec::new();
        for (place, version) in read_versions(&versions)? {
            let blocks = self.read.day(&*snapshot, place, version).await?;
            if !blocks.is_empty() {
                let tenant = Some(place.owner).filter(|owner| *owner != keys::SHARED);
                merged.push(OwnedBlocks { tenant, day: place.day, blocks: blocks.to_vec() });
            }
        }
        let deletions = super::deletions::all(&*snapshot).await?;
        let retired = tenants::retired(&*snapshot).await?;
        let retired = retired.into_iter().map(|retired| (retired.tenant.number, retired)).collect();
        Ok(Everything { logs, merged, deletions, retired })
    }
}

impl Everything {
    /// Whether a log of an earlier tenure is open: its pushes may be those that later blocks hold.
    pub fn has_leftovers(&self) -> bool {
        let logs = self.logs.iter();
        // One that nobody ever held has nothing in it.
        let held = logs.filter_map(|log| log.open.as_ref().filter(|open| !open.holder.is_empty()));
        let open: Vec<LogId> = held.map(|open| open.log).collect();
        let later = |of: &LogId| {
            self.logs.iter().any(|log| log.log.partition == of.partition && log.log.log > of.log)
        };
        open.iter().any(later)
    }
}

impl Entries {
    /// Every log's blocks, as the snapshot has them.
    async fn logs(&self, snapshot: &dyn Snapshot) -> Result<Vec<LogBlocks>, Error> {
        let mut logs = Vec::new();
        for (log, state) in logs::states(snapshot).await? {
            logs.push(self.log(snapshot, log, &state).await?);
        }
        Ok(logs)
    }

    async fn log(
        &self,
        snapshot: &dyn Snapshot,
        log: LogId,
        state: &stored::LogState,
    ) -> Result<LogBlocks, Error> {
        let (removals, next) = (state.removals, state.committed_next);
        let cached = self.held().get(&log).cloned().unwrap_or_default();
        let mut read = if cached.removals == removals { cached } else { CachedLog::default() };
        read.removals = removals;
        if read.next < next {
            let range = keys::blocks(log, Offset(read.next), Offset(next));
            for (_, value) in kv::scan_all(snapshot, range).await? {
                read.blocks.push(Arc::new(read_log_block(&value, log)?));
            }
            read.next = next;
            self.remember(log, &read);
        }
        // The cache may know later commits than this snapshot: they are not part of the cut.
        read.blocks.truncate(read.blocks.partition_point(|block| first_offset(block) < next));
        Ok(LogBlocks { log, next: Offset(next), open: logs::open(log, state), blocks: read.blocks })
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<LogId, CachedLog>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was read, unless somebody has read later commits meanwhile.
    fn remember(&self, log: LogId, read: &CachedLog) {
        let mut logs = self.held();
        let cached = logs.entry(log).or_default();
        if (cached.removals, cached.next) < (read.removals, read.next) {
            *cached = read.clone();
        }
    }

    /// The merged blocks of an owner's day, as the snapshot has them; `version` is theirs in it.
    async fn day(
        &self,
        snapshot: &dyn Snapshot,
        place: OwnerDay,
        version: u64,
    ) -> Result<Arc<Vec<Arc<BlockMeta>>>, Error> {
        let cached = self.days.get(&place);
        if let Some(cached) = cached.as_ref().filter(|cached| cached.version == version) {
            return Ok(Arc::clone(&cached.blocks));
        }
        let entries = kv::scan_all(snapshot, keys::merged(place)).await?;
        let read = |(_, value): &(Key, Bytes)| read_block(Kind::Merged, value).map(Arc::new);
        let blocks = Arc::new(entries.iter().map(read).collect::<Result<Vec<_>, _>>()?);
        if cached.is_none_or(|cached| cached.version < version) {
            // Decoded they take about as much again.
            let bytes: usize = entries.iter().map(|(_, value)| 2 * value.len() + 256).sum();
            let bytes = u32::try_from(bytes + 256).unwrap_or(u32::MAX);
            self.days.insert(place, CachedDay { version, bytes, blocks: Arc::clone(&blocks) });
        }
        Ok(blocks)
    }
}

fn read_versions(entries: &[(Key, Bytes)]) -> Result<Vec<(OwnerDay, u64)>, Error> {
    let read = |(key, value): &(Key, Bytes)| {
        let place = keys::owner_day(key)
            .ok_or_else(|| StoreError::corrupt(Kind::MergedVersion, "the key names no owner and day"))?;
        Ok((place, read_u64(Kind::MergedVersion, value)?))
    };
    entries.iter().map(read).collect()
}

/// Reads an entry of this log; its one log range is checked here, so that [`first_offset`] can rely on it.
fn read_log_block(value: &[u8], log: LogId) -> Result<BlockMeta, Error> {
    let block = read_block(Kind::Block, value)?;
    if !matches!(block.log_ranges.as_slice(), [range] if range.log == log) {
        return Err(StoreError::corrupt(Kind::Block, "a level 0 block holds one range of its log").into());
    }
    Ok(block)
}

fn first_offset(block: &BlockMeta) -> u64 {
    block.log_ranges[0].first.0
}
