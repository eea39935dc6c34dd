//! Asks a server over HTTP and turns its refusals into errors that say what it said.

use std::io::Read;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::ServerArgs;

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer taken.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// A server and a tenant.
pub(super) struct Client {
    agent: ureq::Agent,
    server: String,
    tenant: Option<String>,
}

/// An answer's status, content type and body.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

impl Client {
    pub(super) fn new(args: &ServerArgs) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build()
            .new_agent();
        Self { agent, server: args.server.trim_end_matches('/').to_owned(), tenant: args.tenant.clone() }
    }

    /// Answers of any status.
    pub(super) fn post(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let mut request = self.agent.post(format!("{}{path}", self.server));
        for (name, value) in parameters {
            request = request.query(*name, *value);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        self.answer(request.send(body))
    }

    /// The body of a good answer.
    pub(super) fn get(&self, path: &str, parameters: &[(String, String)]) -> anyhow::Result<Vec<u8>> {
        let mut request = self.agent.get(format!("{}{path}", self.server));
        for (name, value) in parameters {
            request = request.query(name, value);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        self.answer(request.call())?.good()
    }

    /// The body of a good answer to a DELETE.
    pub(super) fn delete(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        self.answer(self.agent.delete(format!("{}{path}", self.server)).call())?.good()
    }

    /// The body of a good answer to a JSON request.
    pub(super) fn post_json(&self, path: &str, body: &Value, accept: &str) -> anyhow::Result<Vec<u8>> {
        let mut request = self
            .agent
            .post(format!("{}{path}", self.server))
            .header("content-type", "application/json")
            .header("accept", accept);
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        self.answer(request.send(body.to_string()))?.good()
    }

    fn answer(&self, result: Result<http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<Answer> {
        let mut response = result.with_context(|| format!("ask {}", self.server))?;
        let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let status = response.status().as_u16();
        let mut body = Vec::new();
        response.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut body)?;
        Ok(Answer { status, retry_after, body })
    }
}

impl Answer {
    /// The body, or the server's words as an error.
    pub(super) fn good(self) -> anyhow::Result<Vec<u8>> {
        if self.status == 200 {
            return Ok(self.body);
        }
        anyhow::bail!("the server answered {}: {}", self.status, self.message())
    }

    /// What the server said.
    pub(super) fn message(&self) -> String {
        let json: Option<Value> = serde_json::from_slice(&self.body).ok();
        let error = json.as_ref().and_then(|answer| answer["error"].as_str()).map(str::to_owned);
        error.unwrap_or_else(|| String::from_utf8_lossy(&self.body).trim().to_owned())
    }
}
