//! What tenants have had deleted. A view shows it beside the blocks, so that a query that sees a block sees what of it
//! does not count any more.

use std::collections::BTreeMap;

use bytes::Bytes;
use cambium_model::deletion::{Deletion, RecordedDeletion};
use cambium_model::tenant::TenantNumber;
use cambium_model::time::TimeRange;
use cambium_proto::wire::metastore::DeletionRecord;
use prost::Message;

use super::{Catalogue, Error, read_u64};
use crate::error::{Error as StoreError, decode};
use crate::keys::{self, Kind};
use crate::kv::{self, Key, KeyRange, Snapshot, Step, Txn};

/// Most deletions of one tenant at a time: every query looks at all of them.
pub const DELETIONS_MAX: usize = 1_000;

impl Catalogue {
    /// Records a deletion, which counts for every query that begins afterwards. Returns its number.
    ///
    /// # Errors
    /// [`Error::TooManyDeletions`], [`Error::Store`].
    pub async fn delete(
        &self,
        tenant: TenantNumber,
        deletion: &Deletion,
        created_ns: i64,
    ) -> Result<u64, Error> {
        let record = DeletionRecord {
            selector: deletion.selector.to_string(),
            start_ns: deletion.range.start_ns,
            end_ns: deletion.range.end_ns,
            created_ns,
        }
        .encode_to_vec();
        kv::transact(&*self.store, |snapshot| {
            let record = record.clone();
            async move {
                let held = kv::scan_all(&*snapshot, keys::deletions(tenant)).await?;
                // An attempt without an answer may have written it.
                if let Some((key, _)) = held.iter().find(|(_, value)| *value == record)
                    && let Some((_, id)) = keys::deletion_of(key)
                {
                    return Ok(Step::Done(id));
                }
                if held.len() >= DELETIONS_MAX {
                    return Err(Error::TooManyDeletions);
                }
                let counter = keys::last_deletion(tenant);
                let last = snapshot.get(&counter).await?;
                let id = 1 + last.as_ref().map_or(Ok(0), |value| read_u64(Kind::LastDeletion, value))?;
                let txn = Txn::new()
                    .expect(counter.clone(), last)
                    .put(counter, id.to_be_bytes().to_vec())
                    .put(keys::deletion(tenant, id), record);
                Ok(Step::Commit(txn, id))
            }
        })
        .await
    }

    /// Forgets a deletion: profiles that are still in blocks count again.
    pub async fn forget_deletion(&self, tenant: TenantNumber, id: u64) -> Result<(), Error> {
        kv::transact(&*self.store, |_| {
            let txn = Txn::new().delete(keys::deletion(tenant, id));
            async { Ok(Step::Commit(txn, ())) }
        })
        .await
    }
}

/// A tenant's deletions, as the snapshot has them.
pub(super) async fn of(
    snapshot: &dyn Snapshot,
    tenant: TenantNumber,
) -> Result<Vec<RecordedDeletion>, Error> {
    Ok(read(snapshot, keys::deletions(tenant)).await?.remove(&tenant).unwrap_or_default())
}

/// All tenants' deletions, as the snapshot has them.
pub(super) async fn all(
    snapshot: &dyn Snapshot,
) -> Result<BTreeMap<TenantNumber, Vec<RecordedDeletion>>, Error> {
    read(snapshot, keys::all_deletions()).await
}

async fn read(
    snapshot: &dyn Snapshot,
    range: KeyRange,
) -> Result<BTreeMap<TenantNumber, Vec<RecordedDeletion>>, Error> {
    let mut found: BTreeMap<TenantNumber, Vec<RecordedDeletion>> = BTreeMap::new();
    for entry in kv::scan_all(snapshot, range).await? {
        let (tenant, recorded) = read_entry(&entry)?;
        found.entry(tenant).or_default().push(recorded);
    }
    Ok(found)
}

fn read_entry((key, value): &(Key, Bytes)) -> Result<(TenantNumber, RecordedDeletion), Error> {
    let corrupt = |what: String| StoreError::corrupt(Kind::Deletion, what);
    let (tenant, id) = keys::deletion_of(key).ok_or_else(|| corrupt("the key names none".to_owned()))?;
    let record: DeletionRecord = decode(Kind::Deletion, value)?;
    let selector = record.selector.parse();
    let selector = selector.map_err(|error| corrupt(format!("selector {:?}: {error}", record.selector)))?;
    let range = TimeRange { start_ns: record.start_ns, end_ns: record.end_ns };
    let deletion = Deletion { selector, range };
    Ok((tenant, RecordedDeletion { id, deletion, created_ns: record.created_ns }))
}
