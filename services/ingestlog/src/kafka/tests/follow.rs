//! An owner that reads what others append.

use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn an_owner_hears_of_what_others_append() {
    let Some(broker) = shared() else { return };
    let mut owner = Node::new(&broker.address, "follow", 1).await;
    // What is heard is heard from reading ahead, not from asking now and then.
    owner.config.refresh_interval = Span(Duration::from_secs(3_600));
    let other = Node::with(owner.config.clone());
    let log = owner.log(0).await;

    let mut read = Vec::new();
    for round in 0..20_u64 {
        let from = Offset(round);
        let appended =
            other.deps.producer.append(Partition(0), Bytes::from(round.to_string())).await.unwrap();
        assert_eq!(appended, from);
        log.wait(from).await.unwrap();
        read.extend(log.read(from, 1 << 20).await.unwrap());
    }
    let expected = (0..20_u64)
        .map(|number| Entry::Record { offset: Offset(number), payload: number.to_string().into() });
    assert_eq!(read, expected.collect::<Vec<_>>());

    log.close().await;
    let text = owner.metrics.encode();
    assert!(text.contains("cambium_kafka_consumed_records_total 20\n"), "{text}");
    assert!(!text.contains("cambium_kafka_lag_records{"), "a partition that is not owned has no lag: {text}");
}

#[tokio::test]
async fn lag_is_what_was_not_read() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "lag", 1).await;
    let log = node.log(0).await;
    for _ in 0..5 {
        log.append("12345".into()).await.unwrap();
    }
    assert_eq!(log.read(Offset(0), 10).await.unwrap().len(), 2);
    assert_eq!(log.stats().lag_records, 3);
    let text = node.metrics.encode();
    assert!(text.contains("cambium_kafka_lag_records{partition=\"0\"} 3\n"), "{text}");
    assert!(text.contains("cambium_kafka_produced_bytes_total 25\n"), "{text}");
}

/// Reads anywhere, while others wait and append.
#[tokio::test]
async fn readers_do_not_disturb_each_other() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "readers", 1).await;
    let log = node.log(0).await;
    for number in 0..50_u64 {
        log.append(Bytes::from(number.to_string())).await.unwrap();
    }
    let mut readers = JoinSet::new();
    for reader in 0..4_u64 {
        let log = Arc::clone(&log);
        readers.spawn(async move {
            for step in 0..5 {
                let from = Offset((reader * 7 + step * 13) % 50);
                let page = log.read(from, 6).await.unwrap();
                assert_eq!(page[0], Entry::Record { offset: from, payload: from.0.to_string().into() });
            }
        });
    }
    readers.join_all().await;
}
