//! The gRPC doors, through tonic's own clients and codecs.

use bytes::Bytes;
use cambium_distributor::{Config, grpc};
use cambium_model::limits::TenantLimits;
use cambium_proto::wire::ingest::ingest_service_client::IngestServiceClient;
use cambium_proto::wire::ingest::{Label, PushRequest, PushResponse};
use cambium_proto::wire::parca;
use cambium_proto::wire::parca::profile_store_service_client::ProfileStoreServiceClient;
use cambium_runtime::error::Kind;
use cambium_runtime::quantity::ByteSize;
use cambium_runtime::tenancy::Access;
use futures::StreamExt;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::rig::{Behaviour, NOW_NS, Rig, SECOND_NS, identity, pprof};

/// The service as the tenancy layer would hand requests to it.
macro_rules! identified {
    ($service:expr, $access:expr) => {{
        let identity = identity("anonymous", $access);
        $service.map_request(move |mut request: tonic::codegen::http::Request<tonic::body::Body>| {
            request.extensions_mut().insert(identity.clone());
            request
        })
    }};
}

fn request(pod: &str, body: Vec<u8>) -> PushRequest {
    PushRequest {
        labels: vec![Label { name: "pod".into(), value: pod.into() }],
        profile: body.into(),
        ..PushRequest::default()
    }
}

async fn stream(rig: &Rig, requests: Vec<PushRequest>) -> Result<Vec<PushResponse>, Status> {
    let service = identified!(grpc::ingest_service(rig.handle.clone()), &[Access::Write]);
    let mut client = IngestServiceClient::new(service);
    let answers = client.stream(futures::stream::iter(requests)).await?.into_inner();
    answers.collect::<Vec<_>>().await.into_iter().collect()
}

#[tokio::test]
async fn a_stream_answers_every_push_by_its_id() {
    let rig = Rig::new();
    let ids: Vec<Bytes> = (0..40u8).map(|i| Bytes::from(vec![i; 16])).collect();
    let requests = ids
        .iter()
        .enumerate()
        .map(|(i, id)| PushRequest { profile_id: id.clone(), ..request(&i.to_string(), pprof(2, 0)) });
    let mut answers = stream(&rig, requests.collect()).await.unwrap();
    answers.sort_by(|a, b| a.profile_id.cmp(&b.profile_id));
    assert_eq!(answers.iter().map(|answer| answer.profile_id.clone()).collect::<Vec<_>>(), ids);
    for answer in answers {
        assert_eq!((answer.status.unwrap().code, answer.samples), (0, 2));
    }
    assert_eq!(rig.sink.len(), 40);
}

#[tokio::test]
async fn a_refused_push_does_not_end_the_stream() {
    let rig = Rig::new();
    rig.sink.next(Behaviour::Fail(Kind::Unavailable));
    let unavailable = stream(&rig, vec![request("a", pprof(1, 0))]).await.unwrap();
    let status = unavailable[0].status.clone().unwrap();
    assert_eq!((status.code, status.retry_after_ms), (Code::Unavailable as i32, 1_000));
    assert!(status.message.starts_with("not durable"), "{status:?}");

    let bad_id = PushRequest { profile_id: Bytes::from_static(b"short"), ..request("a", pprof(1, 0)) };
    let bad_label = request("a", pprof(1, 0));
    let bad_label = PushRequest {
        labels: [bad_label.labels.clone(), bad_label.labels].concat(),
        ..request("", pprof(1, 0))
    };
    let old = PushRequest { time_ns: NOW_NS - 7_200 * SECOND_NS, ..request("a", pprof(1, 0)) };
    let good = request("a", pprof(1, 0));
    let answers = stream(&rig, vec![bad_id, bad_label, old, good, request("a", Vec::new())]).await.unwrap();
    let mut codes: Vec<i32> = answers.iter().map(|answer| answer.status.as_ref().unwrap().code).collect();
    codes.sort_unstable();
    let invalid = Code::InvalidArgument as i32;
    assert_eq!(codes, [0, invalid, invalid, invalid, Code::FailedPrecondition as i32]);
    let short = answers.iter().find(|answer| &answer.profile_id[..] == b"short").unwrap();
    assert!(short.status.as_ref().unwrap().message.starts_with("profile_id must be 16 bytes"));
}

#[tokio::test]
async fn a_stream_has_a_bounded_number_of_pushes_under_way() {
    let rig = Rig::new();
    for _ in 0..100 {
        rig.sink.next(Behaviour::Hang);
    }
    let requests = (0..100).map(|i| request(&i.to_string(), pprof(1, 0))).collect();
    let answers = stream(&rig, requests);
    tokio::pin!(answers);
    while rig.sink.len() < grpc::STREAM_PUSHES_MAX {
        assert!(futures::poll!(&mut answers).is_pending());
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        assert!(futures::poll!(&mut answers).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.sink.len(), grpc::STREAM_PUSHES_MAX);
}

#[tokio::test]
async fn messages_and_writers_are_checked() {
    let config = Config { grpc_message_bytes_max: ByteSize(1_000), ..Config::default() };
    let rig = Rig::with(config, TenantLimits::default());
    let too_large = stream(&rig, vec![request("a", vec![0; 2_000])]).await.unwrap_err();
    assert_eq!(too_large.code(), Code::OutOfRange);

    let service = identified!(grpc::ingest_service(rig.handle.clone()), &[Access::Read]);
    let refused = IngestServiceClient::new(service).stream(futures::stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    let unknown = grpc::profile_store_service(rig.handle.clone());
    let refused = ProfileStoreServiceClient::new(unknown).write_raw(raw(Vec::new())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

/// The labels of a series, and its profiles.
type Series<'a> = (Vec<(&'a str, &'a str)>, Vec<Vec<u8>>);

fn raw(series: Vec<Series<'_>>) -> parca::WriteRawRequest {
    let label = |(name, value): (&str, &str)| parca::Label { name: name.into(), value: value.into() };
    let sample = |body: Vec<u8>| parca::RawSample { raw_profile: body.into(), ..parca::RawSample::default() };
    let series = series.into_iter().map(|(labels, samples)| parca::RawProfileSeries {
        labels: Some(parca::LabelSet { labels: labels.into_iter().map(label).collect() }),
        samples: samples.into_iter().map(sample).collect(),
    });
    parca::WriteRawRequest { series: series.collect(), ..parca::WriteRawRequest::default() }
}

async fn write_raw(rig: &Rig, request: parca::WriteRawRequest) -> Result<(), Status> {
    let service = identified!(grpc::profile_store_service(rig.handle.clone()), &[Access::Write]);
    ProfileStoreServiceClient::new(service).write_raw(request).await.map(|_| ())
}

#[tokio::test]
async fn write_raw_takes_every_sample_of_every_series() {
    let rig = Rig::new();
    let request = raw(vec![
        (vec![("__name__", "memory"), ("pod", "a")], vec![pprof(1, 0), pprof(2, 0)]),
        (vec![("pod", "b")], vec![pprof(3, 0)]),
    ]);
    write_raw(&rig, request).await.unwrap();
    let mut found: Vec<(String, String)> = rig
        .sink
        .records()
        .iter()
        .map(|(_, _, profile)| (profile.types[0].name.to_string(), profile.labels.to_string()))
        .collect();
    found.sort();
    let pair = |name: &str, labels: &str| (name.to_owned(), labels.to_owned());
    assert_eq!(
        found,
        [pair("memory", r#"{pod="a"}"#), pair("memory", r#"{pod="a"}"#), pair("process_cpu", r#"{pod="b"}"#)]
    );
}

#[tokio::test]
async fn write_raw_names_what_it_refused_and_prefers_what_a_retry_cures() {
    let rig = Rig::new();
    let series =
        || vec![(vec![("pod", "a")], vec![pprof(1, 0)]), (vec![("pod", "b")], vec![pprof(2, 0), Vec::new()])];
    let refused = write_raw(&rig, raw(series())).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "series[1].samples[1]: the profile is empty (1 of 3 profiles refused)");
    assert_eq!(rig.sink.len(), 2, "the others were taken");

    rig.sink.next(Behaviour::Fail(Kind::Unavailable));
    let refused = write_raw(&rig, raw(series())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().ends_with("(2 of 3 profiles refused)"), "{refused}");
}
