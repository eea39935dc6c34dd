//! What is refused, and that nobody sees what is another's.

use super::*;

/// Names and values.
type Given = &'static [(&'static str, &'static str)];

/// Requests by path and parameters, each with the status and the message they are refused with.
const REFUSED: &[(&str, Given, u16, &str)] = &[
    ("query", &[], 400, "parameter query is missing"),
    (
        "query",
        &[("query", "cpu")],
        400,
        "parameter query: profile type \"cpu\" must have the form \
         name:sample_type:sample_unit:period_type:period_unit with an optional :delta",
    ),
    (
        "query",
        &[("query", "p:cpu:ns:cpu:ns{a=\"b\"")],
        400,
        "parameter query: selector: expected ',' or '}' at byte 6, found the end",
    ),
    (
        "query",
        &[("query", CPU), ("format", "svg")],
        400,
        "parameter format: \"svg\" is not one of flamegraph, arrow, pprof, top, tree, folded, dot, speedscope",
    ),
    (
        "query",
        &[("query", CPU), ("granularity", "file")],
        400,
        "parameter granularity: \"file\" is not one of function, line, address",
    ),
    ("query", &[("query", CPU), ("agg", "max")], 400, "parameter agg: \"max\" is not one of sum, avg, last"),
    (
        "query",
        &[("query", CPU), ("max_nodes", "-1")],
        400,
        "parameter max_nodes: \"-1\" is not a whole number, 0 or more",
    ),
    (
        "query",
        &[("query", CPU), ("min_fraction", "2")],
        400,
        "parameter min_fraction: \"2\" is not a number from 0 to 1",
    ),
    (
        "query",
        &[("query", CPU), ("exact", "maybe")],
        400,
        "parameter exact: \"maybe\" is not one of true, 1, false, 0",
    ),
    (
        "query",
        &[("query", CPU), ("start", "yesterday")],
        400,
        "parameter start: \"yesterday\" is not a time: RFC 3339 such as 2026-01-02T15:04:05Z, or unix seconds such as \
         1767366245.5",
    ),
    (
        "query",
        &[("query", CPU), ("start", "20"), ("end", "10")],
        400,
        "parameter end: the range ends before it starts (start)",
    ),
    (
        "query",
        &[("query", CPU), ("start", "0"), ("end", "7201")],
        422,
        "the range has 7201 s, at most 7200 s are allowed (query_range_secs_max)",
    ),
    ("query", &[("query", CPU), ("time", "1"), ("start", "0")], 400, "parameter time does not go with start"),
    (
        "query",
        &[("query", CPU), ("by", "pod"), ("format", "pprof")],
        400,
        "parameter by does not go with this format: it goes with flamegraph and top",
    ),
    ("query_range", &[("query", CPU)], 400, "parameter step is missing"),
    (
        "query_range",
        &[("query", CPU), ("step", "0")],
        400,
        "parameter step: \"0\" is not a duration above 0: seconds such as 15, or with a unit such as 1m",
    ),
    (
        "query_range",
        &[("query", CPU), ("step", "0.01")],
        400,
        "the range has 360001 steps, at most 11000 are allowed: use a larger step or a shorter range",
    ),
    ("diff", &[("right_query", CPU)], 400, "parameter left_query is missing"),
    ("diff", &[("left_query", CPU)], 400, "parameter right_query is missing"),
    (
        "diff",
        &[("left_query", CPU), ("right_query", "m:space:bytes:space:bytes")],
        400,
        "parameter right_query does not go with left_query: their sample types and units must be equal",
    ),
    (
        "diff",
        &[("left_query", CPU), ("right_query", CPU), ("format", "dot")],
        400,
        "parameter format does not go with a diff unless flamegraph or top",
    ),
    (
        "diff",
        &[("left_query", CPU), ("right_query", CPU), ("right_start", "20"), ("right_end", "10")],
        400,
        "parameter right_end: the range ends before it starts (right_start)",
    ),
    (
        "diff",
        &[("left_query", CPU), ("right_query", CPU), ("by", "pod")],
        400,
        "parameter by does not go with a diff",
    ),
    (
        "series",
        &[("match[]", "{a=~\"(\"}")],
        400,
        "parameter match[]: selector: label \"a\": bad regular expression: unclosed group",
    ),
    ("labels", &[("limit", "some")], 400, "parameter limit: \"some\" is not a whole number, 0 or more"),
    (
        "profile_types",
        &[("end", "x")],
        400,
        "parameter end: \"x\" is not a time: RFC 3339 such as 2026-01-02T15:04:05Z, or unix seconds such as 1767366245.5",
    ),
];

#[tokio::test]
async fn what_is_wrong_is_named() {
    let limits = TenantLimits { query_range_secs_max: 7_200, ..TenantLimits::default() };
    let house = House::with_limits(limits).await;
    let mut surprises = Vec::new();
    for (path, params, status, message) in REFUSED {
        let answer = house.get("first", &format!("/api/v1/{path}"), params).await;
        let found = (answer.status.as_u16(), answer.json()["error"].as_str().unwrap_or_default().to_owned());
        if found != (*status, (*message).to_owned()) {
            surprises.push(format!("{path} {params:?}: {found:?}"));
        }
    }
    assert!(surprises.is_empty(), "{surprises:#?}");
}

#[tokio::test]
async fn broken_bodies_are_refused() {
    let house = House::new().await;
    let send = async |content_type: &str, path: &str, body: String| {
        let mut request = request("first", Method::POST, path, Body::from(body));
        request.headers_mut().insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        house.send(request).await.status.as_u16()
    };
    let (form, json) = ("application/x-www-form-urlencoded", "application/json");
    assert_eq!(send(json, "/api/v1/sql", "{".to_owned()).await, 400);
    assert_eq!(send(json, "/api/v1/sql", "{}".to_owned()).await, 400);
    assert_eq!(send(form, "/api/v1/sql", "sql=SELECT".to_owned()).await, 400);
    assert_eq!(
        send(json, "/api/v1/sql", format!("{{\"sql\":\"{}\"}}", "x".repeat(BODY_BYTES_MAX))).await,
        413
    );
    assert_eq!(send("text/plain", "/api/v1/query", "query=x".to_owned()).await, 400);
    assert_eq!(send(form, "/api/v1/query", format!("query={}", "x".repeat(BODY_BYTES_MAX))).await, 413);
    assert_eq!(send(json, "/api/v1/sql", json!({"sql": "DROP TABLE samples"}).to_string()).await, 400);
    assert_eq!(
        send(json, "/api/v1/sql", json!({"sql": "SELECT 1", "start": 5, "end": 1}).to_string()).await,
        400
    );
}

/// Every endpoint with parameters that it takes.
fn endpoints() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let mut all = vec![
        ("/api/v1/profile_types", vec![]),
        ("/api/v1/labels", vec![]),
        ("/api/v1/label/pod/values", vec![]),
        ("/api/v1/series", vec![]),
        ("/api/v1/query_range", vec![("query", CPU), ("step", "60"), ("by", "pod")]),
        ("/api/v1/diff", vec![("left_query", CPU), ("right_query", CPU)]),
        ("/api/v1/diff", vec![("left_query", CPU), ("right_query", CPU), ("format", "top")]),
        ("/api/v1/query", vec![("query", CPU), ("time", "1699999999")]),
        ("/api/v1/query", vec![("query", CPU), ("by", "pod")]),
    ];
    for format in ["flamegraph", "top", "tree", "folded", "dot", "speedscope"] {
        all.push(("/api/v1/query", vec![("query", CPU), ("format", format)]));
    }
    all
}

#[tokio::test]
async fn nobody_sees_another_tenants_profiles() {
    let house = House::new().await;
    let foreign = ["secret", "hidden", "424242", "424249"];
    for (path, params) in endpoints() {
        let own = house.get("second", path, &params).await;
        assert_eq!(own.status, StatusCode::OK, "{path}: {}", own.text());
        for tenant in ["first", "stranger"] {
            let answer = house.get(tenant, path, &params).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
            let seen = answer.text();
            let data = seen.split("\"stats\"").next().unwrap();
            assert!(
                !foreign.iter().any(|text| data.contains(text)),
                "{tenant} at {path} {params:?} saw {data}"
            );
        }
        let stranger = house.get("stranger", path, &params).await.text();
        let data = stranger.split("\"stats\"").next().unwrap();
        assert!(!data.contains("main") && !data.contains("api\""), "stranger at {path} saw {data}");
    }
    let all = json!({"sql": "SELECT pod, value FROM samples ORDER BY value"});
    let first = house.sql("first", &all, "text/csv").await.text();
    assert!(!first.contains("hidden") && !first.contains("424242"), "{first}");
    let stranger = house.sql("stranger", &json!({"sql": "SELECT count(*) AS n FROM samples"}), "*/*").await;
    assert_eq!(stranger.data(), json!([{"n": 0}]));
}

#[tokio::test]
async fn a_request_needs_read_access() {
    let house = House::new().await;
    let mut paths: Vec<&str> = endpoints().into_iter().map(|(path, _)| path).collect();
    paths.push("/api/v1/status/limits");
    for path in paths {
        let bare = Request::builder().uri(path).body(Body::empty()).unwrap();
        assert_eq!(house.send(bare).await.status, StatusCode::UNAUTHORIZED, "{path}");
        let mut writer = request("first", Method::GET, path, Body::empty());
        writer.extensions_mut().get_mut::<Identity>().unwrap().access = vec![Access::Write];
        assert_eq!(house.send(writer).await.status, StatusCode::FORBIDDEN, "{path}");
    }
}
