//! Why a node cannot take part.

use std::net::SocketAddr;

use cambium_runtime::error::{HasKind, Kind};

use crate::node::NodeError;

/// Everything that can keep a node from its cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be described to others.
    #[error("this node: {0}")]
    Node(#[from] NodeError),
    /// A setting of gossip makes no sense.
    #[error("gossip's setting {setting} {problem}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Without a key everybody on the network could join.
    #[error("gossip at {address} needs a cluster key: without one only loopback addresses are allowed")]
    KeyNeeded {
        /// The address.
        address: SocketAddr,
    },
    /// Others cannot send to an unspecified address.
    #[error("{address} is not an address at which others find this node")]
    Unspecified {
        /// The address.
        address: SocketAddr,
    },
    /// The socket could not be opened.
    #[error("cannot listen for gossip at {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It has said goodbye.
    #[error("this node has left the cluster")]
    Left,
    /// Its gossip has ended without a goodbye.
    #[error("membership has stopped")]
    Stopped,
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Node(_) | Self::Setting { .. } | Self::KeyNeeded { .. } | Self::Unspecified { .. } => {
                Kind::Invalid
            }
            Self::Bind { .. } | Self::Left | Self::Stopped => Kind::Unavailable,
        }
    }
}
