use cambium_runtime::clock::MockClock;

use super::*;
use crate::kv::memory::MemoryStore;
use crate::kv::testing::{Fault, FaultyStore};

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn grant(tenants: &[&str]) -> Grant {
    let scope = Scope::Tenants(tenants.iter().map(|name| tenant(name)).collect());
    Grant { name: "ci".to_owned(), scope, access: vec![Access::Write] }
}

fn fixture() -> (FaultyStore, MockClock, Tokens) {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()));
    let clock = MockClock::at(5);
    let tokens = Tokens::new(Arc::new(store.clone()), Arc::new(clock.clone()));
    (store, clock, tokens)
}

#[tokio::test]
async fn a_token_is_found_by_the_hash_of_its_text_only() {
    let (store, _, tokens) = fixture();
    let all = Grant { name: String::new(), scope: Scope::All, access: vec![Access::Admin, Access::Read] };
    let (text, created) = tokens.create([7; 32], all.clone()).await.unwrap();
    assert_eq!(text, format!("cambium_{}", "07".repeat(32)));
    let (_, of_two) = tokens.create([8; 32], grant(&["a", "b"])).await.unwrap();
    let found = tokens.lookup(TokenHash::of(&text)).await.unwrap().unwrap();
    assert_eq!((*found).clone(), created);
    assert_eq!((&found.grant, found.created_ns), (&all, 5));
    assert_eq!(tokens.lookup(TokenHash::of("cambium_guess")).await.unwrap(), None);

    let mut both = vec![created, of_two];
    both.sort_by_key(|token| token.hash);
    assert_eq!(tokens.list().await.unwrap(), both);
    let entries = kv::scan_all(&*store.snapshot().await.unwrap(), keys::tokens()).await.unwrap();
    let secret = [7; 32];
    assert!(entries.iter().all(|(_, value)| !value.windows(32).any(|bytes| bytes == secret)));
}

#[test]
fn a_scope_opens_what_it_names() {
    let cases = [
        (Scope::All, "a", true),
        (grant(&["a", "b"]).scope, "b", true),
        (grant(&["a", "b"]).scope, "c", false),
        (grant(&[]).scope, "a", false),
    ];
    for (scope, name, allowed) in cases {
        assert_eq!(scope.allows(&tenant(name)), allowed, "{scope:?} {name}");
    }
}

#[tokio::test]
async fn a_tenant_called_star_cannot_become_everybody() {
    let (_, _, tokens) = fixture();
    let error = tokens.create([1; 32], grant(&["*"])).await.unwrap_err();
    assert!(matches!(error, Error::StarTenant));
    assert_eq!(error.kind(), error::Kind::Invalid);
    let (_, none) = tokens.create([2; 32], grant(&[])).await.unwrap();
    let found = tokens.lookup(none.hash).await.unwrap().unwrap();
    assert!(!found.grant.scope.allows(&tenant("a")), "an empty set stays empty");
}

#[tokio::test]
async fn a_revoked_token_stops_working() {
    let (store, clock, tokens) = fixture();
    let other_node = Tokens::new(Arc::new(store.clone()), Arc::new(clock.clone()));
    let (_, token) = tokens.create([7; 32], grant(&["a"])).await.unwrap();
    assert!(other_node.lookup(token.hash).await.unwrap().is_some());
    tokens.revoke(token.hash).await.unwrap();
    assert_eq!(tokens.lookup(token.hash).await.unwrap(), None);
    assert!(other_node.lookup(token.hash).await.unwrap().is_some(), "for ten seconds at most");
    clock.advance(TOKEN_CACHE_TTL);
    assert_eq!(other_node.lookup(token.hash).await.unwrap(), None);
    let error = tokens.revoke(token.hash).await.unwrap_err();
    assert_eq!(error.to_string(), format!("there is no token {}", token.hash));
}

#[tokio::test]
async fn undetermined_commits_are_decided_by_reading() {
    for fault in [Fault::UndeterminedCommitted, Fault::UndeterminedLost] {
        let (store, _, tokens) = fixture();
        store.inject([fault]);
        let (_, token) = tokens.create([7; 32], grant(&["a"])).await.unwrap();
        assert!(tokens.lookup(token.hash).await.unwrap().is_some());
        store.inject([fault]);
        tokens.revoke(token.hash).await.unwrap();
        assert_eq!(tokens.lookup(token.hash).await.unwrap(), None);
    }
}
