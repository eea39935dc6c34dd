//! Profile values over time.

use axum::extract::State;
use axum::response::Response;
use cambium_model::selector::ProfileQuery;
use cambium_runtime::error::ApiError;

use super::answer;
use super::caller::Caller;
use super::merge::AGGREGATIONS;
use super::params::{ParamError, Params};
use crate::engine::Querier;
use crate::render::series;
use crate::request::{Aggregation, RangeQuery};

/// A point per step, as a Prometheus matrix.
#[utoipa::path(
    get,
    path = "/api/v1/query_range",
    tag = "read",
    params(
        ("query" = String, Query, description = "type{matchers}"),
        ("start" = Option<String>, Query, description = "RFC 3339 or unix seconds; default an hour before the end"),
        ("end" = Option<String>, Query, description = "RFC 3339 or unix seconds; default now"),
        ("step" = String, Query, description = "Distance of points: seconds, or with a unit such as 1m"),
        ("by" = Option<String>, Query, description = "Label names, separated by commas: a series for each combination"),
        ("agg" = Option<String>, Query, description = "sum, avg or last within a step; default sum for delta types, else avg"),
        ("rate" = Option<bool>, Query, description = "Values per second"),
        ("explain" = Option<bool>, Query, description = "Say what was read of which block"),
        ("dry_run" = Option<bool>, Query, description = "Only say what would be read, and about how many bytes"),
    ),
    responses((status = 200, description = "A matrix; a point at t covers the profiles of (t - step, t]"))
)]
pub(super) async fn query_range(
    State(querier): State<Querier>,
    caller: Caller,
    params: Params,
) -> Result<Response, ApiError> {
    let query: ProfileQuery = params.selector("query")?;
    let (start_ns, end_ns) = params.range("", querier.deps().clock.now_ns(), &caller.limits)?;
    let step_ns = params.step("step")?.ok_or_else(|| ParamError::Missing { name: "step".to_owned() })?;
    let aggregation = params.choice("agg", &AGGREGATIONS)?;
    let query = RangeQuery {
        tenant: caller.tenant,
        aggregation: aggregation.unwrap_or_else(|| Aggregation::default_for(&query.profile_type)),
        query,
        start_ns,
        end_ns,
        step_ns,
        by: params.names("by"),
        per_second: params.flag("rate")?,
    };
    if params.flag("dry_run")? {
        return Ok(answer::plan(&querier.plan_range(&query).await?));
    }
    let explain = params.flag("explain")?;
    let matrix = querier.range(&query).await?;
    let data = series::matrix(&matrix.series).to_string();
    let plan = explain.then(|| ("explain", answer::explained(&matrix.plan)));
    Ok(answer::json(data.as_bytes(), plan.as_slice(), &matrix.stats))
}
