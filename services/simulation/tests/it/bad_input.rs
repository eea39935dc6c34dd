//! Broken requests, each with the status and the message it must get. Afterwards the server answers as if nothing had
//! been, and nothing was stored.
//!
//! ```text
//!   pushes, reads, statements: tables of Case ──► one server ──► status, message
//!   limits ──► a server with tiny limits                └──► a good push is the only thing there is
//! ```

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use cambium_loadtest::synthetic::Synthetic;
use cambium_simulation::{Answer, Client, Sandbox};

use crate::BINARY;
use crate::main_job::now_ns;

mod limits;
mod pushes;
mod reads;
mod statements;

/// Fewest broken requests in the corpus.
const CASES_MIN: usize = 60;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";

/// A request and how it is refused.
#[derive(Clone, Debug)]
struct Case {
    request: Request,
    /// The status it must get.
    status: u16,
    /// A part of the message it must get: what is wrong, and where.
    message: String,
}

#[derive(Clone, Debug)]
enum Request {
    Get { path: String, parameters: Vec<(String, String)> },
    Post { path: String, parameters: Vec<(String, String)>, content_type: &'static str, body: Vec<u8> },
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn owned(pairs: Pairs<'_>) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// `GET /api/v1/{path}`.
fn get(path: &str, parameters: Pairs<'_>, status: u16, message: &str) -> Case {
    let request = Request::Get { path: format!("/api/v1/{path}"), parameters: owned(parameters) };
    Case { request, status, message: message.to_owned() }
}

/// `POST /api/v1/{path}` with a body.
fn post(
    path: &str,
    content_type: &'static str,
    body: impl Into<Vec<u8>>,
    status: u16,
    message: &str,
) -> Case {
    let path = format!("/api/v1/{path}");
    let request = Request::Post { path, parameters: Vec::new(), content_type, body: body.into() };
    Case { request, status, message: message.to_owned() }
}

/// A push of this body with these parameters.
fn push(parameters: Pairs<'_>, body: impl Into<Vec<u8>>, status: u16, message: &str) -> Case {
    let request = Request::Post {
        path: "/api/v1/profiles".to_owned(),
        parameters: owned(parameters),
        content_type: "application/octet-stream",
        body: body.into(),
    };
    Case { request, status, message: message.to_owned() }
}

/// A statement for `/api/v1/sql`.
fn sql(statement: &str, status: u16, message: &str) -> Case {
    let body = serde_json::json!({ "sql": statement }).to_string();
    post("sql", "application/json", body, status, message)
}

impl Case {
    fn send(&self, client: &Client) -> Answer {
        fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
            pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
        }
        let answer = match &self.request {
            Request::Get { path, parameters } => client.get(path, &borrowed(parameters)),
            Request::Post { path, parameters, content_type, body } => {
                // A server that refuses before it has read the body closes the connection: none is used twice.
                let headers = [("Content-Type", *content_type), ("Connection", "close")];
                client.post(path, &borrowed(parameters), &headers, body)
            }
        };
        answer.unwrap_or_else(|error| panic!("{self}: {error}"))
    }

    /// What is wrong with the answer, if anything is.
    fn complaint(&self, client: &Client) -> Option<String> {
        let answer = self.send(client);
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = body["error"].as_str().unwrap_or_default();
        let fits =
            answer.status == self.status && body["status"] == "error" && message.contains(&self.message);
        (!fits).then(|| {
            format!(
                "{self}\n  wanted {} {:?}\n  got    {} {}",
                self.status,
                self.message,
                answer.status,
                answer.text()
            )
        })
    }
}

impl std::fmt::Display for Case {
    /// The request, short enough to read.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = match &self.request {
            Request::Get { path, parameters } => format!("GET {path} {parameters:?}"),
            Request::Post { path, parameters, body, .. } => {
                let start = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
                format!("POST {path} {parameters:?} {} bytes {start:?}", body.len())
            }
        };
        write!(f, "{text:.400}")
    }
}

#[track_caller]
fn check(client: &Client, cases: &[Case]) {
    let complaints: Vec<String> = cases.iter().filter_map(|case| case.complaint(client)).collect();
    assert!(complaints.is_empty(), "{} of {}:\n{}", complaints.len(), cases.len(), complaints.join("\n"));
}

/// A push that is taken.
fn good_push(client: &Client) -> Answer {
    let profile = Synthetic { time_ns: now_ns(), samples: 3, value: 5 };
    client.push(r#"{service_name="good"}"#, &[], &profile.pprof()).expect("an answer")
}

/// Nothing is there; then one good profile and nothing else.
#[track_caller]
fn assert_unharmed(sandbox: &Sandbox) {
    let client = sandbox.client();
    let types = || client.json("/api/v1/profile_types", &[("start", "0")])["data"].clone();
    assert_eq!(types(), serde_json::json!([]), "something broken was stored");
    let answer = good_push(&client);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(client.total(QUERY), 15);
    assert_eq!(types().as_array().map(Vec::len), Some(1));
}

#[test]
fn every_broken_request_is_refused_by_name() {
    let sandbox = Sandbox::running(BINARY, &[]);
    let cases = [pushes::cases(), reads::cases(), statements::cases()].concat();
    assert!(cases.len() >= CASES_MIN, "{} cases", cases.len());
    check(&sandbox.client(), &cases);
    assert_unharmed(&sandbox);
    check(&sandbox.client(), &cases);
    assert_eq!(sandbox.client().total(QUERY), 15);
}

#[test]
fn wrong_methods_are_told_the_right_ones() {
    let sandbox = Sandbox::running(BINARY, &[]);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let base = sandbox.client().base;
    for (method, path, allowed) in [
        ("GET", "/api/v1/profiles", "POST"),
        ("DELETE", "/api/v1/profiles", "POST"),
        ("GET", "/api/v1/sql", "POST"),
        ("DELETE", "/api/v1/query", "GET"),
        ("DELETE", "/api/v1/label/pod/values", "GET"),
        ("DELETE", "/metrics", "GET"),
        ("GET", "/ingester/shutdown", "POST"),
    ] {
        let url = format!("{base}{path}");
        let request = if method == "GET" { agent.get(url) } else { agent.delete(url) };
        let answer = request.call().unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!(answer.status(), 405, "{method} {path}");
        let allow = answer.headers().get("allow").and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(allow.contains(allowed), "{method} {path}: Allow: {allow}");
    }
    assert_unharmed(&sandbox);
}

/// Sends these bytes, ends the sending side and returns what comes back.
fn raw(sandbox: &Sandbox, bytes: &[u8]) -> String {
    let address = sandbox.client().base.trim_start_matches("http://").to_owned();
    let mut connection = TcpStream::connect(address).expect("the server listens");
    connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout above zero");
    // The server may hang up before it has read everything.
    let _ = connection.write_all(bytes);
    let _ = connection.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn bytes_that_are_no_request_end_their_connection_only() {
    let sandbox = Sandbox::running(BINARY, &[]);
    let profile = Synthetic { time_ns: now_ns(), samples: 3, value: 5 }.pprof();
    let head = "POST /api/v1/profiles?labels={} HTTP/1.1\r\nHost: x\r\n";
    let cut = [format!("{head}Content-Length: 100000\r\n\r\n").as_bytes(), &profile].concat();
    let cut_chunk =
        [format!("{head}Transfer-Encoding: chunked\r\n\r\nffff\r\n").as_bytes(), &profile].concat();
    let bad_chunk = format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n");
    let bad_length = format!("{head}Content-Length: many\r\n\r\n");
    let bad_header = format!("{head}no colon\r\n\r\n");
    for (what, bytes, status) in [
        ("noise", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], Some("400")),
        ("a word", b"HELLO\r\n\r\n", Some("400")),
        ("a header without a colon", bad_header.as_bytes(), Some("400")),
        ("a length that is no number", bad_length.as_bytes(), Some("400")),
        ("half a preface", b"PRI * HTTP/2.0\r\n\r\nS", None),
        (
            "frames of no HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            None,
        ),
        ("a body cut off", &cut, None),
        ("a chunk cut off", &cut_chunk, None),
        ("a chunk without a size", bad_chunk.as_bytes(), None),
    ] {
        let answer = raw(&sandbox, bytes);
        assert!(!answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
        if let Some(status) = status {
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer}");
        }
    }
    assert_unharmed(&sandbox);
}

#[test]
fn tenants_that_no_tenant_is_called_are_refused() {
    let sandbox = Sandbox::running(BINARY, &["--auth", "header"]);
    let long = "a".repeat(151);
    for (tenant, status, message) in [
        (None, 401, "header X-Scope-OrgID is missing"),
        (Some(""), 400, "tenant id is empty"),
        (Some("a/b"), 400, "tenant id contains '/'"),
        (Some("a b"), 400, "tenant id contains ' '"),
        (Some("a|b"), 400, "tenant id contains '|'"),
        (Some("."), 400, "tenant id must not be '.' or '..'"),
        (Some(".."), 400, "tenant id must not be '.' or '..'"),
        (Some(&long), 400, "tenant id has 151 characters, at most 150 are allowed"),
    ] {
        let client = tenant.map_or_else(|| sandbox.client(), |tenant| sandbox.client().as_tenant(tenant));
        let cases = [
            get("query", &[("query", QUERY)], status, message),
            push(&[], Vec::new(), status, message),
            sql("SELECT 1", status, message),
        ];
        check(&client, &cases);
    }
}
