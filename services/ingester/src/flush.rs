//! From a cut to a committed block, and what makes a cut due.

use std::sync::Arc;

use cambium_blocks::writer::{self, Compression, EncodedBlock};
use cambium_metastore::catalogue::FlushCommit;
use fail::fail_point;

use crate::Error;
use crate::partition::{Frozen, Partition};
use crate::service::Shared;

/// A partition that this process owns, with the fence under which it does.
#[derive(Debug)]
pub struct Owned {
    /// The partition.
    pub partition: Partition,
    /// The epoch given when the log was opened: commits of older ones are refused.
    pub epoch: u64,
    /// One flush at a time, so that blocks are committed in the order of their offsets. Holds the encoded bytes of a
    /// flush that has not succeeded yet, because a retry must write the same ones.
    flushing: tokio::sync::Mutex<Option<EncodedBlock>>,
}

impl Owned {
    /// A partition under this epoch.
    pub fn new(partition: Partition, epoch: u64) -> Self {
        Self { partition, epoch, flushing: tokio::sync::Mutex::new(None) }
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
            let began = shared.clock.monotonic();
            if let Err(error) = self.flush_cut(shared, &frozen, &mut encoded).await {
                shared.metrics.flush_failures.inc();
                return Err(error);
            }
            *encoded = None;
            flushed += 1;
            shared.metrics.flushes.inc();
            shared.metrics.flush_seconds.observe((shared.clock.monotonic() - began).as_secs_f64());
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
            writer::put(shared.store.as_ref(), block).await?;
        }
        fail_point!("flush-before-commit");
        let block = encoded.as_ref().map(|block| block.meta.clone());
        let commit = FlushCommit { range: frozen.range, epoch: self.epoch, block };
        shared.catalogue.commit_flush(&commit).await?;
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
