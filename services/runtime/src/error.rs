//! What a caller should do about an error, and the one place where that becomes an HTTP status or a gRPC code.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// The kinds of failure, few on purpose: each is a different thing for the caller to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is malformed: fix it.
    Invalid,
    /// The request is larger than allowed: send less.
    TooLarge,
    /// The request is well formed but passes a limit or asks for what is not kept: change it.
    Unprocessable,
    /// No or unknown credentials.
    Unauthenticated,
    /// Credentials that do not allow this.
    Forbidden,
    /// The thing does not exist.
    NotFound,
    /// Over a rate: retry later.
    RateLimited,
    /// Something needed is down or saturated; nothing was kept: retry later.
    Unavailable,
    /// It took longer than allowed.
    Timeout,
    /// The caller went away.
    Cancelled,
    /// Not offered.
    Unimplemented,
    /// A defect or corrupt data: a human must look.
    Internal,
}

/// Every crate's error says its kind; an exhaustive match, so that a new variant must decide.
pub trait HasKind: std::error::Error {
    /// What the caller should do.
    fn kind(&self) -> Kind;

    /// How long to wait before a retry, where one makes sense.
    fn retry_after(&self) -> Option<Duration> {
        match self.kind() {
            Kind::RateLimited | Kind::Unavailable => Some(RETRY_AFTER_DEFAULT),
            _ => None,
        }
    }
}

/// The hint where the error knows no better one.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

impl Kind {
    /// The HTTP status.
    pub fn http(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Cancelled => StatusCode::from_u16(499).expect("499 is a status"),
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The gRPC code.
    pub fn grpc(self) -> tonic::Code {
        match self {
            Self::Invalid | Self::TooLarge => tonic::Code::InvalidArgument,
            Self::Unprocessable => tonic::Code::FailedPrecondition,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::Forbidden => tonic::Code::PermissionDenied,
            Self::NotFound => tonic::Code::NotFound,
            Self::RateLimited => tonic::Code::ResourceExhausted,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::Timeout => tonic::Code::DeadlineExceeded,
            Self::Cancelled => tonic::Code::Cancelled,
            Self::Unimplemented => tonic::Code::Unimplemented,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// Prometheus' word for it in the JSON answer.
    fn error_type(self) -> &'static str {
        match self {
            Self::Invalid | Self::TooLarge => "bad_data",
            Self::Unprocessable => "execution",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Cancelled => "canceled",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
        }
    }
}

/// An error as the outside sees it: what any crate's error becomes at the door.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// What the caller should do.
    pub kind: Kind,
    /// What is wrong and where.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }
}

impl<E: HasKind> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self { kind: error.kind(), message: with_sources(&error), retry_after: error.retry_after() }
    }
}

/// The message and those of its causes, each once.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = cause.source();
    }
    text
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "status": "error",
            "errorType": self.kind.error_type(),
            "error": self.message,
        });
        let mut response = (self.kind.http(), axum::Json(body)).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs().max(1);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<ApiError> for tonic::Status {
    fn from(error: ApiError) -> Self {
        let mut status = Self::new(error.kind.grpc(), error.message);
        if let Some(wait) = error.retry_after {
            let millis = wait.as_millis().to_string();
            if let Ok(value) = millis.parse() {
                // gRPC's own name for a push-back hint.
                status.metadata_mut().insert("grpc-retry-pushback-ms", value);
            }
        }
        status
    }
}
