//! What the three protocols put on the wire, read back.

use std::time::Duration;

use cambium_loadtest::fleet::{Bases, Fleet, Place, Push};
use cambium_proto::wire::parca::WriteRawRequest;
use cambium_proto::wire::pyroscope::push::v1::PushRequest;
use prost::Message as _;
use url::Url;

use crate::protocol::{Message, Protocol, Sender};
use crate::scenario::Scenario;

fn push() -> Push {
    let scenario = Scenario::parse(super::SCENARIO).unwrap();
    let fleet = Fleet::new(scenario.shape(Duration::from_secs(1)), &Bases::committed()).unwrap();
    fleet.push(Place { tenant: 0, series: 4, round: 1, offset_ns: 12_345 }, 1_700_000_000_000_000_000)
}

fn message(protocol: Protocol, push: &Push) -> Message {
    Sender::new(protocol, "http://host:1", Duration::from_secs(1)).unwrap().message(push).unwrap()
}

fn pairs(push: &Push) -> Vec<(String, String)> {
    let labels = push.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    std::iter::once(("__name__".to_owned(), push.kind.name().to_owned())).chain(labels).collect()
}

#[tokio::test]
async fn cambium_has_the_labels_in_the_query() {
    let push = push();
    let Message::Http { uri, body, .. } = message(Protocol::Cambium, &push) else { panic!("not HTTP") };
    let url: Url = uri.to_string().parse().unwrap();
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    assert_eq!(url.path(), "/api/v1/profiles");
    assert_eq!(query[0], ("labels".to_owned(), push.labels.to_string()));
    assert_eq!(query[1], ("name".to_owned(), "process_cpu".to_owned()));
    assert_eq!(body, push.body);
}

#[tokio::test]
async fn parca_has_a_series_with_its_name() {
    let push = push();
    let Message::Grpc(request) = message(Protocol::Parca, &push) else { panic!("not gRPC") };
    let request = WriteRawRequest::decode(&request.encode_to_vec()[..]).unwrap();
    let labels = request.series[0].labels.clone().unwrap().labels;
    let labels: Vec<_> = labels.into_iter().map(|label| (label.name, label.value)).collect();
    assert_eq!(labels, pairs(&push));
    assert_eq!(request.series[0].samples[0].raw_profile, push.body);
    assert!(!request.normalized);
}

#[tokio::test]
async fn pyroscope_has_the_same_as_a_connect_call() {
    let push = push();
    let Message::Http { uri, content_type, body } = message(Protocol::Pyroscope, &push) else {
        panic!("not HTTP")
    };
    assert_eq!((uri.path(), content_type), ("/push.v1.PusherService/Push", "application/proto"));
    let request = PushRequest::decode(body).unwrap();
    let labels = request.series[0].labels.iter().map(|label| (label.name.clone(), label.value.clone()));
    assert_eq!(labels.collect::<Vec<_>>(), pairs(&push));
    assert_eq!(request.series[0].samples[0].raw_profile, push.body);
}

/// Field by field, as others wrote it down: series 1; labels 1, samples 2; name 1, value 2; raw_profile 1.
#[test]
fn both_requests_are_these_bytes() {
    use cambium_proto::wire::{parca, pyroscope};
    let label = || pyroscope::types::v1::LabelPair { name: "a".into(), value: "b".into() };
    let sample = pyroscope::push::v1::RawSample { raw_profile: "x".into(), id: String::new() };
    let series = pyroscope::push::v1::RawProfileSeries { labels: vec![label()], samples: vec![sample] };
    let bytes = PushRequest { series: vec![series] }.encode_to_vec();
    assert_eq!(bytes, b"\x0a\x0d\x0a\x06\x0a\x01a\x12\x01b\x12\x03\x0a\x01x");

    let label = parca::Label { name: "a".into(), value: "b".into() };
    let sample = parca::RawSample { raw_profile: "x".into(), executable_info: Vec::new() };
    let labels = Some(parca::LabelSet { labels: vec![label] });
    let series = parca::RawProfileSeries { labels, samples: vec![sample] };
    let bytes = WriteRawRequest { series: vec![series], ..Default::default() }.encode_to_vec();
    assert_eq!(bytes, b"\x12\x0f\x0a\x08\x0a\x06\x0a\x01a\x12\x01b\x12\x03\x0a\x01x");
}
