//! Tenants as blocks and backups name them, beside those that the store has.
//!
//! A name may have had several numbers, one after the other: the highest is whoever has it now, the others were deleted.

use std::collections::BTreeMap;

use cambium_model::tenant::{TenantId, TenantNumber};
use cambium_proto::wire::metastore::TenantRecord;
use cambium_proto::wire::metastore::tenant_record::State;
use prost::Message;

use crate::catalogue::RebuiltTenant;
use crate::error::{Error, decode, decode_u32};
use crate::keys::{self, Kind};
use crate::kv::{self, Key, KvStore};

/// Records by number: those that the store has, then others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records(BTreeMap<u32, TenantRecord>);

impl Records {
    pub(crate) async fn read(store: &dyn KvStore) -> Result<Self, Error> {
        let snapshot = store.snapshot().await?;
        let mut records = BTreeMap::new();
        for range in [keys::tenants(), keys::all_retired()] {
            for (_, value) in kv::scan_all(&*snapshot, range).await? {
                let record: TenantRecord = decode(Kind::Tenant, &value)?;
                records.insert(record.number, record);
            }
        }
        Ok(Self(records))
    }

    /// Adds what somebody else knows of a tenant. What is known of its end stays known; it was created at the earlier of
    /// both times.
    pub(crate) fn add(&mut self, record: &TenantRecord) -> Result<(), Error> {
        let held = self.0.entry(record.number).or_insert_with(|| record.clone());
        if held.name != record.name {
            let what = format!("number {} is tenant {:?} and {:?}", record.number, held.name, record.name);
            return Err(Error::corrupt(Kind::Tenant, what));
        }
        held.created_ns = held.created_ns.min(record.created_ns);
        if end(record) > end(held) {
            (held.state, held.retired_ns) = (record.state, record.retired_ns);
        }
        Ok(())
    }

    /// The records with one tenant of each name at most: of several, those with lower numbers were deleted, at `now_ns`
    /// where nobody knows better.
    fn settled(mut self, now_ns: i64) -> BTreeMap<u32, TenantRecord> {
        let mut holders: BTreeMap<String, u32> = BTreeMap::new();
        for record in self.0.values().filter(|record| end(record) == 0) {
            holders.insert(record.name.clone(), record.number);
        }
        for record in self.0.values_mut() {
            if end(record) == 0 && holders.get(&record.name) != Some(&record.number) {
                (record.state, record.retired_ns) = (State::Hidden as i32, now_ns);
            }
        }
        self.0
    }

    /// Writes them all, and the next number after them.
    pub(crate) async fn write(self, store: &dyn KvStore, now_ns: i64, at_once: usize) -> Result<(), Error> {
        let records = self.settled(now_ns);
        let next = records.last_key_value().map_or(0, |(number, _)| number.saturating_add(1));
        let mut puts: Vec<(Key, Vec<u8>)> = Vec::new();
        let mut deletes: Vec<Key> = Vec::new();
        for (number, record) in &records {
            let id = TenantId::new(&record.name).map_err(|source| Error::corrupt(Kind::Tenant, source))?;
            let number = TenantNumber(*number);
            puts.push((keys::tenant_name(number), record.name.clone().into_bytes()));
            if end(record) == 0 {
                puts.push((keys::tenant(&id), record.encode_to_vec()));
            } else {
                puts.push((keys::retired(number), record.encode_to_vec()));
                let heir = records.values().any(|other| other.name == record.name && end(other) == 0);
                deletes.extend((!heir).then(|| keys::tenant(&id)));
            }
        }
        for chunk in puts.chunks(at_once) {
            kv::put_all(store, chunk.to_vec()).await?;
        }
        for key in deletes {
            kv::delete_all(store, kv::KeyRange::only(&key), 1).await?;
        }
        raise_next(store, next).await
    }
}

/// How far a tenant's end has come.
fn end(record: &TenantRecord) -> u8 {
    match record.state() {
        State::Unspecified | State::Active => 0,
        State::Hidden => 1,
        State::Erased => 2,
    }
}

async fn raise_next(store: &dyn KvStore, least: u32) -> Result<(), Error> {
    let key = keys::next_tenant_number();
    let held = store.snapshot().await?.get(&key).await?;
    let held = held.map_or(Ok(0), |value| decode_u32(Kind::NextTenantNumber, &value))?;
    if held >= least {
        return Ok(());
    }
    Ok(kv::put_all(store, vec![(key, least.to_be_bytes().to_vec())]).await?)
}

/// Whether these tenants go with those that the store has.
pub(crate) async fn check(store: &dyn KvStore, seen: &[RebuiltTenant]) -> Result<(), Error> {
    with(store, seen).await.map(drop)
}

/// Writes these tenants beside those that the store has.
pub(crate) async fn rebuild(store: &dyn KvStore, seen: &[RebuiltTenant], now_ns: i64) -> Result<(), Error> {
    with(store, seen).await?.write(store, now_ns, 64).await
}

async fn with(store: &dyn KvStore, seen: &[RebuiltTenant]) -> Result<Records, Error> {
    let mut records = Records::read(store).await?;
    for RebuiltTenant { tenant, first_ns } in seen {
        records.add(&TenantRecord {
            name: tenant.id.to_string(),
            number: tenant.number.0,
            created_ns: *first_ns,
            state: State::Active as i32,
            retired_ns: 0,
        })?;
    }
    Ok(records)
}
