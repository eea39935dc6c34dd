//! Queries that are refused: selectors, types, forms, ranges, steps, bodies.

use super::{Case, Pairs, QUERY, get, post};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// Every broken query.
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = REFUSED
        .iter()
        .chain(REFUSED_SIDES)
        .map(|(path, parameters, status, message)| get(path, parameters, *status, message))
        .collect();
    cases.extend(SELECTORS.iter().flat_map(|(selector, message)| of_selector(selector, message)));
    cases.extend(bodies());
    cases
}

/// One selector wherever one is taken.
fn of_selector(selector: &str, message: &str) -> Vec<Case> {
    let query = format!("{QUERY}{selector}");
    vec![
        get("query", &[("query", &query)], 400, &format!("parameter query: {message}")),
        get("query_range", &[("query", &query), ("step", "60")], 400, &format!("parameter query: {message}")),
        get("series", &[("match[]", selector)], 400, &format!("parameter match[]: {message}")),
        get(
            "diff",
            &[("left_query", QUERY), ("right_query", &query)],
            400,
            &format!("parameter right_query: {message}"),
        ),
    ]
}

/// Selectors and why they are none.
const SELECTORS: &[(&str, &str)] = &[
    ("{", "selector: expected a label name or '}' at byte 1, found the end"),
    (r#"{a="b""#, "selector: expected ',' or '}' at byte 6, found the end"),
    (r#"{a~"b"}"#, "selector: expected one of = != =~ !~ at byte 2, found '~'"),
    (r#"{a=b}"#, "selector: expected a quoted value at byte 3, found 'b'"),
    (r#"{a="b"}x"#, "selector: expected the end at byte 7, found 'x'"),
    (r#"{a=~"("}"#, r#"selector: label "a": bad regular expression: unclosed group"#),
    (r#"{a=~"*"}"#, r#"selector: label "a": bad regular expression: "#),
    (r#"{a=~"(x{1000}){1000}"}"#, r#"selector: label "a": regular expression compiles to more than"#),
];

/// Requests by path and parameters.
const REFUSED: &[(&str, Pairs<'static>, u16, &str)] = &[
    ("query", &[], 400, "parameter query is missing"),
    ("query", &[("query", "cpu")], 400, "parameter query: profile type \"cpu\" must have the form"),
    (
        "query",
        &[("query", "a:b:c:d:e:f")],
        400,
        "parameter query: profile type \"a:b:c:d:e:f\" must have the form",
    ),
    (
        "query",
        &[("query", QUERY), ("format", "svg")],
        400,
        "parameter format: \"svg\" is not one of flamegraph",
    ),
    (
        "query",
        &[("query", QUERY), ("granularity", "file")],
        400,
        "parameter granularity: \"file\" is not one of",
    ),
    (
        "query",
        &[("query", QUERY), ("agg", "max")],
        400,
        "parameter agg: \"max\" is not one of sum, avg, last",
    ),
    (
        "query",
        &[("query", QUERY), ("max_nodes", "-1")],
        400,
        "parameter max_nodes: \"-1\" is not a whole number",
    ),
    (
        "query",
        &[("query", QUERY), ("max_nodes", "99999999999999999999")],
        400,
        "parameter max_nodes: \"99999999999999999999\" is not a whole number",
    ),
    (
        "query",
        &[("query", QUERY), ("min_fraction", "2")],
        400,
        "parameter min_fraction: \"2\" is not a number from 0",
    ),
    (
        "query",
        &[("query", QUERY), ("min_fraction", "NaN")],
        400,
        "parameter min_fraction: \"NaN\" is not a number",
    ),
    (
        "query",
        &[("query", QUERY), ("exact", "maybe")],
        400,
        "parameter exact: \"maybe\" is not one of true, 1",
    ),
    (
        "query",
        &[("query", QUERY), ("start", "yesterday")],
        400,
        "parameter start: \"yesterday\" is not a time",
    ),
    ("query", &[("query", QUERY), ("end", "1e9")], 400, "parameter end: \"1e9\" is not a time"),
    (
        "query",
        &[("query", QUERY), ("end", "9999-01-01T00:00:00Z")],
        400,
        "parameter end: \"9999-01-01T00:00:00Z\"",
    ),
    (
        "query",
        &[("query", QUERY), ("time", "2026-13-01T00:00:00Z")],
        400,
        "parameter time: \"2026-13-01T00:00:00Z\"",
    ),
    (
        "query",
        &[("query", QUERY), ("start", "20"), ("end", "10")],
        400,
        "parameter end: the range ends before it starts",
    ),
    (
        "query",
        &[("query", QUERY), ("time", "1"), ("start", "0")],
        400,
        "parameter time does not go with start",
    ),
    (
        "query",
        &[("query", QUERY), ("by", "pod"), ("format", "pprof")],
        400,
        "parameter by does not go with this format",
    ),
    ("query_range", &[("step", "60")], 400, "parameter query is missing"),
    ("query_range", &[("query", QUERY)], 400, "parameter step is missing"),
    (
        "query_range",
        &[("query", QUERY), ("step", "0")],
        400,
        "parameter step: \"0\" is not a duration above 0",
    ),
    (
        "query_range",
        &[("query", QUERY), ("step", "-5")],
        400,
        "parameter step: \"-5\" is not a duration above 0",
    ),
    (
        "query_range",
        &[("query", QUERY), ("step", "NaN")],
        400,
        "parameter step: \"NaN\" is not a duration above 0",
    ),
    (
        "query_range",
        &[("query", QUERY), ("step", "1y")],
        400,
        "parameter step: \"1y\" is not a duration above 0",
    ),
    (
        "query_range",
        &[("query", QUERY), ("step", "0.01")],
        400,
        "the range has 360001 steps, at most 11000 are allowed",
    ),
    (
        "query_range",
        &[("query", QUERY), ("step", "60"), ("rate", "2")],
        400,
        "parameter rate: \"2\" is not one of",
    ),
    ("labels", &[("limit", "some")], 400, "parameter limit: \"some\" is not a whole number"),
    ("labels", &[("match[]", "cpu{}")], 400, "parameter match[]: profile type \"cpu\" must have the form"),
    (
        "label/pod/values",
        &[("start", "2"), ("end", "1")],
        400,
        "parameter end: the range ends before it starts (start)",
    ),
    ("profile_types", &[("end", "x")], 400, "parameter end: \"x\" is not a time"),
    ("nothing", &[], 404, "there is no GET /api/v1/nothing"),
    ("label/values", &[], 404, "there is no GET /api/v1/label/values"),
    ("../v2/query", &[("query", QUERY)], 404, "there is no GET /api/"),
];

const REFUSED_SIDES: &[(&str, Pairs<'static>, u16, &str)] = &[
    ("diff", &[("right_query", QUERY)], 400, "parameter left_query is missing"),
    ("diff", &[("left_query", QUERY)], 400, "parameter right_query is missing"),
    (
        "diff",
        &[("left_query", QUERY), ("right_query", "m:space:bytes:space:bytes")],
        400,
        "parameter right_query does not go with left_query: their sample types and units must be equal",
    ),
    (
        "diff",
        &[("left_query", QUERY), ("right_query", QUERY), ("format", "dot")],
        400,
        "parameter format does not go with a diff unless flamegraph or top",
    ),
    (
        "diff",
        &[("left_query", QUERY), ("right_query", QUERY), ("right_start", "20"), ("right_end", "10")],
        400,
        "parameter right_end: the range ends before it starts (right_start)",
    ),
    (
        "diff",
        &[("left_query", QUERY), ("right_query", QUERY), ("by", "pod")],
        400,
        "parameter by does not go with a diff",
    ),
];

fn bodies() -> Vec<Case> {
    let long = "x".repeat(1 << 20);
    let selector = format!("query={QUERY}{{a=\"{}\"}}", "x".repeat(64 << 10));
    let many: Vec<String> = (0..257).map(|i| format!("l{i}=\"x\"")).collect();
    vec![
        post("query", "text/plain", "query=x", 400, "the request's form cannot be read"),
        post("query", JSON, "{}", 400, "the request's form cannot be read"),
        post("query", FORM, format!("query={long}"), 413, "the form has more than 1048576 bytes"),
        post(
            "query",
            FORM,
            selector,
            400,
            "parameter query: selector has 65542 bytes, at most 65536 are allowed",
        ),
        post(
            "query",
            FORM,
            format!("query={QUERY}{{{}}}", many.join(",")),
            400,
            "parameter query: selector has more than 256 matchers",
        ),
        post("sql", JSON, "{", 400, "body must be {\"sql\": …, \"start\", \"end\"}: "),
        post("sql", JSON, "{}", 400, "missing field `sql`"),
        post("sql", JSON, "[]", 400, "body must be"),
        post("sql", JSON, r#"{"sql": 5}"#, 400, "invalid type: integer `5`, expected a string"),
        post(
            "sql",
            JSON,
            format!(r#"{{"sql":"SELECT 1","start":{}"#, "[".repeat(1_000)),
            400,
            "recursion limit exceeded",
        ),
        post("sql", JSON, b"{\"sql\":\"\xff\"}", 400, "body must be"),
        post("sql", FORM, "sql=SELECT 1", 400, "body must be"),
        post("sql", JSON, format!(r#"{{"sql":"{long}"}}"#), 413, "body must be"),
        post(
            "sql",
            JSON,
            r#"{"sql":"SELECT 1","start":"soon"}"#,
            400,
            "parameter start: \"soon\" is not a time",
        ),
        post("sql", JSON, r#"{"sql":"SELECT 1","start":{"a":1}}"#, 400, "parameter start: "),
        post(
            "sql",
            JSON,
            r#"{"sql":"SELECT 1","start":5,"end":1}"#,
            400,
            "parameter end: the range ends before",
        ),
    ]
}
