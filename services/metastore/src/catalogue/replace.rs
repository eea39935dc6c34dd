//! Merging and removing: entries out, entries in, and the objects that nothing refers to any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use cambium_model::block::{BlockMeta, LogId};
use cambium_proto::wire::metastore as stored;
use prost::Message;

use super::{Catalogue, Error, expect_lease, read_u64};
use crate::error::{Error as StoreError, decode};
use crate::keys::{self, Kind, OwnerDay};
use crate::kv::{self, Snapshot, Step, Txn};
use crate::leases::Lease;

/// Some blocks out, others in.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// The blocks that go. All of them must be in the catalogue.
    pub inputs: Vec<Arc<BlockMeta>>,
    /// The blocks that come, already in object storage; none where the inputs only go.
    pub outputs: Vec<BlockMeta>,
    /// The lease under which this was done.
    pub lease: Lease,
    /// When the inputs' objects may be deleted, nanoseconds since the Unix epoch: later than any query that may have seen
    /// their entries.
    pub garbage_due_ns: i64,
}

/// An object that nothing refers to any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// When it may be deleted, nanoseconds since the Unix epoch.
    pub due_ns: i64,
    /// Its path.
    pub path: String,
}

impl Catalogue {
    /// Replaces blocks, in one transaction. Doing the same again succeeds without effect.
    ///
    /// # Errors
    /// [`Error::BlockGone`], [`Error::LeaseLost`]: nothing is written then. On [`Error::Store`] the outcome may be unknown:
    /// do the same again.
    pub async fn replace(&self, replacement: &Replacement) -> Result<(), Error> {
        kv::transact(&*self.store, |snapshot| decide(snapshot, replacement)).await
    }

    /// Up to `limit` objects that are due before this time, the oldest first.
    pub async fn garbage(&self, due_before_ns: i64, limit: usize) -> Result<Vec<Garbage>, Error> {
        let snapshot = self.store.snapshot().await?;
        let found = snapshot.scan(keys::garbage_before(due_before_ns), limit).await?;
        let read = |(key, _): &(kv::Key, bytes::Bytes)| {
            let (due_ns, path) = keys::garbage_of(key)
                .ok_or_else(|| StoreError::corrupt(Kind::Garbage, "the key names no object"))?;
            Ok(Garbage { due_ns, path })
        };
        found.iter().map(read).collect()
    }

    /// Forgets objects that have been deleted; at most [`TXN_KEYS_MAX`](kv::TXN_KEYS_MAX) at a time.
    pub async fn forget_garbage(&self, deleted: &[Garbage]) -> Result<(), Error> {
        kv::transact(&*self.store, |_| {
            let delete =
                |txn: Txn, garbage: &Garbage| txn.delete(keys::garbage(garbage.due_ns, &garbage.path));
            let txn = deleted.iter().fold(Txn::new(), delete);
            async { Ok(Step::Commit(txn, ())) }
        })
        .await
    }
}

async fn decide(snapshot: Box<dyn Snapshot>, replacement: &Replacement) -> Result<Step<()>, Error> {
    let Replacement { inputs, outputs, lease, garbage_due_ns } = replacement;
    let input_keys: Vec<_> = inputs.iter().map(|block| keys::entry(block)).collect();
    let output_keys: Vec<_> = outputs.iter().map(keys::entry).collect();
    let held = snapshot.batch_get(&input_keys).await?;
    let done = snapshot.batch_get(&output_keys).await?;
    if held.iter().all(Option::is_none) && done.iter().all(Option::is_some) {
        return Ok(Step::Done(()));
    }
    let mut txn = expect_lease(&*snapshot, lease, Txn::new()).await?;
    for ((block, key), value) in inputs.iter().zip(input_keys).zip(held) {
        let Some(value) = value else {
            return Err(Error::BlockGone { path: block.path.clone() });
        };
        txn = txn.expect(key.clone(), Some(value)).delete(key);
        txn = txn.put(keys::garbage(*garbage_due_ns, &block.path), Vec::new());
    }
    for (block, key) in outputs.iter().zip(output_keys) {
        let entry = stored::BlockEntry::from(block).encode_to_vec();
        txn = txn.expect(key.clone(), None).put(key, entry);
    }
    let merged = inputs.iter().map(|block| &**block).chain(outputs).filter(|block| block.level > 0);
    for place in merged.map(OwnerDay::of).collect::<BTreeSet<_>>() {
        let key = keys::merged_version(place);
        let before = snapshot.get(&key).await?;
        let version = before.as_ref().map_or(Ok(0), |value| read_u64(Kind::MergedVersion, value))?;
        txn = txn.expect(key.clone(), before).put(key, (version + 1).to_be_bytes().to_vec());
    }
    let flushed = inputs.iter().filter(|block| block.level == 0);
    for log in flushed.map(|block| block.log_ranges[0].log).collect::<BTreeSet<LogId>>() {
        let key = keys::log_state(log);
        let before = snapshot.get(&key).await?;
        let Some(value) = &before else { return Err(Error::UnknownLog { log }) };
        let mut state: stored::LogState = decode(Kind::LogState, value)?;
        state.removals += 1;
        txn = txn.expect(key.clone(), before).put(key, state.encode_to_vec());
    }
    Ok(Step::Commit(txn, ()))
}
