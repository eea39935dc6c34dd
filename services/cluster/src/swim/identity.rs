//! A node as the gossip protocol sees it: which of its lives and revisions, and its description as it came.

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use crate::node::{Node, NodeError, NodeName};

/// A node in one revision. Those that a packet only refers to have no description.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) name: NodeName,
    /// A hash of the name, because foca asks for it more often than for anything else.
    name_hash: u128,
    pub(crate) life: Life,
    pub(crate) revision: u32,
    description: Option<Arc<Description>>,
}

/// Which process has the name: the later start, or, started in the same nanosecond, the higher address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Life {
    pub(crate) generation: u64,
    pub(crate) gossip: SocketAddr,
}

/// What a node says of itself. The bytes are passed on as they came, so that what a newer build says survives older ones.
#[derive(Debug)]
struct Description {
    node: Arc<Node>,
    bytes: Bytes,
}

impl Identity {
    /// This node, described by itself.
    pub(crate) fn of(node: Node) -> Result<Self, NodeError> {
        let bytes = node.encode()?.into();
        Ok(Self::new(node, bytes))
    }

    /// A node as somebody passed it on.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, NodeError> {
        Ok(Self::new(Node::decode(&bytes)?, bytes))
    }

    fn new(node: Node, bytes: Bytes) -> Self {
        let life = Life { generation: node.generation, gossip: node.gossip };
        let mut identity = Self::reference(node.name.clone(), life, node.revision);
        identity.description = Some(Arc::new(Description { node: Arc::new(node), bytes }));
        identity
    }

    /// Somebody of whom no more is said.
    pub(crate) fn reference(name: NodeName, life: Life, revision: u32) -> Self {
        let name_hash = xxh3_128(name.as_str().as_bytes());
        Self { name, name_hash, life, revision, description: None }
    }

    /// The node, if it is described.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.description.as_ref().map(|description| &description.node)
    }

    /// Its description as it came.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        self.description.as_ref().map(|description| &description.bytes)
    }

    fn rank(&self) -> (Life, u32) {
        (self.life, self.revision)
    }

    /// The later of two of a name.
    pub(crate) fn rank_cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank() && self.name_hash == other.name_hash
    }
}

impl Eq for Identity {}

impl foca::Identity for Identity {
    type Addr = u128;

    /// Of a node that others believe dead: the same, a revision later.
    fn renew(&self) -> Option<Self> {
        let node = Node::clone(self.node()?);
        Self::of(Node { revision: node.revision.checked_add(1)?, ..node }).ok()
    }

    fn addr(&self) -> u128 {
        self.name_hash
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.rank_cmp(adversary).is_gt()
    }
}
