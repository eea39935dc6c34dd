//! The three ways to push, from the same fleet: a push becomes a [`Message`] once, and every attempt sends these bytes.
//!
//! ```text
//!   cambium    POST /api/v1/profiles?labels=…&name=…            body: the pprof
//!   parca      gRPC ProfileStoreService/WriteRaw                labels with __name__, the pprof
//!   pyroscope  POST /push.v1.PusherService/Push (Connect)       labels with __name__, the pprof
//! ```

use std::time::Duration;

use bytes::Bytes;
use cambium_loadtest::fleet::Push;
use cambium_proto::wire::parca::profile_store_service_client::ProfileStoreServiceClient;
use cambium_proto::wire::parca::{Label, LabelSet, RawProfileSeries, RawSample, WriteRawRequest};
use cambium_proto::wire::pyroscope::push::v1 as pyroscope;
use cambium_proto::wire::pyroscope::types::v1::LabelPair;
use http::{HeaderValue, StatusCode, Uri};
use prost::Message as _;
use serde::Serialize;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use url::form_urlencoded;

use crate::client::{Answer, Client, NoAnswer, TENANT_HEADER};

/// The label that names a profile where nothing else does.
const NAME_LABEL: &str = "__name__";
/// Where Connect's unary call of Pyroscope's service goes.
const PYROSCOPE_PATH: &str = "/push.v1.PusherService/Push";
/// gRPC trailer in which a server says how long to wait, milliseconds.
const RETRY_AFTER: &str = "grpc-retry-pushback-ms";
/// Wait for a gRPC connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Cambium's own HTTP API.
    Cambium,
    /// Parca's `WriteRaw`.
    Parca,
    /// Pyroscope's `push.v1`.
    Pyroscope,
}

/// A push as it is sent. Clones share its bytes.
#[derive(Clone, Debug)]
pub enum Message {
    Http { uri: Uri, content_type: &'static str, body: Bytes },
    Grpc(WriteRawRequest),
}

impl Message {
    /// Bytes of its body; of gRPC, of the profiles in it.
    pub fn body_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Http { body, .. } => body.len(),
            Self::Grpc(request) => {
                let samples = request.series.iter().flat_map(|series| &series.samples);
                samples.map(|sample| sample.raw_profile.len()).sum()
            }
        };
        bytes as u64
    }
}

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The server has it.
    Acked {
        /// It says that it had it before.
        duplicate: bool,
    },
    /// The server will not have it, however often it is sent.
    Refused(String),
    /// The server did not take it now.
    Busy {
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// It says for certain that it does not have it.
        untaken: bool,
        /// In its words.
        why: String,
    },
    /// There was no answer: it may have it.
    Lost(String),
}

/// Pushes to one server.
#[derive(Clone, Debug)]
pub struct Sender {
    protocol: Protocol,
    http: Client,
    grpc: ProfileStoreServiceClient<Channel>,
    wait: Duration,
}

impl Sender {
    /// For the server at `http://host:port`, with a bound on the wait for one answer. Connects when it first sends.
    pub fn new(protocol: Protocol, base: &str, wait: Duration) -> anyhow::Result<Self> {
        let endpoint =
            Endpoint::from_shared(base.to_owned())?.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let grpc = ProfileStoreServiceClient::new(endpoint.connect_lazy());
        Ok(Self { protocol, http: Client::new(base), grpc, wait })
    }

    /// The push as this protocol has it.
    pub fn message(&self, push: &Push) -> anyhow::Result<Message> {
        let body = Bytes::copy_from_slice(&push.body);
        Ok(match self.protocol {
            Protocol::Cambium => {
                let mut query = form_urlencoded::Serializer::new(String::new());
                query.append_pair("labels", &push.labels.to_string()).append_pair("name", push.kind.name());
                let uri = self.http.uri(&format!("/api/v1/profiles?{}", query.finish()))?;
                Message::Http { uri, content_type: "application/octet-stream", body }
            }
            Protocol::Parca => Message::Grpc(parca(push, body)),
            Protocol::Pyroscope => {
                let body = pyroscope_request(push, body).encode_to_vec().into();
                Message::Http { uri: self.http.uri(PYROSCOPE_PATH)?, content_type: "application/proto", body }
            }
        })
    }

    /// One attempt.
    pub async fn send(&self, message: &Message, tenant: Option<&HeaderValue>) -> Reply {
        match message.clone() {
            Message::Http { uri, content_type, body } => {
                match self.http.post(uri, content_type, tenant, body, self.wait).await {
                    Ok(answer) => reply_of_answer(&answer),
                    Err(NoAnswer { sent: true, why }) => Reply::Lost(why),
                    Err(NoAnswer { sent: false, why }) => {
                        Reply::Busy { retry_after: None, untaken: true, why }
                    }
                }
            }
            Message::Grpc(request) => {
                let mut request = tonic::Request::new(request);
                let tenant = tenant.and_then(|tenant| AsciiMetadataValue::try_from(tenant.as_bytes()).ok());
                if let Some(tenant) = tenant {
                    request.metadata_mut().insert(TENANT_HEADER, tenant);
                }
                let mut grpc = self.grpc.clone();
                match tokio::time::timeout(self.wait, grpc.write_raw(request)).await {
                    Ok(Ok(_)) => Reply::Acked { duplicate: false },
                    Ok(Err(status)) => reply_of_status(&status),
                    Err(_) => Reply::Lost(format!("no answer within {:?}", self.wait)),
                }
            }
        }
    }
}

/// What an HTTP answer means for a push.
fn reply_of_answer(answer: &Answer) -> Reply {
    match answer.status {
        StatusCode::OK => {
            let text = b"\"duplicate\":true";
            Reply::Acked { duplicate: answer.body.windows(text.len()).any(|window| window == text) }
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Reply::Busy {
            retry_after: answer.retry_after(),
            untaken: answer.status == StatusCode::TOO_MANY_REQUESTS,
            why: answer.shown(),
        },
        // 408 and all of 5xx, proxies' too, say nothing of what was done.
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            Reply::Lost(answer.shown())
        }
        _ => Reply::Refused(answer.shown()),
    }
}

/// What a gRPC status means for a push.
fn reply_of_status(status: &Status) -> Reply {
    let why = format!("{:?} {}", status.code(), status.message());
    let millis = || status.metadata().get(RETRY_AFTER)?.to_str().ok()?.parse().ok();
    match status.code() {
        Code::ResourceExhausted | Code::Unavailable => Reply::Busy {
            retry_after: millis().map(Duration::from_millis),
            untaken: status.code() == Code::ResourceExhausted,
            why,
        },
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::NotFound => Reply::Refused(why),
        _ => Reply::Lost(why),
    }
}

/// The request of Parca's `WriteRaw`.
fn parca(push: &Push, body: Bytes) -> WriteRawRequest {
    let labels = named(push).map(|(name, value)| Label { name: name.into(), value: value.into() });
    let series = RawProfileSeries {
        labels: Some(LabelSet { labels: labels.collect() }),
        samples: vec![RawSample { raw_profile: body, executable_info: Vec::new() }],
    };
    WriteRawRequest { series: vec![series], ..WriteRawRequest::default() }
}

/// The request of Pyroscope's `Push`.
fn pyroscope_request(push: &Push, body: Bytes) -> pyroscope::PushRequest {
    let labels = named(push).map(|(name, value)| LabelPair { name: name.into(), value: value.into() });
    let series = pyroscope::RawProfileSeries {
        labels: labels.collect(),
        samples: vec![pyroscope::RawSample { raw_profile: body, id: String::new() }],
    };
    pyroscope::PushRequest { series: vec![series] }
}

/// A push's labels and its name as one of them, first.
fn named(push: &Push) -> impl Iterator<Item = (&str, &str)> {
    std::iter::once((NAME_LABEL, push.kind.name())).chain(push.labels.iter())
}
