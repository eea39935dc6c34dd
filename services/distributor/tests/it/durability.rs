//! What an ack means: names first, then the record, then the answer; and what a retry looks like.

use std::time::Duration;

use cambium_distributor::service::Push;
use cambium_metastore::kv::testing::Fault;
use cambium_model::labels::Labels;
use cambium_model::profile::ProfileId;
use cambium_model::tenant::TenantId;
use cambium_proto::pprof::gzip;
use serde_json::json;

use crate::rig::{Behaviour, NOW_NS, Rig, SECOND_NS, pprof};

const QUERY: &str = "labels=%7Bservice_name%3D%22api%22,pod%3D%22a%22%7D";

#[tokio::test]
async fn a_push_becomes_one_record_with_all_its_types() {
    let rig = Rig::new();
    let answer = rig.post(QUERY, gzip(&pprof(3, NOW_NS - SECOND_NS))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.data, json!({"profiles": 1, "samples": 3}));

    let records = rig.sink.records();
    let [(_, tenant, profile)] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(tenant.id, TenantId::anonymous());
    assert_eq!(profile.labels.to_string(), r#"{pod="a",service_name="api"}"#);
    let types: Vec<String> = profile.types.iter().map(ToString::to_string).collect();
    assert_eq!(
        types,
        [
            "process_cpu:samples:count:cpu:nanoseconds:delta",
            "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta"
        ]
    );
    assert_eq!((profile.time_ns, profile.duration_ns), (NOW_NS - SECOND_NS, 10 * SECOND_NS));
    assert_eq!(profile.column(1).iter().sum::<i64>(), 30_000_000);

    let of_tenant = r#"{tenant="anonymous"}"#;
    assert_eq!(rig.metric(&format!("cambium_distributor_acked_samples_total{of_tenant}")), 3);
    assert_eq!(rig.metric(&format!("cambium_distributor_received_profiles_total{of_tenant}")), 1);
}

#[tokio::test]
async fn the_time_is_the_senders_else_the_profiles_else_now() {
    let rig = Rig::new();
    let own = NOW_NS - 5 * SECOND_NS;
    rig.post("timestamp=2023-11-14T22:13:10.5Z", pprof(1, own)).await;
    rig.post("", pprof(1, own)).await;
    rig.post("", pprof(1, 0)).await;
    let times: Vec<i64> = rig.sink.records().iter().map(|(_, _, profile)| profile.time_ns).collect();
    assert_eq!(times, [NOW_NS - 9_500_000_000, own, NOW_NS]);
}

#[tokio::test]
async fn the_name_comes_from_a_parameter_a_label_or_the_sample_types() {
    let rig = Rig::new();
    rig.post("name=mutex", pprof(1, 0)).await;
    rig.post("labels=%7B__name__%3D%22heap%22,pod%3D%22a%22%7D", pprof(1, 0)).await;
    rig.post("name=heap&labels=%7B__name__%3D%22heap%22%7D", pprof(2, 0)).await;
    let names: Vec<String> =
        rig.sink.records().iter().map(|(_, _, profile)| profile.types[0].name.to_string()).collect();
    assert_eq!(names, ["mutex", "heap", "heap"]);
    assert_eq!(rig.sink.profile(1).labels.to_string(), r#"{pod="a"}"#);
}

#[tokio::test]
async fn a_retry_has_the_same_id_and_partition_at_any_time() {
    let rig = Rig::new();
    rig.sink.next(Behaviour::Fail(cambium_runtime::error::Kind::Unavailable));
    assert_eq!(rig.post(QUERY, pprof(2, 0)).await.status, 503);
    rig.clock.advance(Duration::from_secs(60));
    rig.sink.next(Behaviour::Duplicate);
    let retried = rig.post(QUERY, pprof(2, 0)).await;
    assert_eq!(retried.status, 200);
    assert_eq!(retried.data, json!({"profiles": 1, "samples": 2, "duplicate": true}));
    let [first, second] = <[_; 2]>::try_from(rig.sink.records()).unwrap();
    assert_eq!((first.0, first.2.id), (second.0, second.2.id));
    assert_ne!(first.2.time_ns, second.2.time_ns, "the assigned time is no part of the id");
    assert_eq!(rig.metric(r#"cambium_distributor_duplicate_profiles_total{tenant="anonymous"}"#), 1);
}

#[tokio::test]
async fn what_the_sender_names_tells_pushes_of_equal_bytes_apart() {
    let rig = Rig::new();
    for query in ["", QUERY, "timestamp=1700000000", "timestamp=1700000001", "name=memory"] {
        rig.post(query, pprof(1, 0)).await;
    }
    let mut ids: Vec<ProfileId> = rig.sink.records().iter().map(|(_, _, profile)| profile.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);

    rig.post("profile_id=000102030405060708090a0b0c0d0e0f", pprof(1, 0)).await;
    assert_eq!(rig.sink.profile(5).id.to_string(), "000102030405060708090a0b0c0d0e0f");
}

#[tokio::test]
async fn without_the_metastore_only_known_names_pass() {
    let rig = Rig::new();
    assert_eq!(rig.post("", pprof(2, 0)).await.status, 200);
    rig.store.set_down(true);
    assert_eq!(rig.post(QUERY, pprof(2, 0)).await.status, 200, "all names are known");
    let refused = rig.post("", pprof(3, 0)).await;
    assert_eq!(refused.status, 503);
    assert!(refused.message.starts_with("names of new locations cannot be stored"), "{refused:?}");
    assert_eq!(rig.sink.len(), 2, "no record without its names");
    rig.store.set_down(false);
    assert_eq!(rig.post("", pprof(3, 0)).await.status, 200);
}

#[tokio::test]
async fn names_whose_commit_failed_are_written_again() {
    let rig = Rig::new();
    assert_eq!(rig.post("", pprof(1, 0)).await.status, 200);
    rig.store.inject([Fault::Unavailable]);
    assert_eq!(rig.post("", pprof(2, 0)).await.status, 503);
    assert_eq!(rig.post("", pprof(2, 0)).await.status, 200, "the sink finds every name");
}

#[tokio::test]
async fn there_is_no_ack_before_the_sinks() {
    let rig = Rig::new();
    rig.sink.next(Behaviour::Hang);
    let push = rig.post("", pprof(1, 0));
    tokio::pin!(push);
    while rig.sink.len() == 0 {
        assert!(futures::poll!(&mut push).is_pending());
        tokio::task::yield_now().await;
    }
    assert!(futures::poll!(&mut push).is_pending(), "the record is written, not durable");
    rig.clock.advance(Duration::from_secs(10));
    let answer = push.await;
    assert_eq!((answer.status, answer.message.as_str()), (503, "not durable after 10s (push_timeout)"));
}

#[tokio::test]
async fn shutdown_answers_what_is_under_way_and_refuses_the_rest() {
    let rig = Rig::new();
    let tenant = TenantId::anonymous();
    let handle = rig.handle.clone();
    let under_way = handle.admit(&tenant).await.unwrap();
    let run = rig.service.run(std::future::ready(()));
    tokio::pin!(run);
    assert!(futures::poll!(&mut run).is_pending());
    let push = || Push {
        body: pprof(1, 0).into(),
        labels: Labels::empty(),
        name: None,
        time_ns: None,
        id: None,
        addresses_relative: false,
    };
    let refused = handle.push(&tenant, push()).await.unwrap_err();
    assert_eq!(refused.to_string(), "shutting down");
    under_way.push(push()).await.unwrap();
    run.await;
    assert_eq!(rig.sink.len(), 1);
}
