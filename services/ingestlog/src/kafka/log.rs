//! A partition of the topic as a [`Log`], for its owner.
//!
//! The end is known from three sides: the offsets of our own appends, what the cursor reads ahead, and Kafka, asked now
//! and then. The last is what finds an end that moved while the cursor was elsewhere.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{RwLock, mpsc, oneshot, watch};

use cambium_model::block::{LogId, Offset, Partition};
use cambium_runtime::clock::Clock;
use cambium_runtime::tasks::Tasks;

use super::cursor::{Command, Cursor, payload_bytes};
use super::partition::KafkaPartition;
use super::{Config, KafkaMetrics, KafkaProducer, log_id};
use crate::log::{Entry, Error, Log, Stats};

/// Reads that may wait for the one under way; more wait in [`Log::read`].
const PENDING_COMMANDS_MAX: usize = 16;

/// What a log needs of the process.
#[derive(Clone, Debug)]
pub struct Deps {
    /// Appends.
    pub producer: Arc<KafkaProducer>,
    /// Tells when an answer is late.
    pub clock: Arc<dyn Clock>,
    /// Counts.
    pub metrics: KafkaMetrics,
}

/// A partition of the topic.
pub struct KafkaLog {
    id: LogId,
    deps: Deps,
    partition: KafkaPartition,
    bounds: watch::Sender<Bounds>,
    commands: mpsc::Sender<Command>,
    /// Held by appends under way; whoever closes waits for them.
    appends: RwLock<()>,
    counts: Counts,
    lag: Gauge,
    tasks: Tasks,
}

/// What is known of where the log begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub first: u64,
    pub next: u64,
    pub closed: bool,
}

#[derive(Debug, Default)]
struct Counts {
    appended_records: AtomicU64,
    appended_bytes: AtomicU64,
    failed_appends: AtomicU64,
    /// Where the last page that was read ended.
    read_next: AtomicU64,
}

impl Bounds {
    /// Notes a later first and a later next offset; neither goes back.
    pub(super) fn raise(bounds: &watch::Sender<Self>, first: u64, next: u64) {
        bounds.send_if_modified(|bounds| {
            let moved = first > bounds.first || next > bounds.next;
            bounds.next = bounds.next.max(next);
            bounds.first = bounds.first.max(first.min(bounds.next));
            moved
        });
    }

    pub(super) fn out_of_range(&self, from: u64) -> Error {
        Error::OutOfRange { from: Offset(from), first: Offset(self.first), next: Offset(self.next) }
    }
}

impl KafkaLog {
    /// Opens a partition's log, which is there as soon as the topic is.
    ///
    /// # Errors
    /// [`Error::Unreachable`]; [`Error::Refused`], also where there is no such partition.
    pub async fn open(partition: Partition, config: &Config, deps: Deps) -> Result<Self, Error> {
        let id = log_id(partition);
        let lag = deps.metrics.lag(partition);
        let partition = KafkaPartition::open(partition, config)?;
        let (first, next) = partition.watermarks().await?;
        let bounds = watch::Sender::new(Bounds { first, next, closed: false });
        let counts = Counts { read_next: next.into(), ..Counts::default() };
        let tasks = Tasks::new();
        let (commands, receiver) = mpsc::channel(PENDING_COMMANDS_MAX);
        let cursor = Cursor {
            partition: partition.clone(),
            bounds: bounds.clone(),
            clock: Arc::clone(&deps.clock),
            place: None,
            held: Default::default(),
        };
        tasks.spawn("kafka-cursor", cursor.run(receiver, tasks.shutdown_signal()));
        let (asking, told) = (partition.clone(), bounds.clone());
        let (clock, shutdown) = (Arc::clone(&deps.clock), tasks.shutdown_signal());
        let interval = config.refresh_interval.0;
        tasks.spawn("kafka-watermarks", async move {
            let refreshing = async {
                loop {
                    clock.sleep(interval).await;
                    if let Err(error) = refresh(&asking, &told).await {
                        tracing::warn!(log = %id, %error, "the end of the log is not known");
                    }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = refreshing => {}
            }
        });
        let appends = RwLock::new(());
        Ok(Self { id, deps, partition, bounds, commands, appends, counts, lag, tasks })
    }

    fn bounds(&self) -> Bounds {
        *self.bounds.borrow()
    }

    /// Counts a page that was read.
    fn count(&self, page: &[Entry]) {
        let metrics = &self.deps.metrics;
        for entry in page {
            match entry {
                Entry::Record { .. } => _ = metrics.consumed_records.inc(),
                Entry::Poison { .. } => _ = metrics.poison_records.inc(),
                Entry::Gap { .. } => {}
            }
        }
        metrics.consumed_bytes.inc_by(page.iter().map(payload_bytes).sum::<usize>() as u64);
        if let Some(last) = page.last() {
            self.counts.read_next.store(last.next().0, Ordering::Relaxed);
        }
        self.lag.set(i64::try_from(self.lag_records()).unwrap_or(i64::MAX));
    }

    fn lag_records(&self) -> u64 {
        self.bounds().next.saturating_sub(self.counts.read_next.load(Ordering::Relaxed))
    }
}

/// Asks Kafka where the log begins and ends.
async fn refresh(partition: &KafkaPartition, bounds: &watch::Sender<Bounds>) -> Result<(), Error> {
    let known = bounds.borrow().next;
    let (first, next) = partition.watermarks().await?;
    if next < known {
        tracing::error!(
            topic = %partition.topic,
            partition = partition.number,
            known,
            next,
            "kafka has lost records that it had confirmed"
        );
    }
    Bounds::raise(bounds, first, next);
    Ok(())
}

#[async_trait]
impl Log for KafkaLog {
    fn id(&self) -> LogId {
        self.id
    }

    async fn append(&self, record: Bytes) -> Result<Offset, Error> {
        let _pending = self.appends.read().await;
        if self.bounds().closed {
            return Err(Error::Closed);
        }
        let bytes = record.len() as u64;
        let appended = self.deps.producer.append(self.id.partition, record).await;
        match appended {
            Ok(offset) => {
                self.counts.appended_records.fetch_add(1, Ordering::Relaxed);
                self.counts.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
                Bounds::raise(&self.bounds, 0, offset.0 + 1);
            }
            Err(_) => _ = self.counts.failed_appends.fetch_add(1, Ordering::Relaxed),
        }
        appended
    }

    async fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<Entry>, Error> {
        if from.0 > self.bounds().next {
            refresh(&self.partition, &self.bounds).await?;
        }
        let bounds = self.bounds();
        if bounds.closed {
            return Err(Error::Closed);
        }
        if !(bounds.first..=bounds.next).contains(&from.0) {
            return Err(bounds.out_of_range(from.0));
        }
        if from.0 == bounds.next {
            return Ok(Vec::new());
        }
        let (answer, page) = oneshot::channel();
        let read = Command::Read { from: from.0, next: bounds.next, bytes_max, answer };
        self.commands.send(read).await.map_err(|_| Error::Closed)?;
        let page = page.await.map_err(|_| Error::Closed)?;
        if let Err(Error::OutOfRange { .. }) = page {
            // Removed after we last asked: say what there is now.
            refresh(&self.partition, &self.bounds).await?;
            return Err(self.bounds().out_of_range(from.0));
        }
        page.inspect(|page| self.count(page))
    }

    async fn wait(&self, from: Offset) -> Result<(), Error> {
        if self.bounds().next <= from.0 {
            self.commands.send(Command::Follow).await.map_err(|_| Error::Closed)?;
        }
        let mut bounds = self.bounds.subscribe();
        let reached = bounds.wait_for(|bounds| bounds.next > from.0 || bounds.closed).await;
        let open = reached.is_ok_and(|bounds| bounds.next > from.0);
        if open { Ok(()) } else { Err(Error::Closed) }
    }

    /// Kafka forgets by age, for all logs of the topic alike; this is remembered for as long as the log is open.
    async fn truncate(&self, upto: Offset) -> Result<(), Error> {
        Bounds::raise(&self.bounds, upto.0, 0);
        Ok(())
    }

    fn first(&self) -> Offset {
        Offset(self.bounds().first)
    }

    fn next(&self) -> Offset {
        Offset(self.bounds().next)
    }

    /// Without `bytes`, `segments` and `syncs`, which only Kafka knows; the queue is that of the process.
    fn stats(&self) -> Stats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            queue_depth: self.deps.producer.queued(),
            appended_records: count(&self.counts.appended_records),
            appended_bytes: count(&self.counts.appended_bytes),
            failed_appends: count(&self.counts.failed_appends),
            lag_records: self.lag_records(),
            ..Stats::default()
        }
    }

    async fn close(&self) {
        {
            let _none_pending = self.appends.write().await;
            self.bounds.send_modify(|bounds| bounds.closed = true);
        }
        self.tasks.shut_down().await;
        self.deps.metrics.disowned(self.id.partition);
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.tasks.shutdown_signal().cancel();
    }
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog")
            .field("id", &self.id)
            .field("bounds", &self.bounds())
            .finish_non_exhaustive()
    }
}
