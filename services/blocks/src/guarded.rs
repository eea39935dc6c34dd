//! An object store behind bounds: how many requests are under way, and how long the slowest reads may make others wait.
//!
//! ```text
//!   ranges ─► joined where gaps are small ─► a permit ─► request ───────────────┬─► first answer
//!                                                └─ slower than 95 % of reads ─► a second request
//! ```
//!
//! Second requests are the hedge of Dean and Barroso, The Tail at Scale (2013): one in twenty at most, so that a store
//! that is slow for all is not asked twice as much. Everything is counted.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use futures::future::{Either, select};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, coalesce_ranges,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use metrics::{Operation, StoreMetrics};

mod metrics;

/// How a store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Reads under way at a time.
    pub reads_max: usize,
    /// Writes under way at a time.
    pub writes_max: usize,
    /// Ranges of an object at most this many bytes apart are one request.
    pub gap_bytes: u64,
    /// Whether slow reads are asked for a second time.
    pub hedge: bool,
}

impl Bounds {
    /// Of a folder: nothing is far apart, and asking twice does not help.
    pub const LOCAL: Self = Self { reads_max: 256, writes_max: 64, gap_bytes: 0, hedge: false };
    /// Of a store over a network, where a request costs as much as a megabyte.
    pub const REMOTE: Self = Self { reads_max: 128, writes_max: 32, gap_bytes: 1 << 20, hedge: true };
}

/// Reads by whose times the slow ones are told.
const TIMES_HELD: usize = 256;
/// Reads before any is called slow.
const TIMES_MIN: usize = 64;
/// No read is called slow before this.
const SLOW_MIN: Duration = Duration::from_millis(5);
/// Reads for each second request, at least.
const READS_PER_HEDGE: u64 = 20;

/// A store behind [`Bounds`].
pub struct Guarded {
    inner: Arc<dyn ObjectStore>,
    bounds: Bounds,
    reads: Semaphore,
    writes: Semaphore,
    clock: Arc<dyn Clock>,
    times: Mutex<Times>,
    /// Reads so far, and second requests.
    asked: AtomicU64,
    hedged: AtomicU64,
    metrics: StoreMetrics,
}

/// How long the last reads took.
#[derive(Debug, Default)]
struct Times {
    held: Vec<Duration>,
    next: usize,
    slow: Option<Duration>,
}

impl Times {
    fn add(&mut self, time: Duration) {
        if self.held.len() < TIMES_HELD {
            self.held.push(time);
        } else {
            self.held[self.next % TIMES_HELD] = time;
        }
        self.next += 1;
        if self.held.len() >= TIMES_MIN && self.next.is_multiple_of(TIMES_MIN) {
            let mut sorted = self.held.clone();
            let at = sorted.len() * 95 / 100;
            self.slow = Some((*sorted.select_nth_unstable(at).1).max(SLOW_MIN));
        }
    }
}

impl Guarded {
    /// `inner` behind bounds; registers what is counted.
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        bounds: Bounds,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Self {
        Self {
            inner,
            bounds,
            reads: Semaphore::new(bounds.reads_max),
            writes: Semaphore::new(bounds.writes_max),
            clock,
            times: Mutex::default(),
            asked: AtomicU64::new(0),
            hedged: AtomicU64::new(0),
            metrics: StoreMetrics::new(metrics),
        }
    }

    /// Runs a request under a permit and counts it.
    async fn run<T>(
        &self,
        operation: Operation,
        permits: &Semaphore,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let _permit = permit(permits).await;
        let start = self.clock.monotonic();
        let result = request.await;
        self.metrics.count(operation, self.clock.monotonic().saturating_sub(start), result.is_ok());
        result
    }

    /// A read, and a second time where it is slow; the first answer counts.
    async fn read<T, F: Future<Output = Result<T>>>(&self, read: impl Fn() -> F) -> Result<T> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let start = self.clock.monotonic();
        let first = std::pin::pin!(self.run(Operation::get, &self.reads, read()));
        let slow = self.times.lock().unwrap_or_else(PoisonError::into_inner).slow;
        let answer = match slow.filter(|_| self.bounds.hedge) {
            None => first.await,
            Some(slow) => match select(first, self.clock.sleep(slow)).await {
                Either::Left((answer, _)) => answer,
                Either::Right(((), first)) if self.may_hedge() => {
                    let second = std::pin::pin!(self.run(Operation::get, &self.reads, read()));
                    let (answer, won) = either(first, second).await;
                    self.metrics.hedged(won);
                    answer
                }
                Either::Right(((), first)) => first.await,
            },
        };
        if answer.is_ok() {
            let spent = self.clock.monotonic().saturating_sub(start);
            self.times.lock().unwrap_or_else(PoisonError::into_inner).add(spent);
        }
        answer
    }

    fn may_hedge(&self) -> bool {
        let most = self.asked.load(Ordering::Relaxed) / READS_PER_HEDGE;
        let take = |hedged: u64| (hedged < most).then_some(hedged + 1);
        self.hedged.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

async fn permit(permits: &Semaphore) -> SemaphorePermit<'_> {
    permits.acquire().await.expect("it is never closed")
}

/// The first that succeeds, or the last error; and whether it was the second.
async fn either<T>(
    first: impl Future<Output = Result<T>> + Unpin,
    second: impl Future<Output = Result<T>> + Unpin,
) -> (Result<T>, bool) {
    match select(first, second).await {
        Either::Left((Ok(answer), _)) => (Ok(answer), false),
        Either::Right((Ok(answer), _)) => (Ok(answer), true),
        Either::Left((Err(_), second)) => (second.await, true),
        Either::Right((Err(_), first)) => (first.await, false),
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Clients of clouds show their secrets.
        let inner = format_args!("{}", self.inner);
        f.debug_struct("Guarded").field("inner", &inner).field("bounds", &self.bounds).finish()
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Guarded {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let bytes = payload.content_length() as u64;
        let put = self.inner.put_opts(location, payload, opts);
        let result = self.run(Operation::put, &self.writes, put).await?;
        self.metrics.bytes_written.inc_by(bytes);
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.run(Operation::put, &self.writes, self.inner.put_multipart_opts(location, opts)).await
    }

    /// Not hedged: what it answers with is read later.
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::head } else { Operation::get };
        let result = self.run(operation, &self.reads, self.inner.get_opts(location, options.clone())).await?;
        if !options.head {
            self.metrics.bytes_read.inc_by(result.range.end - result.range.start);
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let fetch = |range: Range<u64>| async move {
            let bytes = self.read(|| self.inner.get_range(location, range.clone())).await?;
            self.metrics.bytes_read.inc_by(bytes.len() as u64);
            Ok(bytes)
        };
        coalesce_ranges(ranges, fetch, self.bounds.gap_bytes).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let metrics = self.metrics.clone();
        self.inner.delete_stream(locations).inspect(move |result| metrics.deleted(result.is_ok())).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let metrics = self.metrics.clone();
        self.inner.list(prefix).inspect_ok(move |_| _ = metrics.objects_listed.inc()).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.run(Operation::list, &self.reads, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.run(Operation::put, &self.writes, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.run(Operation::put, &self.writes, self.inner.rename_opts(from, to, options)).await
    }
}

#[cfg(test)]
mod tests;
