//! The catalogue from the bucket: what every block says of itself, and which of them count.
//!
//! ```text
//!   bucket ─► tables of contents ─► choose (pure) ─► what the catalogue should hold ─► Catalogue::rebuild
//! ```
//!
//! Subsystems: [`cover`] chooses; `conflicts` and `search` are how.
//!
//! Laws: nothing in the bucket is changed; every record that is in some block counts once; epochs and fences are at least
//! as high as any in the bucket, so that whoever goes on writing meets nobody's path; what is not in the bucket (tokens,
//! deletions, deleted tenants, names of locations) is left as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use cambium_blocks::layout::BLOCKS_PREFIX;
use cambium_blocks::reader;
use cambium_metastore::catalogue::{LogState, Rebuilt, RebuiltTenant};
use cambium_model::block::{BlockMeta, IMPORTS, LogId, Offset};
use cambium_model::tenant::TenantNumber;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::Error;
use cover::{Choice, Damaged};

mod conflicts;

pub mod cover;

mod search;

/// Tables of contents read at a time.
const READS_MAX: usize = 16;

/// What the blocks of a bucket say.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Those that can be read, by path.
    pub blocks: Vec<Arc<BlockMeta>>,
    /// Those that cannot.
    pub damaged: Vec<Damaged>,
}

/// Reads every block's table of contents.
///
/// # Errors
/// [`Error::Store`], [`Error::Blocks`] where the bucket cannot be read. A damaged block is none.
pub async fn read_bucket(store: &dyn ObjectStore) -> Result<Contents, Error> {
    let failed = |source| Error::Store { path: BLOCKS_PREFIX.to_owned(), source };
    let prefix = Path::from(BLOCKS_PREFIX);
    let paths = store.list(Some(&prefix)).map_ok(|object| object.location.to_string());
    let paths: Vec<String> = paths.try_collect().await.map_err(failed)?;
    let mut contents = Contents::default();
    let read = |path: String| async move { (reader::open(store, &path).await, path) };
    let mut read = stream::iter(paths).map(read).buffer_unordered(READS_MAX);
    while let Some((block, path)) = read.next().await {
        match block {
            Ok(block) if block.level > 0 || block.log_ranges.len() == 1 => {
                contents.blocks.push(Arc::new(block))
            }
            Ok(_) => {
                let what = "is of level 0 and not of one run of a log".to_owned();
                contents.damaged.push(Damaged { path, what });
            }
            // Deleted since it was listed.
            Err(cambium_blocks::Error::Store { source: object_store::Error::NotFound { .. }, .. }) => {}
            Err(error @ cambium_blocks::Error::Store { .. }) => return Err(error.into()),
            Err(error) => {
                let what = error.to_string();
                let what =
                    what.strip_prefix(&path).map(|rest| rest.trim_start_matches([':', ' ']).to_owned());
                contents.damaged.push(Damaged { what: what.unwrap_or_else(|| error.to_string()), path });
            }
        }
    }
    contents.blocks.sort_by(|a, b| a.path.cmp(&b.path));
    contents.damaged.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(contents)
}

/// What the catalogue should hold. `log_firsts` are the first offsets that logs still have: whatever came before was in
/// blocks, or in none because it was a retry.
///
/// # Errors
/// [`Error::Tenants`] where two blocks disagree about who has a number.
pub fn rebuilt(
    contents: &Contents,
    choice: &Choice,
    log_firsts: &BTreeMap<LogId, Offset>,
) -> Result<Rebuilt, Error> {
    let mut logs: BTreeMap<LogId, LogState> = BTreeMap::new();
    let empty = LogState { epoch: 0, committed_next: Offset(0) };
    for block in choice.kept.iter().chain(&choice.unwanted) {
        for range in &block.log_ranges {
            let state = logs.entry(range.log).or_insert(empty);
            state.committed_next = state.committed_next.max(range.next);
        }
    }
    for (log, first) in log_firsts {
        let state = logs.entry(*log).or_insert(empty);
        state.committed_next = state.committed_next.max(*first);
    }
    for block in contents.blocks.iter().filter(|block| block.level == 0) {
        let state = logs.entry(block.log_ranges[0].log).or_insert(empty);
        state.epoch = state.epoch.max(block.epoch);
    }
    let merged = contents.blocks.iter().filter(|block| block.level > 0);
    let datasets = || contents.blocks.iter().flat_map(|block| &block.datasets);
    let mut last_deletions: BTreeMap<TenantNumber, u64> = BTreeMap::new();
    for dataset in datasets().filter(|dataset| dataset.deletions_done > 0) {
        let last = last_deletions.entry(dataset.tenant.number).or_default();
        *last = dataset.deletions_done.max(*last);
    }
    let ranges = contents.blocks.iter().flat_map(|block| &block.log_ranges);
    let partitions = ranges.map(|range| range.log.partition).filter(|partition| *partition != IMPORTS);
    Ok(Rebuilt {
        blocks: choice.kept.clone(),
        logs,
        fence: merged.map(|block| block.epoch).max().unwrap_or(0),
        tenants: tenants(contents)?,
        last_deletions,
        partitions_min: partitions.map(|partition| partition.0 + 1).max().unwrap_or(0),
    })
}

/// Who has which number, as the blocks say.
fn tenants(contents: &Contents) -> Result<Vec<RebuiltTenant>, Error> {
    let mut tenants: BTreeMap<TenantNumber, RebuiltTenant> = BTreeMap::new();
    for block in &contents.blocks {
        for dataset in &block.datasets {
            let (tenant, first_ns) = (&dataset.tenant, dataset.first_ns);
            let held = tenants
                .entry(tenant.number)
                .or_insert_with(|| RebuiltTenant { tenant: tenant.clone(), first_ns });
            if held.tenant.id != tenant.id {
                let (path, number) = (block.path.clone(), tenant.number.0);
                let (name, other) = (tenant.id.to_string(), held.tenant.id.to_string());
                return Err(Error::Tenants { path, number, name, other });
            }
            held.first_ns = held.first_ns.min(first_ns);
        }
    }
    Ok(tenants.into_values().collect())
}
