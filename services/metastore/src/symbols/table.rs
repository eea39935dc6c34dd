//! One table of symbols: locations under their ids, or loaded objects under their build refs.

use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use cambium_model::stacktrace::{BuildRef, LocationId};
use cambium_model::symbols::{Location, Mapping};
use cambium_model::tenant::TenantNumber;
use cambium_model::time::DAY_NS;
use cambium_proto::wire::metastore as stored;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::{CacheRequests, Metrics};
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashMap;
use prost::Message;

use super::known::Known;
use super::lookup::{Lookup, Lookups};
use super::{IN_FLIGHT_MAX, VALIDITY};
use crate::error::{Error, decode};
use crate::keys::{self, Kind};
use crate::kv::{self, Key, KvStore, Snapshot, Step, TXN_KEYS_MAX, Txn};

/// What a table keeps: how it is keyed, stored and weighed.
pub(super) trait Symbol: Sized + fmt::Debug + Send + Sync + 'static {
    /// What it is found under.
    type Id: Copy + fmt::Debug + Eq + Hash + Ord + Send + Sync + 'static;

    /// What metrics call the cache of resolved ones, and the set of those known to be stored.
    const CACHES: [&'static str; 2];

    /// Where it is stored.
    fn key(tenant: TenantNumber, id: Self::Id) -> Key;

    /// The stored value, written on this day.
    fn encode(&self, day: u32) -> Vec<u8>;

    /// The symbol and the day on which it was written.
    fn decode(value: &[u8]) -> Result<(Self, u32), Error>;

    /// Bytes of memory that its texts take.
    fn text_bytes(&self) -> usize;
}

impl Symbol for Location {
    type Id = LocationId;

    const CACHES: [&'static str; 2] = ["locations", "known_locations"];

    fn key(tenant: TenantNumber, id: LocationId) -> Key {
        keys::location(tenant, id)
    }

    fn encode(&self, day: u32) -> Vec<u8> {
        stored::Location::new(self, day).encode_to_vec()
    }

    fn decode(value: &[u8]) -> Result<(Self, u32), Error> {
        let message: stored::Location = decode(Kind::Location, value)?;
        let day = message.written_day;
        Ok((message.into(), day))
    }

    fn text_bytes(&self) -> usize {
        let line = |line: &cambium_model::symbols::Line| {
            let function = &line.function;
            size_of_val(line) + function.name.len() + function.system_name.len() + function.file.len()
        };
        self.mapping.text_bytes() + self.lines.iter().map(line).sum::<usize>()
    }
}

impl Symbol for Mapping {
    type Id = BuildRef;

    const CACHES: [&'static str; 2] = ["objects", "known_objects"];

    fn key(tenant: TenantNumber, id: BuildRef) -> Key {
        keys::build_object(tenant, id)
    }

    fn encode(&self, day: u32) -> Vec<u8> {
        stored::BuildObject::new(self, day).encode_to_vec()
    }

    fn decode(value: &[u8]) -> Result<(Self, u32), Error> {
        let message: stored::BuildObject = decode(Kind::BuildObject, value)?;
        let day = message.written_day;
        Ok((message.into(), day))
    }

    fn text_bytes(&self) -> usize {
        self.file.len() + self.build_id.len()
    }
}

/// A table in the store, with what this process knows of it.
#[derive(Debug)]
pub(super) struct Table<S: Symbol> {
    store: Arc<dyn KvStore>,
    clock: Arc<dyn Clock>,
    known: Arc<RwLock<Known<S::Id>>>,
    known_requests: CacheRequests,
    lookup: Lookup<S>,
}

impl<S: Symbol> Table<S> {
    pub(super) fn new(
        store: Arc<dyn KvStore>,
        clock: Arc<dyn Clock>,
        cache_bytes: u64,
        metrics: &Metrics,
    ) -> Self {
        let known = Arc::new(RwLock::new(Known::new(clock.monotonic())));
        let held = Arc::clone(&known);
        let known_bytes = move || held.read().unwrap_or_else(PoisonError::into_inner).bytes();
        let known_requests = metrics.cache(S::CACHES[1], known_bytes);
        let lookup = Lookup::new(Arc::clone(&store), Arc::clone(&clock), cache_bytes, metrics);
        Self { store, clock, known, known_requests, lookup }
    }

    /// Appends the indexes of ids that are stored at all and not known to be in the store.
    pub(super) fn unknown(
        &self,
        tenant: TenantNumber,
        ids: &[S::Id],
        is_stored: impl Fn(&S::Id) -> bool,
        missing: &mut Vec<usize>,
    ) {
        let now = self.clock.monotonic();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let before = missing.len();
        let mut asked = 0;
        for (index, id) in ids.iter().enumerate().filter(|(_, id)| is_stored(id)) {
            asked += 1;
            if !known.contains(tenant, *id, now) {
                missing.push(index);
            }
        }
        let misses = missing.len() - before;
        self.known_requests.add(asked - misses, misses);
    }

    /// Writes the symbols that are absent or stale, and knows all of them from then on.
    pub(super) async fn write_missing(
        &self,
        tenant: TenantNumber,
        symbols: &[(S::Id, S)],
    ) -> Result<(), Error> {
        let mut sorted: Vec<&(S::Id, S)> = symbols.iter().collect();
        sorted.sort_unstable_by_key(|(id, _)| *id);
        sorted.dedup_by_key(|(id, _)| *id);
        let writes: Vec<_> =
            sorted.chunks(TXN_KEYS_MAX).map(|chunk| self.write_chunk(tenant, chunk)).collect();
        stream::iter(writes).buffer_unordered(IN_FLIGHT_MAX).try_collect::<()>().await
    }

    async fn write_chunk(&self, tenant: TenantNumber, chunk: &[&(S::Id, S)]) -> Result<(), Error> {
        let today = u32::try_from(self.clock.now_ns() / DAY_NS).unwrap_or(0);
        kv::transact(&*self.store, |snapshot| decide_write(snapshot, tenant, chunk, today)).await?;
        let now = self.clock.monotonic();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (id, _) in chunk {
            known.insert(tenant, *id, now);
            self.lookup.forget_absence(tenant, *id);
        }
        Ok(())
    }

    /// The symbols that the store has, by id.
    pub(super) async fn resolve(
        &self,
        tenant: TenantNumber,
        ids: &[S::Id],
    ) -> Result<(HashMap<S::Id, Arc<S>>, Lookups), Error> {
        self.lookup.resolve(tenant, ids).await
    }
}

/// Which of the symbols this snapshot lacks: those are written, provided that nobody else writes them first.
async fn decide_write<S: Symbol>(
    snapshot: Box<dyn Snapshot>,
    tenant: TenantNumber,
    chunk: &[&(S::Id, S)],
    today: u32,
) -> Result<Step<()>, Error> {
    let keys: Vec<Key> = chunk.iter().map(|(id, _)| S::key(tenant, *id)).collect();
    let values = snapshot.batch_get(&keys).await?;
    let mut txn = Txn::new();
    for ((key, value), (_, symbol)) in keys.into_iter().zip(values).zip(chunk) {
        if !is_fresh::<S>(value.as_ref(), today)? {
            txn = txn.expect(key.clone(), value).put(key, symbol.encode(today));
        }
    }
    Ok(if txn.is_read_only() { Step::Done(()) } else { Step::Commit(txn, ()) })
}

fn is_fresh<S: Symbol>(value: Option<&Bytes>, today: u32) -> Result<bool, Error> {
    let Some(value) = value else { return Ok(false) };
    let (_, written) = S::decode(value)?;
    Ok(u64::from(today.saturating_sub(written)) * 24 * 3_600 < VALIDITY.as_secs())
}
