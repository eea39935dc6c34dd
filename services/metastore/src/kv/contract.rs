//! The laws of the seam, as cases that every implementation passes. Each case gets a store of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;

use super::testing::{Fault, FaultyStore};
use super::*;

/// Runs every case on stores that `new` makes.
pub(super) async fn check<S: KvStore + 'static>(mut new: impl FnMut() -> Arc<S>) {
    an_unwritten_key_is_absent(&*new()).await;
    a_commit_is_all_or_nothing(&*new()).await;
    a_snapshot_is_one_cut(&*new()).await;
    preconditions_hold_on_unwritten_keys(&*new()).await;
    write_skew_is_refused(new()).await;
    one_of_many_racing_commits_wins(new()).await;
    deleting_is_a_write(&*new()).await;
    scans_are_ordered_limited_and_half_open(&*new()).await;
    batches_answer_in_the_order_asked(&*new()).await;
    transactions_are_bounded(&*new()).await;
    transact_finds_its_own_undetermined_commit(new()).await;
    random_transactions_agree_with_a_map(&*new()).await;
}

fn key(text: &str) -> Key {
    Key::new(text.to_owned())
}

async fn commit(store: &dyn KvStore, txn: Txn) -> Outcome {
    store.commit(txn).await.unwrap()
}

async fn get(store: &dyn KvStore, text: &str) -> Option<Bytes> {
    store.snapshot().await.unwrap().get(&key(text)).await.unwrap()
}

fn value(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

async fn an_unwritten_key_is_absent(store: &dyn KvStore) {
    assert_eq!(get(store, "a").await, None);
    assert_eq!(commit(store, Txn::new()).await, Outcome::Committed);
    assert_eq!(commit(store, Txn::new().put(key("a"), "")).await, Outcome::Committed);
    assert_eq!(get(store, "a").await, value(""), "an empty value is not absence");
}

async fn a_commit_is_all_or_nothing(store: &dyn KvStore) {
    commit(store, Txn::new().put(key("a"), "1").put(key("b"), "1")).await;
    let half_wrong = Txn::new()
        .expect(key("a"), value("1"))
        .expect(key("b"), value("2"))
        .expect(key("c"), value("3"))
        .put(key("a"), "9")
        .put(key("d"), "9");
    assert_eq!(commit(store, half_wrong).await, Outcome::Conflict { key: key("b") }, "the first that fails");
    assert_eq!((get(store, "a").await, get(store, "d").await), (value("1"), None));
}

async fn a_snapshot_is_one_cut(store: &dyn KvStore) {
    commit(store, Txn::new().put(key("a"), "1").put(key("b"), "1")).await;
    let before = store.snapshot().await.unwrap();
    commit(store, Txn::new().put(key("a"), "2").delete(key("b")).put(key("c"), "2")).await;
    let keys = ["a", "b", "c"].map(key);
    assert_eq!(before.batch_get(&keys).await.unwrap(), [value("1"), value("1"), None]);
    let scanned = before.scan(KeyRange { start: key("a"), end: key("z") }, 9).await.unwrap();
    assert_eq!(scanned.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "b"].map(key));
    let after = store.snapshot().await.unwrap();
    assert_eq!(after.batch_get(&keys).await.unwrap(), [value("2"), None, value("2")]);
}

async fn preconditions_hold_on_unwritten_keys(store: &dyn KvStore) {
    commit(store, Txn::new().put(key("fence"), "1")).await;
    let write = |fence| Txn::new().expect(key("fence"), fence).put(key("a"), "x");
    assert_eq!(commit(store, write(value("2"))).await, Outcome::Conflict { key: key("fence") });
    assert_eq!(commit(store, write(None)).await, Outcome::Conflict { key: key("fence") });
    assert_eq!(get(store, "a").await, None);
    assert_eq!(commit(store, write(value("1"))).await, Outcome::Committed);
    let only_checks = |fence| Txn::new().expect(key("fence"), fence);
    assert_eq!(commit(store, only_checks(value("1"))).await, Outcome::Committed);
    assert_eq!(commit(store, only_checks(None)).await, Outcome::Conflict { key: key("fence") });
}

/// Each of two transactions reads both keys and writes one: under plain snapshot isolation both would commit.
async fn write_skew_is_refused<S: KvStore + 'static>(store: Arc<S>) {
    for round in 0..20 {
        let names = ["left", "right"].map(|side| format!("{side}{round}"));
        let [left, right] = &names;
        commit(&*store, Txn::new().put(key(left), "on").put(key(right), "on")).await;
        let reads = Txn::new().expect(key(left), value("on")).expect(key(right), value("on"));
        let switch_off = |name: &String| store.commit(reads.clone().put(key(name), "off"));
        let (a, b) = tokio::join!(switch_off(left), switch_off(right));
        let committed = [a.unwrap(), b.unwrap()].iter().filter(|o| **o == Outcome::Committed).count();
        assert_eq!(committed, 1, "one of the two must stay on");
    }
}

async fn one_of_many_racing_commits_wins<S: KvStore + 'static>(store: Arc<S>) {
    let claim = |number: usize| {
        store.commit(Txn::new().expect(key("seat"), None).put(key("seat"), number.to_string()))
    };
    let outcomes = join_all((0..100).map(claim)).await;
    let winners: Vec<usize> =
        (0..100).filter(|n| *outcomes[*n].as_ref().unwrap() == Outcome::Committed).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(get(&*store, "seat").await, Some(winners[0].to_string().into()));

    let count = |_| {
        transact(&*store, |snapshot| async move {
            let before = snapshot.get(&key("counter")).await?;
            let number: u32 = before.as_deref().map_or(0, |b| String::from_utf8_lossy(b).parse().unwrap());
            let txn = Txn::new().expect(key("counter"), before).put(key("counter"), (number + 1).to_string());
            Ok::<_, Error>(Step::Commit(txn, ()))
        })
    };
    join_all((0..20).map(count)).await.into_iter().for_each(Result::unwrap);
    assert_eq!(get(&*store, "counter").await, value("20"), "no increment is lost");
}

async fn deleting_is_a_write(store: &dyn KvStore) {
    assert_eq!(commit(store, Txn::new().delete(key("a"))).await, Outcome::Committed, "absent already");
    commit(store, Txn::new().put(key("a"), "1")).await;
    let wrong = Txn::new().expect(key("a"), value("2")).delete(key("a"));
    assert_eq!(commit(store, wrong).await, Outcome::Conflict { key: key("a") });
    let right = Txn::new().expect(key("a"), value("1")).delete(key("a"));
    assert_eq!(commit(store, right).await, Outcome::Committed);
    assert_eq!(get(store, "a").await, None);
    let later_wins = Txn::new().put(key("a"), "1").delete(key("a"));
    commit(store, later_wins).await;
    assert_eq!(get(store, "a").await, None);
}

async fn scans_are_ordered_limited_and_half_open(store: &dyn KvStore) {
    let names: [&[u8]; 6] = [b"a\xff", b"b", b"b\0", b"b\x7f", b"b\xff", b"c"];
    let keys = names.map(Key::new);
    for key in keys.iter().rev() {
        commit(store, Txn::new().put(key.clone(), key.as_bytes().to_vec())).await;
    }
    let snapshot = store.snapshot().await.unwrap();
    let cases = [
        (KeyRange::prefix(b"b"), 99, &keys[1..5]),
        (KeyRange::prefix(b"b"), 2, &keys[1..3]),
        (KeyRange::prefix(b"b"), 0, &keys[..0]),
        (KeyRange::prefix(b"b\xff"), 99, &keys[4..5]),
        (KeyRange { start: keys[0].clone(), end: keys[5].clone() }, 99, &keys[..5]),
        (KeyRange { start: keys[5].clone(), end: keys[0].clone() }, 99, &keys[..0]),
        (KeyRange::prefix(b"x"), 99, &keys[..0]),
    ];
    for (range, limit, expected) in cases {
        let found = snapshot.scan(range.clone(), limit).await.unwrap();
        let expected: Vec<(Key, Bytes)> =
            expected.iter().map(|key| (key.clone(), Bytes::copy_from_slice(key.as_bytes()))).collect();
        assert_eq!(found, expected, "{range:?} limit {limit}");
    }
}

async fn batches_answer_in_the_order_asked(store: &dyn KvStore) {
    let numbered = |n: usize| Key::new(format!("n{n:05}"));
    for first in (0..3_000).step_by(TXN_KEYS_MAX) {
        let numbers = first..3_000.min(first + TXN_KEYS_MAX);
        let txn = numbers.fold(Txn::new(), |txn, n| txn.put(numbered(n), vec![b'x'; n]));
        commit(store, txn).await;
    }
    let snapshot = store.snapshot().await.unwrap();
    let asked: Vec<usize> = (0..4_000).rev().chain([7, 7]).collect();
    let keys: Vec<Key> = asked.iter().map(|n| numbered(*n)).collect();
    let values = snapshot.batch_get(&keys).await.unwrap();
    let lengths: Vec<_> = values.iter().map(|value| value.as_ref().map(Bytes::len)).collect();
    assert_eq!(lengths, asked.iter().map(|n| (*n < 3_000).then_some(*n)).collect::<Vec<_>>());
    assert_eq!(snapshot.batch_get(&[]).await.unwrap(), Vec::<Option<Bytes>>::new());

    let all = scan_all(&*snapshot, KeyRange::prefix(b"n")).await.unwrap();
    assert_eq!(all.len(), 3_000, "paging neither skips nor repeats");
    assert!(all.is_sorted_by(|a, b| a.0 < b.0));
}

async fn transactions_are_bounded(store: &dyn KvStore) {
    let full = (0..TXN_KEYS_MAX).fold(Txn::new(), |txn, n| {
        let key = Key::new(format!("{n}"));
        txn.expect(key.clone(), None).put(key, "x")
    });
    assert_eq!(commit(store, full.clone()).await, Outcome::Committed, "a key counts once");
    for over in [full.clone().put(key("more"), "x"), full.expect(key("more"), None)] {
        assert!(matches!(store.commit(over).await, Err(Error::TooManyKeys { keys: 513 })));
    }
    assert_eq!(get(store, "more").await, None);
}

async fn transact_finds_its_own_undetermined_commit<S: KvStore + 'static>(store: Arc<S>) {
    let faulty = FaultyStore::new(store);
    let put_once = |name: &'static str| {
        let faulty = &faulty;
        transact(faulty, move |snapshot| async move {
            match snapshot.get(&key(name)).await? {
                Some(_) => Ok::<_, Error>(Step::Done("found")),
                None => Ok(Step::Commit(Txn::new().expect(key(name), None).put(key(name), "x"), "wrote")),
            }
        })
    };
    faulty.inject([Fault::UndeterminedCommitted]);
    assert_eq!(put_once("a").await.unwrap(), "found");
    faulty.inject([Fault::UndeterminedLost, Fault::UndeterminedLost]);
    assert_eq!(put_once("b").await.unwrap(), "wrote");
    faulty.inject([Fault::Unavailable]);
    assert!(matches!(put_once("c").await, Err(Error::Unavailable { .. })));
    assert_eq!(get(&faulty, "c").await, None);
    faulty.inject([Fault::UndeterminedLost; ATTEMPTS_MAX]);
    assert!(matches!(put_once("c").await, Err(Error::Contended)), "not for ever");
}

/// A thousand small transactions over few keys, against the plainest oracle; the seed is fixed.
async fn random_transactions_agree_with_a_map(store: &dyn KvStore) {
    let mut oracle = BTreeMap::<Key, Bytes>::new();
    let mut state = 42_u64;
    let mut random = move |below: u64| {
        // Knuth's MMIX generator: good enough to pick keys.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..1_000 {
        let mut txn = Txn::new();
        for _ in 0..random(4) {
            let key = Key::new(format!("k{}", random(5)));
            let guess = if random(4) == 0 { None } else { oracle.get(&key).cloned() };
            txn = txn.expect(key, guess);
        }
        for _ in 0..random(4) {
            let key = Key::new(format!("k{}", random(5)));
            txn = if random(3) == 0 { txn.delete(key) } else { txn.put(key, random(3).to_string()) };
        }
        let failing = txn.preconditions().find(|(key, expected)| oracle.get(*key) != *expected);
        let expected = match failing {
            Some((key, _)) => Outcome::Conflict { key: key.clone() },
            None => Outcome::Committed,
        };
        assert_eq!(commit(store, txn.clone()).await, expected, "{txn:?}");
        if expected == Outcome::Committed {
            for (key, value) in txn.writes() {
                match value {
                    Some(value) => oracle.insert(key.clone(), value.clone()),
                    None => oracle.remove(key),
                };
            }
        }
    }
    let all = scan_all(&*store.snapshot().await.unwrap(), KeyRange::prefix(b"k")).await.unwrap();
    assert_eq!(all, oracle.into_iter().collect::<Vec<_>>());
}
