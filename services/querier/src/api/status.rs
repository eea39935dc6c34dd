//! What the tenant may send and ask for.

use axum::response::Response;

use super::answer;
use super::caller::Caller;
use crate::merged::Stats;

/// The tenant's limits, by their names in the overrides file.
#[utoipa::path(
    get,
    path = "/api/v1/status/limits",
    tag = "read",
    responses((status = 200, description = "The limits as an object"))
)]
pub(super) async fn limits(caller: Caller) -> Response {
    let limits = serde_json::to_vec(&caller.limits).expect("limits are numbers and texts under text keys");
    answer::json(&limits, &[], &Stats::default())
}
