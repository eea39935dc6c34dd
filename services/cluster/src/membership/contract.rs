//! The laws of the seam, on every implementation of it; and what only gossip does, over real sockets.

use std::time::Duration;

use cambium_runtime::clock::SystemClock;
use cambium_runtime::metrics::Metrics;
use cambium_runtime::quantity::Span;
use cambium_runtime::tasks::Tasks;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::fixed::Fixed;
use super::*;
use crate::key::ClusterKey;
use crate::node::tests::node;
use crate::node::{Node, NodeName, WIRE_VERSION_MAX};
use crate::swim::{Config, Deps, Swim};

/// How long a test waits for what should take a second.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until a view is as it should be.
async fn wait(membership: &dyn Membership, what: &str, condition: impl Fn(&View) -> bool) -> Arc<View> {
    let mut views = membership.view();
    let seen = tokio::time::timeout(DEADLINE, views.wait_for(|view| condition(view))).await;
    let seen = seen.map(|view| view.map(|view| Arc::clone(&view)));
    match seen {
        Ok(Ok(view)) => view,
        outcome => panic!("{what}: {:?}, the view is {:?}", outcome.is_err(), membership.view().borrow()),
    }
}

fn state_of(view: &View, name: &NodeName) -> Option<NodeState> {
    view.get(name).map(|node| node.state)
}

/// All cases, on members of one cluster that each see all of them.
async fn check(members: &[Arc<dyn Membership>]) {
    let name = |member: &Arc<dyn Membership>| member.view().borrow().this().clone();
    for member in members {
        let view = wait(&**member, "all are seen", |view| view.nodes().len() == members.len()).await;
        assert!(view.nodes().is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(view.me().map(|me| &me.name), Some(view.this()));
    }
    let (first, others) = members.split_first().unwrap();
    let first_name = name(first);
    for state in [NodeState::ReadOnly, NodeState::Leaving, NodeState::Active] {
        first.set_state(state).await.unwrap();
        let own = first.view().borrow().clone();
        assert_eq!(state_of(&own, &first_name), Some(state), "at once in its own view");
        for other in others {
            wait(&**other, "a change of state", |view| state_of(view, &first_name) == Some(state)).await;
        }
    }
    first.leave().await.unwrap();
    assert_eq!(state_of(&first.view().borrow(), &first_name), Some(NodeState::Leaving));
    assert!(matches!(first.set_state(NodeState::Active).await, Err(Error::Left)));
    first.leave().await.unwrap();
    for other in others {
        let view = wait(&**other, "a goodbye", |view| view.get(&first_name).is_none()).await;
        assert_eq!(view.nodes().len(), members.len() - 1, "and nobody else");
        assert!(view.down().iter().all(|node| node.name == first_name));
    }
}

struct Gossiping {
    swim: Arc<Swim>,
    tasks: Tasks,
    metrics: Metrics,
}

const KEY: &str = "correct horse battery staple";

/// A node on loopback that joins at `join`; impatient, so that tests are short.
async fn start(name: &str, key: &str, join: &[String]) -> Gossiping {
    let millis = |millis| Span(Duration::from_millis(millis));
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        join: join.to_vec(),
        join_interval: millis(200),
        probe_interval: millis(200),
        probe_timeout: millis(80),
        suspicion: millis(1_000),
        gossip_interval: millis(20),
        ..Config::default()
    };
    let node = Node { gossip: config.listen, ..node(name, "z") };
    let (tasks, metrics) = (Tasks::new(), Metrics::new());
    let deps = Deps {
        clock: Arc::new(SystemClock::new()),
        metrics: metrics.clone(),
        tasks: tasks.clone(),
        rng: StdRng::seed_from_u64(name.len() as u64),
    };
    let key = ClusterKey::from_setting(key).unwrap();
    let swim = Arc::new(Swim::start(config, key, node, deps).await.unwrap());
    Gossiping { swim, tasks, metrics }
}

fn address(member: &Gossiping) -> String {
    let port = member.swim.view().borrow().me().unwrap().gossip.port();
    format!("localhost:{port}")
}

async fn three(key: &str) -> Vec<Gossiping> {
    let first = start("a", key, &[]).await;
    // A name that nobody has does not keep the others from being asked.
    let join = ["nobody.invalid:7946".to_owned(), address(&first)];
    vec![first, start("b", key, &join).await, start("c", key, &join).await]
}

#[tokio::test]
async fn a_fixed_membership_keeps_the_contract() {
    check(&[Arc::new(Fixed::alone(node("a", "")))]).await;
}

#[tokio::test]
async fn gossip_keeps_the_contract() {
    for key in [KEY, ""] {
        let members = three(key).await;
        let seams: Vec<_> =
            members.iter().map(|member| Arc::clone(&member.swim) as Arc<dyn Membership>).collect();
        check(&seams).await;
        for member in &members {
            member.tasks.shut_down().await;
        }
        assert!(matches!(seams[1].set_state(NodeState::Active).await, Err(Error::Stopped)));
        assert!(matches!(seams[1].leave().await, Err(Error::Stopped)), "nobody was told");
    }
}

#[tokio::test]
async fn a_dead_member_is_missed_and_a_stranger_is_not_seen() {
    let members = three(KEY).await;
    for member in &members {
        wait(&*member.swim, "all are seen", |view| view.nodes().len() == 3).await;
    }
    let stranger = start("s", "the key of another cluster", &[address(&members[0])]).await;
    members[2].tasks.shut_down().await;
    let (a, c) = (&members[0], NodeName::new("c").unwrap());
    let view = wait(&*a.swim, "a death", |view| view.get(&c).is_none()).await;
    assert_eq!(view.nodes().len(), 2);
    assert_eq!(view.down().iter().map(|node| &node.name).collect::<Vec<_>>(), [&c]);
    assert_eq!(stranger.swim.view().borrow().nodes().len(), 1);
    let text = a.metrics.encode();
    for line in [
        "cambium_cluster_nodes{state=\"active\"} 2",
        "cambium_cluster_nodes{state=\"down\"} 1",
        "cambium_cluster_member_changes_total{change=\"up\"} 2",
        "cambium_cluster_member_changes_total{change=\"down\"} 1",
        "cambium_cluster_name_disputes_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("cambium_cluster_packets_refused_total{reason=\"key\"}"), "{text}");
}

#[tokio::test]
async fn settings_that_would_let_anybody_in_are_refused() {
    let start = async |listen: &str, gossip: &str, key: &str, zone: &str| {
        let config = Config { listen: listen.parse().unwrap(), ..Config::default() };
        let node = Node { gossip: gossip.parse().unwrap(), ..node("a", zone) };
        let (clock, tasks) = (Arc::new(SystemClock::new()), Tasks::new());
        let deps = Deps { clock, metrics: Metrics::new(), tasks, rng: StdRng::seed_from_u64(1) };
        Swim::start(config, ClusterKey::from_setting(key).unwrap(), node, deps).await.map(|_| ()).unwrap_err()
    };
    let wide = "z".repeat(470);
    assert!(matches!(start("0.0.0.0:0", "127.0.0.1:0", "", "").await, Error::KeyNeeded { .. }));
    assert!(matches!(start("127.0.0.1:0", "10.0.0.1:0", "", "").await, Error::KeyNeeded { .. }));
    assert!(matches!(start("127.0.0.1:0", "0.0.0.0:0", KEY, "").await, Error::Unspecified { .. }));
    assert!(matches!(start("192.0.2.1:0", "192.0.2.1:0", KEY, "").await, Error::Bind { .. }));
    assert!(matches!(start("127.0.0.1:0", "127.0.0.1:0", KEY, &wide).await, Error::Node(_)));
}

#[test]
fn times_that_make_no_sense_are_refused() {
    let zero = Span(Duration::ZERO);
    let cases = [
        ("probe_timeout", Config { probe_timeout: Span(Duration::from_millis(251)), ..Config::default() }),
        ("probe_timeout", Config { probe_timeout: zero, ..Config::default() }),
        ("suspicion", Config { suspicion: zero, ..Config::default() }),
        ("gossip_interval", Config { gossip_interval: zero, ..Config::default() }),
    ];
    for (expected, config) in cases {
        let refused = config.check();
        assert!(matches!(refused, Err(Error::Setting { setting, .. }) if setting == expected), "{refused:?}");
    }
    assert!(Config::default().check().is_ok());
}

#[tokio::test]
async fn a_fixed_view_shows_what_it_was_given() {
    let other = Node { wire_version: WIRE_VERSION_MAX + 1, ..node("b", "") };
    let fixed = Fixed::new(NodeName::new("a").unwrap(), [other, node("a", "")]);
    let view = fixed.view().borrow().clone();
    assert_eq!(view.nodes().iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}
