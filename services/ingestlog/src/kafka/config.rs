//! What an operator may set; docs/operations/kafka.md has the table.

use std::path::PathBuf;
use std::time::Duration;

use cambium_runtime::quantity::{ByteSize, Span};
use cambium_runtime::secret::Secret;
use serde::{Deserialize, Serialize};

/// How to reach Kafka, what the topic must be, and how much may wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Brokers to ask first, `host:port`, separated by commas.
    pub brokers: String,
    /// The topic: one for all partitions of a cluster, and of no other cluster.
    pub topic: String,
    /// On how many brokers the topic's partitions are.
    pub replication_factor: u16,
    /// On how many of them a record is when it is acknowledged.
    pub min_insync_replicas: u16,
    /// How long Kafka keeps records, at least. Whatever an ingester has not flushed by then is lost.
    pub retention: Span,
    /// Largest record. Brokers let a request have 100 MiB (`socket.request.max.bytes`).
    pub record_bytes_max: ByteSize,
    /// How long a record waits for others to share its batch.
    pub linger: Span,
    /// A batch goes at once when it has this many bytes.
    pub batch_bytes: ByteSize,
    /// How batches are compressed.
    pub compression: Compression,
    /// Bytes of records that may wait for Kafka in this process; more are refused.
    pub queue_bytes_max: ByteSize,
    /// How long Kafka may take to confirm a record, retries included.
    pub delivery_timeout: Span,
    /// How long Kafka may take to answer anything else.
    pub request_timeout: Span,
    /// Bytes read ahead for each partition that this process owns.
    pub read_ahead_bytes: ByteSize,
    /// How often an owner asks where its partition begins and ends.
    pub refresh_interval: Span,
    /// How the connection is protected.
    pub security: Security,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            topic: "cambium".to_owned(),
            replication_factor: 3,
            min_insync_replicas: 2,
            retention: Span(Duration::from_secs(7 * 86_400)),
            record_bytes_max: ByteSize(32 << 20),
            linger: Span(Duration::from_millis(5)),
            batch_bytes: ByteSize(1 << 20),
            compression: Compression::Lz4,
            queue_bytes_max: ByteSize(128 << 20),
            delivery_timeout: Span(Duration::from_secs(10)),
            request_timeout: Span(Duration::from_secs(5)),
            read_ahead_bytes: ByteSize(16 << 20),
            refresh_interval: Span(Duration::from_secs(5)),
            security: Security::default(),
        }
    }
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast.
    Lz4,
    /// Small.
    Zstd,
}

/// How the connection is protected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// What is spoken.
    pub protocol: Protocol,
    /// Certificates (PEM) of who signed the brokers'; the system's where there are none.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate (PEM), where brokers ask for one.
    pub cert_file: Option<PathBuf>,
    /// Its key (PEM).
    pub key_file: Option<PathBuf>,
    /// How the user proves who it is.
    pub mechanism: Mechanism,
    /// Who we are.
    pub user: String,
    /// The user's password; an environment variable is a better place for it than a file that is shown around.
    pub password: Option<Secret>,
    /// A file that holds it; counts before `password`.
    pub password_file: Option<PathBuf>,
}

/// What is spoken to brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Anybody may read along.
    #[default]
    Plaintext,
    /// TLS.
    Ssl,
    /// A user and a password, but anybody may read along.
    SaslPlaintext,
    /// A user and a password over TLS.
    SaslSsl,
}

impl Protocol {
    /// Kafka's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    pub(super) fn has_user(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// How a user proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    /// The password is sent: over TLS only.
    #[serde(rename = "plain")]
    Plain,
    /// The password is proved.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// The password is proved.
    #[default]
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl Mechanism {
    /// Kafka's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_text_without_its_secret() {
        let text = r#"{"brokers":"a:9092","compression":"zstd","linger":"20ms","security":
            {"protocol":"sasl_ssl","mechanism":"scram-sha-256","user":"cambium","password":"hunter2"}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.security.password.as_ref().unwrap().expose(), "hunter2");
        let (shown, written) = (format!("{config:?}"), serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2") && !written.contains("hunter2"), "{shown}\n{written}");
        assert!(written.contains(r#""linger":"20ms""#), "{written}");
        assert!(serde_json::from_str::<Config>(r#"{"broker":"a:9092"}"#).is_err(), "a misspelt setting");
    }
}
