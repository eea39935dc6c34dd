use std::sync::Arc;

use cambium_model::block::LogRange;
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_model::time::TimeRange;
use cambium_runtime::clock::MockClock;

use super::*;
use crate::catalogue::FlushCommit;
use crate::kv::memory::MemoryStore;
use crate::kv::testing::{Fault, FaultyStore};
use crate::owners::{OWNER_TIMEOUT, Owners};

const PARTITION: Partition = Partition(3);

fn flush(log: LogId, offsets: std::ops::Range<u64>, epoch: u64) -> FlushCommit {
    let range = LogRange { log, first: Offset(offsets.start), next: Offset(offsets.end) };
    FlushCommit { range, epoch, block: None, tenure: None }
}

fn store() -> (FaultyStore, Catalogue) {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let catalogue = Catalogue::new(Arc::new(store.clone()));
    (store, catalogue)
}

#[tokio::test]
async fn every_tenure_begins_a_log_of_its_own() {
    let (store, catalogue) = store();
    catalogue.open_log(LogId { partition: Partition(4), log: 9 }, "other").await.unwrap();
    let mut numbers = Vec::new();
    for fault in [Fault::Pass, Fault::UndeterminedLost, Fault::UndeterminedCommitted] {
        store.inject([fault]);
        let log = catalogue.begin_log(PARTITION, "a").await.unwrap();
        numbers.push(log.log);
        catalogue.commit_flush(&flush(log, 0..2, 1)).await.expect("its first epoch is 1");
    }
    assert_eq!(numbers, [1, 2, 4], "a number whose beginning nobody knows is not given again");
    catalogue.seal_log(LogId { partition: PARTITION, log: 4 }, 1, Offset(2)).await.unwrap();
    assert_eq!(catalogue.begin_log(PARTITION, "a").await.unwrap().log, 5);
}

#[tokio::test]
async fn a_sealed_log_is_open_to_nobody() {
    let (store, catalogue) = store();
    let log = catalogue.begin_log(PARTITION, "a").await.unwrap();
    catalogue.commit_flush(&flush(log, 0..7, 1)).await.unwrap();
    let open = OpenLog { log, next: Offset(7), holder: "a".to_owned() };
    assert_eq!(catalogue.open_logs().await.unwrap(), [open]);
    let early = catalogue.seal_log(log, 1, Offset(8)).await.unwrap_err();
    assert!(matches!(early, Error::OutOfOrder { .. }), "{early}");
    let zombie = catalogue.seal_log(log, 0, Offset(7)).await.unwrap_err();
    assert!(matches!(zombie, Error::Fenced { .. }), "{zombie}");
    for fault in [Fault::UndeterminedLost, Fault::UndeterminedCommitted, Fault::Pass] {
        store.inject([fault]);
        catalogue.seal_log(log, 1, Offset(7)).await.unwrap();
    }
    assert!(matches!(catalogue.open_log(log, "b").await, Err(Error::Sealed { .. })));
    assert!(matches!(catalogue.commit_flush(&flush(log, 7..8, 1)).await, Err(Error::Fenced { .. })));
    let tenant = Tenant { id: TenantId::new("t").unwrap(), number: TenantNumber(1) };
    assert_eq!(catalogue.view(&tenant, TimeRange::ALL).await.unwrap().logs, []);
}

#[tokio::test]
async fn what_is_given_up_cannot_come_back() {
    let (_, catalogue) = store();
    let log = catalogue.begin_log(PARTITION, "lost").await.unwrap();
    catalogue.forget_log(log).await.unwrap();
    assert!(matches!(catalogue.commit_flush(&flush(log, 0..1, 1)).await, Err(Error::Fenced { .. })));
    assert!(matches!(catalogue.open_log(log, "lost").await, Err(Error::Sealed { .. })));
    let unknown = LogId { partition: PARTITION, log: 77 };
    assert!(matches!(catalogue.forget_log(unknown).await, Err(Error::UnknownLog { .. })));
}

#[tokio::test]
async fn whoever_lost_the_partition_flushes_nothing() {
    let (store, catalogue) = store();
    let clock = MockClock::at(0);
    let owners = |name| Owners::new(Arc::new(store.clone()), Arc::new(clock.clone()), name);
    let (a, b) = (owners("a"), owners("b"));
    let log = catalogue.begin_log(PARTITION, "a").await.unwrap();
    let tenure = a.acquire(PARTITION).await.unwrap();
    let under =
        |tenure: &Option<_>, offsets| FlushCommit { tenure: tenure.clone(), ..flush(log, offsets, 1) };
    catalogue.commit_flush(&under(&tenure, 0..1)).await.unwrap();
    assert!(a.renew(tenure.as_ref().unwrap()).await.unwrap());
    catalogue.commit_flush(&under(&tenure, 1..2)).await.expect("a beat changes no tenure");

    assert_eq!(b.acquire(PARTITION).await.unwrap(), None);
    clock.advance(OWNER_TIMEOUT);
    let taken = b.acquire(PARTITION).await.unwrap();
    let zombie = catalogue.commit_flush(&under(&tenure, 2..3)).await.unwrap_err();
    assert!(matches!(zombie, Error::LeaseLost { .. }), "{zombie}");
    catalogue.commit_flush(&under(&tenure, 1..2)).await.expect("what was committed stays committed");
    catalogue
        .commit_flush(&under(&taken, 2..3))
        .await
        .expect("under the tenure of the owner it is asked for");
}
