//! Which section of which object: what every error of the reader names.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use cambium_model::block::{SectionKind, SectionMeta};
use parquet::errors::ParquetError;

use crate::Error;
use crate::toc::section_name;

/// A section of an object.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: Arc<str>,
    pub(crate) section: SectionMeta,
}

impl Place {
    pub(crate) fn kind(&self) -> SectionKind {
        self.section.kind
    }

    /// Runs a piece of the Parquet decoder. Bytes with the right checksum can still be forged, and on some of those it
    /// panics instead of giving an error.
    pub(crate) fn guard<T>(&self, decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, Error> {
        match panic::catch_unwind(AssertUnwindSafe(decode)) {
            Ok(result) => result.map_err(|error| self.parquet(error)),
            Err(_) => Err(self.corrupt("the Parquet decoder panicked")),
        }
    }

    pub(crate) fn corrupt(&self, what: impl fmt::Display) -> Error {
        Error::Corrupt {
            path: self.path.to_string(),
            what: format!("section {}: {what}", section_name(self.kind())),
        }
    }

    pub(crate) fn parquet(&self, source: ParquetError) -> Error {
        Error::Parquet { path: self.path.to_string(), section: section_name(self.kind()), source }
    }
}
