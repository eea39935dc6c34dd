//! A server that keeps the sums of what it is sent, answers in Cambium's words, and does one thing wrong.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cambium_model::labels::Labels;
use cambium_model::selector::{ProfileQuery, parse_labels};
use cambium_model::time;
use cambium_proto::pprof::Decompressor;
use cambium_proto::wire::parca::profile_store_service_server::{
    ProfileStoreService, ProfileStoreServiceServer,
};
use cambium_proto::wire::parca::{WriteRawRequest, WriteRawResponse};
use cambium_proto::wire::perftools::Profile;
use cambium_proto::wire::pyroscope::push::v1::PushRequest;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::client::TENANT_HEADER;

/// What goes wrong: at the n-th push, or at every n-th.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    None,
    /// Acknowledged and forgotten, once.
    Lose(usize),
    /// Counted twice, once.
    Double(usize),
    /// Taken in, but answered with 503 and Retry-After 0.
    Busy(usize),
    /// Taken in or not, and never answered, however often it comes.
    Mute(usize),
    /// Refused for good.
    Refuse(usize),
}

/// The server; it ends with this value.
pub struct Fake {
    port: u16,
    state: Shared,
    task: JoinHandle<()>,
}

type Shared = Arc<Mutex<Store>>;

struct Store {
    fault: Fault,
    pushes: usize,
    bodies: HashSet<Bytes>,
    /// Bodies that are never answered.
    mute: HashSet<Bytes>,
    tenants: HashSet<String>,
    /// Tenant, service, profile type; time and value.
    values: BTreeMap<(String, String, String), Vec<(i64, i64)>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub async fn start(fault: Fault) -> Self {
        let state: Shared = Arc::new(Mutex::new(Store {
            fault,
            pushes: 0,
            bodies: HashSet::new(),
            mute: HashSet::new(),
            tenants: HashSet::new(),
            values: BTreeMap::new(),
        }));
        let grpc = ProfileStoreServiceServer::new(Parca(Arc::clone(&state)));
        let router = Router::new()
            .route("/api/v1/profiles", post(cambium))
            .route("/push.v1.PusherService/Push", post(pyroscope))
            .route("/api/v1/query", get(total))
            .route("/api/v1/query_range", get(points))
            .route("/api/v1/labels", get(|| async { Json(json!({"data": []})) }))
            .with_state(Arc::clone(&state))
            .route_service("/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw", grpc);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        #[expect(clippy::disallowed_methods, reason = "aborted when the fake is dropped")]
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, state, task }
    }

    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn tenants(&self) -> usize {
        self.state.lock().unwrap().tenants.len()
    }

    pub fn distinct_bodies(&self) -> usize {
        self.state.lock().unwrap().bodies.len()
    }
}

/// What is done about a push.
enum Done {
    Taken { duplicate: bool },
    Busy,
    Mute,
    Refused,
}

impl Store {
    fn push(&mut self, tenant: Option<&str>, labels: &Labels, name: &str, body: &Bytes) -> Done {
        self.tenants.extend(tenant.map(str::to_owned));
        self.pushes += 1;
        let number = self.pushes;
        if self.mute.contains(body) {
            return Done::Mute;
        }
        if !self.bodies.insert(body.clone()) {
            return Done::Taken { duplicate: true };
        }
        match self.fault {
            Fault::Lose(at) if number == at => return Done::Taken { duplicate: false },
            Fault::Refuse(every) if number.is_multiple_of(every) => return Done::Refused,
            Fault::Mute(every) if number.is_multiple_of(every) => {
                self.mute.insert(body.clone());
                if number.is_multiple_of(2 * every) {
                    self.take_in(tenant, labels, name, body);
                }
                return Done::Mute;
            }
            Fault::Double(at) if number == at => self.take_in(tenant, labels, name, body),
            _ => (),
        }
        self.take_in(tenant, labels, name, body);
        match self.fault {
            Fault::Busy(every) if number.is_multiple_of(every) => Done::Busy,
            _ => Done::Taken { duplicate: false },
        }
    }

    fn take_in(&mut self, tenant: Option<&str>, labels: &Labels, name: &str, body: &Bytes) {
        let mut decompressor = Decompressor::new();
        let profile = Profile::decode(decompressor.decompress(body, 1 << 24).unwrap()).unwrap();
        let text = |index: i64| &profile.string_table[index as usize];
        let period = profile.period_type.unwrap();
        let delta = if profile.duration_nanos > 0 { ":delta" } else { "" };
        for (index, ty) in profile.sample_type.iter().enumerate() {
            let profile_type = format!(
                "{name}:{}:{}:{}:{}{delta}",
                text(ty.r#type),
                text(ty.unit),
                text(period.r#type),
                text(period.unit)
            );
            let sum = profile.sample.iter().map(|sample| sample.value[index]).sum();
            let service = labels.get("service_name").unwrap().to_owned();
            let key = (tenant.unwrap_or_default().to_owned(), service, profile_type);
            self.values.entry(key).or_default().push((profile.time_nanos, sum));
        }
    }

    /// The sum of what a query asks for, over (after, until].
    fn sum(&self, tenant: &str, parameters: &HashMap<String, String>, after: i64, until: i64) -> i64 {
        let query: ProfileQuery = parameters["query"].parse().unwrap();
        let profile_type = query.profile_type.to_string();
        let text = query.selector.to_string();
        let of = self.values.iter().filter(|((of, service, ty), _)| {
            of == tenant
                && *ty == profile_type
                && (!text.contains("service_name") || text.contains(&format!("\"{service}\"")))
        });
        let values = of.flat_map(|(_, values)| values).filter(|(at, _)| after < *at && *at <= until);
        values.map(|(_, value)| value).sum()
    }
}

async fn cambium(
    State(state): State<Shared>,
    Query(parameters): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let labels = parse_labels(&parameters["labels"]).unwrap();
    let done = state.lock().unwrap().push(tenant(&headers), &labels, &parameters["name"], &body);
    answer(done).await
}

async fn pyroscope(State(state): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers[header::CONTENT_TYPE], "application/proto");
    let request = PushRequest::decode(body).unwrap();
    let series = &request.series[0];
    let pairs = series.labels.iter().map(|pair| (&pair.name, &pair.value));
    let (name, labels) = split(pairs);
    let done = state.lock().unwrap().push(tenant(&headers), &labels, &name, &series.samples[0].raw_profile);
    answer(done).await
}

struct Parca(Shared);

#[tonic::async_trait]
impl ProfileStoreService for Parca {
    async fn write_raw(
        &self,
        request: tonic::Request<WriteRawRequest>,
    ) -> Result<tonic::Response<WriteRawResponse>, tonic::Status> {
        let tenant = request.metadata().get(TENANT_HEADER).map(|name| name.to_str().unwrap().to_owned());
        let series = &request.get_ref().series[0];
        let labels = series.labels.as_ref().unwrap();
        let (name, labels) = split(labels.labels.iter().map(|label| (&label.name, &label.value)));
        let body = &series.samples[0].raw_profile;
        match self.0.lock().unwrap().push(tenant.as_deref(), &labels, &name, body) {
            Done::Taken { .. } => Ok(tonic::Response::new(WriteRawResponse {})),
            _ => Err(tonic::Status::unavailable("busy")),
        }
    }
}

async fn total(
    State(state): State<Shared>,
    Query(parameters): Query<HashMap<String, String>>,
    request: Request,
) -> Json<Value> {
    let [start, end] = ["start", "end"].map(|name| time::parse(&parameters[name]).unwrap());
    let tenant = tenant(request.headers()).unwrap_or_default();
    let total = state.lock().unwrap().sum(tenant, &parameters, start - 1, end);
    Json(json!({"status": "success", "data": {"unit": "", "total": total, "names": []}}))
}

async fn points(
    State(state): State<Shared>,
    Query(parameters): Query<HashMap<String, String>>,
    request: Request,
) -> Json<Value> {
    let [start, end] = ["start", "end"].map(|name| time::parse(&parameters[name]).unwrap());
    let step = parameters["step"].parse::<i64>().unwrap() * 1_000_000_000;
    let tenant = tenant(request.headers()).unwrap_or_default();
    let state = state.lock().unwrap();
    let points = (0..).map(|number| start + number * step).take_while(|at| *at <= end);
    let values: Vec<Value> = points
        .map(|at| json!([at as f64 / 1e9, state.sum(tenant, &parameters, at - step, at).to_string()]))
        .collect();
    Json(json!({"data": {"resultType": "matrix", "result": [{"metric": {}, "values": values}]}}))
}

async fn answer(done: Done) -> Response {
    match done {
        Done::Taken { duplicate } => {
            Json(json!({"status": "success", "data": {"profiles": 1, "duplicate": duplicate}}))
                .into_response()
        }
        Done::Busy => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "0")], "not durable").into_response()
        }
        Done::Mute => std::future::pending().await,
        Done::Refused => (StatusCode::UNPROCESSABLE_ENTITY, "too old").into_response(),
    }
}

fn tenant(headers: &HeaderMap) -> Option<&str> {
    headers.get(TENANT_HEADER).map(|name| name.to_str().unwrap())
}

/// The name, and the other labels.
fn split<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> (String, Labels) {
    let (name, labels): (Vec<_>, Vec<_>) = pairs.partition(|(name, _)| *name == "__name__");
    (name[0].1.clone(), Labels::from_pairs(labels).unwrap())
}
