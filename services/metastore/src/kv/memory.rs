//! The store in memory: for tests, and the plainest statement of the seam's laws. Nothing survives the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Error, Key, KeyRange, KvStore, Outcome, Snapshot, Txn};

type Entries = BTreeMap<Key, Bytes>;

/// A map behind a lock; snapshots share it and the next commit copies it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Mutex<Arc<Entries>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn entries(&self) -> MutexGuard<'_, Arc<Entries>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KvStore for MemoryStore {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        Ok(Box::new(MemorySnapshot(Arc::clone(&self.entries()))))
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, Error> {
        txn.check_size()?;
        let mut entries = self.entries();
        if let Some((key, _)) = txn.preconditions().find(|(key, expected)| entries.get(*key) != *expected) {
            return Ok(Outcome::Conflict { key: key.clone() });
        }
        let entries = Arc::make_mut(&mut entries);
        for (key, value) in txn.writes() {
            match value {
                Some(value) => entries.insert(key.clone(), value.clone()),
                None => entries.remove(key),
            };
        }
        Ok(Outcome::Committed)
    }
}

struct MemorySnapshot(Arc<Entries>);

#[async_trait]
impl Snapshot for MemorySnapshot {
    async fn batch_get(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, Error> {
        Ok(keys.iter().map(|key| self.0.get(key).cloned()).collect())
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Key, Bytes)>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let inside = self.0.range(range.start..range.end).take(limit);
        Ok(inside.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::contract;

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        contract::check(|| Arc::new(MemoryStore::new())).await;
    }
}
