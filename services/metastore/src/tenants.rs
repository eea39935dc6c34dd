//! Tenants: the names that users know and the numbers that keys and paths carry.
//!
//! Laws: a number is given once and never again, not even after a deletion; a name has one number at a time; a tenant,
//! once resolved, is remembered for a minute.
//!
//! A deleted tenant is *hidden* in one transaction: its name leads nowhere, or to a new tenant, and no view of the
//! catalogue shows its blocks. It is *erased* once no block holds anything of it and its names are gone. What is still
//! written under its number by a process that remembers it goes the same way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_proto::wire::metastore::TenantRecord;
use cambium_proto::wire::metastore::tenant_record::State;
use cambium_runtime::clock::Clock;
use prost::Message;
use tokio::sync::Semaphore;

use crate::error::{Error, decode, decode_u32};
use crate::keys::{self, Kind};
use crate::kv::{self, Key, KvStore, Snapshot, Step, Txn};
use crate::symbols::{self, Swept};

mod rebuild;

pub(crate) use rebuild::{Records, check, rebuild};

/// Tenants remembered by a process; beyond, the least used are read again.
pub const TENANTS_CACHED_MAX: u64 = 100_000;

/// How long a process remembers a tenant, and so may write for one that was deleted.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Keys deleted at a time.
const ERASED_AT_ONCE: usize = 256;

/// A tenant that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// The tenant.
    pub tenant: Tenant,
    /// When, nanoseconds since the Unix epoch.
    pub retired_ns: i64,
    /// Whether nothing is left of it but its number and its name.
    pub erased: bool,
}

/// The first number given. 0 is no tenant's.
const FIRST_NUMBER: u32 = 1;

/// The tenants of a cluster.
#[derive(Debug)]
pub struct Tenants {
    store: Arc<dyn KvStore>,
    clock: Arc<dyn Clock>,
    cache: moka::sync::Cache<TenantId, TenantNumber>,
    /// Creations of one process queue here: all want the same counter, so only other processes conflict.
    creating: Semaphore,
}

impl Tenants {
    /// The tenants kept in `store`; the clock dates their creation.
    pub fn new(store: Arc<dyn KvStore>, clock: Arc<dyn Clock>) -> Self {
        let cache =
            moka::sync::Cache::builder().max_capacity(TENANTS_CACHED_MAX).time_to_live(REMEMBERED).build();
        Self { store, clock, cache, creating: Semaphore::new(1) }
    }

    /// The tenant of this name, if it has ever written.
    pub async fn resolve(&self, id: &TenantId) -> Result<Option<Tenant>, Error> {
        if let Some(number) = self.cache.get(id) {
            return Ok(Some(Tenant { id: id.clone(), number }));
        }
        let snapshot = self.store.snapshot().await?;
        let Some(value) = snapshot.get(&keys::tenant(id)).await? else { return Ok(None) };
        let tenant = read(&value)?;
        self.cache.insert(id.clone(), tenant.number);
        Ok(Some(tenant))
    }

    /// The tenant of this name, created if there is none.
    pub async fn resolve_or_create(&self, id: &TenantId) -> Result<Tenant, Error> {
        if let Some(tenant) = self.resolve(id).await? {
            return Ok(tenant);
        }
        let _turn = self.creating.acquire().await.expect("the semaphore is never closed");
        let number = kv::transact(&*self.store, |snapshot| async move {
            let record_key = keys::tenant(id);
            let counter_key = keys::next_tenant_number();
            let mut values =
                snapshot.batch_get(&[record_key.clone(), counter_key.clone()]).await?.into_iter();
            let (record, counter) = (values.next().flatten(), values.next().flatten());
            if let Some(record) = record {
                return Ok(Step::Done(read(&record)?.number));
            }
            let number = match &counter {
                Some(value) => decode_u32(Kind::NextTenantNumber, value)?,
                None => FIRST_NUMBER,
            };
            let next = number
                .checked_add(1)
                .ok_or_else(|| Error::corrupt(Kind::NextTenantNumber, "all tenant numbers are given away"))?;
            let record = TenantRecord {
                name: id.to_string(),
                number,
                created_ns: self.clock.now_ns(),
                state: State::Active as i32,
                retired_ns: 0,
            };
            let txn = Txn::new()
                .expect(record_key.clone(), None)
                .expect(counter_key.clone(), counter)
                .put(record_key, record.encode_to_vec())
                .put(keys::tenant_name(TenantNumber(number)), id.to_string())
                .put(counter_key, next.to_be_bytes().to_vec());
            Ok::<_, Error>(Step::Commit(txn, TenantNumber(number)))
        })
        .await?;
        self.cache.insert(id.clone(), number);
        Ok(Tenant { id: id.clone(), number })
    }

    /// Deletes the tenant of this name, if there is one. Its profiles are out of sight at once.
    pub async fn retire(&self, id: &TenantId) -> Result<(), Error> {
        fail::fail_point!("retire-before-commit");
        kv::transact(&*self.store, |snapshot| async move {
            let key = keys::tenant(id);
            let Some(value) = snapshot.get(&key).await? else { return Ok(Step::Done(())) };
            let mut record: TenantRecord = decode(Kind::Tenant, &value)?;
            record.state = State::Hidden as i32;
            record.retired_ns = self.clock.now_ns();
            let retired = keys::retired(TenantNumber(record.number));
            let txn =
                Txn::new().expect(key.clone(), Some(value)).delete(key).put(retired, record.encode_to_vec());
            Ok::<_, Error>(Step::Commit(txn, ()))
        })
        .await?;
        fail::fail_point!("retire-after-commit");
        self.cache.invalidate(id);
        Ok(())
    }

    /// All tenants that were ever deleted, by number.
    pub async fn retired(&self) -> Result<Vec<Retired>, Error> {
        retired(&*self.store.snapshot().await?).await
    }

    /// Removes what is kept of a deleted tenant besides its blocks, of which the caller knows that there are none.
    pub async fn erase(&self, tenant: TenantNumber) -> Result<(), Error> {
        for range in keys::of_tenant(tenant) {
            kv::delete_all(&*self.store, range, ERASED_AT_ONCE).await?;
        }
        fail::fail_point!("erase-before-state");
        kv::transact(&*self.store, |snapshot| async move {
            let key = keys::retired(tenant);
            let Some(value) = snapshot.get(&key).await? else { return Ok(Step::Done(())) };
            let mut record: TenantRecord = decode(Kind::Retired, &value)?;
            record.state = State::Erased as i32;
            let txn = Txn::new().expect(key.clone(), Some(value)).put(key, record.encode_to_vec());
            Ok::<_, Error>(Step::Commit(txn, ()))
        })
        .await
    }

    /// Removes names of the tenant that were last written before this day (since the Unix epoch).
    pub async fn sweep_names(&self, tenant: TenantNumber, before_day: u32) -> Result<Swept, Error> {
        symbols::sweep(&*self.store, tenant, before_day).await
    }

    /// All tenants, sorted by name.
    pub async fn list(&self) -> Result<Vec<Tenant>, Error> {
        let snapshot = self.store.snapshot().await?;
        let records = kv::scan_all(&*snapshot, keys::tenants()).await?;
        records.iter().map(|(_, value)| read(value)).collect()
    }
}

/// The deleted tenants, as the snapshot has them.
pub(crate) async fn retired(snapshot: &dyn Snapshot) -> Result<Vec<Retired>, Error> {
    let records = kv::scan_all(snapshot, keys::all_retired()).await?;
    let read = |(_, value): &(Key, Bytes)| {
        let record: TenantRecord = decode(Kind::Retired, value)?;
        let erased = record.state == State::Erased as i32;
        Ok(Retired { retired_ns: record.retired_ns, erased, tenant: tenant(&record)? })
    };
    records.iter().map(read).collect()
}

fn read(value: &[u8]) -> Result<Tenant, Error> {
    tenant(&decode(Kind::Tenant, value)?)
}

fn tenant(record: &TenantRecord) -> Result<Tenant, Error> {
    let id = TenantId::new(&record.name).map_err(|source| Error::corrupt(Kind::Tenant, source))?;
    Ok(Tenant { id, number: TenantNumber(record.number) })
}

#[cfg(test)]
mod tests;
