//! Every tenant endpoint, and how to ask it for all it knows.

use std::time::Duration;

use cambium_simulation::Client;
use serde_json::{Value, json};

use super::{Answers, without_stats};

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";

/// Half of the range that everything is asked for.
const AROUND: Duration = Duration::from_secs(300);

/// One way to ask an endpoint.
#[derive(Debug, Default)]
struct Asked {
    parameters: Vec<(String, String)>,
    /// A statement and the `Accept` that goes with it, where the endpoint takes one.
    sql: Option<(String, &'static str)>,
}

/// Method and path of everything that is a tenant's, from the server's own description.
pub fn endpoints(client: &Client) -> Vec<(String, String)> {
    let document = client.json("/api/v1/openapi.json", &[]);
    let paths = document["paths"].as_object().expect("an OpenAPI document has paths");
    let mut found = Vec::new();
    for (path, methods) in paths {
        for method in methods.as_object().expect("a path has methods").keys() {
            found.push((method.to_uppercase(), path.replace("{name}", "pod")));
        }
    }
    assert!(found.len() >= 10, "{found:?}");
    found
}

/// Everything that a tenant can learn, about a range around `now_ns`.
pub fn answers(client: &Client, now_ns: i64) -> Answers {
    let mut found = Answers::new();
    for (method, path) in endpoints(client) {
        if path.starts_with("/api/v1/deletions") && method != "GET" {
            continue; // changes what others are asked about; the test of deletions has two tenants
        }
        for asked in ways(&path, now_ns) {
            let parameters: Vec<(&str, &str)> =
                asked.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let answer = match (method.as_str(), &asked.sql) {
                ("GET", None) => client.get(&path, &parameters),
                ("POST", Some((body, accept))) => {
                    let headers = [("Content-Type", "application/json"), ("Accept", accept)];
                    client.post(&path, &[], &headers, body.as_bytes())
                }
                _ => panic!("teach this test how to ask {method} {path} as {asked:?}"),
            };
            let answer = answer.unwrap_or_else(|error| panic!("{path} {asked:?}: {error}"));
            assert_eq!(answer.status, 200, "{path} {asked:?}: {}", answer.text());
            found.insert(format!("{path} {asked:?}"), without_stats(answer));
        }
    }
    found
}

/// How to ask the endpoint at `path`; none where it answers nothing about profiles.
fn ways(path: &str, now_ns: i64) -> Vec<Asked> {
    let around = i64::try_from(AROUND.as_nanos()).expect("some minutes");
    let seconds = |time_ns: i64| format!("{}.{:09}", time_ns / 1_000_000_000, time_ns % 1_000_000_000);
    let (start, end) = (seconds(now_ns - around), seconds(now_ns + around));
    let with = |more: &[(&str, &str)]| {
        let range = [("start", start.as_str()), ("end", end.as_str())];
        let pairs = range.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Asked { parameters: pairs.collect(), sql: None }
    };
    match path {
        "/api/v1/profiles" => Vec::new(),
        "/api/v1/profile_types" | "/api/v1/labels" => vec![with(&[])],
        "/api/v1/label/pod/values" | "/api/v1/series" => {
            vec![with(&[]), with(&[("match[]", r#"{service_name="api"}"#)])]
        }
        "/api/v1/query_range" => vec![
            with(&[("query", QUERY), ("step", "60")]),
            with(&[("query", QUERY), ("step", "60"), ("by", "pod"), ("rate", "true")]),
        ],
        "/api/v1/query" => {
            let formats = ["flamegraph", "arrow", "pprof", "top", "tree", "folded", "dot", "speedscope"];
            let mut all: Vec<Asked> =
                formats.iter().map(|format| with(&[("query", QUERY), ("format", format)])).collect();
            all.push(with(&[("query", &format!(r#"{QUERY}{{pod="shared"}}"#))]));
            all.push(with(&[("query", QUERY), ("by", "pod"), ("granularity", "line")]));
            let closest = [("query", QUERY), ("time", &seconds(now_ns)), ("format", "top")];
            let closest = closest.map(|(name, value)| (name.to_owned(), value.to_owned()));
            all.push(Asked { parameters: closest.into(), sql: None });
            all
        }
        "/api/v1/diff" => ["flamegraph", "top"]
            .map(|format| {
                with(&[
                    ("left_query", QUERY),
                    ("right_query", &format!(r#"{QUERY}{{pod="shared"}}"#)),
                    ("format", format),
                    ("left_start", &start),
                    ("left_end", &end),
                    ("right_start", &start),
                    ("right_end", &end),
                ])
            })
            .into(),
        "/api/v1/sql" => statements(&json!(start), &json!(end)),
        "/api/v1/deletions"
        | "/api/v1/status/limits"
        | "/api/v1/status/buildinfo"
        | "/api/v1/status/config" => {
            vec![Asked::default()]
        }
        new => panic!("{new} is new: teach this test how to ask it"),
    }
}

/// All of every table, in every form.
fn statements(start: &Value, end: &Value) -> Vec<Asked> {
    let texts = [
        "SELECT * FROM series ORDER BY fingerprint",
        "SELECT * FROM profiles ORDER BY time",
        "SELECT * FROM samples ORDER BY time, stack_id",
        "SELECT stack_id, depth, array_to_string(functions, ';') AS path FROM stacks ORDER BY stack_id",
        "SELECT profile_type, sum(value) AS total, count(*) AS n FROM samples GROUP BY 1 ORDER BY 1",
        "SELECT count(DISTINCT stack_id) AS n FROM stacks",
    ];
    let accepted = ["application/json", "text/csv", "application/vnd.apache.arrow.stream"];
    let ask = |text: &str, accept| {
        let body = json!({ "sql": text, "start": start, "end": end }).to_string();
        Asked { parameters: Vec::new(), sql: Some((body, accept)) }
    };
    texts.iter().flat_map(|text| accepted.map(|accept| ask(text, accept))).collect()
}
