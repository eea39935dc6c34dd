//! The embedded store over a disk that fails and recovers: errors while it lasts, no restart, nothing half written.

use std::time::Duration;

use bytes::Bytes;
use cambium_metastore::kv::redb::{CACHE_BYTES_DEFAULT, RedbStore};
use cambium_metastore::kv::{Error, Key, KvStore, Outcome, Txn};
use fail::FailScenario;

fn store(folder: &tempfile::TempDir) -> RedbStore {
    RedbStore::open(&folder.path().join("store.redb"), CACHE_BYTES_DEFAULT).unwrap()
}

fn put(key: &'static str, value: &'static str) -> Txn {
    Txn::new().put(Key::new(key), value)
}

async fn get(store: &RedbStore, key: &'static str) -> Option<Bytes> {
    store.snapshot().await.unwrap().get(&Key::new(key)).await.unwrap()
}

#[tokio::test]
async fn a_commit_that_fails_before_the_disk_writes_nothing() {
    let scenario = FailScenario::setup();
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    store.commit(put("a", "1")).await.unwrap();
    fail::cfg("kv-commit-before", "2*return->off").unwrap();
    for _ in 0..2 {
        let error = store.commit(put("a", "2").put(Key::new("b"), "2")).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!((get(&store, "a").await, get(&store, "b").await), (Some("1".into()), None));
    }
    assert_eq!(store.commit(put("a", "3")).await.unwrap(), Outcome::Committed, "the disk is well again");
    drop(store);
    assert_eq!(get(&self::store(&folder), "a").await, Some("3".into()));
    scenario.teardown();
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_says_so() {
    let scenario = FailScenario::setup();
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    fail::cfg("kv-commit-after", "1*return->off").unwrap();
    assert_eq!(store.commit(put("a", "1")).await.unwrap(), Outcome::Undetermined);
    assert_eq!(get(&store, "a").await, Some("1".into()), "reading decides");
    scenario.teardown();
}

#[tokio::test]
async fn a_dead_writer_is_an_error_and_the_file_stays_whole() {
    let scenario = FailScenario::setup();
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder);
    store.commit(put("a", "1")).await.unwrap();
    fail::cfg("kv-commit-before", "1*panic->off").unwrap();
    assert_eq!(store.commit(put("a", "2")).await.unwrap(), Outcome::Undetermined);
    // Until the writer's end of the queue is gone, too, commits still go into it and are lost.
    let refused = async { while !matches!(store.commit(put("a", "3")).await, Err(Error::Closed)) {} };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("a dead writer is seen");
    drop(store);
    assert_eq!(get(&self::store(&folder), "a").await, Some("1".into()));
    scenario.teardown();
}
