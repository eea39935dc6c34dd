use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use cambium_blocks::cache::Cache;
use cambium_blocks::shape::FoldBy;
use cambium_blocks::testing::{DatasetBuilder, Shape, random_profiles, tenant};
use cambium_blocks::writer::{Compression, encode, put};
use cambium_blocks::{Dataset, Source};
use cambium_metastore::catalogue::{FlushCommit, OpenLog};
use cambium_metastore::kv::memory::MemoryStore;
use cambium_metastore::{Catalogue, KvStore, Symbols, Tenants};
use cambium_model::block::{LogId, LogRange, Offset, Partition};
use cambium_model::limits::Overrides;
use cambium_model::profile::Profile;
use cambium_runtime::clock::MockClock;
use cambium_runtime::metrics::Metrics;
use futures::FutureExt;
use object_store::memory::InMemory;
use tokio::sync::watch;

use super::oracle::{Path, block_on, values};
use super::*;
use crate::heads::{Found, Heads, HeadsError};
use crate::merged::MissingLog;
use crate::request::Aggregation;

const LOG: LogId = LogId { partition: Partition(3), log: 1 };

/// Heads that give scripted answers, last first; then what they hold.
#[derive(Default)]
struct Script {
    answers: Mutex<Vec<Answer>>,
    datasets: Mutex<BTreeMap<u32, Vec<Dataset>>>,
    asked: Mutex<Vec<Vec<(LogId, Offset)>>>,
}

enum Answer {
    TooOld,
    Missing,
    Unavailable,
    Never,
}

#[async_trait]
impl Heads for Script {
    async fn heads(&self, tenant: &Tenant, logs: &[OpenLog]) -> Result<Found, HeadsError> {
        self.asked.lock().unwrap().push(logs.iter().map(|open| (open.log, open.next)).collect());
        let answer = self.answers.lock().unwrap().pop();
        match answer {
            Some(Answer::TooOld) => Err(HeadsError::SnapshotTooOld { log: LOG, committed: Offset(0) }),
            Some(Answer::Missing) => Ok(Found { heads: Vec::new(), missing: logs.to_vec() }),
            Some(Answer::Unavailable) => Err(HeadsError::Unavailable("holder is away".to_owned())),
            Some(Answer::Never) => std::future::pending().await,
            None => {
                let datasets = self.datasets.lock().unwrap();
                let held = datasets.get(&tenant.number.0).into_iter().flatten();
                let heads = held.map(|dataset| Arc::new(dataset.clone()) as Arc<dyn Source>).collect();
                Ok(Found { heads, missing: Vec::new() })
            }
        }
    }
}

struct House {
    querier: Querier,
    heads: Arc<Script>,
    clock: MockClock,
    epoch: u64,
    next: Offset,
}

impl House {
    async fn new() -> Self {
        let kv: Arc<dyn KvStore> = Arc::new(MemoryStore::new());
        let clock = MockClock::at(0);
        let shared: Arc<dyn cambium_runtime::clock::Clock> = Arc::new(clock.clone());
        let heads = Arc::new(Script::default());
        let catalogue = Arc::new(Catalogue::new(Arc::clone(&kv)));
        let state = catalogue.open_log(LOG, "").await.unwrap();
        let deps = Deps {
            catalogue,
            tenants: Arc::new(Tenants::new(Arc::clone(&kv), Arc::clone(&shared))),
            symbols: Arc::new(Symbols::new(kv, Arc::clone(&shared), &Default::default(), &Metrics::new())),
            store: Arc::new(InMemory::new()),
            cache: Arc::new(Cache::new(16 << 20, &Metrics::new())),
            heads: Arc::clone(&heads) as Arc<dyn Heads>,
            limits: watch::channel(Arc::new(Overrides::default())).1,
            clock: shared,
            metrics: Metrics::new(),
        };
        let querier = Querier::new(Config::default(), deps);
        Self { querier, heads, clock, epoch: state.epoch, next: Offset(0) }
    }

    /// Commits one block of these datasets.
    async fn flush(&mut self, datasets: &[Dataset]) {
        let range = LogRange { log: LOG, first: self.next, next: Offset(self.next.0 + 1) };
        let block = encode(datasets, range, self.epoch, 0, Compression::Hot).unwrap();
        put(&*self.querier.deps().store, &block).await.unwrap();
        let commit = FlushCommit { range, epoch: self.epoch, block: Some(block.meta), tenure: None };
        self.querier.deps().catalogue.commit_flush(&commit).await.unwrap();
        self.next = range.next;
    }

    fn hold(&self, number: u32, profiles: &[Profile]) {
        self.heads.datasets.lock().unwrap().entry(number).or_default().push(dataset(number, profiles));
    }

    fn script(&self, answers: Vec<Answer>) {
        *self.heads.answers.lock().unwrap() = answers;
    }
}

fn dataset(number: u32, profiles: &[Profile]) -> Dataset {
    let mut builder = DatasetBuilder::new(tenant(number));
    profiles.iter().for_each(|profile| builder.push(profile));
    builder.finish()
}

fn merge_query(number: u32, aggregation: Aggregation) -> MergeQuery {
    MergeQuery {
        tenant: tenant(number),
        query: "memory:inuse_space:bytes:space:bytes".parse().unwrap(),
        fold_by: FoldBy::Location,
        pick: Pick::Range { range: TimeRange::ALL, aggregation },
        by: vec!["pod".to_owned()],
        exact: false,
    }
}

fn list_query(number: u32) -> ListQuery {
    let (matches, prefix) = (Vec::new(), String::new());
    ListQuery { tenant: tenant(number), matches, range: TimeRange::ALL, limit: 0, prefix }
}

/// Everything a querier can be asked, without what depends on where the profiles lie.
async fn answers(querier: &Querier, number: u32) -> Vec<String> {
    let mut answers = Vec::new();
    for aggregation in [Aggregation::Sum, Aggregation::Avg, Aggregation::Last] {
        let query = merge_query(number, aggregation);
        let merged = querier.merge(&query).await.unwrap();
        let groups: Vec<(_, BTreeMap<Path, i64>)> =
            merged.groups.iter().map(|group| (group.labels.clone(), values(&group.tree))).collect();
        // Means are rounded once per source, so their last digit depends on how many there are.
        if aggregation != Aggregation::Avg {
            answers.push(format!("{groups:?}"));
        }
        let range = RangeQuery {
            tenant: tenant(number),
            query: query.query,
            start_ns: Shape::default().start_ns,
            end_ns: Shape::default().start_ns + Shape::default().span_ns,
            step_ns: 300_000_000_000,
            by: vec!["zone".to_owned()],
            aggregation,
            per_second: false,
        };
        answers.push(format!("{:?}", querier.range(&range).await.unwrap().series));
    }
    let closest = MergeQuery { pick: Pick::Closest { time_ns: 0 }, ..merge_query(number, Aggregation::Sum) };
    let closest = querier.merge_samples(&closest).await.unwrap();
    answers.push(format!("{:?} {:?} {:?}", closest.single, closest.collected, values(&closest.tree)));
    let list = list_query(number);
    answers.push(format!("{:?}", querier.profile_types(&list).await.unwrap().entries));
    answers.push(format!("{:?}", querier.label_names(&list).await.unwrap().entries));
    answers.push(format!("{:?}", querier.label_values(&list, "pod").await.unwrap().entries));
    answers.push(format!("{:?}", querier.series(&list).await.unwrap().entries));
    let sql = "SELECT profile_type, sum(value), count(*), count(DISTINCT stack_id) FROM samples \
               GROUP BY profile_type ORDER BY 1";
    let sql =
        SqlQuery { tenant: tenant(number), sql: sql.to_owned(), range: TimeRange::ALL, rows_max: 1_000 };
    let rows = querier.sql(&sql).await.unwrap().batches;
    answers.push(arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string());
    answers
}

#[test]
fn heads_blocks_and_both_answer_alike_and_tenants_see_their_own() {
    block_on(async {
        let profiles = [1, 2].map(|seed| random_profiles(seed, &Shape::default()));
        let mut by_house = Vec::new();
        for flushed in [0, 9, 24] {
            let mut house = House::new().await;
            for part in 0..3 {
                let part = |number: usize| {
                    let all = &profiles[number - 1][..flushed];
                    dataset(number as u32, &all[flushed * part / 3..flushed * (part + 1) / 3])
                };
                house.flush(&[part(1), part(2)]).await;
            }
            house.hold(1, &profiles[0][flushed..]);
            house.hold(2, &profiles[1][flushed..]);
            let [one, two, nobody] = [1, 2, 3].map(|number| answers(&house.querier, number));
            by_house.push((one.await, two.await, nobody.await));
        }
        for (one, two, nobody) in &by_house {
            for (answer, expected) in one.iter().zip(&by_house[0].0) {
                assert_eq!(answer, expected);
            }
            assert_eq!(two, &by_house[0].1);
            assert_eq!(nobody, &by_house[0].2);
            assert_ne!(one[0], two[0], "tenants differ");
            assert_eq!(nobody[0], "[]");
        }
    });
}

#[test]
fn stats_tell_what_was_read() {
    block_on(async {
        let mut house = House::new().await;
        let profiles = random_profiles(1, &Shape::default());
        house.flush(&[dataset(1, &profiles[..12])]).await;
        house.hold(1, &profiles[12..]);
        let stats = house.querier.merge(&merge_query(1, Aggregation::Sum)).await.unwrap().stats;
        assert_eq!((stats.blocks, stats.heads), (1, 1));
        assert!(stats.requests > 0 && stats.bytes > 0 && stats.rows > 0, "{stats:?}");
        let text = house.querier.deps().metrics.encode();
        assert!(
            text.contains(r#"cambium_querier_queries_total{shape="merge",outcome="success"} 1"#),
            "{text}"
        );
        assert!(text.contains("cambium_querier_queries_running 0"), "{text}");
    });
}

#[test]
fn a_head_that_went_on_is_planned_again_once() {
    block_on(async {
        let mut house = House::new().await;
        let profiles = random_profiles(1, &Shape::default());
        house.flush(&[dataset(1, &profiles)]).await;
        let query = merge_query(1, Aggregation::Sum);
        house.script(vec![Answer::TooOld]);
        assert!(house.querier.merge(&query).await.is_ok());
        assert_eq!(*house.heads.asked.lock().unwrap(), [vec![(LOG, Offset(1))], vec![(LOG, Offset(1))]]);
        house.script(vec![Answer::TooOld, Answer::TooOld]);
        let error = house.querier.merge(&query).await.unwrap_err();
        assert!(matches!(error, Error::Heads(HeadsError::SnapshotTooOld { .. })), "{error:?}");
        house.script(vec![Answer::Unavailable]);
        let error = house.querier.merge(&query).await.unwrap_err();
        assert!(error.to_string().contains("holder is away"), "{error}");
    });
}

#[test]
fn a_head_that_is_missing_twice_is_named_in_the_answer() {
    block_on(async {
        let mut house = House::new().await;
        house.flush(&[dataset(1, &random_profiles(1, &Shape::default()))]).await;
        let query = merge_query(1, Aggregation::Sum);
        house.script(vec![Answer::Missing]);
        assert_eq!(house.querier.merge(&query).await.unwrap().stats.missing, [], "it has moved");
        house.script(vec![Answer::Missing, Answer::Missing]);
        let partial = house.querier.merge(&query).await.unwrap();
        let missing = MissingLog { log: LOG.to_string(), holder: String::new(), from_offset: 1 };
        assert_eq!(partial.stats.missing, [missing]);
        assert_eq!(partial.stats.blocks, 1, "what is in blocks is in the answer");
    });
}

#[test]
fn a_query_ends_at_the_timeout_and_stops_when_dropped() {
    block_on(async {
        let house = House::new().await;
        let query = merge_query(1, Aggregation::Sum);
        house.script(vec![Answer::Never, Answer::Never]);
        let mut running = Box::pin(house.querier.merge(&query));
        assert!((&mut running).now_or_never().is_none());
        house.clock.advance(Duration::from_secs(59));
        assert!((&mut running).now_or_never().is_none());
        house.clock.advance(Duration::from_secs(1));
        let error = running.await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        assert_eq!(error.to_string(), "the query took longer than 1m");
        let mut dropped = Box::pin(house.querier.merge(&query));
        assert!((&mut dropped).now_or_never().is_none());
        drop(dropped);
        let text = house.querier.deps().metrics.encode();
        assert!(
            text.contains(r#"outcome="cancelled"} 1"#) && text.contains(r#"outcome="timeout"} 1"#),
            "{text}"
        );
    });
}

#[test]
fn a_tenant_over_its_limit_waits_and_is_refused() {
    block_on(async {
        let house = House::new().await;
        let limits = house.querier.limits(&tenant(1).id);
        let most = limits.queries_concurrent_max as usize + Config::default().queue_max;
        let query = merge_query(1, Aggregation::Sum);
        house.script((0..most).map(|_| Answer::Never).collect());
        let mut running: Vec<_> = (0..most).map(|_| Box::pin(house.querier.merge(&query))).collect();
        running.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
        let error = house.querier.merge(&query).await.unwrap_err();
        assert!(matches!(error, Error::Saturated { .. }) && error.retry_after().is_some(), "{error:?}");
    });
}
