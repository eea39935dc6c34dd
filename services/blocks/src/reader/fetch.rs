//! Bytes of one dataset: from the store or the cache, checked once, decoded once.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cambium_model::block::{BlockMeta, DatasetMeta, SectionKind};
use cambium_model::profile::SampleLabels;
use futures::future::join_all;
use futures::{StreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use super::pages::{Pages, Parsed, Pieces, tail_guess};
use super::place::Place;
use super::rollup::{RollupIndex, SeriesBuckets};
use super::series;
use super::side::{ProfileTable, StackSections, StackTable, label_sets};
use crate::Error;
use crate::cache::disk::Disk;
use crate::cache::{Cache, DatasetKey, Part};
use crate::offload::offload;
use crate::series_table::SeriesTable;
use crate::source::{Budget, ScanStats};
use crate::toc::section_name;

/// A dataset of at most this many bytes is fetched by one request and kept whole. A section too is fetched with its footer.
const WHOLE_BYTES_MAX: u64 = 512 << 10;
/// Pieces that are not wanted are fetched too where no more than this many lie between two that are.
const GAP_PIECES_MAX: u32 = 2;
/// Pieces that are read from the disk at a time.
const PIECES_READ_MAX: usize = 8;

/// One dataset of a block in a store.
#[derive(Debug)]
pub(super) struct Dataset {
    store: Arc<dyn ObjectStore>,
    cache: Arc<Cache>,
    block: Arc<BlockMeta>,
    key: DatasetKey,
    location: Path,
    budget: Option<Arc<Budget>>,
    pub(super) counters: Counters,
}

/// What scans of this source have cost so far.
#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    bytes_fetched: AtomicU64,
    bytes_by_section: [AtomicU64; SectionKind::COUNT],
    pub(super) sample_rows: AtomicU64,
    pub(super) rollup_rows: AtomicU64,
    pub(super) profile_rows: AtomicU64,
}

impl Counters {
    pub(super) fn stats(&self) -> ScanStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let bytes_by_section = std::array::from_fn(|number| get(&self.bytes_by_section[number]));
        ScanStats {
            requests: get(&self.requests),
            bytes_fetched: get(&self.bytes_fetched),
            bytes_needed: bytes_by_section.iter().sum(),
            bytes_by_section,
            sample_rows: get(&self.sample_rows),
            rollup_rows: get(&self.rollup_rows),
            profile_rows: get(&self.profile_rows),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Dataset {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        cache: Arc<Cache>,
        block: Arc<BlockMeta>,
        index: usize,
        budget: Option<Arc<Budget>>,
    ) -> Self {
        let key = DatasetKey { path: block.path.as_str().into(), index };
        let location = Path::from(block.path.as_str());
        Self { store, cache, block, key, location, budget, counters: Counters::default() }
    }

    pub(super) fn meta(&self) -> &DatasetMeta {
        &self.block.datasets[self.key.index]
    }

    fn place(&self, kind: SectionKind) -> Result<Place, Error> {
        let section = self.meta().section(kind).copied().ok_or_else(|| Error::Corrupt {
            path: self.block.path.clone(),
            what: format!("has no section {}", section_name(kind)),
        })?;
        Ok(Place { path: Arc::clone(&self.key.path), section })
    }

    /// Counts bytes that are needed, wherever they are.
    fn need(&self, kind: SectionKind, bytes: u64) -> Result<(), Error> {
        count(&self.counters.bytes_by_section[kind.number()], bytes);
        self.budget.as_ref().map_or(Ok(()), |budget| budget.spend(bytes))
    }

    /// The same of sections as a whole, as far as there are any.
    fn need_whole(&self, kinds: &[SectionKind]) -> Result<(), Error> {
        let mut sections = kinds.iter().filter_map(|kind| self.meta().section(*kind));
        sections.try_for_each(|section| self.need(section.kind, section.length))
    }

    pub(super) async fn series(&self) -> Result<Arc<SeriesTable>, Error> {
        self.need_whole(&[SectionKind::Series])?;
        let load = Box::pin(async {
            let place = self.place(SectionKind::Series)?;
            let types = self.meta().types.clone();
            self.load([place], move |[place], [bytes]| series::decode(place, &types, bytes)).await
        });
        Ok(Arc::clone(&*self.cache.part::<Arc<SeriesTable>>(&self.key, Part::Series, load).await?))
    }

    pub(super) async fn profiles(&self) -> Result<Arc<ProfileTable>, Error> {
        self.need_whole(&[SectionKind::Profiles])?;
        let load = Box::pin(async {
            let place = self.place(SectionKind::Profiles)?;
            let samples = self.meta().section(SectionKind::Samples).map(|section| section.rows);
            let series = self.meta().series;
            self.load([place], move |[place], [bytes]| ProfileTable::decode(place, bytes, series, samples))
                .await
        });
        self.cache.part(&self.key, Part::Profiles, load).await
    }

    pub(super) async fn stacks(&self) -> Result<Arc<StackTable>, Error> {
        self.need_whole(&[SectionKind::Stacks, SectionKind::Nodes, SectionKind::Locations])?;
        let load = Box::pin(async {
            let places = [
                self.place(SectionKind::Stacks)?,
                self.place(SectionKind::Nodes)?,
                self.place(SectionKind::Locations)?,
            ];
            self.load(places, |[stacks, nodes, locations], bytes| {
                let [stacks, nodes, locations] = [stacks, nodes, locations].map(Place::clone);
                let places = StackSections { stacks, nodes, locations };
                let [stacks, nodes, locations] = bytes;
                StackTable::decode(&places, StackSections { stacks, nodes, locations })
            })
            .await
        });
        self.cache.part(&self.key, Part::Stacks, load).await
    }

    pub(super) async fn label_sets(&self) -> Result<Arc<Vec<SampleLabels>>, Error> {
        self.need_whole(&[SectionKind::LabelSets])?;
        let load = Box::pin(async {
            if self.meta().section(SectionKind::LabelSets).is_none() {
                return Ok(Arc::new(vec![SampleLabels::new()]));
            }
            let place = self.place(SectionKind::LabelSets)?;
            self.load([place], |[place], [bytes]| label_sets(place, bytes)).await
        });
        Ok(Arc::clone(&*self.cache.part::<Arc<Vec<SampleLabels>>>(&self.key, Part::LabelSets, load).await?))
    }

    /// Of the rollups of this kind; empty where there are none.
    pub(super) async fn rollup_index(&self, kind: SectionKind) -> Result<Arc<RollupIndex>, Error> {
        if self.meta().section(kind).is_none() {
            return Ok(Arc::default());
        }
        let load = Box::pin(async {
            let pages = self.pages(kind).await?;
            let mut wanted = RollupIndex::wanted(&pages)?;
            wanted.sort_unstable();
            wanted.dedup();
            let pieces = self.fetch_pieces(&pages, wanted).await?;
            offload(move |_| RollupIndex::read(&pages, &pieces)).await
        });
        self.cache.part(&self.key, Part::RollupIndex(kind), load).await
    }

    /// Where the rollups of series lie; `None` where there are none.
    pub(super) async fn series_buckets(&self) -> Result<Option<Arc<SeriesBuckets>>, Error> {
        let Some(rollup) = self.meta().section(SectionKind::SeriesRollup) else { return Ok(None) };
        self.need_whole(&[SectionKind::SeriesBuckets])?;
        let load = Box::pin(async {
            let place = self.place(SectionKind::SeriesBuckets)?;
            let (held, alone) = ((self.meta().series, rollup.rows), self.meta().is_downsampled());
            self.load([place], move |[place], [bytes]| SeriesBuckets::decode(place, bytes, held, alone)).await
        });
        self.cache.part(&self.key, Part::SeriesBuckets, load).await.map(Some)
    }

    /// Where the pages of a section lie.
    pub(super) async fn pages(&self, kind: SectionKind) -> Result<Arc<Pages>, Error> {
        let load = Box::pin(async {
            let place = self.place(kind)?;
            let (start, length) = (place.section.offset, place.section.length);
            let mut wanted = if length <= WHOLE_BYTES_MAX { length } else { tail_guess(&place) };
            loop {
                let (range, place) = (start + length - wanted..start + length, place.clone());
                let parse = move |[tail]: [Bytes; 1]| {
                    if tail.len() as u64 != wanted {
                        return Err(place.corrupt("ends early"));
                    }
                    let parsed = Pages::parse(&place, &tail)?;
                    let pieces = match &parsed {
                        Parsed::Pages(pages) if wanted == length => {
                            split(pages, &[0..pages.piece_count()], &[tail])?
                        }
                        _ => Vec::new(),
                    };
                    Ok((parsed, pieces))
                };
                let (parsed, pieces) = self.fetch([range], parse).await?;
                self.keep(kind, &pieces);
                match parsed {
                    Parsed::Pages(pages) => return Ok(*pages),
                    Parsed::Needs(needed) => wanted = needed,
                }
            }
        });
        self.cache.part(&self.key, Part::Pages(kind), load).await
    }

    /// What `decode` makes of whole sections.
    async fn load<T: Send + 'static, const N: usize>(
        &self,
        places: [Place; N],
        decode: impl Fn([&Place; N], [Bytes; N]) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let range = |place: &Place| place.section.offset..place.section.offset + place.section.length;
        let ranges = places.each_ref().map(range);
        self.fetch(ranges, move |bytes| decode(places.each_ref(), bytes)).await
    }

    /// What `decode` makes of ranges of the object: of those on the disk, if it is content with them, or else of those in
    /// the store.
    async fn fetch<T: Send + 'static, const N: usize>(
        &self,
        ranges: [Range<u64>; N],
        decode: impl Fn([Bytes; N]) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let decode = Arc::new(decode);
        let decoded = |bytes: Vec<Bytes>| {
            let decode = Arc::clone(&decode);
            offload(move |_| decode(bytes.try_into().expect("as many as were asked for")))
        };
        let path = &self.key.path;
        if let Some(disk) = self.cache.disk() {
            let held = join_all(ranges.iter().map(|range| disk.get(path, range))).await;
            if let Some(held) = held.into_iter().collect() {
                match decoded(held).await {
                    Err(Error::Corrupt { .. } | Error::Parquet { .. }) => {
                        ranges.iter().for_each(|range| disk.forget(path, range));
                    }
                    result => return result,
                }
            }
        }
        let read = self.read(ranges.to_vec()).await?;
        let value = decoded(read.clone()).await?;
        if let Some(disk) = self.cache.disk() {
            ranges.iter().zip(&read).for_each(|(range, bytes)| disk.keep(path, range, bytes));
        }
        Ok(value)
    }

    /// These pieces of a section, in any order and more than once.
    pub(super) async fn pieces(
        &self,
        pages: &Arc<Pages>,
        mut wanted: Vec<u32>,
    ) -> Result<Arc<Pieces>, Error> {
        wanted.sort_unstable();
        wanted.dedup();
        let length = |piece: &u32| pages.piece_range(*piece).end - pages.piece_range(*piece).start;
        self.need(pages.place.kind(), wanted.iter().map(length).sum())?;
        self.fetch_pieces(pages, wanted).await
    }

    /// The same, ascending and each once, without counting that they are needed.
    async fn fetch_pieces(&self, pages: &Arc<Pages>, wanted: Vec<u32>) -> Result<Arc<Pieces>, Error> {
        let kind = pages.place.kind();
        let mut held: Vec<(u32, Bytes)> = Vec::with_capacity(wanted.len());
        let mut missing = Vec::new();
        for piece in wanted {
            match self.cache.piece(&self.key, kind, piece) {
                Some(bytes) => held.push((piece, bytes)),
                None => missing.push(piece),
            }
        }
        if let Some(disk) = self.cache.disk() {
            let asked: Vec<_> = missing.iter().map(|piece| self.piece_on(disk, pages, *piece)).collect();
            let read: Vec<Option<Bytes>> = stream::iter(asked).buffered(PIECES_READ_MAX).collect().await;
            let found = missing.iter().zip(&read).filter_map(|(piece, bytes)| Some((*piece, bytes.clone()?)));
            let found: Vec<(u32, Bytes)> = found.collect();
            self.keep(kind, &found);
            held.extend(found);
            let mut read = read.iter();
            missing.retain(|_| read.next().is_some_and(Option::is_none));
        }
        if !missing.is_empty() {
            let runs = runs(&missing);
            let fetched = self.read(runs.iter().map(|run| in_object(pages, run.clone())).collect()).await?;
            let checked = Arc::clone(pages);
            let new = offload(move |_| split(&checked, &runs, &fetched)).await?;
            self.keep(kind, &new);
            self.keep_on_disk(pages, &new);
            held.extend(new);
        }
        held.sort_unstable_by_key(|(piece, _)| *piece);
        held.dedup_by_key(|(piece, _)| *piece);
        Ok(Arc::new(Pieces::new(&pages.place, held)))
    }

    /// A piece that the disk has, if it has its checksum.
    async fn piece_on(&self, disk: &Disk, pages: &Pages, piece: u32) -> Option<Bytes> {
        let range = in_object(pages, piece..piece + 1);
        let bytes = disk.get(&self.key.path, &range).await?;
        if pages.check_piece(piece, &bytes).is_err() {
            disk.forget(&self.key.path, &range);
            return None;
        }
        Some(bytes)
    }

    fn keep_on_disk(&self, pages: &Pages, pieces: &[(u32, Bytes)]) {
        let Some(disk) = self.cache.disk() else { return };
        for (piece, bytes) in pieces {
            disk.keep(&self.key.path, &in_object(pages, *piece..piece + 1), bytes);
        }
    }

    fn keep(&self, kind: SectionKind, pieces: &[(u32, Bytes)]) {
        for (piece, bytes) in pieces {
            self.cache.keep_piece(&self.key, kind, *piece, bytes.clone());
        }
    }

    /// Ranges of the object.
    async fn read(&self, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>, Error> {
        let sections = &self.meta().sections;
        let (Some(first), Some(last)) = (sections.first(), sections.last()) else {
            return self.request(&ranges).await;
        };
        let all = first.offset..last.offset + last.length;
        if all.end - all.start > WHOLE_BYTES_MAX {
            return self.request(&ranges).await;
        }
        let load = Box::pin(async { Ok(self.request(std::slice::from_ref(&all)).await?.remove(0)) });
        let whole = self.cache.part::<Bytes>(&self.key, Part::Whole, load).await?;
        let cut = |range: &Range<u64>| {
            let inside = (range.start - all.start) as usize..(range.end - all.start) as usize;
            // A store that gives less than asked for is caught by the checksums.
            if inside.end <= whole.len() { whole.slice(inside) } else { Bytes::new() }
        };
        Ok(ranges.iter().map(cut).collect())
    }

    async fn request(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let got = self.store.get_ranges(&self.location, ranges).await;
        let got = got.map_err(|source| Error::Store { path: self.block.path.clone(), source })?;
        count(&self.counters.requests, ranges.len() as u64);
        count(&self.counters.bytes_fetched, got.iter().map(|bytes| bytes.len() as u64).sum());
        Ok(got)
    }
}

/// Where a run of pieces lies in the object.
fn in_object(pages: &Pages, run: Range<u32>) -> Range<u64> {
    let base = pages.place.section.offset;
    base + pages.piece_range(run.start).start..base + pages.piece_range(run.end - 1).end
}

/// Runs of pieces to fetch at once.
fn runs(pieces: &[u32]) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some(run) if *piece - run.end <= GAP_PIECES_MAX => run.end = piece + 1,
            _ => runs.push(*piece..piece + 1),
        }
    }
    runs
}

/// Cuts fetched runs into pieces, each with memory of its own, so that a cache can drop one without the others.
fn split(pages: &Pages, runs: &[Range<u32>], fetched: &[Bytes]) -> Result<Vec<(u32, Bytes)>, Error> {
    let mut pieces = Vec::new();
    for (run, bytes) in runs.iter().zip(fetched) {
        let base = pages.piece_range(run.start).start;
        for piece in run.clone() {
            let range = pages.piece_range(piece);
            let inside = (range.start - base) as usize..(range.end - base) as usize;
            let bytes = bytes.get(inside).unwrap_or_default();
            pages.check_piece(piece, bytes)?;
            pieces.push((piece, Bytes::copy_from_slice(bytes)));
        }
    }
    Ok(pieces)
}
