//! A consumer of one partition: no group, no commits, a place that is always given.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::task;

use cambium_model::block::Partition;

use super::Config;
use super::client::{self, Context, OVERHEAD_BYTES, asked};
use crate::log::Error;

/// The client wants a group's name before it assigns anything; nothing is ever asked of the group.
const GROUP: &str = "cambium";

/// How long Kafka keeps a question for new records open, in milliseconds. Whoever goes elsewhere waits for its end.
const FETCH_WAIT_MS_MAX: u32 = 100;

/// An answer is this much larger than what it holds, at most.
const ANSWER_OVERHEAD_BYTES: u64 = 64 << 10;

#[derive(Clone)]
pub(super) struct KafkaPartition {
    pub consumer: Arc<StreamConsumer<Context>>,
    pub topic: Arc<str>,
    pub number: i32,
    /// How long Kafka may take to answer.
    pub timeout: Duration,
}

impl KafkaPartition {
    pub(super) fn open(partition: Partition, config: &Config) -> Result<Self, Error> {
        let context = Context::default();
        let batch_bytes = config.record_bytes_max.0 + OVERHEAD_BYTES;
        let answer_bytes = batch_bytes.max(config.read_ahead_bytes.0);
        let consumer = client::settings(config)?
            .set("group.id", GROUP)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            // Nobody writes transactions here, and one that somebody leaves open must not hold us up.
            .set("isolation.level", "read_uncommitted")
            .set("fetch.wait.max.ms", FETCH_WAIT_MS_MAX.to_string())
            .set("fetch.message.max.bytes", batch_bytes.to_string())
            .set("fetch.max.bytes", answer_bytes.to_string())
            .set("receive.message.max.bytes", (answer_bytes + ANSWER_OVERHEAD_BYTES).to_string())
            .set("queued.max.messages.kbytes", config.read_ahead_bytes.0.div_ceil(1 << 10).to_string())
            .create_with_context(context.clone())
            .map_err(|error| asked(context.explain(error)))?;
        Ok(Self {
            consumer: Arc::new(consumer),
            topic: config.topic.as_str().into(),
            number: i32::try_from(partition.0).unwrap_or(i32::MAX),
            timeout: config.request_timeout.0,
        })
    }

    /// Lets the consumer give what stands at `offset` and after it.
    pub(super) fn assign(&self, offset: u64) -> Result<(), Error> {
        let place = KafkaOffset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(&self.topic, self.number, place)
            .and_then(|()| self.consumer.assign(&assignment))
            .map_err(|error| self.failed(error))
    }

    /// The first offset that Kafka keeps, and the first after all that are durable.
    pub(super) async fn watermarks(&self) -> Result<(u64, u64), Error> {
        let asking = self.clone();
        let (first, next) = task::spawn_blocking(move || {
            let answer = asking.consumer.fetch_watermarks(&asking.topic, asking.number, asking.timeout);
            answer.map_err(|error| asking.failed(error))
        })
        .await
        // The runtime is shutting down.
        .map_err(|_| Error::Closed)??;
        Ok((u64::try_from(first).unwrap_or_default(), u64::try_from(next).unwrap_or_default()))
    }

    /// What a failed question means.
    pub(super) fn failed(&self, error: KafkaError) -> Error {
        asked(self.consumer.context().explain(error))
    }

    /// Nothing came in time.
    pub(super) fn unanswered(&self) -> Error {
        self.failed(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
    }
}
