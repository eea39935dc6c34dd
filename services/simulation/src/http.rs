//! The outside of a server, as a test sees it.

use std::io::Read;
use std::time::Duration;

use serde_json::Value;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Asks one server, as one tenant or as none.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    /// Where the server is: `http://host:port`.
    pub base: String,
    /// Sent as `X-Scope-OrgID`.
    pub tenant: Option<String>,
}

/// A status, the headers that tests look at, and a body.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The `Retry-After` header.
    pub retry_after: Option<String>,
    /// The `Content-Type` header.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Client {
    /// A client of the server at `base`.
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
        Self { agent: config.build().new_agent(), base: base.to_owned(), tenant: None }
    }

    /// The same client as this tenant.
    pub fn as_tenant(&self, tenant: &str) -> Self {
        Self { tenant: Some(tenant.to_owned()), ..self.clone() }
    }

    /// `GET path?parameters`. An error means that there was no answer at all.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in parameters {
            request = request.query(*name, *value);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        request.call().map(Answer::read)
    }

    /// `POST path?parameters` with a body.
    pub fn post(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        for (name, value) in parameters {
            request = request.query(*name, *value);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        request.send(body).map(Answer::read)
    }

    /// `DELETE path`.
    pub fn delete(&self, path: &str) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.delete(format!("{}{path}", self.base));
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        request.call().map(Answer::read)
    }

    /// Pushes a pprof under these labels.
    pub fn push(&self, labels: &str, more: &[(&str, &str)], pprof: &[u8]) -> Result<Answer, ureq::Error> {
        let parameters: Vec<(&str, &str)> = [("labels", labels)].iter().chain(more).copied().collect();
        self.post("/api/v1/profiles", &parameters, &[], pprof)
    }

    /// `GET` that must succeed, as JSON.
    ///
    /// # Panics
    /// When there is no answer, or not a good one.
    pub fn json(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let answer = self.get(path, parameters).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// The total of a merge over all of time.
    ///
    /// # Panics
    /// As [`Client::json`].
    pub fn total(&self, query: &str) -> i64 {
        let answer = self.json("/api/v1/query", &[("query", query), ("format", "top"), ("start", "0")]);
        answer["data"]["total"].as_i64().unwrap_or_else(|| panic!("no total in {answer}"))
    }
}

impl Answer {
    fn read(mut response: http::Response<ureq::Body>) -> Self {
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let (retry_after, content_type) = (header("retry-after"), header("content-type").unwrap_or_default());
        let status = response.status().as_u16();
        let mut body = Vec::new();
        // A server killed in the middle of its answer leaves a short one: the assertions on it will say so.
        let _ = response.body_mut().as_reader().read_to_end(&mut body);
        Self { status, retry_after, content_type, body }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}
