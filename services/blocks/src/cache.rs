//! What queries read again and again, kept in memory within a budget.
//!
//! Two halves, so that a scan of many samples cannot push out what every query needs: *decoded* side sections (series,
//! profiles, trees, indexes of what is read in ranges), loaded once however many scans ask at the same time; and
//! *pieces*, the fetched bytes of `samples` and `rollup`. Blocks are immutable, so nothing here ever goes stale.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use cambium_model::block::SectionKind;
use futures::future::BoxFuture;

use crate::Error;

/// Keeps decoded side sections and fetched bytes of blocks, each kind within half of one budget. Shared by all
/// [`BlockSource`](crate::reader::BlockSource)s of a process.
pub struct Cache {
    decoded: moka::future::Cache<(DatasetKey, Part), Decoded>,
    pieces: moka::sync::Cache<(DatasetKey, SectionKind, u32), Bytes>,
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
    /// An empty cache that holds at most `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        let half = bytes_max / 2;
        Self {
            decoded: moka::future::Cache::builder()
                .max_capacity(half)
                .weigher(|_, entry: &Decoded| entry.weight)
                .build(),
            pieces: moka::sync::Cache::builder()
                .max_capacity(half)
                .weigher(|_, piece: &Bytes| weight(piece.len()))
                .build(),
        }
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
        let entry = self.decoded.try_get_with((dataset.clone(), part), load).await;
        let entry = entry.map_err(|error| Arc::try_unwrap(error).unwrap_or_else(Error::Shared))?;
        Ok(entry.value.downcast().expect("a part always has the same type"))
    }

    pub(crate) fn piece(&self, dataset: &DatasetKey, section: SectionKind, piece: u32) -> Option<Bytes> {
        self.pieces.get(&(dataset.clone(), section, piece))
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
