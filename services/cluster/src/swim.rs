//! Membership by gossip: SWIM over UDP.
//!
//! ```text
//!   UDP ──► packet (seal) ──► core (pure; foca) ──► view ──► watch channel
//!    ▲                         │    ▲
//!    └──────── driver ◄────────┘    └── clock, join list, commands
//! ```
//!
//! Laws: the core does no I/O and knows no clock; whoever lacks the cluster's key is not heard; without a key nobody outside
//! this machine is talked to; what one member sends does not depend on how many there are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cambium_runtime::quantity::Span;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::node::Node;

mod identity;

mod codec;

pub(crate) mod packet;

mod core;

mod driver;

pub mod testing;

#[cfg(test)]
mod simulation;

pub use driver::{Deps, Swim};
pub use packet::Refusal;

/// The settings of gossip. All nodes of a cluster have the same, but for `listen` and `join`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The cluster's name: packets of another are dropped.
    pub cluster: String,
    /// Where gossip is received, UDP.
    pub listen: SocketAddr,
    /// Nodes to join through, `host:port` each. Names are resolved again each time and may stand for many nodes. Empty: this
    /// node waits for others to join through it.
    pub join: Vec<String>,
    /// How often a node that knows others asks one of the join list for members: so partitions heal.
    pub join_interval: Span,
    /// How often a node probes another.
    pub probe_interval: Span,
    /// How long an answer may take before others are asked to try; less than half of `probe_interval`.
    pub probe_timeout: Span,
    /// How long a node that did not answer may take to object before it is dead.
    pub suspicion: Span,
    /// How often news are passed on.
    pub gossip_interval: Span,
    /// How long dead nodes are remembered.
    pub forget_after: Span,
}

impl Default for Config {
    fn default() -> Self {
        let millis = |millis| Span(Duration::from_millis(millis));
        Self {
            cluster: "cambium".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7946)),
            join: Vec::new(),
            join_interval: millis(10_000),
            probe_interval: millis(500),
            probe_timeout: millis(200),
            suspicion: millis(2_500),
            gossip_interval: millis(200),
            forget_after: millis(600_000),
        }
    }
}

impl Config {
    /// # Errors
    /// [`Error::Setting`]: with these times nobody would be probed, or everybody be thought dead.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let spans = [
            ("join_interval", self.join_interval),
            ("probe_timeout", self.probe_timeout),
            ("suspicion", self.suspicion),
            ("gossip_interval", self.gossip_interval),
            ("forget_after", self.forget_after),
        ];
        if let Some((setting, _)) = spans.into_iter().find(|(_, span)| span.0.is_zero()) {
            return Err(Error::Setting { setting, problem: "is 0" });
        }
        if self.probe_timeout.0 * 2 > self.probe_interval.0 {
            return Err(Error::Setting {
                setting: "probe_timeout",
                problem: "is more than half of probe_interval",
            });
        }
        Ok(())
    }
}

/// What the core wants known: for metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// A packet was dropped.
    Refused(Refusal),
    /// A node is there.
    Up(Arc<Node>),
    /// A node has left or died.
    Down(Arc<Node>),
    /// Another life of a node is there.
    Restarted(Arc<Node>),
    /// A node has changed its description.
    Changed(Arc<Node>),
    /// Others had thought this node dead.
    Rejoined,
    /// Two living nodes at different addresses have one name.
    NameDisputed {
        /// Whose it is.
        later: Arc<Node>,
        /// Who loses it.
        earlier: Arc<Node>,
    },
    /// A later node has this one's name.
    NameLost {
        /// That node.
        later: Arc<Node>,
    },
}
