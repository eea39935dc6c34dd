//! The merge of a range, or the single profile closest to a time, in one of eight forms.

use axum::extract::State;
use axum::response::Response;
use cambium_blocks::shape::FoldBy;
use cambium_model::labels::Labels;
use cambium_model::selector::ProfileQuery;
use cambium_runtime::error::ApiError;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::answer;
use super::caller::Caller;
use super::params::{ParamError, Params};
use super::shape::{Form, RENDER_ROWS, Shape, draw};
use crate::engine::{Querier, off_loop};
use crate::merged::{Group, Merged, SingleProfile, Stats};
use crate::render;
use crate::render::series::label_map;
use crate::request::{Aggregation, MergeQuery, Pick, inclusive};
use crate::resolve::{FrameTree, look_up};

/// The words for `agg`.
pub(super) const AGGREGATIONS: [(&str, Aggregation); 3] =
    [("sum", Aggregation::Sum), ("avg", Aggregation::Avg), ("last", Aggregation::Last)];

/// A merge of profiles.
#[utoipa::path(
    get,
    path = "/api/v1/query",
    tag = "read",
    params(
        ("query" = String, Query, description = "type{matchers}"),
        ("start" = Option<String>, Query, description = "RFC 3339 or unix seconds; default an hour before the end"),
        ("end" = Option<String>, Query, description = "RFC 3339 or unix seconds; default now"),
        ("time" = Option<String>, Query, description = "The single profile closest to this instant, instead of a range"),
        ("format" = Option<String>, Query, description = "flamegraph (default), arrow, pprof, top, tree, folded, dot or speedscope"),
        ("granularity" = Option<String>, Query, description = "function (default), line or address"),
        ("max_nodes" = Option<usize>, Query, description = "Most nodes of a flame graph; 0 for all, default 8192"),
        ("min_fraction" = Option<f64>, Query, description = "Least part of the total that a flame graph shows"),
        ("exact" = Option<bool>, Query, description = "Drop nothing; 422 where samples that this needs were dropped by downsampling"),
        ("agg" = Option<String>, Query, description = "sum, avg or last; default sum for delta types, else avg"),
        ("by" = Option<String>, Query, description = "Label names, separated by commas: a tree for each combination (flamegraph and top)"),
        ("explain" = Option<bool>, Query, description = "Say what was read of which block (flamegraph and top)"),
        ("dry_run" = Option<bool>, Query, description = "Only say what would be read, and about how many bytes"),
    ),
    responses((status = 200, description = "The merge in the form asked for"))
)]
pub(super) async fn query(
    State(querier): State<Querier>,
    caller: Caller,
    params: Params,
) -> Result<Response, ApiError> {
    let shape = Shape::read(&params)?;
    let query = merge_query(&querier, &caller, &params, "", shape.fold_by())?;
    if !query.by.is_empty() && !matches!(shape.form, Form::Flamegraph | Form::Top) {
        let other = "this format: it goes with flamegraph and top".to_owned();
        return Err(ParamError::Conflict { name: "by", other }.into());
    }
    if params.flag("dry_run")? {
        return Ok(answer::plan(&querier.plan_merge(&query).await?));
    }
    let explain = params.flag("explain")?;
    if explain && shape.form.content_type().is_some() {
        let other = "this format: it goes with flamegraph and top".to_owned();
        return Err(ParamError::Conflict { name: "explain", other }.into());
    }
    if shape.form == Form::Pprof {
        return pprof(&querier, &query).await;
    }
    let Merged { groups, single, mut stats, plan, .. } = querier.merge(&query).await?;
    let plan = explain.then(|| ("explain", answer::explained(&plan)));
    let mut rendered = Vec::with_capacity(groups.len());
    for Group { labels, tree } in groups {
        let of = query.clone();
        let render = move |tree: &FrameTree<1>| shape.form.render(tree, &of);
        rendered.push((labels, draw(&querier, &query, shape, [tree], &mut stats, render).await?));
    }
    if !query.by.is_empty() {
        return Ok(grouped(&rendered, plan.as_slice(), &stats));
    }
    let (_, body) = rendered.pop().expect("a merge without `by` has exactly one group");
    Ok(match shape.form.content_type() {
        None => {
            let profile = single.as_ref().map(|single| ("profile", single_json(single)));
            let extra: Vec<(&str, Value)> = profile.into_iter().chain(plan).collect();
            answer::json(&body, &extra, &stats)
        }
        Some(content_type) => answer::other(content_type, body, &stats),
    })
}

/// The request for the profiles that parameters with this prefix name.
pub(super) fn merge_query(
    querier: &Querier,
    caller: &Caller,
    params: &Params,
    prefix: &str,
    fold_by: FoldBy,
) -> Result<MergeQuery, ParamError> {
    let query: ProfileQuery = params.selector(&format!("{prefix}query"))?;
    let aggregation = params.choice("agg", &AGGREGATIONS)?;
    let pick = match params.time("time")? {
        Some(time_ns) => {
            let excluded = ["start", "end", "agg", "by"].into_iter().find(|name| params.get(name).is_some());
            if let Some(other) = excluded {
                return Err(ParamError::Conflict { name: "time", other: other.to_owned() });
            }
            Pick::Closest { time_ns }
        }
        None => {
            let (start, end) = params.range(prefix, querier.deps().clock.now_ns(), &caller.limits)?;
            let aggregation = aggregation.unwrap_or_else(|| Aggregation::default_for(&query.profile_type));
            Pick::Range { range: inclusive(start, end), aggregation }
        }
    };
    Ok(MergeQuery {
        tenant: caller.tenant.clone(),
        query,
        pick,
        fold_by,
        by: params.names("by"),
        exact: params.flag("exact")?,
    })
}

/// The exact profile: every location, every sample label.
async fn pprof(querier: &Querier, query: &MergeQuery) -> Result<Response, ApiError> {
    let clock = &querier.deps().clock;
    let mut merged = querier.merge_samples(query).await?;
    let began = clock.monotonic();
    let locations = merged.tree.locations[1..].iter().copied();
    let names = look_up(&querier.deps().symbols, &query.tenant, locations).await?;
    let resolved = clock.monotonic();
    let mut stats = std::mem::take(&mut merged.stats);
    let rows = merged.samples.len() * RENDER_ROWS;
    let body = off_loop(rows, move || render::pprof::render(&merged, &names)).await;
    stats.milliseconds.resolve += (resolved - began).as_secs_f64() * 1e3;
    stats.milliseconds.render += (clock.monotonic() - resolved).as_secs_f64() * 1e3;
    let mut response = answer::other(Form::Pprof.content_type().unwrap_or_default(), body, &stats);
    let name = HeaderValue::from_static("attachment; filename=\"profile.pb.gz\"");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

/// `{"groups":[{"labels":{…},"data":…},…]}`.
fn grouped(rendered: &[(Labels, Vec<u8>)], extra: &[(&str, Value)], stats: &Stats) -> Response {
    let mut data = br#"{"groups":["#.to_vec();
    for (at, (labels, body)) in rendered.iter().enumerate() {
        if at > 0 {
            data.push(b',');
        }
        let labels = Value::Object(label_map(labels));
        data.extend_from_slice(format!(r#"{{"labels":{labels},"data":"#).as_bytes());
        data.extend_from_slice(body);
        data.push(b'}');
    }
    data.extend_from_slice(b"]}");
    answer::json(&data, extra, stats)
}

fn single_json(single: &SingleProfile) -> Value {
    json!({
        "labels": label_map(&single.labels),
        "time_ns": single.time_ns,
        "duration_ns": single.duration_ns,
        "period": single.period,
    })
}
