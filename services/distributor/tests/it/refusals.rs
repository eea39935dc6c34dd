//! Every refusal: its status, its message, when to retry, and what it is counted as.

use axum::body::Body;
use bytes::Bytes;
use cambium_distributor::Config;
use cambium_model::limits::TenantLimits;
use cambium_runtime::quantity::ByteSize;
use cambium_runtime::tenancy::Access;
use prost::Message;

use crate::rig::{Behaviour, NOW_NS, Rig, SECOND_NS, identity, pprof, pprof_message};

/// Percent-encodes what a query string must not hold as it is.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' => (byte as char).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn labels(text: &str) -> String {
    format!("labels={}", encoded(text))
}

/// One refused push: nothing reaches the sink, and it is counted under `reason`.
#[track_caller]
fn check(limits: TenantLimits, query: &str, body: Vec<u8>, status: u16, message: &str, reason: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rig = Rig::with(Config::default(), limits);
    let answer = runtime.block_on(rig.post(query, body));
    assert_eq!((answer.status, answer.message.as_str()), (status, message), "{query}");
    assert_eq!(answer.retry_after.is_some(), status == 429 || status == 503);
    assert_eq!(rig.sink.len(), 0);
    let counted = format!("cambium_discarded_profiles_total{{tenant=\"anonymous\",reason=\"{reason}\"}}");
    assert_eq!(rig.metric(&counted), 1, "{counted} in\n{}", rig.metrics.encode());
}

fn standard() -> TenantLimits {
    TenantLimits::default()
}

#[test]
fn parameters_that_cannot_be_read() {
    let body = || pprof(1, 0);
    check(
        standard(),
        &labels("{a="),
        body(),
        400,
        "parameter labels: selector: expected a quoted value at byte 3, found the end",
        "invalid_labels",
    );
    check(
        standard(),
        &labels(r#"{a=~"x"}"#),
        body(),
        400,
        "parameter labels: labels: a=~… is a matcher, a label set takes only =",
        "invalid_labels",
    );
    check(
        standard(),
        &labels(r#"{a="1",a="2"}"#),
        body(),
        400,
        r#"parameter labels: label "a" is given twice"#,
        "duplicate_label_names",
    );
    check(
        standard(),
        &format!("{}&name=memory", labels(r#"{__name__="process_cpu"}"#)),
        body(),
        400,
        r#"the profile is named "memory" and, by its label __name__, "process_cpu""#,
        "invalid_labels",
    );
    check(
        standard(),
        "timestamp=yesterday",
        body(),
        400,
        r#"parameter timestamp: "yesterday" is neither RFC 3339 nor seconds since 1970"#,
        "malformed_request",
    );
    for id in ["12", "zz000000000000000000000000000000", "+1000000000000000000000000000000"] {
        check(
            standard(),
            &format!("profile_id={}", encoded(id)),
            body(),
            400,
            "profile_id must be 16 bytes (32 hexadecimal digits over HTTP)",
            "malformed_request",
        );
    }
    check(
        standard(),
        "label=x",
        body(),
        400,
        "query string: Failed to deserialize query string: label: unknown field `label`, expected one of \
         `labels`, `name`, `timestamp`, `profile_id`",
        "malformed_request",
    );
    check(
        standard(),
        "name=a%20b",
        body(),
        400,
        r#"profile name "a b" must have 1 to 256 bytes of [a-zA-Z0-9_./-]"#,
        "invalid_labels",
    );
}

#[test]
fn labels_past_a_limit() {
    let limits = TenantLimits {
        label_names_max: 1,
        label_name_bytes_max: 4,
        label_value_bytes_max: 4,
        ..TenantLimits::default()
    };
    check(
        limits.clone(),
        &labels(r#"{a="1",b="2"}"#),
        pprof(1, 0),
        422,
        "the series has 2 labels, 1 are allowed (label_names_max)",
        "max_label_names_per_series",
    );
    check(
        limits.clone(),
        &labels(r#"{abcde="1"}"#),
        pprof(1, 0),
        422,
        r#"label name "abcde" has 5 bytes, 4 are allowed (label_name_bytes_max)"#,
        "label_name_too_long",
    );
    check(
        limits.clone(),
        &labels(r#"{a="12345"}"#),
        pprof(1, 0),
        422,
        "the value of label a has 5 bytes, 4 are allowed (label_value_bytes_max)",
        "label_value_too_long",
    );
    check(
        limits,
        &labels(r#"{"a-b"="1"}"#),
        pprof(1, 0),
        400,
        r#"label name "a-b" must match [a-zA-Z_][a-zA-Z0-9_.]* and not be __tenant_id__"#,
        "invalid_labels",
    );
}

#[test]
fn bodies_that_are_no_profile_or_too_much_of_one() {
    check(standard(), "", Vec::new(), 400, "the profile is empty", "malformed_profile");
    let mut dangling = pprof_message(1, 0);
    dangling.sample[0].location_id = vec![99];
    check(
        standard(),
        "",
        dangling.encode_to_vec(),
        400,
        "sample[0].location_id[0]: 99 names no location",
        "malformed_profile",
    );
    check(
        TenantLimits { request_body_bytes_max: 10, ..standard() },
        "",
        pprof(1, 0),
        413,
        "the body has more than 10 bytes (request_body_bytes_max)",
        "body_size_limit_exceeded",
    );
    check(
        TenantLimits { profile_bytes_max: 10, ..standard() },
        "",
        pprof(1, 0),
        413,
        "the profile has more than 10 bytes uncompressed (profile_bytes_max)",
        "profile_size_limit",
    );
}

#[test]
fn profiles_past_a_limit_name_it() {
    let cases = [
        (TenantLimits { profile_samples_max: 2, ..standard() }, "(profile_samples_max)", "samples_limit"),
        (TenantLimits { stack_depth_max: 2, ..standard() }, "(stack_depth_max)", "profile_limit"),
        (TenantLimits { symbol_bytes_max: 1, ..standard() }, "(symbol_bytes_max)", "profile_limit"),
    ];
    for (limits, ending, reason) in cases {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let rig = Rig::with(Config::default(), limits);
        let answer = runtime.block_on(rig.post("", pprof(3, 0)));
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(answer.message.ends_with(ending), "{answer:?}");
        let counted = format!("cambium_discarded_profiles_total{{tenant=\"anonymous\",reason=\"{reason}\"}}");
        assert_eq!(rig.metric(&counted), 1, "{counted}");
    }
}

#[test]
fn times_outside_the_window_say_by_how_much() {
    check(
        standard(),
        "",
        pprof(1, NOW_NS - 3_605 * SECOND_NS),
        422,
        "the profile is 3605s old, 3600s are allowed (reject_older_than_secs): 5s too old",
        "not_in_ingestion_window",
    );
    check(
        standard(),
        "timestamp=1700000601.25",
        pprof(1, 0),
        422,
        "the profile is 601.25s in the future, 600s are allowed (reject_newer_than_secs): 1.25s too new",
        "not_in_ingestion_window",
    );
}

#[tokio::test]
async fn discarded_samples_and_bytes_are_counted_where_known() {
    let rig = Rig::new();
    let body = pprof(7, NOW_NS - 7_200 * SECOND_NS);
    let bytes = body.len() as u64;
    rig.post("", body).await;
    let labels = r#"{tenant="anonymous",reason="not_in_ingestion_window"}"#;
    assert_eq!(rig.metric(&format!("cambium_discarded_samples_total{labels}")), 7);
    assert_eq!(rig.metric(&format!("cambium_discarded_bytes_total{labels}")), bytes);
}

#[tokio::test]
async fn a_tenant_over_its_rate_is_told_when_to_come_back() {
    let body = pprof(1, 0);
    let bytes = body.len() as u64;
    let limits = TenantLimits { ingestion_rate_bytes: bytes / 4, ingestion_burst_bytes: bytes, ..standard() };
    let rig = Rig::with(Config::default(), limits);
    assert_eq!(rig.post("", body.clone()).await.status, 200);
    let refused = rig.post("", body.clone()).await;
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.retry_after.unwrap().parse().unwrap();
    assert!((4..=5).contains(&wait), "{wait}");
    assert!(refused.message.starts_with("over the ingestion rate of "), "{}", refused.message);
    assert_eq!(
        rig.metric(r#"cambium_discarded_profiles_total{tenant="anonymous",reason="rate_limited"}"#),
        1
    );
    rig.clock.advance(std::time::Duration::from_secs(wait + 1));
    assert_eq!(rig.post("", body).await.status, 200);
}

#[tokio::test]
async fn rates_are_of_uncompressed_bytes_and_per_tenant() {
    let body = pprof(200, 0);
    let compressed = cambium_proto::pprof::gzip(&body);
    let limits =
        TenantLimits { ingestion_rate_bytes: 1, ingestion_burst_bytes: body.len() as u64, ..standard() };
    let rig = Rig::with(Config::default(), limits);
    assert_eq!(rig.post("", compressed.clone()).await.status, 200);
    assert_eq!(rig.post("", compressed.clone()).await.status, 429);
    let other = Some(identity("other", &[Access::Write]));
    assert_eq!(rig.post_as(other, "", compressed).await.status, 200);
}

#[tokio::test]
async fn a_tenant_at_its_series_limit_keeps_the_series_it_has() {
    let rig = Rig::with(Config::default(), TenantLimits { series_max: 5, ..standard() });
    let (old, new) = (labels(r#"{pod="old"}"#), labels(r#"{pod="new"}"#));
    assert_eq!(rig.post(&old, pprof(1, 0)).await.status, 200);
    rig.publish_active_series(5);
    assert_eq!(rig.post(&old, pprof(2, 0)).await.status, 200);
    let refused = rig.post(&new, pprof(3, 0)).await;
    assert_eq!(
        (refused.status, refused.message.as_str()),
        (429, "5 series are active, 5 are allowed (series_max): the series is new and is refused")
    );
    assert_eq!(rig.metric(r#"cambium_discarded_samples_total{tenant="anonymous",reason="series_limit"}"#), 3);
    rig.publish_active_series(4);
    assert_eq!(rig.post(&new, pprof(3, 0)).await.status, 200);
}

#[tokio::test]
async fn a_change_of_limits_holds_at_once() {
    let rig = Rig::new();
    assert_eq!(rig.post("", pprof(3, 0)).await.status, 200);
    rig.set_limits(TenantLimits { profile_samples_max: 2, ..standard() });
    assert_eq!(rig.post("", pprof(3, 1)).await.status, 422);
}

#[tokio::test]
async fn who_may_not_write_is_told_so() {
    let rig = Rig::new();
    let nobody = rig.post_as(None, "", pprof(1, 0)).await;
    assert_eq!((nobody.status, nobody.message.as_str()), (401, "header X-Scope-OrgID is missing"));
    let reader = rig.post_as(Some(identity("a", &[Access::Read])), "", pprof(1, 0)).await;
    assert_eq!((reader.status, reader.message.as_str()), (403, "the credential does not allow Write access"));
}

#[tokio::test]
async fn no_room_is_a_retry_and_never_room_is_too_large() {
    let config = Config { bytes_in_flight_max: ByteSize(64 << 10), ..Config::default() };
    let rig = Rig::with(config, standard());
    let mut under_way = rig.handle.admit(&identity("a", &[]).tenant).await.unwrap();
    under_way.hold(60 << 10).unwrap();
    let refused = rig.post("", vec![0u8; 10 << 10]).await;
    assert_eq!(
        (refused.status, refused.message.as_str()),
        (503, "saturated: 65536 bytes are in flight (bytes_in_flight_max)")
    );
    assert_eq!(refused.retry_after.as_deref(), Some("1"));
    assert!(!rig.metrics.encode().contains("discarded_profiles_total{"), "a 503 is no discard");
    assert_eq!(rig.metric("cambium_distributor_in_flight_bytes"), 60 << 10);
    drop(under_way);
    assert_eq!(rig.metric("cambium_distributor_in_flight_bytes"), 0);
    let never = rig.post("", vec![0u8; 65 << 10]).await;
    assert_eq!(
        (never.status, never.message.as_str()),
        (413, "the body has more than 65536 bytes (bytes_in_flight_max)")
    );
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_as_it_comes() {
    let limits = TenantLimits { request_body_bytes_max: 1_000, ..standard() };
    let rig = Rig::with(Config::default(), limits);
    let chunk = || Ok::<_, std::io::Error>(Bytes::from(vec![1u8; 600]));
    let long = futures::stream::iter([chunk(), chunk(), chunk()]);
    assert_eq!(rig.post("", Body::from_stream(long)).await.status, 413);

    let body = pprof(2, 0);
    let pieces: Vec<_> =
        body.chunks(50).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
    assert_eq!(rig.post("", Body::from_stream(futures::stream::iter(pieces))).await.status, 200);

    let broken = futures::stream::iter([chunk(), Err(std::io::Error::other("reset"))]);
    let answer = rig.post("", Body::from_stream(broken)).await;
    assert_eq!(answer.status, 499, "{answer:?}");
}

#[tokio::test]
async fn a_sink_that_fails_says_what_to_do() {
    use cambium_runtime::error::Kind;
    let rig = Rig::new();
    for (kind, status) in [(Kind::Unavailable, 503), (Kind::TooLarge, 413), (Kind::Internal, 500)] {
        rig.sink.next(Behaviour::Fail(kind));
        let answer = rig.post("", pprof(1, 0)).await;
        assert_eq!(answer.status, status);
        let end = "did not take the record: the disk is full";
        assert!(answer.message.starts_with("not durable: partition ") && answer.message.ends_with(end));
    }
}
