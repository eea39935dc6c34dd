//! Why a push was refused, and what its sender should do.

use std::time::Duration;

use cambium_model::labels::LabelsError;
use cambium_model::selector::SelectorError;
use cambium_model::time::TimeError;
use cambium_proto::pprof::{self, Fault};
use cambium_runtime::error::{HasKind, Kind, RETRY_AFTER_DEFAULT};
use cambium_runtime::tenancy::AuthError;

use crate::metrics::Reason;
use crate::sink::SinkError;
use crate::validate::Violation;

/// Everything that can keep a push from being acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request's credential does not allow it.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The process is shutting down; another one will take it.
    #[error("shutting down")]
    Closing,
    /// The bound on bytes in flight is reached.
    #[error("saturated: {bytes_max} bytes are in flight (bytes_in_flight_max)")]
    Saturated {
        /// The bound.
        bytes_max: u64,
    },
    /// The body, as received, is larger than this tenant or this process takes.
    #[error("the body has more than {limit} bytes ({name})")]
    BodyTooLarge {
        /// The bound, bytes.
        limit: u64,
        /// The setting that holds it.
        name: &'static str,
    },
    /// The connection broke while the body was read.
    #[error("the body was cut off")]
    BodyCut(#[source] axum::Error),
    /// The tenant sends more than its rate.
    #[error(
        "over the ingestion rate of {rate} bytes/s, burst {burst} (ingestion_rate_bytes, \
         ingestion_burst_bytes): {bytes} bytes refused"
    )]
    RateLimited {
        /// Size of the push; before decompression, where the tenant was over its rate without it.
        bytes: u64,
        /// Bytes per second allowed.
        rate: u64,
        /// Bytes allowed at once.
        burst: u64,
        /// When there is room for it.
        wait: Duration,
    },
    /// The query string cannot be read.
    #[error("query string: {0}")]
    Query(String),
    /// The `labels` parameter is not a label set.
    #[error("parameter labels")]
    LabelsText(#[from] SelectorError),
    /// The message's labels are not a label set.
    #[error(transparent)]
    Labels(#[from] LabelsError),
    /// The profile's name is given as a parameter or field and as the label `__name__`, and they differ.
    #[error("the profile is named {name:?} and, by its label __name__, {label:?}")]
    TwoNames {
        /// By parameter or field.
        name: String,
        /// By label.
        label: String,
    },
    /// The `timestamp` parameter is not a time.
    #[error("parameter timestamp")]
    Timestamp(#[from] TimeError),
    /// The profile id has the wrong length or is not hexadecimal.
    #[error("profile_id must be 16 bytes (32 hexadecimal digits over HTTP)")]
    ProfileId,
    /// The body is not a profile, or passes a limit on profiles.
    #[error(transparent)]
    Profile(Box<pprof::Error>),
    /// The labels or the time pass a limit.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The tenant has as many series as it may, and this would be one more.
    #[error("{active} series are active, {limit} are allowed (series_max): the series is new and is refused")]
    SeriesLimit {
        /// Series in heads when the owners last published.
        active: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// The tenant cannot be looked up or created.
    #[error("the tenant cannot be looked up")]
    Tenant(#[source] cambium_metastore::Error),
    /// Names that nobody has written yet cannot be written.
    #[error("names of new locations cannot be stored")]
    Symbols(#[source] cambium_metastore::Error),
    /// The log did not take the record.
    #[error("not durable")]
    Sink(#[from] SinkError),
    /// It took too long.
    #[error("not durable after {after:?} (push_timeout)")]
    TimedOut {
        /// The bound.
        after: Duration,
    },
    /// Decoding panicked: a defect.
    #[error("the decoder failed")]
    Decoder,
}

impl From<pprof::Error> for Error {
    fn from(source: pprof::Error) -> Self {
        Self::Profile(Box::new(source))
    }
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Auth(source) => source.kind(),
            Self::Closing | Self::Saturated { .. } | Self::TimedOut { .. } => Kind::Unavailable,
            Self::BodyTooLarge { .. } => Kind::TooLarge,
            Self::BodyCut(_) => Kind::Cancelled,
            Self::RateLimited { .. } | Self::SeriesLimit { .. } => Kind::RateLimited,
            Self::Query(_)
            | Self::LabelsText(_)
            | Self::Labels(_)
            | Self::TwoNames { .. }
            | Self::Timestamp(_)
            | Self::ProfileId => Kind::Invalid,
            Self::Profile(source) => match source.fault() {
                Fault::Malformed => Kind::Invalid,
                Fault::OverLimit => Kind::Unprocessable,
                Fault::TooLarge => Kind::TooLarge,
            },
            Self::Violation(source) => source.kind(),
            Self::Tenant(source) | Self::Symbols(source) => source.kind(),
            Self::Sink(source) => source.kind(),
            Self::Decoder => Kind::Internal,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { wait, .. } => Some(*wait),
            Self::Sink(source) => source.retry_after(),
            other => match other.kind() {
                Kind::RateLimited | Kind::Unavailable => Some(RETRY_AFTER_DEFAULT),
                _ => None,
            },
        }
    }
}

impl Error {
    /// What the refusal counts as; `None` where nothing was discarded, because the sender keeps the profile and
    /// retries, or was nobody we know.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self {
            Self::Auth(_)
            | Self::Closing
            | Self::Saturated { .. }
            | Self::BodyCut(_)
            | Self::Tenant(_)
            | Self::Symbols(_)
            | Self::Sink(_)
            | Self::TimedOut { .. } => None,
            Self::BodyTooLarge { .. } => Some(Reason::BodySizeLimitExceeded),
            Self::RateLimited { .. } => Some(Reason::RateLimited),
            Self::Query(_) | Self::Timestamp(_) | Self::ProfileId => Some(Reason::MalformedRequest),
            Self::Labels(LabelsError::Duplicate { .. })
            | Self::LabelsText(SelectorError::Labels(LabelsError::Duplicate { .. })) => {
                Some(Reason::DuplicateLabelNames)
            }
            Self::LabelsText(_) | Self::Labels(_) | Self::TwoNames { .. } => Some(Reason::InvalidLabels),
            Self::Profile(source) => Some(Reason::of_profile(source)),
            Self::Violation(source) => Some(source.reason()),
            Self::SeriesLimit { .. } => Some(Reason::SeriesLimit),
            Self::Decoder => Some(Reason::MalformedProfile),
        }
    }
}
