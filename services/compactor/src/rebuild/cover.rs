//! Which of the blocks in a bucket count: a choice in which every record occurs once. Pure.
//!
//! ```text
//!   in the bucket           as committed        what it is
//!   [a][b][c]                                   merged into A: their objects stay for a grace
//!   [A      ]               [A      ]
//!   [A'   ]                                     a merge that died before its commit
//!            [d'    ]                           a flush of an owner that had lost its log
//!            [d][e]            [d][e]
//! ```
//!
//! Flushes that others show to have been fenced off come out first: they may hold records that no commit covers. What was
//! committed last is then a set of blocks of which no two stand for the same records, and whatever else lies there was
//! merged into or from them. So the choice is the heaviest set without conflicts, weighed in profiles as they were
//! flushed; any other set that is as heavy holds the same profiles. Of equals it is that of complete merges of the highest
//! level. A flush that nothing speaks against counts, committed or not: replay goes on after it.
//!
//! Law: if what was committed is still there, every profile of it is in the choice once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use cambium_model::block::{BlockMeta, DatasetMeta, LogRange};

use super::conflicts::{conflicts, fenced};
use super::search::heaviest;

/// A block that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Its path.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

/// What cannot be had back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A block is damaged and nothing else is known to hold what it held.
    Damaged(Damaged),
    /// Parts of a merge are neither there nor merged on, and nor is all that they were merged from.
    Parts {
        /// A part that is there.
        path: String,
        /// Whose records are missing, but for those that the other parts have.
        ranges: Vec<LogRange>,
    },
}

/// Which blocks count.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Those that count.
    pub kept: Vec<Arc<BlockMeta>>,
    /// Those of which others hold the same.
    pub superseded: Vec<Arc<BlockMeta>>,
    /// Those that nobody wants any more.
    pub unwanted: Vec<Arc<BlockMeta>>,
    /// What cannot be had back.
    pub lost: Vec<Lost>,
    /// Runs between kept ones of a log that no kept block speaks of: retries, or what was too old to be kept.
    pub gaps: Vec<LogRange>,
    /// Whether no choice holds more; else the search took too long.
    pub is_proven: bool,
}

/// What there is to choose from, and by what.
pub struct Candidates<'a> {
    /// Every block that can be read.
    pub blocks: &'a [Arc<BlockMeta>],
    /// Every block that cannot.
    pub damaged: &'a [Damaged],
    /// Whether a dataset's tenant still wants it.
    pub is_wanted: &'a dyn Fn(&DatasetMeta) -> bool,
    /// Before this time, nanoseconds since the Unix epoch, parts of a merge may have been removed as too old.
    pub complete_from_ns: i64,
}

impl fmt::Debug for Candidates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidates").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(Damaged { path, what }) => write!(f, "{path} {what}"),
            Self::Parts { path, ranges } => {
                write!(
                    f,
                    "parts that were written together with {path} are gone, with tenants' or services' records of"
                )?;
                ranges.iter().try_for_each(|range| {
                    write!(f, " log {} from {} to before {};", range.log, range.first.0, range.next.0)
                })
            }
        }
    }
}

/// Chooses.
pub fn choose(candidates: &Candidates<'_>) -> Choice {
    let is_wanted = |block: &&Arc<BlockMeta>| block.datasets.iter().any(|d| (candidates.is_wanted)(d));
    let (wanted, unwanted): (Vec<&Arc<BlockMeta>>, Vec<_>) = candidates.blocks.iter().partition(is_wanted);
    let fenced = fenced(candidates.blocks);
    let (fenced, blocks): (Vec<Arc<BlockMeta>>, Vec<_>) =
        wanted.into_iter().cloned().partition(|block| fenced.contains(&block.path));
    let conflicts = conflicts(&blocks, candidates.is_wanted);
    let weights: Vec<u64> = blocks.iter().map(|block| weight(block, candidates.is_wanted)).collect();
    let merges = Merges::of(candidates.blocks);
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|index| {
        let block = &blocks[*index];
        (!merges.is_whole(block), u8::MAX - block.level, u64::MAX - block.epoch, &block.path)
    });
    let found = heaviest(&conflicts, &weights, &order);
    let chosen: BTreeSet<usize> = found.chosen.into_iter().collect();
    let mut choice = Choice {
        unwanted: unwanted.into_iter().cloned().collect(),
        superseded: fenced,
        is_proven: found.is_proven,
        ..Choice::default()
    };
    for (index, block) in blocks.into_iter().enumerate() {
        if chosen.contains(&index) { choice.kept.push(block) } else { choice.superseded.push(block) }
    }
    choice.lost = lost(candidates, &merges, &choice);
    choice.gaps = gaps(&choice.kept);
    choice
}

/// Profiles as they were flushed, of datasets that are wanted.
fn weight(block: &BlockMeta, is_wanted: &dyn Fn(&DatasetMeta) -> bool) -> u64 {
    let wanted = block.datasets.iter().filter(|dataset| is_wanted(dataset));
    wanted.map(|dataset| dataset.profiles + dataset.profiles_left_out).sum()
}

/// The parts that are there, by the fence of their merge.
struct Merges<'a>(BTreeMap<u64, Vec<&'a Arc<BlockMeta>>>);

impl<'a> Merges<'a> {
    fn of(blocks: &'a [Arc<BlockMeta>]) -> Self {
        let mut merges: BTreeMap<u64, Vec<&Arc<BlockMeta>>> = BTreeMap::new();
        for block in blocks.iter().filter(|block| block.level > 0) {
            merges.entry(block.epoch).or_default().push(block);
        }
        Self(merges)
    }

    /// Whether all parts of the block's merge are there. Only the last says how many there are.
    fn is_whole(&self, block: &BlockMeta) -> bool {
        let Some(parts) = self.0.get(&block.epoch).filter(|_| block.level > 0) else { return true };
        parts.iter().any(|part| part.parts as usize == parts.len())
    }
}

fn lost(candidates: &Candidates<'_>, merges: &Merges<'_>, choice: &Choice) -> Vec<Lost> {
    let is_merged_on =
        |damaged: &&Damaged| choice.kept.iter().any(|block| block.sources.contains(&damaged.path));
    let damaged =
        candidates.damaged.iter().filter(|damaged| !is_merged_on(damaged)).cloned().map(Lost::Damaged);
    let mut lost: Vec<Lost> = damaged.collect();
    let mut seen = BTreeSet::new();
    for block in choice.kept.iter().filter(|block| !merges.is_whole(block)) {
        let began_ns = block.datasets.iter().map(|dataset| dataset.first_ns).min().unwrap_or(0);
        if began_ns < candidates.complete_from_ns || !seen.insert(block.epoch) {
            continue;
        }
        let known = known_elsewhere(block, candidates, choice);
        let ranges = known.iter().fold(block.log_ranges.clone(), |left, known| without(&left, known));
        if !ranges.is_empty() {
            lost.push(Lost::Parts { path: block.path.clone(), ranges });
        }
    }
    lost
}

/// Runs of logs of which the choice holds what other parts of the block's merge held: some other block comes of the same
/// records, or what they were merged from is there and nothing of it is missing.
fn known_elsewhere(block: &BlockMeta, candidates: &Candidates<'_>, choice: &Choice) -> Vec<LogRange> {
    let others = choice.kept.iter().filter(|other| other.epoch != block.epoch || other.level == 0);
    let mut known: Vec<LogRange> = others.flat_map(|other| other.log_ranges.iter().copied()).collect();
    let is_held = |source: &BlockMeta, dataset: &DatasetMeta| {
        let mut holders = choice.kept.iter().filter_map(|kept| Some((kept, kept.dataset(&dataset.tenant)?)));
        holders.any(|(kept, held)| {
            let covers = kept.covers(held);
            covers.iter().any(|cover| {
                source.log_ranges.iter().any(|range| !without(&[*range], &cover.range).eq(&[*range]))
            })
        })
    };
    for source in candidates.blocks.iter().filter(|source| block.sources.contains(&source.path)) {
        let mut wanted = source.datasets.iter().filter(|dataset| (candidates.is_wanted)(dataset));
        if wanted.all(|dataset| is_held(source, dataset)) {
            known.extend(&source.log_ranges);
        }
    }
    known
}

/// What is left of the runs without this one.
fn without(ranges: &[LogRange], minus: &LogRange) -> Vec<LogRange> {
    let mut left = Vec::new();
    for range in ranges {
        if range.log != minus.log || minus.next <= range.first || range.next <= minus.first {
            left.push(*range);
            continue;
        }
        let before = LogRange { next: minus.first, ..*range };
        let after = LogRange { first: minus.next, ..*range };
        left.extend([before, after].into_iter().filter(|part| part.first < part.next));
    }
    left
}

/// Runs of a log between kept ones.
fn gaps(kept: &[Arc<BlockMeta>]) -> Vec<LogRange> {
    let mut all: Vec<LogRange> = kept.iter().flat_map(|block| block.log_ranges.iter().copied()).collect();
    all.sort_by_key(|range| (range.log, range.first));
    let mut gaps = Vec::new();
    let mut before: Option<LogRange> = None;
    for range in all {
        let reached = match before {
            Some(before) if before.log == range.log => {
                if before.next < range.first {
                    gaps.push(LogRange { log: range.log, first: before.next, next: range.first });
                }
                before.next.max(range.next)
            }
            _ => range.next,
        };
        before = Some(LogRange { next: reached, ..range });
    }
    gaps
}

#[cfg(test)]
mod tests;
