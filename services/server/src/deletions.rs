//! What a tenant has had deleted: asked for here, in force for the next query, carried out in blocks by the compactor.

use axum::extract::{Path, Query, State};
use axum::routing::{delete, get};
use axum::{Json, Router};
use cambium_model::deletion::Deletion;
use cambium_model::selector::Selector;
use cambium_model::tenant::Tenant;
use cambium_model::time::{self, SECOND_NS, TimeRange};
use cambium_runtime::error::{ApiError, Kind};
use cambium_runtime::tenancy::{Access, Identity};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use crate::http::Doors;

/// The tenants' endpoints.
pub fn router(doors: &Doors) -> Router {
    Router::new()
        .route("/api/v1/deletions", get(list).post(create))
        .route("/api/v1/deletions/{id}", delete(cancel))
        .with_state(doors.clone())
}

/// The endpoints as OpenAPI describes them.
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(paths(list, create, cancel))]
    struct Routes;

    Routes::openapi()
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
struct Answer<T> {
    /// `success`.
    status: &'static str,
    /// What was asked for.
    data: T,
}

fn success<T>(data: T) -> Json<Answer<T>> {
    Json(Answer { status: "success", data })
}

/// A deletion that was asked for.
#[derive(Debug, Serialize, ToSchema)]
struct Listed {
    /// Its number.
    id: u64,
    /// Which series.
    selector: String,
    /// From when on, unix seconds; none where there is no bound.
    start: Option<f64>,
    /// Until when, unix seconds.
    end: Option<f64>,
    /// When it was asked for, unix seconds.
    created: f64,
    /// Blocks in which it has not been carried out yet.
    pending_blocks: usize,
}

/// The numbers of new deletions.
#[derive(Debug, Serialize, ToSchema)]
struct Created {
    /// One for each selector.
    ids: Vec<u64>,
}

/// Deletions in force.
#[utoipa::path(
    get,
    path = "/api/v1/deletions",
    tag = "deletions",
    responses((status = 200, description = "The tenant's deletions", body = Answer<Vec<Listed>>))
)]
async fn list(
    State(doors): State<Doors>,
    identity: axum::Extension<Identity>,
) -> Result<Json<Answer<Vec<Listed>>>, ApiError> {
    let Some(tenant) = tenant(&doors, &identity, Access::Read).await? else {
        return Ok(success(Vec::new()));
    };
    let view = doors.catalogue.view(&tenant, TimeRange::ALL).await?;
    let datasets: Vec<_> = view.blocks.iter().filter_map(|block| block.dataset(&tenant)).collect();
    let listed = view.deletions.iter().map(|recorded| Listed {
        id: recorded.id,
        selector: recorded.deletion.selector.to_string(),
        start: seconds(recorded.deletion.range.start_ns),
        end: seconds(recorded.deletion.range.end_ns),
        created: recorded.created_ns as f64 / SECOND_NS as f64,
        pending_blocks: datasets.iter().filter(|dataset| dataset.awaits(recorded)).count(),
    });
    Ok(success(listed.collect()))
}

/// Deletes the profiles of these series, of all types, whenever they arrive. They count for no query from now on, and are
/// gone from the blocks once those are next rewritten.
#[utoipa::path(
    post,
    path = "/api/v1/deletions",
    tag = "deletions",
    params(
        ("match[]" = Vec<String>, Query, description = "Label selectors; `{}` for all series"),
        ("start" = Option<String>, Query, description = "RFC 3339 or unix seconds; default the beginning of time"),
        ("end" = Option<String>, Query, description = "RFC 3339 or unix seconds; default and at most now"),
    ),
    responses((status = 200, description = "Their numbers", body = Answer<Created>))
)]
async fn create(
    State(doors): State<Doors>,
    identity: axum::Extension<Identity>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<Answer<Created>>, ApiError> {
    let now_ns = doors.clock.now_ns();
    let all = |wanted: &str| {
        let named = parameters.iter().filter(|(name, value)| name == wanted && !value.is_empty());
        named.map(|(_, value)| value.as_str()).collect::<Vec<&str>>()
    };
    let instant = |name: &str, default: i64| match all(name).first() {
        None => Ok(default),
        Some(text) => time::parse(text).map_err(|error| invalid(format!("{name}: {error}"))),
    };
    let (start_ns, end_ns) = (instant("start", i64::MIN)?, instant("end", now_ns)?);
    if end_ns > now_ns {
        return Err(invalid("end: lies in the future; what will be pushed cannot be deleted"));
    }
    if end_ns <= start_ns {
        return Err(invalid("end: is not after start"));
    }
    let selectors = all("match[]")
        .into_iter()
        .map(|text| text.parse::<Selector>().map_err(|error| invalid(format!("match[]: {error}"))));
    let selectors = selectors.collect::<Result<Vec<_>, _>>()?;
    if selectors.is_empty() {
        return Err(invalid("match[]: is missing"));
    }
    let mut ids = Vec::new();
    if let Some(tenant) = tenant(&doors, &identity, Access::Write).await? {
        for selector in selectors {
            let deletion = Deletion { selector, range: TimeRange { start_ns, end_ns } };
            let catalogue = &doors.catalogue;
            ids.push(catalogue.delete(tenant.number, &deletion, now_ns).await?);
        }
    }
    Ok(success(Created { ids }))
}

/// Takes a deletion back, as far as it has not been carried out yet.
#[utoipa::path(
    delete,
    path = "/api/v1/deletions/{id}",
    tag = "deletions",
    params(("id" = u64, Path, description = "The deletion's number")),
    responses((status = 200, description = "It is not in force", body = Answer<Created>))
)]
async fn cancel(
    State(doors): State<Doors>,
    identity: axum::Extension<Identity>,
    Path(id): Path<u64>,
) -> Result<Json<Answer<Created>>, ApiError> {
    if let Some(tenant) = tenant(&doors, &identity, Access::Write).await? {
        doors.catalogue.forget_deletion(tenant.number, id).await?;
    }
    Ok(success(Created { ids: vec![id] }))
}

/// The caller's tenant; none where it has never written.
async fn tenant(doors: &Doors, identity: &Identity, needed: Access) -> Result<Option<Tenant>, ApiError> {
    let id = identity.require(needed)?;
    Ok(doors.tenants.resolve(id).await?)
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(Kind::Invalid, message)
}

fn seconds(time_ns: i64) -> Option<f64> {
    (time_ns != i64::MIN && time_ns != i64::MAX).then(|| time_ns as f64 / SECOND_NS as f64)
}
