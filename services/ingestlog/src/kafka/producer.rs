//! The way in: records of all partitions through one client.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use cambium_model::block::{Offset, Partition};
use cambium_runtime::clock::Clock;

use super::client::{self, Context, OVERHEAD_BYTES, is_refusal};
use super::config::{Compression, Config};
use super::{KafkaMetrics, mark};
use crate::log::{Error, RECORD_BYTES_MAX};

/// Records that may wait for Kafka, whatever they weigh.
pub const QUEUE_RECORDS_MAX: usize = 100_000;

/// Appends records, durable when the offset is returned. Share one in a process: it batches what goes to one broker.
pub struct KafkaProducer {
    config: Config,
    client: RwLock<Client>,
    clock: Arc<dyn Clock>,
    metrics: KafkaMetrics,
}

#[derive(Clone)]
pub(super) struct Client {
    pub(super) producer: FutureProducer<Context>,
    context: Context,
    /// How many clients there were before.
    generation: u64,
}

impl KafkaProducer {
    /// A client with these settings; it connects by itself, now and whenever it must.
    ///
    /// # Errors
    /// [`Error::Refused`]: the settings do not fit together, or a file that they name cannot be read.
    pub fn open(config: &Config, clock: Arc<dyn Clock>, metrics: KafkaMetrics) -> Result<Self, Error> {
        let client = RwLock::new(Client::new(config, 0)?);
        Ok(Self { config: config.clone(), client, clock, metrics })
    }

    /// Appends a record to a partition.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::QueueFull`] and [`Error::Refused`]: nothing was kept. [`Error::Unconfirmed`] after
    /// `delivery_timeout`: the record may be there.
    pub async fn append(&self, partition: Partition, record: Bytes) -> Result<Offset, Error> {
        let began = self.clock.monotonic();
        let appended = self.produce(partition, &record).await;
        self.metrics.queue_records.set(i64::try_from(self.queued()).unwrap_or(i64::MAX));
        match &appended {
            Ok(_) => {
                self.metrics.produced_records.inc();
                self.metrics.produced_bytes.inc_by(record.len() as u64);
                let took = self.clock.monotonic().saturating_sub(began);
                self.metrics.produce_seconds.observe(took.as_secs_f64());
            }
            Err(Error::TooLarge { .. }) => self.metrics.failed("too_large"),
            Err(Error::QueueFull) => self.metrics.failed("queue_full"),
            Err(Error::Unconfirmed { .. }) => self.metrics.failed("unconfirmed"),
            Err(_) => self.metrics.failed("refused"),
        }
        appended
    }

    /// Records that wait for Kafka, of all partitions.
    pub fn queued(&self) -> u64 {
        u64::try_from(self.client().producer.in_flight_count()).unwrap_or_default()
    }

    async fn produce(&self, partition: Partition, record: &[u8]) -> Result<Offset, Error> {
        let bytes = record.len();
        let bytes_max = record_bytes_max(&self.config);
        if bytes > bytes_max {
            return Err(Error::TooLarge { bytes, bytes_max });
        }
        let client = self.client();
        let number = i32::try_from(partition.0).map_err(|_| Error::Refused {
            source: Arc::new(KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition)),
        })?;
        let message = FutureRecord::<(), [u8]>::to(&self.config.topic)
            .partition(number)
            .payload(record)
            .headers(mark::headers(record));
        let queued = client.producer.send_result(message).map_err(|(error, _)| error);
        let delivered = match queued {
            Ok(delivery) => delivery.await.expect("`client` keeps its producer alive"),
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => return Err(Error::QueueFull),
            Err(error) => return Err(self.failed(&client, error)),
        };
        match delivered {
            Ok(delivery) => {
                client.context.settled();
                Ok(Offset(u64::try_from(delivery.offset).expect("acks=all returns offsets")))
            }
            Err((error, _)) => Err(self.failed(&client, error)),
        }
    }

    /// What a failed record means. A client that has lost track of what it has sent can do nothing more, by the rules of
    /// idempotence: the next record goes through a new one.
    fn failed(&self, client: &Client, error: KafkaError) -> Error {
        if let Some((_, reason)) = client.producer.client().fatal_error() {
            tracing::error!(reason, "the kafka client has ended, a new one is made");
            self.renew(client.generation);
        }
        let refused = is_refusal(&error);
        let source = Arc::new(client.context.explain(error));
        if refused { Error::Refused { source } } else { Error::Unconfirmed { source } }
    }

    fn renew(&self, ended: u64) {
        let mut client = self.client.write().unwrap_or_else(PoisonError::into_inner);
        if client.generation == ended {
            match Client::new(&self.config, ended + 1) {
                Ok(new) => *client = new,
                // The next failure tries again.
                Err(error) => tracing::error!(%error, "no new kafka client could be made"),
            }
        }
    }

    pub(super) fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaProducer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Client {
    fn new(config: &Config, generation: u64) -> Result<Self, Error> {
        let context = Context::default();
        let compression = match config.compression {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        };
        let producer = client::settings(config)?
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", compression)
            .set("linger.ms", config.linger.0.as_millis().to_string())
            .set("batch.size", config.batch_bytes.0.to_string())
            .set("message.max.bytes", (config.record_bytes_max.0 + OVERHEAD_BYTES).to_string())
            .set("queue.buffering.max.kbytes", config.queue_bytes_max.0.div_ceil(1 << 10).to_string())
            .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
            .set("delivery.timeout.ms", config.delivery_timeout.0.as_millis().to_string())
            .create_with_context(context.clone())
            .map_err(|error| client::asked(context.explain(error)))?;
        Ok(Self { producer, context, generation })
    }
}

/// The largest record that the settings let in.
fn record_bytes_max(config: &Config) -> usize {
    usize::try_from(config.record_bytes_max.0).unwrap_or(usize::MAX).min(RECORD_BYTES_MAX)
}
