//! What an operator may set of a remote store; docs/operations/object-stores.md has the table.

use std::path::PathBuf;
use std::time::Duration;

use cambium_runtime::quantity::Span;
use cambium_runtime::secret::Secret;
use serde::{Deserialize, Serialize};

/// Wait before a request is repeated: the first, the longest, and by what it grows.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(100);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(5);
pub(super) const BACKOFF_BASE: f64 = 2.0;

/// How to reach a store that is not a folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the store answers, `https://host:port`; the cloud's own address where there is none.
    pub endpoint: Option<String>,
    /// Whether it may be spoken to without TLS.
    pub allow_http: bool,
    /// Certificates (PEM) of who signed the store's, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a connection may take to be made.
    pub connect_timeout: Span,
    /// How long a request may take, its body included.
    pub request_timeout: Span,
    /// How often a request that the store has failed is repeated.
    pub retries_max: usize,
    /// No request is repeated after this.
    pub retry_timeout: Span,
    /// For `s3://`.
    pub s3: S3,
    /// For `gs://`.
    pub gcs: Gcs,
    /// For `az://`.
    pub azure: Azure,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: None,
            allow_http: false,
            ca_file: None,
            connect_timeout: Span(Duration::from_secs(5)),
            request_timeout: Span(Duration::from_secs(60)),
            retries_max: 10,
            retry_timeout: Span(Duration::from_secs(60)),
            s3: S3::default(),
            gcs: Gcs::default(),
            azure: Azure::default(),
        }
    }
}

/// S3, or what speaks it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// Where the bucket is; `us-east-1` where nothing says.
    pub region: Option<String>,
    /// Whether the bucket is part of the host's name, which an `endpoint` must have then, and not of the path.
    pub virtual_hosted: bool,
    /// A key's id; the environment's credentials where there is none.
    pub access_key_id: Option<String>,
    /// The key.
    pub secret_access_key: Option<Secret>,
    /// A file that holds the key; counts before it.
    pub secret_access_key_file: Option<PathBuf>,
    /// How the store encrypts what it keeps.
    pub encryption: Encryption,
    /// Which of the key service's keys; its default where there is none.
    pub kms_key_id: Option<String>,
    /// Whether the bucket's own key stands between, which asks the key service less.
    pub bucket_key: bool,
}

/// How the store encrypts what it keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// As the bucket is set to.
    #[default]
    Bucket,
    /// With keys of the store's own.
    SseS3,
    /// With a key of the key service.
    SseKms,
}

/// Google Cloud Storage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gcs {
    /// A service account's key, or a workload identity's configuration (JSON); the environment's where there is none.
    pub credentials_file: Option<PathBuf>,
}

/// Azure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Azure {
    /// The storage account.
    pub account: Option<String>,
    /// Its key; the environment's credentials where there is none.
    pub access_key: Option<Secret>,
    /// A file that holds the key; counts before it.
    pub access_key_file: Option<PathBuf>,
}
