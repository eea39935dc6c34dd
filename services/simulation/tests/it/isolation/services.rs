//! Every gRPC service on the public port, from its own reflection.

use std::collections::BTreeSet;

use cambium_simulation::Sandbox;
use futures::StreamExt;
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::HEADER;
use crate::BINARY;

/// Services that tenants may call, and nobody else.
const OF_TENANTS: [&str; 2] =
    ["cambium.ingest.v1.IngestService", "parca.profilestore.v1alpha1.ProfileStoreService"];

/// Services for whoever can connect, such as a probe: they know nothing of tenants.
const OF_ANYONE: [&str; 2] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// What roles are to say to each other beside what is described: not served by this build, and never to a tenant.
const OF_ROLES: [&str; 2] =
    ["/cambium.querier.v1.WorkerService/Execute", "/cambium.metastore.v1.MetastoreService/Commit"];

/// A call as tenant `red`, or as nobody.
fn request<T>(message: T, tenant: Option<&'static str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(tenant) = tenant {
        request.metadata_mut().insert("x-scope-orgid", tenant.parse().expect("ASCII"));
    }
    request
}

async fn ask(channel: &Channel, question: MessageRequest) -> Result<MessageResponse, Status> {
    let message = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let messages = futures::stream::iter([message]);
    let mut client = ServerReflectionClient::new(channel.clone());
    let mut answers = client.server_reflection_info(messages).await?.into_inner();
    let answer = answers.next().await.expect("an answer to every question")?;
    Ok(answer.message_response.expect("an answer holds one"))
}

async fn service_names(channel: &Channel) -> Vec<String> {
    match ask(channel, MessageRequest::ListServices(String::new())).await {
        Ok(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("no list of services: {other:?}"),
    }
}

/// `/package.Service/Method` of what roles say to each other, served or not: our services that are no tenant's.
fn of_roles() -> Vec<String> {
    let described = FileDescriptorSet::decode(cambium_proto::wire::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut found: Vec<String> = OF_ROLES.map(str::to_owned).into();
    for file in described.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if !OF_TENANTS.contains(&name.as_str()) {
                found.extend(service.method.iter().map(|method| format!("/{name}/{}", method.name())));
            }
        }
    }
    found
}

/// `/package.Service/Method` of every method.
async fn methods(channel: &Channel, service: &str) -> Vec<String> {
    let question = MessageRequest::FileContainingSymbol(service.to_owned());
    let files = match ask(channel, question).await {
        Ok(MessageResponse::FileDescriptorResponse(files)) => files.file_descriptor_proto,
        other => panic!("no description of {service}: {other:?}"),
    };
    let mut found = Vec::new();
    for file in files {
        let file = FileDescriptorProto::decode(&file[..]).expect("a descriptor");
        for described in &file.service {
            if format!("{}.{}", file.package(), described.name()) == service {
                found.extend(described.method.iter().map(|method| format!("/{service}/{}", method.name())));
            }
        }
    }
    assert!(!found.is_empty(), "{service} has no methods");
    found
}

/// Calls a method with an empty message.
async fn call(channel: &Channel, path: &str, tenant: Option<&'static str>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("the channel is connected");
    let path: PathAndQuery = path.parse().expect("a path");
    let codec: ProstCodec<(), ()> = ProstCodec::default();
    client.unary(request((), tenant), path, codec).await.map(|_| ())
}

async fn channel(sandbox: &Sandbox) -> Channel {
    Channel::from_shared(sandbox.client().base).expect("a URI").connect().await.expect("a connection")
}

/// Reflection lists what is served: a service that is in neither list fails this test until somebody has decided.
#[tokio::test]
async fn every_service_is_a_tenants_or_anyones() {
    let sandbox = Sandbox::running(BINARY, HEADER);
    let served: BTreeSet<String> = service_names(&channel(&sandbox).await).await.into_iter().collect();
    let known: BTreeSet<String> = OF_TENANTS.into_iter().chain(OF_ANYONE).map(str::to_owned).collect();
    assert_eq!(served, known);
}

#[tokio::test]
async fn services_of_roles_are_closed_to_tenants() {
    let sandbox = Sandbox::running(BINARY, HEADER);
    let channel = channel(&sandbox).await;
    for path in &of_roles() {
        let refused = call(&channel, path, Some("red")).await.expect_err(path);
        assert!(
            matches!(refused.code(), Code::PermissionDenied | Code::Unimplemented),
            "{path} is not closed to tenants: {refused:?}"
        );
    }
}

#[tokio::test]
async fn calls_without_a_tenant_are_refused() {
    let sandbox = Sandbox::running(BINARY, HEADER);
    let channel = channel(&sandbox).await;
    for service in OF_TENANTS {
        for path in methods(&channel, service).await {
            let refused = call(&channel, &path, None).await.expect_err(&path);
            assert_eq!(refused.code(), Code::Unauthenticated, "{path}: {refused:?}");
        }
    }
}

/// A probe has no header to say who it is. Reflection is asked as nobody by every test here.
#[tokio::test]
async fn a_probe_needs_no_tenant() {
    let sandbox = Sandbox::running(BINARY, HEADER);
    let mut client = HealthClient::new(channel(&sandbox).await);
    let health = client.check(HealthCheckRequest::default()).await.expect("an answer").into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);
}
