//! Why the ingester refuses or fails.

use cambium_model::block::{LogId, Offset, Partition};
use cambium_runtime::error::{HasKind, Kind};

/// A failure of the ingester.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The heads are full; a flush is under way or failing.
    #[error(
        "heads hold {held_bytes} bytes, the budget is {budget_bytes}: wait for a flush, or raise ingester.head_bytes_max"
    )]
    HeadFull {
        /// Bytes held.
        held_bytes: u64,
        /// The budget.
        budget_bytes: u64,
    },
    /// This process does not own the partition.
    #[error("partition {} is not owned by this process", .0.0)]
    NotOwner(Partition),
    /// The owner of the partition did not answer a claim, or refused.
    #[error("the owner of the partition did not answer a claim")]
    Claim(#[source] tonic::Status),
    /// Nobody who could be asked owns the partition now.
    #[error("partition {} has no owner that answers", .0.0)]
    NoOwner(Partition),
    /// The process is stopping.
    #[error("the ingester is shutting down")]
    ShuttingDown,
    /// The log did not take the record; nothing was kept.
    #[error("the record is not durable")]
    Log(#[source] cambium_ingestlog::Error),
    /// A record that does not decode could not be set aside.
    #[error("a record that does not decode was not kept as {path}")]
    SetAside {
        /// Where it was to be kept.
        path: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// A record that the caller handed over does not decode.
    #[error("the record does not decode")]
    BadRecord(#[source] cambium_proto::record::Error),
    /// The catalogue refused or failed.
    #[error("catalogue")]
    Catalogue(#[from] cambium_metastore::catalogue::Error),
    /// A block could not be written or read.
    #[error("block")]
    Block(#[from] cambium_blocks::Error),
    /// The reader asked from an offset that no generation begins at.
    #[error("log {log} has no cut at offset {}: plan again with a newer snapshot", .offset.0)]
    SnapshotTooOld {
        /// Which log.
        log: LogId,
        /// The offset asked for.
        offset: Offset,
    },
    /// The log lacks records that no block holds.
    #[error("log {log} begins at offset {}, but blocks end at {}: records are missing", .first.0, .committed.0)]
    LogBehind {
        /// Which log.
        log: LogId,
        /// The log's first record.
        first: Offset,
        /// Where blocks end.
        committed: Offset,
    },
    /// A task of ours ended without an answer.
    #[error("the partition's task ended without an answer")]
    TaskEnded,
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::HeadFull { .. }
            | Self::NotOwner(_)
            | Self::NoOwner(_)
            | Self::Claim(_)
            | Self::ShuttingDown => Kind::Unavailable,
            Self::Log(source) => source.kind(),
            Self::Catalogue(source) => source.kind(),
            Self::Block(source) => source.kind(),
            Self::SnapshotTooOld { .. } | Self::SetAside { .. } => Kind::Unavailable,
            Self::BadRecord(_) | Self::LogBehind { .. } | Self::TaskEnded => Kind::Internal,
        }
    }
}
