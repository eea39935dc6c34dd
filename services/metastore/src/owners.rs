//! Who owns which partition: a lease each, so short that another node takes over within seconds.
//!
//! Laws are those of [`crate::leases`]: whatever an owner commits expects its fence, so that one who was paused and does not
//! know that it was replaced can commit nothing.

use std::sync::Arc;
use std::time::Duration;

use cambium_model::block::Partition;
use cambium_proto::wire::metastore::LeaseRecord;
use cambium_runtime::clock::Clock;

use crate::catalogue::Error;
use crate::error::{Error as StoreError, decode};
use crate::keys::{self, Kind};
use crate::kv::{self, KvStore};
use crate::leases::{Lease, Leases};

/// How long an owner may be silent before another takes over. Together with [`LOOK_INTERVAL`] and the time that a log takes
/// to open this is how long a partition takes no writes after a death.
pub const OWNER_TIMEOUT: Duration = Duration::from_secs(8);

/// How often an owner shows that it lives.
pub const OWNER_RENEW_INTERVAL: Duration = Duration::from_secs(2);

/// How often one that waits for a partition looks whether it is free.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Before the jobs' names of partitions in the table of leases.
const JOB: &str = "partition/";

/// The owner of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The partition.
    pub partition: Partition,
    /// The node.
    pub holder: String,
    /// The fence of its tenure.
    pub fence: u64,
}

/// The owners of all partitions, as one node sees them.
#[derive(Debug)]
pub struct Owners {
    store: Arc<dyn KvStore>,
    leases: Leases,
}

impl Owners {
    /// The owners kept in `store`; `holder` names this node, and no other node has its name.
    pub fn new(store: Arc<dyn KvStore>, clock: Arc<dyn Clock>, holder: impl Into<String>) -> Self {
        let leases = Leases::new(Arc::clone(&store), clock, holder).with_timeout(OWNER_TIMEOUT);
        Self { store, leases }
    }

    /// The tenure of a partition; none while somebody else has it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn acquire(&self, partition: Partition) -> Result<Option<Lease>, Error> {
        self.leases.acquire(&job(partition)).await
    }

    /// Shows that the owner lives. Returns whether it still is the owner. Errors: as [`Leases::renew`].
    pub async fn renew(&self, tenure: &Lease) -> Result<bool, Error> {
        self.leases.renew(tenure).await
    }

    /// Gives the partition up. Errors: as [`Leases::release`].
    pub async fn release(&self, tenure: &Lease) -> Result<bool, Error> {
        self.leases.release(tenure).await
    }

    /// Every partition's owner, the dead included until somebody takes over.
    pub async fn all(&self) -> Result<Vec<Owner>, Error> {
        let snapshot = self.store.snapshot().await?;
        let records = kv::scan_all(&*snapshot, keys::leases_of(JOB)).await?;
        records.iter().map(|(key, value)| read(key, value)).collect()
    }

    /// A partition's owner.
    pub async fn of(&self, partition: Partition) -> Result<Option<Owner>, Error> {
        let key = keys::lease(&job(partition));
        let value = self.store.snapshot().await?.get(&key).await?;
        value.map(|value| read(&key, &value)).transpose()
    }
}

fn job(partition: Partition) -> String {
    format!("{JOB}{:08x}", partition.0)
}

fn read(key: &kv::Key, value: &[u8]) -> Result<Owner, Error> {
    let number = keys::lease_job(key).and_then(|job| u32::from_str_radix(job.strip_prefix(JOB)?, 16).ok());
    let number = number.ok_or_else(|| StoreError::corrupt(Kind::Lease, "the key names no partition"))?;
    let LeaseRecord { holder, fence, .. } = decode(Kind::Lease, value)?;
    Ok(Owner { partition: Partition(number), holder, fence })
}

#[cfg(test)]
mod tests {
    use cambium_runtime::clock::MockClock;

    use super::*;
    use crate::kv::memory::MemoryStore;

    #[tokio::test]
    async fn owners_are_listed_and_replaced_when_silent() {
        let store: Arc<dyn KvStore> = Arc::new(MemoryStore::new());
        let clock = MockClock::at(0);
        let node = |name: &str| Owners::new(Arc::clone(&store), Arc::new(clock.clone()), name);
        let (a, b) = (node("a"), node("b"));
        let (first, last) = (Partition(0), Partition(u32::MAX));
        let tenure = a.acquire(first).await.unwrap().unwrap();
        let other = a.acquire(last).await.unwrap().unwrap();
        Leases::new(Arc::clone(&store), Arc::new(clock.clone()), "c").acquire("merge").await.unwrap();
        let owner = |partition, holder: &str, tenure: &Lease| Owner {
            partition,
            holder: holder.to_owned(),
            fence: tenure.fence,
        };
        assert_eq!(b.all().await.unwrap(), [owner(first, "a", &tenure), owner(last, "a", &other)]);
        assert_eq!(b.acquire(first).await.unwrap(), None);
        clock.advance(OWNER_TIMEOUT);
        let taken = b.acquire(first).await.unwrap().expect("its owner was silent");
        assert_eq!(a.of(first).await.unwrap(), Some(owner(first, "b", &taken)));
        assert!(!a.renew(&tenure).await.unwrap() && b.renew(&taken).await.unwrap());
        assert!(b.release(&taken).await.unwrap());
        assert_eq!(a.of(first).await.unwrap(), None);
    }
}
