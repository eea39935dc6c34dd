//! The seam to whatever makes a record durable: the ingester that owns the partition, or a replicated log.
//!
//! Laws:
//! - `Ok` means durable: the record survives any process (a local log) or any one machine (Kafka).
//! - An error means that nobody knows: the record may be durable. The caller answers with an error, the sender
//!   retries with the same profile id, and the owner drops what it already has.
//! - The same holds where the future is dropped before it is ready, because the sender hung up or time ran out.
//! - Back-pressure is an error of kind `Unavailable`, at once: an implementation queues no more than it says.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cambium_model::block::Partition;
use cambium_runtime::error::{HasKind, Kind};

pub mod owners;

pub mod ring;

#[cfg(feature = "kafka")]
pub mod kafka;

/// Makes records durable.
#[async_trait]
pub trait Sink: fmt::Debug + Send + Sync {
    /// Appends a record (`cambium_proto::record`) to the partition's log and returns when it is durable.
    async fn write(&self, partition: Partition, record: Bytes) -> Result<Ack, SinkError>;
}

/// A record is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Whether the owner already had a profile with this id, so that nothing was added.
    pub duplicate: bool,
}

/// A record is not known to be durable.
#[derive(Debug, thiserror::Error)]
#[error("partition {} did not take the record", partition.0)]
pub struct SinkError {
    /// The partition.
    pub partition: Partition,
    /// What the sender should do, as the implementation's own error says.
    pub kind: Kind,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// Whether it was refused because the partition is somewhere else.
    pub moved: bool,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl SinkError {
    /// The failure of an implementation, which keeps its kind and its hint.
    pub fn new(partition: Partition, source: impl HasKind + Send + Sync + 'static) -> Self {
        let (kind, retry_after) = (source.kind(), source.retry_after());
        Self { partition, kind, retry_after, moved: false, source: Box::new(source) }
    }

    /// The same where the partition is somewhere else.
    #[must_use]
    pub fn moved(self) -> Self {
        Self { moved: true, ..self }
    }
}

impl HasKind for SinkError {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}
