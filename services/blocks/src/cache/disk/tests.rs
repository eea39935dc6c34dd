use std::sync::Arc;

use cambium_model::block::{BlockMeta, LogId, LogRange, Offset, Partition, SectionKind};
use cambium_model::time::{ROLLUP_BUCKET_NS, TimeRange};
use cambium_runtime::clock::MockClock;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use super::*;
use crate::cache::Cache;
use crate::guarded::{Bounds, Guarded};
use crate::source::{Pick, TreeScan};
use crate::testing::{Shape, random_dataset, tenant};
use crate::writer::{Compression, encode, put};
use crate::{BlockSource, Source};

const BYTES_MAX: u64 = BYTES_MIN;

fn bytes(seed: u64, length: u64) -> Bytes {
    let byte = |index: u64| (index.wrapping_mul(seed | 1) >> 3) as u8;
    (0..length).map(byte).collect()
}

async fn open(folder: &Path, metrics: &Metrics) -> Disk {
    Disk::open(folder, BYTES_MAX, metrics).await.unwrap()
}

#[tokio::test]
async fn ranges_of_any_length_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let ranges = [0..1, 5..PART_BYTES + 5, PART_BYTES..4 * PART_BYTES + 1];
    let disk = open(folder.path(), &metrics).await;
    for range in &ranges {
        assert_eq!(disk.get("a", range).await, None);
        disk.keep("a", range, &bytes(range.end, range.end - range.start));
    }
    disk.close().await;
    drop(disk);
    let disk = open(folder.path(), &metrics).await;
    for range in &ranges {
        let expected = bytes(range.end, range.end - range.start);
        assert_eq!(disk.get("a", range).await.as_ref(), Some(&expected), "{range:?}");
        assert_eq!(disk.get("b", range).await, None, "of another object");
    }
    disk.forget("a", &ranges[1]);
    assert_eq!(disk.get("a", &ranges[1]).await, None);
    let text = metrics.encode();
    for line in ["outcome=\"hit\"} 3", "outcome=\"miss\"} 7"] {
        let line = format!("cambium_cache_requests_total{{cache=\"disk\",{line}");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("cambium_cache_bytes{cache=\"disk\"} 0"), "{text}");
}

#[tokio::test]
async fn it_stays_within_its_budget() {
    let folder = tempfile::tempdir().unwrap();
    let disk = open(folder.path(), &Metrics::new()).await;
    let part = bytes(3, PART_BYTES);
    let range = |number: u64| number * PART_BYTES..(number + 1) * PART_BYTES;
    let count = 3 * BYTES_MAX / PART_BYTES;
    for number in 0..count {
        disk.keep("a", &range(number), &part);
        disk.cache.storage().wait().await;
        assert!(bytes_in(folder.path()) <= BYTES_MAX);
    }
    assert_eq!(disk.get("a", &range(0)).await, None, "the oldest went");
    assert_eq!(disk.get("a", &range(count - 1)).await, Some(part), "the youngest is there");
}

#[tokio::test]
async fn a_disk_that_fails_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new();
    let disk = open(folder.path(), &metrics).await;
    disk.keep("a", &(0..10), &bytes(1, 10));
    disk.cache.storage().wait().await;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::File::create(file.unwrap().path()).unwrap(); // nothing is left of it
    }
    assert_eq!(disk.get("a", &(0..10)).await, None);
    let text = metrics.encode();
    assert!(text.contains("cambium_cache_disk_failures_total 1"), "{text}");
}

#[tokio::test]
async fn a_folder_that_is_none_is_no_cache() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(Disk::open(file.path(), BYTES_MAX, &Metrics::new()).await.is_none());
}

/// A block in a store, and a folder for what is cached of it.
struct World {
    store: Arc<dyn ObjectStore>,
    meta: Arc<BlockMeta>,
    metrics: Metrics,
    folder: tempfile::TempDir,
}

impl World {
    /// Of a block whose samples are fetched in pieces.
    async fn new() -> Self {
        let shape =
            Shape { profiles: 4_000, samples: 400, services: 2, depth: 4, locations: 3, ..Shape::dense() };
        let shape = Shape { span_ns: 12 * ROLLUP_BUCKET_NS, ..shape };
        let log = LogId { partition: Partition(0), log: 0 };
        let range = LogRange { log, first: Offset(0), next: Offset(1) };
        let block = encode(&[random_dataset(tenant(1), 8, &shape)], range, 1, 3, Compression::Cold).unwrap();
        let (store, metrics) = (InMemory::new(), Metrics::new());
        put(&store, &block).await.unwrap();
        let store = Guarded::new(Arc::new(store), Bounds::LOCAL, Arc::new(MockClock::at(0)), &metrics);
        let folder = tempfile::tempdir().unwrap();
        Self { store: Arc::new(store), meta: Arc::new(block.meta), metrics, folder }
    }

    /// A process's caches: memory is empty.
    async fn cache(&self) -> Arc<Cache> {
        let disk = open(self.folder.path(), &Metrics::new()).await;
        Arc::new(Cache::new(64 << 20, &Metrics::new()).with_disk(Some(disk)))
    }

    /// Asks for sums of all kinds; how many requests that took, and the answers.
    async fn ask(&self, cache: &Arc<Cache>) -> (u64, Vec<Vec<i64>>) {
        let before = self.requests();
        let source = BlockSource::new(Arc::clone(&self.store), Arc::clone(cache), Arc::clone(&self.meta), 0);
        let series = source.series().await.unwrap();
        let of_type = series.type_of.iter().take_while(|type_index| **type_index == 0).count() as u32;
        let start_ns = Shape::default().start_ns;
        let cut = TimeRange::new(start_ns + ROLLUP_BUCKET_NS / 2, start_ns + 7 * ROLLUP_BUCKET_NS);
        let mut answers = vec![source.profiles(&vec![0..of_type], cut).await.unwrap().total];
        assert_eq!(source.sample_labels().await.unwrap().len(), 4);
        for (rows, range) in [(0..of_type, TimeRange::ALL), (0..of_type, cut), (0..1, cut)] {
            let scan = TreeScan { rows: vec![rows], range, pick: Pick::Sum };
            answers.push(source.tree(&scan).await.unwrap().self_values);
        }
        (self.requests() - before, answers)
    }

    fn requests(&self) -> u64 {
        let text = self.metrics.encode();
        let sample = r#"cambium_object_store_requests_total{operation="get",outcome="success"} "#;
        text.lines().find_map(|line| line.strip_prefix(sample)?.parse().ok()).unwrap_or(0)
    }

    fn sections(&self) -> impl Iterator<Item = Range<u64>> {
        let sections = &self.meta.datasets[0].sections;
        assert_eq!(sections.len(), SectionKind::ALL.len());
        sections.iter().map(|section| section.offset..section.offset + section.length)
    }
}

#[tokio::test]
async fn a_restart_asks_the_store_for_nothing() {
    let world = World::new().await;
    let cache = world.cache().await;
    let (cold, answers) = world.ask(&cache).await;
    assert!(cold > 5, "{cold}");
    assert_eq!(world.ask(&cache).await, (0, answers.clone()), "from memory");
    cache.close().await;
    assert_eq!(world.ask(&world.cache().await).await, (0, answers), "from the disk");
}

#[tokio::test]
async fn damaged_files_are_fetched_anew() {
    let world = World::new().await;
    let cache = world.cache().await;
    let (_, answers) = world.ask(&cache).await;
    cache.close().await;
    drop(cache);
    for file in std::fs::read_dir(world.folder.path()).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        // Some of every entry, little enough for all of them to be found again.
        bytes.iter_mut().skip(3_000).step_by(4_096).for_each(|byte| *byte ^= 0x10);
        std::fs::write(&path, bytes).unwrap();
    }
    let (requests, found) = world.ask(&world.cache().await).await;
    assert!(requests > 0);
    assert_eq!(found, answers);
}

#[tokio::test]
async fn wrong_bytes_are_fetched_anew() {
    let world = World::new().await;
    let cache = world.cache().await;
    let (_, answers) = world.ask(&cache).await;
    let (path, disk) = (world.meta.path.as_str(), cache.disk().unwrap());
    let mut spoilt = 0;
    for section in world.sections() {
        for range in [section.clone(), section.start..section.start + (256 << 10)] {
            if let Some(held) = disk.get(path, &range).await {
                let mut wrong = BytesMut::from(&held[..]);
                wrong[held.len() / 2] ^= 0x10;
                disk.keep(path, &range, &wrong.freeze());
                spoilt += 1;
            }
        }
    }
    assert_eq!(spoilt, world.sections().count(), "each section, or its first piece");
    cache.close().await;
    drop(cache);
    let cache = world.cache().await;
    let (requests, found) = world.ask(&cache).await;
    assert!(requests > 5, "{requests}");
    assert_eq!(found, answers);
    cache.close().await;
    drop(cache);
    assert_eq!(world.ask(&world.cache().await).await, (0, answers), "what was wrong is right now");
}
