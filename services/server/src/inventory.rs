//! What there is: blocks and tenants, as the catalogue has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cambium_metastore::catalogue::OpenLog;
use cambium_metastore::{Catalogue, Tenants};
use cambium_model::block::BlockMeta;
use cambium_model::tenant::TenantNumber;
use cambium_model::time::DAY_NS;
use serde::{Deserialize, Serialize};

/// Which blocks to list.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct BlockFilter {
    /// Those with a dataset of a tenant of this name; all where none is given.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Those of this level.
    #[serde(default)]
    pub level: Option<u8>,
}

/// A block.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct BlockRow {
    /// Its path in the bucket.
    pub path: String,
    /// Generation of merging.
    pub level: u8,
    /// Names of the tenants that it holds something of.
    pub tenants: Vec<String>,
    /// Days since the Unix epoch, of the last profile.
    pub day: i64,
    /// Earliest profile, nanoseconds since the Unix epoch.
    pub first_ns: i64,
    /// Latest profile, likewise.
    pub last_ns: i64,
    /// Series, of all tenants.
    pub series: u64,
    /// Profiles, of all tenants.
    pub profiles: u64,
    /// Samples, of all tenants.
    pub samples: u64,
    /// The object's bytes.
    pub bytes: u64,
}

/// A tenant, as it is or was.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct TenantRow {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u32,
    /// `active`; `hidden` or `erased` once it was deleted.
    pub state: String,
    /// Blocks with something of it.
    pub blocks: u64,
    /// Bytes of its sections there.
    pub bytes: u64,
}

/// The blocks that count, by level and path.
///
/// # Errors
/// The catalogue's.
pub async fn blocks(
    catalogue: &Catalogue,
    filter: &BlockFilter,
) -> Result<Vec<BlockRow>, cambium_metastore::catalogue::Error> {
    let blocks = all(catalogue).await?;
    let is_asked = |block: &&Arc<BlockMeta>| {
        let mut names = block.datasets.iter().map(|dataset| dataset.tenant.id.as_str());
        filter.level.is_none_or(|level| block.level == level)
            && filter.tenant.as_ref().is_none_or(|tenant| names.any(|name| name == tenant))
    };
    let mut rows: Vec<BlockRow> = blocks.iter().filter(is_asked).map(|block| row(block)).collect();
    rows.sort_by(|a, b| (a.level, &a.path).cmp(&(b.level, &b.path)));
    Ok(rows)
}

/// The tenants that there are and were, by number.
///
/// # Errors
/// The metadata store's.
pub async fn tenants(
    catalogue: &Catalogue,
    tenants: &Tenants,
) -> Result<Vec<TenantRow>, cambium_metastore::catalogue::Error> {
    let mut held: BTreeMap<TenantNumber, (u64, u64)> = BTreeMap::new();
    for block in all(catalogue).await? {
        for dataset in &block.datasets {
            let (blocks, bytes) = held.entry(dataset.tenant.number).or_default();
            *blocks += 1;
            *bytes += dataset.sections.iter().map(|section| section.length).sum::<u64>();
        }
    }
    let row = |name: String, number: TenantNumber, state: &str| {
        let (blocks, bytes) = held.get(&number).copied().unwrap_or_default();
        TenantRow { name, number: number.0, state: state.to_owned(), blocks, bytes }
    };
    let active = tenants.list().await?;
    let mut rows: Vec<TenantRow> =
        active.into_iter().map(|tenant| row(tenant.id.to_string(), tenant.number, "active")).collect();
    rows.extend(tenants.retired().await?.into_iter().map(|retired| {
        let state = if retired.erased { "erased" } else { "hidden" };
        row(retired.tenant.id.to_string(), retired.tenant.number, state)
    }));
    rows.sort_by_key(|row| row.number);
    Ok(rows)
}

/// A log of which records may be in no block.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogRow {
    /// The log.
    pub log: String,
    /// The node that holds it; empty where nobody is known to.
    pub holder: String,
    /// The first record that is in no block.
    pub from_offset: u64,
}

/// The logs that are not sealed.
///
/// # Errors
/// The metadata store's.
pub async fn logs(catalogue: &Catalogue) -> Result<Vec<LogRow>, cambium_metastore::catalogue::Error> {
    let row =
        |open: OpenLog| LogRow { log: open.log.to_string(), holder: open.holder, from_offset: open.next.0 };
    Ok(catalogue.open_logs().await?.into_iter().map(row).collect())
}

async fn all(catalogue: &Catalogue) -> Result<Vec<Arc<BlockMeta>>, cambium_metastore::catalogue::Error> {
    let everything = catalogue.all().await?;
    let flushed = everything.logs.into_iter().flat_map(|log| log.blocks);
    Ok(flushed.chain(everything.merged.into_iter().flat_map(|owned| owned.blocks)).collect())
}

fn row(block: &BlockMeta) -> BlockRow {
    let datasets = &block.datasets;
    let last_ns = datasets.iter().map(|dataset| dataset.last_ns).max().unwrap_or(0);
    BlockRow {
        path: block.path.clone(),
        level: block.level,
        tenants: datasets.iter().map(|dataset| dataset.tenant.id.to_string()).collect(),
        day: last_ns.div_euclid(DAY_NS),
        first_ns: datasets.iter().map(|dataset| dataset.first_ns).min().unwrap_or(0),
        last_ns,
        series: datasets.iter().map(|dataset| dataset.series).sum(),
        profiles: datasets.iter().map(|dataset| dataset.profiles).sum(),
        samples: datasets.iter().map(|dataset| dataset.samples).sum(),
        bytes: block.size_bytes,
    }
}
