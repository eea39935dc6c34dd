//! Symbols: the names of locations, written before a profile is acknowledged and read after a query has truncated.
//!
//! ```text
//!   distributor ── unknown(ids) ──► indexes of ids this process has not seen written    (no I/O, no allocation per id)
//!               ── write_missing ──► multi-get; only absent or stale ones are written    (≤ 512 keys a transaction)
//!   querier     ── resolve(ids) ──► native: the id's own address + its object
//!                                   named:  cache ──► join whoever asks already ──► multi-gets (sorted, ≤ 1,024 keys)
//! ```
//!
//! Laws: a location's value is a function of its id, so whoever writes it writes the same names; a value holds the day
//! of its last write and is refreshed once it is older than [`VALIDITY`], so that a sweep may remove what nobody has
//! sent for long; everything is keyed by tenant, in caches too; native locations are never written here.

mod known;

mod lookup;

mod sweep;

mod table;

use std::sync::Arc;
use std::time::Duration;

use cambium_model::stacktrace::{BuildRef, LocationId};
use cambium_model::symbols::{Location, Mapping};
use cambium_model::tenant::TenantNumber;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::kv::KvStore;
use table::Table;

pub use lookup::Lookups;
pub use sweep::Swept;
pub(crate) use sweep::sweep;

/// How long a process takes for granted that an id it has seen in the store is still there, and how old a value may
/// grow before it is written again. Together: a value in use is never older than twice this, and the sweep removes
/// only what is older than the longest retention + 30 days.
pub const VALIDITY: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How long the store's answer "unknown" is believed.
pub const NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// Keys of one multi-get (TiKV sends one unbounded request per region: the bound is ours to keep).
pub const MULTI_GET_KEYS_MAX: usize = 1_024;

/// Multi-gets that one call has in flight; likewise transactions of one write.
pub const IN_FLIGHT_MAX: usize = 16;

/// Bytes of memory for names of loaded objects; there are few.
const OBJECT_CACHE_BYTES: u64 = 4 << 20;

/// Settings of the symbol tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Memory for resolved locations, bytes.
    pub cache_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache_bytes: 64 << 20 }
    }
}

/// The symbol tables of a cluster. One per process: its caches and known-sets are worth sharing.
#[derive(Debug)]
pub struct Symbols {
    locations: Table<Location>,
    objects: Table<Mapping>,
}

/// Locations by id, and what it took to find them.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// One per id asked for, in that order; `None` where the store knows no names.
    pub locations: Vec<Option<Arc<Location>>>,
    /// What it took.
    pub lookups: Lookups,
}

impl Symbols {
    /// The symbols kept in `store`; ages are measured by the clock. Registers its caches' metrics.
    pub fn new(store: Arc<dyn KvStore>, clock: Arc<dyn Clock>, config: &Config, metrics: &Metrics) -> Self {
        Self {
            locations: Table::new(Arc::clone(&store), Arc::clone(&clock), config.cache_bytes, metrics),
            objects: Table::new(store, clock, OBJECT_CACHE_BYTES, metrics),
        }
    }

    /// Appends to `missing` the indexes of named ids that this process has not seen in the store lately: what
    /// [`Self::write_missing`] wants. Native ids are never missing.
    pub fn unknown(&self, tenant: TenantNumber, ids: &[LocationId], missing: &mut Vec<usize>) {
        self.locations.unknown(tenant, ids, LocationId::is_named, missing);
    }

    /// Appends to `missing` the indexes of objects that this process has not seen in the store lately.
    pub fn unknown_objects(&self, tenant: TenantNumber, builds: &[BuildRef], missing: &mut Vec<usize>) {
        self.objects.unknown(tenant, builds, |_| true, missing);
    }

    /// Makes the locations' names durable: writes those that the store does not have or has not been told of for
    /// [`VALIDITY`]. On an error some may be written, which is harmless; none of the rest counts as known.
    pub async fn write_missing(
        &self,
        tenant: TenantNumber,
        locations: &[(LocationId, Location)],
    ) -> Result<(), Error> {
        self.locations.write_missing(tenant, locations).await
    }

    /// Like [`Self::write_missing`], for the objects that native ids refer to.
    pub async fn write_missing_objects(
        &self,
        tenant: TenantNumber,
        objects: &[(BuildRef, Mapping)],
    ) -> Result<(), Error> {
        self.objects.write_missing(tenant, objects).await
    }

    /// What is known of the locations. A native id always resolves: to its address, its object and no lines.
    pub async fn resolve(&self, tenant: TenantNumber, ids: &[LocationId]) -> Result<Resolved, Error> {
        let named: Vec<LocationId> = ids.iter().copied().filter(LocationId::is_named).collect();
        let builds: Vec<BuildRef> = ids.iter().filter_map(|id| Some(id.as_native()?.0)).collect();
        let ((found, mut lookups), (objects, object_lookups)) =
            tokio::try_join!(self.locations.resolve(tenant, &named), self.objects.resolve(tenant, &builds))?;
        lookups.multi_gets += object_lookups.multi_gets;
        let locations = ids.iter().map(|id| location(*id, &found, &objects)).collect();
        Ok(Resolved { locations, lookups })
    }
}

fn location(
    id: LocationId,
    found: &HashMap<LocationId, Arc<Location>>,
    objects: &HashMap<BuildRef, Arc<Mapping>>,
) -> Option<Arc<Location>> {
    let Some((build, address)) = id.as_native() else { return found.get(&id).cloned() };
    let mapping = objects.get(&build).map(|mapping| Mapping::clone(mapping)).unwrap_or_default();
    Some(Arc::new(Location { mapping, address, lines: Vec::new() }))
}

#[cfg(test)]
mod tests;
