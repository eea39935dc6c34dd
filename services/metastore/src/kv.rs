//! The seam to the transactional key-value store: everything the cluster must agree on goes through it.
//!
//! ```text
//!   snapshot() ──► Snapshot { get, batch_get, scan }        one cut: no later commit shows
//!   commit(Txn { preconditions, writes }) ──► Committed     all writes, atomically and durably
//!                                         ──► Conflict      nothing; the key says which precondition failed
//!                                         ──► Undetermined  all or nothing, and nobody knows which
//! ```
//!
//! Laws, each a case of the contract suite that every implementation passes:
//! - a snapshot is one cut: it holds all commits that were acknowledged before it was asked for, each whole, and
//!   none that began after it was given;
//! - a commit is all or nothing, and `Committed` means durable;
//! - a precondition is checked in the instant of the commit, on keys that the transaction does not write as well, so
//!   that two transactions that read each other's writes cannot both commit (no write skew);
//! - after `Undetermined`, and after dropping the future of a commit, the caller re-reads and decides; what it wrote
//!   may appear later, but only while the preconditions still hold, so a retry with the same preconditions is safe;
//! - an error means that nothing was written;
//! - keys sort as bytes, and a transaction names at most [`TXN_KEYS_MAX`] of them.
//!
//! [`transact`] packs the re-reading into one place: no repository handles `Conflict` or `Undetermined` itself.

pub mod memory;

pub mod redb;

pub mod testing;

#[cfg(feature = "tikv")]
pub mod tikv;

#[cfg(test)]
mod contract;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;

use async_trait::async_trait;
use bytes::Bytes;
use cambium_runtime::error::{HasKind, Kind};

/// Most keys that one transaction may name, preconditions and writes together (TiKV slows down beyond).
pub const TXN_KEYS_MAX: usize = 512;

/// How often [`transact`] decides anew before it gives up. Every conflict means that somebody else progressed.
pub const ATTEMPTS_MAX: usize = 32;

/// Keys that [`scan_all`] reads at once.
const SCAN_PAGE_KEYS: usize = 1_024;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be reached, its disk fails or is full. Nothing was written.
    #[error("the metadata store failed")]
    Unavailable {
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store is closed, or is being reopened after a failure. Nothing was written.
    #[error("the metadata store is closed or being reopened")]
    Closed,
    /// Another process has the store open.
    #[error("the metadata store is in use by another process")]
    InUse,
    /// The store's own structures are damaged.
    #[error("the metadata store is corrupt")]
    Corrupt {
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The transaction names more than [`TXN_KEYS_MAX`] keys: a defect of its author.
    #[error("a transaction names {keys} keys, at most {TXN_KEYS_MAX} are allowed")]
    TooManyKeys {
        /// How many it names.
        keys: usize,
    },
    /// Others won every attempt, or the store did not know the outcome of any.
    #[error("a transaction was not decided in {ATTEMPTS_MAX} attempts")]
    Contended,
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Unavailable { .. } | Self::Closed | Self::InUse | Self::Contended => Kind::Unavailable,
            Self::Corrupt { .. } | Self::TooManyKeys { .. } => Kind::Internal,
        }
    }
}

/// A key. Only [`crate::keys`] builds those of the product.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Bytes);

impl Key {
    /// The key with these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// A half-open range of keys: `start` belongs to it, `end` does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key inside.
    pub start: Key,
    /// The first key after.
    pub end: Key,
}

impl KeyRange {
    /// All keys that begin with `prefix`, which must have a byte below 255 (every prefix of ours begins with a letter).
    pub fn prefix(prefix: &[u8]) -> Self {
        let last = prefix.iter().rposition(|byte| *byte < u8::MAX).expect("a prefix begins with a letter");
        let mut end = prefix[..=last].to_vec();
        end[last] += 1;
        Self { start: Key::new(prefix.to_vec()), end: Key::new(end) }
    }

    /// One key alone.
    pub fn only(key: &Key) -> Self {
        Self { start: key.clone(), end: after(key) }
    }

    /// Whether no key lies inside.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

/// What must hold, and what is written if it does. Each key has at most one precondition and one write; a second one
/// replaces the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    preconditions: BTreeMap<Key, Option<Bytes>>,
    writes: BTreeMap<Key, Option<Bytes>>,
}

impl Txn {
    /// A transaction that expects and writes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires that the key has this value, or with `None` that it does not exist: what a snapshot's `get` gave.
    #[must_use]
    pub fn expect(mut self, key: Key, value: Option<Bytes>) -> Self {
        self.preconditions.insert(key, value);
        self
    }

    /// Writes the value.
    #[must_use]
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.writes.insert(key, Some(value.into()));
        self
    }

    /// Removes the key, which may be absent already.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.writes.insert(key, None);
        self
    }

    /// What must hold, in key order: a value, or absence.
    pub fn preconditions(&self) -> impl Iterator<Item = (&Key, Option<&Bytes>)> {
        self.preconditions.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// What is written, in key order: a value, or a removal.
    pub fn writes(&self) -> impl Iterator<Item = (&Key, Option<&Bytes>)> {
        self.writes.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// Whether nothing is written.
    pub fn is_read_only(&self) -> bool {
        self.writes.is_empty()
    }

    /// Refuses a transaction that names more than [`TXN_KEYS_MAX`] keys; every implementation asks first.
    pub fn check_size(&self) -> Result<(), Error> {
        let unwritten = self.preconditions.keys().filter(|key| !self.writes.contains_key(*key)).count();
        let keys = self.writes.len() + unwritten;
        if keys > TXN_KEYS_MAX { Err(Error::TooManyKeys { keys }) } else { Ok(()) }
    }
}

/// How a commit ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is written and durable.
    Committed,
    /// Nothing is written, because this key does not have the expected value.
    Conflict {
        /// The first key, in key order, whose precondition failed.
        key: Key,
    },
    /// Everything is written or nothing is; only reading tells.
    Undetermined,
}

/// A store of keys and values with snapshots and transactions; the laws are the module's.
#[async_trait]
pub trait KvStore: fmt::Debug + Send + Sync {
    /// The store as it is now. Hold it briefly: old values are kept for it.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error>;

    /// Checks the preconditions and writes, in one instant.
    async fn commit(&self, txn: Txn) -> Result<Outcome, Error>;
}

/// One cut of the store.
#[async_trait]
pub trait Snapshot: Send + Sync {
    /// The key's value.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        Ok(self.batch_get(std::slice::from_ref(key)).await?.pop().flatten())
    }

    /// The values of the keys, in the order asked; a key may be asked for twice.
    async fn batch_get(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, Error>;

    /// The first `limit` keys of the range with their values, in key order.
    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Key, Bytes)>, Error>;
}

/// All keys of the range with their values, read in pages. The range must be known to be small enough for memory.
pub async fn scan_all(snapshot: &dyn Snapshot, range: KeyRange) -> Result<Vec<(Key, Bytes)>, Error> {
    let mut all = snapshot.scan(range.clone(), SCAN_PAGE_KEYS).await?;
    let mut page_keys = all.len();
    while page_keys == SCAN_PAGE_KEYS {
        let Some((last, _)) = all.last() else { break };
        let rest = KeyRange { start: after(last), end: range.end.clone() };
        let page = snapshot.scan(rest, SCAN_PAGE_KEYS).await?;
        page_keys = page.len();
        all.extend(page);
    }
    Ok(all)
}

/// The least key after this one: a zero byte follows it.
pub(crate) fn after(key: &Key) -> Key {
    let mut next = key.as_bytes().to_vec();
    next.push(0);
    Key::new(next)
}

/// How many keys the range has.
pub(crate) async fn count(snapshot: &dyn Snapshot, mut range: KeyRange) -> Result<usize, Error> {
    let mut keys = 0;
    loop {
        let page = snapshot.scan(range.clone(), SCAN_PAGE_KEYS).await?;
        let Some((last, _)) = page.last() else { return Ok(keys) };
        keys += page.len();
        range.start = after(last);
    }
}

/// Writes these, whatever was there: for a store that nobody else uses.
pub(crate) async fn put_all(store: &dyn KvStore, entries: Vec<(Key, Vec<u8>)>) -> Result<(), Error> {
    let txn = entries.into_iter().fold(Txn::new(), |txn, (key, value)| txn.put(key, value));
    transact(store, |_| {
        let txn = txn.clone();
        async { Ok(if txn.is_read_only() { Step::Done(()) } else { Step::Commit(txn, ()) }) }
    })
    .await
}

/// Deletes all keys of the range, so many at a time.
pub(crate) async fn delete_all(store: &dyn KvStore, range: KeyRange, at_once: usize) -> Result<(), Error> {
    loop {
        let found = store.snapshot().await?.scan(range.clone(), at_once).await?;
        if found.is_empty() {
            return Ok(());
        }
        transact(store, |_| {
            let txn = found.iter().fold(Txn::new(), |txn, (key, _)| txn.delete(key.clone()));
            async { Ok::<_, Error>(Step::Commit(txn, ())) }
        })
        .await?;
        fail::fail_point!("kv-deleted-some");
    }
}

/// What a decision over a snapshot came to.
#[derive(Debug)]
pub enum Step<T> {
    /// Nothing to write.
    Done(T),
    /// Write this, and answer that if it commits.
    Commit(Txn, T),
}

/// Reads, decides and commits until the outcome is known: after a conflict or an undetermined commit, `decide` runs
/// again on a fresh snapshot, where it must recognise what an earlier attempt of its own may have written. After an
/// error the last attempt may have been an undetermined one: whoever must know, calls again.
pub async fn transact<T, E, F, D>(store: &dyn KvStore, mut decide: F) -> Result<T, E>
where
    E: From<Error>,
    F: FnMut(Box<dyn Snapshot>) -> D + Send,
    D: Future<Output = Result<Step<T>, E>> + Send,
{
    for _ in 0..ATTEMPTS_MAX {
        let snapshot = store.snapshot().await?;
        match decide(snapshot).await? {
            Step::Done(answer) => return Ok(answer),
            Step::Commit(txn, answer) => match store.commit(txn).await? {
                Outcome::Committed => return Ok(answer),
                Outcome::Conflict { key } => tracing::debug!(?key, "conflict, deciding anew"),
                Outcome::Undetermined => tracing::debug!("undetermined commit, deciding anew"),
            },
        }
    }
    Err(Error::Contended.into())
}
