//! Cuts: when they are due, what readers see around them, what a failing store does.

use std::sync::Arc;
use std::time::Duration;

use cambium_ingester::Error;
use cambium_ingestlog::MemoryLog;
use cambium_model::block::Offset;
use cambium_runtime::quantity::ByteSize;
use object_store::memory::InMemory;

use crate::sandbox::{Durable, LOG, START_NS, profile};

fn durable() -> Durable {
    Durable::new(Arc::new(MemoryLog::new(LOG)), Arc::new(InMemory::new()))
}

/// Waits for a condition that another task brings about.
async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..10_000 {
        if condition().await {
            return;
        }
        tokio::task::yield_now().await;
    }
    let deadline = Duration::from_secs(20);
    let waiting = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(deadline, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {deadline:?}"));
}

#[tokio::test]
async fn readers_get_the_generations_from_their_snapshot_on() {
    let durable = durable();
    let running = durable.open().await;
    let mut cuts = vec![Offset(0)];
    for number in 0..4_u32 {
        assert_eq!(running.write(&profile(number, START_NS)).await.unwrap().applied, 1);
        assert_eq!(running.handle.flush().await.unwrap(), 1);
        cuts.push(Offset(u64::from(number) + 1));
    }
    running.write(&profile(9, START_NS)).await.unwrap();
    assert_eq!(running.view().await.logs[0].next, Offset(4));
    let sizes = |from| {
        let heads = running.heads_from(from).map(|heads| heads.iter().map(|head| head.profile_count()).sum());
        heads.map_err(|error| matches!(error, Error::SnapshotTooOld { .. }))
    };
    // Two flushed generations are kept besides the active one.
    assert_eq!(
        cuts.iter().map(|cut| sizes(*cut)).collect::<Vec<Result<usize, bool>>>(),
        [Err(true), Err(true), Ok(3), Ok(2), Ok(1)]
    );
    assert_eq!(sizes(Offset(5)), Err(true), "between cuts there is no answer");
    running.stop().await;
    assert_eq!(durable.catalogue_blocks().await, 5);
}

#[tokio::test]
async fn a_cut_is_due_by_age() {
    let durable = durable();
    let running = durable.open().await;
    running.write(&profile(1, START_NS)).await.unwrap();
    durable.clock.advance(durable.config.flush_interval.0 - Duration::from_secs(1));
    tokio::task::yield_now().await;
    assert_eq!(running.view().await.blocks.len(), 0);
    durable.clock.advance(Duration::from_secs(1));
    until("a block by age", async || running.view().await.blocks.len() == 1).await;
}

#[tokio::test]
async fn a_cut_is_due_by_size() {
    let mut durable = durable();
    durable.config.flush_bytes = ByteSize(1);
    let running = durable.open().await;
    running.write(&profile(1, START_NS)).await.unwrap();
    until("a block by size", async || running.view().await.blocks.len() == 1).await;
}

#[tokio::test]
async fn full_heads_refuse_and_a_flush_makes_room() {
    let mut durable = durable();
    durable.config.head_bytes_max = ByteSize(1);
    let running = durable.open().await;
    running.write(&profile(1, START_NS)).await.unwrap();
    assert!(matches!(running.write(&profile(2, START_NS)).await, Err(Error::HeadFull { .. })));
    running.handle.flush().await.unwrap();
    running.write(&profile(2, START_NS)).await.unwrap();
    assert_eq!(running.times(&durable.store).await.len(), 2);
}

#[tokio::test]
async fn retries_alone_are_committed_without_a_block() {
    let durable = durable();
    let running = durable.open().await;
    running.write(&profile(1, START_NS)).await.unwrap();
    running.handle.flush().await.unwrap();
    assert_eq!(running.write(&profile(1, START_NS)).await.unwrap().duplicates, 1);
    running.handle.flush().await.unwrap();
    assert_eq!(running.view().await.blocks.len(), 1);
    assert_eq!(running.times(&durable.store).await, [START_NS]);
}
