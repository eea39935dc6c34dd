use cambium_model::symbols::{Function, Line};
use cambium_runtime::clock::MockClock;
use futures::future::join_all;

use super::*;
use crate::keys;
use crate::kv::memory::MemoryStore;
use crate::kv::testing::{Fault, FaultyStore};
use crate::kv::{TXN_KEYS_MAX, Txn};

const TENANT: TenantNumber = TenantNumber(1);
const OTHER: TenantNumber = TenantNumber(2);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A store, a clock, and as many nodes as a test wants.
struct Cluster {
    store: FaultyStore,
    clock: MockClock,
    metrics: Metrics,
}

impl Cluster {
    fn new() -> Self {
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));
        Self { store, clock: MockClock::at(1_700_000_000_000_000_000), metrics: Metrics::new() }
    }

    fn node(&self) -> Symbols {
        self.node_caching(Config::default().cache_bytes)
    }

    fn node_caching(&self, cache_bytes: u64) -> Symbols {
        Symbols::new(
            Arc::new(self.store.clone()),
            Arc::new(self.clock.clone()),
            &Config { cache_bytes },
            &self.metrics,
        )
    }

    async fn stored(&self, tenant: TenantNumber, id: LocationId) -> Option<bytes::Bytes> {
        self.store.snapshot().await.unwrap().get(&keys::location(tenant, id)).await.unwrap()
    }
}

fn id(number: usize) -> LocationId {
    LocationId::named(number as u64, 7)
}

fn location(number: usize) -> Location {
    let function = Function { name: format!("f{number}").into(), ..Function::default() };
    Location { lines: vec![Line { function, line: 3, column: 0 }], ..Location::default() }
}

fn symbols(numbers: std::ops::Range<usize>) -> Vec<(LocationId, Location)> {
    numbers.map(|number| (id(number), location(number))).collect()
}

fn unknown(node: &Symbols, tenant: TenantNumber, ids: &[LocationId]) -> Vec<usize> {
    let mut missing = Vec::new();
    node.unknown(tenant, ids, &mut missing);
    missing
}

/// Names of the resolved locations, `-` for the others.
async fn names(node: &Symbols, tenant: TenantNumber, ids: &[LocationId]) -> String {
    let resolved = node.resolve(tenant, ids).await.unwrap();
    let name = |location: &Option<Arc<Location>>| match location {
        Some(location) => location.lines[0].function.name.to_string(),
        None => "-".to_owned(),
    };
    resolved.locations.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn written_names_are_read_back_by_every_node_of_that_tenant() {
    let cluster = Cluster::new();
    let writer = cluster.node();
    let ids = [id(2), id(0), id(9), id(2)];
    assert_eq!(unknown(&writer, TENANT, &ids), [0, 1, 2, 3]);
    writer.write_missing(TENANT, &symbols(0..3)).await.unwrap();
    assert_eq!(unknown(&writer, TENANT, &ids), [2]);
    assert_eq!(unknown(&writer, OTHER, &ids), [0, 1, 2, 3]);
    for node in [&writer, &cluster.node()] {
        assert_eq!(names(node, TENANT, &ids).await, "f2 f0 - f2");
        assert_eq!(names(node, OTHER, &ids).await, "- - - -");
    }
}

#[tokio::test]
async fn native_locations_answer_for_themselves() {
    let cluster = Cluster::new();
    let node = cluster.node();
    let mapping = Mapping { file: "/bin/x".into(), build_id: "ab".into() };
    let (known, unseen) = (mapping.build_ref(), BuildRef::new("cd", ""));
    let mut missing = Vec::new();
    node.unknown_objects(TENANT, &[known, unseen], &mut missing);
    assert_eq!(missing, [0, 1]);
    node.write_missing_objects(TENANT, &[(known, mapping.clone())]).await.unwrap();
    missing.clear();
    node.unknown_objects(TENANT, &[known, unseen], &mut missing);
    assert_eq!(missing, [1]);

    let ids = [LocationId::native(known, 16), LocationId::native(unseen, 32), LocationId::native(known, 48)];
    assert_eq!(unknown(&node, TENANT, &ids), Vec::<usize>::new(), "nothing to write");
    let resolved = node.resolve(TENANT, &ids).await.unwrap();
    let native = |mapping: &Mapping, address| {
        Some(Arc::new(Location { mapping: mapping.clone(), address, lines: Vec::new() }))
    };
    let nowhere = Mapping::default();
    let expected = [native(&mapping, 16), native(&nowhere, 32), native(&mapping, 48)];
    assert_eq!(resolved.locations, expected);
    assert_eq!(resolved.lookups, Lookups { multi_gets: 1, ..Lookups::default() });
}

#[tokio::test]
async fn what_is_in_the_store_is_not_written_again() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.node(), cluster.node());
    first.write_missing(TENANT, &symbols(0..10)).await.unwrap();
    cluster.store.inject([Fault::Unavailable]);
    second.write_missing(TENANT, &symbols(0..10)).await.expect("no commit was needed");
    assert_eq!(unknown(&second, TENANT, &[id(3)]), Vec::<usize>::new());
    second.write_missing(TENANT, &symbols(5..15)).await.expect_err("the other five were");
    assert_eq!(unknown(&second, TENANT, &[id(3), id(12)]), [1], "what failed is not known");
    second.write_missing(TENANT, &symbols(5..15)).await.unwrap();
    assert_eq!(names(&second, TENANT, &[id(14)]).await, "f14");
}

#[tokio::test]
async fn values_in_use_are_refreshed() {
    let cluster = Cluster::new();
    let node = cluster.node();
    node.write_missing(TENANT, &symbols(0..1)).await.unwrap();
    let written = cluster.stored(TENANT, id(0)).await;

    cluster.clock.advance(6 * DAY);
    cluster.node().write_missing(TENANT, &symbols(0..1)).await.unwrap();
    assert_eq!(cluster.stored(TENANT, id(0)).await, written, "not stale yet");
    assert_eq!(unknown(&node, TENANT, &[id(0)]), Vec::<usize>::new());

    cluster.clock.advance(DAY);
    assert_eq!(unknown(&node, TENANT, &[id(0)]), [0], "seven days after it was seen");
    node.write_missing(TENANT, &symbols(0..1)).await.unwrap();
    let refreshed = cluster.stored(TENANT, id(0)).await;
    assert_ne!(refreshed, written, "the day is new");
    assert_eq!(names(&cluster.node(), TENANT, &[id(0)]).await, "f0");
}

#[tokio::test]
async fn many_locations_go_in_bounded_transactions_and_multi_gets() {
    let cluster = Cluster::new();
    let count = 5 * TXN_KEYS_MAX + 3;
    let mut shuffled = symbols(0..count);
    shuffled.reverse();
    shuffled.extend(symbols(0..9));
    cluster.node().write_missing(TENANT, &shuffled).await.unwrap();

    let node = cluster.node();
    let ids: Vec<LocationId> = (0..count + 2).rev().chain([0, 0]).map(id).collect();
    let resolved = node.resolve(TENANT, &ids).await.unwrap();
    let multi_gets = (count + 2).div_ceil(MULTI_GET_KEYS_MAX);
    let asked = count + 2;
    assert_eq!(resolved.lookups, Lookups { asked, cache_hits: 0, joined: 0, multi_gets, unresolved: 2 });
    let hits = resolved.locations.iter().filter(|location| location.is_some()).count();
    assert_eq!(hits, count + 2, "all but two, and one three times");
    let again = node.resolve(TENANT, &ids).await.unwrap();
    assert_eq!(again.lookups, Lookups { asked, cache_hits: asked, joined: 0, multi_gets: 0, unresolved: 2 });
    assert_eq!(again.locations, resolved.locations);
}

#[tokio::test]
async fn caches_count_what_they_are_asked_for() {
    let cluster = Cluster::new();
    let node = cluster.node();
    let ids = [id(0), id(1), id(9)];
    unknown(&node, TENANT, &ids);
    node.write_missing(TENANT, &symbols(0..2)).await.unwrap();
    unknown(&node, TENANT, &ids);
    for _ in 0..2 {
        assert_eq!(names(&node, TENANT, &ids).await, "f0 f1 -");
    }
    let text = cluster.metrics.encode();
    for line in [
        "cambium_cache_requests_total{cache=\"known_locations\",outcome=\"hit\"} 2",
        "cambium_cache_requests_total{cache=\"known_locations\",outcome=\"miss\"} 4",
        "cambium_cache_requests_total{cache=\"locations\",outcome=\"hit\"} 3",
        "cambium_cache_requests_total{cache=\"locations\",outcome=\"miss\"} 3",
        "cambium_cache_bytes{cache=\"known_objects\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("cambium_cache_bytes{cache=\"known_locations\"} 0"), "{text}");
}

#[tokio::test]
async fn racing_writers_of_the_same_names_all_succeed() {
    let cluster = Cluster::new();
    let nodes: Vec<Symbols> = (0..8).map(|_| cluster.node()).collect();
    let new = symbols(0..700);
    let writes = nodes.iter().map(|node| node.write_missing(TENANT, &new));
    join_all(writes).await.into_iter().for_each(Result::unwrap);
    cluster.store.inject([Fault::UndeterminedCommitted, Fault::UndeterminedLost]);
    nodes[0].write_missing(TENANT, &symbols(700..701)).await.unwrap();
    nodes[0].write_missing(TENANT, &symbols(701..702)).await.unwrap();
    assert_eq!(names(&nodes[1], TENANT, &[id(0), id(699), id(700), id(701)]).await, "f0 f699 f700 f701");
}

#[tokio::test]
async fn an_absent_name_is_asked_for_again_after_a_while() {
    let cluster = Cluster::new();
    let (reader, writer) = (cluster.node(), cluster.node());
    assert_eq!(names(&reader, TENANT, &[id(0)]).await, "-");
    writer.write_missing(TENANT, &symbols(0..1)).await.unwrap();
    assert_eq!(names(&reader, TENANT, &[id(0)]).await, "-", "believed for a while");
    cluster.clock.advance(NEGATIVE_TTL);
    assert_eq!(names(&reader, TENANT, &[id(0)]).await, "f0");

    assert_eq!(names(&writer, TENANT, &[id(1)]).await, "-");
    writer.write_missing(TENANT, &symbols(1..2)).await.unwrap();
    assert_eq!(names(&writer, TENANT, &[id(1)]).await, "f1", "whoever wrote it knows at once");
}

#[tokio::test]
async fn concurrent_queries_share_one_fetch() {
    let cluster = Cluster::new();
    cluster.node().write_missing(TENANT, &symbols(0..100)).await.unwrap();
    let node = cluster.node();
    let before = cluster.store.batch_gets();
    let ids: Vec<LocationId> = (0..100).map(id).collect();
    let resolved = join_all((0..5).map(|_| node.resolve(TENANT, &ids))).await;
    assert_eq!(cluster.store.batch_gets() - before, 1);
    for (number, resolved) in resolved.into_iter().enumerate() {
        let resolved = resolved.unwrap();
        assert!(resolved.locations.iter().all(Option::is_some));
        assert_eq!(resolved.lookups.joined, if number == 0 { 0 } else { 100 });
    }
}

#[tokio::test]
async fn a_cancelled_fetch_leaves_nobody_waiting() {
    let cluster = Cluster::new();
    cluster.node().write_missing(TENANT, &symbols(0..1)).await.unwrap();
    let node = cluster.node();
    let ids = [id(0)];
    let mut first = Box::pin(node.resolve(TENANT, &ids));
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(node.resolve(TENANT, &ids));
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    let resolved = second.await.unwrap();
    assert!(resolved.locations[0].is_some());
    assert_eq!((resolved.lookups.joined, resolved.lookups.multi_gets), (1, 1));
}

#[tokio::test]
async fn a_failed_fetch_is_an_error_and_is_not_remembered() {
    let cluster = Cluster::new();
    let node = cluster.node();
    node.write_missing(TENANT, &symbols(0..1)).await.unwrap();
    cluster.store.set_down(true);
    node.resolve(TENANT, &[id(0)]).await.unwrap_err();
    assert_eq!(unknown(&node, TENANT, &[id(0)]), Vec::<usize>::new(), "known ids need no store");
    cluster.store.set_down(false);
    assert_eq!(names(&node, TENANT, &[id(0)]).await, "f0");

    cluster.store.commit(Txn::new().put(keys::location(TENANT, id(1)), "\u{1}")).await.unwrap();
    let error = node.resolve(TENANT, &[id(1)]).await.unwrap_err();
    assert_eq!(error.to_string(), "the stored location is corrupt");
}

#[tokio::test]
async fn a_small_cache_changes_nothing_but_the_cost() {
    let cluster = Cluster::new();
    cluster.node().write_missing(TENANT, &symbols(0..200)).await.unwrap();
    let node = cluster.node_caching(2_000);
    let ids: Vec<LocationId> = (0..200).map(id).collect();
    for _ in 0..3 {
        let resolved = node.resolve(TENANT, &ids).await.unwrap();
        assert!(resolved.locations.iter().all(Option::is_some));
    }
}

#[tokio::test]
async fn names_that_nobody_sent_for_long_are_swept() {
    let cluster = Cluster::new();
    let (old, young) = (symbols(0..600), symbols(600..700));
    let objects = [(BuildRef([1; 7]), Mapping::default())];
    let today = || u32::try_from(cluster.clock.now_ns() / 86_400_000_000_000).unwrap();
    let node = cluster.node();
    node.write_missing(TENANT, &old).await.unwrap();
    node.write_missing(OTHER, &old).await.unwrap();
    node.write_missing_objects(TENANT, &objects).await.unwrap();
    let first_day = today();
    cluster.clock.advance(20 * DAY);
    // Half of the old ones are sent again.
    node.write_missing(TENANT, &old[..300]).await.unwrap();
    node.write_missing(TENANT, &young).await.unwrap();

    let store = cluster.store.clone();
    assert_eq!(sweep(&store, TENANT, first_day).await.unwrap(), Swept { seen: 701, removed: 0 });
    let swept = sweep(&store, TENANT, first_day + 1).await.unwrap();
    assert_eq!(swept, Swept { seen: 701, removed: 301 });
    for (number, is_kept) in [(0, true), (299, true), (300, false), (599, false), (600, true)] {
        assert_eq!(cluster.stored(TENANT, id(number)).await.is_some(), is_kept, "{number}");
        assert_eq!(cluster.stored(OTHER, id(number)).await.is_some(), number < 600, "another tenant's");
    }
    // A node that took them for known a long time ago writes them again.
    node.write_missing(TENANT, &old).await.unwrap();
    assert!(cluster.stored(TENANT, id(300)).await.is_some());
}

#[tokio::test]
async fn a_name_that_is_written_while_it_is_swept_stays() {
    let cluster = Cluster::new();
    cluster.node().write_missing(TENANT, &symbols(0..1)).await.unwrap();
    cluster.clock.advance(60 * DAY);
    let today = u32::try_from(cluster.clock.now_ns() / 86_400_000_000_000).unwrap();
    let node = cluster.node();
    let again = symbols(0..1);
    let (swept, written) =
        tokio::join!(sweep(&cluster.store, TENANT, today), node.write_missing(TENANT, &again));
    written.unwrap();
    let swept = swept.unwrap();
    assert!(cluster.stored(TENANT, id(0)).await.is_some(), "{swept:?}");
    cluster.store.inject([Fault::UndeterminedLost, Fault::UndeterminedCommitted]);
    sweep(&cluster.store, TENANT, today + 1).await.unwrap();
    assert!(cluster.stored(TENANT, id(0)).await.is_none());
}
