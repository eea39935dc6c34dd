//! One HTTP client for everything but gRPC: pooled connections, a bound on every wait and on every answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// The header that names the tenant.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Characters of an answer that a message repeats.
const SHOWN_CHARS_MAX: usize = 200;
/// Wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one server.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    base: String,
}

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    /// Whether the request may have reached the server.
    pub sent: bool,
    pub why: String,
}

impl Client {
    /// A client of the server at `http://host:port`.
    pub fn new(base: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let pool = Pool::builder(TokioExecutor::new()).build(connector);
        Self { pool, base: base.trim_end_matches('/').to_owned() }
    }

    /// Where a path and query is.
    pub fn uri(&self, path_and_query: &str) -> anyhow::Result<Uri> {
        Ok(format!("{}{path_and_query}", self.base).parse()?)
    }

    /// `POST` with a body of some type. Errors: no answer within the wait.
    pub async fn post(
        &self,
        uri: Uri,
        content_type: &'static str,
        tenant: Option<&HeaderValue>,
        body: Bytes,
        wait: Duration,
    ) -> Result<Answer, NoAnswer> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.send(request, tenant, wait).await
    }

    /// `GET`. Errors: as [`Client::post`].
    pub async fn get(
        &self,
        uri: Uri,
        tenant: Option<&HeaderValue>,
        wait: Duration,
    ) -> Result<Answer, NoAnswer> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        self.send(request, tenant, wait).await
    }

    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        tenant: Option<&HeaderValue>,
        wait: Duration,
    ) -> Result<Answer, NoAnswer> {
        if let Some(tenant) = tenant {
            request.headers_mut().insert(TENANT_HEADER, tenant.clone());
        }
        let answer = async {
            let response = self.pool.request(request).await;
            let response =
                response.map_err(|error| NoAnswer { sent: !error.is_connect(), why: causes(&error) })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body
                .map_err(|error| NoAnswer { sent: true, why: format!("the answer ends early: {error}") })?
                .to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        let late = || NoAnswer { sent: true, why: format!("no answer within {wait:?}") };
        timeout(wait, answer).await.unwrap_or_else(|_| Err(late()))
    }
}

impl Answer {
    /// How long the server asks to wait, where it says so in seconds.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// Status and the body's beginning, for messages.
    pub fn shown(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(SHOWN_CHARS_MAX).collect();
        format!("{} {}", self.status.as_u16(), text.trim())
    }
}

/// An error and all that led to it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
