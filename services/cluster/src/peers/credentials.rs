//! Who calls: a token that only holders of the cluster's key can make, for the name and version it comes with.
//!
//! Without a key the token is the cluster's name: that keeps clusters apart, not strangers out, so it is for loopback alone.

use cambium_runtime::error::{ApiError, HasKind, Kind};
use http::HeaderMap;
use ring::hmac;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::key::ClusterKey;
use crate::node::{NodeName, WIRE_VERSION_MAX, WIRE_VERSION_MIN};

/// The header that holds the token.
pub const CLUSTER_HEADER: &str = "x-cambium-cluster";

/// The header that holds the caller's name.
pub const NODE_HEADER: &str = "x-cambium-node";

/// The header that holds the caller's wire version.
pub const WIRE_VERSION_HEADER: &str = "x-cambium-wire-version";

/// What makes and checks tokens.
#[derive(Clone, Debug)]
pub struct Credentials {
    cluster: String,
    key: Option<hmac::Key>,
}

/// Who calls, as proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its name.
    pub node: NodeName,
    /// What it speaks.
    pub wire_version: u32,
}

/// Why a call is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// A header is not there, or is not what it should be.
    #[error("header {0} is missing or malformed: this port is for nodes of the cluster")]
    Header(&'static str),
    /// The token was made with another key, for another cluster, or for another caller.
    #[error("the caller is not a node of this cluster")]
    Stranger,
    /// The caller is of a build that this one does not understand.
    #[error(
        "node {node} speaks wire version {wire_version}, this one {WIRE_VERSION_MIN} to {WIRE_VERSION_MAX}"
    )]
    WireVersion {
        /// Who calls.
        node: NodeName,
        /// What it speaks.
        wire_version: u32,
    },
}

impl HasKind for CredentialError {
    fn kind(&self) -> Kind {
        match self {
            Self::Header(_) => Kind::Unauthenticated,
            Self::Stranger => Kind::Forbidden,
            Self::WireVersion { .. } => Kind::Unprocessable,
        }
    }
}

impl Credentials {
    /// The credentials of a cluster.
    pub fn new(cluster: &str, key: Option<&ClusterKey>) -> Self {
        Self { cluster: cluster.to_owned(), key: key.map(|key| key.calls(cluster)) }
    }

    /// What `node` adds to its calls.
    pub fn sender(&self, node: &NodeName) -> Sender {
        self.sender_of_version(node, WIRE_VERSION_MAX)
    }

    fn sender_of_version(&self, node: &NodeName, wire_version: u32) -> Sender {
        let token = match &self.key {
            Some(key) => hex(hmac::sign(key, &signed(node, wire_version)).as_ref()),
            None => hex(self.cluster.as_bytes()),
        };
        Sender {
            token: token.parse().expect("hexadecimal digits are ASCII"),
            node: node.as_str().parse().expect("a node's name is ASCII"),
            wire_version: wire_version.into(),
        }
    }

    /// What lets calls with these credentials in, and no others.
    pub fn guard(&self) -> Guard {
        Guard(self.clone())
    }

    /// Who sends a request with these headers.
    ///
    /// # Errors
    /// [`CredentialError`]: nobody who may.
    pub fn check(&self, headers: &HeaderMap) -> Result<Caller, CredentialError> {
        let text = |name: &'static str| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.ok_or(CredentialError::Header(name))
        };
        let node = NodeName::new(text(NODE_HEADER)?).map_err(|_| CredentialError::Header(NODE_HEADER))?;
        let wire_version = text(WIRE_VERSION_HEADER)?.parse();
        let wire_version = wire_version.map_err(|_| CredentialError::Header(WIRE_VERSION_HEADER))?;
        let token = unhex(text(CLUSTER_HEADER)?).ok_or(CredentialError::Header(CLUSTER_HEADER))?;
        let is_ours = match &self.key {
            // In constant time.
            Some(key) => hmac::verify(key, &signed(&node, wire_version), &token).is_ok(),
            None => token == self.cluster.as_bytes(),
        };
        if !is_ours {
            return Err(CredentialError::Stranger);
        }
        if !(WIRE_VERSION_MIN..=WIRE_VERSION_MAX).contains(&wire_version) {
            return Err(CredentialError::WireVersion { node, wire_version });
        }
        Ok(Caller { node, wire_version })
    }
}

/// Adds a node's credentials to its calls.
#[derive(Clone, Debug)]
pub struct Sender {
    token: MetadataValue<Ascii>,
    node: MetadataValue<Ascii>,
    wire_version: MetadataValue<Ascii>,
}

impl Interceptor for Sender {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER_HEADER, self.token.clone());
        metadata.insert(NODE_HEADER, self.node.clone());
        metadata.insert(WIRE_VERSION_HEADER, self.wire_version.clone());
        Ok(request)
    }
}

/// Checks the credentials of calls, and leaves the [`Caller`] in the request's extensions.
#[derive(Clone, Debug)]
pub struct Guard(Credentials);

impl Interceptor for Guard {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let caller = self.0.check(request.metadata().as_ref()).map_err(ApiError::from)?;
        request.extensions_mut().insert(caller);
        Ok(request)
    }
}

fn signed(node: &NodeName, wire_version: u32) -> Vec<u8> {
    // Names have no spaces.
    format!("{node} {wire_version}").into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(cluster: &str, key: &str) -> Credentials {
        Credentials::new(cluster, ClusterKey::from_setting(key).unwrap().as_ref())
    }

    fn headers(sender: &Sender) -> HeaderMap {
        let request = sender.clone().call(Request::new(())).unwrap();
        request.metadata().as_ref().clone()
    }

    #[test]
    fn only_nodes_of_the_cluster_are_let_in() {
        const KEY: &str = "correct horse battery staple";
        let name = NodeName::new("querier-0").unwrap();
        let version = WIRE_VERSION_MAX;
        for key in [KEY, ""] {
            let ours = credentials("a", key);
            let sent = headers(&ours.sender(&name));
            assert_eq!(ours.check(&sent), Ok(Caller { node: name.clone(), wire_version: version }));
            for stranger in [credentials("b", key), credentials("a", "another secret of 16")] {
                assert_eq!(ours.check(&headers(&stranger.sender(&name))), Err(CredentialError::Stranger));
            }
            for header in [CLUSTER_HEADER, NODE_HEADER, WIRE_VERSION_HEADER] {
                let mut without = sent.clone();
                without.remove(header);
                assert_eq!(ours.check(&without), Err(CredentialError::Header(header)));
                without.insert(header, "ü".parse().unwrap());
                assert_eq!(ours.check(&without), Err(CredentialError::Header(header)));
            }
            let newer = headers(&ours.sender_of_version(&name, version + 1));
            let refused = CredentialError::WireVersion { node: name.clone(), wire_version: version + 1 };
            assert_eq!(ours.check(&newer), Err(refused));
        }
        let ours = credentials("a", KEY);
        let mut under_a_wrong_name = headers(&ours.sender(&name));
        under_a_wrong_name.insert(NODE_HEADER, "querier-1".parse().unwrap());
        assert_eq!(ours.check(&under_a_wrong_name), Err(CredentialError::Stranger));
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(unhex(&hex(&[0, 15, 255])), Some(vec![0, 15, 255]));
        assert_eq!((unhex("0"), unhex("0g"), unhex("")), (None, None, Some(vec![])));
    }
}
