//! What membership tells Prometheus.

use std::collections::BTreeMap;

use cambium_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::node::NodeState;
use crate::swim::Note;
use crate::view::View;

/// The metrics of a member.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterMetrics {
    nodes: Family<StateLabel, Gauge>,
    member_changes: Family<ChangeLabel, Counter>,
    name_disputes: Counter,
    packets_refused: Family<ReasonLabel, Counter>,
    pub(crate) packets_sent: Counter,
    pub(crate) packets_received: Counter,
    pub(crate) send_failures: Counter,
    pub(crate) receive_failures: Counter,
    pub(crate) resolve_failures: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChangeLabel {
    change: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl ClusterMetrics {
    /// Registers the metrics.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let new = Self::default();
        metrics.register(|all| {
            let registry = all.sub_registry_with_prefix("cluster");
            registry.register("nodes", "Nodes in this node's view", new.nodes.clone());
            registry.register("member_changes", "What was learnt of other nodes", new.member_changes.clone());
            registry.register("packets_refused", "Gossip packets dropped", new.packets_refused.clone());
            let mut counter = |name: &str, help: &str, metric: &Counter| {
                registry.register(name, help, metric.clone());
            };
            counter("packets_sent", "Gossip packets sent", &new.packets_sent);
            counter("packets_received", "Gossip packets received", &new.packets_received);
            counter("send_failures", "Gossip packets that the socket did not take", &new.send_failures);
            counter("receive_failures", "Failures of the socket to receive", &new.receive_failures);
            counter("resolve_failures", "Names of the join list without an address", &new.resolve_failures);
            counter("name_disputes", "Times that two living nodes had one name", &new.name_disputes);
        });
        new
    }

    /// Shows how many nodes are in which state.
    pub(crate) fn show(&self, view: &View) {
        let states = NodeState::ALL.map(NodeState::as_str).into_iter().chain(["incompatible", "down"]);
        let mut counts: BTreeMap<&'static str, i64> = states.map(|state| (state, 0)).collect();
        for node in view.nodes() {
            let state = if node.is_compatible() { node.state.as_str() } else { "incompatible" };
            *counts.entry(state).or_default() += 1;
        }
        *counts.entry("down").or_default() += view.down().len() as i64;
        for (state, count) in counts {
            self.nodes.get_or_create(&StateLabel { state }).set(count);
        }
    }

    /// Counts what the core noted.
    pub(crate) fn count(&self, note: &Note) {
        let change = match note {
            Note::Refused(reason) => {
                self.packets_refused.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
                return;
            }
            Note::NameDisputed { .. } | Note::NameLost { .. } => {
                self.name_disputes.inc();
                return;
            }
            Note::Up(_) => "up",
            Note::Down(_) => "down",
            Note::Restarted(_) => "restarted",
            Note::Changed(_) => "changed",
            Note::Rejoined => "rejoined",
        };
        self.member_changes.get_or_create(&ChangeLabel { change }).inc();
    }
}
