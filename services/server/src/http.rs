//! The doors: one port for HTTP/1.1, h2c, gRPC and gRPC-web, tenancy in front of everything that is a tenant's.
//!
//! ```text
//!   public    /metrics /ready /healthz  gRPC health, reflection   anyone
//!             /api/v1/…  IngestService  ProfileStoreService        tenancy layer ──► role
//!             operate endpoints                                    operators (while the address is loopback)
//!   internal  operate endpoints                                    loopback only
//! ```

mod listener;

mod deadline;

mod compression;

mod grpc;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cambium_metastore::kv::KvStore;
use cambium_metastore::{Catalogue, Tenants};
use cambium_model::limits::Overrides;
use cambium_runtime::clock::Clock;
use cambium_runtime::error::{ApiError, Kind};
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tasks::Tasks;
use cambium_runtime::tenancy::{self, Authenticator, HeaderAuth, NoAuth};
use tokio::net::TcpListener;
use tokio::sync::watch;

use deadline::{BODY_SILENCE_MAX, BodyDeadline};
use listener::Deadlines;

use crate::Config;
use crate::admin;
use crate::cluster::Place;
use crate::config::Auth;
use crate::deletions;
use crate::self_profile::SelfProfiler;

/// What the doors lead to.
#[derive(Clone)]
pub struct Doors {
    /// The settings in force.
    pub config: Config,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What a backup is made of.
    pub metastore: Arc<dyn KvStore>,
    /// The registry behind `/metrics`.
    pub metrics: Metrics,
    /// The limits in force.
    pub limits: watch::Receiver<Arc<Overrides>>,
    /// The block catalogue.
    pub catalogue: Arc<Catalogue>,
    /// The tenants.
    pub tenants: Arc<Tenants>,
    /// Takes profiles, where this process does.
    pub distributor: Option<cambium_distributor::Handle>,
    /// Answers queries, where this process does.
    pub querier: Option<cambium_querier::Querier>,
    /// Holds heads, where this process does.
    pub ingester: Option<cambium_ingester::Handle>,
    /// This process among others, in a cluster.
    pub place: Option<Place>,
    /// Profiles this process on request.
    pub self_profiler: SelfProfiler,
    /// Asks the process to stop.
    pub stop: watch::Sender<bool>,
}

/// Where the doors are.
#[derive(Clone, Copy, Debug)]
pub struct Listeners {
    /// Everybody's.
    pub public: SocketAddr,
    /// The operator's.
    pub internal: SocketAddr,
}

/// Both doors, before anything is behind them: others are told where they are.
pub struct Sockets {
    public: TcpListener,
    internal: TcpListener,
    /// Where they are.
    pub at: Listeners,
}

/// Takes the addresses of both doors.
pub async fn bind_all(config: &Config) -> anyhow::Result<Sockets> {
    let (public, internal) = (bind(config.listen).await?, bind(config.internal.listen).await?);
    let at = Listeners { public: public.local_addr()?, internal: internal.local_addr()? };
    Ok(Sockets { public, internal, at })
}

/// Opens both doors.
pub fn listen(doors: &Doors, sockets: Sockets, tasks: &Tasks) {
    let Sockets { public, internal, .. } = sockets;
    let operate = admin::router(doors).layer(middleware::from_fn_with_state(doors.clone(), require_node));
    let operators = operate.merge(admin::open_router(doors)).merge(grpc::of_nodes(doors));
    let deadline = BodyDeadline { silence_max: BODY_SILENCE_MAX, clock: Arc::clone(&doors.clock) };
    for (name, socket, router) in
        [("public", public, public_router(doors)), ("internal", internal, operators)]
    {
        let router = router.layer(middleware::from_fn_with_state(deadline.clone(), deadline::limit_silence));
        let shutdown = tasks.shutdown_signal();
        tasks.spawn(name, listener::serve(socket, router, Deadlines::default(), shutdown));
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))
}

/// Everything on the public port.
pub fn public_router(doors: &Doors) -> Router {
    let authenticator: Arc<dyn Authenticator> = match doors.config.auth {
        Auth::None => Arc::new(NoAuth),
        Auth::Header => Arc::new(HeaderAuth),
    };
    let grpc = grpc::services(doors);
    let pushes = doors.distributor.clone().map(cambium_distributor::http::router);
    let queries = doors.querier.clone().map(cambium_querier::api::router);
    let of_tenants = pushes
        .unwrap_or_default()
        .merge(queries.unwrap_or_default())
        .merge(admin::status_router(doors))
        .merge(deletions::router(doors))
        .merge(grpc.of_tenants)
        .layer(middleware::from_fn_with_state(authenticator, tenancy::identify));
    let operate =
        admin::router(doors).layer(middleware::from_fn_with_state(doors.config.clone(), require_operator));
    of_tenants
        .merge(operate)
        .merge(admin::open_router(doors))
        .merge(grpc.of_anyone)
        .route("/api/v1/openapi.json", get(openapi))
        .layer(compression::layer())
        .fallback(not_found)
}

/// On the public port operate endpoints are the operator's, who is on this machine and asks as no tenant.
async fn require_operator(State(config): State<Config>, request: Request, next: Next) -> Response {
    let refuse = |message: &str| tenancy::respond(request.headers(), ApiError::new(Kind::Forbidden, message));
    if !config.listen.ip().is_loopback() {
        return refuse("operate endpoints are served on the internal port only");
    }
    if config.auth == Auth::Header && request.headers().contains_key(tenancy::TENANT_HEADER) {
        return refuse("a tenant's credential does not allow Admin access");
    }
    next.run(request).await
}

/// On an internal port that other machines reach, operate endpoints are for who has the cluster's key.
async fn require_node(State(doors): State<Doors>, request: Request, next: Next) -> Response {
    if doors.config.internal.listen.ip().is_loopback() {
        return next.run(request).await;
    }
    let refused = match &doors.place {
        Some(place) => place.credentials.check(request.headers()).err().map(ApiError::from),
        None => Some(ApiError::new(Kind::Forbidden, "operate endpoints are served on loopback only")),
    };
    match refused {
        Some(error) => tenancy::respond(request.headers(), error),
        None => next.run(request).await,
    }
}

async fn not_found(request: Request) -> Response {
    let message = format!("there is no {} {}", request.method(), request.uri().path());
    // A gRPC client would take NOT_FOUND for an answer of the method.
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    let grpc = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let kind = if grpc { Kind::Unimplemented } else { Kind::NotFound };
    tenancy::respond(request.headers(), ApiError::new(kind, message))
}

async fn openapi() -> impl IntoResponse {
    let mut all = cambium_querier::api::openapi();
    all.merge(cambium_distributor::http::openapi());
    all.merge(admin::openapi());
    all.merge(deletions::openapi());
    all.info = utoipa::openapi::InfoBuilder::new()
        .title("Cambium")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Continuous profiling for many tenants: push pprof, query merged profiles."))
        .build();
    axum::Json(all)
}
