//! Tenants: the names that users know and the numbers that keys and paths carry.
//!
//! Laws: a number is given once and never again, not even after a deletion; a name has one number; a tenant, once
//! resolved, is remembered for the life of the process, because neither its name nor its number changes.

use std::sync::Arc;

use cambium_model::tenant::{Tenant, TenantId, TenantNumber};
use cambium_proto::wire::metastore::TenantRecord;
use cambium_proto::wire::metastore::tenant_record::State;
use cambium_runtime::clock::Clock;
use prost::Message;
use tokio::sync::Semaphore;

use crate::error::{Error, decode, decode_u32};
use crate::keys::{self, Kind};
use crate::kv::{self, KvStore, Step, Txn};

/// Tenants remembered by a process; beyond, the least used are read again.
pub const TENANTS_CACHED_MAX: u64 = 100_000;

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
        Self { store, clock, cache: moka::sync::Cache::new(TENANTS_CACHED_MAX), creating: Semaphore::new(1) }
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

    /// All tenants, sorted by name.
    pub async fn list(&self) -> Result<Vec<Tenant>, Error> {
        let snapshot = self.store.snapshot().await?;
        let records = kv::scan_all(&*snapshot, keys::tenants()).await?;
        records.iter().map(|(_, value)| read(value)).collect()
    }
}

fn read(value: &[u8]) -> Result<Tenant, Error> {
    let record: TenantRecord = decode(Kind::Tenant, value)?;
    let id = TenantId::new(&record.name).map_err(|source| Error::corrupt(Kind::Tenant, source))?;
    Ok(Tenant { id, number: TenantNumber(record.number) })
}

#[cfg(test)]
mod tests;
