//! Against a real broker; skipped where peers are.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use cambium_model::block::{Offset, Partition};
use cambium_peers::Kafka;
use cambium_runtime::clock::{Clock, SystemClock};
use cambium_runtime::metrics::Metrics;
use cambium_runtime::quantity::{ByteSize, Span};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use super::log::Deps;
use super::{Config, KafkaLog, KafkaMetrics, KafkaProducer, ensure_topic};
use crate::contract;
use crate::log::{Entry, Error, Log};

mod faults;
mod follow;
mod poison;
mod refusals;
mod security;
mod throughput;

/// The broker of all tests that do it no harm, for as long as any of them runs.
fn shared() -> Option<Arc<Shared>> {
    static BROKER: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
    let mut held = BROKER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(broker) = held.upgrade() {
        return Some(broker);
    }
    let broker = Kafka::start()?;
    let broker = Arc::new(Shared { address: broker.address().to_owned(), _broker: Mutex::new(broker) });
    *held = Arc::downgrade(&broker);
    Some(broker)
}

struct Shared {
    address: String,
    /// Dropped, and so ended, with the last test.
    _broker: Mutex<Kafka>,
}

/// A topic, and a process that uses it.
struct Node {
    config: Config,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    deps: Deps,
}

impl Node {
    /// With a topic of its own.
    async fn new(address: &str, topic: &str, partitions: u32) -> Self {
        let node = Self::with(config(address, topic));
        assert!(ensure_topic(&node.config, partitions, &*node.clock).await.unwrap(), "it is new");
        node
    }

    fn with(config: Config) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let metrics = Metrics::new();
        let counted = KafkaMetrics::new(&metrics);
        let producer = KafkaProducer::open(&config, Arc::clone(&clock), counted.clone()).unwrap();
        let deps = Deps { producer: Arc::new(producer), clock: Arc::clone(&clock), metrics: counted };
        Self { config, clock, metrics, deps }
    }

    async fn log(&self, partition: u32) -> Arc<dyn Log> {
        Arc::new(KafkaLog::open(Partition(partition), &self.config, self.deps.clone()).await.unwrap())
    }

    fn admin(&self) -> (AdminClient<DefaultClientContext>, AdminOptions) {
        let admin = ClientConfig::new().set("bootstrap.servers", &self.config.brokers).create().unwrap();
        (admin, AdminOptions::new().operation_timeout(Some(self.config.request_timeout.0)))
    }
}

/// For one broker, which is all there is.
fn config(brokers: &str, topic: &str) -> Config {
    Config {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        replication_factor: 1,
        min_insync_replicas: 1,
        record_bytes_max: ByteSize(1 << 20),
        ..Config::default()
    }
}

/// A topic as somebody else would make it.
async fn make_topic(node: &Node, partitions: i32, settings: &[(&str, &str)]) {
    let topic = NewTopic::new(&node.config.topic, partitions, TopicReplication::Fixed(1));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let (admin, options) = node.admin();
    let results = admin.create_topics([&topic], &options).await.unwrap();
    assert!(results[0].is_ok(), "{results:?}");
}

#[tokio::test]
async fn upholds_the_contract() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "contract", 12).await;
    contract::upholds(async |log| node.log(log).await).await;
}

#[tokio::test]
async fn survives_reopening() {
    let Some(broker) = shared() else { return };
    let node = Node::new(&broker.address, "reopening", 2).await;
    contract::survives(async |log| node.log(log).await).await;
}
