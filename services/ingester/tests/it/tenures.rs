//! Partitions that go from node to node: gracefully, by death, and while their old owner only seems to be dead.

use std::time::Duration;

use cambium_ingester::Error;
use cambium_ingestlog::Logs;
use cambium_metastore::owners::OWNER_TIMEOUT;
use cambium_model::block::{LogId, Partition};
use cambium_proto::record;

use crate::cluster::{Cluster, STEP};
use crate::sandbox::{START_NS, profile, tenant};

fn at(number: u32) -> i64 {
    START_NS + i64::from(number)
}

fn log(number: u32) -> LogId {
    LogId { partition: Partition(0), log: number }
}

/// Two nodes; the first owns the one partition.
async fn two() -> Cluster {
    let mut cluster = Cluster::new(&["a", "b"], 1);
    cluster.start("a").await;
    cluster.start("b").await;
    cluster.assign(&["a"]);
    cluster.until_owned("a", 0).await;
    cluster
}

#[tokio::test]
async fn a_partition_has_one_owner_and_moves_without_a_loss() {
    let mut cluster = two().await;
    let refused = cluster.write("b", 0, &profile(0, at(0))).await.unwrap_err();
    assert!(matches!(refused, Error::NotOwner(Partition(0))), "{refused}");
    for number in 0..3 {
        assert_eq!(cluster.write("a", 0, &profile(number, at(number))).await.unwrap().applied, 1);
    }
    cluster.assign(&["b"]);
    cluster.until_owned("b", 0).await;
    assert!(!cluster.owns("a", 0));
    assert_eq!(cluster.times().await, ([0, 1, 2].map(at).to_vec(), vec![]));
    let open: Vec<LogId> =
        cluster.catalogue().open_logs().await.unwrap().iter().map(|open| open.log).collect();
    assert_eq!(open, [log(2)], "the old owner's log is sealed");
    assert_eq!(cluster.nodes["a"].logs.held().await.unwrap(), [], "and its files are gone");
    let retried = cluster.write("b", 0, &profile(1, at(1))).await.unwrap();
    assert_eq!((retried.applied, retried.duplicates), (0, 1), "the new owner knows the old one's pushes");
}

#[tokio::test]
async fn a_process_that_stops_hands_over() {
    let mut cluster = two().await;
    cluster.write("a", 0, &profile(0, at(0))).await.unwrap();
    cluster.assign(&["b"]);
    cluster.stop("a").await;
    cluster.until_owned("b", 0).await;
    assert_eq!(cluster.times().await, (vec![at(0)], vec![]));
}

#[tokio::test]
async fn a_dead_owner_is_replaced_in_time() {
    let mut cluster = two().await;
    cluster.write("a", 0, &profile(0, at(0))).await.unwrap();
    cluster.kill("a");
    cluster.assign(&["b"]);
    let took = cluster.until_owned("b", 0).await;
    assert!(took >= OWNER_TIMEOUT && took <= Duration::from_secs(15), "took {took:?}");
    assert_eq!(cluster.times().await, (vec![], vec![log(1)]), "what it had not flushed is named as missing");
    cluster.write("b", 0, &profile(1, at(1))).await.unwrap();
    assert_eq!(cluster.times().await, (vec![at(1)], vec![log(1)]));

    cluster.start("a").await;
    cluster.until("all is back", async |cluster| cluster.times().await.1.is_empty()).await;
    assert_eq!(cluster.times().await.0, [0, 1].map(at));
    cluster
        .until("the log is sealed", async |cluster| cluster.catalogue().open_logs().await.unwrap().len() == 1)
        .await;
    assert_eq!(cluster.times().await, ([0, 1].map(at).to_vec(), vec![]));
}

#[tokio::test]
async fn a_push_that_was_durable_but_not_acknowledged_counts_once() {
    let mut cluster = two().await;
    cluster.write("a", 0, &profile(0, at(0))).await.unwrap();
    // As if the process had died between the log and the answer.
    let unacked = record::encode(&tenant(), &[profile(1, at(1)), profile(2, at(2))]);
    cluster.nodes["a"].logs.open(log(1)).await.unwrap().append(unacked.into()).await.unwrap();
    cluster.kill("a");
    cluster.assign(&["b"]);
    cluster.until_owned("b", 0).await;
    assert_eq!(cluster.write("b", 0, &profile(1, at(1))).await.unwrap().applied, 1, "the client tries again");
    cluster.handle("b").flush().await.unwrap();
    cluster.start("a").await;
    cluster.until("all is back", async |cluster| cluster.times().await.1.is_empty()).await;
    assert_eq!(cluster.times().await.0, [0, 1, 2].map(at));
    let late = cluster.write("b", 0, &profile(2, at(2))).await.unwrap();
    assert_eq!((late.applied, late.duplicates), (0, 1), "what the old log has claimed counts there");
    cluster
        .until("the log is sealed", async |cluster| cluster.catalogue().open_logs().await.unwrap().len() == 1)
        .await;
    assert_eq!(cluster.times().await.0, [0, 1, 2].map(at));
}

#[tokio::test]
async fn an_owner_that_was_stopped_for_a_while_commits_nothing() {
    let mut cluster = two().await;
    cluster.write("a", 0, &profile(0, at(0))).await.unwrap();
    cluster.freeze("a", true);
    cluster.assign(&["b"]);
    cluster.until_owned("b", 0).await;
    cluster.write("b", 0, &profile(0, at(0))).await.unwrap();
    cluster.write("b", 0, &profile(1, at(1))).await.unwrap();
    cluster.freeze("a", false);
    let refused = cluster.write("a", 0, &profile(2, at(2))).await.unwrap_err();
    assert!(matches!(refused, Error::NotOwner(_)), "it knows by its own clock: {refused}");
    cluster.until("all is back", async |cluster| cluster.times().await.1.is_empty()).await;
    cluster
        .until("the log is sealed", async |cluster| cluster.catalogue().open_logs().await.unwrap().len() == 1)
        .await;
    assert_eq!(cluster.times().await.0, [0, 1].map(at), "the push that both took counts once");
    assert!(cluster.owns("b", 0) && !cluster.owns("a", 0));
}

#[tokio::test]
async fn a_restarted_owner_takes_its_partition_back_at_once() {
    let mut cluster = two().await;
    cluster.write("a", 0, &profile(0, at(0))).await.unwrap();
    cluster.kill("a");
    cluster.start("a").await;
    let took = cluster.until_owned("a", 0).await;
    assert!(took <= 10 * STEP, "its own lease is free for it: {took:?}");
    cluster.until("all is back", async |cluster| cluster.times().await.1.is_empty()).await;
    cluster
        .until("the log is sealed", async |cluster| cluster.catalogue().open_logs().await.unwrap().len() == 1)
        .await;
    assert_eq!(cluster.times().await, (vec![at(0)], vec![]));
}

#[tokio::test]
async fn a_log_that_was_given_up_is_set_aside() {
    let mut cluster = two().await;
    cluster.write("a", 0, &profile(0, at(0))).await.unwrap();
    cluster.kill("a");
    cluster.assign(&["b"]);
    cluster.until_owned("b", 0).await;
    cluster.catalogue().forget_log(log(1)).await.unwrap();
    assert_eq!(cluster.times().await, (vec![], vec![]), "nothing is missing any more");
    cluster.start("a").await;
    cluster
        .until("it is set aside", async |cluster| cluster.nodes["a"].logs.held().await.unwrap().is_empty())
        .await;
    assert_eq!(cluster.times().await, (vec![], vec![]));
}
