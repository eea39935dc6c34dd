//! The gRPC services on the public port, and how reflection learns of them.

use std::convert::Infallible;

use axum::Router;
use axum::response::IntoResponse;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::service::interceptor::InterceptedService;
use tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME as REFLECTION;
use tonic_web::GrpcWebLayer;

use super::Doors;

/// What is served, by whom it is for.
pub struct Services {
    /// Behind the tenancy layer.
    pub of_tenants: Router,
    /// For whoever can connect: a Kubernetes probe has no header to say who it is. Knows nothing of tenants.
    pub of_anyone: Router,
}

/// Services for the same callers.
#[derive(Default)]
struct Group {
    routes: RoutesBuilder,
    names: Vec<&'static str>,
}

impl Group {
    /// Serves it and remembers its name: what is served is reflected.
    fn add<S>(&mut self, service: S)
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService,
        S: Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self.names.push(S::NAME);
    }

    /// For gRPC-web clients too. Without a fallback, of which a port has one.
    fn router(self) -> Router {
        self.routes.routes().into_axum_router().reset_fallback().layer(GrpcWebLayer::new())
    }
}

/// What other nodes of the cluster ask of this one: nothing where there are none.
pub fn of_nodes(doors: &Doors) -> Router {
    let (Some(place), Some(ingester)) = (&doors.place, &doors.ingester) else { return Router::new() };
    let service = cambium_ingester::grpc::ingester_service(ingester.clone(), rand::random());
    let mut routes = RoutesBuilder::default();
    routes.add_service(InterceptedService::new(service, place.credentials.guard()));
    routes.routes().into_axum_router().reset_fallback()
}

/// Every service.
pub fn services(doors: &Doors) -> Services {
    let mut of_tenants = Group::default();
    if let Some(distributor) = &doors.distributor {
        of_tenants.add(cambium_distributor::grpc::ingest_service(distributor.clone()));
        of_tenants.add(cambium_distributor::grpc::profile_store_service(distributor.clone()));
    }
    let mut of_anyone = Group::default();
    let (_, health) = tonic_health::server::health_reporter();
    of_anyone.add(health);

    let mut reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(cambium_proto::wire::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(REFLECTION);
    for name in of_tenants.names.iter().chain(&of_anyone.names) {
        reflection = reflection.with_service_name(*name);
    }
    of_anyone.add(reflection.build_v1().expect("our own descriptors are valid"));
    Services { of_tenants: of_tenants.router(), of_anyone: of_anyone.router() }
}
