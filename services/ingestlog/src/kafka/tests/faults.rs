//! A broker that dies, and one that stands still.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cambium_runtime::error::{HasKind, Kind};
use tokio::task::JoinSet;

use super::*;

/// How many append at a time.
const APPENDERS: usize = 8;

/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(120);

/// Appends without end, each record once, whatever becomes of it.
struct Writers {
    stop: Arc<AtomicBool>,
    confirmed: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    tasks: JoinSet<Vec<(Offset, Bytes)>>,
}

impl Writers {
    fn start(log: &Arc<dyn Log>, round: &'static str) -> Self {
        let (stop, confirmed, failed) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let mut tasks = JoinSet::new();
        for appender in 0..APPENDERS {
            let (log, stop) = (Arc::clone(log), Arc::clone(&stop));
            let (confirmed, failed) = (Arc::clone(&confirmed), Arc::clone(&failed));
            tasks.spawn(async move {
                let mut acked = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let record = Bytes::from(format!("{round} appender {appender} record {number}"));
                    match log.append(record.clone()).await {
                        Ok(offset) => {
                            acked.push((offset, record));
                            confirmed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
                acked
            });
        }
        Self { stop, confirmed, failed, tasks }
    }

    /// Waits until so many more were confirmed.
    async fn more(&self, clock: &dyn Clock, records: u64) {
        let wanted = self.confirmed.load(Ordering::Relaxed) + records;
        until(clock, || self.confirmed.load(Ordering::Relaxed) >= wanted).await;
    }

    async fn stop(self) -> (Vec<(Offset, Bytes)>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let acked = self.tasks.join_all().await.concat();
        (acked, self.failed.load(Ordering::Relaxed))
    }
}

async fn until(clock: &dyn Clock, mut holds: impl FnMut() -> bool) {
    let deadline = clock.monotonic() + DEADLINE;
    while !holds() {
        assert!(clock.monotonic() < deadline, "what was waited for did not happen in {DEADLINE:?}");
        clock.sleep(Duration::from_millis(20)).await;
    }
}

/// Every confirmed record is at its offset, and no record is there twice.
async fn check(log: &dyn Log, acked: &[(Offset, Bytes)]) {
    let mut found = BTreeMap::new();
    let mut times: BTreeMap<Bytes, u64> = BTreeMap::new();
    let mut from = Offset(0);
    while from < log.next() {
        for entry in log.read(from, 1 << 20).await.unwrap() {
            from = entry.next();
            let Entry::Record { offset, payload } = entry else { panic!("{entry:?}") };
            *times.entry(payload.clone()).or_default() += 1;
            found.insert(offset, payload);
        }
    }
    assert_eq!(found.len() as u64, from.0, "offsets are dense");
    for (offset, record) in acked {
        assert_eq!(found.get(offset), Some(record), "a confirmed record is where it was said to be");
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_records_outlive_the_broker() {
    let Some(mut broker) = Kafka::start() else { return };
    let mut node = Node::new(broker.address(), "faults", 1).await;
    node.config.request_timeout = Span(Duration::from_secs(2));
    node.config.delivery_timeout = Span(Duration::from_secs(3));
    let node = Node::with(node.config);
    let (clock, log) = (Arc::clone(&node.clock), node.log(0).await);
    let mut acked = Vec::new();

    // Killed for longer than a delivery may take: appends fail meanwhile, and work again by themselves.
    let writers = Writers::start(&log, "killed");
    writers.more(&*clock, 500).await;
    broker.broker.kill();
    until(&*clock, || writers.failed.load(Ordering::Relaxed) >= APPENDERS as u64).await;
    let missing = log.read(Offset(0), 1).await;
    assert!(
        missing.as_ref().map_or_else(|error| error.kind() == Kind::Unavailable, |page| page.len() == 1),
        "{missing:?}"
    );
    broker.broker.start();
    writers.more(&*clock, 500).await;
    let (confirmed, failed) = writers.stop().await;
    eprintln!("killed for long: {} confirmed, {failed} failed", confirmed.len());
    acked.extend(confirmed);
    check(&*log, &acked).await;

    // Standing still for longer than that.
    let writers = Writers::start(&log, "still");
    writers.more(&*clock, 500).await;
    broker.broker.pause();
    until(&*clock, || writers.failed.load(Ordering::Relaxed) >= APPENDERS as u64).await;
    broker.broker.resume();
    writers.more(&*clock, 500).await;
    let (confirmed, failed) = writers.stop().await;
    eprintln!("standing still: {} confirmed, {failed} failed", confirmed.len());
    acked.extend(confirmed);
    check(&*log, &acked).await;

    // Killed, with patience: nothing fails, and what is sent again is there once.
    let patient = Node::with(Config { delivery_timeout: Span(DEADLINE), ..node.config.clone() });
    let patient_log = patient.log(0).await;
    let writers = Writers::start(&patient_log, "patient");
    writers.more(&*clock, 500).await;
    broker.broker.kill();
    broker.broker.start();
    writers.more(&*clock, 500).await;
    let (confirmed, failed) = writers.stop().await;
    eprintln!("killed, with patience: {} confirmed, {failed} failed", confirmed.len());
    assert_eq!(failed, 0);
    acked.extend(confirmed);
    check(&*patient_log, &acked).await;

    // The owner that was there all the time has it all as well.
    log.wait(acked.iter().map(|(offset, _)| *offset).max().unwrap()).await.unwrap();
    check(&*log, &acked).await;
}

/// A record is on two brokers, or is not confirmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_replicas_confirm_nothing() {
    let Some(mut brokers) = Kafka::replicated() else { return };
    let node = Node::with(Config {
        replication_factor: 2,
        min_insync_replicas: 2,
        request_timeout: Span(Duration::from_secs(2)),
        delivery_timeout: Span(Duration::from_secs(3)),
        ..config(brokers.address(), "replicated")
    });
    ensure_topic(&node.config, 1, &*node.clock).await.unwrap();
    let log = node.log(0).await;
    let writers = Writers::start(&log, "replicated");
    writers.more(&*node.clock, 100).await;
    brokers.follower().kill();
    // Those under way, and one more of each.
    until(&*node.clock, || writers.failed.load(Ordering::Relaxed) >= 2 * APPENDERS as u64).await;
    let (confirmed, failed) =
        (writers.confirmed.load(Ordering::Relaxed), writers.failed.load(Ordering::Relaxed));
    until(&*node.clock, || writers.failed.load(Ordering::Relaxed) >= failed + APPENDERS as u64).await;
    assert_eq!(writers.confirmed.load(Ordering::Relaxed), confirmed);
    let text = node.metrics.encode();
    assert!(text.contains("cambium_kafka_produce_errors_total{reason=\"unconfirmed\"}"), "{text}");
    brokers.follower().start();
    writers.more(&*node.clock, 100).await;
    let (acked, failed) = writers.stop().await;
    eprintln!("without a replica: {} confirmed, {failed} failed", acked.len());
    check(&*log, &acked).await;
}
