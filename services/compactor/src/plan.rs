//! What to merge and what to remove: decided from the catalogue's entries alone, and pure.
//!
//! ```text
//!   level 0, by log ──── 10 min ──► level 1, by owner ──── 2 h ──► level 2 ──── 24 h ──► level 3
//!                       all tenants' parts at once        └─────────── 24 h ───────────────┘
//! ```
//!
//! An owner is a tenant, or all those whose parts are too small for objects of their own. A window is that of a block's
//! last profile. What arrives after its window has been merged is merged by itself, and again at the next level.
//!
//! Laws: no block is in two jobs; jobs of one name are done one after the other; a block is rewritten at most once on
//! each level, small ones of level 3, those with deleted profiles and those whose samples are dropped excepted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cambium_metastore::catalogue::{Everything, LogBlocks, OwnedBlocks};
use cambium_model::block::{BlockMeta, DatasetMeta};
use cambium_model::limits::Overrides;
use cambium_model::tenant::TenantNumber;
use cambium_model::time::{DAY_NS, SECOND_NS};

/// The highest level.
pub const TOP_LEVEL: u8 = 3;

/// How much of time the blocks of each level hold.
const WINDOWS_NS: [i64; 4] = [0, 600 * SECOND_NS, 7_200 * SECOND_NS, DAY_NS];

/// How long after the end of its window a block is left for others of the window to come.
const SETTLE_NS: i64 = 120 * SECOND_NS;

/// Blocks that one job takes. With their outputs a job's transaction stays under 200 keys.
const INPUTS_MAX: usize = 64;
/// Blocks of level 0 that are merged even though their window goes on.
const FLUSHED_MAX: usize = 20;
/// Bytes that one job takes.
const INPUT_BYTES_MAX: u64 = 4 << 30;

/// Blocks of the highest level up to this size are merged with what comes late.
const SMALL_BYTES: u64 = 64 << 20;

/// Some blocks to be replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Whoever does a job holds the lease of this name.
    pub name: String,
    /// What to do.
    pub work: Work,
    /// With what.
    pub inputs: Vec<Arc<BlockMeta>>,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Merge the inputs into blocks of this level.
    Merge {
        /// The level.
        level: u8,
    },
    /// Remove the inputs: all of them is older than its tenants want.
    Remove,
}

/// Every job that is due at this time (nanoseconds since the Unix epoch), one for each name.
pub fn plan(now_ns: i64, limits: &Overrides, catalogue: &Everything) -> Vec<Job> {
    let mut jobs: Vec<Job> = catalogue.logs.iter().filter_map(|log| flushed(now_ns, log)).collect();
    let mut owners: BTreeMap<Option<TenantNumber>, Vec<&OwnedBlocks>> = BTreeMap::new();
    for owned in &catalogue.merged {
        owners.entry(owned.tenant).or_default().push(owned);
    }
    for (tenant, days) in owners {
        let name = tenant.map_or_else(|| "shared".to_owned(), |tenant| format!("tenant/{}", tenant.0));
        let job = |(work, inputs)| Job { name: name.clone(), work, inputs };
        let mut due = days.iter().filter_map(|day| unwanted(now_ns, limits, catalogue, day));
        let due = due.by_ref().chain(days.iter().filter_map(|day| merge(now_ns, limits, day)));
        let mut due = due.chain(days.iter().filter_map(|day| rewrite(now_ns, limits, catalogue, day)));
        jobs.extend(due.next().map(job));
    }
    jobs
}

/// Whether the dataset's tenant wants none of its profiles any more.
pub fn is_expired(now_ns: i64, limits: &Overrides, dataset: &DatasetMeta) -> bool {
    !limits.of(&dataset.tenant.id).keeps_dataset(dataset, now_ns)
}

/// How long profiles may be retried after their own time, the longest of the block's tenants.
fn retried_ns(limits: &Overrides, block: &BlockMeta) -> i64 {
    let tenants = block.datasets.iter().map(|dataset| limits.of(&dataset.tenant.id).reject_older_than_secs);
    let longest = Duration::from_secs(tenants.max().unwrap_or(0));
    i64::try_from(longest.as_nanos()).unwrap_or(i64::MAX)
}

/// Whether a push of the block may still be retried, so that its profiles' ids must be kept.
pub fn may_be_retried(now_ns: i64, limits: &Overrides, block: &BlockMeta) -> bool {
    now_ns < last_ns(block).saturating_add(retried_ns(limits, block)).saturating_add(SETTLE_NS)
}

fn last_ns(block: &BlockMeta) -> i64 {
    block.datasets.iter().map(|dataset| dataset.last_ns).max().unwrap_or(0)
}

fn window(block: &BlockMeta, level: u8) -> i64 {
    last_ns(block).div_euclid(WINDOWS_NS[usize::from(level)])
}

fn window_end(window: i64, level: u8) -> i64 {
    (window + 1).saturating_mul(WINDOWS_NS[usize::from(level)])
}

/// The oldest blocks of a log, where they are a window's and no more are to be expected.
fn flushed(now_ns: i64, log: &LogBlocks) -> Option<Job> {
    let window_of = |block: &Arc<BlockMeta>| window(block, 1);
    let run = log.blocks.chunk_by(|a, b| window_of(a) == window_of(b)).next()?;
    let is_over = run.len() < log.blocks.len() || now_ns >= window_end(window_of(&run[0]), 1) + SETTLE_NS;
    let inputs = within_bounds(run.iter(), FLUSHED_MAX);
    let is_due = is_over || inputs.len() < run.len() || run.len() == FLUSHED_MAX;
    is_due.then(|| Job { name: format!("log/{}", log.log), work: Work::Merge { level: 1 }, inputs })
}

/// Blocks of an owner's day that nobody wants any more.
fn unwanted(
    now_ns: i64,
    limits: &Overrides,
    catalogue: &Everything,
    owned: &OwnedBlocks,
) -> Option<(Work, Vec<Arc<BlockMeta>>)> {
    let is_unwanted = |dataset: &DatasetMeta| {
        is_expired(now_ns, limits, dataset) || catalogue.retired.contains_key(&dataset.tenant.number)
    };
    let is_gone = |block: &&Arc<BlockMeta>| block.datasets.iter().all(is_unwanted);
    let inputs: Vec<_> = owned.blocks.iter().filter(is_gone).take(INPUTS_MAX).cloned().collect();
    (!inputs.is_empty()).then_some((Work::Remove, inputs))
}

/// Blocks of an owner's day that belong together: the whole day where it is over, else two hours of it.
fn merge(now_ns: i64, limits: &Overrides, owned: &OwnedBlocks) -> Option<(Work, Vec<Arc<BlockMeta>>)> {
    let mut lower: Vec<&Arc<BlockMeta>> =
        owned.blocks.iter().filter(|block| block.level < TOP_LEVEL).collect();
    lower.sort_by_key(|block| (last_ns(block), &block.path));
    let first = lower.first()?;
    let retried = lower.iter().any(|block| may_be_retried(now_ns, limits, block));
    let day_end = window_end(window(first, TOP_LEVEL), TOP_LEVEL);
    // Two hours more: what the last window of the day is late with.
    if !retried && now_ns >= day_end + WINDOWS_NS[2] + SETTLE_NS {
        let small =
            owned.blocks.iter().filter(|block| block.level == TOP_LEVEL && block.size_bytes <= SMALL_BYTES);
        let inputs = within_bounds(lower.into_iter().chain(small), INPUTS_MAX);
        return Some((Work::Merge { level: TOP_LEVEL }, inputs));
    }
    let level_1: Vec<&Arc<BlockMeta>> = lower.into_iter().filter(|block| block.level == 1).collect();
    level_1.chunk_by(|a, b| window(a, 2) == window(b, 2)).find_map(|run| {
        let is_over = now_ns >= window_end(window(run[0], 2), 2) + SETTLE_NS;
        let retried = run.iter().any(|block| may_be_retried(now_ns, limits, block));
        let inputs = within_bounds(run.iter().copied(), INPUTS_MAX);
        (is_over && !retried && inputs.len() > 1).then_some((Work::Merge { level: 2 }, inputs))
    })
}

/// Whether the dataset's samples are due to be dropped.
pub fn should_downsample(now_ns: i64, limits: &Overrides, dataset: &DatasetMeta) -> bool {
    limits.of(&dataset.tenant.id).downsamples(dataset.last_ns, now_ns)
}

/// A block that no merge will come by any more and that still has what a tenant has had deleted, or a deleted tenant, or
/// samples that are due to be dropped.
fn rewrite(
    now_ns: i64,
    limits: &Overrides,
    catalogue: &Everything,
    owned: &OwnedBlocks,
) -> Option<(Work, Vec<Arc<BlockMeta>>)> {
    let awaits = |dataset: &DatasetMeta| {
        let mut recorded = catalogue.deletions.get(&dataset.tenant.number).into_iter().flatten();
        catalogue.retired.contains_key(&dataset.tenant.number)
            || recorded.any(|recorded| dataset.awaits(recorded))
            || (should_downsample(now_ns, limits, dataset) && !dataset.is_downsampled())
    };
    let top = owned.blocks.iter().filter(|block| block.level == TOP_LEVEL);
    let mut found = top.filter(|block| block.datasets.iter().any(awaits));
    found.next().map(|block| (Work::Merge { level: TOP_LEVEL }, vec![Arc::clone(block)]))
}

/// As many of the first blocks as one job may take; at least one.
fn within_bounds<'a>(
    blocks: impl Iterator<Item = &'a Arc<BlockMeta>>,
    count_max: usize,
) -> Vec<Arc<BlockMeta>> {
    let mut bytes = 0_u64;
    let fits = |block: &&Arc<BlockMeta>| {
        let before = bytes;
        bytes = bytes.saturating_add(block.size_bytes);
        before == 0 || bytes <= INPUT_BYTES_MAX
    };
    blocks.take(count_max).take_while(fits).cloned().collect()
}

#[cfg(test)]
mod tests;
