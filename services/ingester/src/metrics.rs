//! What the ingester tells Prometheus.

use cambium_runtime::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// The ingester's metrics.
#[derive(Clone, Debug)]
pub struct IngesterMetrics {
    pub(crate) profiles_applied: Counter,
    pub(crate) profiles_duplicate: Counter,
    pub(crate) writes_refused: Counter,
    pub(crate) flushes: Counter,
    pub(crate) flush_failures: Counter,
    pub(crate) flush_seconds: Histogram,
    pub(crate) flushed_bytes: Counter,
    pub(crate) flushed_samples: Counter,
    pub(crate) head_bytes: Gauge,
    pub(crate) frozen_bytes: Gauge,
    pub(crate) head_series: Gauge,
    pub(crate) dedup_ids: Gauge,
    pub(crate) replayed_records: Counter,
    pub(crate) log_records_lost: Counter,
    pub(crate) records_set_aside: Counter,
    pub(crate) tenures_lost: Counter,
    pub(crate) logs_held: Gauge,
    pub(crate) heads_open: Gauge,
    pub(crate) heads_expired: Counter,
}

impl IngesterMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let new = Self {
            profiles_applied: Counter::default(),
            profiles_duplicate: Counter::default(),
            writes_refused: Counter::default(),
            flushes: Counter::default(),
            flush_failures: Counter::default(),
            flush_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
            flushed_bytes: Counter::default(),
            flushed_samples: Counter::default(),
            head_bytes: Gauge::default(),
            frozen_bytes: Gauge::default(),
            head_series: Gauge::default(),
            dedup_ids: Gauge::default(),
            replayed_records: Counter::default(),
            log_records_lost: Counter::default(),
            records_set_aside: Counter::default(),
            tenures_lost: Counter::default(),
            logs_held: Gauge::default(),
            heads_open: Gauge::default(),
            heads_expired: Counter::default(),
        };
        metrics.register(|all| {
            let registry = all.sub_registry_with_prefix("ingester");
            let mut counter = |name: &str, help: &str, metric: &Counter| {
                registry.register(name, help, metric.clone());
            };
            counter("profiles_applied", "Profiles taken into heads", &new.profiles_applied);
            counter(
                "profiles_duplicate",
                "Retries acknowledged and not counted again",
                &new.profiles_duplicate,
            );
            counter("writes_refused", "Writes answered 503 because heads were full", &new.writes_refused);
            counter("flushes", "Cuts committed to the catalogue", &new.flushes);
            counter(
                "flush_failures",
                "Attempts to flush a cut that failed and will be retried",
                &new.flush_failures,
            );
            counter("flushed_bytes", "Bytes of blocks written", &new.flushed_bytes);
            counter("flushed_samples", "Samples in blocks written", &new.flushed_samples);
            counter("replayed_records", "Records applied from the log at start", &new.replayed_records);
            counter("log_records_lost", "Records that the log could not give back", &new.log_records_lost);
            counter(
                "records_set_aside",
                "Records that did not decode and were set aside",
                &new.records_set_aside,
            );
            counter("tenures_lost", "Partitions lost because the lease was not renewed", &new.tenures_lost);
            counter("heads_expired", "Heads that their queries did not close in time", &new.heads_expired);
            registry.register("logs_held", "Logs that can be read from here", new.logs_held.clone());
            registry.register("heads_open", "Heads that queries have open", new.heads_open.clone());
            registry.register("flush_seconds", "Time from cut to commit", new.flush_seconds.clone());
            registry.register("head_bytes", "Bytes in active generations", new.head_bytes.clone());
            registry.register(
                "frozen_bytes",
                "Bytes in cuts that are not in blocks yet",
                new.frozen_bytes.clone(),
            );
            registry.register("head_series", "Series in active generations", new.head_series.clone());
            registry.register("dedup_ids", "Pushes remembered to recognise retries", new.dedup_ids.clone());
        });
        new
    }
}
