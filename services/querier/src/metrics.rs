//! What the querier counts.

use std::time::Duration;

use cambium_runtime::error::Kind;
use cambium_runtime::metrics::Metrics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::merged::Stats;

/// What a query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "they are label values as written")]
pub(crate) enum Shape {
    /// Stack traces.
    merge,
    /// Stack traces with the samples' labels.
    samples,
    /// Values over time.
    range,
    /// What exists.
    list,
    /// SQL.
    sql,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShapeLabel {
    shape: Shape,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    shape: Shape,
    outcome: &'static str,
}

/// The querier's metrics.
#[derive(Clone, Debug)]
pub(crate) struct QueryMetrics {
    queries: Family<OutcomeLabels, Counter>,
    seconds: Family<ShapeLabel, Histogram>,
    running: Gauge,
    fetched_bytes: Counter,
    scanned_rows: Counter,
}

impl QueryMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let new = Self {
            queries: Family::default(),
            // 1 ms to 65 s.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 17))),
            running: Gauge::default(),
            fetched_bytes: Counter::default(),
            scanned_rows: Counter::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("querier");
            registry.register("queries", "Queries by shape and outcome", new.queries.clone());
            registry.register("query_seconds", "Time a query took, waiting included", new.seconds.clone());
            registry.register("queries_running", "Queries that wait or run", new.running.clone());
            let fetched = new.fetched_bytes.clone();
            registry.register("fetched_bytes", "Bytes fetched from object storage", fetched);
            registry.register("scanned_rows", "Samples, rollups and profiles read", new.scanned_rows.clone());
        });
        new
    }

    /// Counts a query as running until dropped.
    pub fn begin(&self, shape: Shape) -> Running<'_> {
        self.running.inc();
        Running { metrics: self, shape, outcome: "cancelled", spent: Duration::ZERO }
    }
}

/// A query under way. Dropped early, it counts as cancelled.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    metrics: &'a QueryMetrics,
    shape: Shape,
    outcome: &'static str,
    spent: Duration,
}

impl Running<'_> {
    /// The query has an answer that cost this.
    pub fn succeeded(mut self, stats: &Stats, spent: Duration) {
        self.metrics.fetched_bytes.inc_by(stats.bytes);
        self.metrics.scanned_rows.inc_by(stats.rows);
        (self.outcome, self.spent) = ("success", spent);
    }

    /// The query has none.
    pub fn failed(mut self, kind: Kind, spent: Duration) {
        let outcome = match kind {
            Kind::Timeout => "timeout",
            Kind::RateLimited => "refused",
            Kind::Unavailable => "unavailable",
            Kind::Internal => "internal",
            Kind::Cancelled => "cancelled",
            Kind::Invalid
            | Kind::TooLarge
            | Kind::Unprocessable
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::Unimplemented => "invalid",
        };
        (self.outcome, self.spent) = (outcome, spent);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Self { metrics, shape, outcome, spent } = self;
        metrics.running.dec();
        metrics.queries.get_or_create(&OutcomeLabels { shape: *shape, outcome }).inc();
        if *outcome != "cancelled" {
            metrics.seconds.get_or_create(&ShapeLabel { shape: *shape }).observe(spent.as_secs_f64());
        }
    }
}
