//! Two merges side by side.

use axum::extract::State;
use axum::response::Response;
use cambium_runtime::error::ApiError;

use super::answer;
use super::caller::Caller;
use super::merge::merge_query;
use super::params::{ParamError, Params};
use super::shape::{Form, Shape, draw, overflow};
use crate::engine::Querier;
use crate::merged::{Merged, MergedTree, Milliseconds, Stats};
use crate::render::{flamegraph, top};
use crate::resolve::FrameTree;

/// The union of two merges, with both sides' values at every node.
#[utoipa::path(
    get,
    path = "/api/v1/diff",
    tag = "read",
    params(
        ("left_query" = String, Query, description = "type{matchers} of the left side"),
        ("left_start" = Option<String>, Query, description = "RFC 3339 or unix seconds; default an hour before the end"),
        ("left_end" = Option<String>, Query, description = "RFC 3339 or unix seconds; default now"),
        ("right_query" = String, Query, description = "type{matchers} of the right side"),
        ("right_start" = Option<String>, Query, description = "RFC 3339 or unix seconds; default an hour before the end"),
        ("right_end" = Option<String>, Query, description = "RFC 3339 or unix seconds; default now"),
        ("format" = Option<String>, Query, description = "flamegraph (default) or top"),
        ("granularity" = Option<String>, Query, description = "function (default), line or address"),
        ("max_nodes" = Option<usize>, Query, description = "Most nodes of a flame graph; 0 for all, default 8192"),
        ("min_fraction" = Option<f64>, Query, description = "Least part of either total that a flame graph shows"),
        ("exact" = Option<bool>, Query, description = "Drop nothing"),
        ("agg" = Option<String>, Query, description = "sum, avg or last; default sum for delta types, else avg"),
    ),
    responses((status = 200, description = "Rows with left and right values"))
)]
pub(super) async fn diff(
    State(querier): State<Querier>,
    caller: Caller,
    params: Params,
) -> Result<Response, ApiError> {
    let shape = Shape::read(&params)?;
    if !matches!(shape.form, Form::Flamegraph | Form::Top) {
        return Err(ParamError::Conflict {
            name: "format",
            other: "a diff unless flamegraph or top".to_owned(),
        }
        .into());
    }
    if let Some(name) = ["time", "by"].into_iter().find(|name| params.get(name).is_some()) {
        return Err(ParamError::Conflict { name, other: "a diff".to_owned() }.into());
    }
    let left_query = merge_query(&querier, &caller, &params, "left_", shape.fold_by())?;
    let right_query = merge_query(&querier, &caller, &params, "right_", shape.fold_by())?;
    let (left_type, right_type) = (&left_query.query.profile_type, &right_query.query.profile_type);
    if (&left_type.sample_type, &left_type.sample_unit) != (&right_type.sample_type, &right_type.sample_unit)
    {
        let other = "left_query: their sample types and units must be equal".to_owned();
        return Err(ParamError::Conflict { name: "right_query", other }.into());
    }
    // One after the other: a diff takes one of the tenant's places among running queries, not two.
    let left = querier.merge(&left_query).await?;
    let right = querier.merge(&right_query).await?;
    let mut stats = sum(&left.stats, &right.stats);
    let profile_type = left_type.clone();
    let render = move |tree: &FrameTree<2>| match shape.form {
        Form::Top => top::render(tree, &profile_type.sample_unit).ok_or_else(|| overflow(&profile_type)),
        _ => Ok(flamegraph::render(tree, &profile_type.sample_unit)),
    };
    let trees = [left, right].map(only_tree);
    let body = draw(&querier, &left_query, shape, trees, &mut stats, render).await?;
    Ok(answer::json(&body, &[], &stats))
}

fn only_tree(merged: Merged) -> MergedTree {
    merged.groups.into_iter().next().expect("a merge without `by` has exactly one group").tree
}

/// What both sides cost together.
fn sum(left: &Stats, right: &Stats) -> Stats {
    let (a, b) = (left.milliseconds, right.milliseconds);
    Stats {
        blocks: left.blocks + right.blocks,
        heads: left.heads + right.heads,
        requests: left.requests + right.requests,
        bytes: left.bytes + right.bytes,
        bytes_needed: left.bytes_needed + right.bytes_needed,
        resolution_secs: left.resolution_secs.max(right.resolution_secs),
        rows: left.rows + right.rows,
        missing: [left, right]
            .into_iter()
            .max_by_key(|side| side.missing.len())
            .map_or_else(Vec::new, |side| side.missing.clone()),
        milliseconds: Milliseconds {
            plan: a.plan + b.plan,
            scan: a.scan + b.scan,
            merge: a.merge + b.merge,
            resolve: a.resolve + b.resolve,
            render: a.render + b.render,
        },
    }
}
