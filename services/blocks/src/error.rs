//! What can go wrong between columns and an object store.

use std::sync::Arc;

use cambium_model::time::{self, TimeRange};
use cambium_runtime::error::{HasKind, Kind};

use crate::remote::Malformed;

/// A failure to write, read or scan a block.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object store failed.
    #[error("object {path}")]
    Store {
        /// The object's path.
        path: String,
        /// The store's error.
        #[source]
        source: object_store::Error,
    },
    /// The object is not what its table of contents or the catalogue says.
    #[error("block {path} is corrupt: {what}")]
    Corrupt {
        /// The object's path.
        path: String,
        /// What does not hold, and where.
        what: String,
    },
    /// A section is not readable as Parquet.
    #[error("block {path}, section {section}")]
    Parquet {
        /// The object's path.
        path: String,
        /// The section's name.
        section: &'static str,
        /// The decoder's error.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// The encoder refused a dataset.
    #[error("cannot encode block {path}")]
    Encode {
        /// The path it would have had.
        path: String,
        /// The encoder's error.
        #[source]
        source: parquet::errors::ParquetError,
    },
    /// Another object with other content already has this path.
    #[error("object {path} already exists with other content")]
    PathTaken {
        /// The object's path.
        path: String,
    },
    /// What a merge keeps on disk meanwhile cannot be written or read.
    #[error("scratch space")]
    Scratch {
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// A sum does not fit 64 bits.
    #[error("the sum of {profile_type} over this range does not fit 64 bits")]
    Overflow {
        /// What was summed.
        profile_type: String,
    },
    /// The samples that are asked for were dropped.
    #[error(
        "samples from {} to {} were dropped when they were downsampled, and sums over ten minutes are left: ask for \
         start={} and end={}, and not for time=, agg=last or SQL over samples",
        time::format(*.first_ns), time::format(*.last_ns), time::format(.sums.start_ns),
        time::format(.sums.end_ns.saturating_sub(1))
    )]
    Downsampled {
        /// Earliest profile whose samples are gone, nanoseconds since the Unix epoch.
        first_ns: i64,
        /// Latest one.
        last_ns: i64,
        /// Ten minutes and ten minutes: what can be asked for.
        sums: TimeRange,
    },
    /// The query needs more bytes than its tenant may ask for.
    #[error("the query needs more than {max} bytes (query_bytes_max): narrow the range or the selector")]
    TooManyBytes {
        /// What is allowed.
        max: u64,
    },
    /// Nobody waits for the result any more.
    #[error("the scan was given up")]
    Cancelled,
    /// The owner of a head did not answer, or refused.
    #[error("the owner of recent profiles: {}", .status.message())]
    Remote {
        /// What the caller should do.
        kind: Kind,
        /// What the owner, or the way there, said.
        status: tonic::Status,
    },
    /// The owner of a head sent what does not hold together.
    #[error("an answer about recent profiles")]
    Malformed(#[source] Malformed),
    /// The failure of a load that several scans waited for.
    #[error(transparent)]
    Shared(Arc<Error>),
}

impl Error {
    pub(crate) fn scratch(source: std::io::Error) -> Self {
        Self::Scratch { source }
    }
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Store { .. } | Self::Scratch { .. } => Kind::Unavailable,
            Self::Corrupt { .. } | Self::Parquet { .. } | Self::Encode { .. } | Self::PathTaken { .. } => {
                Kind::Internal
            }
            Self::Overflow { .. } | Self::TooManyBytes { .. } | Self::Downsampled { .. } => {
                Kind::Unprocessable
            }
            Self::Remote { kind, .. } => *kind,
            Self::Malformed(_) => Kind::Internal,
            Self::Cancelled => Kind::Cancelled,
            Self::Shared(error) => error.kind(),
        }
    }
}
