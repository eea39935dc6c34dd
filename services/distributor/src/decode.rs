//! The part of a push that burns CPU, on as many threads as there are cores.
//!
//! ```text
//!   labels ─► decompress ─► rate ─► decode ─► time ─► series limit ─► names not seen ─► record
//! ```
//!
//! All of it in one job, so that a push changes threads at most once each way and its tables stay in one core's cache. A
//! small one runs where its body was read: handing it over and back would cost more than other requests lose by waiting.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cambium_metastore::Symbols;
use cambium_model::block::Partition;
use cambium_model::labels::Labels;
use cambium_model::limits::TenantLimits;
use cambium_model::profile::ProfileId;
use cambium_model::stacktrace::{BuildRef, LocationId};
use cambium_model::symbols::{Location, Mapping};
use cambium_model::tenant::Tenant;
use cambium_proto::pprof::{self, Decoded, Decoder, Decompressor};
use cambium_proto::record;
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::service::{Push, Shared, Tracked};
use crate::{shard, validate};

/// Bytes of a body up to which it is decoded in place: about a third of a millisecond for what profilers send.
const IN_PLACE_BYTES_MAX: usize = 64 << 10;

/// The decode workers: scratch space for as many jobs as may run at once.
#[derive(Debug)]
pub(crate) struct Workers {
    free: Arc<Mutex<Vec<Worker>>>,
    /// One permit per core. Its waiters are bounded by the bytes in flight.
    permits: Arc<Semaphore>,
}

/// Scratch space that one job after the other uses.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(crate) decompressor: Decompressor,
    pub(crate) decoder: Decoder,
}

/// A push that only needs to be made durable.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) id: ProfileId,
    pub(crate) partition: Partition,
    pub(crate) record: Bytes,
    pub(crate) samples: u64,
    pub(crate) series: u64,
    /// Named locations that this process has not seen in the metastore.
    pub(crate) locations: Vec<(LocationId, Location)>,
    /// Objects of native locations, likewise.
    pub(crate) objects: Vec<(BuildRef, Mapping)>,
}

/// A push that was refused, with its samples where they had been counted.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: Error,
    pub(crate) samples: u64,
}

impl<E: Into<Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self { error: error.into(), samples: 0 }
    }
}

impl Workers {
    /// One worker per core.
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { free: Arc::default(), permits: Arc::new(Semaphore::new(cores)) }
    }

    /// Runs a job over a body of so many bytes on a worker. Scratch space of a job that panics is thrown away.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        body_bytes: usize,
        job: impl FnOnce(&mut Worker) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let free = Arc::clone(&self.free);
        let work = move || {
            let popped = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut worker = popped.unwrap_or_default();
            let result = job(&mut worker);
            free.lock().unwrap_or_else(PoisonError::into_inner).push(worker);
            drop(permit);
            result
        };
        if body_bytes <= IN_PLACE_BYTES_MAX {
            // As a task's panic would be: it costs this push, not the connection.
            return catch_unwind(AssertUnwindSafe(work)).map_err(|_| Error::Decoder);
        }
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Decoder)
    }
}

/// Makes a record of a push, or refuses it.
pub(crate) fn prepare(
    worker: &mut Worker,
    shared: &Shared,
    tracked: &Tracked,
    limits: &TenantLimits,
    push: Push,
) -> Result<Prepared, Refused> {
    let Worker { decompressor, decoder } = worker;
    let tenant = &tracked.tenant;
    let Identified { id, labels, name } = identify(tenant, limits, &push)?;
    let series = labels.fingerprint();
    let partition = shard::partition(tenant.number, &labels, shared.deps.partitions);

    let profile_limits = pprof::Limits::from(limits);
    let raw = decompressor.decompress(&push.body, profile_limits.bytes_max)?;
    tracked.bucket.take(raw.len() as u64, shared.deps.clock.monotonic(), limits)?;
    let addresses_relative = push.addresses_relative;
    let decoded = decoder.decode(
        raw,
        &profile_limits,
        pprof::Push { id, labels, name: name.as_deref(), addresses_relative },
    )?;

    let samples = decoded.samples as u64;
    let counted = |error: Error| Refused { error, samples };
    let now_ns = shared.deps.clock.now_ns();
    let own_ns = decoded.profile.time_ns;
    let time_ns = push.time_ns.or((own_ns != 0).then_some(own_ns)).unwrap_or(now_ns);
    validate::time(time_ns, now_ns, limits).map_err(|violation| counted(violation.into()))?;
    shared.check_series(tracked, series, limits).map_err(counted)?;

    let locations = unknown_locations(&shared.deps.symbols, tenant, &decoded);
    let objects = unknown_objects(&shared.deps.symbols, tenant, &decoded);
    let mut profile = decoded.profile;
    profile.time_ns = time_ns;
    let record = record::encode(tenant, std::slice::from_ref(&profile)).into();
    Ok(Prepared { id, partition, record, samples, series, locations, objects })
}

/// What a push is, without its contents.
pub(crate) struct Identified {
    pub(crate) id: ProfileId,
    pub(crate) labels: Labels,
    pub(crate) name: Option<String>,
}

/// Checks what surrounds a profile. The id comes before anything is assigned here, so that a retry has the same whenever it
/// comes.
pub(crate) fn identify(tenant: &Tenant, limits: &TenantLimits, push: &Push) -> Result<Identified, Error> {
    let hash = || {
        let time_ns = push.time_ns.unwrap_or(0);
        pprof::push_id(&push.body, &push.labels, push.name.as_deref(), time_ns, tenant.number)
    };
    let id = push.id.unwrap_or_else(hash);
    let (labels, name) = push.labels_and_name()?;
    validate::labels(&labels, limits)?;
    if let Some(name) = &name {
        validate::profile_name(name)?;
    }
    Ok(Identified { id, labels, name })
}

/// The names of locations that this process has not seen in the metastore.
pub(crate) fn unknown_locations(
    symbols: &Symbols,
    tenant: &Tenant,
    decoded: &Decoded<'_>,
) -> Vec<(LocationId, Location)> {
    let ids = &decoded.profile.locations;
    let mut missing = Vec::new();
    symbols.unknown(tenant.number, ids, &mut missing);
    missing.into_iter().map(|index| (ids[index], decoded.location(index))).collect()
}

/// The objects of native locations, likewise.
pub(crate) fn unknown_objects(
    symbols: &Symbols,
    tenant: &Tenant,
    decoded: &Decoded<'_>,
) -> Vec<(BuildRef, Mapping)> {
    let objects = decoded.mappings();
    let builds: Vec<BuildRef> = objects.iter().map(|(build, _)| *build).collect();
    let mut missing = Vec::new();
    symbols.unknown_objects(tenant.number, &builds, &mut missing);
    missing.into_iter().map(|index| objects[index].clone()).collect()
}
