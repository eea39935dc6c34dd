//! One SELECT over the tenant's profiles, as JSON, CSV or Arrow.

use axum::Json;
use axum::extract::{Request, State};
use axum::response::Response;
use cambium_runtime::error::{ApiError, Kind};
use datafusion::error::DataFusionError;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use super::answer;
use super::caller::Caller;
use super::params::Params;
use crate::engine::{Querier, off_loop};
use crate::error::Error;
use crate::render;
use crate::request::{SqlQuery, inclusive};

/// The request's body. Times may be texts or numbers.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct Statement {
    /// One SELECT over `samples`, `profiles`, `series` and `stacks`.
    sql: String,
    /// RFC 3339 or unix seconds; default an hour before the end.
    #[serde(default)]
    start: Value,
    /// RFC 3339 or unix seconds; default now.
    #[serde(default)]
    end: Value,
}

/// Forms of an answer, by what `Accept` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    Json,
    Csv,
    Arrow,
}

/// Runs a statement.
#[utoipa::path(
    post,
    path = "/api/v1/sql",
    tag = "read",
    request_body = Statement,
    responses((status = 200, description = "Rows: JSON objects, or text/csv or an Arrow IPC stream if Accept says so"))
)]
pub(super) async fn sql(
    State(querier): State<Querier>,
    caller: Caller,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let rows = accepted(&headers);
    let statement = statement(request).await?;
    let times = [("start", &statement.start), ("end", &statement.end)];
    let given = times.map(|(name, value)| (name.to_owned(), time_text(value)));
    let params = Params::from_pairs(given.into());
    let (start, end) = params.range("", querier.deps().clock.now_ns(), &caller.limits)?;
    let mut answer = querier
        .sql(&SqlQuery {
            tenant: caller.tenant,
            sql: statement.sql,
            range: inclusive(start, end),
            rows_max: caller.limits.sql_rows_max,
        })
        .await?;
    let clock = &querier.deps().clock;
    let began = clock.monotonic();
    let mut stats = std::mem::take(&mut answer.stats);
    let cells = answer.batches.iter().map(|batch| batch.num_rows() * batch.num_columns()).sum();
    let rendered = off_loop(cells, move || match rows {
        Rows::Json => render::sql::json(&answer),
        Rows::Csv => render::sql::csv(&answer),
        Rows::Arrow => render::sql::arrow(&answer),
    });
    let body = rendered.await.map_err(|error| Error::from(DataFusionError::from(error)))?;
    stats.milliseconds.render += (clock.monotonic() - began).as_secs_f64() * 1e3;
    Ok(match rows {
        Rows::Json => answer::json(&body, &[], &stats),
        Rows::Csv => answer::other("text/csv; charset=utf-8", body, &stats),
        Rows::Arrow => answer::other(render::arrow::CONTENT_TYPE, body, &stats),
    })
}

async fn statement(request: Request) -> Result<Statement, ApiError> {
    use axum::extract::FromRequest as _;
    let read = Json::<Statement>::from_request(request, &()).await;
    let Json(statement) = read.map_err(|error| {
        let kind =
            if error.status() == StatusCode::PAYLOAD_TOO_LARGE { Kind::TooLarge } else { Kind::Invalid };
        ApiError::new(kind, format!("body must be {{\"sql\": …, \"start\", \"end\"}}: {}", error.body_text()))
    })?;
    Ok(statement)
}

/// A time as parameters have it; nothing for null.
fn time_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The first type of `Accept` that there is; JSON where it names none.
fn accepted(headers: &HeaderMap) -> Rows {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let types = accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
    let known = types.filter_map(|name| match name {
        "application/json" => Some(Rows::Json),
        "text/csv" => Some(Rows::Csv),
        render::arrow::CONTENT_TYPE => Some(Rows::Arrow),
        _ => None,
    });
    known.into_iter().next().unwrap_or(Rows::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_chooses_the_form() {
        let cases = [
            ("", Rows::Json),
            ("*/*", Rows::Json),
            ("text/csv", Rows::Csv),
            ("text/html, text/csv;q=0.9, application/json", Rows::Csv),
            ("application/vnd.apache.arrow.stream", Rows::Arrow),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(accepted(&headers), expected, "{accept:?}");
        }
    }
}
