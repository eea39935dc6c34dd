//! The read side of the HTTP API: parameters in, renders out, nothing decided in between.
//!
//! ```text
//!   request ──► Caller (who may read what) ──► Params (every error names its parameter) ──► request::*
//!                                                                                             │
//!   response ◄── answer (one envelope) ◄── render ◄── resolve ◄── fold, truncate ◄── Querier ◄┘
//! ```
//!
//! Every JSON answer is `{"status":"success","data":…,"stats":…}`; every other one carries the same stats in the
//! header `x-cambium-stats`. Parameters come in the query string or a POST form; unknown ones are ignored as in
//! Prometheus. A handler is plain async: when the connection closes its future is dropped and the query with it.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use utoipa::OpenApi;

use crate::engine::Querier;

mod answer;
mod caller;
mod diff;
mod lists;
mod merge;
mod params;
mod range;
mod shape;
mod sql;
mod status;
/// Bytes of a request's form or statement.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The read endpoints. The caller's layers put an [`Identity`](cambium_runtime::tenancy::Identity) into every request.
pub fn router(querier: Querier) -> Router {
    Router::new()
        .route("/api/v1/profile_types", get(lists::profile_types).post(lists::profile_types))
        .route("/api/v1/labels", get(lists::labels).post(lists::labels))
        .route("/api/v1/label/{name}/values", get(lists::label_values).post(lists::label_values))
        .route("/api/v1/series", get(lists::series).post(lists::series))
        .route("/api/v1/query_range", get(range::query_range).post(range::query_range))
        .route("/api/v1/query", get(merge::query).post(merge::query))
        .route("/api/v1/diff", get(diff::diff).post(diff::diff))
        .route("/api/v1/sql", post(sql::sql))
        .route("/api/v1/status/limits", get(status::limits))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(querier)
}

/// The read endpoints' part of the OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(
        lists::profile_types,
        lists::labels,
        lists::label_values,
        lists::series,
        range::query_range,
        merge::query,
        diff::diff,
        sql::sql,
        status::limits,
    ),
    tags((name = "read", description = "Queries; all are of the tenant that the credential or header names"))
)]
struct Document;

#[cfg(test)]
mod tests;
