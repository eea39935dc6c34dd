//! An object store by its address: the one place that knows which there are.
//!
//! ```text
//!   /a/folder, file:///a/folder ─► DurableLocal                       ┐
//!   s3://bucket/prefix          ─► S3, or what speaks it              │
//!   gs://bucket/prefix          ─► Google Cloud Storage               ├─► one that honours put-if-absent, or none
//!   az://container/prefix       ─► Azure                              │
//!   memory://                   ─► gone with the process, for tests   ┘
//! ```
//!
//! Credentials are those of the settings; else those that the environment has, in the way each cloud has it: variables, the
//! token of a web identity, or the machine's own. Law: a conditional put decides races, so a store that does not
//! honour it is refused before anything is written ([`prove_conditional_put`]).

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use cambium_runtime::error::{HasKind, Kind};
use cambium_runtime::secret::Secret;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig, path};

use crate::guarded::Bounds;
use crate::local::DurableLocal;
use config::{BACKOFF_BASE, BACKOFF_FIRST, BACKOFF_MAX, Encryption};

pub mod config;

mod probe;

pub use config::Config;
pub use probe::prove_conditional_put;

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an address of a store.
    #[error(
        "{address:?} is not a folder, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or memory://"
    )]
    Address {
        /// What was given.
        address: String,
    },
    /// The prefix cannot be part of an object's path.
    #[error("{address:?}: the prefix")]
    Prefix {
        /// What was given.
        address: String,
        /// What is wrong with it.
        #[source]
        source: path::Error,
    },
    /// The folder cannot be made, synced or opened.
    #[error("folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that the settings name cannot be read.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The settings do not make a store.
    #[error("{address}: the settings do not make a store")]
    Settings {
        /// Which.
        address: String,
        /// What is missing or wrong.
        #[source]
        source: object_store::Error,
    },
    /// The store could not be tried out.
    #[error("{store}: cannot {doing} {path}")]
    Probe {
        /// Which.
        store: String,
        /// What was tried.
        doing: &'static str,
        /// The object.
        path: String,
        /// What the store said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// The store has replaced an object that it was told to leave.
    #[error(
        "{store} ignores If-None-Match: * and has replaced {path}. Two ingesters could replace each other's blocks. Use a store, \
         or a version of it, that has conditional writes"
    )]
    Unconditional {
        /// Which.
        store: String,
        /// The object.
        path: String,
    },
}

impl HasKind for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Address { .. } | Self::Prefix { .. } | Self::Settings { .. } => Kind::Invalid,
            Self::Folder { .. } | Self::File { .. } | Self::Unconditional { .. } => Kind::Internal,
            Self::Probe { source, .. } => match **source {
                object_store::Error::Unauthenticated { .. } => Kind::Unauthenticated,
                object_store::Error::PermissionDenied { .. } => Kind::Forbidden,
                object_store::Error::NotFound { .. } => Kind::NotFound,
                object_store::Error::NotImplemented { .. } => Kind::Unimplemented,
                _ => Kind::Unavailable,
            },
        }
    }
}

/// A store, and what its user should know.
#[derive(Clone)]
pub struct Opened {
    /// Where blocks go.
    pub store: Arc<dyn ObjectStore>,
    /// How it should be asked.
    pub bounds: Bounds,
    /// The folder, where it is one: whoever is alone there tidies it.
    pub folder: Option<DurableLocal>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Clients of clouds show their secrets.
        let store = format_args!("{}", self.store);
        f.debug_struct("Opened").field("store", &store).field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

/// Opens the store at an address. Nothing is sent yet: [`prove_conditional_put`] does.
pub fn open(address: &str, config: &Config) -> Result<Opened, Error> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("file", address));
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let invalid = || Error::Address { address: address.to_owned() };
    let failed = |source| Error::Settings { address: address.to_owned(), source };
    let remote: Arc<dyn ObjectStore> = match scheme {
        "file" if rest.is_empty() => return Err(invalid()),
        "file" => return open_folder(FilePath::new(rest)),
        "memory" if rest.is_empty() => {
            return Ok(Opened { store: Arc::new(InMemory::new()), bounds: Bounds::LOCAL, folder: None });
        }
        "s3" | "gs" | "az" if bucket.is_empty() => return Err(invalid()),
        "s3" => Arc::new(s3(bucket, config)?.build().map_err(failed)?),
        "gs" => Arc::new(gcs(bucket, config)?.build().map_err(failed)?),
        "az" => Arc::new(azure(bucket, config)?.build().map_err(failed)?),
        _ => return Err(invalid()),
    };
    let prefix = path::Path::parse(prefix.trim_end_matches('/'))
        .map_err(|source| Error::Prefix { address: address.to_owned(), source })?;
    let store: Arc<dyn ObjectStore> =
        if prefix.as_ref().is_empty() { remote } else { Arc::new(PrefixStore::new(remote, prefix)) };
    Ok(Opened { store, bounds: Bounds::REMOTE, folder: None })
}

fn open_folder(path: &FilePath) -> Result<Opened, Error> {
    let folder =
        DurableLocal::open(path).map_err(|source| Error::Folder { path: path.to_owned(), source })?;
    Ok(Opened { store: Arc::new(folder.clone()), bounds: Bounds::LOCAL, folder: Some(folder) })
}

fn s3(bucket: &str, config: &Config) -> Result<AmazonS3Builder, Error> {
    let settings = &config.s3;
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client(config)?)
        .with_retry(retry(config))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_virtual_hosted_style_request(settings.virtual_hosted);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(id) = &settings.access_key_id {
        builder = builder.with_access_key_id(id);
    }
    if let Some(key) =
        secret(settings.secret_access_key.as_ref(), settings.secret_access_key_file.as_deref())?
    {
        builder = builder.with_secret_access_key(key.expose());
    }
    Ok(match (settings.encryption, &settings.kms_key_id) {
        (Encryption::Bucket, _) => builder,
        (Encryption::SseS3, _) => builder.with_config(encryption_key(), "AES256"),
        (Encryption::SseKms, Some(id)) => {
            builder.with_sse_kms_encryption(id).with_bucket_key(settings.bucket_key)
        }
        (Encryption::SseKms, None) => {
            builder.with_config(encryption_key(), "aws:kms").with_bucket_key(settings.bucket_key)
        }
    })
}

fn encryption_key() -> AmazonS3ConfigKey {
    "aws_server_side_encryption".parse().expect("it is one of the client's keys")
}

fn gcs(bucket: &str, config: &Config) -> Result<GoogleCloudStorageBuilder, Error> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client(config)?)
        .with_retry(retry(config));
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(path) = &config.gcs.credentials_file {
        builder = builder.with_application_credentials(path.to_string_lossy());
    }
    Ok(builder)
}

fn azure(container: &str, config: &Config) -> Result<MicrosoftAzureBuilder, Error> {
    let settings = &config.azure;
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(client(config)?)
        .with_retry(retry(config));
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    if let Some(account) = &settings.account {
        builder = builder.with_account(account);
    }
    if let Some(key) = secret(settings.access_key.as_ref(), settings.access_key_file.as_deref())? {
        builder = builder.with_access_key(key.expose());
    }
    Ok(builder)
}

/// The secret itself, or what its file holds; the file counts first.
fn secret(text: Option<&Secret>, file: Option<&FilePath>) -> Result<Option<Secret>, Error> {
    match file {
        None => Ok(text.cloned()),
        Some(path) => {
            Secret::read(path).map(Some).map_err(|source| Error::File { path: path.to_owned(), source })
        }
    }
}

fn client(config: &Config) -> Result<ClientOptions, Error> {
    let mut options = ClientOptions::new()
        .with_allow_http(config.allow_http)
        .with_connect_timeout(config.connect_timeout.0)
        .with_timeout(config.request_timeout.0);
    if let Some(path) = &config.ca_file {
        let failed = |source| Error::File { path: path.clone(), source };
        let text = fs::read(path).map_err(failed)?;
        let found = Certificate::from_pem_bundle(&text).map_err(|error| failed(io::Error::other(error)))?;
        if found.is_empty() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in it")));
        }
        options = found.into_iter().fold(options, ClientOptions::with_root_certificate);
    }
    Ok(options)
}

fn retry(config: &Config) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: BACKOFF_FIRST, max_backoff: BACKOFF_MAX, base: BACKOFF_BASE },
        max_retries: config.retries_max,
        retry_timeout: config.retry_timeout.0,
    }
}

#[cfg(test)]
mod tests;
