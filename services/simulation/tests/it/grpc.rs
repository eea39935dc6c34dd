//! The gRPC doors as their clients see them: our agents' stream, Parca's unary call, gRPC-web, health, reflection.

use std::collections::BTreeMap;

use bytes::Bytes;
use cambium_loadtest::synthetic::Synthetic;
use cambium_proto::wire::ingest::ingest_service_client::IngestServiceClient;
use cambium_proto::wire::ingest::{Label, PushRequest, PushResponse};
use cambium_proto::wire::parca;
use cambium_proto::wire::parca::profile_store_service_client::ProfileStoreServiceClient;
use cambium_simulation::Sandbox;
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::BINARY;
use crate::main_job::now_ns;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";

/// Flag of a gRPC-web frame that holds trailers.
const TRAILERS: u8 = 0x80;

async fn channel(sandbox: &Sandbox) -> Channel {
    Channel::from_shared(sandbox.client().base).expect("a URI").connect().await.expect("a connection")
}

fn profile(value: i64) -> Synthetic {
    Synthetic { time_ns: now_ns(), samples: 3, value }
}

/// A push of its own series under an id of one repeated byte.
fn request(id: u8, pprof: Vec<u8>) -> PushRequest {
    let label = Label { name: "pod".to_owned(), value: format!("p{id}") };
    PushRequest {
        profile_id: Bytes::from(vec![id; 16]),
        labels: vec![label],
        profile: pprof.into(),
        ..PushRequest::default()
    }
}

/// Sends all on one stream; the answers by id.
async fn stream(channel: &Channel, requests: Vec<PushRequest>) -> BTreeMap<Vec<u8>, PushResponse> {
    let count = requests.len();
    let mut client = IngestServiceClient::new(channel.clone());
    let answers = client.stream(futures::stream::iter(requests)).await.expect("the stream opens");
    let answers: Vec<PushResponse> = answers.into_inner().try_collect().await.expect("the stream ends well");
    assert_eq!(answers.len(), count, "{answers:?}");
    answers.into_iter().map(|answer| (answer.profile_id.to_vec(), answer)).collect()
}

fn code(answer: &PushResponse) -> Code {
    Code::from(answer.status.clone().unwrap_or_default().code)
}

#[tokio::test]
async fn a_stream_acks_every_profile_by_its_id_and_a_refusal_does_not_end_it() {
    let sandbox = Sandbox::running(BINARY, &[]);
    let channel = channel(&sandbox).await;
    let old = PushRequest { time_ns: 1_000, ..request(3, profile(1).pprof()) };
    let bad_label = PushRequest {
        labels: [request(4, Vec::new()).labels, request(4, Vec::new()).labels].concat(),
        ..request(4, profile(1).pprof())
    };
    let requests = vec![
        request(1, profile(7).pprof()),
        request(2, b"<html>".to_vec()),
        old,
        bad_label,
        request(5, profile(11).pprof()),
    ];
    let answers = stream(&channel, requests.clone()).await;
    for (id, expected, samples, message) in [
        (1, Code::Ok, 3, ""),
        (2, Code::InvalidArgument, 0, "profile: field 7 has wire type 4 at byte 1"),
        (3, Code::FailedPrecondition, 0, "too old"),
        (4, Code::InvalidArgument, 0, "label \"pod\" is given twice"),
        (5, Code::Ok, 3, ""),
    ] {
        let answer = &answers[&vec![id; 16]];
        assert_eq!((code(answer), answer.samples), (expected, samples), "{answer:?}");
        let status = answer.status.clone().unwrap_or_default();
        assert!(status.message.contains(message), "{status:?}");
        assert_eq!(status.retry_after_ms, 0, "a retry is of no use: {status:?}");
    }
    assert_eq!(sandbox.client().total(QUERY), 3 * (7 + 11));

    let again = stream(&channel, vec![requests[0].clone(), requests[4].clone()]).await;
    assert!(again.values().all(|answer| code(answer) == Code::Ok), "{again:?}");
    assert_eq!(sandbox.client().total(QUERY), 3 * (7 + 11), "a retry counts once");
}

#[tokio::test]
async fn an_ack_comes_before_the_next_profile_is_sent() {
    let sandbox = Sandbox::running(BINARY, &[]);
    let (sender, requests) = futures::channel::mpsc::unbounded();
    let mut client = IngestServiceClient::new(channel(&sandbox).await);
    sender.unbounded_send(request(1, profile(7).pprof())).expect("the stream is open");
    let mut answers = client.stream(requests).await.expect("the stream opens").into_inner();
    for id in 1..=3 {
        let answer = answers.next().await.expect("an ack").expect("no error");
        assert_eq!((&answer.profile_id[..], code(&answer)), (&[id; 16][..], Code::Ok));
        assert_eq!(sandbox.client().total(QUERY), 21 * i64::from(id), "what is acked is seen");
        sender.unbounded_send(request(id + 1, profile(7).pprof())).expect("the stream is open");
    }
    drop(sender);
    assert_eq!(answers.count().await, 1);
}

fn raw(series: &str, pprof: Vec<u8>) -> parca::WriteRawRequest {
    let label = |name: &str, value: &str| parca::Label { name: name.to_owned(), value: value.to_owned() };
    let labels = parca::LabelSet { labels: vec![label("__name__", "process_cpu"), label("pod", series)] };
    let sample = parca::RawSample { raw_profile: pprof.into(), ..parca::RawSample::default() };
    let series = parca::RawProfileSeries { labels: Some(labels), samples: vec![sample] };
    parca::WriteRawRequest { series: vec![series], ..parca::WriteRawRequest::default() }
}

#[tokio::test]
async fn parcas_clients_can_write() {
    let sandbox = Sandbox::running(BINARY, &[]);
    let mut client = ProfileStoreServiceClient::new(channel(&sandbox).await);
    client.write_raw(raw("a", profile(7).pprof())).await.expect("it is taken");
    assert_eq!(sandbox.client().total(QUERY), 21);

    let mut mixed = raw("b", b"<html>".to_vec());
    mixed.series.extend(raw("c", profile(11).pprof()).series);
    let refused = client.write_raw(mixed).await.expect_err("one of them is no profile");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let message = refused.message();
    assert!(message.starts_with("series[0].samples[0]: profile: field 7"), "{message}");
    assert!(message.ends_with("(1 of 2 profiles refused)"), "{message}");
    assert_eq!(sandbox.client().total(QUERY), 21 + 33, "the other one is stored");
}

/// A gRPC-web frame.
fn frame(flag: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&[flag], &length[..], payload].concat()
}

/// Flags and payloads of an answer's frames.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (payload, rest) = rest.split_at(length);
        found.push((head[0], payload.to_vec()));
        body = rest;
    }
    found
}

#[test]
fn browsers_can_call_over_http_1() {
    let sandbox = Sandbox::running(BINARY, &[]);
    let path = "/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw";
    let call = |request: parca::WriteRawRequest| {
        let headers = [("Content-Type", "application/grpc-web+proto"), ("X-Grpc-Web", "1")];
        let body = frame(0, &request.encode_to_vec());
        let answer = sandbox.client().post(path, &[], &headers, &body).expect("an answer");
        assert_eq!(answer.status, 200, "gRPC-web says everything in its trailers: {}", answer.text());
        assert_eq!(answer.content_type, "application/grpc-web+proto");
        frames(&answer.body)
    };
    let taken = call(raw("a", profile(7).pprof()));
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert_eq!(taken[0], (0, Vec::new()), "an empty message");
    let trailers = String::from_utf8_lossy(&taken[1].1).into_owned();
    assert_eq!(taken[1].0, TRAILERS);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
    assert_eq!(sandbox.client().total(QUERY), 21);
}

#[tokio::test]
async fn health_answers() {
    let sandbox = Sandbox::running(BINARY, &[]);
    let mut client = HealthClient::new(channel(&sandbox).await);
    let health = client.check(HealthCheckRequest::default()).await.expect("an answer").into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);
    let unknown = HealthCheckRequest { service: "nothing".to_owned() };
    assert_eq!(client.check(unknown).await.expect_err("no such service").code(), Code::NotFound);
}

#[tokio::test]
async fn unknown_methods_are_unimplemented() {
    let sandbox = Sandbox::running(BINARY, &[]);
    for path in ["/cambium.ingest.v1.IngestService/Nothing", "/nothing.v1.Nothing/Nothing"] {
        let mut client = tonic::client::Grpc::new(channel(&sandbox).await);
        client.ready().await.expect("the channel is connected");
        let codec: tonic_prost::ProstCodec<(), ()> = tonic_prost::ProstCodec::default();
        let refused = client.unary(tonic::Request::new(()), path.parse().expect("a path"), codec).await;
        assert_eq!(refused.expect_err(path).code(), Code::Unimplemented, "{path}");
    }
}
