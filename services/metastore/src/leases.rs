//! Who does which job: a lease with a fence for each.
//!
//! ```text
//!   acquire(job) ──► Lease { fence } ── renew ── renew ── … ── release
//!                      └─ whatever is committed under it expects the record with this fence
//! ```
//!
//! Laws: a fence is given once; at most one holder of a job can commit; nobody compares clocks: a record that has not
//! changed for [`LEASE_TIMEOUT`] of the *looker's* time belongs to nobody, and so does one of the looker's own name,
//! which an earlier life of it has left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cambium_proto::wire::metastore::LeaseRecord;
use cambium_runtime::clock::Clock;
use prost::Message;

use crate::catalogue::Error;
use crate::error::decode;
use crate::keys::{self, Kind};
use crate::kv::{self, KvStore, Step, Txn};

/// How long a record may stand unchanged before others take the job.
pub const LEASE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a holder renews.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(15);

/// The right to do a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: String,
    /// Given once; the greater, the later.
    pub fence: u64,
}

/// The leases of a cluster, as one node sees them.
#[derive(Debug)]
pub struct Leases {
    store: Arc<dyn KvStore>,
    clock: Arc<dyn Clock>,
    holder: String,
    timeout: Duration,
    /// Others' records, and since when they have been as they are.
    seen: Mutex<HashMap<String, (Bytes, Duration)>>,
}

impl Leases {
    /// The leases kept in `store`; `holder` names this node, and no other node has its name.
    pub fn new(store: Arc<dyn KvStore>, clock: Arc<dyn Clock>, holder: impl Into<String>) -> Self {
        Self { store, clock, holder: holder.into(), timeout: LEASE_TIMEOUT, seen: Mutex::default() }
    }

    /// The same leases under another timeout than [`LEASE_TIMEOUT`]; whoever looks at the same jobs must have the same.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The lease on a job; none while somebody else holds it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn acquire(&self, job: &str) -> Result<Option<Lease>, Error> {
        let key = keys::lease(job);
        let current = self.store.snapshot().await?.get(&key).await?;
        if let Some(value) = &current
            && !self.is_free(job, value)?
        {
            return Ok(None);
        }
        let holder = &self.holder;
        // Only if the record is still the one that was free.
        kv::transact(&*self.store, |snapshot| {
            let (key, current) = (key.clone(), current.clone());
            async move {
                let before = snapshot.get(&key).await?;
                if before != current {
                    return Ok(Step::Done(None));
                }
                let fence_key = keys::fence();
                let last = snapshot.get(&fence_key).await?;
                let fence = 1 + last.as_ref().map_or(Ok(0), |value| read_fence(value))?;
                let record = LeaseRecord { holder: holder.clone(), fence, beat: 0 };
                let txn = Txn::new()
                    .expect(fence_key.clone(), last)
                    .put(fence_key, fence.to_be_bytes().to_vec())
                    .expect(key.clone(), before)
                    .put(key, record.encode_to_vec());
                Ok(Step::Commit(txn, Some(Lease { job: job.to_owned(), fence })))
            }
        })
        .await
    }

    fn is_free(&self, job: &str, value: &Bytes) -> Result<bool, Error> {
        let record: LeaseRecord = decode(Kind::Lease, value)?;
        if record.holder == self.holder {
            return Ok(true);
        }
        let now = self.clock.monotonic();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, since) = seen.entry(job.to_owned()).or_insert_with(|| (value.clone(), now));
        if known != value {
            (*known, *since) = (value.clone(), now);
        }
        Ok(now.saturating_sub(*since) >= self.timeout)
    }

    /// Shows that the holder lives. Returns whether it still holds the lease.
    ///
    /// # Errors
    /// [`Error::Store`]: try again while there is time.
    pub async fn renew(&self, lease: &Lease) -> Result<bool, Error> {
        self.change(lease, |record| Some(LeaseRecord { beat: record.beat + 1, ..record })).await
    }

    /// Gives the job up. Returns whether the caller still held it.
    ///
    /// # Errors
    /// [`Error::Store`]: the lease will time out.
    pub async fn release(&self, lease: &Lease) -> Result<bool, Error> {
        self.change(lease, |_| None).await
    }

    async fn change(
        &self,
        lease: &Lease,
        change: impl Fn(LeaseRecord) -> Option<LeaseRecord> + Send + Sync,
    ) -> Result<bool, Error> {
        let change = &change;
        kv::transact(&*self.store, |snapshot| async move {
            let key = keys::lease(&lease.job);
            let before = snapshot.get(&key).await?;
            let Some(value) = &before else { return Ok(Step::Done(false)) };
            let record: LeaseRecord = decode(Kind::Lease, value)?;
            if record.fence != lease.fence {
                return Ok(Step::Done(false));
            }
            let txn = Txn::new().expect(key.clone(), before);
            let txn = match change(record) {
                Some(record) => txn.put(key, record.encode_to_vec()),
                None => txn.delete(key),
            };
            Ok(Step::Commit(txn, true))
        })
        .await
    }
}

fn read_fence(value: &[u8]) -> Result<u64, Error> {
    crate::catalogue::read_u64(Kind::Fence, value)
}

#[cfg(test)]
mod tests;
