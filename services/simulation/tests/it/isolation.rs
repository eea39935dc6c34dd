//! Two tenants with the same series see only their own; a tenant is no operator.
//!
//! What there is to ask is enumerated from the server itself (its OpenAPI document, its table of operate endpoints, its
//! gRPC reflection), so that a new endpoint fails these tests until they know how to ask it.
//!
//! Isolation is shown by comparison: in a server of many tenants each gets, from every endpoint, the bytes that it gets
//! in a server of its own.

use std::collections::BTreeMap;

use cambium_loadtest::synthetic::Synthetic;
use cambium_server::admin;
use cambium_simulation::{Answer, Client, Sandbox};
use serde_json::{Value, json};

use crate::BINARY;
use crate::main_job::now_ns;

mod asked;
mod services;

use asked::{answers, endpoints};

const HEADER: &[&str] = &["--auth", "header"];

/// A tenant and what it pushes: a series that both have, and of its own a pod, a label and a profile type.
struct Tenant {
    name: &'static str,
    samples: u64,
    value: i64,
    own: &'static str,
}

const TENANTS: [Tenant; 2] = [
    Tenant { name: "red", samples: 3, value: 7, own: "crimson" },
    Tenant { name: "blue", samples: 5, value: 11, own: "azure" },
];

impl Tenant {
    fn push(&self, sandbox: &Sandbox, now_ns: i64) {
        let client = sandbox.client().as_tenant(self.name);
        let (shared, own) = (r#"service_name="api",pod="shared""#, self.own);
        let alone = format!(r#"service_name="api",pod="{own}",{own}="yes""#);
        let pushes = [(shared, "process_cpu"), (&alone, "process_cpu"), (shared, own)];
        for (age, (labels, name)) in (0..).zip(pushes) {
            let time_ns = now_ns - age * 1_000_000_000;
            let profile = Synthetic { time_ns, samples: self.samples, value: self.value };
            let answer = client
                .push(&format!("{{{labels}}}"), &[("name", name)], &profile.pprof())
                .expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
}

/// What everybody gets from every endpoint, by request.
type Answers = BTreeMap<String, Vec<u8>>;

#[track_caller]
fn assert_same(found: &Answers, expected: &Answers, who: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (asked, answer) in found {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            answer == &expected[asked],
            "{who} asked {asked}\nand got    {}\ninstead of {}",
            shown(answer),
            shown(&expected[asked])
        );
    }
}

#[test]
fn each_tenant_gets_what_it_would_get_alone() {
    let now = now_ns();
    let crowd = Sandbox::running(BINARY, HEADER);
    let alone = TENANTS.map(|_| Sandbox::running(BINARY, HEADER));
    let nothing = answers(&crowd.client().as_tenant("stranger"), now);
    for (tenant, own) in TENANTS.iter().zip(&alone) {
        tenant.push(&crowd, now);
        tenant.push(own, now);
    }
    let check = || {
        let mut seen = Vec::new();
        for (tenant, own) in TENANTS.iter().zip(&alone) {
            let found = answers(&crowd.client().as_tenant(tenant.name), now);
            assert_same(&found, &answers(&own.client().as_tenant(tenant.name), now), tenant.name);
            seen.push(found);
        }
        assert_same(&answers(&crowd.client().as_tenant("stranger"), now), &nothing, "a stranger");
        // The comparison would notice: what depends on profiles differs between the two.
        for (asked, answer) in &seen[0] {
            let depends = !asked.starts_with("/api/v1/status/") && !asked.starts_with("/api/v1/deletions ");
            assert_eq!(depends, answer != &seen[1][asked], "{asked}: {}", String::from_utf8_lossy(answer));
        }
    };
    check();
    for sandbox in alone.iter().chain([&crowd]) {
        sandbox.flush().expect("the server answers");
    }
    check();
}

#[test]
fn sql_reaches_nothing_else() {
    let sandbox = Sandbox::running(BINARY, HEADER);
    TENANTS.iter().for_each(|tenant| tenant.push(&sandbox, now_ns()));
    let red = sandbox.client().as_tenant("red");
    for table in [
        "blue.samples",
        "\"blue\".public.samples",
        "datafusion.public.samples",
        "public.samples",
        "tenants.blue.samples",
        "information_schema.tables",
        "information_schema.schemata",
        "information_schema.df_settings",
        "pg_catalog.pg_tables",
        "tenants",
        "'../blocks'",
        "'metastore.redb'",
        "'file:///etc/passwd'",
    ] {
        let body = json!({ "sql": format!("SELECT * FROM {table}"), "start": 0 }).to_string();
        let headers = [("Content-Type", "application/json")];
        let answer = red.post("/api/v1/sql", &[], &headers, body.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 400, "{table}: {}", answer.text());
        assert!(answer.text().contains("is not allowed, only one SELECT"), "{table}: {}", answer.text());
    }
}

#[test]
fn whoever_does_not_say_who_it_is_gets_nothing() {
    let sandbox = Sandbox::running(BINARY, HEADER);
    for (method, path) in endpoints(&sandbox.client()) {
        let answer = bare(&sandbox.client(), &method, &path);
        assert_eq!(answer.status, 401, "{method} {path}: {}", answer.text());
        assert!(answer.text().contains("header X-Scope-OrgID is missing"), "{path}: {}", answer.text());
    }
}

#[test]
fn a_tenant_is_no_operator() {
    let sandbox = Sandbox::running(BINARY, HEADER);
    let tenant = sandbox.client().as_tenant("red");
    let endpoints = admin::endpoints();
    assert!(!endpoints.is_empty());
    for (method, path, _) in endpoints {
        let answer = bare(&tenant, method, path);
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.text());
        assert_eq!(answer.json()["status"], "error");
    }
    // Nobody was stopped or flushed.
    TENANTS[0].push(&sandbox, now_ns());
    assert_eq!(sandbox.flush(), Ok(1));
}

/// Tenants' endpoints are not on the operator's port, where nobody is asked who they are.
#[test]
fn the_operators_port_has_no_profiles() {
    let sandbox = Sandbox::running(BINARY, HEADER);
    TENANTS[0].push(&sandbox, now_ns());
    for (method, path) in endpoints(&sandbox.client()) {
        let answer = bare(&sandbox.operator().as_tenant("red"), &method, &path);
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
}

/// A request without parameters and with an empty body.
fn bare(client: &Client, method: &str, path: &str) -> Answer {
    let answer = match method {
        "GET" => client.get(path, &[]),
        "POST" => client.post(path, &[], &[], &[]),
        "DELETE" => client.delete(&path.replace("{id}", "1")),
        other => panic!("teach this test how to send {other} {path}"),
    };
    answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// The answer without what it cost, which may differ.
fn without_stats(answer: Answer) -> Vec<u8> {
    match serde_json::from_slice(&answer.body) {
        Ok(Value::Object(mut fields)) => {
            fields.remove("stats");
            Value::Object(fields).to_string().into_bytes()
        }
        _ => answer.body,
    }
}
