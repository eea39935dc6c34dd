//! A cluster in one thread: the cores of many nodes, a network that loses, delays, reorders, doubles and is cut, a clock that
//! nobody waits for, and one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::Xxh3;

use super::core::{Action, Core, Event};
use super::packet::Sealer;
use super::{Config, Note};
use crate::key::ClusterKey;
use crate::node::tests::node;
use crate::node::{Node, NodeState};
use crate::view::View;

mod laws;

mod names;

const KEY: &str = "correct horse battery staple";

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the network does to packets.
#[derive(Clone, Debug)]
struct Network {
    loss: f64,
    duplication: f64,
    delay: Range<Duration>,
    /// Hosts before this one and those from it on do not hear each other.
    cut_at: Option<usize>,
}

impl Network {
    fn good() -> Self {
        Self { loss: 0.0, duplication: 0.0, delay: millis(1)..millis(5), cut_at: None }
    }

    fn bad() -> Self {
        Self { loss: 0.2, duplication: 0.1, delay: millis(1)..millis(300), cut_at: None }
    }
}

/// A place for a node: it has an address whether a node runs there or not.
struct Host {
    node: Node,
    core: Option<Core>,
    /// The node, while it stands still: what is sent to it meanwhile is lost.
    stopped: Option<Core>,
    due: Duration,
    sent: u64,
    notes: Vec<Note>,
}

struct Simulation {
    now: Duration,
    rng: StdRng,
    network: Network,
    hosts: Vec<Host>,
    /// How many hosts, from the first on, are in everybody's join list.
    seeds: usize,
    due: BTreeSet<(Duration, usize)>,
    in_flight: BTreeMap<(Duration, u64), (usize, Bytes)>,
    packets: u64,
    trace: Xxh3,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            now: seconds(1_000),
            rng: StdRng::seed_from_u64(seed),
            network: Network::good(),
            hosts: Vec::new(),
            seeds: 3,
            due: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            packets: 0,
            trace: Xxh3::new(),
        }
    }

    /// So many nodes that know each other.
    fn of(seed: u64, nodes: usize) -> Self {
        let mut simulation = Self::new(seed);
        for number in 0..nodes {
            simulation.add(&format!("n{number}"), KEY);
            simulation.run(millis(20));
        }
        let joined = simulation.run_until_converged(seconds(60));
        assert!(joined.is_some(), "{nodes} nodes do not find each other");
        simulation
    }

    /// Starts a node on a new host.
    fn add(&mut self, name: &str, key: &str) -> usize {
        let generation = self.now.as_nanos() as u64;
        self.add_of(name, key, generation)
    }

    fn add_of(&mut self, name: &str, key: &str, generation: u64) -> usize {
        let index = self.hosts.len();
        let [high, low] = (index as u16).to_be_bytes();
        let gossip = SocketAddr::from(([10, 0, high, low], 7946));
        let node = Node { gossip, ..node(name, ["a", "b", "c"][index % 3]) };
        self.hosts.push(Host {
            node,
            core: None,
            stopped: None,
            due: Duration::MAX,
            sent: 0,
            notes: Vec::new(),
        });
        self.start(index, key, generation);
        index
    }

    /// Starts a host's node, which says that it is of `generation`.
    fn start(&mut self, index: usize, key: &str, generation: u64) {
        let sealer = Sealer::new("c", ClusterKey::from_setting(key).unwrap());
        let host = &mut self.hosts[index];
        host.node.generation = generation;
        host.notes.clear();
        let rng = StdRng::seed_from_u64(self.rng.random());
        let core = Core::new(Config::default(), sealer, host.node.clone(), rng, self.now).unwrap();
        host.core = Some(core);
        self.handle(index, Event::Due);
    }

    fn kill(&mut self, index: usize) {
        self.stop(index);
        self.hosts[index].stopped = None;
    }

    fn stop(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        host.stopped = host.core.take();
        self.due.remove(&(host.due, index));
    }

    fn go_on(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        host.core = host.stopped.take();
        self.handle(index, Event::Due);
    }

    fn handle(&mut self, index: usize, event: Event<'_>) {
        let Some(core) = &mut self.hosts[index].core else { return };
        let actions = core.handle(self.now, event);
        let mut left = false;
        for action in actions {
            match action {
                Action::Send { to, packet } => self.send(index, to, &packet),
                Action::Resolve => {
                    let seeds = self.hosts[..self.seeds.min(self.hosts.len())].iter();
                    let addresses = seeds.map(|host| host.node.gossip).collect();
                    self.handle(index, Event::Resolved(addresses));
                }
                Action::View(view) => self.trace.update(&view.nodes().len().to_be_bytes()),
                Action::Note(note) => self.hosts[index].notes.push(note),
                Action::Left => left = true,
            }
        }
        if left {
            return self.kill(index);
        }
        let host = &mut self.hosts[index];
        if let Some(core) = &host.core {
            self.due.remove(&(host.due, index));
            host.due = core.due().max(self.now);
            self.due.insert((host.due, index));
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, packet: &Bytes) {
        self.hosts[from].sent += 1;
        let Some(to) = self.hosts.iter().position(|host| host.node.gossip == to) else { return };
        if self.network.cut_at.is_some_and(|cut| (from < cut) != (to < cut)) {
            return;
        }
        let copies = 1 + usize::from(self.rng.random_bool(self.network.duplication));
        for _ in 0..copies {
            if !self.rng.random_bool(self.network.loss) {
                let delay = self.rng.random_range(self.network.delay.clone());
                self.packets += 1;
                self.in_flight.insert((self.now + delay, self.packets), (to, packet.clone()));
            }
        }
    }

    /// Lets `time` pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let packet = self.in_flight.first_key_value().map_or(Duration::MAX, |((at, _), _)| *at);
            let timer = self.due.first().map_or(Duration::MAX, |(at, _)| *at);
            if packet.min(timer) > end {
                break;
            }
            self.now = packet.min(timer);
            if packet <= timer {
                let ((at, _), (to, packet)) = self.in_flight.pop_first().unwrap();
                self.trace.update(&at.as_nanos().to_be_bytes());
                self.trace.update(&to.to_be_bytes());
                self.trace.update(&packet);
                self.handle(to, Event::Packet(&packet));
            } else {
                let (_, index) = self.due.pop_first().unwrap();
                self.handle(index, Event::Due);
            }
        }
        self.now = end;
    }

    /// Names in a host's view.
    fn names(&self, index: usize) -> Vec<String> {
        self.view(index).nodes().iter().map(|node| node.name.to_string()).collect()
    }

    fn living(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|index| self.hosts[*index].core.is_some())
    }

    fn view(&self, index: usize) -> &View {
        self.hosts[index].core.as_ref().expect("it lives").view()
    }

    /// Whether every living node that has its name sees all of them, as they are, and no other.
    fn has_converged(&self) -> bool {
        let members: Vec<usize> = self.living().filter(|index| self.view(*index).me().is_some()).collect();
        let mut expected: Vec<_> = members.iter().filter_map(|index| self.view(*index).me()).collect();
        expected.sort_by(|a, b| a.name.cmp(&b.name));
        members.iter().all(|index| self.view(*index).nodes().iter().eq(expected.iter().copied()))
    }

    /// How long it took until the views were right; none if it took longer than `bound`.
    fn run_until_converged(&mut self, bound: Duration) -> Option<Duration> {
        self.run_until(bound, Self::has_converged)
    }

    fn run_until(&mut self, bound: Duration, condition: impl Fn(&Self) -> bool) -> Option<Duration> {
        const STEP: Duration = Duration::from_millis(50);
        let start = self.now;
        while !condition(self) {
            if self.now - start > bound {
                return None;
            }
            self.run(STEP);
        }
        Some(self.now - start)
    }

    fn trace(&self) -> u64 {
        self.trace.digest()
    }
}
