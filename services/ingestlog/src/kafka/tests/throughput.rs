//! How fast, for people to look at: `cargo test --release -p cambium-ingestlog --features kafka -- --ignored --nocapture throughput`.

use futures::stream::{FuturesUnordered, StreamExt};

use super::*;

/// Appends under way at a time.
const UNDER_WAY: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, asserts nothing"]
async fn throughput() {
    let Some(broker) = shared() else { return };
    for (records, bytes) in [(100_000, 1 << 10), (20_000, 16 << 10), (2_000, 256 << 10)] {
        let node = Node::new(&broker.address, &format!("throughput-{bytes}"), 1).await;
        // As compressible as text.
        let record: Bytes =
            (0..bytes).map(|place: usize| b"the quick brown fox"[place * place % 19]).collect();
        let began = node.clock.monotonic();
        let mut under_way = FuturesUnordered::new();
        for _ in 0..records {
            if under_way.len() == UNDER_WAY {
                let done: Result<Offset, Error> = under_way.next().await.unwrap();
                done.unwrap();
            }
            under_way.push(node.deps.producer.append(Partition(0), record.clone()));
        }
        while let Some(done) = under_way.next().await {
            done.unwrap();
        }
        show("produced", records, bytes, node.clock.monotonic() - began);

        let log = node.log(0).await;
        let (mut from, began) = (Offset(0), node.clock.monotonic());
        while from < log.next() {
            from = log.read(from, 16 << 20).await.unwrap().last().unwrap().next();
        }
        show("consumed", records, bytes, node.clock.monotonic() - began);
    }
}

fn show(what: &str, records: usize, bytes: usize, took: Duration) {
    let seconds = took.as_secs_f64();
    let megabytes = (records * bytes) as f64 / 1e6 / seconds;
    eprintln!(
        "{what} {records} records of {bytes} bytes: {:.0} records/s, {megabytes:.0} MB/s",
        records as f64 / seconds
    );
}
