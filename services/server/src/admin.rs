//! What operators look at and ask for.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use cambium_cluster::Ring;
use cambium_cluster::node::Role;
use cambium_cluster::pages::{MemberlistPage, RingPage};
use cambium_model::block::LogId;
use cambium_model::tenant::TenantId;
use cambium_model::time::SECOND_NS;
use cambium_runtime::error::{ApiError, Kind};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{OpenApi, ToSchema};

use crate::backup;
use crate::http::Doors;
use crate::inventory::{self, BlockFilter};

/// Content type of the metrics page.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The operate endpoints: method, path and handler. A table, so that the test of isolation cannot miss one.
pub fn endpoints() -> Vec<(&'static str, &'static str, MethodRouter<Doors>)> {
    vec![
        ("GET", "/config", get(config)),
        ("GET", "/runtime_config", get(runtime_config)),
        ("GET", "/services", get(services)),
        ("GET", "/memberlist", get(memberlist)),
        ("GET", "/ring", get(ring)),
        ("GET", "/debug/pprof/profile", get(cpu_profile)),
        ("GET", "/debug/pprof/heap", get(heap_profile)),
        ("POST", "/api/v1/admin/backup", post(write_backup)),
        ("GET", "/api/v1/admin/blocks", get(list_blocks)),
        ("GET", "/api/v1/admin/logs", get(list_logs)),
        ("DELETE", "/api/v1/admin/logs/{id}", delete(forget_log)),
        ("GET", "/api/v1/admin/tenants", get(list_tenants)),
        ("POST", "/api/v1/admin/tenants/{id}", post(create_tenant)),
        ("DELETE", "/api/v1/admin/tenants/{id}", delete(delete_tenant)),
        ("GET", "/api/v1/admin/tenants/{id}", get(tenant_status)),
        ("POST", "/ingester/flush", post(flush)),
        ("POST", "/ingester/shutdown", post(shutdown)),
    ]
}

/// The operate endpoints.
pub fn router(doors: &Doors) -> Router {
    let mut router = Router::new();
    for (_, path, handler) in endpoints() {
        router = router.route(path, handler);
    }
    router.with_state(doors.clone())
}

/// What anyone may ask.
pub fn open_router(doors: &Doors) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/ready", get(ready))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(doors.clone())
}

/// What every tenant may ask of the server itself. A table, so that the test below finds what is not described.
fn status_endpoints() -> [(&'static str, MethodRouter<Doors>); 2] {
    [("/api/v1/status/buildinfo", get(build_info)), ("/api/v1/status/config", get(status_config))]
}

/// What every tenant may ask of the server itself.
pub fn status_router(doors: &Doors) -> Router {
    let mut router = Router::new();
    for (path, handler) in status_endpoints() {
        router = router.route(path, handler);
    }
    router.with_state(doors.clone())
}

/// The tenants' endpoints as OpenAPI describes them.
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(paths(build_info, status_config))]
    struct Routes;

    Routes::openapi()
}

async fn metrics(State(doors): State<Doors>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], doors.metrics.encode())
}

/// The doors open after the log is replayed: whoever can ask is answered yes, until the process stops.
async fn ready(State(doors): State<Doors>) -> (StatusCode, &'static str) {
    match *doors.stop.borrow() {
        false => (StatusCode::OK, "ready\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

/// Which build this is.
#[utoipa::path(
    get,
    path = "/api/v1/status/buildinfo",
    responses((status = 200, description = "version, rust_version, debug_assertions", body = Success)),
)]
async fn build_info() -> impl IntoResponse {
    success(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "rust_version": env!("CARGO_PKG_RUST_VERSION"),
        "debug_assertions": cfg!(debug_assertions),
    }))
}

/// The settings as Prometheus shows its own; paths are the operator's business and left out.
#[utoipa::path(
    get,
    path = "/api/v1/status/config",
    responses((status = 200, description = "config: the settings by key", body = Success)),
)]
async fn status_config(State(doors): State<Doors>) -> impl IntoResponse {
    let mut shown = serde_json::to_value(&doors.config).unwrap_or_default();
    for key in ["data_dir", "overrides_file", "internal"] {
        shown.as_object_mut().and_then(|all| all.remove(key));
    }
    success(json!({ "config": shown }))
}

async fn config(State(doors): State<Doors>) -> Response {
    yaml(&doors.config)
}

async fn runtime_config(State(doors): State<Doors>) -> Response {
    let limits = doors.limits.borrow().clone();
    yaml(&*limits)
}

async fn services(State(doors): State<Doors>) -> impl IntoResponse {
    let mut services = Map::new();
    for role in doors.config.target.roles().iter() {
        let mut service = json!({ "state": "running" });
        if let (Role::Ingester, Some(ingester)) = (role, &doors.ingester) {
            let partitions: Vec<u32> = ingester.partitions().iter().map(|partition| partition.0).collect();
            service["partitions"] = json!(partitions);
        }
        services.insert(role.to_string(), service);
    }
    success(Value::Object(services))
}

/// What is asked of a process that does not do it.
fn not_here(role: Role) -> ApiError {
    ApiError::new(Kind::NotFound, format!("this process is no {role}"))
}

/// What is asked of a process that is in no cluster.
fn no_cluster() -> ApiError {
    ApiError::new(Kind::NotFound, "this process is in no cluster: cluster.enabled is false")
}

/// Who is in the cluster, as this node sees it.
async fn memberlist(State(doors): State<Doors>, headers: HeaderMap) -> Result<Response, ApiError> {
    let place = doors.place.as_ref().ok_or_else(no_cluster)?;
    let page = MemberlistPage::new(&place.view().borrow());
    Ok(page_or_json(&headers, &page, MemberlistPage::html))
}

/// Which node should own which partition, as this node sees it.
async fn ring(State(doors): State<Doors>, headers: HeaderMap) -> Result<Response, ApiError> {
    let place = doors.place.as_ref().ok_or_else(no_cluster)?;
    let view = Arc::clone(&place.view().borrow());
    let page = RingPage::new(&view, &Ring::new(&view, place.partitions));
    Ok(page_or_json(&headers, &page, RingPage::html))
}

/// A page for browsers, JSON for everybody else.
fn page_or_json<P: Serialize>(headers: &HeaderMap, page: &P, html: impl FnOnce(&P) -> String) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    match accept.contains("text/html") {
        true => Html(html(page)).into_response(),
        false => success(json!(page)).into_response(),
    }
}

/// How long to profile.
#[derive(Debug, Deserialize)]
struct ProfileParameters {
    /// As in Go's net/http/pprof.
    #[serde(default = "thirty")]
    seconds: u64,
}

fn thirty() -> u64 {
    30
}

/// Longest CPU profile one may ask for.
const PROFILE_SECONDS_MAX: u64 = 300;

async fn cpu_profile(
    State(doors): State<Doors>,
    Query(parameters): Query<ProfileParameters>,
) -> Result<Response, ApiError> {
    let seconds = parameters.seconds;
    if !(1..=PROFILE_SECONDS_MAX).contains(&seconds) {
        let message = format!("seconds: {seconds} is not between 1 and {PROFILE_SECONDS_MAX}");
        return Err(ApiError::new(Kind::Invalid, message));
    }
    let profile = doors.self_profiler.cpu(Duration::from_secs(seconds)).await?;
    Ok(attachment("profile.pb.gz", profile))
}

async fn heap_profile(State(doors): State<Doors>) -> Result<Response, ApiError> {
    Ok(attachment("heap.pb.gz", doors.self_profiler.heap().await?))
}

async fn flush(State(doors): State<Doors>) -> Result<impl IntoResponse, ApiError> {
    let ingester = doors.ingester.as_ref().ok_or_else(|| not_here(Role::Ingester))?;
    let blocks = ingester.flush().await?;
    Ok(success(json!({ "blocks": blocks })))
}

/// What to back up.
#[derive(Debug, Deserialize)]
struct BackupParameters {
    /// Names of locations and objects too.
    #[serde(default)]
    symbols: bool,
}

/// Writes a backup to the data folder and says where it is.
async fn write_backup(
    State(doors): State<Doors>,
    Query(parameters): Query<BackupParameters>,
) -> Result<Response, ApiError> {
    let failed = |error: anyhow::Error| ApiError::new(Kind::Unavailable, format!("backup: {error:#}"));
    let (folder, now_ns) = (backup::folder(&doors.config), doors.clock.now_ns());
    std::fs::create_dir_all(&folder).map_err(|error| failed(error.into()))?;
    let file = folder.join(format!("{now_ns}.backup"));
    let metastore = Arc::clone(&doors.metastore);
    backup::write_file(&doors.config, metastore, now_ns, parameters.symbols, file.clone())
        .await
        .map_err(failed)?;
    let file = std::path::absolute(file).map_err(|error| failed(error.into()))?;
    Ok(success(json!({ "file": file })).into_response())
}

async fn list_blocks(
    State(doors): State<Doors>,
    Query(filter): Query<BlockFilter>,
) -> Result<Response, ApiError> {
    let blocks = inventory::blocks(&doors.catalogue, &filter).await?;
    Ok(success(json!(blocks)).into_response())
}

async fn list_logs(State(doors): State<Doors>) -> Result<Response, ApiError> {
    Ok(success(json!(inventory::logs(&doors.catalogue).await?)).into_response())
}

/// Gives up what a log holds that is in no block.
async fn forget_log(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let log: LogId =
        id.parse().map_err(|()| ApiError::new(Kind::Invalid, format!("{id:?} is not the name of a log")))?;
    let open = doors.catalogue.open_logs().await?;
    if !open.iter().any(|open| open.log == log) {
        return Err(ApiError::new(Kind::NotFound, format!("there is no log {log} that is not sealed")));
    }
    doors.catalogue.forget_log(log).await?;
    tracing::warn!(%log, "the log is given up");
    Ok(success(json!({ "log": id })).into_response())
}

async fn list_tenants(State(doors): State<Doors>) -> Result<Response, ApiError> {
    let tenants = inventory::tenants(&doors.catalogue, &doors.tenants).await?;
    Ok(success(json!(tenants)).into_response())
}

/// Creates a tenant, so that it has a number before it first writes.
async fn create_tenant(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = TenantId::new(&id).map_err(|error| ApiError::new(Kind::Invalid, format!("tenant: {error}")))?;
    doors.tenants.resolve_or_create(&id).await?;
    tenant_status(State(doors), Path(id.to_string())).await
}

/// Deletes a tenant: its profiles are out of sight at once, out of the blocks as they are next written.
async fn delete_tenant(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = TenantId::new(&id).map_err(|error| ApiError::new(Kind::Invalid, format!("tenant: {error}")))?;
    doors.tenants.retire(&id).await?;
    tenant_status(State(doors), Path(id.to_string())).await
}

/// What there is and was of a tenant of this name.
async fn tenant_status(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = TenantId::new(&id).map_err(|error| ApiError::new(Kind::Invalid, format!("tenant: {error}")))?;
    let tenants = &doors.tenants;
    let active =
        tenants.resolve(&id).await?.map(|tenant| json!({ "number": tenant.number.0, "state": "active" }));
    let retired = tenants.retired().await?.into_iter().filter(|retired| retired.tenant.id == id);
    let retired = retired.map(|retired| {
        let state = if retired.erased { "erased" } else { "hidden" };
        json!({
            "number": retired.tenant.number.0,
            "state": state,
            "deleted": retired.retired_ns as f64 / SECOND_NS as f64,
        })
    });
    let all: Vec<Value> = retired.chain(active).collect();
    if all.is_empty() {
        return Err(ApiError::new(Kind::NotFound, format!("there is and was no tenant {id}")));
    }
    Ok(success(json!(all)).into_response())
}

async fn shutdown(State(doors): State<Doors>) -> StatusCode {
    doors.stop.send_replace(true);
    StatusCode::NO_CONTENT
}

/// What was asked for.
#[derive(Debug, Serialize, ToSchema)]
struct Success {
    /// `success`.
    status: &'static str,
    /// The answer.
    data: Value,
}

fn success(data: Value) -> Json<Success> {
    Json(Success { status: "success", data })
}

fn yaml(value: &impl Serialize) -> Response {
    match serde_norway::to_string(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/yaml; charset=utf-8")], text).into_response(),
        Err(error) => ApiError::new(Kind::Internal, error.to_string()).into_response(),
    }
}

fn attachment(name: &str, bytes: Vec<u8>) -> Response {
    let headers: [(HeaderName, String); 2] = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, bytes).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_a_tenant_may_ask_is_described() {
        let described: Vec<String> = openapi().paths.paths.into_keys().collect();
        let served: Vec<&str> = status_endpoints().iter().map(|(path, _)| *path).collect();
        assert_eq!(described, served);
    }
}
