//! Several processes with a real metadata store: what is acknowledged is answered, whoever dies or leaves.

use std::time::Duration;

use cambium_loadtest::synthetic::Synthetic;
use cambium_simulation::cluster::{Cluster, Durability, until};
use serde_json::Value;

use crate::BINARY;
use crate::main_job::now_ns;

const QUERY: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds:delta";
const INGESTERS: [&str; 3] = ["ingester-0", "ingester-1", "ingester-2"];

/// One process for each role but three ingesters.
fn cluster(durability: Durability) -> Option<Cluster> {
    let mut cluster = Cluster::new(BINARY, durability)?;
    cluster.add("distributor-0", "distributor");
    for name in INGESTERS {
        cluster.add(name, "ingester");
    }
    cluster.add("querier-0", "querier");
    cluster.add("compactor-0", "compactor");
    cluster.until_owned_by(&INGESTERS);
    Some(cluster)
}

/// Profiles pushed so far and what they sum up to.
#[derive(Default)]
struct Pushed {
    count: i64,
    total: i64,
}

impl Pushed {
    /// Pushes profiles of many services, so that every partition gets some; each until it is acknowledged.
    fn push(&mut self, cluster: &Cluster, profiles: i64) {
        for _ in 0..profiles {
            self.count += 1;
            let time_ns = now_ns() - self.count * 1_000_000;
            let profile = Synthetic { time_ns, samples: 5, value: self.count };
            let labels = format!(r#"{{service_name="svc-{}",pod="p"}}"#, self.count % 40);
            let body = profile.pprof();
            until("a push is acknowledged", || {
                let answer = cluster.client("distributor-0").push(&labels, &[("name", "process_cpu")], &body);
                let answer = answer.unwrap();
                assert!([200, 503].contains(&answer.status), "{} {}", answer.status, answer.text());
                answer.status == 200
            });
            self.total += profile.total();
        }
    }

    /// What a query answers: the total, and how many logs it misses.
    fn asked(cluster: &Cluster) -> (i64, usize) {
        let parameters = [("query", QUERY), ("format", "top"), ("start", "0")];
        let answer = cluster.client("querier-0").json("/api/v1/query", &parameters);
        let missing = answer["stats"]["missing"].as_array().map_or(0, Vec::len);
        assert_eq!(missing > 0, answer["warnings"].is_array(), "{answer}");
        (answer["data"]["total"].as_i64().unwrap(), missing)
    }

    fn assert_complete(&self, cluster: &Cluster) {
        assert_eq!(Self::asked(cluster), (self.total, 0));
    }

    /// Waits until nothing is missing; what an answer does not name as missing is in it at any time.
    fn until_complete(&self, cluster: &Cluster) {
        until("nothing is missing", || {
            let (total, missing) = Self::asked(cluster);
            assert!(missing > 0 || total == self.total, "{total} of {}, nothing missing", self.total);
            missing == 0
        });
    }
}

#[test]
fn what_is_acknowledged_is_answered_whoever_dies_or_leaves() {
    let Some(mut cluster) = cluster(Durability::local()) else { return };
    let mut pushed = Pushed::default();
    pushed.push(&cluster, 60);
    pushed.assert_complete(&cluster);

    // A dead owner: others take over, what it had not flushed is named as missing until it is back.
    cluster.kill(INGESTERS[0]);
    pushed.push(&cluster, 60);
    let took = cluster.until_owned_by(&INGESTERS[1..]);
    assert!(took < Duration::from_secs(15), "others take over in {took:?}");
    let (total, missing) = Pushed::asked(&cluster);
    assert!(missing > 0 && total < pushed.total, "{total} of {}, {missing} missing", pushed.total);
    cluster.start(INGESTERS[0]);
    pushed.until_complete(&cluster);

    // One that leaves hands over.
    cluster.until_owned_by(&INGESTERS);
    cluster.stop(INGESTERS[1]);
    pushed.push(&cluster, 30);
    pushed.until_complete(&cluster);

    // One that stands still is replaced, and finds its place again.
    cluster.freeze(INGESTERS[2], true);
    pushed.push(&cluster, 30);
    cluster.freeze(INGESTERS[2], false);
    pushed.until_complete(&cluster);
}

#[test]
fn what_kafka_has_acknowledged_is_answered_whoever_dies_or_leaves() {
    let Some(durability) = Durability::remote() else { return };
    let Some(mut cluster) = cluster(durability) else { return };
    let mut pushed = Pushed::default();
    let complete = |pushed: &Pushed, cluster: &Cluster| {
        until("owners have read what Kafka has", || Pushed::asked(cluster) == (pushed.total, 0))
    };
    pushed.push(&cluster, 60);
    complete(&pushed, &cluster);

    // Whoever owns a partition, its log takes writes; the next owner reads on from where blocks end.
    cluster.kill(INGESTERS[0]);
    pushed.push(&cluster, 60);
    complete(&pushed, &cluster);
    cluster.start(INGESTERS[0]);
    cluster.until_owned_by(&INGESTERS);
    cluster.stop(INGESTERS[1]);
    pushed.push(&cluster, 30);
    complete(&pushed, &cluster);

    cluster.freeze(INGESTERS[2], true);
    pushed.push(&cluster, 30);
    complete(&pushed, &cluster);
    cluster.freeze(INGESTERS[2], false);
    cluster.until_owned_by(&[INGESTERS[0], INGESTERS[2]]);
    complete(&pushed, &cluster);

    // A broker that dies takes nothing with it, and pushes wait for it.
    if let Durability::Remote(kafka, _) = &mut cluster.durability {
        kafka.broker.kill();
        kafka.broker.start();
    }
    pushed.push(&cluster, 20);
    complete(&pushed, &cluster);
}

#[test]
fn members_and_ring_are_shown() {
    let Some(cluster) = cluster(Durability::local()) else { return };
    let operator = cluster.node("querier-0").operator();
    let members = operator.json("/memberlist", &[])["data"]["nodes"].as_array().unwrap().clone();
    assert_eq!(members.len(), 6, "{members:?}");
    assert!(members.iter().all(|node| node["state"] == "active"), "{members:?}");
    let ring = operator.json("/ring", &[])["data"].clone();
    let owners = |row: &Value| row["candidates"][0].as_str().unwrap().to_owned();
    let wanted: Vec<String> = ring["partitions"].as_array().unwrap().iter().map(owners).collect();
    for name in INGESTERS {
        let held: Vec<u64> = cluster.partitions_of(name);
        let of_ring =
            (0_u64..).zip(&wanted).filter(|(_, owner)| *owner == name).map(|(partition, _)| partition);
        assert_eq!(held, of_ring.collect::<Vec<_>>(), "{name}");
    }
    let page = cluster.client("querier-0").get("/memberlist", &[]).unwrap();
    assert_eq!(page.status, 200, "the public port is loopback");
}
