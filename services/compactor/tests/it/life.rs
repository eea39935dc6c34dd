//! Lives of blocks: flushes, merges, rivals, failures and restarts in any order.

use std::collections::BTreeMap;
use std::sync::Arc;

use cambium_blocks::testing::PutFault;
use cambium_metastore::catalogue::Everything;
use cambium_metastore::kv::testing::Fault;
use cambium_model::limits::TenantLimits;
use cambium_model::tenant::TenantNumber;
use proptest::prelude::*;

use crate::world::{LOG, World};

/// One step of a life.
#[derive(Clone, Debug)]
enum Action {
    /// Flush profiles of these tenants.
    Flush { seed: u64, tenants: Vec<u32> },
    /// A tenant has a service's profiles of the time before deleted.
    Delete { tenant: u32, service: u64 },
    /// From now on series of these services are kept by a rule of their own, and of the last one for longer.
    Rules { services: Vec<u64> },
    /// From now on samples are dropped after so many days; never for 0.
    Downsample { days: u64 },
    /// So many minutes pass.
    Pass { minutes: u64 },
    /// A compactor works, while the catalogue and the bucket fail in these ways.
    Work { which: usize, commits: Vec<Fault>, puts: Option<PutFault> },
    /// Both work at the same time.
    WorkBoth,
    /// A compactor is started anew.
    Restart { which: usize },
}

fn action() -> impl Strategy<Value = Action> {
    let fault = prop_oneof![
        6 => Just(Fault::Pass),
        1 => Just(Fault::UndeterminedCommitted),
        1 => Just(Fault::UndeterminedLost),
        1 => Just(Fault::Unavailable),
    ];
    let put = prop_oneof![
        4 => Just(None),
        1 => Just(Some(PutFault::NotWritten)),
        1 => Just(Some(PutFault::AnswerLost)),
    ];
    prop_oneof![
        4 => (any::<u64>(), prop::sample::subsequence(vec![1, 2, 3], 1..=3))
            .prop_map(|(seed, tenants)| Action::Flush { seed, tenants }),
        1 => (1..4_u32, 0..3_u64).prop_map(|(tenant, service)| Action::Delete { tenant, service }),
        1 => prop::sample::subsequence(vec![0, 1, 2], 0..=3).prop_map(|services| Action::Rules { services }),
        1 => (0..3_u64).prop_map(|days| Action::Downsample { days }),
        3 => prop_oneof![1..20_u64, 100..200_u64, 1_400..3_000_u64].prop_map(|minutes| Action::Pass { minutes }),
        4 => (0..2_usize, prop::collection::vec(fault, 0..6), put)
            .prop_map(|(which, commits, puts)| Action::Work { which, commits, puts }),
        1 => Just(Action::WorkBoth),
        1 => (0..2_usize).prop_map(|which| Action::Restart { which }),
    ]
}

async fn live(actions: Vec<Action>) {
    let mut world = World::new(TenantLimits { retention_secs: 0, ..TenantLimits::default() }).await;
    const NAMES: [&str; 2] = ["a", "b"];
    let mut compactors = NAMES.map(|name| world.compactor(name));
    for action in actions {
        match action {
            Action::Flush { seed, tenants } => world.flush(seed, &tenants).await,
            Action::Delete { tenant, service } => {
                world.delete(tenant, &format!(r#"{{service_name="service-{service}"}}"#)).await;
                world.check().await;
            }
            Action::Rules { services } => world.keep_apart(&services),
            Action::Downsample { days } => {
                world.change_limits(|limits| limits.downsample_after_secs = days * 86_400);
            }
            Action::Pass { minutes } => world.minutes(minutes),
            Action::Work { which, commits, puts } => {
                world.kv.inject(commits);
                if let Some(fault) = puts {
                    world.store.fail_puts(fault, 1);
                }
                // A failure is for the next round to mend.
                let _ = compactors[which].work().await;
                world.kv.clear();
                world.store.fail_puts(PutFault::NotWritten, 0);
                world.store.fail_puts(PutFault::AnswerLost, 0);
                world.check().await;
                world.check_rebuilt().await;
            }
            Action::WorkBoth => {
                let [a, b] = &mut compactors;
                let (a, b) = tokio::join!(a.work(), b.work());
                a.and(b).unwrap();
                world.check().await;
            }
            Action::Restart { which } => compactors[which] = world.compactor(NAMES[which]),
        }
    }
    world.check_rebuilt().await;
    // In the end everything is merged as far as it goes, and nothing else is left.
    world.minutes(2 * 1_440);
    settle(&world, &mut compactors[0]).await;
    world.check().await;
    let Everything { logs, merged, .. } = world.catalogue.all().await.unwrap();
    assert!(logs.iter().all(|log| log.blocks.is_empty()));
    assert!(merged.iter().flat_map(|owned| &owned.blocks).all(|block| block.level == 3));
    world.check_erased(&merged).await;
    for owned in &merged {
        let mut blocks = BTreeMap::new();
        for dataset in owned.blocks.iter().flat_map(|block| &block.datasets) {
            *blocks.entry((dataset.tenant.number, dataset.retention_selector.clone())).or_insert(0) += 1;
        }
        // Where classes differ, one tenant's part of a shared block may end as a block of its own.
        let most = if blocks.keys().any(|(_, class)| class.is_some()) { 2 } else { 1 };
        assert!(blocks.values().all(|count| *count <= most), "{:?}: {blocks:?}", owned.tenant);
    }
}

/// Works until nothing is left to do; leases of rivals time out on the way.
async fn settle(world: &World, compactor: &mut cambium_compactor::Service) {
    for _ in 0..8 {
        while compactor.work().await.unwrap() > 0 {}
        world.minutes(2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_happens_every_profile_is_there_once(actions in prop::collection::vec(action(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(live(actions));
    }
}

#[tokio::test]
async fn a_day_becomes_one_block_and_the_rest_is_deleted() {
    let mut world = World::new(TenantLimits::default()).await;
    let mut compactor = world.compactor("a");
    for round in 0..36 {
        world.minutes(10);
        world.flush(round, &[1, 2]).await;
        while compactor.work().await.unwrap() > 0 {}
        world.check().await;
        if round == 12 {
            let recent = world.catalogue.blocks_since(LOG.partition, 0).await.unwrap();
            assert!(recent.iter().any(|block| block.level == 1), "an ingester finds its pushes");
        }
    }
    let levels: Vec<u8> = world.blocks(1).await.iter().map(|block| block.level).collect();
    assert!(levels.contains(&1) && levels.contains(&2), "{levels:?}");
    world.minutes(24 * 60);
    settle(&world, &mut compactor).await;
    world.check().await;
    let blocks = world.blocks(1).await;
    assert_eq!(blocks.len(), 1, "small tenants share one");
    let tenants: Vec<TenantNumber> = blocks[0].datasets.iter().map(|dataset| dataset.tenant.number).collect();
    assert_eq!(tenants, [TenantNumber(1), TenantNumber(2)]);
    assert_eq!((blocks[0].level, blocks[0].part, blocks[0].parts), (3, 0, 1));
    let range = blocks[0].log_ranges.as_slice();
    assert!(matches!(range, [all] if all.first.0 == 0 && all.next.0 == 36), "{range:?}");
    let before = world.objects().await;
    world.minutes(16);
    compactor.work().await.unwrap();
    assert_eq!(world.objects().await, 1, "of {before}");
    assert!(Arc::strong_count(&blocks[0]) > 0);
}

/// What three hours of so many tenants, a tenth of whom flush each minute, put and hold at a time.
async fn put_and_held(tenants: u32) -> (u64, usize) {
    let mut world = World::new(TenantLimits::default()).await;
    let mut compactor = world.compactor("a");
    let mut held = 0;
    for minute in 0..180_u32 {
        world.minutes(1);
        let some: Vec<u32> = (1..=tenants).filter(|number| number % 10 == minute % 10).collect();
        world.flush(u64::from(minute), &some).await;
        while compactor.work().await.unwrap() > 0 {}
        held = held.max(world.objects().await);
    }
    world.pushed.retain(|number, _| number % 37 == 1);
    world.check().await;
    (world.store.puts(), held)
}

#[tokio::test]
async fn objects_do_not_grow_with_the_number_of_small_tenants() {
    let (few, many) = (put_and_held(10).await, put_and_held(80).await);
    // The fewer, the more a minute's last profile is of another window than the minute's end.
    assert!(many.0 <= few.0 && many.1 <= few.1, "{many:?} and {few:?}");
    assert!(few.0 <= 2 * 180, "two a minute: {few:?}");
}
