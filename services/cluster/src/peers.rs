//! From a node to a gRPC channel, and who is at the other end.
//!
//! ```text
//!   node ──► Peers ──► Channel (lazy; one for each life and address of a node; gone when the node is)
//!                        │  connector: TCP, TLS, or a test's own
//!   call ──► Sender: token, name, wire version ──► Guard: checked before any service sees it
//! ```

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cambium_runtime::error::{HasKind, Kind};
use cambium_runtime::quantity::Span;
use cambium_runtime::tasks::Tasks;
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::node::{Node, NodeName};
use crate::view::View;

pub mod credentials;

pub mod tls;

pub use credentials::{Caller, CredentialError, Credentials, Guard, Sender};
pub use tls::{Tls, TlsError};

/// The settings of channels to other nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a connection may take to come about.
    pub connect_timeout: Span,
    /// How often an idle connection is asked whether it still is one.
    pub keepalive_interval: Span,
    /// How long the answer may take before the connection is given up.
    pub keepalive_timeout: Span,
}

impl Default for Config {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self { connect_timeout: seconds(2), keepalive_interval: seconds(10), keepalive_timeout: seconds(5) }
    }
}

/// A connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Makes connections to addresses; TLS, if configured, is spoken over them.
pub type Connector = Arc<dyn Fn(Uri) -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync>;

/// Why there is no channel to a node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It speaks another wire version.
    #[error("node {node} speaks wire version {wire_version}, which this build does not")]
    Incompatible {
        /// The node.
        node: NodeName,
        /// Its version.
        wire_version: u32,
    },
    /// Its address is none, or TLS cannot be spoken with it.
    #[error("node {node} at {address:?} cannot be connected to")]
    Address {
        /// The node.
        node: NodeName,
        /// What it says its address is.
        address: String,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Incompatible { .. } | Self::Address { .. } => Kind::Unavailable,
        }
    }
}

/// Channels to the nodes of a view.
pub struct Peers {
    config: Config,
    tls: Option<ClientTlsConfig>,
    connector: Option<Connector>,
    channels: Mutex<HashMap<NodeName, Held>>,
}

struct Held {
    generation: u64,
    internal: String,
    channel: Channel,
}

impl Held {
    fn is_to(&self, node: &Node) -> bool {
        self.generation == node.generation && self.internal == node.internal
    }
}

impl Peers {
    /// Channels over TCP, in TLS if it is given.
    pub fn new(config: Config, tls: Option<ClientTlsConfig>) -> Self {
        Self { config, tls, connector: None, channels: Mutex::default() }
    }

    /// Channels over connections of the caller's making.
    pub fn with_connector(config: Config, tls: Option<ClientTlsConfig>, connector: Connector) -> Self {
        Self { connector: Some(connector), ..Self::new(config, tls) }
    }

    /// The channel to a node: it connects when it is first used, and again when it must.
    ///
    /// # Errors
    /// [`Error`]: not with this node. That it cannot be reached is an error of the call.
    pub fn channel(&self, node: &Node) -> Result<Channel, Error> {
        if !node.is_compatible() {
            return Err(Error::Incompatible { node: node.name.clone(), wire_version: node.wire_version });
        }
        let mut channels = self.held();
        if let Some(held) = channels.get(&node.name)
            && held.is_to(node)
        {
            return Ok(held.channel.clone());
        }
        let channel = self.connect(node).map_err(|source| {
            let address = node.internal.clone();
            Error::Address { node: node.name.clone(), address, source }
        })?;
        let (generation, internal) = (node.generation, node.internal.clone());
        channels.insert(node.name.clone(), Held { generation, internal, channel: channel.clone() });
        Ok(channel)
    }

    fn connect(&self, node: &Node) -> Result<Channel, tonic::transport::Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", node.internal))?
            .connect_timeout(self.config.connect_timeout.0)
            .http2_keep_alive_interval(self.config.keepalive_interval.0)
            .keep_alive_timeout(self.config.keepalive_timeout.0)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.clone())?;
        }
        let Some(connector) = &self.connector else { return Ok(endpoint.connect_lazy()) };
        let connector = Arc::clone(connector);
        let connect = move |uri| {
            let connecting = connector(uri);
            async move { connecting.await.map(TokioIo::new) }
        };
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(connect)))
    }

    /// Drops the channels to nodes that are not in the view as they were.
    pub fn retain(&self, view: &View) {
        self.held().retain(|name, held| view.get(name).is_some_and(|node| held.is_to(node)));
    }

    /// Does so whenever the view changes.
    pub fn follow(self: &Arc<Self>, mut views: watch::Receiver<Arc<View>>, tasks: &Tasks) {
        let (peers, shutdown) = (Arc::clone(self), tasks.shutdown_signal());
        let following = async move {
            while views.changed().await.is_ok() {
                let view = Arc::clone(&views.borrow_and_update());
                peers.retain(&view);
            }
        };
        tasks.spawn("peers", async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = following => {}
            }
        });
    }

    fn held(&self) -> MutexGuard<'_, HashMap<NodeName, Held>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.held().keys()).finish()
    }
}

#[cfg(test)]
mod tests;
