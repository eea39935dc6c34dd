//! The embedded store: one redb file, durable and transactional, for the single binary.
//!
//! ```text
//!   commit(txn) ──► bounded queue ──► the writer thread: takes all that wait, checks and applies them one after the
//!                                     other in one redb transaction, one fsync, then answers each
//!   snapshot()  ──► a redb read transaction; reads run on blocking threads, and no writer stops them
//! ```
//!
//! Transactions that arrive during an fsync share the next one. redb refuses everything after an I/O error until the
//! file is opened again, so after a failed group the writer does that (and keeps trying, whenever somebody asks for
//! something) and looks whether the group is in the file: a full disk is an error while it lasts, never a reason to
//! restart.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

use async_trait::async_trait;
use bytes::Bytes;
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition,
    TableError, WriteTransaction,
};
use tokio::sync::{mpsc, oneshot};

use super::{Error, Key, KeyRange, KvStore, Outcome, Snapshot, Txn};

/// Memory that redb may use to cache pages, unless told otherwise.
pub const CACHE_BYTES_DEFAULT: usize = 16 << 20;

/// Transactions that may wait for the writer; further ones wait to be queued.
const QUEUE_TXNS_MAX: usize = 256;

/// Transactions that share an fsync.
const GROUP_TXNS_MAX: usize = 64;

/// All keys and values.
const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("kv");

/// How many groups were committed: tells after a failed commit whether it is in the file.
const GROUPS: TableDefinition<'static, (), u64> = TableDefinition::new("groups");

/// A store in one file. Dropping it waits for the commits in progress and closes the file.
#[derive(Debug)]
pub struct RedbStore {
    file: Arc<StoreFile>,
    /// Taken when the store is dropped, which ends the writer.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
enum Request {
    /// Commit this and tell the outcome.
    Commit(Txn, oneshot::Sender<Result<Outcome, Error>>),
    /// The file is closed: open it again.
    Reopen,
}

impl RedbStore {
    /// Opens the store in the file `path`, with this much memory for its pages. Blocks. The file is created if need
    /// be; its folder must exist.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Self, Error> {
        let file = Arc::new(StoreFile {
            path: path.to_owned(),
            cache_bytes,
            database: RwLock::new(Some(open_database(path, cache_bytes)?)),
        });
        let (requests, receiver) = mpsc::channel(QUEUE_TXNS_MAX);
        let writer = thread::Builder::new()
            .name("metastore-writer".to_owned())
            .spawn({
                let file = Arc::clone(&file);
                move || serve(&file, receiver)
            })
            .map_err(|source| Error::Unavailable { source: source.into() })?;
        Ok(Self { file, requests: Some(requests), writer: Some(writer) })
    }

    fn requests(&self) -> &mpsc::Sender<Request> {
        self.requests.as_ref().expect("only drop takes the sender")
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has been printed by its own thread.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl KvStore for RedbStore {
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, Error> {
        match self.file.begin_read() {
            Ok(table) => Ok(Box::new(RedbSnapshot { table: Arc::new(table) })),
            Err(error) => {
                // Where the queue is full, commits will find the file closed themselves.
                let _ = self.requests().try_send(Request::Reopen);
                Err(error)
            }
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, Error> {
        txn.check_size()?;
        let (answer, outcome) = oneshot::channel();
        self.requests().send(Request::Commit(txn, answer)).await.map_err(|_| Error::Closed)?;
        // The writer died over this transaction: whether it committed is for the next reader to see.
        outcome.await.unwrap_or(Ok(Outcome::Undetermined))
    }
}

/// The file, and the database while it is open.
#[derive(Debug)]
struct StoreFile {
    path: PathBuf,
    cache_bytes: usize,
    /// Written only by the writer, to reopen it; `None` after a failure until that succeeds.
    database: RwLock<Option<Database>>,
}

/// How a group of transactions failed.
enum Failure {
    /// Nothing was written.
    NotWritten(redb::Error),
    /// In the commit of this group: everything was written or nothing.
    Undetermined { error: redb::Error, group: u64 },
    /// The file was not open.
    Closed,
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::NotWritten(error.into())
    }
}

impl StoreFile {
    /// The table as of now. Never waits: while the file is being reopened there is nothing to read.
    fn begin_read(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>, Error> {
        let Ok(database) = self.database.try_read() else { return Err(Error::Closed) };
        let database = database.as_ref().ok_or(Error::Closed)?;
        let txn = database.begin_read().map_err(failed)?;
        txn.open_table(TABLE).map_err(failed)
    }

    /// Checks and applies the transactions one after the other, and commits what they wrote with one fsync.
    fn commit_group(&self, txns: &[Txn]) -> Result<Vec<Outcome>, Failure> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(Failure::Closed)?;
        let mut write = database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        let mut table = write.open_table(TABLE)?;
        let outcomes = txns.iter().map(|txn| apply(&mut table, txn)).collect::<Result<Vec<_>, _>>()?;
        drop(table);
        let writes = |(txn, outcome): (&Txn, &Outcome)| !txn.is_read_only() && *outcome == Outcome::Committed;
        if !txns.iter().zip(&outcomes).any(writes) {
            write.abort()?;
            return Ok(outcomes);
        }
        let group = next_group(&write)?;
        fail::fail_point!("kv-commit-before", |_| Err(
            std::io::Error::from(std::io::ErrorKind::StorageFull).into()
        ));
        write.commit().map_err(|error| Failure::Undetermined { error: error.into(), group })?;
        fail::fail_point!("kv-commit-after", |_| {
            let error = std::io::Error::from(std::io::ErrorKind::StorageFull).into();
            Err(Failure::Undetermined { error, group })
        });
        Ok(outcomes)
    }

    /// Closes the file and opens it again, where it holds what the last commit that reached it left.
    fn reopen(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: a file is opened once.
        *database = None;
        match open_database(&self.path, self.cache_bytes) {
            Ok(opened) => *database = Some(opened),
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "metadata store stays closed"),
        }
    }

    /// Reopens the file after this failure, and says what is certain then. A group that is not in the file was not
    /// written; one that is there stays undetermined, because what a failed fsync left in memory may yet be lost.
    fn recover(&self, failure: Failure) -> Failure {
        if let Failure::NotWritten(error) | Failure::Undetermined { error, .. } = &failure {
            tracing::warn!(%error, "metadata commit failed, reopening the store");
            self.reopen();
        }
        match failure {
            Failure::Undetermined { error, group } if self.last_group().is_some_and(|last| last < group) => {
                Failure::NotWritten(error)
            }
            other => other,
        }
    }

    /// The last group that is in the file; `None` if that cannot be read.
    fn last_group(&self) -> Option<u64> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let table = database.as_ref()?.begin_read().ok()?.open_table(GROUPS).ok()?;
        Some(table.get(()).ok()?.map_or(0, |group| group.value()))
    }

    fn is_closed(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// The writer: takes what waits, commits it as a group, answers; ends when the store is dropped.
fn serve(file: &StoreFile, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.blocking_recv() {
        let mut txns = Vec::new();
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(request) = next {
            if let Request::Commit(txn, answer) = request {
                txns.push(txn);
                answers.push(answer);
            }
            next = if txns.len() < GROUP_TXNS_MAX { requests.try_recv().ok() } else { None };
        }
        if file.is_closed() {
            file.reopen();
        }
        let result = file.commit_group(&txns).map_err(|failure| file.recover(failure));
        answer_group(answers, result);
    }
    // The last handle is gone: close the file before the store's drop returns, so that it can be opened again.
    *file.database.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Tells each caller its outcome; one that has gone away does not hear it.
fn answer_group(
    answers: Vec<oneshot::Sender<Result<Outcome, Error>>>,
    result: Result<Vec<Outcome>, Failure>,
) {
    match result {
        Ok(outcomes) => {
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                let _ = answer.send(Ok(outcome));
            }
        }
        Err(Failure::NotWritten(error)) => {
            let error = Arc::new(error);
            for answer in answers {
                let _ = answer.send(Err(Error::Unavailable { source: Box::new(Arc::clone(&error)) }));
            }
        }
        Err(Failure::Undetermined { .. }) => {
            for answer in answers {
                let _ = answer.send(Ok(Outcome::Undetermined));
            }
        }
        Err(Failure::Closed) => {
            for answer in answers {
                let _ = answer.send(Err(Error::Closed));
            }
        }
    }
}

/// Counts this group, and returns its number.
fn next_group(write: &WriteTransaction) -> Result<u64, redb::Error> {
    let mut table = write.open_table(GROUPS)?;
    let group = table.get(())?.map_or(0, |group| group.value()) + 1;
    table.insert((), group)?;
    Ok(group)
}

/// Checks one transaction against the table as its predecessors in the group left it, and applies it if all holds.
fn apply(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    txn: &Txn,
) -> Result<Outcome, redb::StorageError> {
    for (key, expected) in txn.preconditions() {
        let stored = table.get(key.as_bytes())?;
        if stored.as_ref().map(|value| value.value()) != expected.map(|value| &value[..]) {
            return Ok(Outcome::Conflict { key: key.clone() });
        }
    }
    for (key, value) in txn.writes() {
        match value {
            Some(value) => table.insert(key.as_bytes(), &value[..])?,
            None => table.remove(key.as_bytes())?,
        };
    }
    Ok(Outcome::Committed)
}

/// Opens the file, and creates what a store has in it. A crash may have come in between, so the tables are looked for
/// even in a file that exists; nothing is written where they are there, because the disk may be full.
fn open_database(path: &Path, cache_bytes: usize) -> Result<Database, Error> {
    let database = Builder::new().set_cache_size(cache_bytes).create(path).map_err(failed)?;
    match database.begin_read().map_err(failed)?.open_table(GROUPS) {
        Ok(_) => return Ok(database),
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(failed(error)),
    }
    let write = database.begin_write().map_err(failed)?;
    write.open_table(TABLE).map_err(failed)?;
    write.open_table(GROUPS).map_err(failed)?;
    write.commit().map_err(failed)?;
    // redb syncs the file, but the file's name is durable only once its folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| Error::Unavailable { source: source.into() })?;
    Ok(database)
}

fn failed(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        error @ (redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_)) => {
            Error::Corrupt { source: error.into() }
        }
        redb::Error::DatabaseClosed => Error::Closed,
        redb::Error::DatabaseAlreadyOpen => Error::InUse,
        error => Error::Unavailable { source: error.into() },
    }
}

/// A read transaction. Reads go to a blocking thread, because any page may have to come from the disk.
struct RedbSnapshot {
    table: Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl RedbSnapshot {
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T, redb::StorageError>
        + Send
        + 'static,
    ) -> Result<T, Error> {
        let table = Arc::clone(&self.table);
        match tokio::task::spawn_blocking(move || read(&table)).await {
            Ok(result) => result.map_err(failed),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(Error::Closed),
            },
        }
    }
}

#[async_trait]
impl Snapshot for RedbSnapshot {
    async fn batch_get(&self, keys: &[Key]) -> Result<Vec<Option<Bytes>>, Error> {
        let keys = keys.to_vec();
        self.read(move |table| {
            let get =
                |key: &Key| Ok(table.get(key.as_bytes())?.map(|value| Bytes::copy_from_slice(value.value())));
            keys.iter().map(get).collect()
        })
        .await
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<(Key, Bytes)>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        self.read(move |table| {
            let inside = table.range(range.start.as_bytes()..range.end.as_bytes())?.take(limit);
            let copied = inside.map(|entry| {
                let (key, value) = entry?;
                Ok((Key::new(key.value().to_vec()), Bytes::copy_from_slice(value.value())))
            });
            copied.collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::contract;

    fn store(folder: &tempfile::TempDir) -> RedbStore {
        RedbStore::open(&folder.path().join("store.redb"), CACHE_BYTES_DEFAULT).unwrap()
    }

    #[tokio::test]
    async fn redb_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let mut stores = 0;
        contract::check(|| {
            stores += 1;
            let path = folder.path().join(format!("{stores}.redb"));
            Arc::new(RedbStore::open(&path, CACHE_BYTES_DEFAULT).unwrap())
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_committed_survives_a_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let key = Key::new("k");
        let store_before = store(&folder);
        let old_snapshot = store_before.snapshot().await.unwrap();
        let txn = Txn::new().expect(key.clone(), None).put(key.clone(), "v");
        assert_eq!(store_before.commit(txn).await.unwrap(), Outcome::Committed);
        drop(store_before);
        assert!(!matches!(old_snapshot.get(&key).await, Ok(Some(_))), "an old cut stays old, or fails");

        let value = store(&folder).snapshot().await.unwrap().get(&key).await.unwrap();
        assert_eq!(value.as_deref(), Some(&b"v"[..]));
    }

    #[tokio::test]
    async fn a_creation_that_crashed_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        drop(Database::create(folder.path().join("store.redb")).unwrap());
        let store = store(&folder);
        assert_eq!(store.snapshot().await.unwrap().get(&Key::new("k")).await.unwrap(), None);
        assert_eq!(store.commit(Txn::new().put(Key::new("k"), "v")).await.unwrap(), Outcome::Committed);
    }

    #[tokio::test]
    async fn a_file_is_opened_once() {
        let folder = tempfile::tempdir().unwrap();
        let _first = store(&folder);
        let second = RedbStore::open(&folder.path().join("store.redb"), CACHE_BYTES_DEFAULT);
        assert!(matches!(second, Err(Error::InUse)));
    }

    #[tokio::test]
    async fn a_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        std::fs::write(&path, vec![7_u8; 10_000]).unwrap();
        assert!(RedbStore::open(&path, CACHE_BYTES_DEFAULT).is_err());
    }
}
