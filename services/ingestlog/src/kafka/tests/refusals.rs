//! What is refused, and in which words.

use cambium_runtime::error::{HasKind, Kind};
use rdkafka::producer::Producer;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::task::JoinSet;

use super::*;
use crate::kafka::topic;

/// The error and what is behind it.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn a_topic_is_made_once_and_then_checked() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "checked", 4).await;
    assert!(!ensure_topic(&node.config, 4, &*node.clock).await.unwrap(), "it is there");

    let wrong = ensure_topic(&node.config, 5, &*node.clock).await.unwrap_err();
    let said = words(&wrong);
    assert!(
        said.starts_with("topic checked is not what the configuration says: partitions is 4, must be 5: "),
        "{said}"
    );

    let larger =
        Config { record_bytes_max: ByteSize(2 << 20), min_insync_replicas: 2, ..node.config.clone() };
    let topic::Error::Differs { differences, .. } = ensure_topic(&larger, 4, &*node.clock).await.unwrap_err()
    else {
        panic!("it is there")
    };
    let settings: Vec<_> = differences.iter().map(|difference| difference.setting).collect();
    assert_eq!(settings, ["replicas", "min.insync.replicas", "max.message.bytes"]);

    let absent = Config { topic: "three".to_owned(), replication_factor: 3, ..node.config.clone() };
    let error = ensure_topic(&absent, 4, &*node.clock).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(words(&error).contains("Invalid replication factor"), "{}", words(&error));
}

#[tokio::test]
async fn a_topic_that_would_lose_records_is_refused() {
    let Some(broker) = shared() else { return };
    let node = Node::with(config(&broker.address, "lossy"));
    make_topic(&node, 1, &[("cleanup.policy", "compact,delete"), ("retention.ms", "60000")]).await;
    let error = ensure_topic(&node.config, 1, &*node.clock).await.unwrap_err();
    let said = words(&error);
    for part in [
        "cleanup.policy is compact,delete, must be delete",
        "retention.ms is 60000, must be 604800000 or more",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[tokio::test]
async fn records_have_a_largest_size() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "large", 1).await;
    let log = node.log(0).await;
    // Without a pattern, so that compression does not make them small.
    let bytes_max = usize::try_from(node.config.record_bytes_max.0).unwrap();
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let largest: Bytes = (0..bytes_max).map(|_| noise()).collect();
    assert_eq!(log.append(largest.clone()).await.unwrap(), Offset(0));
    let refused = log.append(Bytes::from(vec![0; bytes_max + 1])).await.unwrap_err();
    assert_eq!(refused.to_string(), "a record of 1048577 bytes is over the limit of 1048576");
    assert_eq!(
        log.read(Offset(0), 0).await.unwrap(),
        [Entry::Record { offset: Offset(0), payload: largest }]
    );
}

#[tokio::test]
async fn records_that_kafka_has_removed_are_missed() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "removed", 1).await;
    let log = node.log(0).await;
    for number in 0..10_u64 {
        log.append(Bytes::from(number.to_string())).await.unwrap();
    }
    let (admin, options) = node.admin();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset("removed", 0, KafkaOffset::Offset(6)).unwrap();
    admin.delete_records(&before, &options).await.unwrap();

    let missing = log.read(Offset(2), 1 << 20).await;
    let Err(Error::OutOfRange { from, first, next }) = missing else { panic!("{missing:?}") };
    assert_eq!((from.0, first.0, next.0), (2, 6, 10));
    assert_eq!(log.first(), Offset(6), "an owner that opens now sees it at once");
    assert_eq!(node.log(0).await.first(), Offset(6));
    assert_eq!(log.read(Offset(6), 1).await.unwrap()[0].next(), Offset(7), "the rest can be read");
}

#[tokio::test]
async fn an_absent_partition_is_refused() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "absent", 1).await;
    let error = node.deps.producer.append(Partition(7), "record".into()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let error = KafkaLog::open(Partition(7), &node.config, node.deps.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

/// Without a broker: what waits is bounded, and what does not fit is refused at once.
#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let nobody = cambium_peers::free_address();
    let node = Node::with(Config {
        queue_bytes_max: ByteSize(1 << 20),
        delivery_timeout: Span(Duration::from_secs(2)),
        request_timeout: Span(Duration::from_secs(1)),
        ..config(&nobody, "nobody")
    });
    let record = Bytes::from(vec![7; 300 << 10]);
    let mut appends = JoinSet::new();
    for _ in 0..6 {
        let (producer, record) = (Arc::clone(&node.deps.producer), record.clone());
        appends.spawn(async move { producer.append(Partition(0), record).await });
    }
    let mut full = 0;
    for append in appends.join_all().await {
        match append.unwrap_err() {
            Error::QueueFull => full += 1,
            Error::Unconfirmed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((1..6).contains(&full), "{full} of 6 were refused");
    let error = KafkaLog::open(Partition(0), &node.config, node.deps.clone()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let error = ensure_topic(&node.config, 1, &*node.clock).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(words(&error).contains("Connection refused"), "{}", words(&error));
}

#[tokio::test]
async fn a_client_that_has_ended_is_replaced() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "fatal", 1).await;
    let log = node.log(0).await;
    log.append("before".into()).await.unwrap();
    {
        let client = node.deps.producer.client();
        let native = client.producer.client().native_ptr();
        let code = rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        // SAFETY: the client lives as long as `client`; the text is a C string that is copied.
        unsafe { rdkafka::bindings::rd_kafka_test_fatal_error(native, code, c"a test".as_ptr()) };
    }
    let error = log.append("lost".into()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert_eq!(log.append("after".into()).await.unwrap(), Offset(1));
}
