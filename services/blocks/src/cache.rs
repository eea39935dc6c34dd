//! What queries read again and again, kept in memory within a budget.
//!
//! Two halves, so that a scan of many samples cannot push out what every query needs: *decoded* side sections (series,
//! profiles, trees, indexes of what is read in ranges), loaded once however many scans ask at the same time; and
//! *pieces*, the fetched bytes of `samples` and `rollup`. Below both there may be a *disk* with the fetched bytes of
//! either. Blocks are immutable, so nothing here ever goes stale.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cambium_model::block::SectionKind;
use cambium_runtime::metrics::{CacheRequests, Metrics};
use futures::future::BoxFuture;

use crate::Error;

pub mod disk;

use disk::Disk;

/// Keeps decoded side sections and fetched bytes of blocks, each kind within half of one budget. Shared by all
/// [`BlockSource`](crate::reader::BlockSource)s of a process.
pub struct Cache {
    decoded: moka::future::Cache<(DatasetKey, Part), Decoded>,
    pieces: moka::sync::Cache<(DatasetKey, SectionKind, u32), Bytes>,
    decoded_requests: CacheRequests,
    piece_requests: CacheRequests,
    disk: Option<Disk>,
}

/// A dataset of a block: the object's path and the dataset's place in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DatasetKey {
    pub(crate) path: Arc<str>,
    pub(crate) index: usize,
}

/// Which part of a dataset. A part always has the same type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// All bytes, where they are few.
    Whole,
    Series,
    Profiles,
    Stacks,
    LabelSets,
    RollupIndex(SectionKind),
    SeriesBuckets,
    /// Where the pages of a section lie.
    Pages(SectionKind),
}

/// Something that a cache can hold.
pub(crate) trait Weigh: Send + Sync + 'static {
    /// Bytes it occupies.
    fn weight(&self) -> usize;
}

impl Weigh for Bytes {
    fn weight(&self) -> usize {
        self.len()
    }
}

#[derive(Clone)]
struct Decoded {
    weight: u32,
    value: Arc<dyn Any + Send + Sync>,
}

/// What an entry costs besides its value.
const ENTRY_BYTES: usize = 256;

impl Cache {
    /// An empty cache that holds at most `bytes_max` bytes; registers its metrics.
    pub fn new(bytes_max: u64, metrics: &Metrics) -> Self {
        let half = bytes_max / 2;
        let decoded = moka::future::Cache::builder()
            .max_capacity(half)
            .weigher(|_, entry: &Decoded| entry.weight)
            .build();
        let pieces = moka::sync::Cache::builder()
            .max_capacity(half)
            .weigher(|_, piece: &Bytes| weight(piece.len()))
            .build();
        let (held_decoded, held_pieces) = (decoded.clone(), pieces.clone());
        Self {
            decoded_requests: metrics.cache("decoded_sections", move || held_decoded.weighted_size()),
            piece_requests: metrics.cache("pieces", move || held_pieces.weighted_size()),
            decoded,
            pieces,
            disk: None,
        }
    }

    /// The same, with a disk below.
    pub fn with_disk(self, disk: Option<Disk>) -> Self {
        Self { disk, ..self }
    }

    /// Returns when what is to be kept is on the disk, if there is one; nothing is kept there from then on.
    pub async fn close(&self) {
        if let Some(disk) = &self.disk {
            disk.close().await;
        }
    }

    pub(crate) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// The part, loaded by `load` if it is not there. Scans that ask while it is being loaded wait for that load.
    pub(crate) async fn part<T: Weigh>(
        &self,
        dataset: &DatasetKey,
        part: Part,
        load: BoxFuture<'_, Result<T, Error>>,
    ) -> Result<Arc<T>, Error> {
        let load = async {
            let value = load.await?;
            Ok(Decoded { weight: weight(value.weight()), value: Arc::new(value) })
        };
        let entry = self.decoded.entry((dataset.clone(), part)).or_try_insert_with(load).await;
        // Who waits for the load of another has hit.
        self.decoded_requests.count(entry.as_ref().ok().filter(|entry| !entry.is_fresh()));
        let entry = entry.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(Error::Shared))?;
        Ok(entry.into_value().value.downcast().expect("a part always has the same type"))
    }

    pub(crate) fn piece(&self, dataset: &DatasetKey, section: SectionKind, piece: u32) -> Option<Bytes> {
        self.piece_requests.count(self.pieces.get(&(dataset.clone(), section, piece)))
    }

    pub(crate) fn keep_piece(&self, dataset: &DatasetKey, section: SectionKind, piece: u32, bytes: Bytes) {
        self.pieces.insert((dataset.clone(), section, piece), bytes);
    }
}

fn weight(bytes: usize) -> u32 {
    u32::try_from(bytes + ENTRY_BYTES).unwrap_or(u32::MAX)
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("decoded_bytes", &self.decoded.weighted_size())
            .field("piece_bytes", &self.pieces.weighted_size())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_halves_count_their_requests_and_bytes() {
        let metrics = Metrics::new();
        let cache = Cache::new(1 << 20, &metrics);
        let dataset = DatasetKey { path: "v1/l0/block".into(), index: 0 };
        for _ in 0..3 {
            let load = Box::pin(async { Ok(Bytes::from(vec![0; 1_000])) });
            cache.part::<Bytes>(&dataset, Part::Whole, load).await.unwrap();
        }
        let failed = Box::pin(async { Err(Error::Cancelled) });
        cache.part::<Bytes>(&dataset, Part::Series, failed).await.unwrap_err();
        assert!(cache.piece(&dataset, SectionKind::Samples, 0).is_none());
        cache.keep_piece(&dataset, SectionKind::Samples, 0, Bytes::from(vec![0; 500]));
        assert!(cache.piece(&dataset, SectionKind::Samples, 0).is_some());
        cache.decoded.run_pending_tasks().await;
        cache.pieces.run_pending_tasks();
        let text = metrics.encode();
        for line in [
            "cambium_cache_requests_total{cache=\"decoded_sections\",outcome=\"hit\"} 2",
            "cambium_cache_requests_total{cache=\"decoded_sections\",outcome=\"miss\"} 2",
            "cambium_cache_requests_total{cache=\"pieces\",outcome=\"hit\"} 1",
            "cambium_cache_requests_total{cache=\"pieces\",outcome=\"miss\"} 1",
            "cambium_cache_bytes{cache=\"decoded_sections\"} 1256",
            "cambium_cache_bytes{cache=\"pieces\"} 756",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
