use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cambium_runtime::clock::MockClock;
use cambium_runtime::hedge::{SLOW_MIN, TIMES_MIN};
use object_store::memory::InMemory;
use tokio::sync::Notify;

use super::*;

/// A store whose reads wait to be let through, while it is held.
#[derive(Debug, Default)]
struct Gate {
    held: std::sync::atomic::AtomicBool,
    waiting: AtomicUsize,
    reads: AtomicUsize,
    /// Reads under way at a time, at most.
    peak: AtomicUsize,
    open: Notify,
}

#[derive(Clone, Debug)]
struct Gated(Arc<InMemory>, Arc<Gate>);

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gated")
    }
}

#[async_trait]
impl ObjectStore for Gated {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let gate = &self.1;
        gate.reads.fetch_add(1, Ordering::SeqCst);
        if gate.held.load(Ordering::SeqCst) {
            let waiting = gate.waiting.fetch_add(1, Ordering::SeqCst) + 1;
            gate.peak.fetch_max(waiting, Ordering::SeqCst);
            gate.open.notified().await;
            gate.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

struct Scene {
    store: Arc<Guarded>,
    gate: Arc<Gate>,
    clock: MockClock,
    metrics: Metrics,
}

async fn scene(bounds: Bounds) -> Scene {
    let inner = Arc::new(InMemory::new());
    inner.put(&path(), Bytes::from_static(b"0123456789").into()).await.unwrap();
    let (gate, clock, metrics) = (Arc::<Gate>::default(), MockClock::at(0), Metrics::new());
    let gated = Gated(inner, Arc::clone(&gate));
    let store = Guarded::new(Arc::new(gated), bounds, Arc::new(clock.clone()), &metrics);
    Scene { store: Arc::new(store), gate, clock, metrics }
}

fn path() -> Path {
    Path::from("object")
}

impl Scene {
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    fn reading(&self, ranges: Vec<Range<u64>>) -> tokio::task::JoinHandle<Result<Vec<Bytes>>> {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move { store.get_ranges(&path(), &ranges).await })
    }

    fn reads(&self) -> usize {
        self.gate.reads.load(Ordering::SeqCst)
    }

    /// Waits until so many reads wait at the gate.
    async fn until_waiting(&self, count: usize) {
        let reached = async {
            while self.gate.waiting.load(Ordering::SeqCst) != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached).await.expect("they wait");
    }
}

#[tokio::test]
async fn neighbouring_ranges_are_one_request() {
    let scene = scene(Bounds { gap_bytes: 3, ..Bounds::REMOTE }).await;
    let got = scene.reading(vec![0..2, 4..5, 9..10]).await.unwrap().unwrap();
    assert_eq!(got, [&b"01"[..], b"4", b"9"]);
    assert_eq!(scene.reads(), 2);
    assert!(
        scene
            .metrics
            .encode()
            .contains("cambium_object_store_requests_total{operation=\"get\",outcome=\"success\"} 2")
    );
}

#[tokio::test]
async fn a_slow_read_is_asked_for_again() {
    let scene = scene(Bounds::REMOTE).await;
    for _ in 0..TIMES_MIN {
        scene.store.get_ranges(&path(), &[0..1]).await.unwrap();
    }
    scene.gate.held.store(true, Ordering::SeqCst);
    let reading = scene.reading(vec![0..1]);
    scene.until_waiting(1).await;
    scene.gate.held.store(false, Ordering::SeqCst);
    // The first request never answers; the second one does.
    while !reading.is_finished() {
        scene.clock.advance(SLOW_MIN);
        tokio::task::yield_now().await;
    }
    assert_eq!(reading.await.unwrap().unwrap(), [&b"0"[..]]);
    assert!(scene.metrics.encode().contains("cambium_object_store_hedges_total{won=\"true\"} 1"));
}

#[tokio::test]
async fn no_more_reads_are_under_way_than_may_be() {
    let scene = scene(Bounds { reads_max: 2, ..Bounds::LOCAL }).await;
    scene.gate.held.store(true, Ordering::SeqCst);
    let reading: Vec<_> = (0..5).map(|_| scene.reading(vec![0..1])).collect();
    scene.until_waiting(2).await;
    while !reading.iter().all(tokio::task::JoinHandle::is_finished) {
        scene.gate.open.notify_waiters();
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.gate.peak.load(Ordering::SeqCst), 2);
}
