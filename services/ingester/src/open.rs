//! Opens a log: takes it over in the catalogue, reads back which pushes blocks hold and replays what is in no block.

use std::sync::Arc;

use bytes::Bytes;
use cambium_blocks::Source;
use cambium_blocks::layout;
use cambium_blocks::reader::BlockSource;
use cambium_ingestlog::Log;
use cambium_ingestlog::log::Entry;
use cambium_metastore::catalogue::LogState;
use cambium_metastore::leases::Lease;
use cambium_model::block::{BlockMeta, LogId, Offset, Partition as PartitionId};
use cambium_model::time::TimeRange;
use cambium_proto::record;
use hashbrown::HashSet;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::Error;
use crate::dedup::{self, Dedup};
use crate::flush::Owned;
use crate::partition::{Partition, Pushed, window_start};
use crate::service::Shared;

/// Bytes of records read at once.
pub(crate) const READ_BYTES: usize = 16 << 20;

/// A log that was taken over and whose records are still to be replayed.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) state: LogState,
}

impl Opened {
    /// Takes the log over, whoever held it before.
    pub(crate) async fn open(shared: &Shared, id: LogId) -> Result<Self, Error> {
        let log = shared.deps.logs.open(id).await.map_err(Error::Log)?;
        let state = shared.deps.catalogue.open_log(id, &shared.deps.node).await?;
        let committed = state.committed_next;
        if log.first() > committed {
            return Err(Error::LogBehind { log: id, first: log.first(), committed });
        }
        Ok(Self { log, state })
    }

    /// What is in no block.
    pub(crate) async fn pushes(&self) -> Result<Vec<Pushed>, Error> {
        let mut pushes = Vec::new();
        let mut from = self.state.committed_next;
        while from < self.log.next() {
            for entry in self.log.read(from, READ_BYTES).await.map_err(Error::Log)? {
                if let Entry::Record { payload, .. } = &entry
                    && let Ok((tenant, profiles)) = record::decode(payload)
                {
                    pushes.extend(profiles.iter().map(|profile| Pushed {
                        key: (tenant.number, profile.id),
                        time_ns: profile.time_ns,
                    }));
                }
                from = entry.next();
            }
        }
        Ok(pushes)
    }

    /// Replays what is in no block. Pushes that blocks hold since `since_ns` are not counted again, nor are those that
    /// `taken` says are counted elsewhere.
    pub(crate) async fn replay(
        self,
        shared: &Shared,
        tenure: Option<Lease>,
        since_ns: i64,
        taken: HashSet<dedup::Key>,
    ) -> Result<Owned, Error> {
        let Self { log, state } = self;
        let (id, committed, deps) = (log.id(), state.committed_next, &shared.deps);
        let mut dedup = recent_pushes(shared, id.partition, since_ns).await?;
        for push in taken {
            dedup.insert(push, i64::MAX);
        }
        let pushes = dedup.len();
        let (clock, limits) = (Arc::clone(&deps.clock), deps.limits.clone());
        let partition = Partition::new(Arc::clone(&log), clock, limits, committed, dedup);
        let mut from = committed;
        while from < log.next() {
            for entry in log.read(from, READ_BYTES).await.map_err(Error::Log)? {
                from = entry.next();
                replay(shared, &partition, entry).await?;
            }
        }
        let (epoch, next) = (state.epoch, from.0);
        tracing::info!(log = %id, epoch, committed = committed.0, next, pushes, "log opened");
        Ok(Owned::new(partition, epoch, tenure))
    }
}

/// Takes what stands at the next offset of the log.
pub(crate) async fn replay(shared: &Shared, partition: &Partition, entry: Entry) -> Result<(), Error> {
    let id = partition.log_id();
    match entry {
        Entry::Record { offset, payload } => match record::decode(&payload) {
            Ok((tenant, profiles)) => {
                partition.replay(offset, tenant, profiles);
                shared.metrics.replayed_records.inc();
            }
            Err(error) => {
                set_aside(shared, id, offset, payload, &error).await?;
                partition.skip(Offset(offset.0 + 1));
            }
        },
        Entry::Poison { offset, payload, why } => {
            set_aside(shared, id, offset, payload, &why).await?;
            partition.skip(Offset(offset.0 + 1));
        }
        Entry::Gap { first, next } => {
            let lost = next.0 - first.0.max(partition.next().0);
            tracing::error!(log = %id, first = first.0, next = next.0, lost, "records of the log are lost");
            shared.metrics.log_records_lost.inc_by(lost);
            partition.skip(next);
        }
    }
    Ok(())
}

/// Keeps a record that does not decode for a human: a defect of its writer, or damage that the checksum missed.
async fn set_aside(
    shared: &Shared,
    log: LogId,
    offset: Offset,
    payload: Bytes,
    why: &(dyn std::error::Error + Sync),
) -> Result<(), Error> {
    let path = layout::set_aside_path(log, offset);
    tracing::error!(%log, offset = offset.0, bytes = payload.len(), %path, %why, "a record is set aside");
    let put = shared.deps.store.put(&Path::from(path.as_str()), payload.into()).await;
    put.map_err(|source| Error::SetAside { path, source })?;
    shared.metrics.records_set_aside.inc();
    Ok(())
}

/// When the oldest profile was collected that a client may still retry.
pub(crate) fn retried_since(shared: &Shared) -> i64 {
    window_start(&shared.deps.limits.borrow(), shared.deps.clock.now_ns())
}

/// The pushes that blocks of the partition hold, of whichever of its logs.
async fn recent_pushes(shared: &Shared, partition: PartitionId, since_ns: i64) -> Result<Dedup, Error> {
    let mut dedup = Dedup::default();
    for block in shared.deps.catalogue.blocks_since(partition, since_ns).await? {
        for (index, dataset) in block.datasets.iter().enumerate() {
            let source = source(shared, &block, index);
            let rows = vec![0..u32::try_from(dataset.series).unwrap_or(u32::MAX)];
            let profiles = source.profiles(&rows, TimeRange::ALL).await?;
            for (id, time_ns) in profiles.ids.iter().zip(&profiles.time_ns) {
                dedup.insert((dataset.tenant.number, *id), *time_ns);
            }
        }
    }
    dedup.forget_before(since_ns);
    Ok(dedup)
}

fn source(shared: &Shared, block: &Arc<BlockMeta>, index: usize) -> BlockSource {
    BlockSource::new(Arc::clone(&shared.deps.store), Arc::clone(&shared.deps.cache), Arc::clone(block), index)
}
