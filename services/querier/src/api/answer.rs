//! The forms an answer comes in: one JSON envelope, and bodies of other types with their stats in a header.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;

use crate::explain::Explain;
use crate::merged::{MissingLog, Stats};

/// Where answers that are not JSON carry their stats.
pub(super) const STATS_HEADER: HeaderName = HeaderName::from_static("x-cambium-stats");

/// `{"status":"success","data":…,…,"stats":…}` around data that is JSON already; `extra` stands beside the data.
pub(super) fn json(data: &[u8], extra: &[(&str, Value)], stats: &Stats) -> Response {
    /// Bytes of everything but the data, about.
    const ENVELOPE_BYTES: usize = 512;
    let mut body = Vec::with_capacity(data.len() + ENVELOPE_BYTES);
    body.extend_from_slice(br#"{"status":"success","data":"#);
    body.extend_from_slice(data);
    for (key, value) in extra {
        body.extend_from_slice(format!(",{}:{value}", Value::from(*key)).as_bytes());
    }
    if !stats.missing.is_empty() {
        body.extend_from_slice(format!(",\"warnings\":{}", Value::from(warnings(stats))).as_bytes());
    }
    body.extend_from_slice(br#","stats":"#);
    body.extend_from_slice(stats_json(stats).as_bytes());
    body.push(b'}');
    respond("application/json", body)
}

/// What an answer lacks, for people.
fn warnings(stats: &Stats) -> Vec<String> {
    let one = |missing: &MissingLog| {
        let MissingLog { log, holder, from_offset } = missing;
        format!(
            "partial: recent profiles in log {log} from offset {from_offset} on are missing, {holder} does not answer"
        )
    };
    stats.missing.iter().map(one).collect()
}

/// What a query would read.
pub(super) fn plan(plan: &Explain) -> Response {
    let stats = Stats { blocks: plan.blocks, heads: plan.heads, ..Stats::default() };
    json(explained(plan).to_string().as_bytes(), &[], &stats)
}

/// A plan as JSON.
pub(super) fn explained(plan: &Explain) -> Value {
    serde_json::to_value(plan).expect("numbers and text under text keys are always JSON")
}

/// A body of another type.
pub(super) fn other(content_type: &'static str, body: impl Into<Body>, stats: &Stats) -> Response {
    let mut response = respond(content_type, body);
    let value = HeaderValue::try_from(stats_json(stats)).expect("JSON of numbers is visible ASCII");
    response.headers_mut().insert(STATS_HEADER, value);
    response
}

fn respond(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn stats_json(stats: &Stats) -> String {
    serde_json::to_string(stats).expect("numbers under text keys are always JSON")
}
