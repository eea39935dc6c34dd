//! A process' place in a cluster: who is there, what the ring gives to this node, how others are reached.
//!
//! ```text
//!   gossip ─► view ─┬─► ring ─► partitions that this node should hold ─► ingester
//!                   ├─► peers ─► channels ─► owners of partitions, holders of heads
//!                   └─► /memberlist, /ring
//! ```

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use cambium_cluster::key::ClusterKey;
use cambium_cluster::node::{NodeName, NodeState, WIRE_VERSION_MAX};
use cambium_cluster::peers::{Credentials, Peers, Sender};
use cambium_cluster::swim::{self, Swim};
use cambium_cluster::{Membership, Node, Ring, View};
use cambium_model::block::Partition;
use cambium_runtime::clock::Clock;
use cambium_runtime::metrics::Metrics;
use cambium_runtime::tasks::Tasks;
use tokio::sync::watch;

use crate::Config;

/// This process among the others.
#[derive(Clone, Debug)]
pub struct Place {
    /// This node's name.
    pub name: NodeName,
    /// Who is there.
    pub membership: Arc<dyn Membership>,
    /// Channels to them.
    pub peers: Arc<Peers>,
    /// What lets nodes of the cluster in.
    pub credentials: Credentials,
    /// What this node adds to its calls.
    pub sender: Sender,
    /// How many partitions there are.
    pub partitions: u32,
}

impl Place {
    /// Joins the cluster that the settings name. `internal` is where this node's internal port is.
    pub async fn join(
        config: &Config,
        internal: SocketAddr,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let settings = &config.cluster;
        let name = node_name(config)?;
        let key = ClusterKey::from_setting(settings.key()?.expose()).context("cluster.key")?;
        let gossip = advertised(&settings.advertise, settings.gossip.listen, "cluster.advertise")?;
        let internal_at = match settings.advertise_internal.as_str() {
            "" => SocketAddr::new(gossip.ip(), internal.port()).to_string(),
            given => given.to_owned(),
        };
        let node = Node {
            name: name.clone(),
            generation: u64::try_from(clock.now_ns()).unwrap_or(0),
            revision: 0,
            zone: settings.zone.clone(),
            roles: config.target.roles(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wire_version: WIRE_VERSION_MAX,
            gossip,
            internal: internal_at,
            state: NodeState::Joining,
        };
        let credentials = Credentials::new(&settings.gossip.cluster, key.as_ref());
        let deps = swim::Deps {
            clock: Arc::clone(clock),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            rng: rand::make_rng(),
        };
        let swim = Swim::start(settings.gossip.clone(), key, node, deps).await.context("join the cluster")?;
        let membership: Arc<dyn Membership> = Arc::new(swim);
        let peers = Arc::new(Peers::new(settings.peers.clone(), None));
        peers.follow(membership.view(), tasks);
        let sender = credentials.sender(&name);
        Ok(Self { name, membership, peers, credentials, sender, partitions: config.partitions })
    }

    /// The view, now and whenever it changes.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.membership.view()
    }

    /// The partitions that the ring gives to this node, now and whenever that changes.
    pub fn wanted(&self, tasks: &Tasks) -> watch::Receiver<Arc<BTreeSet<Partition>>> {
        let mut views = self.view();
        let (name, partitions) = (self.name.clone(), self.partitions);
        let of = move |view: &View| {
            let ring = Ring::new(view, partitions);
            let is_ours =
                |partition: &Partition| ring.owner(*partition).is_some_and(|node| node.name == name);
            Arc::new((0..partitions).map(Partition).filter(is_ours).collect::<BTreeSet<_>>())
        };
        let first = of(&views.borrow_and_update());
        let (sender, receiver) = watch::channel(first);
        let stop = tasks.shutdown_signal();
        tasks.spawn("ring", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = views.changed() => if changed.is_err() { return },
                }
                let wanted = of(&views.borrow_and_update());
                sender.send_if_modified(|held| {
                    let is_new = *held != wanted;
                    *held = wanted;
                    is_new
                });
            }
        });
        receiver
    }
}

/// This node's name: as set, or that of the machine.
fn node_name(config: &Config) -> anyhow::Result<NodeName> {
    let given = config.cluster.name.as_str();
    let name = match given {
        "" => std::env::var("HOSTNAME")
            .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
            .context("cluster.name is not set, and the machine has no name")?,
        _ => given.to_owned(),
    };
    NodeName::new(name.trim()).with_context(|| format!("cluster.name: {name:?}"))
}

/// The address that others are told.
fn advertised(given: &str, listen: SocketAddr, key: &str) -> anyhow::Result<SocketAddr> {
    if given.is_empty() {
        anyhow::ensure!(
            !listen.ip().is_unspecified(),
            "{key} must be set: {listen} is every address of this machine, and others need one"
        );
        return Ok(listen);
    }
    match given.parse::<std::net::IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, listen.port())),
        Err(_) => given.parse().with_context(|| format!("{key}: {given:?} is not an address")),
    }
}
