//! Random lives of a small cluster: whatever happens, what was acknowledged counts once when everybody is back, and what was
//! not counts at most once.

use std::collections::{BTreeMap, BTreeSet};

use cambium_ingestlog::Logs;
use cambium_proto::record;
use proptest::prelude::*;

use crate::cluster::Cluster;
use crate::sandbox::{START_NS, profile, tenant};

const NODES: [&str; 3] = ["a", "b", "c"];
const PARTITIONS: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    /// Push a new profile.
    Push,
    /// Push one of the earlier ones again, acknowledged or not.
    Retry(prop::sample::Index),
    /// A new profile becomes durable, and its owner dies before it answers.
    Unanswered,
    /// The client of the last such profile tries again until another owner takes it.
    Insist(usize),
    Kill(usize),
    Start(usize),
    Freeze(usize),
    Thaw(usize),
    /// The ring changes: owners of the partitions.
    Assign(usize, usize),
    Flush(usize),
    Wait(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES.len();
    prop_oneof![
        8 => Just(Step::Push),
        6 => any::<prop::sample::Index>().prop_map(Step::Retry),
        2 => Just(Step::Unanswered),
        3 => node.clone().prop_map(Step::Insist),
        2 => node.clone().prop_map(Step::Kill),
        4 => node.clone().prop_map(Step::Start),
        2 => node.clone().prop_map(Step::Freeze),
        3 => node.clone().prop_map(Step::Thaw),
        4 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Assign(a, b)),
        2 => node.prop_map(Step::Flush),
        6 => (1..300_usize).prop_map(Step::Wait),
    ]
}

struct Lives {
    cluster: Cluster,
    frozen: BTreeSet<&'static str>,
    pushed: u32,
    unanswered: u32,
    acked: BTreeSet<u32>,
}

impl Lives {
    /// The node that takes writes for the profile's partition, and the partition: all pushes of a profile go to one.
    fn owner(&self, number: u32) -> (Option<&'static str>, u32) {
        let partition = number % PARTITIONS;
        let mut nodes = NODES.into_iter().filter(|name| !self.frozen.contains(name));
        (nodes.find(|name| self.cluster.owns(name, partition)), partition)
    }

    async fn push(&mut self, number: u32) {
        let (owner, partition) = self.owner(number);
        let Some(owner) = owner else { return };
        if self.cluster.write(owner, partition, &profile(number, START_NS + i64::from(number))).await.is_ok()
        {
            self.acked.insert(number);
        }
    }

    /// Appends behind the owner's back, and kills it.
    async fn unanswered(&mut self, number: u32) {
        let (Some(owner), partition) = self.owner(number) else { return };
        let logs = std::sync::Arc::clone(&self.cluster.nodes[owner].logs);
        let of_partition = logs.held().await.unwrap().into_iter().filter(|log| log.partition.0 == partition);
        let Some(newest) = of_partition.max() else { return };
        let bytes = record::encode(&tenant(), &[profile(number, START_NS + i64::from(number))]);
        self.cluster.kill(owner);
        logs.open(newest).await.unwrap().append(bytes.into()).await.unwrap();
        self.unanswered = number;
    }

    /// Retries while the partition goes to this node, for as long as a dead owner may hold it up.
    async fn insist(&mut self, node: &'static str) {
        if !self.cluster.lives(node) || self.frozen.contains(node) || self.unanswered == 0 {
            return;
        }
        self.cluster.assign(&[node]);
        for _ in 0..100 {
            self.cluster.step().await;
            self.push(self.unanswered).await;
            if self.acked.contains(&self.unanswered) {
                return;
            }
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Push => {
                self.pushed += 1;
                self.push(self.pushed).await;
            }
            Step::Retry(index) if self.pushed > 0 => {
                self.push(1 + index.index(self.pushed as usize) as u32).await
            }
            Step::Retry(_) => {}
            Step::Unanswered => {
                self.pushed += 1;
                self.unanswered(self.pushed).await;
            }
            Step::Insist(node) => self.insist(NODES[node]).await,
            Step::Kill(node) if self.cluster.lives(NODES[node]) => {
                self.frozen.remove(NODES[node]);
                self.cluster.kill(NODES[node]);
            }
            Step::Start(node) if !self.cluster.lives(NODES[node]) => self.cluster.start(NODES[node]).await,
            Step::Freeze(node) if self.cluster.lives(NODES[node]) => {
                self.frozen.insert(NODES[node]);
                self.cluster.freeze(NODES[node], true);
            }
            Step::Thaw(node) if self.frozen.remove(NODES[node]) => self.cluster.freeze(NODES[node], false),
            Step::Assign(first, second) => self.cluster.assign(&[NODES[first], NODES[second]]),
            Step::Flush(node) if self.cluster.lives(NODES[node]) && !self.frozen.contains(NODES[node]) => {
                // A node that lost its tenure may fail to.
                let _ = self.cluster.handle(NODES[node]).flush().await;
            }
            Step::Wait(steps) => {
                for _ in 0..steps {
                    self.cluster.step().await;
                }
            }
            Step::Kill(_) | Step::Start(_) | Step::Freeze(_) | Step::Thaw(_) | Step::Flush(_) => {}
        }
    }

    /// Everybody is back and everything is done.
    async fn settle(&mut self) {
        for node in 0..NODES.len() {
            self.take(Step::Thaw(node)).await;
            self.take(Step::Start(node)).await;
        }
        self.cluster.assign(&["a", "b"]);
        self.cluster.until_owned("a", 0).await;
        self.cluster.until_owned("b", 1).await;
        // A node that was frozen may find out late that it was replaced, and begin another log.
        let one_log_each = async |cluster: &Cluster| {
            cluster.catalogue().open_logs().await.unwrap().len() == PARTITIONS as usize
                && cluster.times().await.1.is_empty()
        };
        self.cluster.until("earlier logs are sealed", one_log_each).await;
    }
}

async fn live(steps: Vec<Step>) {
    let cluster = Cluster::new(&NODES, PARTITIONS);
    let mut lives =
        Lives { cluster, frozen: BTreeSet::new(), pushed: 0, unanswered: 0, acked: BTreeSet::new() };
    lives.cluster.assign(&["a", "b"]);
    for name in NODES {
        lives.cluster.start(name).await;
    }
    for step in steps {
        lives.take(step).await;
    }
    lives.settle().await;
    let (times, missing) = lives.cluster.times().await;
    assert_eq!(missing, []);
    let mut counted: BTreeMap<u32, u32> = BTreeMap::new();
    for time_ns in times {
        *counted.entry((time_ns - START_NS) as u32).or_default() += 1;
    }
    let twice: Vec<_> = counted.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "counted more than once: {twice:?}");
    let lost: Vec<_> = lives.acked.iter().filter(|number| !counted.contains_key(number)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_counts_once(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(steps));
    }
}
