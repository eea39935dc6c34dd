//! A store that fails on request, for the tests of whatever stands on the seam.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Error, Key, KeyRange, KvStore, Outcome, Snapshot, Txn};

/// What happens to one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It commits, and says that it does not know.
    UndeterminedCommitted,
    /// It writes nothing, and says that it does not know.
    UndeterminedLost,
    /// It writes nothing, and says that the store is down.
    Unavailable,
    /// It goes through: place-holder between others.
    Pass,
}

/// Wraps a store: the next commits meet the given faults, every call fails while the store is `down`, and reads are
/// counted and yield once, so that concurrent ones overlap.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn KvStore>,
    script: Arc<Mutex<Script>>,
    batch_gets: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Script {
    faults: VecDeque<Fault>,
    down: bool,
}

impl FaultyStore {
    /// The store without faults.
    pub fn new(inner: Arc<dyn KvStore>) -> Self {
        Self { inner, script: Arc::default(), batch_gets: Arc::default() }
    }

    /// Faults for the next commits, one each; after them commits go through.
    pub fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).faults.extend(faults);
    }

    /// Forgets the faults that no commit has met.
    pub fn clear(&self) {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).faults.clear();
    }

    /// Whether every call fails.
    pub fn set_down(&self, down: bool) {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).down = down;
    }

    /// How many `get` and `batch_get` calls there were.
    pub fn batch_gets(&self) -> usize {
        self.batch_gets.load(Ordering::Relaxed)
    }

    /// The fault of the next commit, or an error while down.
    fn next(&self) -> Result<Fault, Error> {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        if script.down {
            return Err(unavailable());
        }
        Ok(script.faults.pop_front().unwrap_or(Fault::Pass))
    }
}

fn unavailable() -> Error {
    Error::Unavailable { source: "injected".into() }
}

#[async_trait]
impl KvStore for FaultyStore {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        if self.script.lock().unwrap_or_else(PoisonError::into_inner).down {
            return Err(unavailable());
        }
        let inner = self.inner.snapshot().await?;
        Ok(Box::new(CountingSnapshot { inner, batch_gets: Arc::clone(&self.batch_gets) }))
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, Error> {
        match self.next()? {
            Fault::Pass => self.inner.commit(txn).await,
            Fault::Unavailable => Err(unavailable()),
            Fault::UndeterminedLost => Ok(Outcome::Undetermined),
            Fault::UndeterminedCommitted => {
                self.inner.commit(txn).await?;
                Ok(Outcome::Undetermined)
            }
        }
    }
}

struct CountingSnapshot {
    inner: Box<dyn Snapshot>,
    batch_gets: Arc<AtomicUsize>,
}

#[async_trait]
impl Snapshot for CountingSnapshot {
    async fn batch_get(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, Error> {
        self.batch_gets.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        self.inner.batch_get(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Key, Bytes)>, Error> {
        tokio::task::yield_now().await;
        self.inner.scan(range, limit).await
    }
}
