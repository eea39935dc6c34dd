//! Which blocks cannot count at the same time: those that stand for the same records, and a block and what it was merged
//! from; and which cannot count at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cambium_model::block::{BlockMeta, Cover, DatasetMeta, LogId, LogRange};
use cambium_model::tenant::TenantNumber;

/// For each block those that conflict with it.
pub(super) type Conflicts = Vec<BTreeSet<usize>>;

/// A block's claim on records of a tenant.
struct Claim {
    tenant: TenantNumber,
    cover: Cover,
    block: usize,
}

/// The conflicts of these blocks, as far as datasets are concerned that anybody wants.
pub(super) fn conflicts(
    blocks: &[Arc<BlockMeta>],
    is_wanted: &(dyn Fn(&DatasetMeta) -> bool + '_),
) -> Conflicts {
    let mut found: Conflicts = vec![BTreeSet::new(); blocks.len()];
    let mut note = |a: usize, b: usize| {
        if a != b {
            found[a].insert(b);
            found[b].insert(a);
        }
    };
    let mut claims: Vec<Claim> = Vec::new();
    for (block, meta) in blocks.iter().enumerate() {
        for dataset in meta.datasets.iter().filter(|dataset| is_wanted(dataset)) {
            let tenant = dataset.tenant.number;
            claims.extend(meta.covers(dataset).into_iter().map(|cover| Claim { tenant, cover, block }));
        }
    }
    claims.sort_by_key(|claim| (claim.tenant, claim.cover.range.log, claim.cover.range.first, claim.block));
    // Those that reach to where the next one begins, or further.
    let mut open: Vec<&Claim> = Vec::new();
    for claim in &claims {
        let range = claim.cover.range;
        open.retain(|other| {
            other.tenant == claim.tenant
                && other.cover.range.log == range.log
                && other.cover.range.next > range.first
        });
        for other in &open {
            if range.first < range.next && may_share(&claim.cover, &other.cover) {
                note(claim.block, other.block);
            }
        }
        open.push(claim);
    }
    let by_path: BTreeMap<&str, usize> =
        blocks.iter().enumerate().map(|(index, block)| (block.path.as_str(), index)).collect();
    for (index, block) in blocks.iter().enumerate() {
        for source in block.sources.iter().filter_map(|path| by_path.get(path.as_str())) {
            note(index, *source);
        }
    }
    found
}

/// The blocks of level 0 that were never committed, or are merged already, as others show: only what was committed is
/// merged, and an owner begins where the log was committed when it came.
pub(super) fn fenced(blocks: &[Arc<BlockMeta>]) -> BTreeSet<String> {
    let mut of_log: BTreeMap<LogId, Vec<(&LogRange, &Arc<BlockMeta>)>> = BTreeMap::new();
    for block in blocks {
        for range in &block.log_ranges {
            of_log.entry(range.log).or_default().push((range, block));
        }
    }
    let is_fenced = |block: &&Arc<BlockMeta>| {
        let range = block.log_ranges[0];
        let others = of_log[&range.log]
            .iter()
            .filter(|(other, _)| range.first.max(other.first) < range.next.min(other.next));
        others.into_iter().any(|(_, other)| match other.level {
            0 => other.epoch > block.epoch,
            1 => !other.sources.contains(&block.path),
            _ => true,
        })
    };
    let flushed = blocks.iter().filter(|block| block.level == 0);
    flushed.filter(is_fenced).map(|block| block.path.clone()).collect()
}

/// Whether records of the same run may be of both.
fn may_share(a: &Cover, b: &Cover) -> bool {
    let begins_before_end = |a: &Cover, b: &Cover| match (&a.from, &b.to) {
        (Some(from), Some(to)) => from < to,
        _ => true,
    };
    let classes_differ = match (a.class, b.class) {
        (Some(a), Some(b)) => a.rules == b.rules && a.index != b.index,
        _ => false,
    };
    begins_before_end(a, b) && begins_before_end(b, a) && !classes_differ
}
