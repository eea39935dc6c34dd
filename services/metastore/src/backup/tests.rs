use std::sync::Arc;

use cambium_model::deletion::Deletion;
use cambium_model::stacktrace::LocationId;
use cambium_model::symbols::Location;
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_model::time::TimeRange;
use cambium_runtime::clock::MockClock;
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tenancy::Access;

use super::*;
use crate::catalogue::{Rebuilt, RebuiltTenant};
use crate::kv::memory::MemoryStore;
use crate::tokens::{Grant, Scope, Tokens};
use crate::{Catalogue, Symbols, Tenants};

const NOW_NS: i64 = 1_700_000_000_000_000_000;

#[derive(Clone, Debug)]
struct World {
    store: Arc<MemoryStore>,
}

impl World {
    fn empty() -> Self {
        Self { store: Arc::new(MemoryStore::new()) }
    }

    fn kv(&self) -> Arc<dyn KvStore> {
        Arc::<MemoryStore>::clone(&self.store)
    }

    fn tenants(&self) -> Tenants {
        Tenants::new(self.kv(), Arc::new(MockClock::at(NOW_NS)))
    }

    fn tokens(&self) -> Tokens {
        Tokens::new(self.kv(), Arc::new(MockClock::at(NOW_NS)))
    }

    fn symbols(&self) -> Symbols {
        Symbols::new(self.kv(), Arc::new(MockClock::at(NOW_NS)), &Default::default(), &Metrics::new())
    }

    fn catalogue(&self) -> Catalogue {
        Catalogue::new(self.kv())
    }

    /// Two tenants, the first of which was deleted and has a successor, a token, deletions and a name.
    async fn full() -> Self {
        let world = Self::empty();
        let (tenants, catalogue) = (world.tenants(), world.catalogue());
        catalogue.fix_partition_count(4).await.unwrap();
        for name in ["red", "blue"] {
            tenants.resolve_or_create(&id(name)).await.unwrap();
        }
        tenants.retire(&id("red")).await.unwrap();
        tenants.resolve_or_create(&id("red")).await.unwrap();
        world.tokens().create([7; 32], grant("ours")).await.unwrap();
        for pod in ["a", "b"] {
            catalogue.delete(TenantNumber(2), &deletion(pod), NOW_NS).await.unwrap();
        }
        catalogue.forget_deletion(TenantNumber(2), 2).await.unwrap();
        let names = [(LocationId::named(1, 2), Location::default())];
        world.symbols().write_missing(TenantNumber(2), &names).await.unwrap();
        world
    }

    async fn backup(&self, symbols: bool) -> Vec<u8> {
        let header = Header { created_ns: NOW_NS, symbols, overrides: "tenants: {}".to_owned() };
        let mut file = Vec::new();
        write(&*self.store, &header, &mut file).await.unwrap();
        assert_eq!(check(&mut &*file).unwrap(), header);
        file
    }

    async fn restore(&self, file: &[u8], overwrite: Overwrite) -> Result<(Header, Counts), Error> {
        restore(&*self.store, || Ok(file), overwrite, NOW_NS).await
    }

    /// Everything that a backup should bring back, but for names.
    async fn seen(&self) -> String {
        let tenants = self.tenants();
        let next = tenants.resolve_or_create(&id("next")).await.unwrap();
        let catalogue = self.catalogue();
        let number = catalogue.delete(TenantNumber(2), &deletion("new"), NOW_NS).await.unwrap();
        let everything = catalogue.all().await.unwrap();
        format!(
            "{:?}\n{:?}\n{:?}\n{next:?} {number}\n{:?}\n{:?}",
            tenants.list().await.unwrap(),
            tenants.retired().await.unwrap(),
            self.tokens().list().await.unwrap(),
            everything.deletions,
            catalogue.partition_count().await.unwrap(),
        )
    }

    async fn knows_name(&self) -> bool {
        let resolved = self.symbols().resolve(TenantNumber(2), &[LocationId::named(1, 2)]).await.unwrap();
        resolved.locations[0].is_some()
    }
}

fn id(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn grant(name: &str) -> Grant {
    Grant { name: name.to_owned(), scope: Scope::All, access: vec![Access::Read] }
}

fn deletion(pod: &str) -> Deletion {
    let selector = format!(r#"{{pod="{pod}"}}"#).parse().unwrap();
    Deletion { selector, range: TimeRange::new(0, NOW_NS) }
}

/// What the bucket says where there are blocks of all three numbers.
fn rebuilt() -> Rebuilt {
    let seen = [(1, "red"), (2, "blue"), (3, "red")].map(|(number, name)| RebuiltTenant {
        tenant: Tenant { id: id(name), number: TenantNumber(number) },
        first_ns: NOW_NS + 1,
    });
    let last_deletions = [(TenantNumber(2), 1)].into();
    Rebuilt { tenants: seen.to_vec(), last_deletions, fence: 9, ..Rebuilt::default() }
}

#[tokio::test]
async fn what_was_backed_up_comes_back() {
    let (full, empty) = (World::full().await, World::empty());
    let file = full.backup(true).await;
    empty.restore(&file, Overwrite::Refuse).await.unwrap();
    assert!(empty.knows_name().await);
    let once = empty.backup(true).await;
    empty.restore(&file, Overwrite::Refuse).await.unwrap();
    assert_eq!(empty.backup(true).await, once, "a second time changes nothing");
    assert_eq!(empty.seen().await, full.seen().await);
}

#[tokio::test]
async fn names_are_in_it_only_where_asked_for() {
    let (full, empty) = (World::full().await, World::empty());
    empty.restore(&full.backup(false).await, Overwrite::Refuse).await.unwrap();
    assert!(!empty.knows_name().await);
    assert_eq!(empty.seen().await, full.seen().await);
}

#[tokio::test]
async fn a_rebuild_may_come_before_or_after() {
    let full = World::full().await;
    let file = full.backup(false).await;
    let (before, after) = (World::empty(), World::empty());
    before.catalogue().rebuild(&rebuilt(), 4, NOW_NS + 2).await.unwrap();
    before.restore(&file, Overwrite::Refuse).await.unwrap();
    after.restore(&file, Overwrite::Refuse).await.unwrap();
    after.catalogue().rebuild(&rebuilt(), 4, NOW_NS + 2).await.unwrap();
    let expected = full.seen().await;
    assert_eq!(after.seen().await, expected, "restored, then rebuilt");
    // Only when the first of the two tenants of one name went is known from the backup alone.
    assert_eq!(before.seen().await.replace(&(NOW_NS + 2).to_string(), &NOW_NS.to_string()), expected);
}

#[tokio::test]
async fn what_differs_is_not_overwritten_unasked() {
    let (full, other) = (World::full().await, World::empty());
    let file = full.backup(false).await;
    other.tokens().create([7; 32], grant("theirs")).await.unwrap();
    other.tokens().create([8; 32], grant("more")).await.unwrap();
    let error = other.restore(&file, Overwrite::Refuse).await.unwrap_err();
    assert!(matches!(error, Error::Differs { entries: 1 }), "{error}");
    assert_eq!(other.tenants().list().await.unwrap(), [], "nothing was written");
    other.restore(&file, Overwrite::Replace).await.unwrap();
    let mut names: Vec<String> =
        other.tokens().list().await.unwrap().into_iter().map(|token| token.grant.name).collect();
    names.sort();
    assert_eq!(names, ["more", "ours"]);
    let elsewhere = World::empty();
    elsewhere.catalogue().fix_partition_count(8).await.unwrap();
    let error = elsewhere.restore(&file, Overwrite::Replace).await.unwrap_err();
    assert!(matches!(error, Error::Partitions { held: 8, backed_up: 4 }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_whole_changes_nothing() {
    let file = World::full().await.backup(true).await;
    for cut in 0..file.len() {
        let world = World::empty();
        let error = world.restore(&file[..cut], Overwrite::Refuse).await.unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{cut}: {error}");
    }
    for place in 0..file.len() {
        let mut spoilt = file.clone();
        spoilt[place] ^= 1;
        let world = World::empty();
        assert!(world.restore(&spoilt, Overwrite::Refuse).await.is_err(), "{place}");
        assert_eq!(world.tokens().list().await.unwrap(), []);
    }
}
