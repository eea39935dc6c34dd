//! An object store that fails when told to.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// How a `put` goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutFault {
    /// Nothing is written.
    NotWritten,
    /// The object is written and durable, but the caller is told that it failed.
    AnswerLost,
}

/// Another store with faults in front of it. Clones share them.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    not_written: Arc<AtomicU64>,
    answers_lost: Arc<AtomicU64>,
    puts: Arc<AtomicU64>,
}

impl FaultyStore {
    /// `inner` without faults so far.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, not_written: Arc::default(), answers_lost: Arc::default(), puts: Arc::default() }
    }

    /// The next `times` puts go wrong in this way.
    pub fn fail_puts(&self, fault: PutFault, times: u64) {
        self.counter(fault).store(times, Ordering::SeqCst);
    }

    /// How often something was put.
    pub fn puts(&self) -> u64 {
        self.puts.load(Ordering::SeqCst)
    }

    fn counter(&self, fault: PutFault) -> &AtomicU64 {
        match fault {
            PutFault::NotWritten => &self.not_written,
            PutFault::AnswerLost => &self.answers_lost,
        }
    }

    fn strikes(&self, fault: PutFault) -> bool {
        let take = |left: u64| left.checked_sub(1);
        self.counter(fault).fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }
}

fn injected(fault: PutFault) -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: format!("injected fault {fault:?}").into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.puts.fetch_add(1, Ordering::SeqCst);
        if self.strikes(PutFault::NotWritten) {
            return Err(injected(PutFault::NotWritten));
        }
        let result = self.inner.put_opts(location, payload, opts).await?;
        if self.strikes(PutFault::AnswerLost) {
            return Err(injected(PutFault::AnswerLost));
        }
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
