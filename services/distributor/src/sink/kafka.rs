//! The sink of a cluster whose logs are in Kafka: a record goes to its partition there, whoever owns it.

use async_trait::async_trait;
use bytes::Bytes;
use cambium_ingestlog::kafka::KafkaProducer;
use cambium_model::block::Partition;

use super::{Ack, Sink, SinkError};

/// Writes to Kafka.
#[derive(Debug)]
pub struct KafkaSink(pub std::sync::Arc<KafkaProducer>);

#[async_trait]
impl Sink for KafkaSink {
    /// Whether the record is a retry is found by the partition's owner, later.
    async fn write(&self, partition: Partition, record: Bytes) -> Result<Ack, SinkError> {
        match self.0.append(partition, record).await {
            Ok(_) => Ok(Ack { duplicate: false }),
            Err(error) => Err(SinkError::new(partition, error)),
        }
    }
}
