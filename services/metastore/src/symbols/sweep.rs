//! Removes names that nobody has sent for long.

use cambium_model::symbols::{Location, Mapping};
use cambium_model::tenant::TenantNumber;

use super::table::Symbol;
use crate::error::Error;
use crate::keys;
use crate::kv::{self, KeyRange, KvStore, Step, TXN_KEYS_MAX, Txn};

/// What a sweep of names did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Names looked at.
    pub seen: u64,
    /// Those removed.
    pub removed: u64,
}

/// Removes the tenant's names whose last write was before this day (since the Unix epoch). One that is written again
/// meanwhile stays.
pub(crate) async fn sweep(
    store: &dyn KvStore,
    tenant: TenantNumber,
    before_day: u32,
) -> Result<Swept, Error> {
    let mut swept = Swept::default();
    sweep_kind::<Location>(store, keys::locations(tenant), before_day, &mut swept).await?;
    sweep_kind::<Mapping>(store, keys::build_objects(tenant), before_day, &mut swept).await?;
    Ok(swept)
}

async fn sweep_kind<S: Symbol>(
    store: &dyn KvStore,
    mut range: KeyRange,
    before_day: u32,
    swept: &mut Swept,
) -> Result<(), Error> {
    loop {
        let page = range.clone();
        let (last, seen, removed) = kv::transact(store, |snapshot| {
            let page = page.clone();
            async move {
                let found = snapshot.scan(page, TXN_KEYS_MAX).await?;
                let (last, seen) = (found.last().map(|(key, _)| key.clone()), found.len() as u64);
                let (mut txn, mut removed) = (Txn::new(), 0);
                for (key, value) in found {
                    if S::decode(&value)?.1 < before_day {
                        txn = txn.expect(key.clone(), Some(value)).delete(key);
                        removed += 1;
                    }
                }
                let done = (last, seen, removed);
                Ok::<_, Error>(if txn.is_read_only() { Step::Done(done) } else { Step::Commit(txn, done) })
            }
        })
        .await?;
        swept.seen += seen;
        swept.removed += removed;
        let Some(last) = last else { return Ok(()) };
        range.start = kv::after(&last);
    }
}
