//! The ingester of this very process as the sink of its distributor and the heads of its querier.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cambium_blocks::source::Source;
use cambium_distributor::sink::{Ack, Sink, SinkError};
use cambium_metastore::catalogue::OpenLog;
use cambium_model::block::{LogId, Offset, Partition};
use cambium_model::tenant::Tenant;
use cambium_querier::Heads;
use cambium_querier::heads::{Found, HeadsError};

/// The ingester of this very process as the distributor's sink.
#[derive(Debug)]
pub(super) struct LocalSink(pub(super) cambium_ingester::Handle);

#[async_trait]
impl Sink for LocalSink {
    async fn write(&self, partition: Partition, record: Bytes) -> Result<Ack, SinkError> {
        match self.0.write(partition, record).await {
            Ok(ack) => Ok(Ack { duplicate: ack.applied == 0 }),
            Err(error @ cambium_ingester::Error::NotOwner(_)) => {
                Err(SinkError::new(partition, error).moved())
            }
            Err(error) => Err(SinkError::new(partition, error)),
        }
    }
}

/// The ingester of this very process as the querier's heads.
#[derive(Debug)]
pub(super) struct LocalHeads(pub(super) cambium_ingester::Handle);

#[async_trait]
impl Heads for LocalHeads {
    async fn heads(&self, tenant: &Tenant, logs: &[OpenLog]) -> Result<Found, HeadsError> {
        let from: Vec<(LogId, Offset)> = logs.iter().map(|open| (open.log, open.next)).collect();
        match self.0.heads(tenant.number, &from) {
            Ok(heads) => {
                let is_missing = |open: &&OpenLog| heads.missing.contains(&open.log);
                let missing = logs.iter().filter(is_missing).cloned().collect();
                let found = heads.found.into_iter().map(|(_, head)| Arc::new(head) as Arc<dyn Source>);
                Ok(Found { heads: found.collect(), missing })
            }
            Err(cambium_ingester::Error::SnapshotTooOld { log, offset }) => {
                Err(HeadsError::SnapshotTooOld { log, committed: offset })
            }
            Err(other) => Err(HeadsError::Unavailable(other.to_string())),
        }
    }
}
