//! What is counted of Kafka.

use cambium_model::block::Partition;
use cambium_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Kafka's metrics; one for a process, shared by its producer and its logs.
#[derive(Clone, Debug)]
pub struct KafkaMetrics {
    pub(super) produced_records: Counter,
    pub(super) produced_bytes: Counter,
    errors: Family<ReasonLabel, Counter>,
    pub(super) produce_seconds: Histogram,
    pub(super) queue_records: Gauge,
    pub(super) consumed_records: Counter,
    pub(super) consumed_bytes: Counter,
    pub(super) poison_records: Counter,
    lag: Family<PartitionLabel, Gauge>,
}

impl KafkaMetrics {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let new = Self {
            produced_records: Counter::default(),
            produced_bytes: Counter::default(),
            errors: Family::default(),
            // 1 ms to 16 s.
            produce_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            queue_records: Gauge::default(),
            consumed_records: Counter::default(),
            consumed_bytes: Counter::default(),
            poison_records: Counter::default(),
            lag: Family::default(),
        };
        metrics.register(|registry| {
            let kafka = registry.sub_registry_with_prefix("kafka");
            kafka.register("produced_records", "Records that Kafka confirmed", new.produced_records.clone());
            kafka.register("produced_bytes", "Their bytes, uncompressed", new.produced_bytes.clone());
            kafka.register(
                "produce_errors",
                "Records that Kafka did not confirm, by reason",
                new.errors.clone(),
            );
            kafka.register("produce_seconds", "Time until Kafka confirmed", new.produce_seconds.clone());
            kafka.register("queue_records", "Records that wait for Kafka", new.queue_records.clone());
            kafka.register("consumed_records", "Records read", new.consumed_records.clone());
            kafka.register("consumed_bytes", "Their bytes, uncompressed", new.consumed_bytes.clone());
            kafka.register("poison_records", "Messages read that are no records", new.poison_records.clone());
            kafka.register("lag_records", "Records of an owned partition not read yet", new.lag.clone());
        });
        new
    }

    pub(super) fn failed(&self, reason: &'static str) {
        self.errors.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// The lag of a partition that this process owns.
    pub(super) fn lag(&self, partition: Partition) -> Gauge {
        self.lag.get_or_create(&PartitionLabel { partition: partition.0 }).clone()
    }

    /// The process owns it no longer.
    pub(super) fn disowned(&self, partition: Partition) {
        self.lag.remove(&PartitionLabel { partition: partition.0 });
    }
}
