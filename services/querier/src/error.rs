//! Why a query has no answer.

use std::time::Duration;

use cambium_runtime::error::{HasKind, Kind};
use datafusion::error::DataFusionError;

use crate::heads::HeadsError;

/// A query that failed, or one that is not allowed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalogue could not be read.
    #[error(transparent)]
    Catalogue(#[from] cambium_metastore::catalogue::Error),
    /// Tenants or names could not be looked up.
    #[error(transparent)]
    Metastore(#[from] cambium_metastore::Error),
    /// A source could not be scanned.
    #[error(transparent)]
    Blocks(#[from] cambium_blocks::Error),
    /// The recent profiles could not be had.
    #[error(transparent)]
    Heads(#[from] HeadsError),
    /// A sum does not fit 64 bits.
    #[error("the sum of {profile_type} over this query does not fit 64 bits")]
    Overflow {
        /// What was summed.
        profile_type: String,
    },
    /// Steps must go forward.
    #[error("step is {step_ns} ns, it must be positive")]
    Step {
        /// What was asked for.
        step_ns: i64,
    },
    /// More points than one answer may have.
    #[error("the range has {points} steps, at most {max} are allowed: use a larger step or a shorter range")]
    TooManyPoints {
        /// What was asked for.
        points: i64,
        /// What is allowed.
        max: i64,
    },
    /// The statement is not one that may be run.
    #[error("sql: {what} is not allowed, only one SELECT over samples, profiles, series and stacks is")]
    SqlRefused {
        /// The offending part.
        what: String,
    },
    /// The statement cannot be read, planned or computed.
    #[error("sql: {message}")]
    Sql {
        /// What is wrong and where.
        message: String,
    },
    /// The answer is longer than allowed.
    #[error("sql: the answer has more than {max} {unit}: add a LIMIT or narrow the range")]
    SqlTooLarge {
        /// What is allowed.
        max: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The memory that queries may reserve is used up.
    #[error(
        "the query needs more memory than is left of the querier's memory_max: narrow the range or the selector"
    )]
    Memory {
        /// What could not be reserved.
        #[source]
        source: Box<DataFusionError>,
    },
    /// Too many of the tenant's queries run and wait.
    #[error("tenant {tenant} has {running} queries running (queries_concurrent_max) and {waiting} waiting")]
    Saturated {
        /// The tenant.
        tenant: String,
        /// Its limit of running queries.
        running: u64,
        /// The limit of waiting ones.
        waiting: usize,
    },
    /// It took longer than allowed.
    #[error("the query took longer than {}", cambium_runtime::quantity::Span(*.after))]
    Timeout {
        /// The querier's timeout, or the tenant's.
        after: Duration,
    },
    /// The query engine failed in a way that is no fault of the request.
    #[error("query engine")]
    Engine {
        /// Its error.
        #[source]
        source: Box<DataFusionError>,
    },
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Catalogue(error) => error.kind(),
            Self::Metastore(error) => error.kind(),
            Self::Blocks(error) => error.kind(),
            Self::Heads(error) => error.kind(),
            Self::Step { .. } | Self::TooManyPoints { .. } | Self::SqlRefused { .. } | Self::Sql { .. } => {
                Kind::Invalid
            }
            Self::Overflow { .. } | Self::SqlTooLarge { .. } | Self::Memory { .. } => Kind::Unprocessable,
            Self::Saturated { .. } => Kind::RateLimited,
            Self::Timeout { .. } => Kind::Timeout,
            Self::Engine { .. } => Kind::Internal,
        }
    }
}

impl From<DataFusionError> for Error {
    /// Gives our own errors back that travelled through a plan.
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(other) => Self::Engine { source: Box::new(DataFusionError::External(other)) },
            },
            DataFusionError::Context(_, inner) => Self::from(*inner),
            DataFusionError::ResourcesExhausted(_) => Self::Memory { source: Box::new(error) },
            other => Self::Engine { source: Box::new(other) },
        }
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}
