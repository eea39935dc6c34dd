//! Restarts: on a log that loses what was not synced, and after records are lost.

use std::sync::Arc;

use cambium_blocks::local::DurableLocal;
use cambium_ingester::Error;
use cambium_ingestlog::MemoryLog;
use cambium_ingestlog::testing::FaultyDisk;
use cambium_model::block::Offset;
use object_store::memory::InMemory;

use crate::sandbox::{Durable, LOG, START_NS, open_log, profile};

#[tokio::test]
async fn what_was_acked_is_replayed_after_a_kill() {
    let durable = Durable::new(Arc::new(MemoryLog::new(LOG)), Arc::new(InMemory::new()));
    let running = durable.open().await;
    for number in 0..3 {
        running.write(&profile(number, START_NS + i64::from(number))).await.unwrap();
    }
    running.handle.flush().await.unwrap();
    running.write(&profile(3, START_NS + 3)).await.unwrap();
    running.kill();
    let running = durable.open().await;
    assert_eq!(running.times(&durable.store).await, [0, 1, 2, 3].map(|n| START_NS + n));
    assert_eq!(running.heads_from(Offset(3)).unwrap().len(), 1);
}

#[tokio::test]
async fn a_power_loss_takes_nothing_that_was_acked() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(DurableLocal::open(folder.path()).unwrap());
    let disk = Arc::new(FaultyDisk::new(7));
    let mut durable = Durable::new(open_log(&disk).await, store);
    for round in 0..4_u32 {
        let running = durable.open().await;
        let before = running.times(&durable.store).await.len();
        assert_eq!(before, 5 * round as usize);
        for number in 0..5 {
            let unique = round * 5 + number;
            running.write(&profile(unique, START_NS + i64::from(unique))).await.unwrap();
            if unique % 3 == round % 3 {
                running.handle.flush().await.unwrap();
            }
        }
        running.kill();
        durable.log.close().await;
        disk.power_loss();
        durable.log = open_log(&disk).await;
    }
    assert_eq!(durable.open().await.times(&durable.store).await.len(), 20);
}

#[tokio::test]
async fn a_log_that_begins_after_the_blocks_end_is_an_error() {
    let durable = Durable::new(Arc::new(MemoryLog::new(LOG)), Arc::new(InMemory::new()));
    let running = durable.open().await;
    for number in 0..3 {
        running.write(&profile(number, START_NS)).await.unwrap();
    }
    running.kill();
    durable.log.truncate(Offset(2)).await.unwrap();
    let error = durable.try_open().await.err().expect("records are missing");
    assert!(matches!(error, Error::LogBehind { .. }), "{error}");
}
