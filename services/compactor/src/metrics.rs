//! What the compactor tells Prometheus.

use cambium_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// The level of the blocks that a job makes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Level {
    level: u32,
}

/// The compactor's metrics.
#[derive(Clone, Debug, Default)]
pub struct CompactorMetrics {
    pub(crate) rounds: Counter,
    pub(crate) jobs: Family<Level, Counter>,
    pub(crate) job_failures: Counter,
    pub(crate) jobs_lost: Counter,
    pub(crate) read_bytes: Family<Level, Counter>,
    pub(crate) written_bytes: Family<Level, Counter>,
    pub(crate) written_samples: Family<Level, Counter>,
    pub(crate) dropped_samples: Counter,
    pub(crate) blocks_removed: Counter,
    pub(crate) objects_deleted: Counter,
    pub(crate) orphans_deleted: Counter,
    pub(crate) names_seen: Counter,
    pub(crate) names_removed: Counter,
    pub(crate) backlog_jobs: Gauge,
    pub(crate) backlog_bytes: Gauge,
    job_seconds: Option<Histogram>,
}

impl CompactorMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let seconds = Histogram::new(exponential_buckets(0.01, 2.0, 16));
        let new = Self { job_seconds: Some(seconds.clone()), ..Self::default() };
        metrics.register(|all| {
            let registry = all.sub_registry_with_prefix("compactor");
            registry.register(
                "rounds",
                "Times that everything due had been done, or something failed",
                new.rounds.clone(),
            );
            registry.register("jobs", "Merges committed, by the level they made", new.jobs.clone());
            registry.register(
                "job_failures",
                "Jobs that failed and will be tried again",
                new.job_failures.clone(),
            );
            registry.register(
                "jobs_lost",
                "Jobs that somebody else had done or taken meanwhile",
                new.jobs_lost.clone(),
            );
            registry.register("read_bytes", "Bytes of blocks merged", new.read_bytes.clone());
            registry.register(
                "written_bytes",
                "Bytes of blocks made; over the ingester's flushed bytes this is the write amplification",
                new.written_bytes.clone(),
            );
            registry.register("written_samples", "Samples in blocks made", new.written_samples.clone());
            registry.register(
                "dropped_samples",
                "Samples of which only sums by ten minutes are left (downsample_after_secs)",
                new.dropped_samples.clone(),
            );
            registry.register(
                "blocks_removed",
                "Blocks removed because all of them was too old",
                new.blocks_removed.clone(),
            );
            registry.register(
                "objects_deleted",
                "Objects deleted after their grace",
                new.objects_deleted.clone(),
            );
            registry.register("names_seen", "Names looked at by sweeps", new.names_seen.clone());
            registry.register(
                "names_removed",
                "Names removed that nobody had sent for longer than profiles are kept",
                new.names_removed.clone(),
            );
            registry.register(
                "orphans_deleted",
                "Objects deleted that nothing had ever referred to",
                new.orphans_deleted.clone(),
            );
            registry.register(
                "backlog_jobs",
                "Jobs that were due at the last look",
                new.backlog_jobs.clone(),
            );
            registry.register("backlog_bytes", "Bytes of their inputs", new.backlog_bytes.clone());
            registry.register("job_seconds", "Time from lease to commit", seconds);
        });
        new
    }

    pub(crate) fn level(level: u8) -> Level {
        Level { level: u32::from(level) }
    }

    pub(crate) fn took(&self, seconds: f64) {
        if let Some(histogram) = &self.job_seconds {
            histogram.observe(seconds);
        }
    }
}
