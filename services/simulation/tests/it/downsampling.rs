//! Samples that are old are dropped, and what is left answers as far as it can and says how exact it is.

use cambium_loadtest::synthetic::Synthetic;
use cambium_simulation::{Client, Sandbox};
use serde_json::Value;

use crate::BINARY;
use crate::main_job::now_ns;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";
const MINUTE_NS: i64 = 60_000_000_000;
const DAY_NS: i64 = 86_400_000_000_000;
/// Profiles, four minutes from one to the next, each of its own series.
const PROFILES: i64 = 8;

/// A server with blocks of five days ago of which only sums are left, and when the first profile was collected: with a
/// bucket of ten minutes.
fn downsampled() -> (Sandbox, i64) {
    const OLD: &[&str] = &["--limits.reject-older-than-secs", "864000", "--compactor.interval", "1h"];
    const DROPPING: &[&str] = &["--compactor.interval", "20ms", "--limits.downsample-after-secs", "86400"];
    let mut sandbox = Sandbox::running(BINARY, OLD);
    // Noon, so that all are of one day.
    let start_ns = (now_ns() / DAY_NS - 5) * DAY_NS + DAY_NS / 2;
    for pod in 0..PROFILES {
        let time_ns = start_ns + pod * 4 * MINUTE_NS;
        let profile = Synthetic { time_ns, samples: 3, value: pod + 1 }.pprof();
        let labels = format!(r#"{{service_name="api",pod="p{pod}"}}"#);
        let answer = sandbox.client().push(&labels, &[("name", "process_cpu")], &profile).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    sandbox.flush().unwrap();
    sandbox.stop();
    let mut sandbox = sandbox.with_arguments(DROPPING);
    sandbox.start();
    let resolution = |client: &Client| {
        let parameters = [("query", QUERY), ("start", "0")];
        client.json("/api/v1/query", &parameters)["stats"]["resolution_secs"].as_u64()
    };
    // Each look takes some milliseconds.
    assert!((0..10_000).any(|_| resolution(&sandbox.client()) == Some(600)), "not downsampled");
    (sandbox, start_ns)
}

struct Asked<'a> {
    client: &'a Client,
    start_ns: i64,
}

impl Asked<'_> {
    /// An instant so many minutes after the first profile, less so many nanoseconds.
    fn at(&self, minutes: i64, less_ns: i64) -> String {
        let ns = self.start_ns + minutes * MINUTE_NS - less_ns;
        format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
    }

    /// Status and body of a query from these minutes on, to before those.
    fn query(&self, minutes: std::ops::Range<i64>, more: &[(&str, &str)]) -> (u16, String) {
        let (start, end) = (self.at(minutes.start, 0), self.at(minutes.end, 1));
        let range = [("query", QUERY), ("start", &*start), ("end", &*end)];
        let answer = self.client.get("/api/v1/query", &[&range, more].concat()).unwrap();
        (answer.status, answer.text())
    }

    fn total(&self, minutes: std::ops::Range<i64>, more: &[(&str, &str)]) -> i64 {
        let (status, body) = self.query(minutes, &[&[("format", "top")], more].concat());
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["data"]["total"].as_i64().unwrap()
    }
}

/// The sum of these profiles.
fn sum(pods: std::ops::Range<i64>) -> i64 {
    pods.map(|pod| 3 * (pod + 1)).sum()
}

#[test]
fn sums_of_ten_minutes_outlive_samples() {
    let (sandbox, start_ns) = downsampled();
    let client = sandbox.client();
    let asked = Asked { client: &client, start_ns };
    // Ten minutes hold pods 0 to 2, the next 3 and 4, the last ones 5 to 7.
    assert_eq!(asked.total(0..10, &[]), sum(0..3));
    assert_eq!(asked.total(0..10, &[("exact", "true")]), sum(0..3));
    assert_eq!(asked.total(-3..60, &[("exact", "true")]), sum(0..8));
    assert_eq!(asked.total(5..25, &[]), sum(3..8), "buckets that begin in the range");
    assert_eq!(asked.total(0..10, &[("agg", "avg")]), sum(0..3), "a profile of each series");
    let of_pods = format!(r#"{QUERY}{{pod=~"p[34]"}}"#);
    let some = [("query", &*of_pods), ("start", "0"), ("format", "top")];
    assert_eq!(client.json("/api/v1/query", &some)["data"]["total"], sum(3..5));
    let pprof =
        client.get("/api/v1/query", &[("query", QUERY), ("start", "0"), ("format", "pprof")]).unwrap();
    assert_eq!(pprof.status, 200);

    // Totals of profiles are still there, each at its own time.
    let (start, end) = (asked.at(0, 0), asked.at(28, 0));
    let range = [("query", QUERY), ("start", &*start), ("end", &*end), ("step", "240")];
    let matrix = client.json("/api/v1/query_range", &range);
    let points = matrix["data"]["result"][0]["values"].as_array().unwrap().len();
    assert_eq!((points as i64, matrix["stats"]["resolution_secs"].as_u64()), (PROFILES, Some(0)), "{matrix}");
    let sql = |statement: &str| {
        let body = serde_json::json!({ "sql": statement, "start": "0" }).to_string();
        client.post("/api/v1/sql", &[], &[("content-type", "application/json")], body.as_bytes()).unwrap()
    };
    let answer = sql("SELECT sum(value) AS total FROM profiles");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains(&sum(0..8).to_string()), "{}", answer.text());

    // What needs samples says what to ask for instead.
    let refused = |(status, body): (u16, String)| {
        assert_eq!(status, 422, "{body}");
        assert!(body.contains("dropped when they were downsampled"), "{body}");
        body
    };
    let body = refused(asked.query(5..25, &[("exact", "true")]));
    assert_eq!(named_times(&body), "12:00:00Z 12:29:59.999999999Z", "{body}");
    refused(asked.query(0..10, &[("agg", "last")]));
    refused(asked.query(0..10, &[("exact", "true"), ("format", "pprof")]));
    let time = [("query", QUERY), ("time", &*start)];
    let closest = client.get("/api/v1/query", &time).unwrap();
    refused((closest.status, closest.text()));
    let samples = sql("SELECT sum(value) FROM samples");
    refused((samples.status, samples.text()));
}

/// The times of day that a refusal names.
fn named_times(body: &str) -> String {
    let after = |name: &str| {
        let text = body.split(name).nth(1).unwrap_or_default();
        let day = text.split('T').nth(1).unwrap_or_default();
        day.split([' ', ',']).next().unwrap_or_default().to_owned()
    };
    format!("{} {}", after("start="), after("end="))
}
