//! What a tenant has had deleted counts for no query: from heads, from blocks as they are flushed, and once merged it is
//! gone. No other tenant notices.

use cambium_loadtest::synthetic::Synthetic;
use cambium_simulation::{Client, Sandbox};
use serde_json::Value;

use crate::BINARY;
use crate::main_job::now_ns;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";
const MINUTE_NS: i64 = 60_000_000_000;
const ARGUMENTS: &[&str] = &["--auth", "header", "--compactor.interval", "50ms"];

/// Profiles of pods 1 to 4, pod n of value n a sample, n minutes before `end_ns`.
fn push(client: &Client, end_ns: i64) {
    for pod in 1..=4 {
        let profile = Synthetic { time_ns: end_ns - pod * MINUTE_NS, samples: 1, value: pod }.pprof();
        let labels = format!(r#"{{service_name="api",pod="p{pod}"}}"#);
        let answer = client.push(&labels, &[("name", "process_cpu")], &profile).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn delete(client: &Client, parameters: &[(&str, &str)]) -> Value {
    let answer = client.post("/api/v1/deletions", parameters, &[], &[]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"]["ids"].clone()
}

fn pending(client: &Client) -> Vec<u64> {
    let listed = client.json("/api/v1/deletions", &[]);
    let listed = listed["data"].as_array().unwrap().clone();
    listed.iter().map(|deletion| deletion["pending_blocks"].as_u64().unwrap()).collect()
}

#[test]
fn deleted_profiles_count_for_no_query() {
    let mut sandbox = Sandbox::running(BINARY, ARGUMENTS);
    let [red, blue] = ["red", "blue"].map(|name| sandbox.client().as_tenant(name));
    // Old enough to be merged at once, and young enough to be taken.
    let end_ns = now_ns() - 40 * MINUTE_NS;
    push(&red, end_ns);
    push(&blue, end_ns);
    let seconds = |minutes: i64| format!("{}", (end_ns - minutes * MINUTE_NS) / 1_000_000_000);
    assert_eq!(delete(&red, &[("match[]", r#"{pod="p1"}"#)]), serde_json::json!([1]));
    let of_a_time = [("match[]", r#"{service_name="api"}"#), ("start", &seconds(3)), ("end", &seconds(1))];
    assert_eq!(delete(&red, &of_a_time), serde_json::json!([2]));
    // Of pods 1 to 4: the first by its labels; the second, and the third by a second, by their time.
    let left = |client: &Client| {
        let pods = client.json("/api/v1/label/pod/values", &[("start", "0")]);
        (client.total(QUERY), pods["data"].as_array().unwrap().len())
    };
    let check = |red: &Client, blue: &Client, when: &str| {
        assert_eq!((left(red), left(blue)), ((4, 1), (10, 4)), "{when}");
        let closest =
            red.json("/api/v1/query", &[("query", QUERY), ("time", &seconds(1)), ("format", "top")]);
        assert_eq!(closest["data"]["total"], 4, "{when}: the closest that is left");
        let sql = br#"{"sql":"SELECT sum(value) AS total, count(*) AS n FROM samples","start":0}"#;
        let headers = [("Content-Type", "application/json"), ("Accept", "text/csv")];
        let answer = red.post("/api/v1/sql", &[], &headers, sql).unwrap();
        assert_eq!(answer.text().trim().lines().last(), Some("4,1"), "{when}");
    };
    check(&red, &blue, "from heads");
    sandbox.flush().unwrap();
    check(&red, &blue, "flushed");
    let merged = (0..10_000).any(|_| pending(&red) == [0, 0]);
    assert!(merged, "not carried out: {:?}", pending(&red));
    check(&red, &blue, "merged");
    sandbox.kill();
    sandbox.start();
    let [red, blue] = ["red", "blue"].map(|name| sandbox.client().as_tenant(name));
    check(&red, &blue, "after a restart");

    // What comes late into a deleted range is deleted; what is not in it is not.
    push(&red, end_ns);
    push(&red, end_ns + 20 * MINUTE_NS);
    assert_eq!(left(&red).0, 4 + 2 + 3 + 4, "all pods but the first, which is deleted up to now");
    // Nobody takes back what another tenant has had deleted; its own, as long as it has not been carried out.
    assert_eq!(delete(&red, &[("match[]", r#"{pod="p4"}"#)]), serde_json::json!([3]));
    assert_eq!(blue.delete("/api/v1/deletions/3").unwrap().status, 200);
    assert_eq!(red.total(QUERY), 2 + 3);
    assert_eq!(red.delete("/api/v1/deletions/3").unwrap().status, 200);
    assert!(red.total(QUERY) >= 2 + 3 + 4, "at least what was not in a block yet");
    assert_eq!(pending(&blue), [0; 0]);
}

#[test]
fn what_cannot_be_deleted_is_refused() {
    let sandbox = Sandbox::running(BINARY, &[]);
    let client = sandbox.client();
    let future = format!("{}", now_ns() / 1_000_000_000 + 60);
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[], "match[]: is missing"),
        (&[("match[]", "{pod=}")], "match[]: "),
        (&[("match[]", "{}"), ("start", "noon")], "start: "),
        (&[("match[]", "{}"), ("end", &future)], "end: lies in the future"),
        (&[("match[]", "{}"), ("start", "9"), ("end", "9")], "end: is not after start"),
        (&[("match[]", r#"process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta{pod="a"}"#)], "match[]: "),
    ];
    for (parameters, message) in cases {
        let answer = client.post("/api/v1/deletions", parameters, &[], &[]).unwrap();
        assert_eq!(answer.status, 400, "{parameters:?}: {}", answer.text());
        assert!(answer.text().contains(message), "{parameters:?}: {}", answer.text());
    }
    let none = delete(&client, &[("match[]", "{}")]);
    assert_eq!(none, serde_json::json!([]), "a tenant that has never written has nothing to delete");
}

#[test]
fn a_deleted_tenant_is_out_of_sight_and_its_name_begins_anew() {
    let mut sandbox = Sandbox::running(BINARY, ARGUMENTS);
    let [red, blue] = ["red", "blue"].map(|name| sandbox.client().as_tenant(name));
    let end_ns = now_ns() - 40 * MINUTE_NS;
    push(&red, end_ns);
    push(&blue, end_ns);
    sandbox.flush().unwrap();
    push(&red, end_ns + 5 * MINUTE_NS);
    assert_eq!((red.total(QUERY), blue.total(QUERY)), (20, 10), "some in blocks, some in heads");

    let states = |answer: cambium_simulation::Answer| {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let tenants = answer.json()["data"].as_array().unwrap().clone();
        tenants.iter().map(|tenant| tenant["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let path = "/api/v1/admin/tenants/red";
    assert_eq!(states(sandbox.operator().get(path, &[]).unwrap()), ["active"]);
    assert_eq!(states(sandbox.operator().delete(path).unwrap()), ["hidden"]);
    assert_eq!((red.total(QUERY), blue.total(QUERY)), (0, 10));
    assert_eq!(red.json("/api/v1/labels", &[("start", "0")])["data"], serde_json::json!([]));

    push(&red, end_ns + 10 * MINUTE_NS);
    assert_eq!(
        (red.total(QUERY), blue.total(QUERY)),
        (10, 10),
        "a tenant of the same name, with nothing of the old one"
    );
    assert_eq!(states(sandbox.operator().get(path, &[]).unwrap()), ["hidden", "active"]);
    sandbox.flush().unwrap();
    sandbox.kill();
    sandbox.start();
    let [red, blue] = ["red", "blue"].map(|name| sandbox.client().as_tenant(name));
    assert_eq!((red.total(QUERY), blue.total(QUERY)), (10, 10), "after a restart");
    let unknown = sandbox.operator().get("/api/v1/admin/tenants/green", &[]).unwrap();
    assert_eq!(unknown.status, 404, "{}", unknown.text());
    let no_name = sandbox.operator().delete("/api/v1/admin/tenants/a%20b").unwrap();
    assert!(no_name.status == 400 && no_name.text().contains("tenant: "), "{}", no_name.text());
}
