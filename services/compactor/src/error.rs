//! What can go wrong with a job. Whatever it is, the inputs are still in the catalogue, or the outputs are.

use cambium_runtime::error::{HasKind, Kind};

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A block cannot be read, merged or written.
    #[error(transparent)]
    Blocks(#[from] cambium_blocks::Error),
    /// The catalogue refused or failed.
    #[error(transparent)]
    Catalogue(#[from] cambium_metastore::catalogue::Error),
    /// A deleted tenant cannot be erased.
    #[error(transparent)]
    Metastore(#[from] cambium_metastore::Error),
    /// An object cannot be fetched, listed or deleted.
    #[error("object {path}")]
    Store {
        /// Its path, or the folder that was listed.
        path: String,
        /// The store's error.
        #[source]
        source: object_store::Error,
    },
    /// What a job keeps on disk meanwhile cannot be written.
    #[error("scratch space")]
    Scratch(#[from] std::io::Error),
    /// The lease was lost while the job was done: somebody else does it.
    #[error("the lease on {job} was lost")]
    LeaseLost {
        /// The job.
        job: String,
    },
    /// Blocks do not agree about who has a tenant's number.
    #[error("{path} says that tenant number {number} is {name}, others say {other}")]
    Tenants {
        /// The block.
        path: String,
        /// The number.
        number: u32,
        /// Whose it is by this block.
        name: String,
        /// Whose it is by others.
        other: String,
    },
    /// A thread of the job ended without an answer.
    #[error("a task ended early")]
    TaskEnded,
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Blocks(error) => error.kind(),
            Self::Catalogue(error) => error.kind(),
            Self::Metastore(error) => error.kind(),
            Self::Store { .. } | Self::Scratch(_) | Self::LeaseLost { .. } => Kind::Unavailable,
            Self::Tenants { .. } | Self::TaskEnded => Kind::Internal,
        }
    }
}
