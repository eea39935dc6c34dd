//! What exists: profile types, labels, their values, and series with a profile in range.

use axum::extract::{Path, State};
use axum::response::Response;
use cambium_runtime::error::ApiError;
use serde_json::Value;

use super::answer;
use super::caller::Caller;
use super::params::{ParamError, Params};
use crate::engine::Querier;
use crate::merged::Listing;
use crate::render::series;
use crate::request::{ListQuery, inclusive};

/// Profile types.
#[utoipa::path(
    get,
    path = "/api/v1/profile_types",
    tag = "read",
    params(
        ("match[]" = Option<Vec<String>>, Query, description = "Series selectors, any of which must match"),
        ("start" = Option<String>, Query, description = "RFC 3339 or unix seconds; default an hour before the end"),
        ("end" = Option<String>, Query, description = "RFC 3339 or unix seconds; default now"),
        ("limit" = Option<usize>, Query, description = "Most entries; 0 for all"),
        ("prefix" = Option<String>, Query, description = "Only entries that start with this"),
    ),
    responses((status = 200, description = "A list of types with their parts"))
)]
pub(super) async fn profile_types(
    State(querier): State<Querier>,
    caller: Caller,
    params: Params,
) -> Result<Response, ApiError> {
    let listing = querier.profile_types(&query(&querier, caller, &params)?).await?;
    Ok(respond(&series::profile_types(&listing.entries), &listing))
}

/// Label names.
#[utoipa::path(
    get,
    path = "/api/v1/labels",
    tag = "read",
    params(
        ("match[]" = Option<Vec<String>>, Query, description = "Series selectors, any of which must match"),
        ("start" = Option<String>, Query, description = "RFC 3339 or unix seconds; default an hour before the end"),
        ("end" = Option<String>, Query, description = "RFC 3339 or unix seconds; default now"),
        ("limit" = Option<usize>, Query, description = "Most entries; 0 for all"),
        ("prefix" = Option<String>, Query, description = "Only entries that start with this"),
    ),
    responses((status = 200, description = "A sorted list of names"))
)]
pub(super) async fn labels(
    State(querier): State<Querier>,
    caller: Caller,
    params: Params,
) -> Result<Response, ApiError> {
    let listing = querier.label_names(&query(&querier, caller, &params)?).await?;
    Ok(respond(&listing.entries.as_slice().into(), &listing))
}

/// Values of one label.
#[utoipa::path(
    get,
    path = "/api/v1/label/{name}/values",
    tag = "read",
    params(
        ("name" = String, Path, description = "The label"),
        ("match[]" = Option<Vec<String>>, Query, description = "Series selectors, any of which must match"),
        ("start" = Option<String>, Query, description = "RFC 3339 or unix seconds; default an hour before the end"),
        ("end" = Option<String>, Query, description = "RFC 3339 or unix seconds; default now"),
        ("limit" = Option<usize>, Query, description = "Most entries; 0 for all"),
        ("prefix" = Option<String>, Query, description = "Only entries that start with this"),
    ),
    responses((status = 200, description = "A sorted list of values"))
)]
pub(super) async fn label_values(
    State(querier): State<Querier>,
    Path(name): Path<String>,
    caller: Caller,
    params: Params,
) -> Result<Response, ApiError> {
    let listing = querier.label_values(&query(&querier, caller, &params)?, &name).await?;
    Ok(respond(&listing.entries.as_slice().into(), &listing))
}

/// Series.
#[utoipa::path(
    get,
    path = "/api/v1/series",
    tag = "read",
    params(
        ("match[]" = Vec<String>, Query, description = "Series selectors, any of which must match"),
        ("start" = Option<String>, Query, description = "RFC 3339 or unix seconds; default an hour before the end"),
        ("end" = Option<String>, Query, description = "RFC 3339 or unix seconds; default now"),
        ("limit" = Option<usize>, Query, description = "Most entries; 0 for all"),
    ),
    responses((status = 200, description = "A list of label sets, with the profile type as __profile_type__"))
)]
pub(super) async fn series(
    State(querier): State<Querier>,
    caller: Caller,
    params: Params,
) -> Result<Response, ApiError> {
    let listing = querier.series(&query(&querier, caller, &params)?).await?;
    Ok(respond(&series::label_sets(&listing.entries), &listing))
}

fn query(querier: &Querier, caller: Caller, params: &Params) -> Result<ListQuery, ParamError> {
    let (start, end) = params.range("", querier.deps().clock.now_ns(), &caller.limits)?;
    Ok(ListQuery {
        tenant: caller.tenant,
        matches: params.selectors("match[]")?,
        range: inclusive(start, end),
        limit: params.count("limit")?.unwrap_or_default(),
        prefix: params.get("prefix").unwrap_or_default().to_owned(),
    })
}

fn respond<T>(entries: &Value, listing: &Listing<T>) -> Response {
    answer::json(entries.to_string().as_bytes(), &[("truncated", listing.truncated.into())], &listing.stats)
}
