//! What the client's errors mean for who asked.

use std::fmt;

use super::super::Error;

/// gRPC's code for a message that is larger than the receiver takes.
const OUT_OF_RANGE: i32 = 11;
/// And for one that is larger than the sender sends.
const RESOURCE_EXHAUSTED: i32 = 8;

/// Why one try failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It took too long.
    Late,
    /// The client panicked.
    Panicked,
    /// The client gave up.
    Client(Box<tikv_client::Error>),
}

impl From<tikv_client::Error> for Failure {
    fn from(error: tikv_client::Error) -> Self {
        Self::Client(Box::new(error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("no answer in time"),
            Self::Panicked => f.write_str("the client panicked"),
            Self::Client(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// As the seam says it.
    pub(super) fn into_error(self) -> Error {
        Error::Unavailable { source: Box::new(self) }
    }

    /// A word for the metrics.
    pub(super) fn label(&self) -> &'static str {
        use tikv_client::Error as E;
        match self {
            Self::Late => "late",
            Self::Panicked => "panic",
            _ if self.is_too_large() => "too_large",
            _ if self.is_lost_race() => "race",
            Self::Client(error) => match **error {
                E::Grpc(_) | E::GrpcAPI(_) | E::Io(_) | E::Channel(_) => "transport",
                E::RegionError(_) | E::LeaderNotFound { .. } | E::RegionForKeyNotFound { .. } => "region",
                E::ResolveLockError(_) => "lock",
                E::KeyError(_) | E::MultipleKeyErrors(_) | E::ExtractedErrors(_) => "key",
                E::UndeterminedError(_) => "undetermined",
                _ => "other",
            },
        }
    }

    /// Whether the same may succeed a moment later. What is said of keys (their versions are gone) is said for good, if
    /// TiKV does not say otherwise, and so is that an answer is too large.
    pub(super) fn may_pass(&self) -> bool {
        !self.is_too_large() && !matches!(self, Self::Client(error) if is_final(error))
    }

    /// Whether the answer was larger than a message may be.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Client(error) if matches!(&**error, tikv_client::Error::GrpcAPI(status)
            if [OUT_OF_RANGE, RESOURCE_EXHAUSTED].contains(&i32::from(status.code()))))
    }

    /// Whether a commit was refused because of what others have written or locked: certainly before it wrote anything
    /// itself, for only the first phase meets others.
    pub(super) fn is_lost_race(&self) -> bool {
        matches!(self, Self::Client(error) if lost_race(error))
    }
}

fn is_final(error: &tikv_client::Error) -> bool {
    use tikv_client::Error as E;
    match error {
        E::KeyError(error) => error.retryable.is_empty(),
        E::MultipleKeyErrors(errors) | E::ExtractedErrors(errors) => errors.iter().any(is_final),
        _ => false,
    }
}

fn lost_race(error: &tikv_client::Error) -> bool {
    use tikv_client::Error as E;
    match error {
        E::KeyError(error) => error.conflict.is_some() || error.already_exist.is_some(),
        E::ResolveLockError(_) => true,
        E::MultipleKeyErrors(errors) | E::ExtractedErrors(errors) => errors.iter().any(lost_race),
        _ => false,
    }
}
