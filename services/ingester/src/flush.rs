//! From a cut to a committed block, and what makes a cut due.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cambium_blocks::writer::{self, Compression, EncodedBlock};
use cambium_metastore::catalogue::FlushCommit;
use cambium_metastore::leases::Lease;
use cambium_model::block::LogId;
use cambium_runtime::tasks::Tasks;
use fail::fail_point;
use tokio::sync::watch;

use crate::Error;
use crate::partition::{Frozen, Partition};
use crate::service::Shared;

/// A log that this process holds, with the fences under which it does.
#[derive(Debug)]
pub struct Owned {
    /// The partition.
    pub partition: Partition,
    /// The epoch given when the log was opened: commits of older ones are refused.
    pub epoch: u64,
    /// The tenure of the partition that its flushes expect, where tenures decide.
    pub tenure: Option<Lease>,
    /// Until when it takes writes, on the monotonic clock; none where it takes none.
    accepting: Mutex<Option<watch::Receiver<Duration>>>,
    /// Writes under way, and whatever else works for it.
    tasks: Tasks,
    /// One flush at a time, so that blocks are committed in the order of their offsets. Holds the encoded bytes of a
    /// flush that has not succeeded yet, because a retry must write the same ones.
    flushing: tokio::sync::Mutex<Option<EncodedBlock>>,
}

impl Owned {
    /// A log under this epoch and tenure, that takes no writes.
    pub fn new(partition: Partition, epoch: u64, tenure: Option<Lease>) -> Self {
        let (accepting, tasks) = (Mutex::default(), Tasks::new());
        Self { partition, epoch, tenure, accepting, tasks, flushing: tokio::sync::Mutex::new(None) }
    }

    /// Lets it take writes until the moment that `valid` says, which may move.
    #[must_use]
    pub(crate) fn accepting_until(self, valid: watch::Receiver<Duration>) -> Self {
        *self.locked() = Some(valid);
        self
    }

    /// Whether it takes writes now.
    pub(crate) fn is_accepting(&self, now: Duration) -> bool {
        self.locked().as_ref().is_some_and(|valid| now < *valid.borrow())
    }

    fn locked(&self) -> MutexGuard<'_, Option<watch::Receiver<Duration>>> {
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What works for it.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Which log.
    pub(crate) fn log_id(&self) -> LogId {
        self.partition.log_id()
    }

    /// Takes no more writes, and waits for those under way.
    pub(crate) async fn stop(&self) {
        *self.locked() = None;
        self.tasks.shut_down().await;
    }

    /// Cuts, and brings every cut that is not in a block yet into one. Returns how many.
    pub(crate) async fn flush(&self, shared: &Shared) -> Result<usize, Error> {
        let mut encoded = self.flushing.lock().await;
        // A cut that failed goes first: blocks are committed in the order of their offsets.
        if self.partition.oldest_unflushed().is_none() {
            self.partition.cut();
        }
        let mut flushed = 0;
        while let Some(frozen) = self.partition.oldest_unflushed() {
            let began = shared.deps.clock.monotonic();
            if let Err(error) = self.flush_cut(shared, &frozen, &mut encoded).await {
                shared.metrics.flush_failures.inc();
                return Err(error);
            }
            *encoded = None;
            flushed += 1;
            shared.metrics.flushes.inc();
            shared.metrics.flush_seconds.observe((shared.deps.clock.monotonic() - began).as_secs_f64());
        }
        Ok(flushed)
    }

    /// Every step may fail or be the last before a crash; each leaves garbage or a replay, never a loss or a double.
    async fn flush_cut(
        &self,
        shared: &Shared,
        frozen: &Arc<Frozen>,
        encoded: &mut Option<EncodedBlock>,
    ) -> Result<(), Error> {
        fail_point!("flush-before-encode");
        // A cut of retries only holds nothing: its offsets are committed without a block.
        if encoded.is_none() && !frozen.datasets.is_empty() {
            *encoded = Some(encode(frozen, self.epoch).await?);
        }
        if let Some(block) = encoded {
            writer::put(shared.deps.store.as_ref(), block).await?;
        }
        fail_point!("flush-before-commit");
        let block = encoded.as_ref().map(|block| block.meta.clone());
        let tenure = self.tenure.clone();
        let commit = FlushCommit { range: frozen.range, epoch: self.epoch, block, tenure };
        shared.deps.catalogue.commit_flush(&commit).await?;
        fail_point!("flush-before-truncate");
        if let Some(meta) = &commit.block {
            shared.metrics.flushed_bytes.inc_by(meta.size_bytes);
            shared.metrics.flushed_samples.inc_by(meta.datasets.iter().map(|dataset| dataset.samples).sum());
        }
        let retained_max = usize::try_from(shared.config.head_bytes_max.0 / 2).unwrap_or(usize::MAX);
        self.partition.flushed(frozen, retained_max);
        // The block is committed: a log that cannot be cut now is cut by the next flush, and replay begins after it.
        if let Err(error) = self.partition.log().truncate(frozen.range.next).await {
            tracing::warn!(log = %self.partition.log_id(), %error, "log not truncated");
        }
        fail_point!("flush-after-truncate");
        Ok(())
    }
}

async fn encode(frozen: &Arc<Frozen>, epoch: u64) -> Result<EncodedBlock, Error> {
    let frozen = Arc::clone(frozen);
    let encoding = tokio::task::spawn_blocking(move || {
        writer::encode(&frozen.datasets, frozen.range, epoch, 0, Compression::Hot)
    });
    Ok(encoding.await.map_err(|_| Error::TaskEnded)??)
}
