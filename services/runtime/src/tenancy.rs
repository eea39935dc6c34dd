//! Who a request is from: the only place that reads `X-Scope-OrgID` and credentials.
//!
//! The layer asks an [`Authenticator`] once per request, HTTP and gRPC alike (metadata are headers), and leaves an
//! [`Identity`] in the request's extensions. Handlers take it from there and never look at the header again.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cambium_model::tenant::{TenantId, TenantIdError};
use http::HeaderMap;

use crate::error::{ApiError, HasKind, Kind};

/// The header that names the tenant (Cortex' name, as gRPC metadata in lower case).
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// What a credential allows. Each is separate: a write token of an agent reads nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Queries.
    Read,
    /// Pushes.
    Write,
    /// Operate endpoints and internal services.
    Admin,
}

/// A request's tenant and what its credential allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The tenant.
    pub tenant: TenantId,
    /// Allowed kinds of access.
    pub access: Vec<Access>,
}

impl Identity {
    /// Refuses a request that needs what the credential does not allow.
    pub fn require(&self, needed: Access) -> Result<&TenantId, AuthError> {
        if self.access.contains(&needed) { Ok(&self.tenant) } else { Err(AuthError::Scope { needed }) }
    }
}

/// Why a request has no identity, or not enough of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A header is needed and not there.
    #[error("header X-Scope-OrgID is missing")]
    NoTenant,
    /// The header is not text.
    #[error("header X-Scope-OrgID is not text")]
    NotText,
    /// The header's value is not a tenant name.
    #[error("header X-Scope-OrgID: {0}")]
    BadTenant(#[from] TenantIdError),
    /// No bearer token where one is needed.
    #[error("header Authorization with a bearer token is missing")]
    NoToken,
    /// A token nobody created, or one that was revoked.
    #[error("unknown token")]
    UnknownToken,
    /// The token is of other tenants.
    #[error("the token does not allow tenant {tenant}")]
    OtherTenant {
        /// The tenant asked for.
        tenant: TenantId,
    },
    /// The token does not allow this kind of access.
    #[error("the credential does not allow {needed:?} access")]
    Scope {
        /// What the request needs.
        needed: Access,
    },
    /// Tokens cannot be checked now.
    #[error("credentials cannot be checked now: {0}")]
    Unavailable(String),
}

impl HasKind for AuthError {
    fn kind(&self) -> Kind {
        match self {
            Self::NotText | Self::BadTenant(_) => Kind::Invalid,
            Self::NoTenant | Self::NoToken | Self::UnknownToken => Kind::Unauthenticated,
            Self::OtherTenant { .. } | Self::Scope { .. } => Kind::Forbidden,
            Self::Unavailable(_) => Kind::Unavailable,
        }
    }
}

/// Turns headers into an identity.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// The request's identity, or why it has none.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, AuthError>;
}

/// `--auth=none`: everything is tenant `anonymous`, and may do anything.
#[derive(Debug)]
pub struct NoAuth;

#[async_trait]
impl Authenticator for NoAuth {
    async fn authenticate(&self, _headers: &HeaderMap) -> Result<Identity, AuthError> {
        Ok(Identity {
            tenant: TenantId::anonymous(),
            access: vec![Access::Read, Access::Write, Access::Admin],
        })
    }
}

/// `--auth=header`: the header is trusted, because a proxy in front has checked it. Never admin: the proxy's
/// tenants are not the operator.
#[derive(Debug)]
pub struct HeaderAuth;

#[async_trait]
impl Authenticator for HeaderAuth {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, AuthError> {
        let tenant = tenant_header(headers)?.ok_or(AuthError::NoTenant)?;
        Ok(Identity { tenant, access: vec![Access::Read, Access::Write] })
    }
}

/// The tenant that the header names, if it is there.
pub fn tenant_header(headers: &HeaderMap) -> Result<Option<TenantId>, AuthError> {
    let Some(value) = headers.get(TENANT_HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| AuthError::NotText)?;
    Ok(Some(TenantId::new(text)?))
}

/// The layer: leaves an [`Identity`] in the request's extensions, or answers for the handler. A gRPC request is
/// answered with a status in its trailers, as its client expects.
pub async fn identify(
    State(authenticator): State<Arc<dyn Authenticator>>,
    mut request: Request,
    next: Next,
) -> Response {
    match authenticator.authenticate(request.headers()).await {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(error) => respond(request.headers(), ApiError::from(error)),
    }
}

/// The error in the form that the request's protocol wants.
pub fn respond(request_headers: &HeaderMap, error: ApiError) -> Response {
    let content_type = request_headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    if content_type.is_some_and(|text| text.starts_with("application/grpc")) {
        return tonic::Status::from(error).into_http();
    }
    error.into_response()
}
