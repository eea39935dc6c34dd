//! Messages that are no records.

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::*;
use crate::log::Flaw;

#[tokio::test]
async fn what_is_no_record_comes_out_as_such() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "poison", 1).await;
    let log = node.log(0).await;
    log.append("first".into()).await.unwrap();

    let foreign: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", &broker.address).create().unwrap();
    let good = crc32c::crc32c(b"good").to_le_bytes();
    let mark = [&[1][..], &good].concat();
    let later = [&[7][..], &good].concat();
    for (payload, mark) in [
        (Some("hello"), None),
        (Some("changed"), Some(&mark)),
        (Some("good"), Some(&later)),
        (None, None),
        (Some("good"), Some(&mark)),
    ] {
        let mut headers = OwnedHeaders::new().insert(Header { key: "other", value: Some("header") });
        if let Some(mark) = mark {
            headers = headers.insert(Header { key: "cambium", value: Some(mark) });
        }
        let mut message = FutureRecord::<str, str>::to("poison").partition(0).key("key").headers(headers);
        message.payload = payload;
        foreign.send(message, Duration::from_secs(10)).await.unwrap();
    }
    log.append("last".into()).await.unwrap();

    let poison = |offset, payload: &'static str, why| Entry::Poison {
        offset: Offset(offset),
        payload: payload.into(),
        why,
    };
    let record =
        |offset, payload: &'static str| Entry::Record { offset: Offset(offset), payload: payload.into() };
    assert_eq!(
        log.read(Offset(0), 1 << 20).await.unwrap(),
        [
            record(0, "first"),
            poison(1, "hello", Flaw::Foreign),
            poison(2, "changed", Flaw::Checksum),
            poison(3, "good", Flaw::UnknownVersion(7)),
            poison(4, "", Flaw::Foreign),
            record(5, "good"),
            record(6, "last"),
        ]
    );
    let text = node.metrics.encode();
    assert!(text.contains("cambium_kafka_poison_records_total 4\n"), "{text}");
}

/// What a transaction leaves in the log is nobody's record, and is named.
#[tokio::test]
async fn offsets_without_a_message_are_a_gap() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "gap", 1).await;
    let log = node.log(0).await;
    log.append("before".into()).await.unwrap();
    tokio::task::spawn_blocking({
        let address = broker.address.clone();
        move || commit_a_transaction(&address, "gap")
    })
    .await
    .unwrap();
    log.append("after".into()).await.unwrap();
    let entries = log.read(Offset(0), 1 << 20).await.unwrap();
    let [
        Entry::Record { .. },
        Entry::Poison { .. },
        Entry::Gap { first, next },
        Entry::Record { offset, payload },
    ] = &entries[..]
    else {
        panic!("{entries:?}")
    };
    assert_eq!((first.0, next.0, offset.0), (2, 3, 3));
    assert_eq!(payload, "after");
}

fn commit_a_transaction(address: &str, topic: &str) {
    use rdkafka::producer::Producer;
    let timeout = Duration::from_secs(30);
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("transactional.id", "somebody")
        .create()
        .unwrap();
    producer.init_transactions(timeout).unwrap();
    producer.begin_transaction().unwrap();
    let message = FutureRecord::<str, str>::to(topic).partition(0).payload("theirs");
    let _delivery = producer.send_result(message).map_err(|(error, _)| error).unwrap();
    producer.commit_transaction(timeout).unwrap();
}
