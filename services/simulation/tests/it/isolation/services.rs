//! Every gRPC service on the public port, from its own reflection.

use std::collections::BTreeSet;

use cambium_simulation::Sandbox;
use futures::StreamExt;
use prost::Message;
use prost_types::FileDescriptorProto;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::HEADER;
use crate::BINARY;

/// Services that tenants may call.
const OF_TENANTS: [&str; 4] = [
    "cambium.ingest.v1.IngestService",
    "parca.profilestore.v1alpha1.ProfileStoreService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
];

/// What roles say to each other, served or not: never a tenant's.
const OF_ROLES: [&str; 4] = [
    "/cambium.ingester.v1.IngesterService/Write",
    "/cambium.ingester.v1.IngesterService/Heads",
    "/cambium.querier.v1.WorkerService/Execute",
    "/cambium.metastore.v1.MetastoreService/Commit",
];

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
    let mut answers = client.server_reflection_info(request(messages, Some("red"))).await?.into_inner();
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

#[tokio::test]
async fn services_of_roles_are_closed_to_tenants() {
    let sandbox = Sandbox::running(BINARY, HEADER);
    let channel =
        Channel::from_shared(sandbox.client().base).expect("a URI").connect().await.expect("a connection");
    let served = service_names(&channel).await;
    let known: BTreeSet<&str> = OF_TENANTS.into();
    for name in &OF_TENANTS[..3] {
        assert!(served.iter().any(|service| service == name), "{name} is not in {served:?}");
    }
    let mut closed: Vec<String> = OF_ROLES.map(str::to_owned).into();
    for service in served.iter().filter(|service| !known.contains(service.as_str())) {
        closed.extend(methods(&channel, service).await);
    }
    for path in closed {
        let refused = call(&channel, &path, Some("red")).await.expect_err(&path);
        assert!(
            matches!(refused.code(), Code::PermissionDenied | Code::Unimplemented),
            "{path} is neither a tenant's nor closed to tenants: {refused:?}"
        );
    }
}

#[tokio::test]
async fn calls_without_a_tenant_are_refused() {
    let sandbox = Sandbox::running(BINARY, HEADER);
    let channel =
        Channel::from_shared(sandbox.client().base).expect("a URI").connect().await.expect("a connection");
    for service in &OF_TENANTS[..2] {
        for path in methods(&channel, service).await {
            let refused = call(&channel, &path, None).await.expect_err(&path);
            assert_eq!(refused.code(), Code::Unauthenticated, "{path}: {refused:?}");
        }
    }
}
