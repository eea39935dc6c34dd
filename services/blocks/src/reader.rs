//! Bytes to answers: a block's dataset as a [`Source`].
//!
//! ```text
//!   BlockMeta ─► sections by their offsets ─► decoded once, cached: series, profiles, stacks
//!                                          └► read in ranges of rows:  samples, rollup
//!   selector ─► rows ─► profiles in range ─► runs of samples ─► dense sums by stack ─► tree
//! ```
//!
//! Laws: no byte is believed before its checksum; whatever a block says is checked where it is decoded, so that a
//! corrupt one gives an error that names section and reason, never a panic; no more bytes are fetched than the rows
//! asked for lie in, rounded to pieces of 256 KiB or to a section of at most 512; what is known to be needed is asked for
//! at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use cambium_model::block::{BlockMeta, DatasetMeta, SectionKind};
use cambium_model::profile::SampleLabels;
use cambium_model::time::{COARSE_BUCKET_NS, ROLLUP_BUCKET_NS, TimeRange, bucket_start};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};

use crate::cache::Cache;
use crate::dataset::{CHUNK_SAMPLES, RollupKey};
use crate::offload::offload;
use crate::plan::{Read, SumPlan, around, is_whole};
use crate::series_table::{RowSet, SeriesTable};
use crate::source::{Budget, Pick, Profiles, SampleScan, Samples, ScanStats, TreeScan};
use crate::sums::Accumulator;
use crate::toc::{TRAILER_BYTES, read_toc, toc_length};
use crate::tree::{PartialTree, Tree};
use crate::{Error, Source};

pub(crate) mod column;

mod fetch;

pub(crate) mod pages;

pub(crate) mod place;

pub(crate) mod rollup;

mod scan;

pub(crate) mod series;

pub(crate) mod side;

mod table;

pub(crate) mod unpack;

use fetch::{Dataset, count};
use rollup::SeriesBuckets;
use scan::{Part, Step, push_step};
use side::{ProfileTable, StackTable};

/// How much of an object's end is read first: most tables of contents fit.
const TAIL_BYTES: u64 = 64 << 10;

/// Reads and checks a block's own table of contents. Its entry is what the catalogue should hold.
///
/// # Errors
/// [`Error::Store`] where the object cannot be read, [`Error::Corrupt`] where it is not a block.
pub async fn open(store: &dyn ObjectStore, path: &str) -> Result<BlockMeta, Error> {
    let (mut tail, size) = read_tail(store, path, TAIL_BYTES).await?;
    let needed = toc_length(path, &tail, size)?;
    if needed > tail.len() {
        (tail, _) = read_tail(store, path, needed as u64).await?;
    }
    read_toc(path, &tail, size)
}

async fn read_tail(store: &dyn ObjectStore, path: &str, bytes: u64) -> Result<(bytes::Bytes, u64), Error> {
    debug_assert!(bytes >= TRAILER_BYTES as u64);
    let failed = |source| Error::Store { path: path.to_owned(), source };
    let options = GetOptions { range: Some(GetRange::Suffix(bytes)), ..GetOptions::default() };
    let got = store.get_opts(&Path::from(path), options).await.map_err(failed)?;
    let size = got.meta.size;
    Ok((got.bytes().await.map_err(failed)?, size))
}

/// One tenant's dataset of a block, as a [`Source`].
#[derive(Clone, Debug)]
pub struct BlockSource {
    dataset: Arc<Dataset>,
}

impl BlockSource {
    /// The dataset at `dataset_index` of the block's entry, which must have that many. Opens nothing yet.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        cache: Arc<Cache>,
        block: Arc<BlockMeta>,
        dataset_index: usize,
    ) -> Self {
        debug_assert!(dataset_index < block.datasets.len());
        Self { dataset: Arc::new(Dataset::new(store, cache, block, dataset_index, None)) }
    }

    /// The same, and what it reads is taken from the budget: [`Error::TooManyBytes`] where that is not enough.
    pub fn within(
        store: Arc<dyn ObjectStore>,
        cache: Arc<Cache>,
        block: Arc<BlockMeta>,
        dataset_index: usize,
        budget: &Arc<Budget>,
    ) -> Self {
        let budget = Some(Arc::clone(budget));
        Self { dataset: Arc::new(Dataset::new(store, cache, block, dataset_index, budget)) }
    }

    /// What is to be added up.
    async fn sum(&self, mut plan: SumPlan, series: &SeriesTable, ahead: Ahead) -> Result<Vec<Part>, Error> {
        let dataset = &*self.dataset;
        let (first_ns, last_ns) = (dataset.meta().first_ns, dataset.meta().last_ns);
        let mut parts = Vec::new();
        for (kind, take) in ROLLUPS {
            if plan.has_windows(first_ns, last_ns) {
                let index = dataset.rollup_index(kind).await?;
                let taken = take(&mut plan, &index.rows);
                let mut steps = Vec::with_capacity(taken.len());
                taken.iter().for_each(|key| push_step(&mut steps, index.rows[key].clone(), None));
                parts.push((kind, steps));
            }
        }
        let mut reads = plan.reads(series);
        retain_touched(&mut reads, first_ns, last_ns);
        if reads.iter().flat_map(|read| &read.windows).any(holds_a_bucket)
            && let Some(buckets) = match ahead.buckets {
                Some(buckets) => Some(buckets),
                None => dataset.series_buckets().await?,
            }
        {
            let (steps, mut left) = offload(move |_| Ok(series_steps(&buckets, &reads))).await?;
            retain_touched(&mut left, first_ns, last_ns);
            reads = left;
            parts.push((SectionKind::SeriesRollup, steps));
        }
        if !reads.is_empty() && !dataset.meta().is_downsampled() {
            let profiles = match ahead.profiles {
                Some(profiles) => profiles,
                None => dataset.profiles().await?,
            };
            let steps = offload(move |_| Ok(read_steps(&profiles, &reads))).await?;
            parts.push((SectionKind::Samples, steps));
        }
        Ok(parts)
    }

    /// The profiles that `pick` picks of each series, or what is left of them.
    async fn picked(&self, scan: &TreeScan, ahead: Ahead) -> Result<Vec<Part>, Error> {
        let scan = scan.clone();
        let Some(profiles) = ahead.profiles else { return self.picked_sums(scan, ahead.buckets).await };
        let steps = offload(move |_| Ok(pick_steps(&profiles, &scan))).await?;
        Ok(vec![(SectionKind::Samples, steps)])
    }

    /// The same where there are no samples: means of whole buckets, and nothing of single profiles.
    async fn picked_sums(
        &self,
        scan: TreeScan,
        buckets: Option<Arc<SeriesBuckets>>,
    ) -> Result<Vec<Part>, Error> {
        let counts = match scan.pick {
            Pick::Mean(counts) => counts,
            Pick::At(times) if times.iter().all(Option::is_none) => return Ok(Vec::new()),
            _ => return Err(self.downsampled(scan.range)),
        };
        let Some(buckets) = buckets else { return Ok(Vec::new()) };
        let steps = offload(move |_| Ok(mean_steps(&buckets, &scan.rows, scan.range, &counts))).await?;
        Ok(vec![(SectionKind::SeriesRollup, steps)])
    }

    /// Loads together what a sum cannot do without: one after the other, each would wait for the store again.
    async fn load_ahead(&self, needs: Needs) -> Result<Ahead, Error> {
        let dataset = &*self.dataset;
        let load_rollups = |kind, is_needed| async move {
            if is_needed { dataset.rollup_index(kind).await.map(drop) } else { Ok(()) }
        };
        let load_buckets = async {
            if !needs.series_rollups {
                return Ok(None);
            }
            let pages = dataset.pages(SectionKind::SeriesRollup);
            tokio::try_join!(dataset.series_buckets(), pages).map(|(buckets, _)| buckets)
        };
        let load_profiles = async {
            if !needs.samples {
                return Ok(None);
            }
            let pages = dataset.pages(SectionKind::Samples);
            tokio::try_join!(dataset.profiles(), pages).map(|(profiles, _)| Some(profiles))
        };
        let (buckets, profiles, (), ()) = tokio::try_join!(
            load_buckets,
            load_profiles,
            load_rollups(SectionKind::CoarseRollup, needs.coarse_rollups),
            load_rollups(SectionKind::Rollup, needs.rollups),
        )?;
        Ok(Ahead { buckets, profiles })
    }

    /// What is left of the samples in the range.
    fn downsampled(&self, range: TimeRange) -> Error {
        let (first_ns, last_ns) = (self.dataset.meta().first_ns, self.dataset.meta().last_ns);
        let held = TimeRange::new(first_ns.max(range.start_ns), last_ns.saturating_add(1).min(range.end_ns));
        Error::Downsampled { first_ns, last_ns, sums: held.touched_buckets() }
    }

    /// Rows must exist before they are used as indexes.
    fn check_rows(&self, rows: &RowSet) {
        let series = self.dataset.meta().series;
        debug_assert!(rows.iter().all(|run| u64::from(run.end) <= series), "rows are those of series()");
    }
}

/// The rollups of scopes, the ones of wider buckets first.
type Take = fn(&mut SumPlan, &BTreeMap<RollupKey, Range<u64>>) -> Vec<RollupKey>;
const ROLLUPS: [(SectionKind, Take); 2] =
    [(SectionKind::CoarseRollup, SumPlan::take_coarse), (SectionKind::Rollup, SumPlan::take_fine)];

/// Which parts of a dataset a sum cannot do without, as far as that can be told before any of them is read.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    coarse_rollups: bool,
    rollups: bool,
    series_rollups: bool,
    samples: bool,
}

impl Needs {
    fn new(meta: &DatasetMeta, plan: &SumPlan, range: &TimeRange) -> Self {
        let touches = |window: &TimeRange| window.touches(meta.first_ns, meta.last_ns);
        if !touches(range) {
            return Self::default();
        }
        let is_cut = |width_ns| edges(range, width_ns).iter().any(touches);
        if plan.has_windows(meta.first_ns, meta.last_ns) {
            let coarse_rollups = meta.section(SectionKind::CoarseRollup).is_some();
            let rollups = !coarse_rollups || is_cut(COARSE_BUCKET_NS);
            let samples = is_cut(ROLLUP_BUCKET_NS) && !meta.is_downsampled();
            return Self { coarse_rollups, rollups, series_rollups: false, samples };
        }
        let series_rollups = meta.section(SectionKind::SeriesRollup).is_some() && holds_a_bucket(range);
        let samples = (!series_rollups || is_cut(ROLLUP_BUCKET_NS)) && !meta.is_downsampled();
        Self { series_rollups, samples, ..Self::default() }
    }

    /// Where profiles count one by one.
    fn of_profiles(meta: &DatasetMeta) -> Self {
        let series_rollups = meta.is_downsampled();
        Self { series_rollups, samples: !series_rollups, ..Self::default() }
    }
}

/// What has been loaded of it, but for what is small enough to stay in the cache.
#[derive(Debug)]
struct Ahead {
    buckets: Option<Arc<SeriesBuckets>>,
    profiles: Option<Arc<ProfileTable>>,
}

/// What of the range lies in buckets that it cuts.
fn edges(range: &TimeRange, width_ns: i64) -> Vec<TimeRange> {
    let (after, before) = (range.start_ns.rem_euclid(width_ns), range.end_ns.rem_euclid(width_ns));
    let first = TimeRange::new(range.start_ns, range.start_ns.saturating_add(width_ns - after));
    let last = TimeRange::new(range.end_ns.saturating_sub(before), range.end_ns);
    [(after, first), (before, last)].into_iter().filter(|(cut, _)| *cut != 0).map(|(_, edge)| edge).collect()
}

/// Whether a bucket may lie whole inside the window.
fn holds_a_bucket(window: &TimeRange) -> bool {
    let first_ns = bucket_start(window.start_ns.saturating_add(ROLLUP_BUCKET_NS - 1));
    is_whole(first_ns, ROLLUP_BUCKET_NS, window)
}

/// Drops the windows in which nothing was collected.
fn retain_touched(reads: &mut Vec<Read>, first_ns: i64, last_ns: i64) {
    reads.iter_mut().for_each(|read| read.windows.retain(|window| window.touches(first_ns, last_ns)));
    reads.retain(|read| !read.windows.is_empty());
}

/// Rollups of series to add, and what is left to be read.
fn series_steps(buckets: &SeriesBuckets, reads: &[Read]) -> (Vec<Step>, Vec<Read>) {
    let (mut steps, mut left) = (Vec::new(), Vec::new());
    for (read, row) in reads.iter().flat_map(|read| read.rows.clone().map(move |row| (read, row))) {
        let mut windows = Vec::new();
        for window in &read.windows {
            let whole = buckets.within(row, window);
            push_step(&mut steps, buckets.rows(&whole), None);
            windows.extend(around(*window, buckets.bucket_ns[whole].iter().copied(), ROLLUP_BUCKET_NS));
        }
        if !windows.is_empty() {
            left.push(Read { rows: row..row + 1, windows });
        }
    }
    (steps, left)
}

/// Rollups of series to add, each series with its number of profiles.
fn mean_steps(buckets: &SeriesBuckets, rows: &RowSet, range: TimeRange, counts: &[u32]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (row, count) in rows.iter().cloned().flatten().zip(counts) {
        push_step(&mut steps, buckets.rows(&buckets.within(row, &range)), Some(*count));
    }
    steps
}

fn read_steps(profiles: &ProfileTable, reads: &[Read]) -> Vec<Step> {
    let mut steps = Vec::new();
    for read in reads {
        for row in read.rows.clone() {
            for window in &read.windows {
                push_step(&mut steps, profiles.samples(&profiles.of_series(row, *window)), None);
            }
        }
    }
    steps
}

fn pick_steps(profiles: &ProfileTable, scan: &TreeScan) -> Vec<Step> {
    let mut steps = Vec::new();
    for (position, row) in scan.rows.iter().cloned().flatten().enumerate() {
        match &scan.pick {
            Pick::Sum => push_step(&mut steps, profiles.samples(&profiles.of_series(row, scan.range)), None),
            Pick::Mean(counts) => {
                let samples = profiles.samples(&profiles.of_series(row, scan.range));
                push_step(&mut steps, samples, Some(counts[position]));
            }
            Pick::At(times) => {
                if let Some(profile) = picked_of(profiles, row, scan.range, times[position]) {
                    push_step(&mut steps, profiles.samples(&profile), None);
                }
            }
        }
    }
    steps
}

/// The profile of a series at its time, if that lies in the range, as a run.
fn picked_of(
    profiles: &ProfileTable,
    row: u32,
    range: TimeRange,
    time_ns: Option<i64>,
) -> Option<Range<usize>> {
    let profile = profiles.at(row, time_ns.filter(|time_ns| range.contains(*time_ns))?)?;
    Some(profile..profile + 1)
}

/// The picked profiles of these rows, each a run.
fn picked_at(
    profiles: &ProfileTable,
    rows: &RowSet,
    range: TimeRange,
    times: &[Option<i64>],
) -> Vec<Range<usize>> {
    let series = rows.iter().cloned().flatten().zip(times);
    series.filter_map(|(row, time_ns)| picked_of(profiles, row, range, *time_ns)).collect()
}

/// The runs of profiles of these rows and this range.
fn profile_runs(profiles: &ProfileTable, rows: &RowSet, range: TimeRange) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for row in rows.iter().cloned().flatten() {
        let run = profiles.of_series(row, range);
        match runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => runs.push(run),
        }
    }
    runs
}

/// Groups of runs of about [`CHUNK_SAMPLES`] samples; a profile is never split.
fn sample_batches(profiles: &ProfileTable, runs: &[Range<usize>]) -> Vec<Vec<Range<usize>>> {
    let mut batches = vec![Vec::new()];
    let mut held = 0;
    for run in runs {
        let mut start = run.start;
        for profile in run.clone() {
            held += profiles.columns.samples[profile] as usize;
            if held >= CHUNK_SAMPLES {
                batches.last_mut().expect("there is always one").push(start..profile + 1);
                batches.push(Vec::new());
                (start, held) = (profile + 1, 0);
            }
        }
        if start < run.end {
            batches.last_mut().expect("there is always one").push(start..run.end);
        }
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

fn to_nodes(stacks: &StackTable, sums: Vec<i64>) -> Vec<i64> {
    let mut self_values = vec![0; stacks.tree.len()];
    for (node, sum) in stacks.node_of_stack.iter().zip(sums) {
        self_values[*node as usize] = sum;
    }
    self_values
}

#[async_trait]
impl Source for BlockSource {
    async fn series(&self) -> Result<Arc<SeriesTable>, Error> {
        self.dataset.series().await
    }

    fn is_downsampled(&self) -> bool {
        self.dataset.meta().is_downsampled()
    }

    async fn profiles(&self, rows: &RowSet, range: TimeRange) -> Result<Profiles, Error> {
        self.check_rows(rows);
        let profiles = self.dataset.profiles().await?;
        let rows = rows.clone();
        let found = offload(move |_| Ok(profiles.gather(&profile_runs(&profiles, &rows, range)))).await?;
        count(&self.dataset.counters.profile_rows, found.series.len() as u64);
        Ok(found)
    }

    async fn tree(&self, scan: &TreeScan) -> Result<PartialTree, Error> {
        self.check_rows(&scan.rows);
        let scan = &TreeScan { range: self.tree_range(scan.range), ..scan.clone() };
        let series = self.dataset.series().await?;
        let (table, rows, range) = (Arc::clone(&series), scan.rows.clone(), scan.range);
        let plan = offload(move |_| Ok(SumPlan::new(&table, &rows, range))).await?;
        let needs = match scan.pick {
            Pick::Sum => Needs::new(self.dataset.meta(), &plan, &range),
            Pick::Mean(_) | Pick::At(_) => Needs::of_profiles(self.dataset.meta()),
        };
        let (stacks, ahead) = tokio::try_join!(self.dataset.stacks(), self.load_ahead(needs))?;
        let count = stacks.node_of_stack.len();
        let (parts, sums) = match scan.pick {
            Pick::Sum => (self.sum(plan, &series, ahead).await?, Accumulator::sum(count)),
            Pick::Mean(_) => (self.picked(scan, ahead).await?, Accumulator::mean(count)),
            Pick::At(_) => (self.picked(scan, ahead).await?, Accumulator::sum(count)),
        };
        let sums = scan::add(&self.dataset, &parts, sums).await?;
        let sums =
            sums.finish().map_err(|_| Error::Overflow { profile_type: series.type_name(&scan.rows) })?;
        let tree = Arc::clone(&stacks.tree);
        let self_values = offload(move |_| Ok(to_nodes(&stacks, sums))).await?;
        Ok(PartialTree { tree, self_values })
    }

    async fn samples(&self, scan: &SampleScan) -> Result<BoxStream<'static, Result<Samples, Error>>, Error> {
        self.check_rows(&scan.rows);
        if self.is_downsampled() {
            return Err(self.downsampled(scan.range));
        }
        let (profiles, stacks, _) = tokio::try_join!(
            self.dataset.profiles(),
            self.dataset.stacks(),
            self.dataset.pages(SectionKind::Samples)
        )?;
        let runs = match &scan.at {
            None => profile_runs(&profiles, &scan.rows, scan.range),
            Some(times) => picked_at(&profiles, &scan.rows, scan.range, times),
        };
        let batches = sample_batches(&profiles, &runs);
        let dataset = Arc::clone(&self.dataset);
        let stream = stream::iter(batches).then(move |runs| {
            let (dataset, profiles, stacks) =
                (Arc::clone(&dataset), Arc::clone(&profiles), Arc::clone(&stacks));
            async move { scan::samples(&dataset, &profiles, &stacks, runs).await }
        });
        Ok(stream.boxed())
    }

    async fn stack_tree(&self) -> Result<Arc<Tree>, Error> {
        Ok(Arc::clone(&self.dataset.stacks().await?.tree))
    }

    async fn sample_labels(&self) -> Result<Arc<Vec<SampleLabels>>, Error> {
        self.dataset.label_sets().await
    }

    fn stats(&self) -> ScanStats {
        self.dataset.counters.stats()
    }
}
