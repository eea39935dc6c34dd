//! What was measured: histograms of every kind of operation, and a line of figures for every bit of the run.
//!
//! A latency is recorded twice: from when the operation was due (what users feel), and from when it was sent (what the
//! server takes; the difference is waiting for room in flight and for this program).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

/// Lines of a run's time line; a longer run has wider ones.
pub const LINES_MAX: u64 = 600;
/// The longest latency that is told apart, microseconds: an hour.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// Digits of a latency that are kept: of a whole run, of a line of its time line.
const DIGITS: u8 = 3;
const DIGITS_OF_LINE: u8 = 2;
/// Different messages that are kept of operations that failed, and how often each came.
const MESSAGES_MAX: usize = 20;

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Push,
    Flamegraph,
    QueryRange,
    MergeAll,
    Labels,
    LabelValues,
    /// A question of the verification; asked one after the other, so it is due when it is sent.
    Check,
}

impl Operation {
    pub const ALL: [Self; 7] = [
        Self::Push,
        Self::Flamegraph,
        Self::QueryRange,
        Self::MergeAll,
        Self::Labels,
        Self::LabelValues,
        Self::Check,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Flamegraph => "flame graph of a service",
            Self::QueryRange => "query_range of a service",
            Self::MergeAll => "flame graph of everything",
            Self::Labels => "label names",
            Self::LabelValues => "values of pod",
            Self::Check => "check",
        }
    }
}

/// Percentiles of latencies, milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// All of one kind of operation.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub operation: Operation,
    /// Operations that ended well, and others.
    pub ok: u64,
    pub failed: u64,
    /// Operations that began late.
    pub late: u64,
    /// Of those that ended well, from when they were due.
    pub latency: Latency,
    /// The same, from when the last attempt was sent.
    pub service: Latency,
}

/// One bit of time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Line {
    /// When it ends, seconds from the start.
    pub second: f64,
    /// How long it is, seconds.
    pub seconds: f64,
    pub operations: BTreeMap<Operation, LineOfOperation>,
    /// Pushes in flight at its end.
    pub in_flight: u64,
    /// Pushes that began late in it.
    pub late: u64,
    /// Attempts that were sent again in it.
    pub retries: u64,
    /// The server's resident memory at its end, bytes, where its process is known.
    pub server_rss_bytes: Option<u64>,
    /// The server's cores in use on average over it, likewise.
    pub server_cores: Option<f64>,
    /// This program's.
    pub own_cores: f64,
}

/// One kind of operation in one bit of time.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LineOfOperation {
    pub ok: u64,
    pub failed: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Where everything is recorded.
#[derive(Debug)]
pub struct Recorder {
    operations: BTreeMap<Operation, Mutex<Stats>>,
    /// Messages of what failed, and how often each came.
    messages: Mutex<BTreeMap<String, u64>>,
    /// Attempts after the first.
    pub retries: AtomicU64,
    /// Pushes that the server said it had before.
    pub duplicates: AtomicU64,
    /// Pushes by fate.
    pub acked: AtomicU64,
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
    /// Of acknowledged pushes.
    pub samples: AtomicU64,
    pub body_bytes: AtomicU64,
}

#[derive(Debug)]
struct Stats {
    ok: u64,
    failed: u64,
    late: u64,
    latency: Histogram<u64>,
    service: Histogram<u64>,
    /// Since the last line.
    line: LineOfOperation,
    line_latency: Histogram<u64>,
}

impl Recorder {
    pub fn new() -> Self {
        let stats = Operation::ALL.map(|operation| (operation, Mutex::new(Stats::new())));
        Self {
            operations: stats.into_iter().collect(),
            messages: Mutex::default(),
            retries: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
        }
    }

    /// An operation has ended well, now.
    pub fn ok(&self, operation: Operation, due: Instant, sent: Instant) {
        let now = Instant::now();
        let micros = |since: Instant| now.saturating_duration_since(since).as_micros() as u64;
        let mut stats = self.stats(operation);
        stats.ok += 1;
        stats.line.ok += 1;
        stats.latency.saturating_record(micros(due));
        stats.line_latency.saturating_record(micros(due));
        stats.service.saturating_record(micros(sent));
    }

    /// An operation has failed.
    pub fn failed(&self, operation: Operation, why: &str) {
        {
            let mut stats = self.stats(operation);
            stats.failed += 1;
            stats.line.failed += 1;
        }
        self.message(operation, why);
    }

    /// Something to say that is no failure by itself.
    pub fn message(&self, operation: Operation, why: &str) {
        // Numbers differ between messages that say the same.
        let text: String = why.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{}: {text}", operation.name());
        if messages.len() < MESSAGES_MAX || messages.contains_key(&key) {
            *messages.entry(key).or_default() += 1;
        }
    }

    /// So many operations began late, of the whole run.
    pub fn begun_late(&self, operation: Operation, late: u64) {
        self.stats(operation).late = late;
    }

    /// What failed, in words, and how often.
    pub fn messages(&self) -> BTreeMap<String, u64> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kinds of operation of which there were any.
    pub fn summaries(&self) -> Vec<Summary> {
        let summary = |&operation: &Operation| {
            let stats = self.stats(operation);
            let (ok, failed) = (stats.ok, stats.failed);
            (ok + failed > 0).then(|| Summary {
                operation,
                ok,
                failed,
                late: stats.late,
                latency: latency(&stats.latency),
                service: latency(&stats.service),
            })
        };
        Operation::ALL.iter().filter_map(summary).collect()
    }

    /// What operations came to since this was last asked.
    pub fn take_line(&self) -> BTreeMap<Operation, LineOfOperation> {
        let take = |&operation: &Operation| {
            let mut stats = self.stats(operation);
            let mut line = std::mem::take(&mut stats.line);
            let quantile = |at| stats.line_latency.value_at_quantile(at) as f64 / 1e3;
            (line.p50_ms, line.p99_ms) = (quantile(0.5), quantile(0.99));
            stats.line_latency.reset();
            (line.ok + line.failed > 0).then_some((operation, line))
        };
        Operation::ALL.iter().filter_map(take).collect()
    }

    /// The latency of pushes that one in a hundred exceeds, so far.
    pub fn push_p99(&self) -> Duration {
        Duration::from_micros(self.stats(Operation::Push).latency.value_at_quantile(0.99))
    }

    fn stats(&self, operation: Operation) -> MutexGuard<'_, Stats> {
        self.operations[&operation].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stats {
    fn new() -> Self {
        let histogram =
            |digits| Histogram::new_with_bounds(1, LATENCY_MAX_US, digits).expect("the bounds are in order");
        Self {
            ok: 0,
            failed: 0,
            late: 0,
            latency: histogram(DIGITS),
            service: histogram(DIGITS),
            line: LineOfOperation::default(),
            line_latency: histogram(DIGITS_OF_LINE),
        }
    }
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    let quantile = |at| histogram.value_at_quantile(at) as f64 / 1e3;
    Latency {
        mean_ms: histogram.mean() / 1e3,
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        max_ms: histogram.max() as f64 / 1e3,
    }
}

/// Adds one to a count.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
