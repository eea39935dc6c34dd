//! Who asks: the tenant whose profiles a request may read.

use axum::extract::FromRequestParts;
use cambium_model::limits::TenantLimits;
use cambium_model::tenant::{Tenant, TenantNumber};
use cambium_runtime::error::{ApiError, Kind};
use cambium_runtime::tenancy::{Access, Identity};
use http::request::Parts;

use crate::engine::Querier;
use crate::error::Error;

/// The number of a tenant that has never written. It is no tenant's, so whatever is asked of it is empty.
const NEVER_WRITTEN: TenantNumber = TenantNumber(0);

/// A request's tenant, checked for read access.
pub(super) struct Caller {
    /// Whose profiles it reads.
    pub tenant: Tenant,
    /// What it may ask for.
    pub limits: TenantLimits,
}

impl FromRequestParts<Querier> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, querier: &Querier) -> Result<Self, ApiError> {
        let identity = parts
            .extensions
            .get::<Identity>()
            .ok_or_else(|| ApiError::new(Kind::Unauthenticated, "the request has no identity"))?;
        let id = identity.require(Access::Read)?;
        let tenant = querier.deps().tenants.resolve(id).await.map_err(Error::from)?;
        let tenant = tenant.unwrap_or_else(|| Tenant { id: id.clone(), number: NEVER_WRITTEN });
        Ok(Self { limits: querier.limits(id), tenant })
    }
}
