//! What can go wrong in any repository; the catalogue and the tokens add their own causes.

use cambium_runtime::error::{HasKind, Kind};

use crate::{keys, kv};

/// Why a repository could not read or write.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not do it.
    #[error(transparent)]
    Kv(#[from] kv::Error),
    /// A stored value is not what its key promises.
    #[error("the stored {kind} is corrupt")]
    Corrupt {
        /// What the key promises.
        kind: keys::Kind,
        /// What is wrong with the value.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// A value of this kind that is not what it should be.
    pub(crate) fn corrupt(
        kind: keys::Kind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt { kind, source: source.into() }
    }
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Kv(error) => error.kind(),
            Self::Corrupt { .. } => Kind::Internal,
        }
    }
}

/// Reads a stored protobuf message.
pub(crate) fn decode<M: prost::Message + Default>(kind: keys::Kind, value: &[u8]) -> Result<M, Error> {
    M::decode(value).map_err(|source| Error::corrupt(kind, source))
}

/// Reads a stored number: four bytes, big endian.
pub(crate) fn decode_u32(kind: keys::Kind, value: &[u8]) -> Result<u32, Error> {
    let bytes =
        value.try_into().map_err(|source: std::array::TryFromSliceError| Error::corrupt(kind, source))?;
    Ok(u32::from_be_bytes(bytes))
}
