//! The store against a real placement driver and the stand-in for TiKV's store.

use std::time::Duration;

use bytes::Bytes;
use cambium_peers::Tikv;
use cambium_runtime::clock::SystemClock;

use super::*;
use crate::kv::{KeyRange, contract, scan_all};

mod outages;

mod proxy;

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(address: &str, prefix: &str) -> Config {
    Config { endpoints: vec![address.to_owned()], key_prefix: prefix.to_owned(), ..Config::default() }
}

fn store(config: &Config) -> Arc<TikvStore> {
    Arc::new(TikvStore::new(config, Arc::new(SystemClock::new()), 1, &Metrics::new()))
}

fn key(text: &str) -> Key {
    Key::new(text.to_owned())
}

/// Keys in each of the five regions that a new keyspace has.
fn one_in_each_region(suffix: &str) -> [Key; 5] {
    ["a", "m", "n", "t", "u"].map(|region| key(&format!("{region}{suffix}")))
}

fn put_all(keys: &[Key], value: &str) -> Txn {
    keys.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), value.to_owned()))
}

async fn values(store: &TikvStore, keys: &[Key]) -> Result<Vec<Option<Bytes>>, Error> {
    store.snapshot().await?.batch_get(keys).await
}

/// Tries until it succeeds.
async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let mut last = None;
    let tried = async {
        loop {
            match attempt().await {
                Ok(answer) => return answer,
                Err(error) => last = Some(error),
            }
            tokio::task::yield_now().await;
        }
    };
    let result = tokio::time::timeout(PATIENCE, tried).await;
    result.unwrap_or_else(|_| panic!("it does not recover: {last:?}"))
}

/// Commits; who does not know the outcome tries again.
async fn commit(store: &TikvStore, txn: &Txn) {
    eventually(async || match store.commit(txn.clone()).await? {
        Outcome::Committed => Ok(()),
        _ => Err(Error::Contended),
    })
    .await;
}

/// The future's result; that of an operation comes long before.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("an operation ends by its deadline")
}

#[tokio::test(flavor = "multi_thread")]
async fn tikv_keeps_the_contract() {
    // Regions so small that they split meanwhile.
    let Some(cluster) = Tikv::with_region_bytes(256 << 10) else { return };
    let mut stores = 0;
    contract::check(|| {
        stores += 1;
        // The suite measures no time, and a hundred commits that race take some.
        store(&Config { deadline_ms: 60_000, ..config(cluster.address(), &format!("{stores}/")) })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_with_different_prefixes_do_not_meet() {
    let Some(cluster) = Tikv::start() else { return };
    let [one, other] = ["one/", "two/"].map(|prefix| store(&config(cluster.address(), prefix)));
    one.commit(put_all(&[key("k")], "1")).await.unwrap();
    assert_eq!(values(&other, &[key("k")]).await.unwrap(), [None]);
    let everything = KeyRange { start: Key::new(""), end: Key::new(vec![u8::MAX]) };
    let all = |store: Arc<TikvStore>| {
        let everything = everything.clone();
        async move { scan_all(&*store.snapshot().await.unwrap(), everything).await.unwrap() }
    };
    assert_eq!(all(one).await, [(key("k"), Bytes::from("1"))]);
    assert_eq!(all(other).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_and_scans_span_regions() {
    let Some(cluster) = Tikv::start() else { return };
    let store = store(&config(cluster.address(), ""));
    let mut keys: Vec<Key> = (0..60).flat_map(|n| one_in_each_region(&format!("{n:02}"))).collect();
    assert_eq!(store.commit(put_all(&keys, "x")).await.unwrap(), Outcome::Committed);
    let snapshot = store.snapshot().await.unwrap();
    assert!(snapshot.batch_get(&keys).await.unwrap().iter().all(Option::is_some));
    keys.sort_unstable();
    let whole = KeyRange { start: key("a"), end: key("z") };
    let found: Vec<Key> =
        scan_all(&*snapshot, whole.clone()).await.unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, keys);
    let some = snapshot.scan(whole, 130).await.unwrap();
    assert_eq!(some.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), keys[..130]);
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_split_under_a_client() {
    let Some(cluster) = Tikv::with_region_bytes(64 << 10) else { return };
    let store = store(&config(cluster.address(), "s/"));
    let keys: Vec<Key> = (0..400).map(|n| key(&format!("{n:03}"))).collect();
    let before = cluster.regions();
    let value = "x".repeat(1_000);
    let tried = async {
        // Half of it at a time, so that the client knows regions that are split later.
        while cluster.regions() < before + 4 {
            for half in keys.chunks(200) {
                let txn = half.iter().fold(Txn::new(), |txn, key| txn.put(key.clone(), value.clone()));
                assert_eq!(store.commit(txn).await.unwrap(), Outcome::Committed);
            }
            assert!(values(&store, &keys).await.unwrap().iter().all(Option::is_some));
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.expect("regions are split");
    let all = scan_all(&*store.snapshot().await.unwrap(), KeyRange { start: key("0"), end: key("9") }).await;
    assert_eq!(all.unwrap().len(), keys.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_come_in_parts() {
    let Some(cluster) = Tikv::start() else { return };
    let store = store(&config(cluster.address(), "l/"));
    // Together half as large again as a message may be.
    let keys: Vec<Key> = (10..34).map(|n| key(&n.to_string())).collect();
    for key in &keys {
        let large = Txn::new().put(key.clone(), vec![b'x'; 1 << 20]);
        assert_eq!(store.commit(large).await.unwrap(), Outcome::Committed);
    }
    let snapshot = store.snapshot().await.unwrap();
    let bytes = |values: Vec<Bytes>| values.iter().map(Bytes::len).sum::<usize>();
    let got = snapshot.batch_get(&keys).await.unwrap();
    assert_eq!(bytes(got.into_iter().flatten().collect()), 24 << 20);
    let scanned = snapshot.scan(KeyRange { start: key("1"), end: key("4") }, 99).await.unwrap();
    assert_eq!(bytes(scanned.into_iter().map(|(_, value)| value).collect()), 24 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_caller_has_gone_ends() {
    let Some(cluster) = Tikv::start() else { return };
    let store = store(&config(cluster.address(), ""));
    let keys = one_in_each_region("gone");
    let mut commit = store.commit(put_all(&keys, "x"));
    assert!(futures::poll!(&mut commit).is_pending());
    drop(commit);
    let found = eventually(async || {
        let found = values(&store, &keys).await?;
        if found[0].is_some() { Ok(found) } else { Err(Error::Contended) }
    });
    assert!(found.await.iter().all(Option::is_some), "all of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_goes_and_what_is_valid_stays() {
    let Some(cluster) = Tikv::start() else { return };
    let store = store(&config(cluster.address(), "g/"));
    for value in ["old", "new"] {
        store.commit(put_all(&[key("k")], value)).await.unwrap();
    }
    store.collect_garbage(Duration::ZERO).await.unwrap();
    assert_eq!(values(&store, &[key("k")]).await.unwrap(), [Some(Bytes::from("new"))]);
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let nobody = Config { deadline_ms: 200, ..config("127.0.0.1:1", "") };
    let tls = Tls { key_file: "/nowhere/key.pem".into(), ..Tls::default() };
    let without_files = Config { tls: Some(tls), ..nobody.clone() };
    for (config, said) in [(nobody, "PD"), (without_files, "/nowhere/key.pem")] {
        let error = in_time(store(&config).snapshot()).await.err().unwrap();
        let Error::Unavailable { source } = error else { panic!("{error}") };
        assert!(source.to_string().contains(said), "{source}");
    }
}
