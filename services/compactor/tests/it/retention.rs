//! Nothing is kept for longer than its tenant wants.

use std::collections::BTreeSet;
use std::sync::Arc;

use cambium_compactor::rebuild::read_bucket;
use cambium_metastore::{KvStore, Symbols, symbols};
use cambium_model::block::DatasetMeta;
use cambium_model::limits::{Overrides, TenantLimits};
use cambium_model::retention::{RetentionRule, RetentionRules};
use cambium_model::stacktrace::LocationId;
use cambium_model::symbols::Location;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;

use crate::world::World;

const DAY: u64 = 1_440;

#[tokio::test]
async fn what_is_too_old_goes_and_its_objects_after_a_grace() {
    let days = |count: u64| TenantLimits { retention_secs: count * 86_400, ..TenantLimits::default() };
    let mut world = World::new(days(2)).await;
    let tenants = [("tenant-2".to_owned(), days(4)), ("tenant-3".to_owned(), days(0))].into();
    world.limits.send_replace(Arc::new(Overrides { defaults: days(2), tenants }));
    let mut compactor = world.compactor("a");
    world.minutes(30);
    world.flush(1, &[1]).await;
    world.minutes(30);
    compactor.work().await.unwrap();
    world.flush(2, &[1, 2]).await;
    world.minutes(2 * DAY - 60);
    while compactor.work().await.unwrap() > 0 {}
    world.check().await;
    world.minutes(DAY);
    while compactor.work().await.unwrap() > 0 {}
    let (one, two) = (world.blocks(1).await, world.blocks(2).await);
    assert_eq!((one.len(), two.len()), (0, 1), "a tenant that is kept for longer shares no block with it");
    world.minutes(2 * DAY);
    while compactor.work().await.unwrap() > 0 {}
    assert_eq!((world.blocks(1).await.len(), world.blocks(2).await.len()), (0, 0));
    world.minutes(16);
    compactor.work().await.unwrap();
    assert_eq!(world.objects().await, 0);
}

#[tokio::test]
async fn a_merge_leaves_out_what_is_too_old() {
    let mut world = World::new(TenantLimits { retention_secs: 3 * 3_600, ..TenantLimits::default() }).await;
    let long = TenantLimits { retention_secs: 0, ..TenantLimits::default() };
    let defaults = world.limits.borrow().defaults.clone();
    let tenants = [("tenant-2".to_owned(), long)].into();
    world.limits.send_replace(Arc::new(Overrides { defaults, tenants }));
    let mut compactor = world.compactor("a");
    world.minutes(30);
    world.flush(1, &[1, 2]).await;
    world.minutes(5 * 60);
    compactor.work().await.unwrap();
    assert_eq!((world.blocks(1).await.len(), world.blocks(2).await.len()), (0, 1));
    world.pushed.remove(&1);
    world.check().await;
}

#[tokio::test]
async fn series_under_a_rule_go_when_it_says_and_their_objects_with_them() {
    let rule = |selector: &str, days: u64| RetentionRule {
        selector: selector.parse().unwrap(),
        retention_secs: days * 86_400,
    };
    let rules = vec![rule(r#"{service_name="service-0"}"#, 2), rule(r#"{service_name=~"service-[01]"}"#, 8)];
    let retention_rules: RetentionRules = rules.try_into().unwrap();
    let days = |count: u64| TenantLimits { retention_secs: count * 86_400, ..TenantLimits::default() };
    let mut world = World::new(TenantLimits { retention_rules, ..days(4) }).await;
    let mut compactor = world.compactor("a");
    let forget = |world: &mut World, service: &str| {
        for profiles in world.pushed.values_mut() {
            profiles.retain(|profile| profile.labels.get("service_name") != Some(service));
        }
    };
    world.minutes(30);
    world.flush(1, &[1, 2]).await;
    world.minutes(30);
    world.flush(2, &[1, 2]).await;
    world.minutes(DAY + 60);
    while compactor.work().await.unwrap() > 0 {}
    world.check().await;
    world.check_rebuilt().await;
    let all = ["", r#"{service_name="service-0"}"#, r#"{service_name=~"service-[01]"}"#];
    assert_eq!(classes(&world).await, all.map(str::to_owned).into());
    for (after, service, left) in
        [(DAY + 60, "service-0", [all[0], all[2]].as_slice()), (2 * DAY, "service-2", &all[2..])]
    {
        world.minutes(after);
        while compactor.work().await.unwrap() > 0 {}
        world.minutes(16);
        compactor.work().await.unwrap();
        let left: BTreeSet<String> = left.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(classes(&world).await, left, "without {service}");
        forget(&mut world, service);
        if service == "service-2" {
            forget_unnamed(&mut world);
        }
        world.check().await;
        world.check_rebuilt().await;
    }
    // A rule that is gone leaves its series to the tenant's own retention.
    world.limits.send_replace(Arc::new(Overrides { defaults: days(4), ..Overrides::default() }));
    compactor.work().await.unwrap();
    assert_eq!(world.blocks(1).await.len(), 0);
}

#[tokio::test]
async fn samples_are_dropped_and_sums_stay() {
    let mut world = World::new(TenantLimits { retention_secs: 0, ..TenantLimits::default() }).await;
    let mut compactor = world.compactor("a");
    world.minutes(30);
    world.flush(1, &[1, 2]).await;
    world.minutes(2 * DAY);
    while compactor.work().await.unwrap() > 0 {}
    let whole: u64 = world.blocks(1).await.iter().map(|block| block.size_bytes).sum();
    world.change_limits(|limits| limits.downsample_after_secs = 3 * 86_400);
    assert_eq!(compactor.work().await.unwrap(), 0, "not yet");
    world.minutes(DAY);
    assert!(compactor.work().await.unwrap() > 0);
    assert_eq!(compactor.work().await.unwrap(), 0, "once");
    let blocks = world.blocks(1).await;
    assert!(blocks.iter().flat_map(|block| &block.datasets).all(DatasetMeta::is_downsampled));
    let left: u64 = blocks.iter().map(|block| block.size_bytes).sum();
    assert!(left != whole);
    world.check().await;
    world.check_rebuilt().await;
    // Deletions and late profiles still find their way.
    world.delete(1, r#"{service_name="service-1"}"#).await;
    world.check().await;
    while compactor.work().await.unwrap() > 0 {}
    world.check().await;
    world.check_erased(&world.catalogue.all().await.unwrap().merged).await;
}

/// The classes of the objects in the bucket.
async fn classes(world: &World) -> BTreeSet<String> {
    let contents = read_bucket(&world.store).await.unwrap();
    let datasets = contents.blocks.iter().flat_map(|block| &block.datasets);
    datasets.filter_map(|dataset| dataset.retention_selector.clone()).collect()
}

/// Those that no rule of the test above is for.
fn forget_unnamed(world: &mut World) {
    for profiles in world.pushed.values_mut() {
        profiles.retain(|profile| profile.labels.get("service_name").is_some());
    }
}

#[tokio::test]
async fn a_deleted_tenant_is_erased_and_its_neighbours_stay() {
    let mut world = World::new(TenantLimits { retention_secs: 0, ..TenantLimits::default() }).await;
    let tenants = world.tenants();
    for number in [1, 2] {
        let created = tenants.resolve_or_create(&cambium_blocks::testing::tenant(number).id).await.unwrap();
        assert_eq!(created.number.0, number);
    }
    let mut compactor = world.compactor("a");
    world.minutes(30);
    world.flush(1, &[1, 2]).await;
    world.minutes(2 * DAY);
    while compactor.work().await.unwrap() > 0 {}
    world.flush(2, &[1]).await;
    world.check().await;
    let deleted = cambium_blocks::testing::tenant(1);
    tenants.retire(&deleted.id).await.unwrap();
    assert_eq!(world.blocks(1).await.len(), 0, "out of sight");
    world.minutes(50);
    while compactor.work().await.unwrap() > 0 {}
    let blocks = world.blocks(2).await;
    assert!(blocks.iter().all(|block| block.dataset(&deleted).is_none()), "out of the blocks it shared");
    assert!(!tenants.retired().await.unwrap()[0].erased, "heads may still have something");
    world.minutes(20);
    compactor.work().await.unwrap();
    compactor.work().await.unwrap();
    assert!(tenants.retired().await.unwrap()[0].erased);
    world.pushed.remove(&1);
    world.check().await;
    assert_eq!(world.objects().await, 1, "what the other has");
}

#[tokio::test]
async fn names_outlive_what_they_name_by_thirty_days() {
    let days = |count: u64| TenantLimits { retention_secs: count * 86_400, ..TenantLimits::default() };
    let world = World::new(days(10)).await;
    let tenants = [("tenant-2".to_owned(), days(0))].into();
    world.limits.send_replace(Arc::new(Overrides { defaults: days(10), tenants }));
    let clock: Arc<dyn Clock> = Arc::new(world.clock.clone());
    let store: Arc<dyn KvStore> = Arc::new(world.kv.clone());
    let symbols =
        || Symbols::new(Arc::clone(&store), Arc::clone(&clock), &symbols::Config::default(), &Metrics::new());
    let id = LocationId::named(1, 1);
    for number in [1, 2] {
        let tenant = cambium_blocks::testing::tenant(number);
        world.tenants().resolve_or_create(&tenant.id).await.unwrap();
        symbols().write_missing(tenant.number, &[(id, Location::default())]).await.unwrap();
    }
    let known = async |number: u32| {
        let number = cambium_blocks::testing::tenant(number).number;
        symbols().resolve(number, &[id]).await.unwrap().locations[0].is_some()
    };
    let mut compactor = world.compactor("a");
    for day in 1..=45 {
        world.minutes(DAY);
        compactor.work().await.unwrap();
        assert_eq!((known(1).await, known(2).await), (day <= 40, true), "day {day}");
    }
}
