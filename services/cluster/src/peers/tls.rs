//! TLS between nodes, from PEM files.

use std::path::{Path, PathBuf};

use cambium_runtime::error::{HasKind, Kind};
use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// TLS among the nodes of a cluster: each has a certificate of one authority, shows it when it calls and when it is called, and
/// talks to nobody without one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The authority's certificate.
    pub ca: PathBuf,
    /// This node's certificate, for servers and clients.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The name in every node's certificate. Empty: each has the one by which it is called.
    #[serde(default)]
    pub server_name: String,
}

/// A file of TLS cannot be read. What is wrong inside it shows when it is used.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read", path.display())]
pub struct TlsError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

impl HasKind for TlsError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Tls {
    /// What a caller needs.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn client(&self) -> Result<ClientTlsConfig, TlsError> {
        let config = ClientTlsConfig::new().ca_certificate(self.authority()?).identity(self.identity()?);
        Ok(if self.server_name.is_empty() { config } else { config.domain_name(&self.server_name) })
    }

    /// What a server needs: callers without a certificate of the authority are refused.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn server(&self) -> Result<ServerTlsConfig, TlsError> {
        Ok(ServerTlsConfig::new().identity(self.identity()?).client_ca_root(self.authority()?))
    }

    fn authority(&self) -> Result<Certificate, TlsError> {
        read(&self.ca).map(Certificate::from_pem)
    }

    fn identity(&self) -> Result<Identity, TlsError> {
        Ok(Identity::from_pem(read(&self.cert)?, read(&self.key)?))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError { path: path.to_owned(), source })
}
