//! Reading many symbols at once: from memory, from whoever is fetching them already, or from the store.
//!
//! ```text
//!   ids ──► cache ──► claimed by another call? ── yes ──► wait for its flight
//!                                              └─ no ───► claim, multi-get in chunks, publish to cache and waiters
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cambium_model::tenant::TenantNumber;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::{CacheRequests, Metrics};
use futures::{StreamExt, stream};
use hashbrown::{DefaultHashBuilder, HashMap};
use tokio::sync::watch;

use super::table::Symbol;
use super::{IN_FLIGHT_MAX, MULTI_GET_KEYS_MAX, NEGATIVE_TTL};
use crate::error::Error;
use crate::kv::KvStore;

/// What the cache itself takes for an entry, bytes: key, slot, reference counts, and its place in two queues.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// What it took to resolve the ids of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Distinct named ids asked for.
    pub asked: usize,
    /// Of them, answered from memory (also "the store does not know it").
    pub cache_hits: usize,
    /// Of them, waited for because another call was fetching them.
    pub joined: usize,
    /// Multi-gets sent to the store.
    pub multi_gets: usize,
    /// Of the ids asked for, those without names.
    pub unresolved: usize,
}

type Found<S> = HashMap<<S as Symbol>::Id, Arc<S>>;
type Flight<S> = watch::Receiver<Option<Arc<Found<S>>>>;
type Flights<S> = HashMap<(TenantNumber, <S as Symbol>::Id), Flight<S>>;

/// A cached answer: a symbol, or its absence and when that was seen.
#[derive(Debug)]
enum Slot<S> {
    Present(Arc<S>),
    Absent { seen: Duration },
}

// Derived, it would ask for `S: Clone`.
impl<S> Clone for Slot<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Present(symbol) => Self::Present(Arc::clone(symbol)),
            Self::Absent { seen } => Self::Absent { seen: *seen },
        }
    }
}

/// A read-through cache of one table.
#[derive(Debug)]
pub(super) struct Lookup<S: Symbol> {
    store: Arc<dyn KvStore>,
    clock: Arc<dyn Clock>,
    /// Ids are hashes already; the quick hasher does.
    cache: moka::sync::Cache<(TenantNumber, S::Id), Slot<S>, DefaultHashBuilder>,
    /// "Unknown", if it is believed, is a hit too.
    requests: CacheRequests,
    flights: Mutex<Flights<S>>,
}

/// What is left after the cache: ids to fetch, and flights of others with the ids to take from them.
struct Plan<'a, S: Symbol> {
    claim: Claim<'a, S>,
    joined: Vec<(Flight<S>, Vec<S::Id>)>,
}

/// Ids that this call fetches for everybody. Dropped early (an error, a cancelled query), it frees them, and those who
/// wait see the flight end without an answer.
struct Claim<'a, S: Symbol> {
    lookup: &'a Lookup<S>,
    tenant: TenantNumber,
    ids: Vec<S::Id>,
    answer: watch::Sender<Option<Arc<Found<S>>>>,
}

impl<S: Symbol> Drop for Claim<'_, S> {
    fn drop(&mut self) {
        let mut flights = self.lookup.flights();
        for id in &self.ids {
            flights.remove(&(self.tenant, *id));
        }
    }
}

impl<S: Symbol> Lookup<S> {
    pub(super) fn new(
        store: Arc<dyn KvStore>,
        clock: Arc<dyn Clock>,
        cache_bytes: u64,
        metrics: &Metrics,
    ) -> Self {
        let weigh = |_: &(TenantNumber, S::Id), slot: &Slot<S>| {
            let bytes = match slot {
                Slot::Present(symbol) => ENTRY_OVERHEAD_BYTES + size_of::<S>() + symbol.text_bytes(),
                Slot::Absent { .. } => ENTRY_OVERHEAD_BYTES,
            };
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let cache = moka::sync::Cache::builder()
            .max_capacity(cache_bytes)
            .weigher(weigh)
            .build_with_hasher(DefaultHashBuilder::default());
        let held = cache.clone();
        let requests = metrics.cache(S::CACHES[0], move || held.weighted_size());
        Self { store, clock, cache, requests, flights: Mutex::default() }
    }

    /// The id has just been written: do not believe an older "unknown".
    pub(super) fn forget_absence(&self, tenant: TenantNumber, id: S::Id) {
        if let Some(Slot::Absent { .. }) = self.cache.get(&(tenant, id)) {
            self.cache.invalidate(&(tenant, id));
        }
    }

    /// The symbols that the store has, by id. Ids may repeat.
    pub(super) async fn resolve(
        &self,
        tenant: TenantNumber,
        ids: &[S::Id],
    ) -> Result<(Found<S>, Lookups), Error> {
        let mut found = HashMap::with_capacity(ids.len());
        let mut distinct = ids.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let mut lookups = Lookups { asked: distinct.len(), ..Lookups::default() };

        let misses = self.take_cached(tenant, &distinct, &mut found);
        lookups.cache_hits = distinct.len() - misses.len();
        self.requests.add(lookups.cache_hits, misses.len());
        if !misses.is_empty() {
            let Plan { claim, joined } = self.plan(tenant, misses);
            lookups.joined = joined.iter().map(|(_, ids)| ids.len()).sum();
            lookups.multi_gets += self.fetch_claimed(claim, &mut found).await?;
            // An answer of a flight that began before this call may miss what was written in between: what it
            // does not have, and what a failed flight left, is asked for once more.
            let left = take_joined(joined, &mut found).await;
            lookups.multi_gets += self.fetch(tenant, &left, &mut found).await?;
        }
        lookups.unresolved = distinct.len() - found.len();
        Ok((found, lookups))
    }

    /// Moves what memory knows to `found`; returns the rest, sorted.
    fn take_cached(&self, tenant: TenantNumber, ids: &[S::Id], found: &mut Found<S>) -> Vec<S::Id> {
        let now = self.clock.monotonic();
        let mut misses = Vec::new();
        for id in ids {
            match self.cache.get(&(tenant, *id)) {
                Some(Slot::Present(symbol)) => {
                    found.insert(*id, symbol);
                }
                Some(Slot::Absent { seen }) if now.saturating_sub(seen) < NEGATIVE_TTL => {}
                _ => misses.push(*id),
            }
        }
        misses
    }

    fn flights(&self) -> MutexGuard<'_, Flights<S>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims the ids that nobody fetches; joins the flights of the others.
    fn plan(&self, tenant: TenantNumber, misses: Vec<S::Id>) -> Plan<'_, S> {
        let (answer, flight) = watch::channel(None);
        let mut claim = Claim { lookup: self, tenant, ids: Vec::new(), answer };
        let mut joined: Vec<(Flight<S>, Vec<S::Id>)> = Vec::new();
        let mut flights = self.flights();
        for id in misses {
            let Some(other) = flights.get(&(tenant, id)) else {
                flights.insert((tenant, id), flight.clone());
                claim.ids.push(id);
                continue;
            };
            match joined.iter_mut().find(|(flight, _)| flight.same_channel(other)) {
                Some((_, ids)) => ids.push(id),
                None => joined.push((other.clone(), vec![id])),
            }
        }
        drop(flights);
        Plan { claim, joined }
    }

    /// Fetches what the claim holds, for this call and for those who wait. Returns the number of multi-gets.
    async fn fetch_claimed(&self, claim: Claim<'_, S>, found: &mut Found<S>) -> Result<usize, Error> {
        let mut fetched = HashMap::with_capacity(claim.ids.len());
        let multi_gets = self.fetch(claim.tenant, &claim.ids, &mut fetched).await?;
        found.extend(fetched.iter().map(|(id, symbol)| (*id, Arc::clone(symbol))));
        claim.answer.send_replace(Some(Arc::new(fetched)));
        Ok(multi_gets)
    }

    /// Reads sorted ids from one snapshot of the store into `found` and the cache. Returns the number of multi-gets.
    async fn fetch(&self, tenant: TenantNumber, ids: &[S::Id], found: &mut Found<S>) -> Result<usize, Error> {
        if ids.is_empty() {
            return Ok(0);
        }
        let snapshot = self.store.snapshot().await?;
        let seen = self.clock.monotonic();
        let chunks: Vec<&[S::Id]> = ids.chunks(MULTI_GET_KEYS_MAX).collect();
        let chunk_keys: Vec<Vec<_>> =
            chunks.iter().map(|chunk| chunk.iter().map(|id| S::key(tenant, *id)).collect()).collect();
        let gets: Vec<_> = chunk_keys.iter().map(|keys| snapshot.batch_get(keys)).collect();
        let mut values = stream::iter(gets).buffered(IN_FLIGHT_MAX);
        // Each chunk is decoded while those after it are on their way.
        for chunk in &chunks {
            let values = values.next().await.expect("there is one for each chunk")?;
            for (id, value) in chunk.iter().zip(values) {
                let slot = match value {
                    Some(value) => {
                        let symbol = Arc::new(S::decode(&value)?.0);
                        found.insert(*id, Arc::clone(&symbol));
                        Slot::Present(symbol)
                    }
                    None => Slot::Absent { seen },
                };
                self.cache.insert((tenant, *id), slot);
            }
        }
        Ok(chunks.len())
    }
}

/// Waits for the flights and takes their answers; returns the ids that they did not find, sorted.
async fn take_joined<S: Symbol>(joined: Vec<(Flight<S>, Vec<S::Id>)>, found: &mut Found<S>) -> Vec<S::Id> {
    let mut left = Vec::new();
    for (mut flight, ids) in joined {
        let answer = flight.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        let Some(answer) = answer else {
            left.extend(ids);
            continue;
        };
        for id in ids {
            match answer.get(&id) {
                Some(symbol) => {
                    found.insert(id, Arc::clone(symbol));
                }
                None => left.push(id),
            }
        }
    }
    left.sort_unstable();
    left
}
