//! What is counted of an object store.

use std::time::Duration;

use cambium_runtime::metrics::Metrics;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// A kind of request, as stores bill them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "they are label values as written")]
pub(super) enum Operation {
    get,
    head,
    put,
    list,
    delete,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: Operation,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WonLabel {
    won: &'static str,
}

/// The store's metrics.
#[derive(Clone, Debug)]
pub(super) struct StoreMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<OperationLabel, Histogram>,
    hedges: Family<WonLabel, Counter>,
    pub(super) bytes_read: Counter,
    pub(super) bytes_written: Counter,
    pub(super) objects_listed: Counter,
}

impl StoreMetrics {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let new = Self {
            requests: Family::default(),
            // 0.5 ms to 16 s.
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 16))),
            hedges: Family::default(),
            bytes_read: Counter::default(),
            bytes_written: Counter::default(),
            objects_listed: Counter::default(),
        };
        metrics.register(|registry| {
            let registry = registry.sub_registry_with_prefix("object_store");
            registry.register("requests", "Requests by operation and outcome", new.requests.clone());
            let seconds = new.seconds.clone();
            registry.register(
                "request_seconds",
                "Time a request took, without waiting for its turn",
                seconds,
            );
            let hedges = new.hedges.clone();
            registry.register(
                "hedges",
                "Second requests for slow reads, by whether they answered first",
                hedges,
            );
            registry.register("read_bytes", "Bytes of objects asked for", new.bytes_read.clone());
            registry.register("written_bytes", "Bytes put in one piece", new.bytes_written.clone());
            registry.register("objects_listed", "Objects named by listings", new.objects_listed.clone());
        });
        new
    }

    pub(super) fn count(&self, operation: Operation, spent: Duration, is_ok: bool) {
        self.seconds.get_or_create(&OperationLabel { operation }).observe(spent.as_secs_f64());
        self.outcome(operation, is_ok);
    }

    pub(super) fn deleted(&self, is_ok: bool) {
        self.outcome(Operation::delete, is_ok);
    }

    fn outcome(&self, operation: Operation, is_ok: bool) {
        let outcome = if is_ok { "success" } else { "error" };
        self.requests.get_or_create(&RequestLabels { operation, outcome }).inc();
    }

    pub(super) fn hedged(&self, won: bool) {
        self.hedges.get_or_create(&WonLabel { won: if won { "true" } else { "false" } }).inc();
    }
}
