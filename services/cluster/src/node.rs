//! What nodes say of themselves, and its form on the wire.
//!
//! Laws: a name belongs to one living node; of two nodes of a name the one that started later is it; a node whose wire
//! version this build does not speak is seen and never used.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use prost::Message;
use serde::{Deserialize, Serialize};

/// Longest name of a node, bytes: any pod's or host's short name.
pub const NODE_NAME_LENGTH_MAX: usize = 100;

/// Longest encoded node, bytes: a packet has room for its sender and two more.
pub const NODE_BYTES_MAX: usize = 480;

/// The oldest wire version that this build speaks, between nodes: gossip and internal services.
pub const WIRE_VERSION_MIN: u32 = 1;

/// The newest, which is its own.
pub const WIRE_VERSION_MAX: u32 = 1;

/// A node's name, unique in its cluster and kept over restarts: 1 to 100 characters of `[0-9A-Za-z._-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

/// Why a text is not a node's name, or bytes are not a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// No or too many characters.
    #[error("a node's name has 1 to {NODE_NAME_LENGTH_MAX} characters, this one {0}")]
    NameLength(usize),
    /// A character outside the allowed set.
    #[error("a node's name contains {0:?}, allowed are letters, digits and ._-")]
    NameCharacter(char),
    /// Not one of the four roles.
    #[error("{0:?} is not a role: distributor, ingester, querier or compactor")]
    Role(String),
    /// Zone, version or address are so long that a packet would have no room.
    #[error("a node has at most {NODE_BYTES_MAX} bytes, this one {0}: shorten zone, version or address")]
    TooLong(usize),
    /// The gossip address is not an IP address and port.
    #[error("{0:?} is not an address and port")]
    Address(String),
    /// Not a message.
    #[error("not a node")]
    Malformed(#[from] prost::DecodeError),
}

impl NodeName {
    /// Takes `name` as a node's name.
    ///
    /// # Errors
    /// It is empty, too long, or has other characters.
    pub fn new(name: &str) -> Result<Self, NodeError> {
        if name.is_empty() || name.len() > NODE_NAME_LENGTH_MAX {
            return Err(NodeError::NameLength(name.len()));
        }
        match name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
            Some(bad) => Err(NodeError::NameCharacter(bad)),
            None => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeError;

    fn try_from(name: String) -> Result<Self, NodeError> {
        Self::new(&name)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}

/// What a node does. The number is its bit on the wire and in hashes: it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Accepts profiles.
    Distributor = 0,
    /// Holds the recent head.
    Ingester = 1,
    /// Answers queries.
    Querier = 2,
    /// Merges blocks.
    Compactor = 3,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Distributor, Self::Ingester, Self::Querier, Self::Compactor];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Distributor => "distributor",
            Self::Ingester => "ingester",
            Self::Querier => "querier",
            Self::Compactor => "compactor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NodeError;

    fn from_str(text: &str) -> Result<Self, NodeError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| NodeError::Role(text.to_owned()))
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Roles(u32);

impl Roles {
    /// Every role: the single binary.
    pub fn all() -> Self {
        Role::ALL.into_iter().collect()
    }

    /// Whether `role` is among them.
    pub fn contains(self, role: Role) -> bool {
        self.0 & (1 << role as u32) != 0
    }

    /// Those among them that this build knows.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.contains(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | 1 << role as u32))
    }
}

/// What a node can be given. The number is its form on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Starting: not to be used yet.
    Joining = 1,
    /// To be used.
    Active = 2,
    /// Answers for what it has; is given nothing new.
    ReadOnly = 3,
    /// On its way out: answers while it can.
    Leaving = 4,
}

impl NodeState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Joining, Self::Active, Self::ReadOnly, Self::Leaving];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::ReadOnly => "read-only",
            Self::Leaving => "leaving",
        }
    }
}

/// A member of the cluster, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// When it started, nanoseconds since the Unix epoch: which of two nodes of a name is the later one.
    pub generation: u64,
    /// How often it has changed its description since; 0 at the start.
    pub revision: u32,
    /// Where it runs: what may fail together. Empty if nobody said.
    pub zone: String,
    /// What it does.
    pub roles: Roles,
    /// Its build, for people.
    pub version: String,
    /// What it speaks: see [`Node::is_compatible`].
    pub wire_version: u32,
    /// Where it receives gossip.
    pub gossip: SocketAddr,
    /// Where it serves internal gRPC: `host:port`.
    pub internal: String,
    /// What it can be given.
    pub state: NodeState,
}

impl Node {
    /// Whether this build and that node understand each other. One that does not is never used.
    pub fn is_compatible(&self) -> bool {
        (WIRE_VERSION_MIN..=WIRE_VERSION_MAX).contains(&self.wire_version)
    }

    /// Whether it may be given work.
    pub fn is_usable(&self) -> bool {
        self.is_compatible() && self.state == NodeState::Active
    }

    /// Its form on the wire.
    ///
    /// # Errors
    /// [`NodeError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, NodeError> {
        let wire = WireNode {
            name: self.name.as_str().to_owned(),
            generation: self.generation,
            revision: self.revision,
            zone: self.zone.clone(),
            roles: self.roles.0,
            version: self.version.clone(),
            wire_version: self.wire_version,
            gossip: self.gossip.to_string(),
            internal: self.internal.clone(),
            state: self.state as u32,
        };
        let bytes = wire.encode_to_vec();
        if bytes.len() > NODE_BYTES_MAX { Err(NodeError::TooLong(bytes.len())) } else { Ok(bytes) }
    }

    /// Reads what a node of any version says of itself. What this build does not know is left out; to pass a node on,
    /// pass on its bytes.
    ///
    /// # Errors
    /// [`NodeError`]: not a node.
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        if bytes.len() > NODE_BYTES_MAX {
            return Err(NodeError::TooLong(bytes.len()));
        }
        let wire = WireNode::decode(bytes)?;
        let state = NodeState::ALL.into_iter().find(|state| *state as u32 == wire.state);
        Ok(Self {
            name: NodeName::new(&wire.name)?,
            generation: wire.generation,
            revision: wire.revision,
            zone: wire.zone,
            roles: Roles(wire.roles),
            version: wire.version,
            wire_version: wire.wire_version,
            gossip: wire.gossip.parse().map_err(|_| NodeError::Address(wire.gossip))?,
            internal: wire.internal,
            // Of a state that is newer than this build only so much is sure: it is not the one in which nodes are used.
            state: state.unwrap_or(NodeState::Joining),
        })
    }
}

/// [`Node`] on the wire. Tags are for ever; a new field gets the next one, and old builds pass it on unread.
#[derive(Clone, PartialEq, Message)]
struct WireNode {
    #[prost(string, tag = "1")]
    name: String,
    /// Nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "2")]
    generation: u64,
    #[prost(uint32, tag = "3")]
    revision: u32,
    #[prost(string, tag = "4")]
    zone: String,
    /// A bit for each role: 1 distributor, 2 ingester, 4 querier, 8 compactor.
    #[prost(uint32, tag = "5")]
    roles: u32,
    #[prost(string, tag = "6")]
    version: String,
    #[prost(uint32, tag = "7")]
    wire_version: u32,
    /// `ip:port`.
    #[prost(string, tag = "8")]
    gossip: String,
    /// `host:port`.
    #[prost(string, tag = "9")]
    internal: String,
    /// 1 joining, 2 active, 3 read-only, 4 leaving.
    #[prost(uint32, tag = "10")]
    state: u32,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An active ingester and querier `name` that started at 1.
    pub(crate) fn node(name: &str, zone: &str) -> Node {
        Node {
            name: NodeName::new(name).unwrap(),
            generation: 1,
            revision: 0,
            zone: zone.to_owned(),
            roles: [Role::Ingester, Role::Querier].into_iter().collect(),
            version: "0.1.0".to_owned(),
            wire_version: WIRE_VERSION_MAX,
            gossip: "127.0.0.1:7946".parse().unwrap(),
            internal: "127.0.0.1:4041".to_owned(),
            state: NodeState::Active,
        }
    }

    /// The bytes of a node as a newer build would write them: one more field, one more role, a state unknown here.
    pub(crate) fn newer(node: &Node, wire_version: u32) -> Vec<u8> {
        let mut bytes = Node { wire_version, ..node.clone() }.encode().unwrap();
        // Field 5, varint 0x12 (ingester and a role of the fifth bit); field 10, varint 9; field 31, "new".
        bytes.extend_from_slice(&[5 << 3, 0x12, 10 << 3, 9, 0xfa, 0x01, 3, b'n', b'e', b'w']);
        bytes
    }

    #[test]
    fn names_are_short_and_plain() {
        let long = "a".repeat(NODE_NAME_LENGTH_MAX + 1);
        let cases = [
            ("ingester-0.eu_1", Ok(())),
            ("", Err(NodeError::NameLength(0))),
            (&long, Err(NodeError::NameLength(101))),
            ("a b", Err(NodeError::NameCharacter(' '))),
            ("<b>", Err(NodeError::NameCharacter('<'))),
        ];
        for (text, expected) in cases {
            assert_eq!(NodeName::new(text).map(|_| ()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_node_survives_the_wire() {
        for state in NodeState::ALL {
            let node = Node { state, revision: 7, generation: u64::MAX, ..node("a", "z1") };
            assert_eq!(Node::decode(&node.encode().unwrap()), Ok(node));
        }
        let wide = Node { zone: "z".repeat(NODE_BYTES_MAX), ..node("a", "") };
        assert!(matches!(wide.encode(), Err(NodeError::TooLong(_))));
        assert!(matches!(Node::decode(&[b'x'; NODE_BYTES_MAX + 1]), Err(NodeError::TooLong(_))));
        assert!(matches!(Node::decode(&[]), Err(NodeError::NameLength(0))));
        assert!(matches!(Node::decode(&[7]), Err(NodeError::Malformed(_))));
    }

    #[test]
    fn a_node_of_a_newer_build_is_read_as_far_as_it_is_understood() {
        let read = Node::decode(&newer(&node("a", "z"), WIRE_VERSION_MAX)).unwrap();
        assert_eq!(read.roles.iter().collect::<Vec<_>>(), [Role::Ingester]);
        assert_eq!(read.state, NodeState::Joining, "a state unknown here is not the one of use");
        assert!(read.is_compatible() && !read.is_usable());
        for (wire_version, compatible) in
            [(WIRE_VERSION_MIN - 1, false), (WIRE_VERSION_MIN, true), (WIRE_VERSION_MAX + 1, false)]
        {
            let node = Node { wire_version, ..node("a", "") };
            assert_eq!((node.is_compatible(), node.is_usable()), (compatible, compatible), "{wire_version}");
        }
    }

    #[test]
    fn roles_are_a_set() {
        assert_eq!("querier".parse(), Ok(Role::Querier));
        assert_eq!("query".parse::<Role>(), Err(NodeError::Role("query".to_owned())));
        assert_eq!(Roles::all().iter().collect::<Vec<_>>(), Role::ALL);
        let roles: Roles = [Role::Querier, Role::Querier].into_iter().collect();
        assert!(roles.contains(Role::Querier) && !roles.contains(Role::Ingester));
    }
}
