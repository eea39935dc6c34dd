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
//! asked for lie in, rounded to pieces of 256 KiB.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use cambium_model::block::{BlockMeta, SectionKind};
use cambium_model::profile::SampleLabels;
use cambium_model::time::{ROLLUP_BUCKET_NS, TimeRange, bucket_start};
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
use scan::{Step, push_step};
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

    async fn sum(
        &self,
        scan: &TreeScan,
        series: &Arc<SeriesTable>,
        mut sums: Accumulator,
    ) -> Result<Accumulator, Error> {
        let dataset = &*self.dataset;
        let (first_ns, last_ns) = (dataset.meta().first_ns, dataset.meta().last_ns);
        let (table, rows, range) = (Arc::clone(series), scan.rows.clone(), scan.range);
        let mut plan = offload(move |_| Ok(SumPlan::new(&table, &rows, range))).await?;
        for (kind, take) in ROLLUPS {
            if plan.has_windows(first_ns, last_ns) {
                let index = dataset.rollup_index(kind).await?;
                let taken = take(&mut plan, &index.rows);
                let mut steps = Vec::with_capacity(taken.len());
                taken.iter().for_each(|key| push_step(&mut steps, index.rows[key].clone(), None));
                sums = scan::add(dataset, kind, "sum", &steps, sums).await?;
            }
        }
        let mut reads = plan.reads(series);
        reads.iter_mut().for_each(|read| read.windows.retain(|window| window.touches(first_ns, last_ns)));
        reads.retain(|read| !read.windows.is_empty());
        if reads.iter().flat_map(|read| &read.windows).any(holds_a_bucket)
            && let Some(buckets) = dataset.series_buckets().await?
        {
            let (steps, left) = offload(move |_| Ok(series_steps(&buckets, &reads))).await?;
            reads = left;
            sums = scan::add(dataset, SectionKind::SeriesRollup, "sum", &steps, sums).await?;
        }
        if reads.is_empty() || dataset.meta().is_downsampled() {
            return Ok(sums);
        }
        let profiles = dataset.profiles().await?;
        let steps = offload(move |_| Ok(read_steps(&profiles, &reads))).await?;
        scan::add(dataset, SectionKind::Samples, "value", &steps, sums).await
    }

    /// The sums of the profiles that `pick` picks of each series.
    async fn picked(&self, scan: &TreeScan, sums: Accumulator) -> Result<Accumulator, Error> {
        let scan = scan.clone();
        if self.is_downsampled() {
            let Pick::Mean(counts) = scan.pick else { return Err(self.downsampled(scan.range)) };
            let Some(buckets) = self.dataset.series_buckets().await? else { return Ok(sums) };
            let steps = offload(move |_| Ok(mean_steps(&buckets, &scan.rows, scan.range, &counts))).await?;
            return scan::add(&self.dataset, SectionKind::SeriesRollup, "sum", &steps, sums).await;
        }
        let profiles = self.dataset.profiles().await?;
        let steps = offload(move |_| Ok(pick_steps(&profiles, &scan))).await?;
        scan::add(&self.dataset, SectionKind::Samples, "value", &steps, sums).await
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

/// Whether a bucket may lie whole inside the window.
fn holds_a_bucket(window: &TimeRange) -> bool {
    let first_ns = bucket_start(window.start_ns.saturating_add(ROLLUP_BUCKET_NS - 1));
    is_whole(first_ns, ROLLUP_BUCKET_NS, window)
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
        let (stacks, series) = tokio::try_join!(self.dataset.stacks(), self.dataset.series())?;
        let count = stacks.node_of_stack.len();
        let scan = &TreeScan { range: self.tree_range(scan.range), ..scan.clone() };
        let sums = match &scan.pick {
            Pick::Sum => self.sum(scan, &series, Accumulator::sum(count)).await?,
            Pick::Mean(_) => self.picked(scan, Accumulator::mean(count)).await?,
            Pick::At(times) if self.is_downsampled() && times.iter().all(Option::is_none) => {
                Accumulator::sum(count)
            }
            Pick::At(_) => self.picked(scan, Accumulator::sum(count)).await?,
        };
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
        let (profiles, stacks) = tokio::try_join!(self.dataset.profiles(), self.dataset.stacks())?;
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
