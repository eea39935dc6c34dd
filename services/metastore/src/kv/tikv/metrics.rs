//! What is counted of TiKV.

use std::time::Duration;

use cambium_runtime::metrics::Metrics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::failure::Failure;

/// What is asked of TiKV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "they are label values as written")]
pub(super) enum Operation {
    snapshot,
    get,
    scan,
    commit,
    rollback,
    collect,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    operation: Operation,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WonLabel {
    won: &'static str,
}

/// The store's metrics.
#[derive(Clone, Debug)]
pub(super) struct TikvMetrics {
    seconds: Family<OperationLabel, Histogram>,
    failures: Family<FailureLabels, Counter>,
    hedges: Family<WonLabel, Counter>,
    pub(super) connections: Counter,
}

impl TikvMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let new = Self {
            // 0.5 ms to 16 s.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 16))),
            failures: Family::default(),
            hedges: Family::default(),
            connections: Counter::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("tikv");
            let help = "Time that operations took, tries that failed and pauses included";
            registry.register("operation_seconds", help, new.seconds.clone());
            let help = "Tries that failed; all but the last of an operation were repeated";
            registry.register("failures", help, new.failures.clone());
            let help = "Second requests for slow reads, by whether they answered first";
            registry.register("hedges", help, new.hedges.clone());
            registry.register("connections", "Clients built", new.connections.clone());
        });
        new
    }

    pub(super) fn ended(&self, operation: Operation, spent: Duration) {
        self.seconds.get_or_create(&OperationLabel { operation }).observe(spent.as_secs_f64());
    }

    pub(super) fn failed(&self, operation: Operation, failure: &Failure) {
        self.failures.get_or_create(&FailureLabels { operation, kind: failure.label() }).inc();
    }

    pub(super) fn hedged(&self, won: bool) {
        self.hedges.get_or_create(&WonLabel { won: if won { "true" } else { "false" } }).inc();
    }
}
