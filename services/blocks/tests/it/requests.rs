//! What cold queries cost a store: requests, and round trips, which is how many of them come one after the other.

use std::sync::Arc;
use std::time::Duration;

use cambium_blocks::cache::Cache;
use cambium_blocks::guarded::{Bounds, Guarded};
use cambium_blocks::series_table::{RowSet, SeriesTable};
use cambium_blocks::source::{Pick, TreeScan};
use cambium_blocks::testing::{Shape, random_dataset, tenant};
use cambium_blocks::writer::{Compression, put};
use cambium_blocks::{BlockSource, Source};
use cambium_model::block::{BlockMeta, SectionKind};
use cambium_model::time::{COARSE_BUCKET_NS, ROLLUP_BUCKET_NS, SECOND_NS, TimeRange};
use cambium_runtime::clock::MockClock;
use cambium_runtime::metrics::Metrics;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use crate::store::block;

/// Sections up to this length are fetched by one request.
const WHOLE_BYTES_MAX: u64 = 512 << 10;
/// The start of a bucket of two hours.
const START_NS: i64 = 240_000 * COARSE_BUCKET_NS;

/// What is asked for.
#[derive(Clone, Copy)]
enum Question {
    Labels,
    TimeSeries,
    Tree,
}

/// A store over a network that takes a second, of no one's time, to answer.
struct Far {
    store: Arc<dyn ObjectStore>,
    metrics: Metrics,
    meta: Arc<BlockMeta>,
}

impl Far {
    async fn new(level: u8, shape: &Shape) -> Self {
        let encoded = block(&[random_dataset(tenant(1), 8, shape)], level, Compression::Cold);
        let store = InMemory::new();
        put(&store, &encoded).await.unwrap();
        let second =
            ThrottleConfig { wait_get_per_call: Duration::from_secs(1), ..ThrottleConfig::default() };
        let metrics = Metrics::new();
        // A second request would count too.
        let bounds = Bounds { hedge: false, ..Bounds::REMOTE };
        let store = Arc::new(ThrottledStore::new(store, second));
        let store = Arc::new(Guarded::new(store, bounds, Arc::new(MockClock::at(0)), &metrics));
        Self { store, metrics, meta: Arc::new(encoded.meta) }
    }

    fn requests(&self) -> u64 {
        let text = self.metrics.encode();
        let sample = r#"cambium_object_store_requests_total{operation="get",outcome="success"} "#;
        text.lines().find_map(|line| line.strip_prefix(sample)?.parse().ok()).unwrap_or(0)
    }

    /// Requests and round trips of a query.
    async fn cost(
        &self,
        cache: &Arc<Cache>,
        question: Question,
        rows: &RowSet,
        range: TimeRange,
    ) -> (u64, u64) {
        let (requests, start) = (self.requests(), tokio::time::Instant::now());
        let source = BlockSource::new(Arc::clone(&self.store), Arc::clone(cache), Arc::clone(&self.meta), 0);
        source.series().await.unwrap();
        match question {
            Question::Labels => {}
            Question::TimeSeries => _ = source.profiles(rows, range).await.unwrap(),
            Question::Tree => {
                let scan = TreeScan { rows: rows.clone(), range, pick: Pick::Sum };
                let tree = source.tree(&scan).await.unwrap();
                assert!(tree.self_values.iter().any(|value| *value != 0));
            }
        }
        (self.requests() - requests, start.elapsed().as_secs())
    }
}

/// The rows of a service, of one profile type.
fn service(table: &SeriesTable, service: &str) -> RowSet {
    let of_service = |row: &u32| {
        let row = *row as usize;
        table.type_of[row] == 0 && &*table.scopes[table.scope_of[row] as usize].value == service
    };
    let rows: Vec<u32> = (0..table.len() as u32).filter(of_service).collect();
    assert!(rows.len() > 1);
    let run = rows[0]..rows[rows.len() - 1] + 1;
    assert_eq!(run.len(), rows.len(), "they are sorted");
    vec![run]
}

/// Three services over hours; the more locations and hours, the larger the rollups.
fn shape(locations: u64, hours: i64) -> Shape {
    let dense = Shape { profiles: 4_000, samples: 400, services: 2, depth: 4, locations, ..Shape::dense() };
    Shape { start_ns: START_NS, span_ns: hours * 3_600 * SECOND_NS, ..dense }
}

/// A line for each question.
async fn costs(far: &Far) -> String {
    let cache = || Arc::new(Cache::new(64 << 20, &Metrics::new()));
    let source = BlockSource::new(Arc::clone(&far.store), cache(), Arc::clone(&far.meta), 0);
    let series = source.series().await.unwrap();
    let one_service = service(&series, "service-0");
    let of_type = series.type_of.iter().take_while(|type_index| **type_index == 0).count() as u32;
    let (all, one) = (vec![0..of_type], vec![one_service[0].start..one_service[0].start + 1]);
    let aligned = TimeRange::new(START_NS + 2 * ROLLUP_BUCKET_NS, START_NS + 2 * COARSE_BUCKET_NS);
    let cut = TimeRange::new(aligned.start_ns - 100 * SECOND_NS, aligned.end_ns + 100 * SECOND_NS);
    let mut lines = String::new();
    for (name, question, rows, range) in [
        ("label query", Question::Labels, &all, TimeRange::ALL),
        ("time series", Question::TimeSeries, &all, TimeRange::ALL),
        ("one service, whole block", Question::Tree, &one_service, TimeRange::ALL),
        ("one service, whole ten minutes", Question::Tree, &one_service, aligned),
        ("one service, any range", Question::Tree, &one_service, cut),
        ("all services, whole block", Question::Tree, &all, TimeRange::ALL),
        ("one series, whole block", Question::Tree, &one, TimeRange::ALL),
        ("one series, any range", Question::Tree, &one, cut),
    ] {
        let cache = cache();
        let (requests, trips) = far.cost(&cache, question, rows, range).await;
        lines += &format!("{name:31} {requests} in {trips}\n");
        let warm = far.cost(&cache, question, rows, range).await;
        assert_eq!(warm, (0, 0), "{name}, asked again");
    }
    lines
}

#[test]
fn cold_queries_make_few_requests() {
    // A level, what makes the rollups large, which sections are so large that they are fetched in parts, and how many
    // requests are made in how many round trips.
    check(
        0,
        &shape(6, 12),
        &[SectionKind::Samples, SectionKind::Rollup],
        "\
label query                     1 in 1
time series                     2 in 2
one service, whole block        4 in 3
one service, whole ten minutes  4 in 3
one service, any range          7 in 4
all services, whole block       5 in 4
one series, whole block         5 in 3
one series, any range           5 in 3
",
    );
    check(
        3,
        &shape(6, 12),
        &[SectionKind::Samples, SectionKind::Rollup],
        "\
label query                     1 in 1
time series                     2 in 2
one service, whole block        3 in 2
one service, whole ten minutes  5 in 3
one service, any range          8 in 4
all services, whole block       3 in 2
one series, whole block         5 in 3
one series, any range           5 in 3
",
    );
    check(
        3,
        &shape(3, 6),
        &[SectionKind::Samples],
        "\
label query                     1 in 1
time series                     2 in 2
one service, whole block        3 in 2
one service, whole ten minutes  4 in 2
one service, any range          7 in 3
all services, whole block       3 in 2
one series, whole block         4 in 2
one series, any range           7 in 3
",
    );
}

/// Fails unless a block of this level has these large sections and its queries cost this.
#[track_caller]
fn check(level: u8, shape: &Shape, large: &[SectionKind], expected: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let found = runtime.unwrap().block_on(async {
        let far = Far::new(level, shape).await;
        let sections =
            far.meta.datasets[0].sections.iter().filter(|section| section.length > WHOLE_BYTES_MAX);
        assert_eq!(sections.map(|section| section.kind).collect::<Vec<_>>(), large);
        costs(&far).await
    });
    assert_eq!(found, expected, "\n{found}");
}
