//! Fetched bytes of blocks on a disk near by: what memory has no room for, and what a restart would lose.
//!
//! Laws: only bytes that had their checksum are kept; whatever is not there, cannot be read or is damaged comes from the
//! store, so that a cache that fails costs time and nothing else.

use std::fmt;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use cambium_runtime::metrics::{CacheRequests, Metrics};
use foyer::{
    BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder, HybridCachePolicy,
    Load, RecoverMode,
};
use futures::{StreamExt, stream};
use prometheus_client::metrics::counter::Counter;

/// Longer ranges are kept in parts of this length.
const PART_BYTES: u64 = 1 << 20;
/// Parts of a range that are read at a time.
const READS_MAX: usize = 8;
/// Files that the cache is made of, at least; the oldest is emptied to make room.
const FILES_MIN: u64 = 16;
/// Their length.
const FILE_BYTES_MIN: u64 = 2 << 20;
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files begin where pages do.
const PAGE_BYTES: u64 = 4 << 10;
/// Bytes that wait to be written; what comes when they are as many is not kept.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// The smallest budget.
pub const BYTES_MIN: u64 = FILES_MIN * FILE_BYTES_MIN;

/// Ranges of immutable objects on a disk, within a budget.
pub struct Disk {
    /// Only its disk is used: memory is for what is decoded.
    cache: HybridCache<String, Bytes>,
    folder: PathBuf,
    requests: CacheRequests,
    failures: Counter,
    has_failed: AtomicBool,
}

impl Disk {
    /// The cache in this folder, with what is in it already; at most `bytes_max` bytes, at least [`BYTES_MIN`]. Registers
    /// its metrics. `None` where the folder cannot be used, which is logged.
    pub async fn open(folder: &Path, bytes_max: u64, metrics: &Metrics) -> Option<Self> {
        let cache = match Self::build(folder, bytes_max).await {
            Ok(cache) => cache,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "no cache on disk");
                return None;
            }
        };
        let held = folder.to_owned();
        let requests = metrics.cache("disk", move || bytes_in(&held));
        let failures = Counter::default();
        let counted = failures.clone();
        metrics.register(|registry| {
            registry.register("cache_disk_failures", "Reads of the cache on disk that failed", counted);
        });
        let has_failed = AtomicBool::new(false);
        Some(Self { cache, folder: folder.to_owned(), requests, failures, has_failed })
    }

    async fn build(folder: &Path, bytes_max: u64) -> foyer::Result<HybridCache<String, Bytes>> {
        std::fs::create_dir_all(folder).map_err(foyer::Error::io_error)?;
        let file_bytes = (bytes_max / FILES_MIN).clamp(FILE_BYTES_MIN, FILE_BYTES_MAX);
        let file_bytes = file_bytes - file_bytes % PAGE_BYTES;
        let device = FsDeviceBuilder::new(folder).with_capacity(bytes_max as usize).build()?;
        let engine = BlockEngineConfig::new(device)
            .with_block_size(file_bytes as usize)
            .with_submit_queue_size_threshold(QUEUE_BYTES_MAX);
        let builder =
            HybridCacheBuilder::new().with_name("blocks").with_policy(HybridCachePolicy::WriteOnInsertion);
        let builder = builder.memory(1).storage().with_engine_config(engine);
        builder.with_recover_mode(RecoverMode::Quiet).build().await
    }

    /// The bytes of a range of an object, if all of them are there.
    pub(crate) async fn get(&self, path: &str, range: &Range<u64>) -> Option<Bytes> {
        let parts: Vec<_> = parts(range).map(|part| self.part(path, part)).collect();
        let read: Vec<Option<Bytes>> = stream::iter(parts).buffered(READS_MAX).collect().await;
        let read = self.requests.count(read.into_iter().collect::<Option<Vec<Bytes>>>())?;
        if let [whole] = &read[..] {
            return Some(whole.clone());
        }
        let mut whole = BytesMut::with_capacity((range.end - range.start) as usize);
        read.iter().for_each(|part| whole.extend_from_slice(part));
        Some(whole.freeze())
    }

    async fn part(&self, path: &str, part: Range<u64>) -> Option<Bytes> {
        match self.cache.storage().load(&key(path, &part)).await {
            Ok(Load::Entry { value, .. }) => Some(value),
            Ok(Load::Piece { piece, .. }) => Some(piece.value().clone()),
            Ok(Load::Throttled | Load::Miss) => None,
            Err(error) => {
                self.failures.inc();
                if !self.has_failed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(folder = %self.folder.display(), %error, "the cache on disk fails");
                }
                None
            }
        }
    }

    /// Keeps the bytes of a range: soon, or not at all while the disk does not keep up.
    pub(crate) fn keep(&self, path: &str, range: &Range<u64>, bytes: &Bytes) {
        for part in parts(range) {
            let inside = (part.start - range.start) as usize..(part.end - range.start) as usize;
            self.cache.storage_writer(key(path, &part)).force().insert(bytes.slice(inside));
        }
    }

    /// Forgets a range.
    pub(crate) fn forget(&self, path: &str, range: &Range<u64>) {
        parts(range).for_each(|part| self.cache.remove(&key(path, &part)));
    }

    /// Returns when all that is to be kept is on the disk; nothing is kept from then on.
    pub async fn close(&self) {
        if let Err(error) = self.cache.close().await {
            tracing::warn!(folder = %self.folder.display(), %error, "the cache on disk was not closed");
        }
    }
}

fn parts(range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
    let (start, end) = (range.start, range.end);
    (start..end).step_by(PART_BYTES as usize).map(move |from| from..end.min(from + PART_BYTES))
}

fn key(path: &str, part: &Range<u64>) -> String {
    format!("{path}@{}-{}", part.start, part.end)
}

/// What the files of a folder take on its disk: they are as long as they may become, and have holes.
fn bytes_in(folder: &Path) -> u64 {
    const SECTOR_BYTES: u64 = 512;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * SECTOR_BYTES)).sum()
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("folder", &self.folder).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
