use std::collections::HashSet;

use cambium_runtime::clock::MockClock;
use futures::future::join_all;

use super::*;
use crate::kv::memory::MemoryStore;
use crate::kv::testing::{Fault, FaultyStore};

fn id(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// A node's view of the tenants in `store`.
fn tenants(store: &FaultyStore) -> Tenants {
    Tenants::new(Arc::new(store.clone()), Arc::new(MockClock::at(1_000)))
}

fn store() -> FaultyStore {
    FaultyStore::new(Arc::new(MemoryStore::new()))
}

#[tokio::test]
async fn a_tenant_exists_from_its_first_write() {
    let store = store();
    let node = tenants(&store);
    assert_eq!(node.resolve(&id("a")).await.unwrap(), None);
    let a = node.resolve_or_create(&id("a")).await.unwrap();
    assert_eq!((a.id.as_str(), a.number), ("a", TenantNumber(1)), "0 is no tenant's");
    let b = node.resolve_or_create(&id("b")).await.unwrap();
    assert_eq!(b.number, TenantNumber(2));

    let other_node = tenants(&store);
    assert_eq!(other_node.resolve(&id("a")).await.unwrap(), Some(a.clone()));
    assert_eq!(other_node.resolve_or_create(&id("b")).await.unwrap(), b);
    assert_eq!(other_node.list().await.unwrap(), [a, b]);
    let name = store.snapshot().await.unwrap().get(&keys::tenant_name(TenantNumber(2))).await.unwrap();
    assert_eq!(name.as_deref(), Some(&b"b"[..]));
}

#[tokio::test]
async fn a_known_tenant_needs_no_store() {
    let store = store();
    let node = tenants(&store);
    let a = node.resolve_or_create(&id("a")).await.unwrap();
    store.set_down(true);
    assert_eq!(node.resolve_or_create(&id("a")).await.unwrap(), a);
    let error = node.resolve(&id("b")).await.unwrap_err();
    assert_eq!(cambium_runtime::error::HasKind::kind(&error), cambium_runtime::error::Kind::Unavailable);
}

#[tokio::test]
async fn racing_nodes_agree_and_no_number_is_given_twice() {
    let store = store();
    let nodes: Vec<Tenants> = (0..4).map(|_| tenants(&store)).collect();
    let names: Vec<TenantId> = (0..50).map(|n| id(&format!("t{n}"))).collect();
    let create_all = |node| {
        let creations = names.iter().map(move |name| Tenants::resolve_or_create(node, name));
        async { join_all(creations).await.into_iter().map(Result::unwrap).collect::<Vec<_>>() }
    };
    let created = join_all(nodes.iter().map(create_all)).await;
    assert!(created.iter().all(|tenants| *tenants == created[0]));
    let numbers: HashSet<TenantNumber> = created[0].iter().map(|tenant| tenant.number).collect();
    assert_eq!(numbers, (1..=50).map(TenantNumber).collect(), "each number once, none skipped");
}

#[tokio::test]
async fn an_undetermined_creation_is_decided_by_reading() {
    for fault in [Fault::UndeterminedCommitted, Fault::UndeterminedLost] {
        let store = store();
        store.inject([fault]);
        let node = tenants(&store);
        assert_eq!(node.resolve_or_create(&id("a")).await.unwrap().number, TenantNumber(1), "{fault:?}");
        assert_eq!(node.resolve_or_create(&id("b")).await.unwrap().number, TenantNumber(2), "{fault:?}");
    }
}

#[tokio::test]
async fn a_corrupt_record_is_named() {
    let store = store();
    store.commit(Txn::new().put(keys::tenant(&id("a")), "\u{1}")).await.unwrap();
    store.commit(Txn::new().put(keys::next_tenant_number(), "xyz")).await.unwrap();
    let node = tenants(&store);
    assert_eq!(node.resolve(&id("a")).await.unwrap_err().to_string(), "the stored tenant is corrupt");
    let error = node.resolve_or_create(&id("b")).await.unwrap_err();
    assert_eq!(error.to_string(), "the stored next tenant number is corrupt");
}

#[tokio::test]
async fn a_deleted_tenant_leaves_its_number_and_nothing_else() {
    for fault in [Fault::Pass, Fault::UndeterminedCommitted, Fault::UndeterminedLost] {
        let store = store();
        let node = tenants(&store);
        let (a, b) = (
            node.resolve_or_create(&id("a")).await.unwrap(),
            node.resolve_or_create(&id("b")).await.unwrap(),
        );
        let deletion = |tenant: &Tenant| keys::deletion(tenant.number, 1);
        let both = Txn::new().put(deletion(&a), vec![1]).put(deletion(&b), vec![1]);
        store.commit(both).await.unwrap();
        store.inject([fault]);
        node.retire(&a.id).await.unwrap();
        assert_eq!(node.resolve(&a.id).await.unwrap(), None, "{fault:?}");
        node.retire(&a.id).await.unwrap();
        let mut retired = Retired { tenant: a.clone(), retired_ns: 1_000, erased: false };
        assert_eq!(node.retired().await.unwrap(), [retired.clone()]);
        let again = node.resolve_or_create(&a.id).await.unwrap();
        assert_eq!(again.number, TenantNumber(3), "a number is given once");
        node.erase(a.number).await.unwrap();
        retired.erased = true;
        assert_eq!(node.retired().await.unwrap(), [retired]);
        let left = store.snapshot().await.unwrap().batch_get(&[deletion(&a), deletion(&b)]).await.unwrap();
        assert_eq!((left[0].is_some(), left[1].is_some()), (false, true));
    }
}
