use cambium_runtime::clock::MockClock;

use super::*;
use crate::kv::memory::MemoryStore;
use crate::kv::testing::{Fault, FaultyStore};

struct Node {
    clock: Arc<MockClock>,
    leases: Leases,
}

fn node(store: &FaultyStore, holder: &str) -> Node {
    let clock = Arc::new(MockClock::at(0));
    let leases = Leases::new(Arc::new(store.clone()), Arc::clone(&clock) as Arc<dyn Clock>, holder);
    Node { clock, leases }
}

fn store() -> FaultyStore {
    FaultyStore::new(Arc::new(MemoryStore::new()))
}

#[tokio::test]
async fn a_job_has_one_holder() {
    let store = store();
    let (a, b) = (node(&store, "a"), node(&store, "b"));
    let lease = a.leases.acquire("x").await.unwrap().unwrap();
    assert_eq!(b.leases.acquire("x").await.unwrap(), None);
    let other = b.leases.acquire("y").await.unwrap().expect("another job");
    assert!(other.fence > lease.fence, "fences are given once, whatever the job");
    assert!(a.leases.release(&lease).await.unwrap());
    assert!(!a.leases.release(&lease).await.unwrap(), "it was given up");
    let taken = b.leases.acquire("x").await.unwrap().unwrap();
    assert!(!a.leases.renew(&lease).await.unwrap());
    assert!(taken.fence > other.fence);
}

#[tokio::test]
async fn a_record_that_stands_still_is_nobodys() {
    let store = store();
    let (a, b) = (node(&store, "a"), node(&store, "b"));
    let lease = a.leases.acquire("x").await.unwrap().unwrap();
    for _ in 0..3 {
        assert_eq!(b.leases.acquire("x").await.unwrap(), None);
        b.clock.advance(LEASE_TIMEOUT - Duration::from_secs(1));
        assert!(a.leases.renew(&lease).await.unwrap(), "the holder lives");
    }
    assert_eq!(b.leases.acquire("x").await.unwrap(), None, "first seen as it is now");
    b.clock.advance(LEASE_TIMEOUT);
    let taken = b.leases.acquire("x").await.unwrap().unwrap();
    assert!(!a.leases.renew(&lease).await.unwrap());
    assert!(!a.leases.release(&lease).await.unwrap(), "not ours to give up");
    assert!(b.leases.renew(&taken).await.unwrap());
}

#[tokio::test]
async fn a_node_takes_back_what_an_earlier_life_of_it_held() {
    let store = store();
    let before = node(&store, "a").leases.acquire("x").await.unwrap().unwrap();
    let again = node(&store, "a");
    let after = again.leases.acquire("x").await.unwrap().unwrap();
    assert!(after.fence > before.fence);
    assert!(!again.leases.renew(&before).await.unwrap());
}

#[tokio::test]
async fn undetermined_commits_lose_no_lease() {
    for fault in [Fault::UndeterminedCommitted, Fault::UndeterminedLost] {
        let store = store();
        let a = node(&store, "a");
        store.inject([fault]);
        // After a commit that may have happened the record is not what was read: the next look finds it.
        let lease = match a.leases.acquire("x").await.unwrap() {
            Some(lease) => lease,
            None => a.leases.acquire("x").await.unwrap().expect("our own record"),
        };
        store.inject([fault]);
        assert!(a.leases.renew(&lease).await.unwrap(), "{fault:?}");
        store.inject([fault]);
        a.leases.release(&lease).await.unwrap();
        assert!(node(&store, "b").leases.acquire("x").await.unwrap().is_some(), "{fault:?}");
    }
}
