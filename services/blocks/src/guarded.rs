//! An object store behind bounds: how many requests are under way, and how long the slowest reads may make others wait.
//!
//! ```text
//!   ranges ─► joined where gaps are small ─► a permit ─► request ───────────────┬─► first answer
//!                                                └─ slower than 95 % of reads ─► a second request
//! ```
//!
//! Second requests are bounded by [`Hedge`]. Everything is counted.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use cambium_runtime::clock::Clock;
use cambium_runtime::hedge::Hedge;
use cambium_runtime::metrics::Metrics;
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

/// A store behind [`Bounds`].
pub struct Guarded {
    inner: Arc<dyn ObjectStore>,
    bounds: Bounds,
    reads: Semaphore,
    writes: Semaphore,
    clock: Arc<dyn Clock>,
    hedge: Hedge,
    metrics: StoreMetrics,
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
            hedge: Hedge::new(Arc::clone(&clock)),
            clock,
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
        let ask = || self.run(Operation::get, &self.reads, read());
        if !self.bounds.hedge {
            return ask().await;
        }
        self.hedge.read(ask, |won| self.metrics.hedged(won)).await
    }
}

async fn permit(permits: &Semaphore) -> SemaphorePermit<'_> {
    permits.acquire().await.expect("it is never closed")
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
